"""Find slices that were probably never written, although the file has its full size."""

from __future__ import annotations

import numpy as np

_FEW_ZEROS = 0.2
"""Largest fraction of zeros in a slice without padding or mask."""
_MANY_ZEROS = 0.5


def blank_slices_note(voxels: np.ndarray) -> tuple[str, ...]:
    """Return a note if blank slices of a scan (C, I, J, K) were probably never written.

    A slice is blank if at least `_MANY_ZEROS` of its voxels are zeros.
    """
    slices = voxels.shape[3]
    numbers = sorted({k + 1 for channel in voxels for k in _blank_slices(channel)})
    if not numbers:
        return ()
    first, number = numbers[0], len(numbers)
    which = f"slice {first}" if number == 1 else f"{number} slices, the first is slice {first}"
    return (
        f"Mostly or only zeros: {which}. The scan has {slices} slices. If these zeros are not padding, the file is"
        " incomplete, as after an interrupted download: copy it again.",
    )


def _blank_slices(voxels: np.ndarray) -> list[int]:
    """Return the indices of blank slices along the last axis, or [] if they may be padding or a masked background."""
    rows, columns, slices = voxels.shape
    zeros = 1 - np.array([np.count_nonzero(voxels[:, :, k]) for k in range(slices)]) / (rows * columns)
    blank, noisy = zeros >= _MANY_ZEROS, zeros <= _FEW_ZEROS
    perhaps_half_written = np.convolve(blank, np.ones(3), "same") > 0
    begins_with_padding = not noisy[0]
    has_padding = begins_with_padding or not (noisy | perhaps_half_written).all()
    return [] if has_padding else np.flatnonzero(blank).tolist()
