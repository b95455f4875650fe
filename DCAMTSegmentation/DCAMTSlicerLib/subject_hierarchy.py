"""Place results and their helper nodes in the subject hierarchy, in a folder for each scan; remove stale items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from .node_types import Node, VolumeNode

_FOLDER = "DCAMT.folder"


def place_result(node: Node, volume: VolumeNode, earlier: Iterable[Node] = ()) -> None:
    """Move a result into the DCAMT folder of its scan.

    Args:
        earlier: earlier results of the scan.
    """
    hierarchy = _hierarchy(node)
    scan_item = hierarchy.GetItemByDataNode(volume)
    parent = hierarchy.GetItemParent(scan_item) if scan_item else hierarchy.GetSceneItemID()
    folder = next(filter(None, (_folder_of(hierarchy, result) for result in earlier)), 0)
    if not folder:
        folder = hierarchy.CreateFolderItem(parent, _("{volume} – DCAMT").format(volume=volume.GetName()))
        hierarchy.SetItemAttribute(folder, _FOLDER, "1")
    # If the node has an item already, CreateItem moves it into the folder.
    hierarchy.CreateItem(folder, node)


def place_below(node: Node, result: Node) -> None:
    """Put a helper node below its result, and remove the DCAMT folders that are empty then."""
    hierarchy = _hierarchy(node)
    parent = hierarchy.GetItemByDataNode(result)
    hierarchy.CreateItem(parent or hierarchy.GetSceneItemID(), node)
    _remove_empty_folders(hierarchy)


def remove_stale_items(scene: Any, nodes: Iterable[Node]) -> None:
    """Remove the items of nodes that were removed from the scene, then the empty DCAMT folders."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            # Keep the data node and the item's children.
            hierarchy.RemoveItem(item, False, False)
    _remove_empty_folders(hierarchy)


def _remove_empty_folders(hierarchy: Node) -> None:
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    for index in range(items.GetNumberOfIds()):
        item = items.GetId(index)
        if hierarchy.GetItemAttribute(item, _FOLDER) and hierarchy.GetNumberOfItemChildren(item) == 0:
            hierarchy.RemoveItem(item)


def _folder_of(hierarchy: Node, node: Node) -> int:
    """Return the item of the DCAMT folder in which a node lies; 0 if it lies in none."""
    item = hierarchy.GetItemByDataNode(node)
    parent = hierarchy.GetItemParent(item) if item else 0
    return int(parent) if parent and hierarchy.GetItemAttribute(parent, _FOLDER) else 0


def _hierarchy(node: Node) -> Node:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
