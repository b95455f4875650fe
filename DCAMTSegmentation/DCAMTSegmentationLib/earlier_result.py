"""Store the state of a result before it is replaced, so that an error can restore it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from DCAMTSlicerLib.node_types import SegmentationNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments


class EarlierResult:
    """The state of a segmentation node, its map of doubt and its table, from construction on.

    Voxels are not copied: segments and images are replaced as objects, so that references to them suffice.
    """

    def __init__(self, segmentation_node: SegmentationNode, helpers: Sequence[Any]) -> None:
        """Store the state of a segmentation node, and of its helper nodes, tables and volumes."""
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
        self._tables, self._maps = [], []
        for helper in helpers:
            if helper.IsA("vtkMRMLTableNode"):
                table = vtk.vtkTable()
                table.DeepCopy(helper.GetTable())
                self._tables.append((helper, table))
            else:
                matrix = vtk.vtkMatrix4x4()
                helper.GetIJKToRASMatrix(matrix)
                image, transform = helper.GetImageData(), helper.GetTransformNodeID()
                self._maps.append((helper, helper.GetName(), _attributes_of(helper), matrix, transform, image))

    def restore(self) -> None:
        """Give the nodes the stored state."""
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
        for helper, table in self._tables:
            helper.SetAndObserveTable(table)
        for helper, name, attributes, matrix, transform, image in self._maps:
            helper.SetName(name)
            _set_attributes(helper, attributes)
            helper.SetIJKToRASMatrix(matrix)
            helper.SetAndObserveTransformNodeID(transform)
            helper.SetAndObserveImageData(image)


def _attributes_of(node: Any) -> dict[str, str]:
    return {name: node.GetAttribute(name) for name in node.GetAttributeNames()}


def _set_attributes(node: Any, attributes: dict[str, str]) -> None:
    for name in {*node.GetAttributeNames(), *attributes}:
        node.SetAttribute(name, attributes.get(name))


def _references_of(node: Any) -> dict[str, list[str]]:
    """Return the identifiers of the nodes to which a node refers in DCAMT's roles and for its geometry, by role."""
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    geometry = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return {
        role: [node.GetNthNodeReferenceID(role, index) for index in range(node.GetNumberOfNodeReferences(role))]
        for role in roles
        if role.startswith("DCAMT.") or role == geometry
    }
