"""Define the calibration of a model.

The overlap of a segmentation is its Dice coefficient with an expert's outline. The expected overlap is modelled as a
logistic function of a few features of the segmentation. A larger feature means a less certain segmentation, so no
weight is positive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.typed_json import build, parse_json
from ..recipe import ACCURATE, QUALITIES
from .doubt_scaling import DoubtScaling

FORMAT = 2
READABLE = (1, FORMAT)
"""Formats that can be read; a file of format 1 has no `DoubtScaling`."""
_CALIBRATE_AGAIN = "Calibrate the model again (in a terminal: dcamt models calibrate)."
LOW_OVERLAP = 0.7
"""Below this expected overlap, the outline is probably wrong, or the scan shows another organ."""
MIN_CASES = 8
NOTHING = "nothing"
"""The feature that is 1 if nothing was segmented, else 0."""
FEATURES = ("disagreement", "entropy")
"""Features that a calibration can use; `inference.doubt` defines them."""
BOTH_BRANCHES = ("disagreement",)
"""Features that compare the branches; quality `fast`, which uses one branch, lacks them."""


@dataclass(frozen=True)
class ExpectedOverlap:
    """The expected Dice (0 to 1) of a segmentation with an expert's outline, and its 80% interval.

    >>> str(ExpectedOverlap(0.921, 0.88, 0.95))
    '0.92 (0.88 to 0.95)'
    """

    value: float
    low: float
    high: float

    @property
    def is_low(self) -> bool:
        """Whether the outline is probably wrong."""
        return self.value < LOW_OVERLAP

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class OverlapFunction:
    """The expected overlap as a function of features.

    Attributes:
        means, deviations: mean and standard deviation of each feature, by which the features are standardised.
        weights: weights of the standardised features, none positive.
        bias: logit of the overlap at the means.
        knots: expected overlaps, increasing.
        lows, highs: for each knot, the ends of the interval minus the expected overlap. Between knots, lows and highs
            are interpolated linearly. Example: with knots (0.6, 0.9), lows (-0.2, -0.04) and highs (0.1, 0.03), the
            interval of the expected overlap 0.9 is 0.86 to 0.93.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    knots: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    def value(self, features: Mapping[str, float]) -> float:
        """Return the expected overlap (0 to 1) for {feature name: value}; unused features are ignored."""
        numbers = np.array([features[name] for name in self.features], float)
        score = self.bias + ((numbers - self.means) / self.deviations) @ np.array(self.weights)
        return float(sigmoid(score))

    def expect(self, features: Mapping[str, float]) -> ExpectedOverlap:
        """Return the expected overlap and its interval for {feature name: value}."""
        value = self.value(features)
        low, high = (value + float(np.interp(value, self.knots, ends)) for ends in (self.lows, self.highs))
        return ExpectedOverlap(value, min(max(0.0, low), value), max(min(1.0, high), value))

    def is_sound(self) -> bool:
        """Return whether the numbers can be used."""
        numbers = (*self.means, *self.deviations, *self.weights, self.bias, *self.knots, *self.lows, *self.highs)
        per_feature = {len(values) for values in (self.features, self.means, self.deviations, self.weights)}
        per_knot = {len(values) for values in (self.knots, self.lows, self.highs)}
        return (
            all(map(math.isfinite, numbers))
            and min(self.deviations, default=0) > 0
            and max(self.weights, default=0) <= 0
            and len(per_feature) == len(per_knot) == 1
            and len(self.knots) > 0
            and bool((np.diff(self.knots) > 0).all())
        )


@dataclass(frozen=True)
class Calibration:
    """A model's calibration: the expected overlap as a function of features, and a scaling of the map of doubt.

    Attributes:
        model: `Card.checksum` of the calibrated model.
        qualities: an `OverlapFunction` for each calibrated quality.
        scans: number of scans, including the disturbed copies (`inference.disturbances`).
        notes: a description of the cases and their role in the model's training.
        measured: the calibration's accuracy, from cross-validation over the cases.
        doubt: None if the map of doubt is not scaled, as in calibrations of format 1.
    """

    model: str
    qualities: dict[str, OverlapFunction]
    cases: int
    scans: int
    notes: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    doubt: DoubtScaling | None = None
    format: int = FORMAT

    def expect(self, quality: str, features: Mapping[str, float]) -> ExpectedOverlap | None:
        """Return the expected overlap of a scan's segmentation in `quality`; None if the quality was not calibrated."""
        function = self.qualities.get(quality)
        if function is None:
            return None
        # An empty segmentation has no overlap with any outline.
        return ExpectedOverlap(0.0, 0.0, 0.0) if features[NOTHING] else function.expect(features)

    def to_json(self) -> str:
        """Return the calibration as the text of a JSON file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_calibration(text: str | bytes, path: Path) -> Calibration:
    """Parse a calibration from JSON. Errors name the file `path`.

    Raises:
        InputError: the text is not a calibration, has an unknown format, or contains numbers that cannot be used.
    """
    try:
        data = parse_json(text)
        file_format = data.get("format")
    except (ValueError, AttributeError) as error:
        raise InputError(f"the calibration cannot be read ({error})", path=path, remedy=_CALIBRATE_AGAIN) from error
    if isinstance(file_format, int) and file_format > FORMAT:
        what = f"the calibration is of format {file_format}; this DCAMT reads formats up to {FORMAT}"
        raise InputError(what, path=path, remedy="Update DCAMT.")
    if file_format not in READABLE:
        raise InputError(f"the calibration's format is invalid ({file_format})", path=path, remedy=_CALIBRATE_AGAIN)
    calibration: Calibration = replace(build(Calibration, data, path, "calibration"), format=FORMAT)
    for quality, function in calibration.qualities.items():
        known = quality in QUALITIES and set(function.features) <= set(quality_features(quality))
        if not known or not function.is_sound():
            raise _unusable(f"numbers for quality '{quality}'", path)
    if calibration.doubt is not None and not calibration.doubt.is_sound():
        raise _unusable("scaling of the doubt", path)
    return calibration


def _unusable(part: str, path: Path) -> InputError:
    return InputError(f"the calibration's {part} cannot be used", path=path, remedy=_CALIBRATE_AGAIN)


def quality_features(quality: str) -> tuple[str, ...]:
    """Return the names of the features that segmentations of a quality have."""
    return FEATURES if quality == ACCURATE else tuple(name for name in FEATURES if name not in BOTH_BRANCHES)


def sigmoid(score: np.ndarray | float) -> np.ndarray:
    """Return 1 / (1 + exp(-score)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(score, float))))
