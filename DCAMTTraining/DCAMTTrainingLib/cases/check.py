"""Check the cases in the background: files in a child process, scene nodes in this process."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from dcamt.cases.case_list import LEFT_OUT, ROLES_WITH_LABEL, Case, check_encoding
from dcamt.cases.case_scans import mixed_orders
from dcamt.cases.checks import CaseFacts, conflicting_scans, repeated_scans, shared_labels
from dcamt.errors import InputError, without_path
from dcamt.io.channels import names_of_channels
from dcamt.io.readers import read_header
from dcamt.recipe import Recipe
from dcamt.volume import channel_note, check_scan_grid, same_grid
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.segment_voxels import labelmap_name
from DCAMTSlicerLib.stepped_task import SteppedTask
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from ..engine_command import EngineCommand
from ..temporary_folder import TemporaryFolder
from .derived_nodes import (
    SCAN_FILE,
    channel_names_of,
    channels_of,
    file_of_all_channels,
    file_state,
    has_file_changed,
    size_and_spacing,
)
from .lists import write_lines
from .rows import CaseTable, FileScan, SceneScan
from .scene_source import choice_note, competing_segments, is_models_own, place_problem
from .voxel_check import check_voxels

PATHS_PER_STEP = 200
"""At most this many paths are resolved between two turns of the event loop, to keep Slicer responsive."""


class CaseCheck:
    """Checks all rows of a table and sets their remarks, notes, sizes and spacings.

    Args:
        on_end: called as on_end(message) once, unless the check is cancelled. The message states why the check itself
            failed; empty if all cases were checked.

    Attributes:
        label_values: row index -> the values in the row's label; empty or missing if the label was not read.
    """

    def __init__(self, table: CaseTable, recipe: Recipe, on_end: Callable[[str], None]) -> None:
        self.recipe = recipe
        self._table, self._on_end = table, on_end
        self.label_values: dict[int, tuple[int, ...]] = {}
        self.running = False
        self._folder = TemporaryFolder("dcamt-cases-")
        self._command: EngineCommand | None = None
        self._index: list[int] = []
        self._checksums: dict[int, str] = {}  # row index -> the scan's checksum
        self._channel_names: dict[int, tuple[str, ...]] = {}
        """Row index -> the names of the scan's channels; () if they are unknown."""
        self._same_files: list[tuple[str, list[int]]] = []
        """Items ("file", row indices): first a case of the scene, then the cases that use the same file."""
        self._is_complete = False
        self._beginning = SteppedTask(self._begin(), self._on_begun)

    def start(self) -> CaseCheck:
        """Start the check; return self."""
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
            recipe.write_text(self.recipe.to_json(), encoding="utf-8")
            yield
            arguments = ["cases", "check", str(cases), "--recipe", str(recipe)]
            if any(isinstance(row.source, SceneScan) for row in self._table.rows):
                arguments.append("--checksums")
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
            if event.get("checksum"):
                self._checksums[index] = event["checksum"]
        elif event["event"] == "checked":
            self._is_complete = True

    def _on_command_end(self, message: str) -> None:
        # If a case has a problem, the command fails, but the row's remark already states the problem.
        self._end("" if self._is_complete else message)

    def _end(self, message: str) -> None:
        self._folder.remove()
        if self.running:
            self._compare_scene_with_other_cases()
            self.running = False
            self._on_end(message)

    def _check_scene(self) -> Generator[None, None, None]:
        if not any(isinstance(row.source, SceneScan) for row in self._table.rows):
            return
        channels = self.recipe.input_channels
        rows_of_file: defaultdict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(self._table.rows):
            if isinstance(row.source, FileScan) and row.role != LEFT_OUT:
                file = Path(row.source.image)
                rows_of_file[str(file.resolve())].append(index)
                knows_channel_order_in_files = any(self._channel_names.values())
                if channels > 1 and not knows_channel_order_in_files:
                    self._channel_names[index] = names_of_channels(file, channels)
            if index % PATHS_PER_STEP == 0:
                yield
        for index, row in enumerate(self._table.rows):
            if not isinstance(row.source, SceneScan):
                continue
            yield
            self._channel_names[index] = channel_names_of(row.source, channels)
            facts = yield from scene_facts(row.source, row.role, self.recipe)
            if facts.checksum is not None:
                self._checksums[index] = facts.checksum
            volume = slicer.mrmlScene.GetNodeByID(row.source.volume)
            same_file = [other for path in _paths_of(volume) for other in rows_of_file.get(path, [])]
            if same_file and row.role != LEFT_OUT:
                self._same_files.append(("file", [index, *same_file]))
            if facts.labels is not None:
                self.label_values[index] = facts.labels
            remark = _remark_of(facts)
            notes = (_label_note(row.source, self.recipe), *map(translated, facts.warnings))
            note = "" if remark else " ".join(filter(None, notes))
            has_image = volume is not None and volume.GetImageData() is not None
            size, spacing = size_and_spacing(volume) if has_image else (row.size, row.spacing)
            old_note_explains_missing_label = not row.has_label and not note
            self._table.set_facts(index, size, spacing, remark, None if old_note_explains_missing_label else note)

    def _compare_scene_with_other_cases(self) -> None:
        """Add remarks and notes on shared scans and labels, and on orders of channels.

        This function does not compare cases in files with each other, since the command in the child process does so.
        """
        rows = self._table.rows
        equal_scans = [*self._same_files, *self._equal_voxels()]
        for index, other, what in conflicting_scans(rows, equal_scans):
            text = _(
                "The scan is used for training and for validation: “{name}” has the same voxels. Remove one of the two"
                " cases."
            )
            if what == "file":
                text = _(
                    "The scan is used for training and for validation: “{name}” has the same file. Remove one of the"
                    " two cases."
                )
            self._add_remark(index, text.format(name=rows[other].name))
        cases = [Case(row.name, Path(row.scan), None, row.role) for row in rows]
        names = [self._channel_names.get(index, ()) for index in range(len(rows))]
        for index, error in mixed_orders(cases, self.recipe, names):
            what = without_path(error, cases[index].image)
            self._add_remark(index, translated(f"The scan {what}"))
        sources = {index: row.source for index, row in enumerate(rows) if row.role in ROLES_WITH_LABEL}
        scene = {index: source for index, source in sources.items() if isinstance(source, SceneScan)}
        labels = {index: (source.segmentation, source.segments) for index, source in scene.items()}
        scans = {index: source.volume for index, source in scene.items()}
        for index, warning in (*repeated_scans(rows, equal_scans), *shared_labels(rows, labels, scans)):
            row = rows[index]
            if not row.remark:
                note = " ".join(filter(None, (row.note, translated(warning))))
                self._table.set_facts(index, row.size, row.spacing, "", note)

    def _add_remark(self, index: int, text: str) -> None:
        row = self._table.rows[index]
        self._table.set_facts(index, row.size, row.spacing, " ".join(filter(None, (row.remark, text))))

    def _equal_voxels(self) -> Iterator[tuple[str, list[int]]]:
        members_by_checksum: defaultdict[str, list[int]] = defaultdict(list)
        for index, checksum in sorted(self._checksums.items()):
            members_by_checksum[checksum].append(index)
        for members in members_by_checksum.values():
            if len(members) > 1 and any(isinstance(self._table.rows[index].source, SceneScan) for index in members):
                yield "voxels", members


