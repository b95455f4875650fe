"""Training cases in the scene: DCAMT Segmentation adds them, and DCAMT Training lists them.

A case is a segmentation node that refers to its volume under the role `IMAGE`. So a case is saved with the scene, is
removed with either node, and both modules know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer

IMAGE = "DCAMT.trainingImage"
_LISTED = "DCAMT.trainingCaseListed"


@dataclass(frozen=True)
class SceneCase:
    """A volume node and the segmentation node that outlines it."""

    volume: Any
    segmentation: Any


def add_case(volume: Any, segmentation: Any) -> SceneCase:
    """Make the pair a case, to be listed by DCAMT Training; a segmentation is a case of one volume at most."""
    segmentation.SetNodeReferenceID(IMAGE, volume.GetID())
    segmentation.SetAttribute(_LISTED, None)
    return SceneCase(volume, segmentation)


def is_case(segmentation: Any) -> bool:
    """Return whether a segmentation node is a case whose volume is in the scene."""
    return segmentation is not None and segmentation.GetNodeReference(IMAGE) is not None


def scene_cases() -> list[SceneCase]:
    """Return all cases of the scene, in its order."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [SceneCase(node.GetNodeReference(IMAGE), node) for node in nodes if is_case(node)]


def unlisted_cases() -> list[SceneCase]:
    """Return the cases that were added since DCAMT Training last listed them."""
    return [case for case in scene_cases() if case.segmentation.GetAttribute(_LISTED) is None]


def mark_listed(case: SceneCase) -> None:
    """Note that DCAMT Training has listed a case; a person may then remove it from the list."""
    case.segmentation.SetAttribute(_LISTED, "1")
