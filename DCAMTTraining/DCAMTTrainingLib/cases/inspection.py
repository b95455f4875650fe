"""Looks the cases over in the background: the files' headers and labels in a child process, the scene's nodes here."""
# ruff: noqa: N802, N803

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import slicer
from dcamt.cases.case_list import LABELLED, VALIDATION
from dcamt.recipe import Recipe
from DCAMTSlicerLib.result_segments import labelmap
from DCAMTSlicerLib.stepped_task import SteppedTask, error_text
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from ..runs.engine_command import EngineCommand
from .lists import write_lines
from .rows import CaseTable, FileScan, SceneScan

RESOLVED = 200
"""Paths that are looked up between two turns of the event loop."""


class CaseInspection:
    """Fills size, spacing and remark of the table's rows; `onEnd(message)` comes once, unless it is cancelled.

    held: by row, the labels that its label holds, as far as they were looked at.
    """

    def __init__(self, table: CaseTable, recipe: Recipe, onEnd: Callable[[str], None]) -> None:
        self._table, self._onEnd = table, onEnd
        self.held: dict[int, tuple[int, ...]] = {}
        self.running = True
        self._folder = Path(tempfile.mkdtemp(prefix="dcamt-cases-", dir=slicer.app.temporaryPath))
        self._command: EngineCommand | None = None
        self._index: list[int] = []
        self._beginning = SteppedTask(self._begin(recipe), self._onBegun).start()

    def cancel(self) -> None:
        self.running = False
        self._beginning.cancel()
        if self._command is not None:
            self._command.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, recipe: Recipe) -> Generator[None, None, None]:
        """Look at the scene's cases, and have a child process look at the others."""
        yield from self._inspectScene(recipe)
        lines = []
        for index, row in enumerate(self._table.rows):
            if isinstance(row.source, FileScan):
                lines.append((row.name, row.source.image, row.source.label, row.role))
                self._index.append(index)
        if lines:
            yield
            write_lines(lines, self._folder / "cases.csv")
            (self._folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
            yield
            words = ["cases", "check", str(self._folder / "cases.csv"), "--recipe", str(self._folder / "recipe.json")]
            self._command = EngineCommand(words, self._hear, self._ended)

    def _onBegun(self, error: Exception | None) -> None:
        if error is not None or self._command is None:
            self._end(error_text(error))

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "case":
            index = self._index[event["index"]]
            self._table.note(index, event["size"], event["spacing"], " ".join(event["problems"]))
            if event["labels"] is not None:
                self.held[index] = tuple(event["labels"])

    def _ended(self, message: str) -> None:
        # Exit status 1 with all rows looked at says that something is wrong with one of them: its remark says what.
        seen = all(self._table.rows[index].size or self._table.rows[index].remark for index in self._index)
        self._end("" if seen else message)

    def _end(self, message: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self.running:
            self.running = False
            self._onEnd(message)

    def _inspectScene(self, recipe: Recipe) -> Generator[None, None, None]:
        if not any(isinstance(row.source, SceneScan) for row in self._table.rows):
            return
        by_file: defaultdict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(self._table.rows):
            if isinstance(row.source, FileScan):
                by_file[str(Path(row.source.image).resolve())].append(index)
                if index % RESOLVED == 0:  # each path is looked up on the disk
                    yield
        for index, row in enumerate(self._table.rows):
            if not isinstance(row.source, SceneScan):
                continue
            yield
            remark, held = scene_remark(row.source, row.role, recipe)
            volume = slicer.mrmlScene.GetNodeByID(row.source.volume)
            others = by_file.get(_file_of(volume), []) if volume is not None else []
            if any((self._table.rows[other].role == VALIDATION) != (row.role == VALIDATION) for other in others):
                text = _(
                    "The scan is trained on and validated on, too: it is the file of “{name}”. Leave one of them out."
                )
                remark = f"{remark} {text.format(name=self._table.rows[others[0]].name)}".strip()
            self.held[index] = held
            self._table.note(index, row.size, row.spacing, remark)


def scene_remark(source: SceneScan, role: str, recipe: Recipe) -> tuple[str, tuple[int, ...]]:
    """What is wrong with a case of the scene, and the labels that its segments hold."""
    scene = slicer.mrmlScene
    volume, segmentation = scene.GetNodeByID(source.volume), scene.GetNodeByID(source.segmentation or "")
    if volume is None or volume.GetImageData() is None:
        return _("The volume is no longer in the scene. Remove the case, or load the volume again."), ()
    channels = volume.GetImageData().GetNumberOfScalarComponents()
    if channels != recipe.input_channels:
        text = _("The scan holds {has} channel(s), but the recipe takes {takes}. Choose another volume or recipe.")
        return text.format(has=channels, takes=recipe.input_channels), ()
    if role not in (LABELLED, VALIDATION):
        return "", ()
    if segmentation is None:
        return _("The segmentation is no longer in the scene. Make the case unlabelled, or outline it again."), ()
    held = tuple(label for identifier, label in source.segments if _is_drawn(segmentation, identifier))
    if not held:
        return _("The label is empty. Outline the scan, choose its segments, or make the case unlabelled."), ()
    if any(label >= recipe.outputs for _identifier, label in source.segments):
        return _("A segment stands for a class that the recipe does not know. Choose the segments again."), held
    return "", held


def _is_drawn(segmentation: Any, identifier: str) -> bool:
    """Whether a voxel of the segment is set; of one that has surfaces alone, whether they have an extent."""
    segment = segmentation.GetSegmentation().GetSegment(identifier)
    if segment is None:
        return False
    image = segment.GetRepresentation(labelmap())
    if image is None:
        bounds = [0.0] * 6
        segment.GetBounds(bounds)
        return bounds[0] <= bounds[1]
    scalars = image.GetPointData().GetScalars()
    # Segments that do not overlap share one image, each with a value of its own.
    return scalars is not None and bool((vtk_to_numpy(scalars) == segment.GetLabelValue()).any())


def _file_of(volume: Any) -> str:
    storage = volume.GetStorageNode()
    return str(Path(storage.GetFullNameFromFileName()).resolve()) if storage and storage.GetFileName() else ""
