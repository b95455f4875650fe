"""`dcamt estimate`: estimate time, memory and disk space of a run on this machine."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..api.training_plan import check_cases_and_batch, choose_recipe
from ..cases.case_list import LEFT_OUT, VALIDATION, list_cases, read_cases
from ..cases.case_scans import read_case_grid
from ..errors import InputError
from ..geometry import Grid, Shape
from ..io.readers import read_header
from ..runs.efforts import EFFORTS
from .console import Console, format_duration

if TYPE_CHECKING:
    from ..training.estimate import MeasuredPatch, Trial

_Item = TypeVar("_Item")
MAX_HEADERS = 200
"""The headers of at most this many cases are read; the other scans are assumed to have similar sizes."""


def run_estimate(options: argparse.Namespace) -> int:
    """Measure a few training steps, print the estimate for each chosen effort, and return 0."""
    console = Console(options.json)
    if options.scene:
        cases = list_cases(options.cases, options.labels, console.print_note)
        cases = [case for case in cases if case.role != LEFT_OUT]
    else:
        cases = read_cases(options.cases, options.labels, on_note=console.print_note)
    plans = {
        effort: choose_recipe(options.recipe, options.start_from, options.set, effort, console.print_note)[0]
        for effort in options.effort or EFFORTS
    }
    for planned in plans.values():
        check_cases_and_batch(planned, cases)
    if options.scene:
        grids = _read_grids([case.image for case in cases], console)
    else:
        recipe = next(iter(plans.values()))  # Header checks do not depend on the effort.
        grids = _for_all(cases, [read_case_grid(case, recipe) for case in _sample(cases)])
    validated = any(case.role == VALIDATION for case in cases)
    # Imported after the checks above, since torch loads slowly.
    from ..devices import choose_device
    from ..training.estimate import available_memory, estimate, try_steps

    device = choose_device(options.device, training=True)
    memory_free = available_memory(device)
    measured: list[MeasuredPatch] = []
    trials: dict[Shape, Trial] = {}
    smallest_patch_first = sorted(plans.items(), key=lambda plan: math.prod(plan[1].training.patch))
    for effort, planned in smallest_patch_first:
        patch = planned.training.patch  # Of an effort's settings, only the patch affects a step's time and memory.
        if patch not in trials:
            console.show_progress(f"measuring a step ({effort})", 0.5)
            trials[patch] = try_steps(planned, device, measured)
    # Other programs may have slowed a measured step down. A step on a smaller patch takes no longer than a step on a
    # larger patch. So if the step on a larger patch was faster, the smaller patch gets the larger patch's time.
    fastest = math.inf
    for patch in reversed(trials):
        fastest = min(fastest, trials[patch].step_s)
        trials[patch] = replace(trials[patch], step_s=fastest)
    for effort, planned in smallest_patch_first:
        trial = trials[planned.training.patch]
        estimated = estimate(planned, trial, grids, validated, device, options.run or Path(), memory_free)
        iterations = planned.training.iterations
        console.print_event("estimate", effort=effort, iterations=iterations, **asdict(estimated), notes=console.notes)
        memory = f"{estimated.memory_bytes / 1e9:.1f} GB"
        console.print_text(
            f"{effort:<9} {iterations:>6} iterations  time {format_duration(estimated.seconds):>8}"
            f"  memory {memory} ({estimated.device})  disk {estimated.disk_bytes / 1e9:.1f} GB"
        )
    return 0


def _read_grids(images: list[Path], console: Console) -> list[Grid]:
    """Return the grids of the readable images, and print the number of unreadable images and the first reason."""
    sample = _sample(images)
    grids, errors = [], []
    for image in sample:
        try:
            grids.append(read_header(image).grid)
        except InputError as error:
            errors.append(error)
    if errors:
        what = f"{len(errors)} of {len(sample)} checked scans cannot be read, so the estimate omits these scans"
        console.print_note(f"{what}. The first is {errors[0]}")
    return _for_all(images, grids)


def _sample(items: Sequence[_Item]) -> Sequence[_Item]:
    return items[:: max(1, math.ceil(len(items) / MAX_HEADERS))]


def _for_all(items: Sequence[object], grids: list[Grid]) -> list[Grid]:
    """Repeat the grids of a `_sample` for the items that are not in the sample."""
    return (grids * math.ceil(len(items) / MAX_HEADERS))[: len(items)]
