"""Simulate disturbances of scans, from noise to a missing organ, for the calibration of a model.

A disturbance is a function of a scan and a random generator. It returns a new scan and leaves its argument unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np

from ..geometry import Grid


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan with its label: `image` float (C, I, J, K) and `labels` integers (I, J, K), both on `grid`."""

    image: np.ndarray
    labels: np.ndarray
    grid: Grid


Disturbance = Callable[[LabelledScan, np.random.Generator], LabelledScan]


def _for_each_channel(disturb: Disturbance) -> Disturbance:
    """Return a disturbance that applies `disturb` to each channel alone; `disturb` must keep the grid."""

    @wraps(disturb)
    def disturb_channels(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
        channels = [disturb(replace(scan, image=channel[None]), draw) for channel in scan.image]
        return replace(channels[0], image=np.concatenate([channel.image for channel in channels]))

    return disturb_channels


def add_noise(fraction: float) -> Disturbance:
    """Return a disturbance that adds noise; its standard deviation is `fraction` times each channel's 99th percentile.

    If a channel has negative intensities, as in HU, the noise is Gaussian. Otherwise the noise is Rician, as in a
    magnitude image.
    """

    @_for_each_channel
    def disturb(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
        sigma = fraction * np.percentile(scan.image, 99)
        real, imaginary = draw.normal(0, abs(sigma), (2, *scan.image.shape))
        noisy = scan.image + real
        return replace(scan, image=noisy if scan.image.min() < 0 else np.hypot(noisy, imaginary))

    return disturb


def apply_bias_field(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Multiply the scan by a smooth random field between 0.4 and 1.6."""
    from scipy import ndimage

    shape = scan.grid.shape
    field = ndimage.zoom(draw.uniform(-1, 1, (3, 3, 3)), np.array(shape) / 3, order=3)
    field = field[tuple(slice(0, n) for n in shape)]
    return replace(scan, image=scan.image * (1 + 0.6 * field / np.abs(field).max()))


def adjust_gamma(exponent: float) -> Disturbance:
    """Return a disturbance that scales each channel into [0, 1], raises it to the power `exponent` and scales back."""

    @_for_each_channel
    def disturb(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
        low, high = min(0.0, float(scan.image.min())), float(scan.image.max())
        return replace(scan, image=((scan.image - low) / (high - low)) ** exponent * (high - low) + low)

    return disturb


def blur(mm: float) -> Disturbance:
    """Return a disturbance that blurs with a Gaussian of standard deviation `mm`."""

    def disturb(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
        from scipy import ndimage

        return replace(scan, image=ndimage.gaussian_filter(scan.image, (0, *(mm / scan.grid.spacing))))

    return disturb


def coarsen(factors: tuple[int, int, int]) -> Disturbance:
    """Return a disturbance that averages blocks of `factors` voxels.

    If more than half of a block's voxels have the same label value, the block gets this value, otherwise 0. A factor is
    reduced if fewer than three blocks would remain along its axis. Voxels left over at the end of an axis are cut off.
    """

    def disturb(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
        factor = [max(1, min(f, n // 3)) for f, n in zip(factors, scan.grid.shape, strict=True)]
        i, j, k = (n // f for n, f in zip(scan.grid.shape, factor, strict=True))
        kept = tuple(slice(0, n * f) for n, f in zip((i, j, k), factor, strict=True))
        split = [size for n, f in zip((i, j, k), factor, strict=True) for size in (n, f)]

        def average(values: np.ndarray) -> np.ndarray:
            return np.asarray(values[kept].astype(float).reshape(split).mean(axis=(1, 3, 5)))

        labels = np.zeros((i, j, k), scan.labels.dtype)
        for label in np.unique(scan.labels[scan.labels != 0]):
            labels[average(scan.labels == label) > 0.5] = label
        affine = scan.grid.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [(f - 1) / 2 for f in factor]
        affine[:3, :3] = affine[:3, :3] * factor
        return LabelledScan(np.stack([average(channel) for channel in scan.image]), labels, Grid((i, j, k), affine))

    return disturb


@_for_each_channel
def reduce_contrast(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Reduce each channel's contrast to a quarter, and add noise.

    The noise's standard deviation is 0.02 times the channel's 99th percentile before the reduction.
    """
    flat = scan.image.mean() + 0.25 * (scan.image - scan.image.mean())
    return replace(scan, image=flat + draw.normal(0, 0.02 * abs(np.percentile(scan.image, 99)), scan.image.shape))


@_for_each_channel
def remove_organ(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Replace each channel by smooth noise of the same mean and standard deviation; the label becomes empty."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(draw.normal(size=scan.image.shape), (0, *(2.0 / scan.grid.spacing)))
    image = scan.image.mean() + scan.image.std() * field / field.std()
    return LabelledScan(image, np.zeros_like(scan.labels), scan.grid)


def turn_upside_down(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
    """Turn the anatomy by 180 degrees about the scan's first axis; the grid stays the same."""
    return LabelledScan(scan.image[:, :, ::-1, ::-1], scan.labels[:, ::-1, ::-1], scan.grid)


CALIBRATING: dict[str, Disturbance] = {
    "noise": add_noise(0.25),
    "blur": blur(3.0),
    "bias field": apply_bias_field,
    "gamma": adjust_gamma(2.0),
    "low contrast": reduce_contrast,
    "thick slices": coarsen((1, 1, 6)),
    "coarse voxels": coarsen((2, 2, 4)),
    "no organ": remove_organ,
    "upside down": turn_upside_down,
}
"""The disturbances for calibration: some hardly change a segmentation, one removes the organ."""
