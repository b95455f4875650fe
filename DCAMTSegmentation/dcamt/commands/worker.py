"""Run the worker process of an application (`inference.worker`) with all of its requests, the page included."""

from __future__ import annotations

import sys

from ..inference.worker import main
from ..worker.protocol import PageRequest, PageWritten


def write_page(request: PageRequest) -> PageWritten:
    """Write the page of a request; raises InputError if it cannot be made, OutputError if it cannot be written."""
    # Imported with the first request, since a segmentation does not need it.
    from ..report.outline_page import write_requested_page

    return write_requested_page(request)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], write_page))
