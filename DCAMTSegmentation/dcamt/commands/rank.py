"""`dcamt rank`: which of the unlabelled scans to outline next."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..cases.case_list import UNLABELLED, Case, list_cases
from ..errors import DCAMTError, InputError
from ..io.writers import write_labelmap
from ..models.store import DEFAULT, model_path, verify_model
from ..runs.folder import RunFolder
from ..training.ranking import RankedCase, in_order, rank_case, write_ranking
from .console import Console, StdoutLost
from .faults import as_fault, ending_like_ctrl_c
from .scans import check_table


def run_rank(options: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Segment every unlabelled case and order them; returns 1 if one failed, which is told of at the end."""
    if options.run is None and options.cases is None:
        usage_error("name the CASES.csv, or a --run")
    cases, model = what_to_rank(options.cases, RunFolder(options.run) if options.run else None, options.model)
    if options.csv:
        check_table(options.csv, [case.image for case in cases])
    # What loads torch comes after all that can go wrong without it.
    from ..devices import choose_device
    from ..inference.predictor import Predictor

    console = Console(options.json)
    predictor = Predictor(verify_model(model), choose_device(options.device))
    ranked: list[RankedCase] = []
    failures: list[DCAMTError] = []
    for number, case in enumerate(cases):
        console.event("progress", step=number, of=len(cases))
        console.bar(case.name, number / len(cases))
        kept = options.segmentations / f"{_file_name(case, number)}.seg.nrrd" if options.segmentations else None
        try:
            one, result = rank_case(case, predictor)
            if kept:
                with ending_like_ctrl_c():
                    write_labelmap(result.labelmap, kept, predictor.recipe.classes)
        except StdoutLost:
            raise
        except Exception as error:
            failures.append(as_fault(error, case.image))
            console.event("failed", name=case.name, message=str(failures[-1]))
            continue
        ranked.append(one)
        console.event("scored", **_told(one), segmentation=str(kept) if kept else None)
    if options.csv and ranked:
        write_ranking(ranked, options.csv)
    for number, one in enumerate(in_order(ranked), start=1):
        place = ", ".join(str(round(mm)) for mm in one.place)
        console.text(f"{number:>4}  {one.name:<20} {one.score:>6.1%} disagreement, most at RAS {place} mm")
    for failure in failures:
        console.warn(str(failure))
    console.event("ranked", cases=[one.name for one in in_order(ranked)], failed=len(failures))
    console.clear()
    return 1 if failures else 0


def what_to_rank(table: Path | None, run: RunFolder | None, model: str | None) -> tuple[list[Case], Path]:
    """The unlabelled cases of the list, or the run's, and the model that judges them.

    Raises:
        InputError: there is no such list or model, or no case in it is unlabelled.
    """
    path = table or (run.cases if run else Path())
    cases = [replace(case, label=None) for case in list_cases(path) if case.role == UNLABELLED]
    if not cases:
        raise InputError("holds no unlabelled case", path=path, remedy="There is nothing left to outline.")
    if run and not model:
        if not run.model.is_file():
            raise InputError("the run has no model yet", path=run.path, remedy="Let it finish, or name a --model.")
        return cases, run.model
    return cases, model_path(model or DEFAULT)


def _file_name(case: Case, number: int) -> str:
    """A case's name where it can be a file's, else its number."""
    return case.name if case.name.replace("_", "").replace("-", "").isalnum() else f"case{number + 1}"


def _told(one: RankedCase) -> dict[str, object]:
    return {"name": one.name, "image": str(one.image), "score": round(one.score, 4), "place": list(one.place)}
