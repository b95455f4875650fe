"""Where results stand in the subject hierarchy: beside the volume that they are about, in the same study."""

from __future__ import annotations

from typing import Any

import slicer


def place_beside(node: Any, volume: Any) -> None:
    """Give `node` the parent that `volume` has: its study, its folder, or the scene itself."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    beside = hierarchy.GetItemByDataNode(volume)
    if beside:
        # An item that the node has already moves there.
        hierarchy.CreateItem(hierarchy.GetItemParent(beside), node)
