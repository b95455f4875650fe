"""Handing a result to Slicer's Segment Editor."""

from __future__ import annotations

from typing import Any

import slicer

from .result_segments import own_segments


def correct(segmentation_node: Any, volume: Any | None) -> None:
    """Open the Segment Editor on a result, over the volume that it was made from, at its first segment."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation_node)
    if volume is not None:
        editor.setSourceVolumeNode(volume)
    segments = list(own_segments(segmentation_node).values())
    if segments:
        editor.setCurrentSegmentID(segments[0])
