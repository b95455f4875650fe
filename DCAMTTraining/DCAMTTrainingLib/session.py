"""What the parts of the panel share: the case table, the task, and what is known of both."""
# ruff: noqa: N802, N803

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.cases.case_list import ROLES, Case, listed_cases, write_cases
from dcamt.errors import InputError
from dcamt.machine import free_disk_bytes
from dcamt.recipe import Recipe, with_settings
from dcamt.runs.efforts import effort_settings
from DCAMTSlicerLib.installation import NotInstalledError, missing_packages
from DCAMTSlicerLib.stepped_task import SteppedTask, error_text
from slicer.i18n import tr as _

from .cases.inspection import CaseInspection
from .cases.lists import write_lines
from .cases.rows import CaseRow, CaseTable, FileScan
from .cases.store import SLICE, load_rows, save_rows, saving_rows
from .runs.engine_command import EngineCommand
from .runs.folders import runs_folder
from .runs.preflight import Problem, case_problems, machine_problems
from .runs.settings import TrainingSettings, chosen_settings, device_word
from .runs.task import classes_from_json, recipe_of, started_from

SETTLE_MS = 400
"""After an edit, before the cases are kept and looked over: more edits may follow."""

KEPT_AT_ONCE = 1000
"""Cases up to which the scene is given each change at once, without the window's noticing."""


