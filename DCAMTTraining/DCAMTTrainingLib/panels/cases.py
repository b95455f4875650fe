"""The part of the panel that gathers cases: the table, its sources, the roles."""
# ruff: noqa: N802

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.cases.case_list import LABELLED, UNLABELLED, VALIDATION
from dcamt.errors import DCAMTError
from DCAMTSlicerLib.installation import ensure_packages
from DCAMTSlicerLib.stepped_task import SteppedTask, error_text
from slicer.i18n import tr as _

from ..cases.rows import ALL_ROLES, CaseRow, FileScan, SceneScan
from ..cases.scene_source import scene_rows, sent_rows
from ..cases.table_model import ROLE, CaseTableModel, next_role, role_title
from ..runs.engine_command import EngineCommand
from ..runs.segmentation_model import current_model
from ..session import SETTLE_MS, TrainingSession
from .pairs_dialog import confirm_pairs
from .plain_table import selected_rows
from .segments_dialog import choose_segments

LISTS = "*.csv"
WIDTHS = (76, 80, 130, 98, 96, 100)
"""Pixels of the columns but the last; those up to the spacing are seen in a panel of 560. Tooltips tell all."""


class CasesPanel:
    """Drives the widgets of the section Cases."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session, self._table = ui, session, session.table
        self._search: EngineCommand | None = None
        self._reading: SteppedTask | None = None
        self._model = CaseTableModel(session.table)
        ui.casesTable.setModel(self._model)
        ui.casesTable.horizontalHeader().setStretchLastSection(True)
        for column, width in enumerate(WIDTHS):
            ui.casesTable.setColumnWidth(column, width)
        for role in ALL_ROLES:
            ui.roleSelector.addItem(role_title(role))
        ui.casesTable.connect("clicked(QModelIndex)", self._onCell)
        for button, slot in (
            (ui.addSceneButton, self._onAddScene),
            (ui.addFolderButton, self._onAddFolder),
            (ui.addListButton, self._onAddList),
            (ui.addSentButton, self._onAddSent),
            (ui.setRoleButton, self._onSetRole),
            (ui.validationButton, self._onValidation),
            (ui.segmentsButton, self._onSegments),
            (ui.removeButton, self._onRemove),
            (ui.exportListButton, self._onExport),
            (ui.checkButton, self._onCheck),
        ):
            button.connect("clicked(bool)", slot)
        session.on_news.append(self.refresh)
        # Headers come in by the thousand.
        self._counting = qt.QTimer()
        self._counting.setSingleShot(True)
        self._counting.timeout.connect(self._showSummary)
        session.table.on_changed.append(lambda first, last: self._counting.start(SETTLE_MS))

    def close(self) -> None:
        self._counting.stop()
        if self._search is not None:
            self._search.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def refresh(self) -> None:
        self._ui.validationSpinBox.enabled = bool(len(self._table))
        for button in (self._ui.setRoleButton, self._ui.removeButton, self._ui.exportListButton):
            button.enabled = bool(len(self._table))
        self._showSummary()

    def _showSummary(self) -> None:
        counts = {role: self._table.count(role) for role in ALL_ROLES}
        text = ", ".join(f"{count} {role_title(role)}" for role, count in counts.items() if count)
        looking = _(" Looking them over…") if self._session.inspecting else ""
        self._ui.casesSummary.text = (text + "." + looking) if text else _("No cases yet.")

    def _say(self, text: str) -> None:
        self._ui.casesSummary.text = text

    def _recipe(self) -> Any | None:
        try:
            return self._session.recipe()
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Task"))
            return None

    def _onAddScene(self, checked: bool = False) -> None:
        recipe = self._recipe()
        if recipe is not None:
            rows = scene_rows(recipe)
            self._table.add(rows)
            if not rows:
                self._say(_("The scene holds no scan. Load some, or add a folder."))

    def _onAddSent(self, checked: bool = False) -> None:
        recipe = self._recipe()
        if recipe is not None:
            rows = sent_rows(recipe)
            self._table.add(rows)
            self._session.suggestStart(current_model() if rows else "")
            if not rows:
                self._say(_("Nothing was sent over. Correct a result in DCAMT Segmentation, and add it there."))

    def _onAddFolder(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of scans"))
        if not folder or (self._search is not None and self._search.running):
            return
        found: list[dict[str, Any]] = []
        self._say(_("Looking for scans in {folder}…").format(folder=folder))

        def ended(message: str) -> None:
            self._showSummary()
            if message:
                slicer.util.errorDisplay(message, windowTitle=_("Folder of scans"))
            elif found:
                self._takeFound(found[0])

        self._search = EngineCommand(["cases", "find", folder], found.append, ended)

    def _takeFound(self, event: dict[str, Any]) -> None:
        """Show the pairs, and take those that the person agrees to."""
        if confirm_pairs(event):
            self._table.add([_row(found) for found in event["cases"]])

    def _onAddList(self, checked: bool = False) -> None:
        title = _("List of cases")
        path = qt.QFileDialog.getOpenFileName(None, title, "", f"CSV ({LISTS})")
        if not path or (self._reading is not None and self._reading.running):
            return

        def ended(error: Exception | None) -> None:
            if error is not None:
                slicer.util.errorDisplay(error_text(error), windowTitle=title)

        self._reading = SteppedTask(self._session.addingList(Path(path)), ended).start()

    def _onExport(self, checked: bool = False) -> None:
        title = _("Save the list of cases")
        path = qt.QFileDialog.getSaveFileName(None, title, "cases.csv", f"CSV ({LISTS})")
        if not path:
            return
        try:
            left = self._session.exportList(Path(path))
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)
            return
        if left:
            text = _(
                "{count} case(s) are in the scene only and so not in the list. Save their volumes, and add the files."
            )
            slicer.util.infoDisplay(text.format(count=left), windowTitle=title)

    def _onCheck(self, checked: bool = False) -> None:
        try:
            ensure_packages()
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("Check the cases"))
            return
        self._session.inspect()
        self.refresh()

    def _onCell(self, index: Any) -> None:
        if index.column() == ROLE:
            row = index.row()
            self._table.set_role([row], next_role(self._table.rows[row]))

    def _onSetRole(self, checked: bool = False) -> None:
        role = ALL_ROLES[self._ui.roleSelector.currentIndex]
        refused = self._table.set_role(selected_rows(self._ui.casesTable), role)
        if refused:
            self._say(_("{count} of them have no label, which this role needs.").format(count=refused))

    def _onValidation(self, checked: bool = False) -> None:
        wanted = self._ui.validationSpinBox.value
        kept = self._table.use_for_validation(wanted)
        if kept < wanted:
            outlined = self._table.count(LABELLED) + self._table.count(VALIDATION)
            text = _("Only {count} of {outlined} outlined scans were kept for validation; one at least is learnt from.")
            self._say(text.format(count=kept, outlined=outlined))

    def _onRemove(self, checked: bool = False) -> None:
        self._table.remove(selected_rows(self._ui.casesTable))

    def _onSegments(self, checked: bool = False) -> None:
        selected = selected_rows(self._ui.casesTable)
        row = self._table.rows[selected[0]] if selected else None
        if row is None or not isinstance(row.source, SceneScan):
            self._say(_("Select one row whose scan is in the scene."))
            return
        recipe = self._recipe()
        if recipe is None:
            return
        source = choose_segments(row.source, recipe)
        if source is not None:
            role = LABELLED if source.segments else UNLABELLED
            self._table.put(selected[0], replace(row, source=source, role=role))


def _row(found: dict[str, Any]) -> CaseRow:
    """A case of the event of `dcamt cases find`."""
    return CaseRow(found["name"], FileScan(found["image"], found["label"] or ""), found["role"])
