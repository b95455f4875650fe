"""Common set-up of tests in which something goes wrong midway."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from segmentation_case import (
    SegmentationCase,
    add_scan,
    click,
    own_mask,
    process_events_until,
    scene_state,
)

LARGE = (120, 150, 150)
"""Voxels of a scan that takes the tiny model some seconds."""


WORKING = ("Preparing", "Segmenting", "Finding")


RUN = "import runpy; runpy.run_module('dcamt.inference.worker', run_name='__main__')"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class FaultCase(SegmentationCase):
    @property
    def worker(self) -> Any:
        return self.logic._worker

    def pid(self) -> int:
        process_events_until(lambda: self.worker._process is not None, 10, "the worker's start")
        return int(self.worker._process._process.processId())

    def begin(self, volume: Any) -> int:
        """Start, and wait until the network computes; returns the worker's process number."""
        self.prepare(volume)
        self.state = scene_state()
        click(self.ui.applyButton)
        self.wait_for_stage(*WORKING)
        return self.pid()

    def assert_the_next_apply_works(self, volume: Any = None) -> None:
        volume = volume or add_scan("next")
        segmentation = self.segment(volume)
        self.assertGreater(int(own_mask(segmentation, volume).sum()), 0)

    def broken_worker(self, program: str) -> None:
        """Let the worker's interpreter run `program` first."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name, "broken.py").write_text(f"{program}\n{RUN}\n", encoding="utf-8")
        script = Path(folder.name, "python")
        python = shutil.which("PythonSlicer") or sys.executable
        code = f"import sys; sys.path.insert(0, ''); exec(open('{folder.name}/broken.py').read())"
        script.write_text(f'#!/bin/sh\nexec "{python}" -c "{code}"\n', encoding="utf-8")
        script.chmod(0o755)
        self.whole = self.worker._python
        self.worker._python = str(script)

    def repaired_worker(self) -> None:
        self.worker._python = self.whole