class TrainingSession:
    """The table and the settings of the scene that is open; `on_news` hears when what is known has changed."""

    def __init__(self) -> None:
        self.table = CaseTable()
        self.settings: TrainingSettings | None = None
        self.on_news: list[Callable[[], None]] = []
        self.inspectionFault = ""
        self._node: Any = None
        self._inspection: CaseInspection | None = None
        self._inspected = False
        self._estimation: EngineCommand | None = None
        self._estimates: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._measured: Path | None = None
        self._keeping: SteppedTask | None = None
        self._settling = qt.QTimer()
        self._settling.setSingleShot(True)
        self._settling.timeout.connect(self._onSettled)
        self.table.on_edited.append(self._onEdited)
        self.table.on_reset.append(self._estimates.clear)

    def attach(self, node: Any, settings: TrainingSettings) -> None:
        """Take up the cases and settings of a scene: `node` is the parameter node, `settings` its wrapper."""
        self._node, self.settings = None, settings
        self.table.replace_all(load_rows(node))  # which is no change to be kept
        self._node = node
        self._settling.start(SETTLE_MS)

    def detach(self) -> None:
        """The scene goes: keep what is to be kept, and forget it."""
        self.keep()
        self._stopInspection()
        self._node = self.settings = None
        self.table.replace_all([])
        self._settling.stop()

    def close(self) -> None:
        """Nobody is told of anything any more."""
        self.on_news.clear()
        self.detach()
        self.cancelMeasuring()

    def settingsChanged(self) -> None:
        """A setting was changed, in the panel or by a script."""
        self._news()

    def keep(self) -> None:
        """Put the cases into the scene's parameter node."""
        self._stopKeeping()
        if self._node is not None:
            save_rows(self._node, self.table.rows)

    def recipe(self) -> Recipe:
        """The recipe of the task, before effort and single settings; raises InputError if it cannot be made."""
        assert self.settings is not None
        recipe = recipe_of(self.settings.task, classes_from_json(self.settings.ownClasses))
        return started_from(self.settings.startFrom, recipe) if self.settings.startFrom else recipe

    def plannedRecipe(self) -> Recipe:
        """The recipe with effort and settings, as the run will have it; raises InputError if they do not fit."""
        assert self.settings is not None
        recipe = self.recipe()
        changes = [*effort_settings(recipe, self.settings.effort.value), *chosen_settings(self.settings)]
        return with_settings(recipe, changes)

    def device(self) -> str:
        """What computes, as `dcamt` calls it."""
        return device_word(self.settings) if self.settings is not None else "auto"

    def suggestStart(self, model: str) -> None:
        """Learn on from a model, unless the person chose one, or it outlines something else."""
        if self.settings is None or self.settings.startFrom or not model:
            return
        try:
            started_from(model, self.recipe())
        except InputError:
            return
        self.settings.startFrom = model
        self._news()

    # Cases

    def addFiles(self, cases: list[Case]) -> int:
        """Add cases that are files; returns how many are new."""
        return self.table.add(
            CaseRow(case.name, FileScan(str(case.image), str(case.label or "")), case.role) for case in cases
        )

    def addList(self, path: Path) -> None:
        """Add the cases of a CSV file; raises InputError if it cannot be read as one."""
        for _step in self.addingList(path):
            pass

    def addingList(self, path: Path) -> Generator[None, None, None]:
        """`addList` in steps; all cases come in with the last one, or none if a line is faulty."""
        settings, rows = self.settings, []
        for number, case in enumerate(listed_cases(path), start=1):
            rows.append(CaseRow(case.name, FileScan(str(case.image), str(case.label or "")), case.role))
            if number % SLICE == 0:
                yield
        yield
        if self.settings is settings:  # else another scene was opened meanwhile
            self.table.add(rows, roles_chosen=True)

    def exportList(self, path: Path) -> int:
        """Write the table as `dcamt train` reads it; returns how many rows are left out, as they are no files.

        Raises:
            OutputError: the file cannot be written.
        """
        cases = [
            Case(row.name, Path(row.source.image), Path(row.source.label) if row.source.label else None, row.role)
            for row in self.table.rows
            if isinstance(row.source, FileScan)
        ]
        write_cases(cases, path)
        return len(self.table) - len(cases)

    @property
    def inspecting(self) -> bool:
        return self._inspection is not None and self._inspection.running

    @property
    def inspected(self) -> bool:
        """Whether all cases were looked over since the last change."""
        return self._inspected

    def inspect(self) -> None:
        """Look all cases over in the background."""
        self._stopInspection()
        try:
            recipe = self.recipe()
        except InputError as error:
            self.inspectionFault = str(error)
            self._news()
            return
        self._inspected, self.inspectionFault = False, ""
        self._inspection = CaseInspection(self.table, recipe, self._onInspected)

    def _onInspected(self, message: str) -> None:
        self._inspected, self.inspectionFault = not message, message
        self._news()

    def _stopInspection(self) -> None:
        if self._inspection is not None:
            self._inspection.cancel()
            self._inspection = None
        self._inspected = False

    def _stopKeeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None

    def _onEdited(self) -> None:
        self._stopInspection()
        self._stopKeeping()
        if self._node is not None:
            # Not every way of saving a scene announces itself.
            if len(self.table) <= KEPT_AT_ONCE:
                self.keep()
            self._settling.start(SETTLE_MS)
        self._news()

    def _onSettled(self) -> None:
        self._stopKeeping()
        if self._node is not None:
            steps = saving_rows(self._node, tuple(self.table.rows))
            self._keeping = SteppedTask(steps, self._onKept).start()

    def _onKept(self, error: Exception | None) -> None:
        if error is not None:
            slicer.util.errorDisplay(error_text(error), windowTitle=_("Keep the cases with the scene"))
            return
        # Before the engine's packages are there, nothing asks for them unless the person wants something done.
        try:
            ready = bool(len(self.table)) and not missing_packages()
        except NotInstalledError as error:
            self.inspectionFault = str(error)
            self._news()
            return
        if ready:
            self.inspect()

    # What a run would take

    def estimate(self) -> dict[str, Any] | None:
        """The event of `dcamt estimate` for what is chosen at present; None if that was not measured.

        How much disk is free is asked anew: the person may have made room, or chosen another folder.
        """
        if not self._estimates:
            return None
        try:
            found = self._estimates.get(self._estimateKey(self.plannedRecipe()))
        except InputError:
            return None
        return None if found is None else {**found, "disk_free": free_disk_bytes(runs_folder())}

    @property
    def estimating(self) -> bool:
        return self._estimation is not None and self._estimation.running

    def measure(self, place: Path, device: str, onEnd: Callable[[str], None]) -> None:
        """Measure a few steps in the background; `onEnd(message)`, the message empty if all went well.

        Raises:
            InputError: the task or a setting cannot be used.
        """
        recipe = self.plannedRecipe()
        key = self._estimateKey(recipe)
        folder = Path(tempfile.mkdtemp(prefix="dcamt-estimate-", dir=slicer.app.temporaryPath))
        self._measured = folder
        write_lines(((row.name, row.scan, "", row.role) for row in self.table.rows), folder / "cases.csv")
        (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "estimate":
                self._estimates[key] = self._withScene(event, recipe)

        def end(message: str) -> None:
            self._forgetMeasured()
            self._news()
            onEnd(message)

        words = ["estimate", str(folder / "cases.csv"), "--recipe", str(folder / "recipe.json")]
        self._estimation = EngineCommand(
            # The recipe has its effort already.
            [*words, "--effort", "thorough", "--run", str(place), "--device", device],
            hear,
            end,
        )

    def cancelMeasuring(self) -> None:
        if self._estimation is not None:
            self._estimation.cancel()
            self._forgetMeasured()
            self._news()

    def _forgetMeasured(self) -> None:
        """Remove what was written for the measurement: it names the cases."""
        if self._measured is not None:
            shutil.rmtree(self._measured, ignore_errors=True)
            self._measured = None

    def _withScene(self, event: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
        """The estimate with memory and disk for the scene's volumes, which are no files yet."""
        voxel = recipe.spacing[0] * recipe.spacing[1] * recipe.spacing[2]
        memory, disk = 0.0, 0
        for row in self.table.rows:
            if not isinstance(row.source, FileScan) and row.size and row.spacing:
                count = row.size[0] * row.size[1] * row.size[2]
                memory += 2 * count * row.spacing[0] * row.spacing[1] * row.spacing[2] / voxel
                volume = slicer.mrmlScene.GetNodeByID(row.source.volume)
                image = volume.GetImageData() if volume is not None else None
                disk += count * (1 + (image.GetScalarSize() if image is not None else 0))
        taken = event["memory_bytes"]
        more = {"memory_bytes": None if taken is None else taken + round(memory)}
        return {**event, **more, "disk_bytes": event["disk_bytes"] + disk}

    def _estimateKey(self, recipe: Recipe) -> tuple[Any, ...]:
        """What a measurement depends on, but for the scans: where they come or go, it is forgotten."""
        return recipe, self.device(), tuple(map(self.table.count, ROLES))

    def problems(self) -> list[Problem]:
        """What hinders a run at present, as far as it is known."""
        if self.settings is None:
            return []
        try:
            recipe = self.plannedRecipe()
        except InputError as error:
            return [Problem(str(error))]
        held = self._inspection.held if self._inspection is not None and self._inspected else {}
        problems = case_problems(self.table.rows, recipe, held)
        if self.inspectionFault:
            problems.append(Problem(self.inspectionFault))
        estimate = self.estimate()
        return problems + (machine_problems(estimate) if estimate is not None else [])

    def _news(self) -> None:
        for hear in self.on_news:
            hear()
