"""Common set-up of tests in which a segmentation fails or is interrupted."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from dcamt_testing.broken_workers import HELD
from DCAMTSlicerLib.node_types import VolumeNode
from segmentation_case import (
    SegmentationCase,
    add_scan,
    click,
    process_events_until,
    scene_state,
    segment_mask,
)

WORKING = ("Preparing", "Segmenting", "Finding")
RUN = "import runpy, sys; del sys.argv[1:3]; runpy.run_module('dcamt.commands.worker', run_name='__main__')"
"""Runs the worker with the options that follow `-m dcamt.commands.worker`."""


class FaultCase(SegmentationCase):
    """A test case whose worker can be held in the middle of a segmentation, however small the scan is."""

    def setUp(self) -> None:
        super().setUp()
        self._gate = self.home / "gate"
        self._whole = self.worker._python
        self.use_working_worker()

    @property
    def worker(self) -> Any:
        return self.logic._worker

    def pid(self) -> int:
        process_events_until(lambda: self.worker._process is not None, "the worker's start")
        return int(self.worker._process._process.processId())

    def begin(self, volume: VolumeNode) -> int:
        """Start a segmentation and hold it before the network computes; return the worker's process id."""
        self._gate.touch()
        self.prepare(volume)
        self.state = scene_state()
        click(self.ui.applyButton)
        self.wait_for_stage(*WORKING)
        return self.pid()

    def proceed(self) -> None:
        """Let the network compute."""
        self._gate.unlink(missing_ok=True)

    def wait(self) -> None:
        """Let the network compute and wait until the segmentation has ended."""
        self.proceed()
        super().wait()

    def assert_the_next_apply_works(self, volume: VolumeNode | None = None) -> None:
        volume = volume or add_scan("next")
        segmentation = self.segment(volume)
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)

    def use_broken_worker(self, program: str) -> None:
        """Let the worker's next process run the script `program` first."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name, "broken.py").write_text(f"{program}\n{RUN}\n", encoding="utf-8")
        script = Path(folder.name, "python")
        python = shutil.which("PythonSlicer") or sys.executable
        code = f"import sys; sys.path.insert(0, ''); exec(open('{folder.name}/broken.py').read())"
        script.write_text(f'#!/bin/sh\nexec "{python}" -c "{code}" "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        self.worker._python = str(script)

    def use_working_worker(self) -> None:
        self.use_broken_worker(self.gate_script())

    def gate_script(self) -> str:
        return HELD.format(gate=str(self._gate))
