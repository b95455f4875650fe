"""`dcamt cases`: make a case list from a folder, and check a case list before training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

from ..api.training_plan import choose_recipe
from ..cases.case_list import CASE_COLUMNS, LABELLED, LABELS_COLUMN, LEFT_OUT, VALIDATION, Case, list_cases, write_cases
from ..cases.checks import CaseFacts, check_cases, list_problems
from ..cases.few_values import cases_like_labels
from ..cases.folders import find_cases
from ..cases.found_cases import FoundCases
from ..cases.labels import mapping_targets
from ..cases.uncorrected_labels import has_uncorrected_label
from ..errors import InputError
from ..models.store import model_path
from ..runs.trained_scans import note_trained_scans
from .console import Console
from .result_files import check_table_path, existing_rule, refuse_appeared_file


def run_cases(options: argparse.Namespace) -> int:
    """Run `find` or `check` and return the exit status: 1 if `check` found a problem."""
    return _find(options) if options.action == "find" else _check(options)


def _find(options: argparse.Namespace) -> int:
    console = Console(options.json)
    if options.output:
        check_table_path(options.output, [], existing_rule(options), (*CASE_COLUMNS, LABELS_COLUMN))
    if options.labels:
        mapping_targets(options.labels)  # Raises InputError if this is no mapping.
    found = find_cases(options.folder)
    cases = [replace(case, labels=options.labels) if case.label else case for case in found.cases]
    found_cases = replace(found, cases=assign_validation(cases, options.validation))
    for case in cases_like_labels(case for case in cases if case.label is None):
        what = "has few different intensities, like a label"
        remedy = "Check that the file is a scan, or remove it from the case list."
        console.print_note(f"{case.image}: {what}. {remedy}")
    _show_found(found_cases, console)
    if options.output:
        refuse_appeared_file(options.output, existing_rule(options))
        write_cases(found_cases.cases, options.output)
        console.print_text(f"case list: {options.output}")
    return 0


def assign_validation(cases: Sequence[Case], count: int) -> tuple[Case, ...]:
    """Assign `count` labelled cases to validation, and return all cases.

    The last labelled cases are chosen. A case with an uncorrected label (`has_uncorrected_label`) is chosen only if
    there are too few other cases.

    Raises:
        InputError: no labelled case would be left for training.
    """
    labelled = [index for index, case in enumerate(cases) if case.role == LABELLED]
    if count and count >= len(labelled):
        raise InputError(
            f"--validation {count} leaves no labelled case for training (labelled cases: {len(labelled)})",
            remedy="Choose a smaller number.",
        )
    if count:
        labelled.sort(key=lambda index: not has_uncorrected_label(cases[index]))
    chosen = set(labelled[len(labelled) - count :])
    return tuple(replace(case, role=VALIDATION) if i in chosen else case for i, case in enumerate(cases))


def _show_found(found_cases: FoundCases, console: Console) -> None:
    console.print_event(
        "found",
        layout=found_cases.layout,
        cases=[
            {
                "name": case.name,
                "image": str(case.image),
                "label": str(case.label) if case.label else None,
                "role": case.role,
                "labels": case.labels,
            }
            for case in found_cases.cases
        ],
        left_over=[{"path": str(file.path), "why": file.reason} for file in found_cases.skipped],
        classes=[{"label": value, "name": name} for value, name in found_cases.classes],
        notes=console.notes,
    )
    for case in found_cases.cases:
        console.print_text(f"{case.role:<10} {case.name}: {case.image}{f' with {case.label}' if case.label else ''}")
    for file in found_cases.skipped:
        console.print_error(f"{file.path}: left out: {file.reason}")


def _check(options: argparse.Namespace) -> int:
    console = Console(options.json)
    cases = list_cases(options.cases, options.labels, console.print_note)
    recipe, _ = choose_recipe(options.recipe, options.start_from, options.set, on_note=console.print_note)
    last: dict[int, CaseFacts] = {}
    for facts in check_cases(cases, recipe, options.checksums, partial(console.show_progress, "checking the cases")):
        last[facts.index] = facts
        console.print_event("case", **asdict(facts))
    for index, facts in sorted(last.items()):
        size = "x".join(map(str, facts.size)) if facts.size else "?"
        spacing = "x".join(f"{mm:g}" for mm in facts.spacing) if facts.spacing else "?"
        console.print_text(f"{facts.name:<20} {cases[index].role:<10} {size:>12} voxels {spacing:>18} mm")
        if facts.problems or facts.warnings:
            label = f", label {cases[index].label}" if cases[index].label else ""
            console.print_text(f"    scan {cases[index].image}{label}")
        for line in (*facts.problems, *facts.warnings):
            console.print_text(f"    {line}")
    if options.start_from is not None:
        progress = partial(console.show_progress, "comparing the scans with the model's training scans")
        note_trained_scans(cases, model_path(options.start_from), progress, console.print_note)
    problems = list_problems(cases, last.values(), recipe)
    faulty = sum(bool(facts.problems) for index, facts in last.items() if cases[index].role != LEFT_OUT)
    console.print_event("checked", cases=len(cases), faulty=faulty, problems=problems, notes=console.notes)
    for problem in problems:
        console.print_error(problem)
    if faulty:
        console.print_error(f"{options.cases}: cases with problems: {faulty} of {len(cases)}")
    return 1 if faulty or problems else 0
