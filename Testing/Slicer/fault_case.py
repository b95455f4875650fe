"""Common set-up of tests in which a segmentation fails or is interrupted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from dcamt_testing.broken_workers import wait_while_exists
from DCAMTSlicerLib.node_types import VolumeNode
from engine_case import write_python
from scene_nodes import add_scan, segment_mask
from segmentation_case import SegmentationCase
from slicer_harness import click, process_events_until
from unchanged_scene import scene_state

WORKING = ("Preparing", "Segmenting")
"""Beginnings of the panel's status text during a segmentation."""


class FaultCase(SegmentationCase):
    """A test case that can hold the worker before the network computes."""

    def setUp(self) -> None:
        super().setUp()
        self._gate = self.home / "gate"
        self.use_working_worker()

    @property
    def worker(self) -> Any:
        return self.logic._worker

    def pid(self) -> int:
        """Wait until the worker has started; return its process id."""
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
        self.proceed()
        super().wait()

    def assert_the_next_apply_works(self, volume: VolumeNode | None = None) -> None:
        volume = volume or add_scan("next")
        segmentation = self.segment(volume)
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)

    def use_worker_script(self, script: str) -> None:
        """Let the worker's next process run `script` first."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.worker._python = write_python(Path(folder.name), script, "dcamt.commands.worker")

    def use_working_worker(self) -> None:
        """Let the worker's next process run without a fault."""
        self.use_worker_script(self.gate_script())

    def gate_script(self) -> str:
        """Return a script that makes the worker wait in each segmentation while the gate file exists."""
        return wait_while_exists(self._gate)
