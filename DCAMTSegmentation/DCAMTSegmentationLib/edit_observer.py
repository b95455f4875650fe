"""Observe the edits of a segmentation node's segments, in Segment Editor or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from DCAMTSlicerLib.node_types import SegmentationNode


class EditObserver:
    """Observes the edits of one segmentation node at a time; undo and redo in Segment Editor are not reported.

    Args:
        on_edit: on_edit(node) is called at each edit.
        on_edits_ended: called once after all edits of a turn of the event loop, for slow work such as comparing voxels.
            By then, another node may be observed.

    Attributes:
        node: the observed node; None if no node is observed.
    """

    def __init__(self, on_edit: Callable[[SegmentationNode], None], on_edits_ended: Callable[[], None]) -> None:
        self._on_edit, self._on_edits_ended = on_edit, on_edits_ended
        self._tag = 0
        self._is_call_scheduled = False
        self.node: SegmentationNode | None = None

    def observe(self, node: SegmentationNode | None) -> None:
        """Observe a node instead of the present one; None stops observing."""
        if self.node is not None:
            self.node.RemoveObserver(self._tag)
        self.node = node
        if node is not None:
            self._tag = node.AddObserver(slicer.vtkSegmentation.SourceRepresentationModified, self._on_modified)

    def _on_modified(self, caller: SegmentationNode, event: Any) -> None:
        self._on_edit(caller)
        if not self._is_call_scheduled:
            self._is_call_scheduled = True
            qt.QTimer.singleShot(0, self._end_edits)

    def _end_edits(self) -> None:
        self._is_call_scheduled = False
        self._on_edits_ended()
