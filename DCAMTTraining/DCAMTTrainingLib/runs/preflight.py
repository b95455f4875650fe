"""What hinders a run from being started, in the person's words, each with its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION
from dcamt.recipe import Recipe
from slicer.i18n import tr as _

from ..cases.rows import CaseRow

SPARE = 0.1
"""Share of disk and memory that other programs keep."""


@dataclass(frozen=True)
class Problem:
    """text: what is wrong, and what to do. blocks: whether a run cannot be started before."""

    text: str
    blocks: bool = True


def case_problems(rows: Sequence[CaseRow], recipe: Recipe, held_labels: Mapping[int, Sequence[int]]) -> list[Problem]:
    """Of the table as a whole; `held_labels`: of the rows whose labels were looked at, the values that they hold."""
    problems = []
    if not any(row.role == LABELLED for row in rows):
        text = _("No case is labelled, so there is nothing to learn from. Add an outlined scan, or give one that role.")
        problems.append(Problem(text))
    faulty = [row for row in rows if row.remark and row.role != LEFT_OUT]
    if faulty:
        text = _("{name} (and {count} more): {remark}") if len(faulty) > 1 else _("{name}: {remark}")
        told = text.format(name=faulty[0].name, count=len(faulty) - 1, remark=faulty[0].remark)
        problems.append(Problem(_("{text} Or leave the case out.").format(text=told)))
    labelled = [index for index, row in enumerate(rows) if row.role == LABELLED]
    if labelled and all(index in held_labels for index in labelled):
        held = {label for index in labelled for label in held_labels[index]}
        for info in recipe.classes:
            if info.label not in held:
                text = _("No labelled case holds “{name}” (label {label}). Add one that does, or leave the class out.")
                problems.append(Problem(text.format(name=info.name, label=info.label)))
    training = recipe.training
    if any(row.role == UNLABELLED for row in rows) and training.labelled_per_batch == training.batch:
        text = _(
            "A batch has room for labelled cases only. Lower “labelled per batch”, or leave the unlabelled ones out."
        )
        problems.append(Problem(text))
    if labelled and not any(row.role == VALIDATION for row in rows):
        text = _("No case is for validation, so the charts cannot show how good the model is. Keep one or more for it.")
        problems.append(Problem(text, blocks=False))
    return problems


def machine_problems(estimate: Mapping[str, Any]) -> list[Problem]:
    """Of too little disk or memory; `estimate` is the event of `dcamt estimate`."""
    problems = []
    free, needed = estimate.get("disk_free"), estimate["disk_bytes"]
    if free is not None and needed > free * (1 - SPARE):
        text = _(
            "The run takes {needed} of disk, and {free} are free there. Free some space, or choose another folder."
        )
        problems.append(Problem(text.format(needed=in_gigabytes(needed), free=in_gigabytes(free))))
    free, needed = estimate.get("memory_free"), estimate.get("memory_bytes")
    if free is not None and needed is not None and needed > free * (1 - SPARE):
        device = _("GPU memory") if estimate["device"] == "cuda" else _("memory")
        text = _(
            "The run takes {needed} of {device}, and {free} were free. Choose a smaller patch or batch, or quick try;"
            " or close other programs and measure again."
        )
        told = text.format(needed=in_gigabytes(needed), free=in_gigabytes(free), device=device)
        problems.append(Problem(told))
    return problems


def in_gigabytes(count: float) -> str:
    """`0.4 GB`, `12 GB`."""
    amount = count / 1e9
    return f"{amount:.1f} GB" if amount < 10 else f"{amount:.0f} GB"
