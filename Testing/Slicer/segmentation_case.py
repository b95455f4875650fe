"""Common set-up of the segmentation module's tests: scans in the scene, tiny models, the open panel."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt_testing.tiny_models import tiny_models
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from engine_case import ROOT, EngineCase
from slicer_harness import (
    LoopMonitor,
    Pause,
    Person,
    announce_quitting,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
    longest_step,
    open_module,
    pause_of,
    process_events_until,
    reload_scene,
    scene_saved_and_closed,
    shortest_pause,
    start_afresh,
)
from vtk.util.numpy_support import vtk_to_numpy


def model_folder() -> Path:
    """Return a folder with the models tiny.dcamt and other.dcamt, which have random weights."""
    return tiny_models(ROOT / "Testing") / "segmenting"


def add_scan(
    name: str = "LGE",
    shape: tuple[int, int, int] = (16, 20, 24),
    affine: np.ndarray | None = None,
    seed: int = 0,
) -> Any:
    """Add a scalar volume node with a bright ellipsoid in noise.

    Args:
        shape: (K, J, I).
        affine: (4, 4), IJK to RAS mm.
    """
    draw = np.random.default_rng(seed)
    k, j, i = np.ogrid[[slice(-1, 1, complex(n)) for n in shape]]
    inside = (k / 0.6) ** 2 + (j / 0.5) ** 2 + (i / 0.7) ** 2 <= 1
    voxels = (100 + 150 * inside + draw.normal(0, 15, shape)).astype(np.int16)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, voxels)
    matrix = np.diag([-1.5, -1.5, 1.5, 1.0]) if affine is None else affine
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    volume.CreateDefaultDisplayNodes()
    return volume


def segment_mask(segmentation: SegmentationNode, volume: VolumeNode, index: int = 0) -> np.ndarray:
    """Return the mask (K, J, I) of the segment at `index`, resampled on the volume's grid."""
    identifier = segmentation.GetSegmentation().GetNthSegmentID(index)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)


def scene_state() -> list[tuple[str, str, str | None]]:
    """Return the ID, name and first display node's ID of all nodes except parameter nodes and the subject hierarchy."""
    nodes = [slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes())]
    return [
        (node.GetID(), node.GetName(), node.GetNodeReferenceID("display"))
        for node in nodes
        if not node.IsA("vtkMRMLScriptedModuleNode") and not node.IsA("vtkMRMLSubjectHierarchyNode")
    ]


def scene_content() -> list[str]:
    """Return lines that describe `scene_state`, the saved scene, and the data of nodes.

    The saved scene contains attributes, references, display settings and the subject hierarchy. Data is
    taken from tables, colour tables, volumes and Slicer's model nodes. Images and arrays are described by their
    checksums.
    """
    scene, util = slicer.mrmlScene, slicer.util
    # In the simulated Slicer, this call creates the scene's subject hierarchy node if there is none. Without the call,
    # a later creation of the node would count as a change. Slicer itself always has the node.
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    scene.SetSaveToXMLString(1)
    scene.Commit()
    lines = [*map(str, scene_state()), *scene.GetSceneXMLString().splitlines()]
    # Leave out parameter nodes, as `scene_state` does: input in the panel changes them.
    lines = [line for line in lines if "ScriptedModuleNode" not in line]
    scene.SetSaveToXMLString(0)
    for node in util.getNodesByClass("vtkMRMLTableNode"):
        for index in range(node.GetNumberOfColumns()):
            column = node.GetTable().GetColumn(index)
            cells = [column.GetVariantValue(row).ToString() for row in range(column.GetNumberOfTuples())]
            lines.append(f"{node.GetID()} {column.GetName()} {cells}")
    for node in util.getNodesByClass("vtkMRMLColorTableNode"):
        table = node.GetLookupTable()
        if table is not None:
            colors = [table.GetTableValue(index) for index in range(table.GetNumberOfTableValues())]
            lines.append(f"{node.GetID()} {hash(tuple(colors))} {table.GetRange()}")
    for node in util.getNodesByClass("vtkMRMLModelNode"):
        data = node.GetPolyData().GetPointData() if node.GetPolyData() is not None else None
        for index in range(data.GetNumberOfArrays() if data is not None else 0):
            array = data.GetArray(index)
            lines.append(f"{node.GetID()} {array.GetName()} {hash(vtk_to_numpy(array).tobytes())}")
    for node in util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetImageData() is not None:
            lines.append(f"{node.GetID()} {hash(util.arrayFromVolume(node).tobytes())}")
    return lines


def changed_content(before: list[str]) -> list[str]:
    """Return the lines, cut to 300 characters, by which `scene_content` differs from an earlier one."""
    now = scene_content()
    return [line[:300] for lines, others in ((before, now), (now, before)) for line in lines if line not in others]


def fail_after(module: Any, name: str, call: int = 0) -> Any:
    """Return a context in which a function of a module works, but raises MemoryError at the end of one call.

    Args:
        call: the index of the call.
    """
    real, calls = getattr(module, name), []

    def fail(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        calls.append(name)
        if len(calls) == call + 1:
            raise MemoryError
        return result

    return mock.patch.object(module, name, fail)


class SegmentationCase(EngineCase):
    """A test case with a new scene, the module's open panel, and a model store that holds tiny.dcamt."""

    def setUp(self) -> None:
        start_afresh()
        home = tempfile.TemporaryDirectory(prefix="dcamt-home-")
        self.addCleanup(home.cleanup)
        self.home = Path(home.name)
        (self.home / "models").mkdir()
        shutil.copy(model_folder() / "tiny.dcamt", self.home / "models")
        self._before = os.environ.get("DCAMT_HOME")
        os.environ["DCAMT_HOME"] = str(self.home)
        self.addCleanup(self._restore_home)
        self.module = open_module("DCAMTSegmentation")
        self.addCleanup(self.module.close)
        self.ui, self.logic = self.module.ui, self.module.logic

    def _restore_home(self) -> None:
        os.environ.pop("DCAMT_HOME", None)
        if self._before is not None:
            os.environ["DCAMT_HOME"] = self._before

    @property
    def settings(self) -> Any:
        return self.logic.getParameterNode()

    def prepare(self, volume: VolumeNode, model: str = "Tiny") -> None:
        """Choose a volume and a model, as a person does."""
        choose(self.ui.inputSelector, volume)
        choose(self.ui.modelComboBox, model)

    def wait(self) -> None:
        """Wait until the segmentation has ended."""
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
        """Wait until the panel's status begins with one of `stages`."""
        process_events_until(lambda: any(self.ui.statusLabel.text.startswith(stage) for stage in stages), str(stages))


__all__ = [
    "ROOT",
    "LoopMonitor",
    "Pause",
    "Person",
    "SegmentationCase",
    "add_scan",
    "announce_quitting",
    "assert_stays_responsive",
    "changed_content",
    "choose",
    "click",
    "close_scene",
    "fail_after",
    "longest_step",
    "model_folder",
    "open_module",
    "pause_of",
    "process_events_until",
    "reload_scene",
    "scene_content",
    "scene_saved_and_closed",
    "scene_state",
    "segment_mask",
    "shortest_pause",
    "start_afresh",
]
