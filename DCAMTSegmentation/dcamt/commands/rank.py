"""`dcamt rank`: rank unlabelled scans for outlining, by the disagreement of the network's two branches."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..cases.case_list import UNLABELLED, list_cases
from ..errors import DCAMTError, InputError, user_error
from ..io.file_names import is_file_name
from ..io.writers import write_labelmap
from ..models.store import DEFAULT_MODEL, model_path
from ..runs.folder import RunFolder
from ..training.ranking import RANKING_COLUMNS, RankedCase, rank_case, sort_by_score, write_ranking
from .console import Console, StdoutLost
from .options import UsageError
from .result_files import (
    REFUSE,
    case_files,
    check_result_paths,
    check_table_path,
    existing_rule,
    foreign_files,
    refuse_appeared_file,
    refuse_existing,
    write_beside,
)


def run_rank(options: argparse.Namespace) -> int:
    """Segment every unlabelled case and print the ranking, then the failures; return 1 if there are failures."""
    run = RunFolder(options.run) if options.run else None
    if run and not any(path.exists() for path in (run.recipe, run.cases, run.model)):
        raise InputError("holds no run", path=run.path, remedy="Give the folder of a run.")
    if options.cases:
        table = options.cases
    elif run:
        table = run.cases
    else:
        raise UsageError("give CASES.csv or --run FOLDER")
    console = Console(options.json)
    listed = list_cases(table, on_note=console.print_note)
    names = segmentation_names([case.name for case in listed])
    unlabelled = [(case, name) for case, name in zip(listed, names, strict=True) if case.role == UNLABELLED]
    cases = [replace(case, label=None) for case, _ in unlabelled]
    if not cases:
        raise InputError("holds no unlabelled case", path=table, remedy="Add scans without a label to rank them.")
    model = _find_model(run, options.model)
    inputs = [*case_files(listed), model, table, *(_run_files(run) if run else [])]
    existing = existing_rule(options)
    targets = [options.segmentations / f"{name}.seg.nrrd" if options.segmentations else None for _, name in unlabelled]
    segmentations = [target for target in targets if target is not None]
    check_result_paths(segmentations, inputs)
    if options.csv:
        check_table_path(options.csv, [*inputs, *segmentations], existing, RANKING_COLUMNS)
    if existing == REFUSE:
        refuse_existing(segmentations)
    # Imported after the checks above, since torch loads slowly.
    from ..devices import choose_device
    from ..inference.predictor import Predictor
    from ..networks.packaging import verify_model

    predictor = Predictor(verify_model(model), choose_device(options.device))
    ranked: list[RankedCase] = []
    failures: list[DCAMTError] = []
    for index, (case, target) in enumerate(zip(cases, targets, strict=True)):
        console.print_event("progress", step=index, of=len(cases))
        console.show_progress(case.name, index / len(cases))
        try:
            if target:
                _refuse_saved(target, existing, options.keep_corrected)
            ranked_case, result = rank_case(case, predictor)
            if target:
                _refuse_saved(target, existing, options.keep_corrected)
                write_labelmap(result.labelmap, target, predictor.recipe.classes, mark=True)
        except StdoutLost:
            raise
        except Exception as error:
            failures.append(user_error(error, case.image))
            console.print_event("failed", name=case.name, message=str(failures[-1]))
            continue
        ranked.append(ranked_case)
        for note in ranked_case.notes:
            console.print_error(f"{case.image}: {note}")
        console.print_event("scored", **_event_fields(ranked_case), segmentation=str(target) if target else None)
        if target and target.name != f"{case.name}.seg.nrrd":
            console.print_text(f"segmentation of '{case.name}': {target}")
    failed_cases = len(failures)
    if options.csv and ranked:
        try:
            refuse_appeared_file(options.csv, existing)
            write_ranking(ranked, options.csv)
        except DCAMTError as error:
            failures.append(write_beside(options.csv, error, partial(write_ranking, ranked)))
    for rank, ranked_case in enumerate(sort_by_score(ranked), start=1):
        console.print_text(f"{rank:>4}  {ranked_case.name:<20} {_describe_score(ranked_case)}")
    for failure in failures:
        console.print_error(str(failure))
    console.print_event(
        "ranked", cases=[case.name for case in sort_by_score(ranked)], failed=failed_cases, notes=console.notes
    )
    return 1 if failures else 0


def _refuse_saved(segmentation: Path, existing: str, keep_corrected: bool) -> None:
    refuse_appeared_file(segmentation, existing)
    if keep_corrected and foreign_files([segmentation]):
        what = "has no valid mark of DCAMT. Perhaps another program, such as Slicer, saved the file. The file is kept"
        raise InputError(what, path=segmentation, remedy="Move the file to another folder, and rank again.")


def _find_model(run: RunFolder | None, model: str | None) -> Path:
    if model or not run:
        return model_path(model or DEFAULT_MODEL)
    if not run.model.is_file():
        remedy = "Wait until the run has finished, or choose a model with --model."
        raise InputError("the run has no model yet", path=run.path, remedy=remedy)
    return run.model


def _run_files(run: RunFolder) -> list[Path]:
    """Return the files of a run that a result must not replace."""
    return [run.cases, run.recipe, run.origin, run.events, run.model, run.best, run.validation, run.report]


def segmentation_names(listed: Sequence[str]) -> list[str]:
    """Return the names of the cases' segmentations, without the ending.

    If a case's name cannot be a file name, its number in the list is used: "case1". If `listed` contains this name, "_"
    is added.

    Args:
        listed: the names of all cases, since a case's number must not depend on the roles of other cases.
    """
    taken = {name.casefold() for name in listed}
    names = []
    for number, name in enumerate(listed, start=1):
        if not (is_file_name(name) and is_file_name(f"{name}.seg.nrrd")):
            name = f"case{number}"
            while name in taken:
                name += "_"
        names.append(name)
    return names


def _describe_score(case: RankedCase) -> str:
    if case.is_empty:
        return f"{case.score:>6.1%} disagreement: the model segmented nothing"
    place = ", ".join(str(round(mm)) for mm in case.place)
    return f"{case.score:>6.1%} disagreement, most at RAS {place} mm"


def _event_fields(case: RankedCase) -> dict[str, object]:
    return {
        "name": case.name,
        "image": str(case.image),
        "score": round(case.score, 4),
        "place": list(case.place),
        "empty": case.is_empty,
        "notes": list(case.notes),
    }