def scene_remark(source: SceneScan, role: str, recipe: Recipe) -> tuple[str, tuple[int, ...]]:
    """Return the problems of a case of the scene (empty if there are none) and its label values (see `scene_facts`)."""
    steps = scene_facts(source, role, recipe)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            facts: CaseFacts = end.value
            return _remark_of(facts), facts.labels or ()


def scene_facts(source: SceneScan, role: str, recipe: Recipe) -> Generator[None, None, CaseFacts]:
    """Check the nodes of a case, then its voxels, and return the facts.

    The facts have no size, spacing or channels. `labels` contains the values that training would read. If the label's
    nodes have a problem, `labels` contains the values of the drawn segments. `labels` is None if the case needs no
    label, if the scan has a problem, or if the label lies outside the scan, entirely or in part.
    """
    needs_label = role in ROLES_WITH_LABEL
    remark = _scan_remark(source, recipe)
    values: tuple[int, ...] | None = None
    if not remark and needs_label:
        remark, values = _label_remark(source, recipe)
    if remark or role == LEFT_OUT:
        return CaseFacts(0, "", labels=values, problems=(remark,) if remark else ())
    facts = yield from check_voxels(source, role, recipe)
    if needs_label and not facts.labels and not facts.problems:
        return replace(facts, problems=(_empty_label_text(),))
    return facts


def _remark_of(facts: CaseFacts) -> str:
    return " ".join(map(translated, facts.problems))


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
        return _("The segmentation is no longer in the scene. Outline the structure, or set the role “unlabelled”."), ()
    segments = segmentation.GetSegmentation()
    removed = [label for identifier, label in source.segments if segments.GetSegment(identifier) is None]
    values = tuple(label for identifier, label in source.segments if _is_drawn(segmentation, identifier))
    if not values and not removed:
        return _empty_label_text(), ()
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
    return _choice_remark(source, recipe) or place_problem(source), values


def _choice_remark(source: SceneScan, recipe: Recipe) -> str:
    names = {info.label: info.name for info in recipe.classes}
    text = _("It is not clear which segment is “{name}”: {segments}. Choose one of them with Segments….")
    return " ".join(
        text.format(name=names[label], segments=", ".join(f"“{segment}”" for segment in segments))
        for label, segments in competing_segments(source, recipe).items()
    )


def _empty_label_text() -> str:
    return str(_("The label is empty. Outline the structure, choose its segments, or set the role “unlabelled”."))


def _label_note(source: SceneScan, recipe: Recipe) -> str:
    return " ".join(filter(None, (channels_note(source, recipe), choice_note(source, recipe))))


def channels_note(source: SceneScan, recipe: Recipe) -> str:
    """Return the scan's `channel_note` or, for a recipe of one channel, a note that names the unused channels.

    The text is empty if there is no such note.
    """
    if recipe.input_channels > 1:
        note = channel_note(channel_names_of(source, recipe.input_channels), recipe.channel_names)
        return "" if note is None else translated(note)
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


def _paths_of(volume: VolumeNode | None) -> list[str]:
    """Return the resolved path of the file that a volume node was loaded from, as a list; empty if there is none.

    If the volume was loaded from several files, such as the slices of a DICOM series, the list contains the path of the
    first file and all folders above this file. A case may name the series by one of these folders.
    """
    if volume is None:
        return []
    storage = volume.GetStorageNode()
    if storage is None or not storage.GetFileName():
        file = volume.GetAttribute(SCAN_FILE)
        return [str(Path(file).resolve())] if file else []
    path = Path(storage.GetFullNameFromFileName()).resolve()
    return [str(path), *(map(str, path.parents) if storage.GetNumberOfFileNames() > 1 else ())]
