"""A model's calibration: the overlap with an expert's outline to expect of a segmentation, from features of its doubt.

The Dice coefficient with an expert's outline is modelled as a logistic function of a few features, each of which is
larger the more doubt there is, so that no weight is positive. The interval follows the residuals of cases that the fit
did not see, at the overlap that is expected. Needs numpy alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.typed_json import build
from ..recipe import QUALITIES

FORMAT = 1
LOW_OVERLAP = 0.7
"""An expected overlap below it means that the outline is probably wrong, or that the scan shows another organ."""
INTERVAL = 0.8
"""Probability that the overlap with an expert's outline lies in the interval."""
MIN_CASES = 8
"""Fewest cases to calibrate a model on."""


@dataclass(frozen=True)
class ExpectedOverlap:
    """Dice (0 to 1) to expect between a segmentation and an expert's outline, with its 80% interval.

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
class OverlapModel:
    """The expected overlap as a function of features.

    features: names. means, deviations: to standardise them. weights: of the standardised features, none positive.
    bias: the logit of the overlap at the means. knots: expected overlaps, increasing, at which `lows` and `highs` are
    the ends of the interval; between them these are interpolated.
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
        """Return the expected overlap (0 to 1) at `features`, which hold at least those of this model."""
        numbers = np.array([features[name] for name in self.features], float)
        score = self.bias + ((numbers - self.means) / self.deviations) @ np.array(self.weights)
        return float(sigmoid(score))

    def expect(self, features: Mapping[str, float]) -> ExpectedOverlap:
        """Return the expected overlap and its interval at `features`."""
        value = self.value(features)
        low, high = (float(np.interp(value, self.knots, ends)) for ends in (self.lows, self.highs))
        return ExpectedOverlap(value, min(low, value), max(high, value))

    def is_sound(self) -> bool:
        """Return whether the numbers can be used: finite, as many as there are features or knots, knots increasing."""
        numbers = (*self.means, *self.deviations, *self.weights, self.bias, *self.knots, *self.lows, *self.highs)
        per_feature = {len(values) for values in (self.features, self.means, self.deviations, self.weights)}
        per_knot = {len(values) for values in (self.knots, self.lows, self.highs)}
        return (
            all(map(math.isfinite, numbers))
            and min(self.deviations, default=0) > 0
            and len(per_feature) == len(per_knot) == 1
            and len(self.knots) > 0
            and bool((np.diff(self.knots) > 0).all())
        )


@dataclass(frozen=True)
class Calibration:
    """What a model's doubt means, by quality.

    model: checksum of the model's card, which binds the calibration to these weights. qualities: the models by quality.
    cases, scans: how many cases it was made on, and how many scans of them, disturbed ones included.
    notes: in plain words, which cases, and what they were to the model's training. measured: figures on cases that a
    calibration made in the same way had not seen.
    """

    model: str
    qualities: dict[str, OverlapModel]
    cases: int
    scans: int
    notes: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    def expect(self, quality: str, features: Mapping[str, float]) -> ExpectedOverlap | None:
        """Return the expected overlap of a scan segmented in `quality`; None if that was not calibrated."""
        model = self.qualities.get(quality)
        return model.expect(features) if model is not None else None

    def to_json(self) -> str:
        """Return the calibration as the text of a JSON file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_calibration(text: str | bytes, path: Path) -> Calibration:
    """Return the calibration in the JSON text of the file `path`.

    Raises:
        InputError: the text is no calibration, or one of another format.
    """
    try:
        data = json.loads(text)
        found = data.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"the calibration cannot be read ({error})", path=path) from error
    if found != FORMAT:
        raise InputError(
            f"the calibration is of format {found}; this DCAMT reads format {FORMAT}", path=path, remedy="Update DCAMT."
        )
    calibration: Calibration = build(Calibration, data, path, "calibration")
    for quality, model in calibration.qualities.items():
        if quality not in QUALITIES or not model.is_sound():
            raise InputError(f"the calibration's numbers for quality '{quality}' cannot be used", path=path)
    return calibration


def sigmoid(score: np.ndarray | float) -> np.ndarray:
    """Return 1 / (1 + exp(-score)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(score, float))))
