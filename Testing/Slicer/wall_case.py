"""A phantom of an atrium with its wall, the phantom's nodes in a scene, and test cases with the phantom."""

from __future__ import annotations

import unittest
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall
from DCAMTSegmentationLib import wall_nodes
from DCAMTSegmentationLib.result_nodes import WALL_MODEL, WALL_TABLE, get_referenced_node
from DCAMTSegmentationLib.worker_process import WorkerProcess
from DCAMTSlicerLib.node_types import SegmentationNode
from DCAMTSlicerLib.scene_changes import SceneChanges
from engine_case import EngineCase
from fake_worker import FakePanel, FakeWorker
from slicer_harness import choose, click, process_events_until
from vtk.util.numpy_support import vtk_to_numpy

AFFINE = np.diag([-1.25, -1.25, 1.25, 1.0])
SHAPE = (56, 56, 56)
RADIUS_MM, SHELL_MM = 22.0, 4.0
POOL, SHELL, ENHANCED, LUNG = 200.0, 160.0, 320.0, 20.0


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """Return copies of the scan and the label (K, J, I): a ball of blood in a darker wall with a bright cap."""
    scan, label = _phantom()
    return scan.copy(), label.copy()


@cache
def _phantom() -> tuple[np.ndarray, np.ndarray]:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)[..., ::-1]
    points = (index - (np.array(SHAPE) - 1) / 2) @ AFFINE[:3, :3].T
    away = np.linalg.norm(points, axis=-1)
    anterior = points[..., 1] > 0.5 * away  # a cap with a half angle of 60 degrees, a quarter of the sphere
    draw = np.random.default_rng(0)
    scan = np.where(away <= RADIUS_MM, POOL, LUNG)
    shell = (away > RADIUS_MM) & (away <= RADIUS_MM + SHELL_MM)
    scan = np.where(shell, np.where(anterior, ENHANCED, SHELL), scan) + draw.normal(0, 3, SHAPE)
    return scan.astype(np.float32), (away <= RADIUS_MM).astype(np.uint8)


def add_phantom(segment: str = "blood") -> tuple[Any, Any]:
    """Add and return the phantom's volume node and a segmentation node with one segment."""
    scan, label = phantom()
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ball")
    slicer.util.updateVolumeFromArray(volume, scan)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(AFFINE))
    volume.CreateDefaultDisplayNodes()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    identifier = segmentation.GetSegmentation().AddEmptySegment(segment, segment)
    slicer.util.updateSegmentBinaryLabelmapFromArray(label, segmentation, identifier, volume)
    return volume, segmentation


@cache
def expected_wall() -> WallResult:
    """Return the phantom's wall measured without the worker."""
    scan, label = phantom()
    grid = Grid(SHAPE[::-1], AFFINE)
    return analyse_wall(
        Volume(scan.transpose(2, 1, 0)[None], grid, Path("ball.nrrd")), Labelmap(label.transpose(2, 1, 0), grid)
    )


def scalars(segmentation: SegmentationNode, name: str) -> np.ndarray:
    surface = get_referenced_node(segmentation, WALL_MODEL).GetPolyData()
    return np.array(vtk_to_numpy(surface.GetPointData().GetArray(name)))


def burden_cell(segmentation: SegmentationNode, column: str = "burden_percent", row: int = 0) -> str:
    table = get_referenced_node(segmentation, WALL_TABLE).GetTable()
    return str(table.GetValueByName(row, column).ToString())


def add_closed_curve(towards: np.ndarray, degrees: float = 35.0) -> Any:
    """Add a circle of points on the ball, each at an angle of `degrees` to the direction `towards` (RAS)."""
    axis = towards / np.linalg.norm(towards)
    side = np.cross(axis, [0.3, 0.2, 1.0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    centre = (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsClosedCurveNode", "valve")
    for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        direction = np.cos(np.radians(degrees)) * axis
        direction = direction + np.sin(np.radians(degrees)) * (np.cos(turn) * side + np.sin(turn) * other)
        node.AddControlPoint(*(centre + RADIUS_MM * direction))
    return node


class LastingWorker(WorkerProcess):
    """A worker process that all tests of a class share."""

    def shutdown(self) -> None:
        """Do nothing; `end` ends the process."""

    def end(self) -> None:
        super().shutdown()


class ChosenPhantomCase(unittest.TestCase):
    """A test case with a panel in which a phantom is chosen."""

    def setUp(self) -> None:
        self.module = FakePanel(self.make_worker())
        self.addCleanup(self.module.close)
        self.ui = self.module.ui
        self.choose_phantom()

    def make_worker(self) -> FakeWorker | WorkerProcess:
        return FakeWorker()

    def choose_phantom(self) -> None:
        self.volume, self.segmentation = add_phantom()
        choose(self.ui.inputSelector, self.volume)
        choose(self.ui.outputSelector, self.segmentation)

    def wait(self) -> None:
        process_events_until(lambda: not self.module.logic.isRunning(), "the end of the job")

    def measure(self) -> None:
        click(self.ui.wallMeasureButton)
        self.wait()


class WorkerWallCase(ChosenPhantomCase, EngineCase):
    """A test case with a panel in which a phantom is chosen, and with a real worker process."""

    worker: LastingWorker

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.worker = LastingWorker(temporary_folder=lambda: slicer.app.temporaryPath)
        cls.addClassCleanup(cls.worker.end)

    def make_worker(self) -> LastingWorker:
        return self.worker


class InsertedWallCase(ChosenPhantomCase):
    """A test case with a panel in which a phantom is chosen; the phantom's measured wall is in the scene."""

    def setUp(self) -> None:
        super().setUp()
        self.wall = expected_wall()
        self.insert_wall(self.segmentation)
        self.module.panel.enter()

    def insert_wall(self, segmentation: SegmentationNode) -> Any:
        """Insert the phantom's wall as the wall of a segmentation; return the wall's model node."""
        return wall_nodes.insert_wall(self.wall, self.volume, segmentation, SceneChanges())
