"""A fake worker, a panel for a given worker, and a test case that joins them."""

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
from dcamt.recipe import ACCURATE
from dcamt.worker.events import ScanSegmented, SegmentsMeasured, WorkerProgress
from dcamt.worker.requests import MeasureRequest, OutlineMethod, SegmentRequest
from DCAMTSegmentationLib.segmentation_logic import DCAMTSegmentationLogic
from DCAMTSegmentationLib.segmentation_panel import SegmentationPanel
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.terms_of_use import record_acceptance
from engine_case import ROOT
from made_results import LEFT_ATRIUM, segment_result
from slicer_harness import choose, click, close_scene, delete_pending, process_events, process_events_until


def make_measurements(scan: str, segment: str, volume_ml: float) -> Measurements:
    return Measurements(scan, segment, volume_ml, 12.5, 34.5, 25.0, 30.0, 0.9)


class FakeWorker:
    """Implements `worker_process.SegmentationWorker` for requests to segment and to measure.

    Attributes:
        labels_of: computes the labels (K, J, I) from a request's voxels, (K, J, I) or (K, J, I, C).
        notes: the notes that every result of a segmentation gets.

    Args:
        trust: the agreement of the two branches in each result of accurate quality.
        places: the number of doubtful places of each result of accurate quality; all lie at the mean position of the
            labelled voxels.
    """

    def __init__(self, trust: float = 0.93, places: int = 2, expected: ExpectedOverlap | None = None) -> None:
        self.trust, self.places, self.expected = trust, places, expected
        self.is_doubt_calibrated = False
        self.requests: list[Any] = []
        self.notes: tuple[str, ...] = ()
        self._running: Any = None
        self.labels_of: Callable[[np.ndarray], np.ndarray] = lambda voxels: (voxels > 175).astype(np.uint8)
        self.before_answer: Callable[[], None] = lambda: None
        self._folder = tempfile.TemporaryDirectory()

    def make_folder(self) -> str:
        return tempfile.mkdtemp(dir=self._folder.name)

    def remove_folder(self, folder: str) -> None:
        """Do nothing: `shutdown` removes all folders."""

    def request(self, request: Any, on_event: Any = None) -> None:
        self.requests.append(request)
        self._running = request
        qt.QTimer.singleShot(0, lambda: self._answer(request, on_event) if request is self._running else None)

    def cancel(self) -> None:
        self._running = None

    def log(self) -> str:
        return ""

    def shutdown(self) -> None:
        self._folder.cleanup()

    def _answer(self, request: SegmentRequest | MeasureRequest, on_event: Any) -> None:
        self.before_answer()
        if isinstance(request, MeasureRequest):
            volumes = [(item.name, self._volume_ml(np.load(item.mask), item.affine)) for item in request.outlines]
            rows = tuple(make_measurements(request.name, *volume) for volume in volumes)
            on_event(SegmentsMeasured(request.id, rows))
        else:
            self._segment(request, on_event)

    def _volume_ml(self, mask: np.ndarray, affine: np.ndarray) -> float:
        return int(np.count_nonzero(mask)) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000

    def _segment(self, request: SegmentRequest, on_event: Any) -> None:
        is_accurate = request.quality == ACCURATE
        places = range(self.places if is_accurate else 0)
        labels = self.labels_of(np.load(request.volume))
        labelmap, doubt_map = request.output / "labelmap.npy", request.output / "doubt.npy"
        np.save(labelmap, labels)
        np.save(doubt_map, labels * 200)
        k, j, i = np.argwhere(labels).mean(axis=0) if labels.any() else (0.0, 0.0, 0.0)
        x, y, z = (request.affine @ [i, j, k, 1.0])[:3].tolist()
        on_event(WorkerProgress(request.id, "segmenting", 0.5, 2.0))
        on_event(
            ScanSegmented(
                request.id,
                labelmap,
                doubt_map if is_accurate else None,
                self.trust if is_accurate else None,
                tuple(DoubtfulPlace((x, y, z), (0, 0, 0), 0.5 / (n + 1), 0.25 / (n + 1)) for n in places),
                (make_measurements(request.name, LEFT_ATRIUM.name, self._volume_ml(labels, request.affine)),),
                (segment_result(labels),),
                0.1,
                "cpu",
                notes=self.notes,
                expected_overlap=self.expected,
                is_doubt_calibrated=self.is_doubt_calibrated,
                method=OutlineMethod("left-atrium", "Left atrium in LGE-MRI", "1", "LGE-MRI", request.quality),
            )
        )


class FakePanel:
    """The panel of DCAMT Segmentation with a given worker, in a new scene.

    The Slicer module's widget, which usually owns the panel, is not created.
    """

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

    def leave(self) -> None:
        self.panel.exit()

    def enter(self) -> None:
        self.panel.enter()

    def close(self) -> None:
        self.panel.close()
        self.logic.shutdown()
        self.widget.deleteLater()
        delete_pending()


def slice_composites() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


class PanelCase(unittest.TestCase):
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

    def prepare(self, volume: VolumeNode) -> None:
        """Choose a volume and the shipped model, and record that the model's terms are accepted."""
        choose(self.ui.inputSelector, volume)
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        record_acceptance("left-atrium")

    def wait(self) -> None:
        process_events_until(lambda: self.ui.applyButton.text == "Apply" and not self.logic.isRunning(), "the answer")

    def segment(self, volume: VolumeNode) -> Any:
        """Choose a volume and the shipped model, click Apply and wait; return the segmentation node."""
        self.prepare(volume)
        click(self.ui.applyButton)
        self.wait()
        self.assertIsNotNone(self.settings.outputSegmentation, self.ui.statusLabel.text)
        return self.settings.outputSegmentation

    def assert_shown(self, volume: VolumeNode) -> None:
        for composite in slice_composites():
            self.assertEqual(composite.GetBackgroundVolumeID(), volume.GetID())
