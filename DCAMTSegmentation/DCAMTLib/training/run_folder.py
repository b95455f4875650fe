"""A run is a folder: recipe, cases, events, checkpoints, model package. It is all that a run needs to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import atomic_path
from ..recipe import Recipe, load_recipe
from .cases import Case, read_cases, write_cases


@dataclass(frozen=True)
class RunFolder:
    """Where each part of a run lies."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def cases(self) -> Path:
        return self.path / "cases.csv"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def model(self) -> Path:
        return self.path / "model.dcamt"

    def create(self, recipe: Recipe, cases: Sequence[Case], first_checkpoint: Callable[[], None]) -> None:
        """Begin a run in a folder that is new, empty, or holds the beginning of a run that was killed right there.

        `first_checkpoint` writes the checkpoint before the first step.

        Raises:
            InputError: the folder already holds a run, or anything else.
        """
        if self.recipe.exists():
            raise InputError("already holds a run", path=self.path, remedy="Go on with --resume, or name a new folder.")
        beginnings = {self.cases, self.events, self.checkpoint.parent}
        if self.path.exists() and (not self.path.is_dir() or not beginnings.issuperset(self.path.iterdir())):
            raise InputError("is not an empty folder", path=self.path, remedy="Name a new folder for the run.")
        # The recipe comes last: a folder that holds one is a run that can be resumed.
        write_cases(cases, self.cases)
        first_checkpoint()
        with atomic_path(self.recipe) as partial:
            partial.write_text(recipe.to_json(), encoding="utf-8")

    def open(self) -> tuple[Recipe, list[Case]]:
        """The recipe and cases of the run that lies here.

        Raises:
            InputError: there is no run here, or its files cannot be used.
        """
        if not self.recipe.exists():
            raise InputError("holds no run to go on with", path=self.path, remedy="Start one without --resume.")
        return load_recipe(self.recipe), read_cases(self.cases)

    def last_events(self) -> list[dict[str, object]]:
        """The events so far; a last line that a crash cut off is left out."""
        if not self.events.exists():
            return []
        events = []
        for line in self.events.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return events
