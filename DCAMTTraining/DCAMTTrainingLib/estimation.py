"""Estimate, in the background, the time, memory and disk space of a run, from a few iterations on this computer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.case_memory import loading_bytes, resident_bytes
from dcamt.cases.case_list import LEFT_OUT
from dcamt.errors import InputError, user_error
from dcamt.geometry import Grid
from dcamt.machine import free_disk_bytes
from dcamt.recipe import Recipe

from .cases.derived_nodes import channels_of
from .cases.lists import write_lines
from .cases.rows import CaseRow, CaseTable, SceneScan
from .engine_command import EngineCommand
from .runs.folders import runs_folder
from .temporary_folder import TemporaryFolder


class Estimation:
    """Runs `dcamt estimate` and keeps one result for each combination of recipe, device and used cases.

    Args:
        planned_recipe, device: functions that return the recipe and the device of the next run.
        on_change: called as on_change() when an estimation has ended or was cancelled.

    Attributes:
        failure: why the last estimation failed; empty if it succeeded, was cancelled or is running.
    """

    def __init__(
        self,
        table: CaseTable,
        planned_recipe: Callable[[], Recipe],
        device: Callable[[], str],
        on_change: Callable[[], None],
    ) -> None:
        self._table, self._planned_recipe = table, planned_recipe
        self._device, self._on_change = device, on_change
        self.failure = ""
        self._command: EngineCommand | None = None
        self._estimates: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._folder = TemporaryFolder("dcamt-estimate-")
        # `_key` does not contain the sizes of scans. `CaseTable.add` may change a size, and then calls `on_reset`.
        table.on_reset.append(self._estimates.clear)

    @property
    def running(self) -> bool:
        """Whether an estimation is running."""
        return self._command is not None and self._command.running

    def estimate(self, device: str | None = None) -> dict[str, Any] | None:
        """Return the result of `dcamt estimate` that is kept for the current settings and cases.

        Return None if no result is kept, or if a setting is unusable. The free disk space is read at each call.

        Args:
            device: None for the device in the settings.
        """
        if not self._estimates:
            return None
        try:
            known = self._estimates.get(self._key(self._planned_recipe(), device or self._device()))
        except InputError:
            return None
        return None if known is None else {**known, "disk_free": free_disk_bytes(runs_folder())}

    def start(self, folder: Path, device: str, on_end: Callable[[str], None] = lambda message: None) -> None:
        """Measure a few iterations in the background.

        Args:
            folder: where the run would be written.
            device: where the iterations are computed.
            on_end: called as on_end(message) when the estimation ends, but not after `cancel`; the message is empty
                after success.

        Raises:
            InputError: the task, a setting or the model to start from is not usable.
            OutputError: the files of the estimation cannot be written.
        """
        self.failure = ""
        recipe = self._planned_recipe()
        # The cases may change before the estimate arrives.
        key, scene_bytes = self._key(recipe, device), self._scene_bytes(recipe)
        loading = loading_bytes(recipe, _grids_of(self._used_rows()))
        try:
            files = self._folder.create()
            cases, recipe_file = files / "cases.csv", files / "recipe.json"
            write_lines(((row.name, row.scan, "", row.role, "") for row in self._used_rows()), cases)
            recipe_file.write_text(recipe.to_json(), encoding="utf-8")
        except Exception as error:
            self._folder.remove()
            raise user_error(error) from error

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "estimate":
                self._estimates[key] = _with_scene_volumes(event, *scene_bytes, loading)

        def on_command_end(message: str) -> None:
            self.failure = message
            self._folder.remove()
            self._on_change()
            on_end(message)

        arguments = ["estimate", str(cases), "--recipe", str(recipe_file)]
        # The user's effort is already in `recipe`. "thorough" keeps the recipe's iterations and patch.
        arguments += ["--effort", "thorough", "--run", str(folder), "--device", device, "--scene"]
        self._command = EngineCommand(arguments, on_event, on_command_end)
        self._command.start()

    def cancel(self) -> None:
        """Stop a running estimation; its `on_end` is not called."""
        if self._command is not None:
            self._command.cancel()
            self._folder.remove()
            self._on_change()

    def _scene_bytes(self, recipe: Recipe) -> tuple[int, int]:
        """Return the bytes of memory and disk space that the scene's volumes will take in the run.

        `dcamt estimate` omits these volumes, since they are not written to files until the run starts. Every case is
        counted as if it had a label.
        """
        rows, disk = [], 0
        for row in self._used_rows():
            if isinstance(row.source, SceneScan) and row.size and row.spacing:
                rows.append(row)
                images = [node.GetImageData() for node in _used_channels(row.source, recipe)]
                scalars = sum(image.GetScalarSize() for image in images if image is not None)
                disk += math.prod(row.size) * (1 + scalars)
        return resident_bytes(recipe, _grids_of(rows)), disk

    def _used_rows(self) -> list[CaseRow]:
        return [row for row in self._table.rows if row.role != LEFT_OUT]

    def _key(self, recipe: Recipe, device: str) -> tuple[Any, ...]:
        return recipe, device, tuple((row.scan, row.role) for row in self._used_rows())


def _grids_of(rows: Sequence[CaseRow]) -> list[Grid]:
    known = [(row.size, row.spacing) for row in rows if row.size and row.spacing]
    return [Grid((i, j, k), np.diag([*spacing, 1.0])) for (i, j, k), spacing in known]


def _with_scene_volumes(
    event: dict[str, Any], memory_bytes: int, disk_bytes: int, loading_bytes: int
) -> dict[str, Any]:
    memory = event["memory_bytes"]
    if memory is not None:
        memory += memory_bytes
        if event["device"] != "cuda":
            memory = max(memory, loading_bytes)
    return {**event, "memory_bytes": memory, "disk_bytes": event["disk_bytes"] + disk_bytes}


def _used_channels(source: SceneScan, recipe: Recipe) -> tuple[Any, ...]:
    if recipe.input_channels == 1:
        volume = slicer.mrmlScene.GetNodeByID(source.volume)
        return (volume,) if volume is not None else ()
    try:
        return channels_of(source)[: recipe.input_channels]
    except InputError:
        return ()
