"""Store training cases in the scene: DCAMT Segmentation adds them, and DCAMT Training lists them.

A case is a segmentation node whose node reference `IMAGE` leads to its volume. Therefore a case is saved with the
scene, is removed with either node, and is known to both modules. A clone of a case is not a second case; the
clone becomes a case when the original is removed from the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import slicer
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode

from .result_nodes import VOLUME, get_referenced_node

IMAGE = "DCAMT.trainingImage"
_ORIGINAL = "DCAMT.trainingCase"
"""Node reference from a case to itself. A clone has a copy of this reference, which leads to the original.

Scenes of older versions lack the reference.
"""
_LISTED = "DCAMT.trainingCaseListed"


@dataclass(frozen=True)
class SceneCase:
    """A volume node and the segmentation node that outlines it."""

    volume: VolumeNode
    segmentation: SegmentationNode


def add_case(volume: VolumeNode, segmentation: SegmentationNode) -> SceneCase:
    """Register a volume and its segmentation as a case; `volume` replaces an earlier volume of the segmentation."""
    segmentation.SetNodeReferenceID(IMAGE, volume.GetID())
    segmentation.SetNodeReferenceID(_ORIGINAL, segmentation.GetID())
    segmentation.SetAttribute(_LISTED, None)
    return SceneCase(volume, segmentation)


def add_result(segmentation: SegmentationNode) -> SceneCase:
    """Register a result and its scan as a case; the scan must be in the scene.

    A case stores only the volume of the first channel; `result_scan.channels_of` returns those of the other channels.
    """
    return add_case(get_referenced_node(segmentation, VOLUME), segmentation)


def remove_case(segmentation: SegmentationNode) -> None:
    """Undo `add_case`; do nothing if the segmentation is not a case."""
    segmentation.RemoveNodeReferenceIDs(IMAGE)
    segmentation.RemoveNodeReferenceIDs(_ORIGINAL)
    segmentation.SetAttribute(_LISTED, None)


def is_case(segmentation: SegmentationNode | None) -> bool:
    """Return whether a segmentation node is a case whose volume is in the scene."""
    if segmentation is None or segmentation.GetNodeReference(IMAGE) is None:
        return False
    original = segmentation.GetNodeReference(_ORIGINAL)
    return original is None or original is segmentation


def scene_cases() -> list[SceneCase]:
    """Return all cases of the scene, in the scene's order."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [SceneCase(node.GetNodeReference(IMAGE), node) for node in nodes if is_case(node)]


def unlisted_cases() -> list[SceneCase]:
    """Return the cases that DCAMT Training has not listed since they were added."""
    return [case for case in scene_cases() if case.segmentation.GetAttribute(_LISTED) is None]


def mark_listed(case: SceneCase) -> None:
    """Record that DCAMT Training has listed a case."""
    case.segmentation.SetAttribute(_LISTED, "1")
