"""Common set-up of tests that start processes of the engine."""

from __future__ import annotations

import os
import unittest
from pathlib import Path

from dcamt_testing import warm_python
from slicer_harness import in_real_slicer

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # leaves processors to other programs


class EngineCase(unittest.TestCase):
    """A test case whose processes of the engine start quickly."""

    @classmethod
    def setUpClass(cls) -> None:
        if not in_real_slicer():
            warm_python.start()
