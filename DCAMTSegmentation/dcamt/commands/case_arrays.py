"""Read a scan and its segmentation for an application: `python -m dcamt.commands.case_arrays SCAN SEGMENTATION FOLDER`.

Prints a JSON event (see `CaseArrays`) once the arrays are written. When stdin closes, the process removes the folder
and ends, so that no voxels remain on the disk if the application crashes. After a failure, the folder is removed, the
last line of stderr states the reason, and the exit status is 1. With `--labels-only`, the scan's voxels are not
written.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..cases.case_arrays import write_case_arrays
from ..errors import names_path, user_error
from .process import exit_when_stdin_closes, silence_libraries


def main(arguments: Sequence[str]) -> int:
    """Write the arrays, and wait; the process ends when stdin closes. Return 1 after a failure."""
    parser = argparse.ArgumentParser(prog="python -m dcamt.commands.case_arrays")
    parser.add_argument("scan", type=Path)
    parser.add_argument("segmentation", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels-only", action="store_true")
    given = parser.parse_args(arguments)
    remove_folder = partial(shutil.rmtree, given.folder, ignore_errors=True)
    waiting = exit_when_stdin_closes(0, remove_folder)
    try:
        with silence_libraries():
            arrays = write_case_arrays(given.scan, given.segmentation, given.folder, given.labels_only)
    except Exception as error:
        is_named = names_path(error, given.segmentation)
        print(user_error(error, None if is_named else given.scan), file=sys.stderr)
        remove_folder()
        return 1
    print(arrays.to_line(), flush=True)
    waiting.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
