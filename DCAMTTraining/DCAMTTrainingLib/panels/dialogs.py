"""Show the panel's dialogs: confirm pairs of scan and label, choose segments of a case, map label values."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from dcamt.recipe import Recipe
from DCAMTSlicerLib.plain_text import show_labels_as_plain_text
from slicer.i18n import tr as _

from ..cases.rows import SceneScan
from ..cases.table_model import common_folder, relative_path
from .plain_table import PlainTableModel


def confirm_pairs(event: dict[str, Any]) -> bool:
    """Show the scans and labels of a folder in pairs; return whether the user accepts them.

    Args:
        event: the event `found` of `dcamt cases find`.
    """
    dialog = qt.QDialog()
    dialog.setWindowTitle(_("Cases in the folder"))
    dialog.resize(760, 420)
    layout = qt.QVBoxLayout(dialog)
    cases, left_over = event["cases"], event["left_over"]
    labelled = sum(case["label"] is not None for case in cases)
    text = _("Scans: {count}, with a label: {labelled}. Are these the right pairs?")
    layout.addWidget(qt.QLabel(text.format(count=len(cases), labelled=labelled)))
    folder = common_folder([case["image"] for case in cases] + [item["path"] for item in left_over])
    pairs = PlainTableModel(
        (_("Name"), _("Image"), _("Label")),
        lambda case: (
            case["name"],
            relative_path(case["image"], folder),
            relative_path(case["label"] or "", folder),
        ),
    )
    pairs.show(cases)
    _add_table(layout, pairs, "pairsTable", stretch=3)
    if left_over:
        layout.addWidget(qt.QLabel(_("These files belong to no case:")))
        rest = PlainTableModel(
            (_("Left out"), _("Reason")), lambda item: (relative_path(item["path"], folder), item["why"])
        )
        rest.show(left_over)
        _add_table(layout, rest, "leftOverTable", stretch=1)
    layout.addWidget(_ok_cancel(dialog))
    return _run(dialog)


def choose_segments(source: SceneScan, recipe: Recipe) -> SceneScan | None:
    """Let the user choose a segmentation and, for each class, a segment or none.

    Return the case's source with this choice, or None if the user cancels.
    """
    nodes = list(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    identifiers = [node.GetID() for node in nodes]
    dialog = qt.QDialog()
    dialog.setWindowTitle(_("Segments of the case"))
    form = qt.QFormLayout(dialog)
    selector = qt.QComboBox()
    selector.objectName = "segmentationSelector"
    for name in (_("none"), *(node.GetName() for node in nodes)):
        selector.addItem(name)
    selector.setCurrentIndex(identifiers.index(source.segmentation) + 1 if source.segmentation in identifiers else 0)
    form.addRow(_("Segmentation:"), selector)
    class_selectors = []
    for info in recipe.classes:
        class_selector = qt.QComboBox()
        class_selector.objectName = f"classSelector{info.label}"
        class_selectors.append(class_selector)
        # In the label of a form's row, Qt shows "&&" as "&".
        form.addRow(_("{name}:").format(name=info.name).replace("&", "&&"), class_selector)

    def fill_class_selectors(index: int) -> None:
        chosen = {label: segment for segment, label in source.segments}
        segments = _segments(nodes[index - 1]) if index > 0 else []
        known = [identifier for identifier, _name in segments]
        for info, class_selector in zip(recipe.classes, class_selectors, strict=True):
            class_selector.clear()
            for name in (_("none"), *(name for _identifier, name in segments)):
                class_selector.addItem(name)
            segment = chosen.get(info.label, "")
            class_selector.setCurrentIndex(known.index(segment) + 1 if segment in known else 0)

    fill_class_selectors(selector.currentIndex)
    selector.connect("currentIndexChanged(int)", fill_class_selectors)
    form.addRow(_ok_cancel(dialog))
    accepted = _run(dialog)
    index = selector.currentIndex
    class_indices = [class_selector.currentIndex for class_selector in class_selectors]
    if not accepted:
        return None
    # The first item of each selector is "none".
    if index <= 0:
        return SceneScan(source.volume)
    segments = _segments(nodes[index - 1])
    pairs = zip(recipe.classes, class_indices, strict=True)
    segment_labels = tuple((segments[chosen - 1][0], info.label) for info, chosen in pairs if chosen > 0)
    return SceneScan(source.volume, nodes[index - 1].GetID(), segment_labels, chosen=True)


def choose_label_values(text: str, recipe: Recipe) -> str | None:
    """Let the user map values of label files to classes; return the mapping, or None if the user cancels.

    The mapping is the text that the user entered, unchecked. If the text is empty, the label files use the recipe's
    values.

    Args:
        text: the current mapping (see `dcamt.cases.labels.parse_mapping`).
    """
    dialog = qt.QDialog()
    dialog.setWindowTitle(_("Values of the label files"))
    dialog.resize(520, 160)
    layout = qt.QVBoxLayout(dialog)
    classes = ", ".join(f"{info.label} = {info.name}" for info in recipe.classes)
    explanation = _(
        "The recipe's own values are: {classes}. If the label files have other values, or segments with names,"
        " enter value=class or name=class, separated by commas, such as 420={example}. All other values are"
        " background."
    )
    label = qt.QLabel(explanation.format(classes=classes, example=recipe.classes[0].name))
    label.setWordWrap(True)
    layout.addWidget(label)
    edit = qt.QLineEdit()
    edit.objectName = "labelValuesEdit"
    edit.setText(text)
    layout.addWidget(edit)
    layout.addWidget(_ok_cancel(dialog))
    accepted = _run(dialog)
    return str(edit.text).strip() if accepted else None


def _ok_cancel(dialog: Any) -> Any:
    """Return the buttons OK and Cancel, which close the dialog.

    The buttons are connected to Qt slots. A connection to a bound method would keep a Python reference to the dialog
    until Qt deletes the dialog; PythonQt would then delete the dialog a second time and crash.
    """
    buttons = qt.QDialogButtonBox()
    buttons.setStandardButtons(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
    buttons.connect("accepted()", dialog, "accept()")
    buttons.connect("rejected()", dialog, "reject()")
    return buttons


def _run(dialog: Any) -> bool:
    """Show the dialog; return whether the user pressed OK."""
    show_labels_as_plain_text(dialog)
    accepted = dialog.exec_() == qt.QDialog.Accepted
    dialog.deleteLater()
    return bool(accepted)


def _add_table(layout: Any, model: Any, name: str, stretch: int) -> None:
    view = qt.QTableView()
    view.objectName = name
    view.setModel(model)
    view.setColumnWidth(0, 200)
    view.setColumnWidth(1, 260)
    view.horizontalHeader().setStretchLastSection(True)
    view.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    layout.addWidget(view, stretch)


def _segments(node: Any) -> list[tuple[str, str]]:
    segmentation = node.GetSegmentation()
    return [(segment_id, segmentation.GetSegment(segment_id).GetName()) for segment_id in segmentation.GetSegmentIDs()]
