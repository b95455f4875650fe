"""Check the cases in the background: files in a child process, scene nodes in this process."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import slicer
from dcamt.cases.case_list import LEFT_OUT, ROLES_WITH_LABEL, VALIDATION, check_encoding
from dcamt.errors import InputError
from dcamt.io.readers import read_header
from dcamt.recipe import Recipe
from dcamt.volume import check_scan_grid, same_grid
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.segment_voxels import labelmap_name
from DCAMTSlicerLib.stepped_task import SteppedTask
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from ..engine_command import EngineCommand
from ..temporary_folder import TemporaryFolder
from .derived_nodes import SCAN_FILE, channels_of, file_of_all_channels, file_state, has_file_changed, size_and_spacing
from .lists import write_lines
from .rows import CaseRow, CaseTable, FileScan, SceneScan
from .scene_source import choice_note, competing_segments, is_models_own

PATHS_PER_STEP = 200
"""At most this many paths are resolved between two turns of the event loop, to keep Slicer responsive."""


class CaseCheck:
    """Checks all rows of a table and sets their remarks, notes, sizes and spacings.

    Args:
        on_end: called as on_end(message) once, unless the check is cancelled. The message states why the check itself
            failed; it is empty if all cases were checked, whether or not they have problems.

    Attributes:
        label_values: row index -> the values in the row's label; empty or missing if the label was not read.
    """

    def __init__(self, table: CaseTable, recipe: Recipe, on_end: Callable[[str], None]) -> None:
        self._table, self._recipe, self._on_end = table, recipe, on_end
        self.label_values: dict[int, tuple[int, ...]] = {}
        self.running = False
        self._folder = TemporaryFolder("dcamt-cases-")
        self._command: EngineCommand | None = None
        self._index: list[int] = []
        self._is_complete = False
        self._beginning = SteppedTask(self._begin(), self._on_begun)

    def start(self) -> CaseCheck:
        """Start the check, and return this object."""
        self.running = True
        self._beginning.start()
        return self

    def cancel(self) -> None:
        """Stop the check; `on_end` is not called."""
        self.running = False
        self._beginning.cancel()
        if self._command is not None:
            self._command.cancel()
        self._folder.remove()

    def _begin(self) -> Generator[None, None, None]:
        """Check the scene's cases, then start a child process for the cases in files."""
        yield from self._check_scene()
        lines = []
        for index, row in enumerate(self._table.rows):
            if isinstance(row.source, FileScan):
                line = (row.name, row.source.image, row.source.label, row.role, row.source.labels)
                try:
                    check_encoding(row.source.image, line)
                except InputError as error:
                    self._table.set_facts(index, row.size, row.spacing, error_text(error), "")
                    continue
                lines.append(line)
                self._index.append(index)
        if lines:
            yield
            folder = self._folder.create()
            cases, recipe = folder / "cases.csv", folder / "recipe.json"
            write_lines(lines, cases)
            recipe.write_text(self._recipe.to_json(), encoding="utf-8")
            yield
            arguments = ["cases", "check", str(cases), "--recipe", str(recipe)]
            self._command = EngineCommand(arguments, self._on_event, self._on_command_end)
            self._command.start()

    def _on_begun(self, error: Exception | None) -> None:
        if error is not None or self._command is None:
            self._end(error_text(error))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "case":
            index = self._index[event["index"]]
            remark, note = (" ".join(map(translated, event[key])) for key in ("problems", "warnings"))
            self._table.set_facts(index, event["size"], event["spacing"], remark, note)
            if event["labels"] is not None:
                self.label_values[index] = tuple(event["labels"])
        elif event["event"] == "checked":
            self._is_complete = True

    def _on_command_end(self, message: str) -> None:
        # The command also fails if a case has a problem. The row's remark already states the problem, so the command's
        # message is dropped if the check is complete.
        self._end("" if self._is_complete else message)

    def _end(self, message: str) -> None:
        self._folder.remove()
        if self.running:
            self.running = False
            self._on_end(message)

    def _check_scene(self) -> Generator[None, None, None]:
        if not any(isinstance(row.source, SceneScan) for row in self._table.rows):
            return
        rows_of_file: defaultdict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(self._table.rows):
            if isinstance(row.source, FileScan):
                rows_of_file[str(Path(row.source.image).resolve())].append(index)
            if index % PATHS_PER_STEP == 0:  # Resolving paths reads the disk.
                yield
        for index, row in enumerate(self._table.rows):
            if not isinstance(row.source, SceneScan):
                continue
            yield
            remark, values = scene_remark(row.source, row.role, self._recipe)
            volume = slicer.mrmlScene.GetNodeByID(row.source.volume)
            same_file = rows_of_file.get(_file_of(volume), []) if volume is not None else []
            conflicting = _find_conflicting_row(row, [self._table.rows[other] for other in same_file])
            if conflicting is not None:
                text = _("The scan is used for training and for validation: “{name}” has the same file. Remove a case.")
                remark = f"{remark} {text.format(name=conflicting.name)}".strip()
            self.label_values[index] = values
            note = "" if remark else _label_note(row.source, self._recipe)
            has_image = volume is not None and volume.GetImageData() is not None
            size, spacing = size_and_spacing(volume) if has_image else (row.size, row.spacing)
            old_note_explains_missing_label = not row.has_label and not note
            self._table.set_facts(index, size, spacing, remark, None if old_note_explains_missing_label else note)


