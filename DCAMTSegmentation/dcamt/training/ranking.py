"""Which scan to outline next: the one about which the model's two branches disagree most.

Two learners that were started apart and disagree on a case are likely to be wrong there, so its outline teaches most
(query by committee: H. S. Seung, M. Opper and H. Sompolinsky, COLT 1992).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases.case_list import Case
from ..errors import InputError
from ..inference.agreement import position_of, voxel_of_most
from ..io.atomic import atomic_path
from ..io.readers import read_scan

if TYPE_CHECKING:
    from ..inference.predictor import Predictor, Segmentation

COLUMNS = ("rank", "name", "score", "r_mm", "a_mm", "s_mm", "image")


@dataclass(frozen=True)
class RankedCase:
    """An unlabelled case, how much outlining it is worth, and where to look.

    score: 1 less the Dice between the branches, from 0 (they agree) to 1 (nothing in common, or nothing found).
    place: RAS mm of the point about which they disagree most.
    """

    name: str
    image: Path
    score: float
    place: tuple[float, float, float]


def rank_case(case: Case, predictor: Predictor) -> tuple[RankedCase, Segmentation]:
    """Segment a case with both branches; its score and place, and the segmentation proposed for it.

    Raises:
        InputError: the scan cannot be used.
    """
    result = predictor.segment(read_scan(case.image, channels=predictor.recipe.input_channels))
    assert result.agreement is not None
    assert result.trust is not None
    # Branches that both find nothing agree, but they are wrong together: every scan holds what is trained for.
    score = 1 - result.trust if result.labelmap.voxels.any() else 1.0
    grid = result.labelmap.grid
    place = position_of(grid, voxel_of_most(1 - result.agreement, grid))
    return RankedCase(case.name, case.image, score, place), result


def in_order(ranked: Iterable[RankedCase]) -> list[RankedCase]:
    """The highest score first."""
    return sorted(ranked, key=lambda one: (-one.score, one.name))


def write_ranking(ranked: Sequence[RankedCase], path: Path) -> None:
    """Write the cases, best first, under the header `COLUMNS`; raises OutputError where that is impossible."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, one in enumerate(in_order(ranked), start=1):
            place = (round(mm, 2) for mm in one.place)
            writer.writerow([number, one.name, round(one.score, 4), *place, one.image.resolve()])


def read_ranking(path: Path) -> list[RankedCase]:
    """The cases of a file that `write_ranking` wrote, best first.

    Raises:
        InputError: it cannot be read as one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                RankedCase(
                    row["name"],
                    Path(row["image"]),
                    float(row["score"]),
                    (float(row["r_mm"]), float(row["a_mm"]), float(row["s_mm"])),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error, LookupError, TypeError, ValueError) as error:
        raise InputError(f"cannot be read as a ranking ({error})", path=path, remedy="Rank the cases again.") from error
