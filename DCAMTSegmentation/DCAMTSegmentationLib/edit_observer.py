"""Observe the changes of a segmentation node's segments, in Segment Editor or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from DCAMTSlicerLib.node_types import SegmentationNode


class EditObserver:
    """Observes the segments of one segmentation node at a time.

    Args:
        on_edit: called with the node at each edit of voxels, except undo and redo in Segment Editor.
        on_changes_ended: called once after one or more changes of segments, in the next turn of the event loop. By
            then, another node, or none, may be observed.
    """

    def __init__(self, on_edit: Callable[[SegmentationNode], None], on_changes_ended: Callable[[], None]) -> None:
        self._on_edit, self._on_changes_ended = on_edit, on_changes_ended
        self._tags: list[int] = []
        self._is_call_scheduled = False
        self.node: SegmentationNode | None = None

    def observe(self, node: SegmentationNode | None) -> None:
        """Observe a node instead of the present one; None stops observing."""
        if self.node is not None:
            for tag in self._tags:
                self.node.RemoveObserver(tag)
        self.node, self._tags = node, []
        if node is not None:
            kinds = slicer.vtkSegmentation
            self._tags.append(node.AddObserver(kinds.SourceRepresentationModified, self._on_edited))
            for kind in (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified):
                self._tags.append(node.AddObserver(kind, self._on_changed))

    def _on_edited(self, caller: SegmentationNode, event: Any) -> None:
        self._on_edit(caller)
        self._on_changed(caller, event)

    def _on_changed(self, caller: SegmentationNode, event: Any) -> None:
        if not self._is_call_scheduled:
            self._is_call_scheduled = True
            qt.QTimer.singleShot(0, self._end_changes)

    def _end_changes(self) -> None:
        self._is_call_scheduled = False
        self._on_changes_ended()
