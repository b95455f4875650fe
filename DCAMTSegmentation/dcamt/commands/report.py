"""`dcamt report`: write a run's report again."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..runs.folder import RunFolder
from .console import Console
from .result_files import check_result_paths


def run_report(options: argparse.Namespace) -> int:
    """Write the run's report (`report.run_report.write_run_report`), and return 0.

    Raises:
        InputError: as in `write_run_report` and `refuse_links_out`; also if the device cannot be used.
        OutputError: a file cannot be written.
    """
    run = RunFolder(options.run)
    if not run.recipe.exists():
        raise InputError("holds no run", path=run.path, remedy="Give the folder of a run.")
    if not run.model.is_file():
        raise InputError("the run has no model yet", path=run.path, remedy="Wait until the run has finished.")
    run.refuse_links_out(run.validation, run.report)
    check_result_paths([run.validation, run.report], [])
    # Imported after the checks above, since torch loads slowly.
    from ..devices import choose_device
    from ..report.run_report import write_run_report

    console = Console(options.json)

    def progress(done: int, of: int) -> None:
        console.print_event("progress", step=done, of=of)
        console.show_progress("scoring the validation cases", done / of)

    path = write_run_report(run, choose_device(options.device), progress, console.print_note)
    console.print_event("report", report=str(path), notes=console.notes)
    console.print_text(f"report: {path}")
    return 0
