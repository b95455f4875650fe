"""Define thresholds of enhancement and settings for sampling the wall, with their sources."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

IIR = "iir"
"""Kind of threshold: image intensity ratio, wall sample / blood pool mean (Khurram, Heart Rhythm 11:85, 2014)."""
SD = "sd"
"""Kind of threshold: standard deviations above the blood pool mean."""

MAXIMUM = "maximum"
MEAN = "mean"
SAMPLES = (MAXIMUM, MEAN)
"""Statistics of the intensities along a normal; CemrgApp uses the maximum by default."""

WALL_FROM_MM = -1.0
"""Start of a wall sample: 1 mm inside the surface, since outlines are inexact by about a voxel."""
WALL_TO_MM = 3.0
"""End of a wall sample; the atrial wall is 2.4 ± 0.7 mm thick (Varela, IEEE Trans Med Imaging 2017)."""

LONGEST_NORMAL_MM = 10.0
"""Largest distance of a wall sample from the surface; farther away lie other organs."""


@dataclass(frozen=True)
class Threshold:
    """A threshold of enhancement: `value` is a ratio (kind `IIR`) or a number of standard deviations (kind `SD`)."""

    kind: str
    value: float

    @property
    def name(self) -> str:
        """The name that `parse_threshold` reads: "iir-1.2", "sd-3"; the name has all digits of the value."""
        return f"{self.kind}-{np.format_float_positional(self.value, trim='-')}"

    @property
    def text(self) -> str:
        """The text for the user: "IIR > 1.2", "blood pool mean + 3 SD"."""
        return f"IIR > {self.value:g}" if self.kind == IIR else f"blood pool mean + {self.value:g} SD"

    def ratio(self, mean: float, sd: float) -> float:
        """Return the threshold as a ratio to the blood pool's mean."""
        return self.value if self.kind == IIR else (mean + self.value * sd) / mean


@dataclass(frozen=True)
class Preset:
    """A published threshold and its source."""

    threshold: Threshold
    source: str


PRESETS = (
    Preset(Threshold(IIR, 0.97), "Khurram, Heart Rhythm 2014: corresponds to a bipolar voltage below 0.5 mV"),
    Preset(Threshold(IIR, 1.2), "Benito, Europace 2017: fibrosis"),
    Preset(Threshold(IIR, 1.32), "Benito, Europace 2017: dense scar"),
    Preset(Threshold(IIR, 1.61), "Khurram, Heart Rhythm 2014: corresponds to a bipolar voltage below 0.1 mV"),
    Preset(Threshold(SD, 2.0), "CemrgApp, SD method"),
    Preset(Threshold(SD, 3.0), "CemrgApp, SD method"),
    Preset(Threshold(SD, 3.3), "CemrgApp, SD method"),
)
DEFAULT_THRESHOLD = Threshold(IIR, 1.2)
LARGEST_VALUE = 20.0
"""Largest value of a threshold; larger ones are refused, as they are probably typing errors."""

METHODS_DISAGREE = (
    "Methods disagree. Compare two results only if both have the same method and threshold. For research use only."
)


def parse_threshold(name: str) -> Threshold:
    """Return the threshold with a name such as "iir-1.25".

    Raises InputError if the name has another form, or if the value is 0 or exceeds `LARGEST_VALUE`.

    >>> parse_threshold("iir-1.2").text
    'IIR > 1.2'
    """
    match = re.fullmatch(rf"({IIR}|{SD})-(\d+(?:\.\d+)?)", name.strip().lower())
    value = float(match[2]) if match else math.nan
    if match is None or not 0 < value <= LARGEST_VALUE:
        known = ", ".join(preset.threshold.name for preset in PRESETS)
        raise InputError(
            f"the threshold '{name}' is not known",
            remedy=f"Use {known}, or a number of your own such as iir-1.25 or sd-2.5 (up to {LARGEST_VALUE:g}).",
        )
    return Threshold(match[1], value)


@dataclass(frozen=True)
class WallSettings:
    """The sampling of the wall, and the threshold of enhancement.

    Raises InputError if `sample` is not in `SAMPLES`, if `from_mm` is not less than `to_mm`, or if the magnitude of
    `from_mm` or `to_mm` exceeds `LONGEST_NORMAL_MM`.

    Attributes:
        sample: `MAXIMUM` or `MEAN` of the intensities from `from_mm` to `to_mm` along the outward normal.
    """

    threshold: Threshold = DEFAULT_THRESHOLD
    sample: str = MAXIMUM
    from_mm: float = WALL_FROM_MM
    to_mm: float = WALL_TO_MM

    def __post_init__(self) -> None:
        if self.sample not in SAMPLES:
            raise InputError(f"the wall sample '{self.sample}' is not known", remedy=f"Use {' or '.join(SAMPLES)}.")
        if not -LONGEST_NORMAL_MM <= self.from_mm < self.to_mm <= LONGEST_NORMAL_MM:
            raise InputError(
                f"the wall cannot be sampled from {self.from_mm:g} to {self.to_mm:g} mm",
                remedy=f"Give the smaller distance first, and both within {LONGEST_NORMAL_MM:g} mm of the surface.",
            )
