"""Read a scan and its segmentation for an application: `python -m dcamt.commands.case_arrays SCAN SEGMENTATION FOLDER`.

Prints a JSON event (see `CaseArrays`) once the arrays are written. When stdin closes, the process removes the folder
and ends, so that no voxels remain on the disk if the application crashes. After a failure, the folder is removed, the
last line of stderr states the reason, and the exit status is 1. With `--labels-only`, the scan's voxels are not
written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from ..cases.case_arrays import write_case_arrays
from ..errors import user_error
from ..io.interruption import detach_stdin
from .process import silence_libraries


def main(arguments: Sequence[str]) -> int:
    """Write the arrays, and wait; the process ends when stdin closes. Return 1 after a failure."""
    parser = argparse.ArgumentParser(prog="python -m dcamt.commands.case_arrays")
    parser.add_argument("scan", type=Path)
    parser.add_argument("segmentation", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels-only", action="store_true")
    given = parser.parse_args(arguments)
    stdin = detach_stdin()

    def wait() -> None:
        while os.read(stdin, 4096):
            pass
        shutil.rmtree(given.folder, ignore_errors=True)
        os._exit(0)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    try:
        with silence_libraries():
            arrays = write_case_arrays(given.scan, given.segmentation, given.folder, given.labels_only)
    except Exception as error:
        is_named = str(given.segmentation) in str(error)
        print(user_error(error, None if is_named else given.scan), file=sys.stderr)
        shutil.rmtree(given.folder, ignore_errors=True)
        return 1
    print(arrays.to_line(), flush=True)
    waiting.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
