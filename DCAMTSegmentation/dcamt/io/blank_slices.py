"""Find slices that were probably never written, or only in part, although the file has its full size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_FEW_ZEROS = 0.2
"""A slice with a larger fraction of zeros may have padding or a masked background."""
_MANY_ZEROS = 0.5
_LONG_RUN = 0.1
"""Smallest length of a long run of zeros, as a fraction of the slice's voxels."""


def blank_slices_note(voxels: np.ndarray) -> tuple[str, ...]:
    """Return a note if slices of a scan (C, I, J, K) were probably never written, or only in part."""
    slices = voxels.shape[3]
    numbers = sorted({k + 1 for channel in voxels for k in _unwritten_slices(channel)})
    if not numbers:
        return ()
    first, number = numbers[0], len(numbers)
    which = f"slice {first}" if number == 1 else f"{number} slices, the first is slice {first}"
    return (
        f"Slices with many zeros: {which}. The scan has {slices} slices. If these zeros are not padding, the file is"
        " incomplete, for example after an interrupted download: copy the file again.",
    )


def _unwritten_slices(voxels: np.ndarray) -> list[int]:
    zeros, runs = np.empty(voxels.shape[2]), {}
    for k in range(len(zeros)):
        is_zero = _in_file_order(voxels, k) == 0
        zeros[k] = is_zero.mean()
        if run := _long_run(is_zero):
            runs[k] = run
    interrupted = _interrupted_slices(voxels, runs)
    return np.flatnonzero(interrupted | _blank_slices(zeros, interrupted)).tolist()


def _blank_slices(zeros: np.ndarray, interrupted: np.ndarray) -> np.ndarray:
    """Return which slices (K,) are blank: at least `_MANY_ZEROS` of their voxels are zeros.

    If the scan may have padding, no slice is returned as blank.

    Args:
        zeros: fraction of zeros in each slice, (K,).
        interrupted: mask of the slices that `_interrupted_slices` found, (K,): their zeros are no padding.
    """
    blank, noisy = zeros >= _MANY_ZEROS, zeros <= _FEW_ZEROS
    perhaps_half_written = np.convolve(blank, np.ones(3), "same") > 0
    begins_with_padding = not noisy[0]
    has_padding = begins_with_padding or not (noisy | perhaps_half_written | interrupted).all()
    return np.zeros_like(blank) if has_padding else blank


def _interrupted_slices(voxels: np.ndarray, runs: Mapping[int, slice]) -> np.ndarray:
    """Return which slices (K,) have a long run of zeros that is no padding.

    Neighbouring slices with long runs form a group. The group's runs are no padding if the slice before the group is
    noisy (`_is_noisy`) at the positions of the first run, and the slice after the group is noisy at the positions of
    the last run.

    Args:
        voxels: one channel, (I, J, K).
        runs: {slice index: the slice's long run of zeros}. A run is a range of positions among the slice's voxels in
            the order of the file (`_in_file_order`).
    """
    interrupted = np.zeros(voxels.shape[2], bool)
    for first in runs:
        last = first
        while last + 1 in runs:
            last += 1
        if first - 1 in runs or first == 0 or last + 1 == len(interrupted):
            continue
        neighbours = (_in_file_order(voxels, first - 1)[runs[first]], _in_file_order(voxels, last + 1)[runs[last]])
        if all(map(_is_noisy, neighbours)):
            interrupted[first : last + 1] = True
    return interrupted


def _is_noisy(values: np.ndarray) -> bool:
    """Return whether voxels have few zeros and more than one value.

    A slice of a synthetic scan may have a single value. Beside such a slice, zeros do not count as unwritten.
    """
    return bool(np.mean(values == 0) <= _FEW_ZEROS and values.min() < values.max())


def _long_run(is_zero: np.ndarray) -> slice | None:
    bounds = np.flatnonzero(np.diff(is_zero, prepend=False, append=False)).reshape(-1, 2)
    if not len(bounds):
        return None
    start, stop = bounds[np.diff(bounds).argmax()].tolist()
    return slice(start, stop) if stop - start >= _LONG_RUN * is_zero.size else None


def _in_file_order(voxels: np.ndarray, k: int) -> np.ndarray:
    return voxels[:, :, k].ravel(order="F")
