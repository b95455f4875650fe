"""Find cases whose label is a result of DCAMT that nobody corrected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..io.dicom_files import list_names
from ..io.writers import is_dcamt_result
from .case_list import LABELLED, VALIDATION, Case
from .dicom_labels import segmentation_file

_CORRECT = "Correct the labels and save them in 3D Slicer"
_ADVICE = {
    LABELLED: f"A model learns the mistakes of such labels. {_CORRECT}, or choose the role unlabelled.",
    VALIDATION: (
        f"The Dice of these cases does not show the accuracy, and a calibration leaves these cases out. {_CORRECT}."
    ),
}


def is_uncorrected(label: Path) -> bool:
    """Return whether a label is a DCAMT result that nobody corrected (`is_dcamt_result`)."""
    return is_dcamt_result(segmentation_file(label))


def has_uncorrected_label(case: Case) -> bool:
    """Return whether a case has an uncorrected label."""
    return case.label is not None and is_uncorrected(case.label)


def with_uncorrected_label(cases: Sequence[Case], role: str) -> list[Case]:
    """Return the cases that have this role and an uncorrected label."""
    return [case for case in cases if case.role == role and has_uncorrected_label(case)]


def calibration_cases(cases: Sequence[Case]) -> list[Case]:
    """Return the validation cases, except those with an uncorrected label."""
    return [case for case in cases if case.role == VALIDATION and not has_uncorrected_label(case)]


def uncorrected_label_notes(cases: Sequence[Case]) -> Iterator[str]:
    """Yield a note for each role, labelled or validation, that has cases with an uncorrected label."""
    for role, advice in _ADVICE.items():
        if names := [case.name for case in with_uncorrected_label(cases, role)]:
            yield (
                f"the labels of these {role} cases are results of DCAMT that were not corrected: {list_names(names)}."
                f" {advice}"
            )
