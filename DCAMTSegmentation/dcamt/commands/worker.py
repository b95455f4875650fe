"""Run the worker process: `inference.worker.main` with a function that writes reports."""

from __future__ import annotations

import sys

from ..inference.worker import main
from ..worker.events import ReportWritten
from ..worker.requests import ReportRequest


def _write_report(request: ReportRequest) -> ReportWritten:
    """Write the requested report. Raises the errors of `write_requested_report`."""
    # Imported here: segmentations do not need reports.
    from ..report.outline_report import write_requested_report

    return write_requested_report(request)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _write_report))
