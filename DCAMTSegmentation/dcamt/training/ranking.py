"""Rank unlabelled scans for labelling: scans on which the model's two branches disagree most come first.

A scan's label probably helps training most if two independently initialised branches disagree on the scan (query by
committee: H. S. Seung, M. Opper and H. Sompolinsky, COLT 1992).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases.case_list import Case
from ..cases.case_scans import read_case_scan
from ..cases.checks import scan_notes
from ..io.formats import in_resolved_folder
from ..io.tables import write_table
from ..metrics.doubtful_places import densest_voxel

if TYPE_CHECKING:
    from ..inference.predictor import Prediction, Predictor

RANKING_COLUMNS = ("rank", "name", "score", "r_mm", "a_mm", "s_mm", "image", "empty")


@dataclass(frozen=True)
class RankedCase:
    """An unlabelled case with its score in the ranking.

    Attributes:
        score: 1 - Dice between the branches, from 0 (they agree) to 1 (no overlap, or an empty segmentation).
        place: RAS mm of the point around which the branches disagree most.
        is_empty: whether the segmentation is empty.
    """

    name: str
    image: Path
    score: float
    place: tuple[float, float, float]
    is_empty: bool = False
    notes: tuple[str, ...] = ()


def rank_case(case: Case, predictor: Predictor) -> tuple[RankedCase, Prediction]:
    """Segment a case with both branches; return the ranked case, and the segmentation as a proposal to correct.

    Raises:
        InputError: the scan cannot be used.
        MemoryShortage: the memory is too small.
    """
    volume = read_case_scan(case.image, predictor.recipe)
    result = predictor.segment(volume)
    assert result.agreement is not None
    assert result.trust is not None
    # An empty segmentation is probably wrong even if the branches agree, since each scan should show the structure.
    is_empty = not result.labelmap.voxels.any()
    score = 1.0 if is_empty else 1 - result.trust
    grid = result.labelmap.grid
    place = grid.position(densest_voxel(1 - result.agreement, grid))
    notes = (*scan_notes(volume), *result.notes)
    return RankedCase(case.name, case.image, score, place, is_empty, notes), result


def sort_by_score(ranked: Iterable[RankedCase]) -> list[RankedCase]:
    """Return the cases in descending order of score."""
    return sorted(ranked, key=lambda case: (-case.score, case.name))


def write_ranking(ranked: Sequence[RankedCase], path: Path) -> None:
    """Write the cases to a CSV file with the header `RANKING_COLUMNS`, in descending order of score.

    The column `empty` is 1 if the model segmented nothing, else 0.

    Raises:
        OutputError: the file cannot be written.
    """
    rows: list[tuple[str | float, ...]] = []
    for number, case in enumerate(sort_by_score(ranked), start=1):
        place = (str(round(mm, 2)) for mm in case.place)
        rows.append(
            (
                number,
                case.name,
                str(round(case.score, 4)),
                *place,
                str(in_resolved_folder(case.image)),
                int(case.is_empty),
            )
        )
    write_table(path, RANKING_COLUMNS, rows)
