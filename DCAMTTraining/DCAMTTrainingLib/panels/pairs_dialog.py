"""Shows which scans and labels of a folder belong together, before they are taken."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from .plain_table import PlainTableModel


def confirm_pairs(event: dict[str, Any]) -> bool:
    """Whether the person takes the pairs; `event` is what `dcamt cases find` says it found."""
    dialog = qt.QDialog()
    dialog.setWindowTitle(_("Cases in the folder"))
    dialog.resize(760, 420)
    layout = qt.QVBoxLayout(dialog)
    cases, left_over = event["cases"], event["left_over"]
    outlined = sum(case["label"] is not None for case in cases)
    text = _("{count} scans, {outlined} of them with a label. Are these the right pairs?")
    layout.addWidget(qt.QLabel(text.format(count=len(cases), outlined=outlined)))
    titles = (_("Name"), _("Image"), _("Label"))
    pairs = PlainTableModel(titles, lambda case: (case["name"], case["image"], case["label"] or ""))
    pairs.show(cases)
    _add_table(layout, pairs, "pairsTable")
    rest = PlainTableModel((_("Left out"), _("Why")), lambda left: (left["path"], left["why"]))
    if left_over:
        layout.addWidget(qt.QLabel(_("These files belong to no case:")))
        rest.show(left_over)
        _add_table(layout, rest, "leftOverTable")
    buttons = qt.QDialogButtonBox()
    buttons.setStandardButtons(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
    # By name: a bound method would hold the dialog's last reference, and Slicer would crash at its deletion.
    buttons.connect("accepted()", dialog, "accept()")
    buttons.connect("rejected()", dialog, "reject()")
    layout.addWidget(buttons)
    taken = dialog.exec_() == qt.QDialog.Accepted
    dialog.deleteLater()
    return bool(taken)


def _add_table(layout: Any, model: Any, name: str) -> None:
    view = qt.QTableView()
    view.setObjectName(name)
    view.setModel(model)
    view.horizontalHeader().setStretchLastSection(True)
    view.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    layout.addWidget(view)