def _find_conflicting_row(row: CaseRow, rows_of_scan: Sequence[CaseRow]) -> CaseRow | None:
    """Return the first row that conflicts with `row`; None if there is none."""
    conflicting = (
        other
        for other in rows_of_scan
        if LEFT_OUT not in (row.role, other.role) and (other.role == VALIDATION) != (row.role == VALIDATION)
    )
    return next(conflicting, None)


def scene_remark(source: SceneScan, role: str, recipe: Recipe) -> tuple[str, tuple[int, ...]]:
    """Return the problem of a case of the scene (empty if there is none) and the label values of its drawn segments.

    The values are empty if the case needs no label, or if a problem was found before the segments were read.
    """
    remark = _scan_remark(source, recipe)
    return _label_remark(source, recipe) if not remark and role in ROLES_WITH_LABEL else (remark, ())


def _scan_remark(source: SceneScan, recipe: Recipe) -> str:
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    if volume is None or volume.GetImageData() is None:
        text = _(
            "The volume is no longer in the scene. Remove the case. To use the volume, load it, and press “From scene”."
        )
        return str(text)
    try:
        check_scan_grid(grid_of(volume), None)
    except InputError as error:
        return translated(f"The scan {error}")
    try:
        channels = _channel_count(source, volume, recipe)
    except InputError as error:
        return error_text(error)
    if channels == recipe.input_channels:
        return ""
    text = _("The number of channels is {has} in the scan, but {needs} in the recipe. Choose another volume or recipe.")
    return str(text.format(has=channels, needs=recipe.input_channels))


def _channel_count(source: SceneScan, volume: VolumeNode, recipe: Recipe) -> int:
    """Return the number of channels that training would read.

    Raises:
        InputError: a further channel is no longer in the scene; the volume's `file_of_all_channels` cannot be read,
            was changed, or has another grid than the volume.
    """
    components, file = volume.GetImageData().GetNumberOfScalarComponents(), file_of_all_channels(volume)
    if recipe.input_channels == 1:
        return int(components)  # Training with one channel ignores the volume nodes of further channels.
    if file is None:
        return int(components) + len(channels_of(source)) - 1
    if os.path.isdir(file):
        # Reading a DICOM series would block the event loop; the run checks the series when it starts.
        return recipe.input_channels
    header = read_header(file, channels=recipe.input_channels)
    if not same_grid(header.grid, grid_of(volume)):
        what = _("The volume and its file {file} no longer have the same grid.")
        raise InputError(what.format(file=file.name), remedy=_("Load the volume from the file again."))
    if has_file_changed(volume, file_state(str(file))):
        what = _("The file {file} was changed since the volume was read.")
        raise InputError(what.format(file=file.name), remedy=_("Open the case again under “What to outline next”."))
    return header.channels


