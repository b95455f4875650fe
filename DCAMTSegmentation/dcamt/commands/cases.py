"""`dcamt cases`: make a case list from a folder, and look one over before a run starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace

from ..cases.case_list import LABELLED, VALIDATION, Case, list_cases, write_cases
from ..cases.checks import CaseFacts, check_cases, list_problems
from ..cases.folders import FoundCases, find_cases
from ..errors import InputError
from ..recipe import load_recipe
from .console import Console
from .scans import check_table


def run_cases(options: argparse.Namespace) -> int:
    """`find` returns 0 with the list written; `check` returns 1 if something is wrong."""
    return _find(options) if options.action == "find" else _check(options)


def _find(options: argparse.Namespace) -> int:
    """Print the proposed pairs, and write them where a file is named."""
    console = Console(options.json)
    if options.output:
        check_table(options.output, [])
    found = find_cases(options.folder)
    found = replace(found, cases=with_validation(found.cases, options.validation))
    _show_found(found, console)
    if options.output:
        write_cases(found.cases, options.output)
        console.text(f"case list: {options.output}")
    return 0


def with_validation(cases: Sequence[Case], count: int) -> tuple[Case, ...]:
    """The cases, the last `count` labelled ones of which are for validation.

    Raises:
        InputError: none would be left to learn from.
    """
    labelled = [index for index, case in enumerate(cases) if case.role == LABELLED]
    if count and count >= len(labelled):
        raise InputError(f"of {len(labelled)} labelled case(s), {count} cannot be for validation")
    chosen = set(labelled[len(labelled) - count :])
    return tuple(replace(case, role=VALIDATION) if i in chosen else case for i, case in enumerate(cases))


def _show_found(found: FoundCases, console: Console) -> None:
    console.event(
        "found",
        layout=found.layout,
        cases=[
            {"name": c.name, "image": str(c.image), "label": str(c.label) if c.label else None, "role": c.role}
            for c in found.cases
        ],
        left_over=[{"path": str(left.path), "why": left.why} for left in found.left_over],
        classes=[{"label": value, "name": name} for value, name in found.classes],
    )
    for case in found.cases:
        console.text(f"{case.role:<10} {case.name}: {case.image}{f' with {case.label}' if case.label else ''}")
    for left in found.left_over:
        console.warn(f"{left.path}: left out: {left.why}")


def _check(options: argparse.Namespace) -> int:
    console = Console(options.json)
    cases, recipe = list_cases(options.cases), load_recipe(options.recipe)
    last: dict[int, CaseFacts] = {}
    for facts in check_cases(cases, recipe):
        last[facts.index] = facts
        console.event("case", **asdict(facts))
        console.bar("looking at the cases", len(last) / len(cases))
    for index, facts in sorted(last.items()):
        size = "x".join(map(str, facts.size)) if facts.size else "?"
        spacing = "x".join(f"{mm:g}" for mm in facts.spacing) if facts.spacing else "?"
        console.text(f"{facts.name:<20} {cases[index].role:<10} {size:>12} {spacing:>18} mm")
        for problem in facts.problems:
            console.text(f"    {problem}")
    problems = list_problems(cases, last.values(), recipe)
    faulty = sum(bool(facts.problems) for facts in last.values())
    console.event("checked", cases=len(cases), faulty=faulty, problems=problems)
    for problem in problems:
        console.warn(problem)
    if faulty:
        console.warn(f"{options.cases}: something is wrong with {faulty} of {len(cases)} cases")
    return 1 if faulty or problems else 0
