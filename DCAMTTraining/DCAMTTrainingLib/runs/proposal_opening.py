"""Open the scan and the proposed segmentation of a ranked case.

A child process reads the files. The nodes are built in short steps and added to the scene together.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import qt
import slicer
from dcamt.cases.case_arrays import EVENT, CaseArrays
from dcamt.errors import InputError
from dcamt.recipe import Recipe
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.engine_process import EngineProcess, ProcessEnd, wait_for_killed
from DCAMTSlicerLib.scene_changes import SceneChanges, remove_with_display
from DCAMTSlicerLib.segment_voxels import scan_of
from DCAMTSlicerLib.stepped_task import SteppedTask
from DCAMTSlicerLib.temporary_files import make_temporary_folder
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from slicer.i18n import tr as _

from ..cases.derived_nodes import SCAN_FILE, SCAN_STATE, file_state
from ..cases.rows import CaseRow
from ..engine_command import failure_text
from .array_nodes import build_segments, has_voxels_of, read_image
from .proposal import (
    add_proposal,
    add_scan,
    file_time,
    is_outdated,
    possible_scans,
    proposal_of,
    proposals_of,
    use_grid_of,
)

KILLED_MS = 2000
"""Longest time in milliseconds to wait for the end of each killed process."""
REMOVAL_INTERVAL_MS, REMOVAL_ATTEMPTS = 500, 20
"""Milliseconds between two attempts to remove a temporary folder, and the number of attempts."""
_remaining: set[str] = set()
"""Folders that could not be removed yet."""


class ProposalOpening:
    """The task that opens one ranked case; the task adds the case's scan or proposal if the scene lacks it.

    Args:
        case: an entry of a run's ranking.
        rows: the rows of the case table.
        recipe: the run's recipe.
        on_end: called as on_end(message, volume, segmentation) once, unless the opening is cancelled. After a failure
            the nodes are None; otherwise the message is empty.

    Attributes:
        notes: notes on the proposal's file, in English; empty before the file is read.
    """

    def __init__(
        self,
        case: Mapping[str, Any],
        rows: Sequence[CaseRow],
        recipe: Recipe,
        on_end: Callable[[str, Any | None, Any | None], None],
    ) -> None:
        self.running = False
        self.notes: tuple[str, ...] = ()
        self._case, self._recipe, self._on_end = case, recipe, on_end
        self._segmentation = proposal_of(case)
        self._volume = scan_of(self._segmentation) if self._segmentation is not None else None
        self._possible_scans = possible_scans(case, rows, recipe.input_channels) if self._volume is None else []
        self._proposal_time_before_reading = file_time(case)
        self._scan_state_before_reading = file_state(case["image"])
        self._earlier_proposals = proposals_of(case) if self._segmentation is None else []
        self._outdated: Any | None = None
        if self._segmentation is not None and is_outdated(self._segmentation, case):
            self._outdated, self._segmentation = self._segmentation, None
        self._folder = ""
        self._process: EngineProcess | None = None
        self._insertion: SteppedTask | None = None

    @property
    def reads_files(self) -> bool:
        """Whether a file has to be read."""
        return self._volume is None or self._segmentation is None

    def start(self) -> ProposalOpening:
        """Start; return self. Raise OutputError if no temporary folder can be created."""
        self.running = True
        if not self.reads_files:
            self._insertion = SteppedTask(self.insert(None), self._on_inserted).start()
            return self
        self._folder = make_temporary_folder("dcamt-case-")
        arguments = ["-m", "dcamt.commands.case_arrays", self._case["image"], self._case["segmentation"], self._folder]
        if self._volume is not None:
            arguments.append("--labels-only")
        self._process = EngineProcess(arguments, self._on_event, self._on_process_end).start()
        return self

    def cancel(self) -> None:
        """Stop; `on_end` is not called."""
        self.running = False
        if self._insertion is not None:
            self._insertion.cancel()
        self._remove_files()

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == EVENT:
            arrays = CaseArrays.from_event(event)
            self.notes = arrays.notes
            self._insertion = SteppedTask(self.insert(arrays), self._on_inserted).start()

    def insert(self, arrays: CaseArrays | None) -> Generator[None, None, None]:
        """Read the missing image and build the missing segments in steps; the last step adds the missing nodes.

        Raises:
            InputError: the volume or the proposal was removed from the scene meanwhile.
        """
        image, built = None, None
        if arrays is not None:
            if self._volume is None:
                self._volume = yield from self._find_scan(str(arrays.scan))
                self._use_proposal_of_found_scan()
            if self._volume is None:
                image = yield from read_image(str(arrays.scan))
            if self._segmentation is None:
                labels = np.load(arrays.labels, mmap_mode="r")
                affine = np.array(arrays.affine) if self._volume is None else ijk_to_ras(self._volume)
                built = yield from build_segments(labels, self._recipe, affine)
        yield
        self._refuse_removed_nodes()
        with SceneChanges() as changes:
            if arrays is not None and image is not None:
                self._volume = add_scan(self._case, image, arrays, self._recipe.input_channels, changes)
            if built is not None:
                self._segmentation = add_proposal(
                    self._case, built, self._volume, self._proposal_time_before_reading, changes
                )
            else:
                changes.save(self._segmentation)
                use_grid_of(self._segmentation, self._volume)
            assert self._segmentation is not None
            assert self._volume is not None
            if self._scan_state_before_reading:
                self._segmentation.SetAttribute(SCAN_STATE, self._scan_state_before_reading)
                if self._volume.GetAttribute(SCAN_FILE) == self._case["image"]:
                    self._volume.SetAttribute(SCAN_STATE, self._scan_state_before_reading)
        if self._outdated is not None and slicer.mrmlScene.IsNodePresent(self._outdated):
            remove_with_display(self._outdated)

    def _find_scan(self, file: str) -> Generator[None, None, Any | None]:
        for volume in self._possible_scans:
            has_image = slicer.mrmlScene.IsNodePresent(volume) and volume.GetImageData() is not None
            if has_image and (yield from has_voxels_of(volume, file)):
                return volume
        return None

    def _use_proposal_of_found_scan(self) -> None:
        for node in self._earlier_proposals if self._volume is not None else ():
            if slicer.mrmlScene.IsNodePresent(node) and scan_of(node) is self._volume:
                if is_outdated(node, self._case):
                    self._outdated = node
                else:
                    self._segmentation = node

    def _refuse_removed_nodes(self) -> None:
        for node in (self._volume, self._segmentation):
            if node is not None and not slicer.mrmlScene.IsNodePresent(node):
                what = _("was removed from the scene while the case was opened")
                raise InputError(what, path=node.GetName(), remedy=_("Open the case again."))

    def _on_inserted(self, error: Exception | None) -> None:
        self._remove_files()
        self._end(error_text(error))

    def _on_process_end(self, end: ProcessEnd) -> None:
        self._remove_files()
        if self._insertion is not None and self._insertion.running:
            self._insertion.cancel()
        assert self._process is not None
        self._end(failure_text(self._process, end))

    def _end(self, message: str) -> None:
        if self.running:
            self.running = False
            nodes = (None, None) if message else (self._volume, self._segmentation)
            self._on_end(message, *nodes)

    def _remove_files(self) -> None:
        if self._process is not None:
            self._process.kill()
        _remove_folder(self._folder)


def _remove_folder(folder: str, attempts: int = REMOVAL_ATTEMPTS) -> None:
    # Several attempts: on Windows, a file cannot be removed while the killed process or a memory map has it open.
    shutil.rmtree(folder, ignore_errors=True)
    _remaining.discard(folder)
    if os.path.exists(folder):
        _remaining.add(folder)
        if attempts > 1:
            qt.QTimer.singleShot(REMOVAL_INTERVAL_MS, lambda: _remove_folder(folder, attempts - 1))


def remove_remaining_folders() -> None:
    """Wait for killed processes, and try once more to remove the remaining folders."""
    if _remaining:
        wait_for_killed(KILLED_MS)
    for folder in list(_remaining):
        _remove_folder(folder, attempts=1)
