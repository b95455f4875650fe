"""Which segments of a segmentation stand for which classes, chosen by the person."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from dcamt.recipe import Recipe
from slicer.i18n import tr as _

from ..cases.rows import SceneScan


def choose_segments(source: SceneScan, recipe: Recipe) -> SceneScan | None:
    """The case with the segmentation and segments that the person chose; None if they left it as it is."""
    nodes = list(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    dialog = qt.QDialog()
    dialog.setWindowTitle(_("Segments of the case"))
    form = qt.QFormLayout(dialog)
    selector = qt.QComboBox()
    selector.setObjectName("segmentationSelector")
    for name in (_("none"), *(node.GetName() for node in nodes)):
        selector.addItem(name)
    identifiers = [node.GetID() for node in nodes]
    selector.setCurrentIndex(identifiers.index(source.segmentation) + 1 if source.segmentation in identifiers else 0)
    form.addRow(_("Segmentation:"), selector)
    boxes = []
    for info in recipe.classes:
        box = qt.QComboBox()
        box.setObjectName(f"classSelector{info.label}")
        boxes.append(box)
        form.addRow(_("{name}:").format(name=info.name), box)

    def fill(index: int) -> None:
        chosen = {label: segment for segment, label in source.segments}
        segments = _segments(nodes[index - 1]) if index > 0 else []
        for info, box in zip(recipe.classes, boxes, strict=True):
            box.clear()
            for _identifier, name in (("", _("none")), *segments):
                box.addItem(name)
            known = [identifier for identifier, _name in segments]
            wanted = chosen.get(info.label, "")
            box.setCurrentIndex(known.index(wanted) + 1 if wanted in known else 0)

    fill(selector.currentIndex)
    selector.connect("currentIndexChanged(int)", fill)
    buttons = qt.QDialogButtonBox()
    buttons.setStandardButtons(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
    # By name: a bound method would hold the dialog's last reference, and Slicer would crash at its deletion.
    buttons.connect("accepted()", dialog, "accept()")
    buttons.connect("rejected()", dialog, "reject()")
    form.addRow(buttons)
    taken = dialog.exec_() == qt.QDialog.Accepted
    index, places = selector.currentIndex, [box.currentIndex for box in boxes]
    dialog.deleteLater()
    if not taken:
        return None
    if index <= 0:
        return SceneScan(source.volume)
    segments = _segments(nodes[index - 1])
    pairs = zip(recipe.classes, places, strict=True)
    chosen = tuple((segments[place - 1][0], info.label) for info, place in pairs if place > 0)
    return SceneScan(source.volume, nodes[index - 1].GetID(), chosen, chosen=True)


def _segments(node: Any) -> list[tuple[str, str]]:
    """Identifier and name of each segment."""
    segmentation = node.GetSegmentation()
    return [(name, segmentation.GetSegment(name).GetName()) for name in segmentation.GetSegmentIDs()]
