"""`dcamt report`: a run's report, written anew."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..runs.folder import RunFolder
from .console import Console


def run_report(options: argparse.Namespace) -> int:
    """Measure the validation cases and write `report.html` and `validation.csv` into the run's folder."""
    run = RunFolder(options.run)
    if not run.recipe.exists():
        raise InputError("holds no run", path=run.path, remedy="Name the folder of a run.")
    if not run.model.is_file():
        raise InputError("the run has no model yet", path=run.path, remedy="Let it finish first.")
    # What loads torch comes after all that can go wrong without it.
    from ..devices import choose_device
    from ..report.run_report import write_report

    console = Console(options.json)

    def progress(done: int, of: int) -> None:
        console.event("progress", step=done, of=of)
        console.bar("measuring the validation cases", done / of)

    path = write_report(run, choose_device(options.device), progress)
    console.event("report", report=str(path))
    console.text(f"report: {path}")
    return 0
