"""Hold the case table, settings, check and estimation for all sections of the training panel."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import slicer
import vtk
from dcamt.errors import InputError
from dcamt.machine import AUTO
from dcamt.recipe import Recipe
from dcamt.recipe_files import with_settings
from dcamt.runs.efforts import effort_settings
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.installation import NotInstalledError, ensure_packages, missing_packages
from DCAMTSlicerLib.plain_text import display_error
from DCAMTSlicerLib.stepped_task import DelayedCall, SteppedTask
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .cases.check import CaseCheck
from .cases.lists import read_rows_in_steps
from .cases.rows import CaseTable
from .cases.scene_source import rematch_segments, training_case_rows
from .cases.store import NO_CASES, SavedCases, load_cases, mark_removed, save_rows, save_rows_in_steps
from .estimation import Estimation
from .runs.model_store import current_model
from .runs.preflight import Problem, case_problems, folder_problems, machine_problems
from .settings import TrainingSettings, chosen_settings
from .task import classes_from_json, recipe_from_model, recipe_of, with_chosen_spacing

SETTLE_MS = 400
"""Milliseconds from the last edit until the cases are saved and checked."""

SAVED_AT_ONCE = 1000
"""A table of up to this many cases is also saved immediately after each edit; this takes no noticeable time."""


class TrainingSession(VTKObservationMixin):
    """Case table and settings of the open scene.

    Attributes:
        on_news: functions called after a check, an estimation, a change of a setting or an edit of the cases.
        unread: the scene's cases that this version cannot read.
        check_failure: the reason why the last check failed or could not start; "" if there is none.
    """

    def __init__(self) -> None:
        VTKObservationMixin.__init__(self)
        self.table = CaseTable()
        self.settings: TrainingSettings | None = None
        self.unread: list[Any] = []
        self.on_news: list[Callable[[], None]] = []
        self.check_failure = ""
        self.estimation = Estimation(self.table, self.planned_recipe, self.device, self._notify)
        self._node: Any = None
        self._check: CaseCheck | None = None
        self._has_packages = False
        self._saving: SteppedTask | None = None
        self._settling = DelayedCall(self._on_settled)
        self.table.on_edited.append(self._on_edited)

    def attach(self, node: Any, settings: TrainingSettings, cases_before_import: SavedCases = NO_CASES) -> None:
        """Load cases and settings of a scene.

        Args:
            node: the parameter node; `settings` is its wrapper.
            cases_before_import: the cases that the open scene had before another scene was imported into it; empty if
                no scene was imported. These cases come first in the table.
        """
        self._node, self.settings = None, settings  # No node is set yet, so the changes of the table are not saved.
        before, saved = cases_before_import, load_cases(node)
        scans_before = {row.scan for row in before.rows}
        self.unread = [*before.unread, *(data for data in saved.unread if data not in before.unread)]
        self.table.replace_all(before.rows)
        self.table.add([row for row in saved.rows if row.scan not in scans_before])
        self._node = node
        self.removeObservers()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._on_node_removed)
        self._settling.start(SETTLE_MS)

    def detach(self) -> None:
        """Save the cases and forget the scene."""
        self.save()
        self.removeObservers()
        self._stop_check()
        # The estimation would store its result under IDs that nodes of another scene may get.
        self.estimation.cancel()
        self._node = self.settings = None
        self.unread = []
        self.table.replace_all([])
        self._settling.stop()

    def close(self) -> None:
        """Remove the listeners of `on_news`, save the cases, and stop background work."""
        self.on_news.clear()
        self.detach()
        self._settling.close()

    def notify_settings_changed(self) -> None:
        """Tell the listeners that a setting was changed.

        If the cases were checked for another recipe, they are checked again.
        """
        if self._check is not None and not self._is_check_for_present_recipe():
            self._settling.start(SETTLE_MS)
        self._notify()

    def save(self) -> None:
        """Save the cases in the scene's parameter node; do nothing without a scene."""
        self._stop_saving()
        if self._node is not None:
            save_rows(self._node, self.table.rows, self.unread)

    def ensure_packages(self) -> None:
        """Install missing packages after confirmation.

        Raises:
            NotInstalledError: see `installation.ensure_packages`.
            InputError: the scene was closed or another scene was opened during the installation.
        """
        settings = self.settings
        ensure_packages()
        if self.settings is not settings:
            what = _("During the installation, the scene was closed or another scene was opened")
            raise InputError(what, remedy=_("Check the cases, and try again."))

    # Task

    def recipe(self) -> Recipe:
        """Return the recipe of the task or, if a model to start from is chosen, the result of `recipe_from_model`.

        The effort and the settings that replace values of the recipe (`chosen_settings`) are not applied yet.

        Raises:
            InputError: the task or the model is not usable.
        """
        recipe = self._task_recipe()
        assert self.settings is not None
        return recipe_from_model(self.settings.startFrom, recipe) if self.settings.startFrom else recipe

    def _task_recipe(self) -> Recipe:
        assert self.settings is not None
        settings = self.settings
        return recipe_of(settings.task, classes_from_json(settings.ownClasses), settings.suggestedRecipe)

    def apply_classes(self, keeps_unmatched: bool = True) -> None:
        """Match the segments of the scene's cases to the task's changed classes, and check the cases.

        Args:
            keeps_unmatched: see `rematch_segments`.
        """
        try:
            rows = rematch_segments(self.table.rows, self._task_recipe(), keeps_unmatched)
        except InputError:  # `check_cases` below reports the same error.
            rows = self.table.rows
        if rows != self.table.rows:
            self.table.replace_all(rows)
        self.check_cases()

    def planned_recipe(self) -> Recipe:
        """Return the recipe of the next run; raise InputError if the task, the model or a setting is not usable."""
        assert self.settings is not None
        recipe = self.recipe()
        changes = [*effort_settings(recipe, self.settings.effort.value), *chosen_settings(self.settings)]
        return with_settings(recipe, changes, _("Setting"))

    def _recipe_of_check(self) -> Recipe:
        """Return `recipe()` with the chosen spacing, if the spacing is usable."""
        recipe = self.recipe()
        assert self.settings is not None
        try:
            return with_chosen_spacing(recipe, chosen_settings(self.settings))
        except InputError:  # `problems` reports the spacing.
            return recipe

    def _is_check_for_present_recipe(self) -> bool:
        try:
            return self._check is not None and self._check.recipe == self._recipe_of_check()
        except InputError:
            return False

    def device(self) -> str:
        """Return the chosen device as `dcamt` names it; `AUTO` without a scene."""
        return str(self.settings.device.value) if self.settings is not None else AUTO

    def suggest_start(self, model: str) -> None:
        """Choose `model` as the model to start from, unless a model is already chosen.

        If `model` is empty or the task cannot use `model`, the setting stays unchanged.
        """
        if self.settings is None or self.settings.startFrom or not model:
            return
        try:
            recipe_from_model(model, self.recipe())
        except InputError:
            return
        self.settings.startFrom = model
        self._notify()

    # Cases

    def add_unlisted_cases(self) -> None:
        """Add the scene's training cases that were never listed."""
        try:
            rows = training_case_rows(self.recipe(), unlisted_only=True)
        except InputError:  # The task is not usable yet; the next call tries again.
            return
        if rows:
            self.table.add(rows)
            self.suggest_start(current_model())

    def remove_unread(self) -> None:
        """Remove the `unread` cases from the scene."""
        self.unread = []
        self.save()
        self._notify()

    def add_list_in_steps(
        self,
        path: Path,
        on_repeated: Callable[[int], None] = lambda count: None,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> Generator[None, None, None]:
        """Add the cases of a CSV file, all in the last step.

        Args:
            on_repeated: called with the number of lines that repeat a scan, if there are any.
            on_note: as for `dcamt.cases.case_list.read_cases`.

        Raises:
            InputError: the file or a line of it cannot be read as a case list, or another scene was opened meanwhile.
        """
        settings = self.settings
        rows = yield from read_rows_in_steps(path, on_note)
        yield
        if self.settings is not settings:
            what = _("another scene was opened while the list was read, so no case was added")
            raise InputError(what, path=path, remedy=_("Add the list again."))
        self.table.add(rows, roles_chosen=True)
        repeated = len(rows) - len({row.scan for row in rows})
        if repeated:
            on_repeated(repeated)

    @property
    def checking(self) -> bool:
        return self._check is not None and self._check.running

    @property
    def checked(self) -> bool:
        """Whether all cases were checked since the last edit, for the present task and spacing."""
        if self._check is None or self._check.running or self.check_failure:
            return False
        return self._is_check_for_present_recipe()

    def check_cases(self) -> None:
        """Cancel a check in progress; if there is a scene, check all cases in the background.

        If the task or the model to start from is not usable, nothing is checked and `check_failure` states why.
        """
        self._stop_check()
        if self.settings is None:
            return
        try:
            recipe = self._recipe_of_check()
        except InputError as error:
            self.check_failure = error_text(error)
            self._notify()
            return
        self._check = CaseCheck(self.table, recipe, self._on_checked).start()

    def problems(self, device: str | None = None) -> list[Problem]:
        """Return the known problems of a run on a device, by default the chosen device."""
        if self.settings is None:
            return []
        try:
            recipe = self.planned_recipe()
        except InputError as error:
            return [Problem(error_text(error))]
        label_values = self._check.label_values if self._check is not None and self.checked else {}
        problems = case_problems(self.table.rows, recipe, label_values)
        if self.check_failure:
            problems.append(Problem(self.check_failure))
        problems += folder_problems(self.settings.runName)
        estimate = self.estimation.estimate(device)
        return problems + (machine_problems(estimate) if estimate is not None else [])

    def _on_checked(self, message: str) -> None:
        self.check_failure = message
        self._notify()

    def _stop_check(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
        self.check_failure = ""

    def _stop_saving(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None

    def _on_edited(self) -> None:
        self._stop_check()
        self._stop_saving()
        if self._node is not None:
            if len(self.table) <= SAVED_AT_ONCE:
                self.save()  # A scene that is saved before `SETTLE_MS` have passed must contain the edit.
            self._settling.start(SETTLE_MS)
        self._notify()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, caller: Any, event: Any, node: Any) -> None:
        mark_removed(self.unread, node.GetID())
        if self.table.mark_removed(node.GetID()):
            # Saving can wait: the scene has removed the saved reference to the node, so `load_cases` treats the node as
            # removed.
            self._stop_check()
            self._stop_saving()
            if self.estimation.running:  # Its result would be kept under an ID that another node may get.
                self.estimation.cancel()
            self._settling.start(SETTLE_MS)

    def _on_settled(self) -> None:
        self._stop_saving()
        if self._node is not None:
            steps = save_rows_in_steps(self._node, tuple(self.table.rows), self.unread)
            self._saving = SteppedTask(steps, self._on_saved).start()

    def _on_saved(self, error: Exception | None) -> None:
        if error is not None:
            display_error(error_text(error), _("Save the cases with the scene"))
            return
        # The start of a run may have checked the cases since the last edit.
        if len(self.table) and not self.checking and not self.checked and self._are_packages_installed():
            self.check_cases()

    def _are_packages_installed(self) -> bool:
        try:
            self._has_packages = self._has_packages or not missing_packages()
        except NotInstalledError as missing:
            self.check_failure = str(missing)
            self._notify()
        return self._has_packages

    def _notify(self) -> None:
        for listener in self.on_news:
            listener()
