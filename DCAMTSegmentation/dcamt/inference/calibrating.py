"""Calibrate a model: segment labelled cases that its training did not use, and compare the results with the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..cases.case_list import Case
from ..cases.case_scans import read_case_scan
from ..cases.labels import check_label, label_notes, read_case_label
from ..errors import InputError
from ..models.calibration import FEATURES, MIN_CASES, NOTHING, Calibration, OverlapFunction
from ..models.calibration_fit import CLEAN, Observation, assess_overlap, fit_overlap
from ..models.doubt_scaling import BINS, count_doubt, fit_doubt_scaling
from ..models.package import ModelPackage
from ..recipe import QUALITIES, Recipe
from ..volume import Volume
from .disturbances import CALIBRATING, LabelledScan
from .predictor import Predictor

DISTURBED = 4
"""Number of disturbed scans made from each case."""
MIN_SEGMENTED = 3
"""Smallest allowed number of cases with a segmentation that is not empty. `assess_overlap` fails with fewer cases."""


def calibrate(
    package: ModelPackage,
    cases: Sequence[Case],
    predictor: Predictor,
    notes: str = "",
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Calibration:
    """Return the calibration of a package, from labelled cases that its training did not use.

    Each case gives its own scan and `DISTURBED` disturbed scans. All these scans are segmented in both qualities.

    Args:
        package: the model, without a calibration.
        predictor: a predictor of this package.
        notes: a description of the cases, stored in the calibration.
        progress: called as progress(done, total) after each case.
        check: called before each segmentation; an exception that it raises ends the calibration.
        on_note: called with each note on the labels (`label_notes`).

    Raises:
        InputError: there are fewer than `MIN_CASES` cases; a case cannot be read; `check_label` refuses a label; or, in
            one of the qualities, fewer than `MIN_SEGMENTED` cases have a segmentation that is not empty.
        MemoryShortage: the memory is too small for a scan.
    """
    if len(cases) < MIN_CASES:
        raise InputError(
            f"too few labelled cases were given ({len(cases)}); a calibration needs {MIN_CASES} or more",
            remedy="Add labelled cases of the role validation.",
        )
    observed: dict[str, list[Observation]] = {quality: [] for quality in QUALITIES}
    values = range(1, package.recipe.output_channels)
    doubt_counts = np.zeros((3, BINS))
    for number, case in enumerate(cases):
        for disturbance, scan in _disturbed_scans(case, number, package.recipe, on_note):
            for quality, observations in observed.items():
                if check:
                    check()
                result = predictor.segment(
                    Volume(np.ascontiguousarray(scan.image, np.float32), scan.grid, case.image), quality
                )
                segmented = result.labelmap.voxels
                overlap = mean_dice(segmented, scan.labels, values)
                observations.append(Observation(result.doubt, overlap, case.name, disturbance))
                if disturbance == CLEAN and result.doubt_map is not None:
                    doubt_counts += count_doubt(result.doubt_map, segmented != scan.labels)
        if progress:
            progress(number + 1, len(cases))
    models = {}
    measured: dict[str, float] = {}
    for quality, observations in observed.items():
        models[quality], figures = _fit_quality(observations, quality)
        measured |= {f"{quality}, {figure}": round(value, 4) for figure, value in figures.items()}
    scans = len(cases) * (1 + DISTURBED)
    doubt = fit_doubt_scaling(doubt_counts)
    return Calibration(package.card.checksum, models, len(cases), scans, notes, measured, doubt)


def _disturbed_scans(
    case: Case, number: int, recipe: Recipe, on_note: Callable[[str], None]
) -> Iterator[tuple[str, LabelledScan]]:
    """Yield (`CLEAN`, the case's scan), then `DISTURBED` pairs (disturbance's name, disturbed scan).

    Args:
        number: the case's index. Case 0 gets the first `DISTURBED` disturbances of `CALIBRATING`, case 1 the next
            `DISTURBED`, and so on; the last disturbance is followed by the first.
    """
    volume = read_case_scan(case.image, recipe)
    label = read_case_label(case, recipe, volume.grid)
    for note in label_notes(case, label, recipe):
        on_note(note)
    check_label(case, label, recipe)
    scan = LabelledScan(volume.voxels.astype(np.float64), label.voxels, volume.grid)
    yield CLEAN, scan
    names = list(CALIBRATING)
    for index in range(DISTURBED):
        name = names[(number * DISTURBED + index) % len(names)]
        yield name, CALIBRATING[name](scan, np.random.default_rng([number, *name.encode()]))


def _fit_quality(observations: Sequence[Observation], quality: str) -> tuple[OverlapFunction, dict[str, float]]:
    """Return the function fitted to the overlaps in one quality, and its accuracy in cross-validation.

    Scans with an empty segmentation are left out.
    """
    segmented = [observation for observation in observations if not observation.features[NOTHING]]
    count = len({scan.case for scan in segmented})
    if count < MIN_SEGMENTED:
        raise InputError(
            f"in {quality} quality the model finds an organ in only {count} of these cases, but a calibration needs"
            f" {MIN_SEGMENTED} such cases",
            remedy="Add cases that show the organ.",
        )
    names = [name for name in FEATURES if all(name in scan.features for scan in segmented)]
    model, figures = fit_overlap(segmented, names), assess_overlap(segmented, names)
    if len(segmented) < len(observations):
        figures["fraction of scans with an empty segmentation"] = 1 - len(segmented) / len(observations)
    return model, figures


def mean_dice(prediction: np.ndarray, label: np.ndarray, values: Sequence[int]) -> float:
    """Return the mean Dice coefficient (0 to 1) of the values that occur in prediction or label; 0 if none occurs."""
    scores = []
    for value in values:
        predicted, labelled = prediction == value, label == value
        total = np.count_nonzero(predicted) + np.count_nonzero(labelled)
        if total:
            scores.append(2 * np.count_nonzero(predicted & labelled) / total)
    return float(np.mean(scores)) if scores else 0.0
