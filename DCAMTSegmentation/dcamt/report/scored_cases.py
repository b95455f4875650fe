"""Score a run's model on its validation cases, at the resolution of their scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cases.case_list import Case
from ..cases.case_scans import read_case_scan
from ..cases.labels import check_label, label_notes, read_case_label
from ..errors import InputError
from ..metrics.evaluation import EvaluationRow
from ..metrics.pair_scoring import score_case
from ..recipe import Recipe
from ..volume import Labelmap, Volume
from .case_picture import draw_case

if TYPE_CHECKING:
    from ..inference.predictor import Predictor


@dataclass(frozen=True)
class ScoredCase:
    """A scored validation case.

    Attributes:
        rows: one for each class.
        picture: a PNG file.
    """

    rows: tuple[EvaluationRow, ...]
    picture: bytes

    @property
    def dice(self) -> float:
        """The mean Dice over the classes that occur in label or segmentation; 1 if no class occurs in either."""
        overlaps = [row.score.dice for row in self.rows if row.label_volume_ml or row.prediction_volume_ml]
        return sum(overlaps) / len(overlaps) if overlaps else 1.0


def score_cases(
    cases: Sequence[Case],
    predictor: Predictor,
    progress: Callable[[int, int], None],
    on_warning: Callable[[str], None],
) -> list[ScoredCase]:
    """Segment each case; return its scores against its label, and its picture.

    A case whose scan or label cannot be used is left out.

    Args:
        progress: called as progress(done, total) after each case.
        on_warning: called with a message about each case that is left out, and with each note on a label
            (`label_notes`).

    Raises:
        MemoryShortage: the memory is too small to segment a scan.
    """
    recipe, scored = predictor.recipe, []
    for done, case in enumerate(cases, start=1):
        try:
            volume, label = _read_case(case, recipe, on_warning)
        except InputError as error:
            on_warning(f"the report leaves out the case '{case.name}': {error}")
        else:
            scored.append(_score_case(case.name, volume, label, predictor))
        progress(done, len(cases))
    return scored


def _read_case(case: Case, recipe: Recipe, on_note: Callable[[str], None]) -> tuple[Volume, Labelmap]:
    volume = read_case_scan(case.image, recipe)
    label = read_case_label(case, recipe, volume.grid)
    for note in label_notes(case, label, recipe):
        on_note(note)
    check_label(case, label, recipe)
    return volume, label


def _score_case(name: str, volume: Volume, label: Labelmap, predictor: Predictor) -> ScoredCase:
    recipe, result = predictor.recipe, predictor.segment(volume)
    rows = score_case(name, result.labelmap, label, [info.label for info in recipe.classes])
    picture = draw_case(volume, result.labelmap, label, recipe)
    return ScoredCase(tuple(rows), picture)


def pick_best_median_worst(dice: Sequence[float]) -> dict[str, int]:
    """Return the indices of the best, median and worst Dice of cases, under the keys "Best", "Median" and "Worst".

    >>> pick_best_median_worst([0.8]), pick_best_median_worst([0.8, 0.9])
    ({'Best': 0}, {'Best': 1, 'Worst': 0})
    """
    order = sorted(range(len(dice)), key=lambda index: -dice[index])
    chosen: dict[str, int] = {}
    if order:
        chosen["Best"] = order[0]
    if len(order) > 2:
        chosen["Median"] = order[len(order) // 2]
    if len(order) > 1:
        chosen["Worst"] = order[-1]
    return chosen
