"""Suggest a recipe from the listed cases in the background, with `dcamt recipe suggest`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dcamt.cases.case_list import LABELLED, UNLABELLED, Case
from dcamt.recipe import Recipe
from dcamt.recipe_files import recipe_from_dict
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.stepped_task import SteppedTask

from .cases.lists import write_list
from .cases.rows import CaseRow, SceneScan
from .cases.scene_export import export_case
from .engine_command import EngineCommand
from .temporary_folder import TemporaryFolder


class RecipeSuggestion:
    """Suggests a recipe from the labelled cases; cases of the scene are first written to files.

    The recipe also depends on whether there are unlabelled cases. Validation and left-out cases are not used.

    Args:
        recipe: the task's recipe.
        on_end: called as on_end(recipe, message) when the suggestion ends, but not after `cancel`. After success,
            message is empty; after a failure, recipe is None and message states the reason.
    """

    def __init__(
        self, rows: Sequence[CaseRow], recipe: Recipe, device: str, on_end: Callable[[Recipe | None, str], None]
    ) -> None:
        self._rows, self._recipe, self._device, self._on_end = rows, recipe, device, on_end
        self._folder = TemporaryFolder("dcamt-suggestion-")
        self._command: EngineCommand | None = None
        self._writing = SteppedTask(self._write(), self._on_written)
        self._suggested: Recipe | None = None
        self.running = False

    def start(self) -> RecipeSuggestion:
        """Start in the next turn of the event loop; return self."""
        self.running = True
        self._writing.start()
        return self

    def cancel(self) -> None:
        """Stop at once; `on_end` is not called."""
        self.running = False
        self._writing.cancel()
        if self._command is not None:
            self._command.cancel()
        self._folder.remove()

    def _write(self) -> Generator[None, None, None]:
        folder = self._folder.create()
        cases = []
        for number, row in enumerate(self._rows, start=1):
            if row.role == LABELLED:
                cases.append((yield from export_case(row, folder, number)))
            elif row.role == UNLABELLED:
                # The engine only needs to know that there are such cases, and does not read them.
                cases.append(Case(row.name, Path(row.scan), None, row.role))
            yield
        write_list(cases, folder / "cases.csv")

    def _on_written(self, error: Exception | None) -> None:
        folder = self._folder.path
        if error is not None or folder is None:
            self._end(error_text(error))
            return
        arguments = ["recipe", "suggest", str(folder / "cases.csv"), "-o", str(folder / "suggested.json")]
        self._command = EngineCommand([*arguments, "--device", self._device], self._on_event, self._end).start()

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "recipe":
            self._suggested = self._with_known_classes(recipe_from_dict(event["recipe"], "suggested.json"))

    def _with_known_classes(self, suggested: Recipe) -> Recipe:
        """Return the suggested recipe, if possible with the task's classes.

        The label files that were written from the scene contain no names of classes, so `dcamt recipe suggest` cannot
        know the names. If all labels are from the scene, and the task has a class for each suggested label value, the
        task's classes replace the suggested classes, and the title lists their names.
        """
        labelled = [row for row in self._rows if row.role == LABELLED]
        known = {info.label: info for info in self._recipe.classes}
        if not all(isinstance(row.source, SceneScan) for row in labelled):
            return suggested
        if not all(info.label in known for info in suggested.classes):
            return suggested
        classes = tuple(known[info.label] for info in suggested.classes)
        return replace(suggested, classes=classes, title=", ".join(info.name for info in classes))

    def _end(self, message: str) -> None:
        self._folder.remove()
        if self.running:
            self.running = False
            self._on_end(None if message else self._suggested, message)
