"""Find problems that prevent a run from starting or weaken its result; describe them in messages with remedies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcamt.cases.case_list import LABELLED, LEFT_OUT, VALIDATION, Rule, Violation, violations
from dcamt.errors import InputError
from dcamt.recipe import Recipe
from DCAMTSlicerLib.engine_messages import error_text
from slicer.i18n import tr as _

from ..cases.rows import CaseRow
from .folders import is_name_taken, is_writable, run_named, runs_folder

RESERVE = 0.1
"""Fraction of the free disk space and memory that a run must leave to other programs."""


@dataclass(frozen=True)
class Problem:
    """A message with its remedy.

    Attributes:
        blocks: whether the problem prevents a run.
    """

    text: str
    blocks: bool = True


def case_problems(rows: Sequence[CaseRow], recipe: Recipe, label_values: Mapping[int, Sequence[int]]) -> list[Problem]:
    """Return the problems of the table of cases.

    Args:
        label_values: row index -> the values in the row's label; empty or missing if the label was not read.
    """
    # Violations of single cases are omitted, because the remarks of these cases already state the violations.
    broken = [violation for violation in violations(rows, recipe, label_values) if not violation.cases]
    problems = [Problem(_message(violation)) for violation in broken]
    faulty = [row for row in rows if row.remark and row.role != LEFT_OUT]
    if faulty:
        text = _("{name} (and {count} more): {remark}") if len(faulty) > 1 else _("{name}: {remark}")
        text = text.format(name=faulty[0].name, count=len(faulty) - 1, remark=faulty[0].remark)
        problems.append(Problem(_("{text} Or set the case's role to “left out”.").format(text=text)))
    labelled = any(row.role == LABELLED for row in rows)
    if labelled and not any(row.role == VALIDATION for row in rows):
        text = _(
            "No case is for validation, so the model's accuracy will not be measured. Use at least one labelled case"
            " for validation."
        )
        problems.append(Problem(text, blocks=False))
    return problems


def _message(violation: Violation) -> str:
    info = violation.info
    if violation.rule is Rule.ONE_LABELLED:
        text = _(
            "No case is labelled, so there is nothing to train on. Add a scan with a label, or set the role “labelled”."
        )
    elif violation.rule is Rule.EVERY_CLASS and info is not None:
        text = _("No labelled case contains “{name}” (label value {label}). Add one, or remove the class.")
        text = text.format(name=info.name, label=info.label)
    elif violation.rule in (Rule.ROOM_FOR_UNLABELLED, Rule.LOSS_FOR_UNLABELLED):
        fields = {"batch": _("Patches per iteration"), "distillation": _("Weight of distillation")}
        change = _("Enter {value} in the field “{field}”.")
        changes = [change.format(value=f"{value:g}", field=fields[name]) for name, value in violation.settings.items()]
        text = _("The unlabelled cases would not be used. To use them: {changes} Otherwise, leave these cases out.")
        text = text.format(changes=" ".join(changes))
    else:
        text = str(violation)
    return str(text)


def folder_problems(run_name: str) -> list[Problem]:
    """Return the problem of the next run's folder, if any."""
    folder = runs_folder()
    if not is_writable(folder):
        text = _("The folder of runs, {folder}, is not writable. Choose another folder, or change its permissions.")
        return [Problem(text.format(folder=folder))]
    try:
        run_named(run_name)
    except InputError as error:
        return [Problem(error_text(error))]
    if is_name_taken(run_name):
        text = _("A run “{name}” exists already in {folder}. Choose another name for the run.")
        return [Problem(text.format(name=run_name.strip(), folder=folder))]
    return []


def machine_problems(estimate: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of too little disk space or memory; `estimate` is the result of `dcamt estimate`."""
    problems = []
    free, needed = estimate.get("disk_free"), estimate["disk_bytes"]
    if free is not None and needed > free * (1 - RESERVE):
        text = _(
            "The run needs {needed} of disk space, but may only use {usable}: {free} are free where the runs are"
            " stored, and a tenth of the free space stays in reserve. Free some space, or choose another folder."
        )
        problems.append(Problem(text.format(**_texts_of_shortage(needed, free))))
    free, needed = estimate.get("memory_free"), estimate.get("memory_bytes")
    if free is not None and needed is not None and needed > free * (1 - RESERVE):
        kind = _("GPU memory") if estimate["device"] == "cuda" else _("memory")
        text = _(
            "The run needs {needed} of {kind}, but may only use {usable}: {free} were free, and a tenth of the"
            " free memory stays in reserve. Choose a smaller patch, fewer patches per iteration or the effort “Quick"
            " try”. Or crop large scans, or close other programs, and press Measure again."
        )
        problems.append(Problem(text.format(kind=kind, **_texts_of_shortage(needed, free))))
    return problems


def _texts_of_shortage(needed: float, free: float) -> dict[str, str]:
    """Round `needed` up and `usable` down, so that their texts differ."""
    usable = free * (1 - RESERVE)
    return {
        "needed": format_gigabytes(needed, math.ceil),
        "usable": format_gigabytes(usable, math.floor),
        "free": format_gigabytes(free),
    }


def format_gigabytes(byte_count: float, rounding: Callable[[float], int] = round) -> str:
    """Return a number of bytes as `0.4 GB` or `12 GB`."""
    amount = byte_count / 1e9
    return f"{rounding(amount * 10) / 10:.1f} GB" if amount < 10 else f"{rounding(amount)} GB"
