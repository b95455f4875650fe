"""A worker for tests that answers each request at once with a fixed result, and a panel that uses it."""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import qt
import slicer
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.metrics.measurements import Measurements
from dcamt.models.calibration import ExpectedOverlap
from dcamt.volume import Code, SegmentInfo
from dcamt.worker.protocol import ScanSegmented, SegmentRequest, SegmentResult, WorkerProgress
from DCAMTSegmentationLib.segmentation_logic import DCAMTSegmentationLogic
from DCAMTSegmentationLib.segmentation_panel import SegmentationPanel
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.terms_of_use import record_acceptance
from segmentation_case import ROOT
from slicer_harness import choose, click, close_scene, process_events, process_events_until

LEFT_ATRIUM = SegmentInfo(1, "Left atrium", (0.8, 0.3, 0.3), Code("SCT", "82471001", "Left atrium"))


class FakeWorker:
    """Implements `worker_process.SegmentationWorker`; `labels_of` computes the labels (K, J, I) from the voxels."""

    def __init__(self, trust: float | None = 0.93, places: int = 2, expected: ExpectedOverlap | None = None) -> None:
        self.trust, self.places, self.expected = trust, places, expected
        self.requests: list[Any] = []
        self.labels_of: Callable[[np.ndarray], np.ndarray] = lambda voxels: (voxels > 175).astype(np.uint8)
        self.before_answer: Callable[[], None] = lambda: None
        self._folder = tempfile.TemporaryDirectory()

    def make_folder(self) -> str:
        return tempfile.mkdtemp(dir=self._folder.name)

    def remove_folder(self, folder: str) -> None:
        """Do nothing: the folder is removed with the worker."""

    def request(self, request: Any, on_event: Any = None) -> None:
        self.requests.append(request)
        qt.QTimer.singleShot(0, lambda: self._answer(request, on_event))

    def cancel(self) -> None:
        """Do nothing: no request is ever running."""

    def log(self) -> str:
        return ""

    def shutdown(self) -> None:
        self._folder.cleanup()

    def _answer(self, request: SegmentRequest, on_event: Any) -> None:
        self.before_answer()
        labels = self.labels_of(np.load(request.volume))
        labelmap, doubt_map = request.output / "labelmap.npy", request.output / "doubt.npy"
        np.save(labelmap, labels)
        np.save(doubt_map, labels * 200)
        index = np.argwhere(labels)[:, ::-1]
        box = None
        if len(index):
            box = tuple((int(a), int(b) + 1) for a, b in zip(index.min(0), index.max(0), strict=True))
        x, y, z = (request.affine @ [*index.mean(axis=0), 1.0])[:3].tolist() if len(index) else (0.0, 0.0, 0.0)
        volume_ml = len(index) * abs(float(np.linalg.det(request.affine[:3, :3]))) / 1000
        on_event(WorkerProgress("1", "segmenting", 0.5, 2.0))
        on_event(
            ScanSegmented(
                "1",
                labelmap,
                doubt_map if self.trust is not None else None,
                self.trust,
                tuple(DoubtfulPlace((x, y, z), (0, 0, 0), 0.5 / (n + 1), 0.25 / (n + 1)) for n in range(self.places)),
                (Measurements(request.name, "Left atrium", volume_ml, *[float("nan")] * 5),),
                (SegmentResult(LEFT_ATRIUM, box),),
                0.1,
                "cpu",
                expected_overlap=self.expected,
            )
        )


class FakePanel:
    """The module's panel with a given worker in a new scene, without loading the module itself."""

    def __init__(self, worker: Any) -> None:
        close_scene()
        self.worker = worker
        path = ROOT / "DCAMTSegmentation" / "Resources" / "UI" / "DCAMTSegmentation.ui"
        self.widget = slicer.util.loadUI(str(path))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.logic = DCAMTSegmentationLogic(worker)
        self.panel = SegmentationPanel(self.ui, self.logic)
        self.panel.start()
        self.panel.enter()
        process_events()

    @property
    def settings(self) -> Any:
        return self.logic.getParameterNode()

    def close(self) -> None:
        self.panel.close()
        self.logic.shutdown()
        self.widget.deleteLater()
        process_events()


def slice_composites() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


class ViewCase(unittest.TestCase):
    """A test case with a new scene; `self.module` is the panel with a `FakeWorker`."""

    def setUp(self) -> None:
        self.open(FakeWorker())

    def open(self, worker: FakeWorker) -> None:
        self.module = FakePanel(worker)
        self.addCleanup(self.module.close)
        self.ui, self.logic = self.module.ui, self.module.logic

    @property
    def settings(self) -> Any:
        return self.module.settings

    def segment(self, volume: VolumeNode) -> Any:
        choose(self.ui.inputSelector, volume)
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        record_acceptance("left-atrium")
        click(self.ui.applyButton)
        process_events_until(lambda: self.ui.applyButton.text == "Apply", "the result")
        self.assertIsNotNone(self.settings.outputSegmentation, self.ui.statusLabel.text)
        return self.settings.outputSegmentation

    def assert_shown(self, volume: VolumeNode) -> None:
        for composite in slice_composites():
            self.assertEqual(composite.GetBackgroundVolumeID(), volume.GetID())
