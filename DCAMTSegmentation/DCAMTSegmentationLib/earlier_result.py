"""Store the state of a result before an insertion, so that the state can be restored after an error."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk
from DCAMTSlicerLib.node_types import Node, SegmentationNode, TableNode, VolumeNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments


class EarlierResult:
    """The state of a segmentation node, its table and its map before an insertion.

    Voxels are not copied: an insertion makes new segments and a new image, and this object keeps the old ones.
    """

    def __init__(self, segmentation_node: SegmentationNode, helpers: Sequence[Node]) -> None:
        """Store the state of a segmentation node and of `helpers`, its existing table and map."""
        self._node = segmentation_node
        segmentation = segmentation_node.GetSegmentation()
        self._order = list(segmentation.GetSegmentIDs())
        self._segments = {
            identifier: segmentation.GetSegment(identifier) for identifier in find_dcamt_segments(segmentation_node)
        }
        self._conversion = segmentation.SerializeAllConversionParameters()
        self._transform = segmentation_node.GetTransformNodeID()
        self._attributes = _attributes_of(segmentation_node)
        self._references = _references_of(segmentation_node)
        display = segmentation_node.GetDisplayNode()
        self._is_shown_in_3d = display.GetVisibility3D() if display is not None else None
        self._helpers = [_Table(node) if node.IsA("vtkMRMLTableNode") else _Map(node) for node in helpers]

    def restore(self) -> None:
        """Restore the stored state of all nodes."""
        node, segmentation = self._node, self._node.GetSegmentation()
        for identifier in find_dcamt_segments(node):
            segmentation.RemoveSegment(identifier)
        segmentation.DeserializeConversionParameters(self._conversion)
        for identifier, segment in self._segments.items():
            segmentation.AddSegment(segment, identifier)
            segment.Modified()
        segmentation.ReorderSegments(self._order)
        node.SetAndObserveTransformNodeID(self._transform)
        _set_attributes(node, self._attributes)
        for role in {*_references_of(node), *self._references}:
            node.RemoveNodeReferenceIDs(role)
            for reference in self._references.get(role, ()):
                node.AddNodeReferenceID(role, reference)
        if self._is_shown_in_3d is not None:
            node.GetDisplayNode().SetVisibility3D(self._is_shown_in_3d)
        for helper in self._helpers:
            helper.restore()


class _Table:
    """A table node with a copy of its content."""

    def __init__(self, node: TableNode) -> None:
        self._node, self._table = node, vtk.vtkTable()
        self._table.DeepCopy(node.GetTable())

    def restore(self) -> None:
        self._node.SetAndObserveTable(self._table)


class _Map:
    """The volume node of a map with its name, attributes, position, image, display window and threshold."""

    def __init__(self, node: VolumeNode) -> None:
        self._node, self._name, self._attributes = node, node.GetName(), _attributes_of(node)
        self._ijk_to_ras = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(self._ijk_to_ras)
        self._transform, self._image = node.GetTransformNodeID(), node.GetImageData()
        display = node.GetDisplayNode()
        self._window = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        self._threshold = display.GetLowerThreshold(), display.GetUpperThreshold()
        self._applies_threshold = display.GetApplyThreshold()

    def restore(self) -> None:
        self._node.SetName(self._name)
        _set_attributes(self._node, self._attributes)
        self._node.SetIJKToRASMatrix(self._ijk_to_ras)
        self._node.SetAndObserveTransformNodeID(self._transform)
        self._node.SetAndObserveImageData(self._image)
        display = self._node.GetDisplayNode()
        display.SetWindowLevelMinMax(*self._window)
        display.SetThreshold(*self._threshold)
        display.SetApplyThreshold(self._applies_threshold)


def _attributes_of(node: Node) -> dict[str, str]:
    return {name: node.GetAttribute(name) for name in node.GetAttributeNames()}


def _set_attributes(node: Node, attributes: dict[str, str]) -> None:
    """Give a node these attributes, and remove all others."""
    for name in {*node.GetAttributeNames(), *attributes}:
        node.SetAttribute(name, attributes.get(name))


def _references_of(node: Node) -> dict[str, list[str]]:
    """Return a node's references as {role: node IDs}, for DCAMT's roles and the role of the reference geometry."""
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    geometry = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return {
        role: [node.GetNthNodeReferenceID(role, index) for index in range(node.GetNumberOfNodeReferences(role))]
        for role in roles
        if role.startswith("DCAMT.") or role == geometry
    }
