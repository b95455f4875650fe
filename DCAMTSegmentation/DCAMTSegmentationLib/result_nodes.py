"""Find results in the scene; read their attributes and node references."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import slicer
from dcamt.io.typed_json import parse_json
from DCAMTSlicerLib.node_types import Node, SegmentationNode, VolumeNode

VOLUME, MEASUREMENTS = "DCAMT.volume", "DCAMT.measurements"
"""Roles of a segmentation node's references to its scan and to its table of measurements."""
DOUBT_MAP = "DCAMT.disagreement"
"""Role of the map of doubt. In scenes of older versions of DCAMT, this role refers to a map of disagreement."""
PLACE_POINT = "DCAMT.mark"
"""Role of the Markups point that shows a doubtful place. Saved scenes contain this name: do not change it."""
CHANNELS = "DCAMT.channels"
"""Role of the volumes of the second and further channels."""
WALL_MODEL, WALL_COLORS, WALL_TABLE = "DCAMT.wall", "DCAMT.wallColours", "DCAMT.wallTable"
WALL_NODES = (WALL_MODEL, WALL_COLORS, WALL_TABLE)
HELPERS = (DOUBT_MAP, MEASUREMENTS, PLACE_POINT, *WALL_NODES)
"""Roles of the nodes that are removed with their result."""


def get_referenced_node(node: Node | None, role: str) -> Node | None:
    """Return the node that `node` references in the role `role`, such as `VOLUME`.

    Return None if there is no reference in this role, if the scene no longer has the node, or if `node` is None.
    """
    return node.GetNodeReference(role) if node is not None else None


def own_helper(segmentation_node: SegmentationNode | None, role: str) -> Node | None:
    """Return the node that a segmentation node references in the role `role`.

    Return None if there is no such node, or if another segmentation node, such as a copy, references the same node.
    """
    helper = get_referenced_node(segmentation_node, role)
    if helper is None:
        return None
    others = [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if node is not segmentation_node]
    return None if any(get_referenced_node(node, role) is helper for node in others) else helper


def get_attribute(segmentation_node: SegmentationNode | None, name: str) -> str | None:
    """Return the value of an attribute; None if the node has no such attribute, or if the node is None."""
    return segmentation_node.GetAttribute(name) if segmentation_node is not None else None


def read_matrix(text: str | None, rows: int, columns: int) -> np.ndarray | None:
    """Parse a matrix (rows, columns) of finite numbers in JSON; return None if `text` is anything else."""
    with suppress(TypeError, ValueError, OverflowError):
        matrix = np.array(parse_json(text or ""), float)
        return matrix if matrix.shape == (rows, columns) and np.isfinite(matrix).all() else None
    return None


def find_results() -> list[SegmentationNode]:
    """Return the segmentation nodes that hold a result, in the scene's order: new nodes are last."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetNodeReferenceID(VOLUME) is not None]


def results_of(volume: VolumeNode | None) -> list[SegmentationNode]:
    """Return the results of one volume, in the scene's order."""
    return [node for node in find_results() if volume is not None and get_referenced_node(node, VOLUME) is volume]


def result_of(volume: VolumeNode | None) -> SegmentationNode | None:
    """Return the newest node with a result of a volume; None if there is none."""
    found = results_of(volume)
    return found[-1] if found else None
