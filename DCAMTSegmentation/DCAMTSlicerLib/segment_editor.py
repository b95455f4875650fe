"""Open a segmentation in Slicer's Segment Editor, and add a button there that leads back to a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .node_types import SegmentationNode, VolumeNode
from .result_segments import find_dcamt_segments

BACK_BUTTON = "DCAMTBackButton"


def open_in_segment_editor(segmentation_node: SegmentationNode, volume: VolumeNode | None, back_to: str) -> None:
    """Open the Segment Editor with a segmentation, its volume (if any) and the first segment that DCAMT wrote.

    Args:
        back_to: the module that the button in the Segment Editor's panel leads to.
    """
    slicer.util.selectModule("SegmentEditor")
    panel = slicer.modules.segmenteditor.widgetRepresentation()
    editor = panel.self().editor
    editor.setSegmentationNode(segmentation_node)
    if volume is not None:
        editor.setSourceVolumeNode(volume)
    segments = list(find_dcamt_segments(segmentation_node))
    if segments:
        editor.setCurrentSegmentID(segments[0])
    _show_back_button(panel, back_to)


def _show_back_button(panel: Any, module: str) -> None:
    remove_back_button()
    button = qt.QPushButton(_("Back to {module}").format(module=slicer.util.getModule(module).title))
    button.objectName = BACK_BUTTON
    button.toolTip = _("Go back to the module. The corrections stay in the segmentation.")
    # If the slot referred to the button, the button's wrapper would stay alive after Qt has deleted the button.
    button.connect("clicked(bool)", _make_back_slot(module))
    panel.layout().insertWidget(0, button)


def _make_back_slot(module: str) -> Callable[..., None]:
    def go_back(checked: bool = False) -> None:
        slicer.util.selectModule(module)
        remove_back_button()

    return go_back


def remove_back_button() -> None:
    """Remove the button from the Segment Editor's panel."""
    panel = slicer.modules.segmenteditor.widgetRepresentation()
    for button in panel.findChildren(qt.QPushButton, BACK_BUTTON):
        # Not `setParent(None)`: Python would then own the button, and could delete it while Qt still emits `clicked`.
        button.hide()
        button.objectName = ""
        button.deleteLater()
