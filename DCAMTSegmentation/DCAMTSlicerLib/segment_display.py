"""Keep or change how the segments of a segmentation node are displayed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from .node_types import SegmentationNode

_PROPERTIES = (
    "Visibility",
    "Visibility3D",
    "Visibility2DFill",
    "Visibility2DOutline",
    "Opacity3D",
    "Opacity2DFill",
    "Opacity2DOutline",
    "Pickable",
)
"""Display properties of a segment; a display node forgets them when the segment is removed."""


def keep_display(segmentation_node: SegmentationNode, identifiers: Collection[str]) -> Callable[[], None]:
    """Store the display of segments, and return a function that restores the stored display."""
    displays = [
        segmentation_node.GetNthDisplayNode(index) for index in range(segmentation_node.GetNumberOfDisplayNodes())
    ]
    kept = [
        (display, name, identifier, getattr(display, f"GetSegment{name}")(identifier))
        for display in displays
        if display is not None
        for identifier in identifiers
        for name in _PROPERTIES
    ]

    def restore() -> None:
        for display, name, identifier, value in kept:
            if segmentation_node.GetSegmentation().GetSegment(identifier) is not None:
                getattr(display, f"SetSegment{name}")(identifier, value)

    return restore


def show_hidden_segments(segmentation_node: SegmentationNode, identifiers: Collection[str]) -> None:
    """Show segments if the user hid all of them; the node must have a display node."""
    display = segmentation_node.GetDisplayNode()
    if not any(display.GetSegmentVisibility(identifier) for identifier in identifiers):
        for identifier in identifiers:
            display.SetSegmentVisibility(identifier, True)
