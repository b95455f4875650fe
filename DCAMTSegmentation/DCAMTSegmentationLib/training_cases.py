"""The hand-over of outlined scans to training: which segmentation nodes are cases, and of which volume.

A case is a segmentation node that refers to its volume under the role `IMAGE`. So a case is saved with the scene,
goes when either node goes, and is known to both modules without one asking the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer

IMAGE = "DCAMT.trainingImage"


@dataclass(frozen=True)
class SceneCase:
    """A volume node and the segmentation node that outlines it."""

    volume: Any
    segmentation: Any


def add_case(volume: Any, segmentation: Any) -> SceneCase:
    """Make the pair a case; a segmentation is a case of one volume at most, and adding it again changes nothing."""
    segmentation.SetNodeReferenceID(IMAGE, volume.GetID())
    return SceneCase(volume, segmentation)


def remove_case(segmentation: Any) -> None:
    """The segmentation is a case no more; both nodes stay."""
    segmentation.SetNodeReferenceID(IMAGE, None)


def is_case(segmentation: Any) -> bool:
    return segmentation is not None and segmentation.GetNodeReference(IMAGE) is not None


def scene_cases() -> list[SceneCase]:
    """All cases of the scene, in its order."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [SceneCase(node.GetNodeReference(IMAGE), node) for node in nodes if is_case(node)]
