"""Keep the temporary files of a test run in one folder, which (on POSIX) is removed even if the run is killed."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

REMOVER = 'read -r _; for _ in $(seq 100); do rm -rf -- "$1" 2>/dev/null; [ -e "$1" ] || break; sleep 0.1; done'
"""A shell script that removes a folder when stdin closes. It retries, since child processes may still write there."""
KEPT = ("dcamt-python-", "dcamt-models-", "slicer-harness-", "torchinductor_", "torchelastic_")
"""Prefixes of folders that may stay until the process ends."""
_removers: list[subprocess.Popen[bytes]] = []
"""Holds the process that runs `REMOVER`, so that the pipe to its stdin closes only when the test process ends."""


def use_own_temporary_folder() -> None:
    """Create a folder for the temporary files of this process and its children; remove it when the process ends.

    pytest's own folders stay outside, because pytest keeps them for three runs.
    """
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="dcamt-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    if os.name == "posix":
        command = ["/bin/sh", "-c", REMOVER, "sh", folder]
        _removers.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
    else:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def temporary_files() -> set[Path]:
    """Return the paths of the files and folders that tests must remove."""
    folder = Path(tempfile.gettempdir())
    own = {path for path in folder.iterdir() if not path.name.startswith(KEPT)}
    return own.union(folder.glob("slicer-harness-*/tmp/*"))


def wait_until_added_files_are_removed(before: set[Path], at_most: float) -> None:
    """Wait until `temporary_files` returns only files of `before`; after `at_most` seconds, fail and name the others.

    Args:
        before: the temporary files at an earlier time.
    """
    end = time.monotonic() + at_most
    while added := temporary_files() - before:
        assert time.monotonic() < end, f"not removed: {sorted(map(str, added))}"
        time.sleep(0.02)
