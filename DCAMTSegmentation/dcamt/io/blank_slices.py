"""Find slices that were probably never written, although the file has its full size."""

from __future__ import annotations

import numpy as np

_FEW_ZEROS = 0.2
"""Largest fraction of zeros in a slice without padding or mask: voxels of air hold noise, which is rarely 0."""
_MANY_ZEROS = 0.5


def blank_slices_note(voxels: np.ndarray) -> tuple[str, ...]:
    """Return a note if a channel of a scan (C, I, J, K) has blank slices, but few zeros in its other slices.

    A slice is blank if at least `_MANY_ZEROS` of its voxels are zeros. A program that reserves a file's space before it
    copies the file leaves zeros if it is interrupted.
    """
    slices = voxels.shape[3]
    numbers = sorted({k + 1 for channel in voxels for k in _blank_slices(channel)})
    if not numbers:
        return ()
    which = f"slice {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} slices from slice {numbers[0]} on"
    return (
        f"Mostly or only zeros: {which} (of {slices}). If these zeros are not padding, the file is"
        " incomplete, as after an interrupted download: copy it again.",
    )


def _blank_slices(voxels: np.ndarray) -> list[int]:
    """Return the indices of blank slices along the last axis, or [] if they may be padding or a masked background.

    Even an incomplete file contains data in its first slice. Therefore, if more than `_FEW_ZEROS` of this slice is 0,
    all zeros count as padding or mask, and the result is [].
    """
    rows, columns, slices = voxels.shape
    zeros = 1 - np.array([np.count_nonzero(voxels[:, :, k]) for k in range(slices)]) / (rows * columns)
    blank, noisy = zeros >= _MANY_ZEROS, zeros <= _FEW_ZEROS
    beside_blank = np.convolve(blank, np.ones(3), "same") > 0  # These slices may be written in part.
    return np.flatnonzero(blank).tolist() if noisy[0] and (noisy | beside_blank).all() else []
