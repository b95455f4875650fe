"""Common set-up of tests that start processes of the engine."""

from __future__ import annotations

import os
import shutil
import sys
import unittest
from pathlib import Path
from unittest import mock

from dcamt_testing import warm_python
from DCAMTSlicerLib import stepped_task
from slicer_harness import in_real_slicer

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # leaves processors to other programs
SHIPPED_DOUBLE_CLICK_S = stepped_task.DOUBLE_CLICK_S
# The tests click without pauses. With the shipped value, the panels would ignore the second click.
stepped_task.DOUBLE_CLICK_S = 0.0


def write_python(folder: Path, script: str, module: str) -> str:
    """Write a program that a test starts instead of Python; the program runs `script` and then `module`.

    The program ignores its first two arguments, `-m NAME`, and passes the remaining arguments to `module`.

    Returns:
        The program's path.
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
    @classmethod
    def setUpClass(cls) -> None:
        if not in_real_slicer():
            warm_python.start()

    def use_home(self, folder: Path) -> None:
        """Set DCAMT_HOME to `folder` during the test; imported models then lie in `folder/models`."""
        patch = mock.patch.dict(os.environ, {"DCAMT_HOME": str(folder)})
        patch.start()
        self.addCleanup(patch.stop)
