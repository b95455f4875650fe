"""Common set-up of tests that start processes of the engine."""

from __future__ import annotations

import os
import shutil
import sys
import unittest
from pathlib import Path

from dcamt_testing import warm_python
from slicer_harness import in_real_slicer

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # leaves processors to other programs


def write_python(folder: Path, script: str, module: str) -> str:
    """Write an interpreter that runs `script` before it runs the module, when started as `python -m MODULE …`.

    Args:
        folder: for the interpreter's files.
        module: the module that it runs, whichever is given.

    Returns:
        The interpreter's path.
    """
    run = f"import runpy, sys; del sys.argv[1:3]; runpy.run_module({module!r}, run_name='__main__')"
    program, python = folder / "script.py", folder / "python"
    program.write_text(f"{script}\n{run}\n", encoding="utf-8")
    interpreter = shutil.which("PythonSlicer") or sys.executable
    code = f"import sys; sys.path.insert(0, ''); exec(open('{program}').read())"
    python.write_text(f'#!/bin/sh\nexec "{interpreter}" -c "{code}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return str(python)


class EngineCase(unittest.TestCase):
    """A test case whose processes of the engine start quickly."""

    @classmethod
    def setUpClass(cls) -> None:
        if not in_real_slicer():
            warm_python.start()
