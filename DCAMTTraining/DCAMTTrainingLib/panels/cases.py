"""Control the section *Cases* of the panel: the case table, its sources and the roles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
from dcamt.cases.case_list import LABELLED, VALIDATION
from dcamt.cases.labels import parse_mapping
from dcamt.errors import DCAMTError, InputError
from dcamt.recipe import Recipe
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.file_dialogs import TABLE_ENDINGS, choose_file
from DCAMTSlicerLib.installation import show_error
from DCAMTSlicerLib.plain_text import confirm, display_error, display_message
from DCAMTSlicerLib.stepped_task import DelayedCall, SteppedTask
from slicer.i18n import tr as _

from ..cases.lists import write_rows
from ..cases.rows import ALL_ROLES, CaseRow, FileScan, SceneScan, default_role
from ..cases.scene_source import accept_results, scene_rows, training_case_rows
from ..cases.store import title_of_unread
from ..cases.table_model import IMAGE, NAME, REMARK, ROLE, SIZE, SPACING, CaseTableModel, next_role, role_title
from ..engine_command import EngineCommand
from ..runs.model_store import current_model
from ..session import SETTLE_MS, TrainingSession
from .dialogs import choose_label_values, choose_segments, confirm_pairs
from .plain_table import ROW_PIXELS, fit_height, selected_rows

LIST_PATTERN = "*.csv"
WIDTHS = {ROLE: 80, REMARK: 210, SIZE: 100, SPACING: 96, IMAGE: 160}
"""Widths in pixels of all columns except the name and the last column."""
NAME_WIDTH, NAME_WIDTH_WITH_REMARKS = 154, 138
"""Widths in pixels of the name column without and with remarks in the table."""
ANISOTROPIC_SPACING_WIDTH = 148
ANISOTROPIC_NAME_WIDTH = 102
"""Width in pixels of the name column if a scan has an anisotropic spacing and the table has no remarks."""
MAX_LISTED = 10
"""At most this many cases are listed in a question."""
ROWS = (3, 5)
"""Smallest and largest number of visible rows. More rows would hide the button Start on a laptop."""


class CasesPanel:
    """Controls the widgets of the section *Cases*."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session, self._table = ui, session, session.table
        self._search: EngineCommand | None = None
        self._reading: SteppedTask | None = None
        self._model = CaseTableModel(session.table)
        ui.casesTable.setModel(self._model)
        ui.casesTable.horizontalHeader().setStretchLastSection(True)
        ui.casesTable.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        for column, width in WIDTHS.items():
            ui.casesTable.setColumnWidth(column, width)
        for role in ALL_ROLES:
            ui.roleSelector.addItem(role_title(role))
        ui.casesTable.connect("clicked(QModelIndex)", self._on_cell)
        for button, slot in (
            (ui.addSceneButton, self._on_add_scene),
            (ui.addFolderButton, self._on_add_folder),
            (ui.addListButton, self._on_add_list),
            (ui.addResultsButton, self._on_add_results),
            (ui.setRoleButton, self._on_set_role),
            (ui.validationButton, self._on_validation),
            (ui.segmentsButton, self._on_segments),
            (ui.removeButton, self._on_remove),
            (ui.removeUnreadButton, self._on_remove_unread),
            (ui.exportListButton, self._on_export),
            (ui.checkButton, self._on_check),
        ):
            button.connect("clicked(bool)", slot)
        session.on_news.append(self.refresh)
        # The summary is delayed, since a check may change thousands of rows in a short time.
        self._counting = DelayedCall(self._show_summary)
        session.table.on_changed.append(lambda first, last: self._counting.start(SETTLE_MS))

    def close(self) -> None:
        """Stop background work."""
        self._counting.close()
        if self._search is not None:
            self._search.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def refresh(self) -> None:
        """Update buttons and summary."""
        self._ui.validationSpinBox.enabled = bool(len(self._table))
        for button in (
            self._ui.setRoleButton,
            self._ui.validationButton,
            self._ui.segmentsButton,
            self._ui.removeButton,
            self._ui.exportListButton,
            self._ui.checkButton,
        ):
            button.enabled = bool(len(self._table))
        self._ui.removeUnreadButton.visible = bool(self._session.unread)
        self._show_summary()

    def _show_summary(self) -> None:
        counts = Counter(row.role for row in self._table.rows)
        text = ", ".join(f"{counts[role]} {role_title(role)}" for role in ALL_ROLES if counts[role])
        checking = _(" Checking them…") if self._session.checking else ""
        unread = _(" Cases that this version of DCAMT cannot read: {count}.")
        kept = unread.format(count=len(self._session.unread)) if self._session.unread else ""
        self._show_text(
            ((text + "." + checking) if text else _("No cases yet: add scans from the scene, a folder or a list."))
            + kept
        )
        has_remarks = any(row.remark or row.note for row in self._table.rows)
        fit_height(self._ui.casesTable, len(self._table), *ROWS)
        self._ui.casesTable.setColumnHidden(REMARK, not has_remarks)
        is_anisotropic = any(len(set(row.spacing or ())) > 1 for row in self._table.rows)
        name_width = ANISOTROPIC_NAME_WIDTH if is_anisotropic else NAME_WIDTH
        self._ui.casesTable.setColumnWidth(NAME, NAME_WIDTH_WITH_REMARKS if has_remarks else name_width)
        self._ui.casesTable.setColumnWidth(SPACING, ANISOTROPIC_SPACING_WIDTH if is_anisotropic else WIDTHS[SPACING])

    def _show_text(self, text: str) -> None:
        self._ui.casesSummary.text = text

    def _recipe(self) -> Recipe | None:
        try:
            return self._session.recipe()
        except DCAMTError as error:
            display_error(error_text(error), _("Task"))
            return None

    def _on_add_scene(self, checked: bool = False) -> None:
        recipe = self._recipe()
        if recipe is not None:
            rows = scene_rows(recipe)
            self._table.add(rows)
            if not rows:
                self._show_text(_("The scene holds no scan. Load one, or add a folder."))

    def _on_add_results(self, checked: bool = False) -> None:
        recipe = self._recipe()
        if recipe is not None:
            rows = training_case_rows(recipe)
            self._table.add(rows)
            if rows:
                self._session.suggest_start(current_model())
            else:
                text = _(
                    "No result is a training case yet. In DCAMT Segmentation, correct a result, and press Add to"
                    " training cases."
                )
                self._show_text(text)

    def _on_add_folder(self, checked: bool = False) -> None:
        if self._search is not None and self._search.running:
            self._show_text(
                _("DCAMT is still looking for scans in the folder that you chose before. Wait, and try again.")
            )
            return
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of scans"))
        if not folder:
            return
        results: list[dict[str, Any]] = []
        settings = self._session.settings
        self._show_text(_("Looking for scans in {folder}…").format(folder=folder))

        def on_end(message: str) -> None:
            self._show_summary()
            if self._session.settings is not settings:
                what = _("another scene was opened during the search, so no case was added")
                message = error_text(InputError(what, path=folder, remedy=_("Add the folder again.")))
            if message:
                display_error(message, _("Folder of scans"))
            elif results and confirm_pairs(results[0]):
                self._table.add([_row_of_found_case(case) for case in results[0]["cases"]])

        self._search = EngineCommand(["cases", "find", folder], results.append, on_end).start()

    def _on_add_list(self, checked: bool = False) -> None:
        title = _("List of cases")
        if self._reading is not None and self._reading.running:
            self._show_text(_("DCAMT is still reading the list that you chose before. Wait, and try again."))
            return
        path = qt.QFileDialog.getOpenFileName(None, title, "", f"CSV ({LIST_PATTERN})")
        if not path:
            return

        notes: list[str] = []

        def on_repeated(count: int) -> None:
            text = _(
                "Number of lines that repeat a scan: {count}. The table has one case for each scan,"
                " with the label and role of the scan's last line."
            )
            notes.append(text.format(count=count))

        def on_end(error: Exception | None) -> None:
            if error is not None:
                display_error(error_text(error), title)
            elif notes:
                display_message("\n".join(notes), title)

        def on_note(note: str) -> None:
            notes.append(translated(note))

        steps = self._session.add_list_in_steps(Path(path), on_repeated, on_note)
        self._reading = SteppedTask(steps, on_end).start()

    def _on_export(self, checked: bool = False) -> None:
        title = _("Save the list of cases")
        path = choose_file(title, "cases.csv", f"CSV ({LIST_PATTERN})", TABLE_ENDINGS)
        if not path:
            return
        try:
            omitted = write_rows(self._table.rows, Path(path))
        except DCAMTError as error:
            display_error(error_text(error), title)
            return
        if omitted:
            text = _(
                "Cases omitted from the saved list, because their scans are not files: {count}. Save these scans as"
                " files, and add the files to the table."
            )
            display_message(text.format(count=omitted), title)

    def _on_check(self, checked: bool = False) -> None:
        try:
            self._session.ensure_packages()
        except DCAMTError as error:
            show_error(error, _("Check the cases"))
            return
        self._session.check_cases()
        self.refresh()

    def _on_cell(self, index: Any) -> None:
        if index.column() == ROLE:
            row = index.row()
            self._table.set_role([row], next_role(self._table.rows[row]))

    def _on_set_role(self, checked: bool = False) -> None:
        role, selected = ALL_ROLES[self._ui.roleSelector.currentIndex], selected_rows(self._ui.casesTable)
        refused = self._table.set_role(selected, role)
        if not selected:
            self._show_text(_("Select the rows whose role is to be set."))
        elif refused:
            text = _("This role needs a label. Selected cases without a label: {count}.")
            self._show_text(text.format(count=refused))

    def _on_validation(self, checked: bool = False) -> None:
        wanted = self._ui.validationSpinBox.value
        count = self._table.use_for_validation(wanted)
        if count < wanted:
            total = self._table.count(LABELLED) + self._table.count(VALIDATION)
            text = _(
                "Labelled cases used for validation: only {count} of {total}. At least one labelled case must remain"
                " for training."
            )
            self._show_text(text.format(count=count, total=total))

    def _on_remove(self, checked: bool = False) -> None:
        selected = selected_rows(self._ui.casesTable)
        if selected:
            self._table.remove(selected)
        else:
            self._show_text(_("Select the rows to be removed."))

    def _on_remove_unread(self, checked: bool = False) -> None:
        unread = self._session.unread
        titles = [f"• {title_of_unread(data)}" for data in unread[:MAX_LISTED]]
        if len(unread) > MAX_LISTED:
            titles.append(_("… and {count} more").format(count=len(unread) - MAX_LISTED))
        question = _(
            "This version of DCAMT cannot read these cases. A later version may be able to read them. Remove the cases?"
            " Their scans and segmentations are kept."
        )
        if confirm("\n".join([question, *titles]), _("Remove unreadable cases")):
            self._session.remove_unread()

    def _on_segments(self, checked: bool = False) -> None:
        selected = selected_rows(self._ui.casesTable)
        if not selected:
            self._show_text(_("Select the rows whose segments or label values are to be chosen."))
            return
        recipe = self._recipe()
        if recipe is None:
            return
        source = self._table.rows[selected[0]].source
        if isinstance(source, FileScan):
            self._choose_label_values(selected, source.labels, recipe)
        elif len(selected) > 1:
            self._show_text(_("Select only one case of the scene, since each case has segments of its own."))
        else:
            self._choose_segments(selected[0], source, recipe)

    def _choose_segments(self, index: int, source: SceneScan, recipe: Recipe) -> None:
        row, chosen = self._table.rows[index], choose_segments(source, recipe)
        if chosen is not None:
            accept_results(chosen)
            has_segments = bool(chosen.segments)
            role = row.role if row.role == VALIDATION and has_segments else default_role(has_segments)
            self._table.replace_row(index, replace(row, source=chosen, role=role))

    def _choose_label_values(self, selected: list[int], text: str, recipe: Recipe) -> None:
        labels = choose_label_values(text, recipe)
        if labels is None:
            return
        try:
            if labels:
                parse_mapping(labels, recipe.classes)
        except DCAMTError as error:
            display_error(error_text(error), _("Values of the label files"))
            return
        if not self._table.set_label_mapping(selected, labels):
            self._show_text(_("No selected case has a label file."))


def _row_of_found_case(case: dict[str, Any]) -> CaseRow:
    return CaseRow(case["name"], FileScan(case["image"], case["label"] or "", case.get("labels") or ""), case["role"])
