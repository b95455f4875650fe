"""Calibrate a model: segment labelled cases that its training did not use, and fit the overlap to the doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..cases.case_list import Case
from ..cases.labels import read_case_label
from ..errors import InputError
from ..io.readers import read_scan
from ..models.calibration import CLEAN, FEATURES, MIN_CASES, NOTHING, Calibration, assess_overlap, fit_overlap
from ..models.package import ModelPackage
from ..recipe import QUALITIES
from ..volume import Volume
from .disturbances import CALIBRATING, DisturbedScan
from .predictor import Predictor

DISTURBED = 4
"""Number of disturbed scans made from each case."""

MIN_SEGMENTED = 3
"""In at least this many cases something must be segmented: each case is tested on a fit to the others, at least two."""


@dataclass
class Observations:
    """Features of doubt, true overlap, case and disturbance of each scan that was segmented in one quality."""

    features: list[dict[str, float]] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)

    def select_segmented(self) -> Observations:
        """Return the observations of the scans in which something was segmented."""
        rows = zip(self.features, self.overlaps, self.cases, self.disturbances, strict=True)
        segmented = [row for row in rows if not row[0][NOTHING]]
        return Observations(
            [row[0] for row in segmented],
            [row[1] for row in segmented],
            [row[2] for row in segmented],
            [row[3] for row in segmented],
        )


def calibrate(
    package: ModelPackage,
    cases: Sequence[Case],
    predictor: Predictor,
    notes: str = "",
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Calibration:
    """Return the calibration of a package, from labelled cases that its training did not use.

    Each case is segmented in both qualities, undisturbed and with `DISTURBED` of the `CALIBRATING` disturbances.

    Args:
        package: the model.
        cases: the labelled cases.
        predictor: a predictor of this package.
        notes: a description of the cases, stored in the calibration.
        progress: called as progress(done, total) after each case.
        check: called before each segmentation; an exception that it raises ends the calibration.

    Raises:
        InputError: there are fewer than `MIN_CASES` cases, one cannot be read, or the model segments something in fewer
            than `MIN_SEGMENTED` cases.
    """
    if len(cases) < MIN_CASES:
        raise InputError(
            f"a calibration needs {MIN_CASES} labelled cases or more; there are {len(cases)}",
            remedy="Add labelled cases of the role validation.",
        )
    observed = {quality: Observations() for quality in QUALITIES}
    recipe, kinds = package.recipe, list(CALIBRATING)
    for number, case in enumerate(cases):
        volume = read_scan(case.image, channels=recipe.input_channels)
        label = read_case_label(case, recipe, volume.grid)
        scan = DisturbedScan(volume.voxels.astype(np.float64), label.voxels, volume.grid)
        chosen = [kinds[(number * DISTURBED + index) % len(kinds)] for index in range(DISTURBED)]
        scans = [scan, *(CALIBRATING[kind](scan, np.random.default_rng([number, *kind.encode()])) for kind in chosen)]
        for kind, disturbed_scan in zip((CLEAN, *chosen), scans, strict=True):
            disturbed = Volume(np.ascontiguousarray(disturbed_scan.image, np.float32), disturbed_scan.grid)
            for quality, rows in observed.items():
                if check:
                    check()
                result = predictor.segment(disturbed, quality)
                rows.features.append(dict(result.doubt))
                rows.overlaps.append(
                    mean_dice(result.labelmap.voxels, disturbed_scan.labels, range(1, recipe.output_channels))
                )
                rows.cases.append(case.name)
                rows.disturbances.append(kind)
        if progress:
            progress(number + 1, len(cases))
    models = {}
    measured: dict[str, float] = {}
    for quality, rows in observed.items():
        names = [name for name in FEATURES if all(name in values or values[NOTHING] for values in rows.features)]
        seen = rows.select_segmented()
        found_in = len(set(seen.cases))
        if found_in < MIN_SEGMENTED:
            raise InputError(
                f"in {quality} quality the model segments something in {found_in} of these cases: a calibration needs"
                f" {MIN_SEGMENTED} such cases or more",
                remedy="Add cases that show the organ.",
            )
        models[quality] = fit_overlap(seen.features, seen.overlaps, seen.cases, names, seen.disturbances)
        figures = assess_overlap(seen.features, seen.overlaps, seen.cases, names, seen.disturbances)
        measured |= {f"{quality}, {figure}": round(value, 4) for figure, value in figures.items()}
    scans_made = len(cases) * (1 + DISTURBED)
    return Calibration(package.card.checksum, models, len(cases), scans_made, notes, measured)


def mean_dice(prediction: np.ndarray, truth: np.ndarray, labels: Sequence[int]) -> float:
    """Return the mean Dice coefficient (0 to 1) of the labels that occur in either labelmap; 0 if none occurs."""
    scores = []
    for label in labels:
        predicted, expected = prediction == label, truth == label
        total = np.count_nonzero(predicted) + np.count_nonzero(expected)
        if total:
            scores.append(2 * np.count_nonzero(predicted & expected) / total)
    return float(np.mean(scores)) if scores else 0.0
