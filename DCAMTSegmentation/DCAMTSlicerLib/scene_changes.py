"""Undo the changes of the scene if an insertion fails or is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import slicer

from .node_types import Node, SegmentationNode
from .result_segments import find_dcamt_segments
from .segment_display import keep_display
from .subject_hierarchy import remove_stale_items


class SceneChanges:
    """The changes of an insertion, which are undone in reverse order if the `with` block ends by an exception.

    The insertion must add nodes with `add`, or pass them to `record_added`. Before the insertion changes a node that
    was in the scene, it must pass the node to `save`.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()

    def __enter__(self) -> SceneChanges:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._undo.pop_all()
        else:
            self._undo.close()

    def add(self, class_name: str, name: str = "") -> Node:
        """Add a node to the scene, and return the node."""
        return self.record_added(slicer.mrmlScene.AddNewNodeByClass(class_name, name))

    def record_added(self, node: Node | None) -> Node:
        """Record a node that was added to the scene, and return the node; do nothing for None."""
        if node is not None:
            # `ExitStack` calls the last callback first.
            self._undo.callback(remove_stale_items, slicer.mrmlScene, [node])
            self._undo.callback(remove_with_display, node)
        return node

    def save(self, node: Node | None) -> None:
        """Store the state of a node with its display nodes, so that undoing restores this state; do nothing for None.

        A volume's image is kept, not copied. Therefore, the insertion must give the volume a new image, and must not
        change the voxels of the old image.
        """
        if node is None:
            return
        if node.IsA("vtkMRMLSegmentationNode"):
            self._undo.callback(_SegmentationState(node).restore)
            return
        for item in (node, *_display_nodes(node)):
            self._undo.callback(_copier(item))


class _SegmentationState:
    """Voxels are not copied: an insertion makes new segments, and this object keeps the old ones."""

    def __init__(self, segmentation_node: SegmentationNode) -> None:
        self._node, self._name = segmentation_node, segmentation_node.GetName()
        segmentation = segmentation_node.GetSegmentation()
        self._order = list(segmentation.GetSegmentIDs())
        self._segments = _dcamt_segments(segmentation_node)
        self._restore_display = keep_display(segmentation_node, self._segments)
        self._conversion = segmentation.SerializeAllConversionParameters()
        self._source = segmentation.GetSourceRepresentationName()
        self._transform = segmentation_node.GetTransformNodeID()
        self._attributes = {
            name: segmentation_node.GetAttribute(name) for name in segmentation_node.GetAttributeNames()
        }
        self._references = _references_of(segmentation_node)
        display = segmentation_node.GetDisplayNode()
        self._is_shown_in_3d = display.GetVisibility3D() if display is not None else None

    def restore(self) -> None:
        node, segmentation = self._node, self._node.GetSegmentation()
        node.SetName(self._name)
        # If no segment was replaced, the segments keep their present display.
        are_replaced = _dcamt_segments(node) != self._segments
        if are_replaced:
            for identifier in find_dcamt_segments(node):
                segmentation.RemoveSegment(identifier)
        segmentation.DeserializeConversionParameters(self._conversion)
        if are_replaced:
            segmentation.SetSourceRepresentationName(self._source)
            for identifier, segment in self._segments.items():
                segmentation.AddSegment(segment, identifier)
                segment.Modified()
            segmentation.ReorderSegments(self._order)
            self._restore_display()
        node.SetAndObserveTransformNodeID(self._transform)
        for name in {*node.GetAttributeNames(), *self._attributes}:
            node.SetAttribute(name, self._attributes.get(name))
        for role in {*_references_of(node), *self._references}:
            node.RemoveNodeReferenceIDs(role)
            for reference in self._references.get(role, ()):
                node.AddNodeReferenceID(role, reference)
        if self._is_shown_in_3d is not None:
            node.GetDisplayNode().SetVisibility3D(self._is_shown_in_3d)


def remove_with_display(node: Node) -> None:
    """Remove a node with its display and storage nodes, which Slicer would leave in the scene."""
    scene = slicer.mrmlScene
    storage = node.GetStorageNode() if node.IsA("vtkMRMLStorableNode") else None
    for item in (node, *_display_nodes(node), storage):
        if item is not None and scene.IsNodePresent(item):
            scene.RemoveNode(item)


def _display_nodes(node: Node) -> list[Node]:
    if not node.IsA("vtkMRMLDisplayableNode"):
        return []
    return [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]


def _copier(node: Node) -> Callable[[], None]:
    """Copy a node, and return a function that copies everything back."""
    copy = node.CreateNodeInstance()
    _copy(node, copy)
    return lambda: _copy(copy, node)


def _copy(source: Node, target: Node) -> None:
    modifying = target.StartModify()
    if source.IsA("vtkMRMLVolumeNode"):
        # `Copy` would also copy the image's voxels and all references.
        target.SetName(source.GetName())
        target.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        target.CopyContent(source, False)
    else:
        target.Copy(source)
    target.EndModify(modifying)


def _dcamt_segments(node: SegmentationNode) -> dict[str, Any]:
    return {identifier: node.GetSegmentation().GetSegment(identifier) for identifier in find_dcamt_segments(node)}


def _references_of(node: SegmentationNode) -> dict[str, list[str]]:
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    geometry = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return {
        role: [node.GetNthNodeReferenceID(role, index) for index in range(node.GetNumberOfNodeReferences(role))]
        for role in roles
        if role.startswith("DCAMT.") or role == geometry
    }
