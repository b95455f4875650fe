"""Common set-up of tests in which a segmentation fails or is interrupted."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from segmentation_case import (
    SegmentationCase,
    add_scan,
    click,
    process_events_until,
    scene_state,
    segment_mask,
)

LARGE = (120, 150, 150)
"""The shape (K, J, I) of a scan whose segmentation takes a few seconds."""


WORKING = ("Preparing", "Segmenting", "Finding")


RUN = "import runpy; runpy.run_module('dcamt.commands.worker', run_name='__main__')"


class FaultCase(SegmentationCase):
    @property
    def worker(self) -> Any:
        return self.logic._worker

    def pid(self) -> int:
        process_events_until(lambda: self.worker._process is not None, 10, "the worker's start")
        return int(self.worker._process._process.processId())

    def begin(self, volume: Any) -> int:
        """Start a segmentation and wait until the network computes; return the worker's process id."""
        self.prepare(volume)
        self.state = scene_state()
        click(self.ui.applyButton)
        self.wait_for_stage(*WORKING)
        return self.pid()

    def assert_the_next_apply_works(self, volume: Any = None) -> None:
        volume = volume or add_scan("next")
        segmentation = self.segment(volume)
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)

    def use_broken_worker(self, program: str) -> None:
        """Replace the worker by one whose process runs the script `program` first."""
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

    def use_working_worker(self) -> None:
        self.worker._python = self.whole
