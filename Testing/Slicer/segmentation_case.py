"""Common set-up of the segmentation module's tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from dcamt_testing.tiny_models import tiny_models
from DCAMTSlicerLib.node_types import VolumeNode
from engine_case import ROOT, EngineCase
from slicer_harness import choose, click, open_module, process_events_until, start_afresh


def model_folder() -> Path:
    """Return a folder with the models tiny.dcamt and other.dcamt, which have random weights."""
    return tiny_models(ROOT / "Testing") / "segmenting"


class SegmentationCase(EngineCase):
    """A test case with a new scene, the module's open panel, and a model store that holds tiny.dcamt."""

    def setUp(self) -> None:
        start_afresh()
        home = tempfile.TemporaryDirectory(prefix="dcamt-home-")
        self.addCleanup(home.cleanup)
        self.home = Path(home.name)
        (self.home / "models").mkdir()
        shutil.copy(model_folder() / "tiny.dcamt", self.home / "models")
        self.use_home(self.home)
        self.module = open_module("DCAMTSegmentation")
        self.addCleanup(self.module.close)
        self.ui, self.logic = self.module.ui, self.module.logic

    @property
    def settings(self) -> Any:
        return self.logic.getParameterNode()

    def prepare(self, volume: VolumeNode, model: str = "Tiny") -> None:
        choose(self.ui.inputSelector, volume)
        choose(self.ui.modelComboBox, model)

    def wait(self) -> None:
        process_events_until(lambda: not self.logic.isRunning(), "the segmentation's end")
        process_events_until(lambda: self.ui.applyButton.text == "Apply", "the button")

    def segment(self, volume: VolumeNode, model: str = "Tiny") -> Any:
        """Choose a volume and a model, click Apply and wait; return the segmentation node."""
        self.prepare(volume, model)
        click(self.ui.applyButton)
        self.wait()
        self.assertIsNotNone(self.settings.outputSegmentation, self.ui.statusLabel.text)
        return self.settings.outputSegmentation

    def wait_for_stage(self, *stages: str) -> None:
        process_events_until(lambda: any(self.ui.statusLabel.text.startswith(stage) for stage in stages), str(stages))
