"""Helpers to test that the scene is unchanged after a failed step."""

from __future__ import annotations

from typing import Any
from unittest import mock

import slicer
from vtk.util.numpy_support import vtk_to_numpy


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

    The saved scene contains attributes, references, display settings and the subject hierarchy. Data is taken from
    tables, colour tables, volumes and Slicer's model nodes.
    """
    scene, util = slicer.mrmlScene, slicer.util
    # In the simulated Slicer, this call creates the scene's subject hierarchy node if there is none. Without the call,
    # a later creation of the node would count as a change.
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
    """Return the lines that `scene_content()` has gained or lost since `before`, each cut to 300 characters."""
    now = scene_content()
    return [line[:300] for lines, others in ((before, now), (now, before)) for line in lines if line not in others]


def fail_after(module: Any, name: str, call: int = 0) -> Any:
    """Return a context in which a function of a module raises MemoryError at the end of one call.

    Args:
        call: the index of this call, from 0.
    """
    real, calls = getattr(module, name), []

    def fail(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        calls.append(name)
        if len(calls) == call + 1:
            raise MemoryError
        return result

    return mock.patch.object(module, name, fail)