def _label_remark(source: SceneScan, recipe: Recipe) -> tuple[str, tuple[int, ...]]:
    """Return the problem of a label (empty if there is none) and the label values of its drawn segments."""
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation)
    if segmentation is None:
        return _("The segmentation is no longer in the scene. Outline the scan, or set the role “unlabelled”."), ()
    segments = segmentation.GetSegmentation()
    removed = [label for identifier, label in source.segments if segments.GetSegment(identifier) is None]
    values = tuple(label for identifier, label in source.segments if _is_drawn(segmentation, identifier))
    if not values and not removed:
        return _("The label is empty. Outline the scan, choose its segments, or set the role “unlabelled”."), ()
    if any(label >= recipe.output_channels for _identifier, label in source.segments):
        return _("A segment belongs to a class that the recipe does not have. Choose the segments again."), values
    if removed:
        names = ", ".join(f"“{info.name}”" for info in recipe.classes if info.label in removed)
        text = _("The segment of {names} is no longer in the segmentation. Choose the segments again.")
        return text.format(names=names), values
    if is_models_own(source):
        text = _(
            "The label is a model's result, which nobody corrected. Correct it, choose its segments again, or set the"
            " role “unlabelled”."
        )
        return text, values
    return _choice_remark(source, recipe), values


def _choice_remark(source: SceneScan, recipe: Recipe) -> str:
    """Return a remark that names the segments among which the user must choose; empty if the choice is clear."""
    names = {info.label: info.name for info in recipe.classes}
    text = _("Several segments may be “{name}”: {segments}. Choose one of them with Segments….")
    return " ".join(
        text.format(name=names[label], segments=", ".join(f"“{segment}”" for segment in segments))
        for label, segments in competing_segments(source, recipe).items()
    )


def _label_note(source: SceneScan, recipe: Recipe) -> str:
    return " ".join(filter(None, (channels_note(source, recipe), choice_note(source, recipe))))


def channels_note(source: SceneScan, recipe: Recipe) -> str:
    """Return a note with the names of the channels that a one-channel recipe ignores; empty if there are none."""
    if recipe.input_channels > 1:
        return ""
    try:
        channels = channels_of(source)
    except InputError:  # One of the channels is no longer in the scene.
        return ""
    if len(channels) < 2:
        return ""
    first, *others = channels
    text = _(
        "The task has one channel: “{first}” is used, but not {others}. To use all channels, press Suggest from cases."
    )
    return str(text.format(first=first.GetName(), others=", ".join(f"“{node.GetName()}”" for node in others)))


def _is_drawn(segmentation: SegmentationNode, identifier: str) -> bool:
    """Return whether a segment exists and is not empty."""
    segment = segmentation.GetSegmentation().GetSegment(identifier)
    if segment is None:
        return False
    image = segment.GetRepresentation(labelmap_name())
    if image is None:
        bounds = [0.0] * 6
        segment.GetBounds(bounds)
        return bounds[0] <= bounds[1]
    scalars = image.GetPointData().GetScalars()
    # Several segments may share one image, in which each has its own value.
    return scalars is not None and bool((vtk_to_numpy(scalars) == segment.GetLabelValue()).any())


def _file_of(volume: VolumeNode) -> str:
    """Return the resolved path of the file that a volume node was loaded from; empty if there is none."""
    storage = volume.GetStorageNode()
    loaded = storage.GetFullNameFromFileName() if storage and storage.GetFileName() else volume.GetAttribute(SCAN_FILE)
    return str(Path(loaded).resolve()) if loaded else ""
