"""Recognise Hounsfield units (HU) and padding by intensities."""

from __future__ import annotations

import numpy as np

AIR_AND_LUNG_HU = (-1200, -500)
"""Lowest and highest intensity of air and lung in CT, including noise."""
TISSUE_HU = -300
"""Lowest intensity of tissue in CT, including noise."""
AIR_AND_LUNG_FRACTION = 0.01
"""A channel in HU has at least this fraction of voxels with an intensity of air or lung."""
BESIDE_AIR_AND_LUNG = 1 / 3
"""Highest value of `(darker + between) / air_and_lung` in a channel in HU (see `is_hounsfield`)."""
PADDING_FRACTION = 0.1
"""If at least this fraction of the voxels darker than air has the same value, the value is padding."""
UNKNOWN_MODALITIES = ("", "OT")
"""DICOM modalities that do not state whether a scan is in HU; OT means "other"."""


def is_hounsfield(channel: np.ndarray, modality: str) -> bool:
    """Return whether a channel is in HU, by its DICOM modality or, if that is unknown, by the intensities.

    The histogram of a channel in HU has a peak at air and lung. Noise of MRI around 0 has no such peak.
    """
    if modality not in UNKNOWN_MODALITIES:
        return modality == "CT"
    low, high = AIR_AND_LUNG_HU
    air_and_lung = np.count_nonzero((low <= channel) & (channel <= high))
    between = np.count_nonzero((high < channel) & (channel < TISSUE_HU))
    darker = np.count_nonzero(channel < low) - np.count_nonzero(padding_mask(channel))
    return bool(
        air_and_lung >= AIR_AND_LUNG_FRACTION * channel.size and darker + between <= BESIDE_AIR_AND_LUNG * air_and_lung
    )


def padding_mask(channel: np.ndarray) -> np.ndarray:
    """Return the mask of the voxels that are padding, as `PADDING_FRACTION` defines."""
    mask = channel < AIR_AND_LUNG_HU[0]
    rounded = np.rint(channel[mask])
    values, counts = np.unique(rounded, return_counts=True)
    mask[mask] = np.isin(rounded, values[counts >= PADDING_FRACTION * len(rounded)])
    return mask
