"""Start, resume, stop and discard runs; their processes continue after the module, scene or application is closed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import slicer
from dcamt.cases.case_list import LEFT_OUT, Case
from dcamt.errors import DCAMTError, InputError, OutputError, write_error
from dcamt.io.in_use import remove_file, wait_while_in_use
from dcamt.machine import AUTO
from dcamt.recipe import Recipe
from dcamt.runs.efforts import effort_settings
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import is_held
from dcamt.runs.state import DISCARDED_PREFIX, last_line
from DCAMTSlicerLib.engine_process import ENGINE_FOLDER, ENGINE_VARIABLES, python_program
from slicer.i18n import tr as _

from ..cases.lists import write_list
from ..cases.rows import CaseRow, SceneScan
from ..cases.scene_export import export_case
from ..cases.voxel_check import check_voxels
from ..task import with_chosen_spacing

Result = TypeVar("Result")


@dataclass
class StartedProcess:
    """A process started by this application.

    Attributes:
        log_bytes: the size of the run's log before the process started.
        events_bytes: the size of the run's file of events at that time.
        locked: whether `is_starting` found the run's lock held at least once.
    """

    run: RunFolder
    process: subprocess.Popen[bytes]
    log_bytes: int = 0
    events_bytes: int = 0
    locked: bool = False


started: list[StartedProcess] = []
"""A run's ended processes are removed from this list when the run is started again."""


@dataclass(frozen=True)
class RunPlan:
    """A run to start in the folder `run`, on the cases of `rows`.

    Attributes:
        recipe: the recipe to which the run applies first `effort` and then `settings`.
        settings: `key=value` as for `dcamt train --set`.
        start_from: a model's name or file, empty for random weights.
    """

    run: RunFolder
    recipe: Recipe
    rows: Sequence[CaseRow]
    effort: str
    settings: tuple[str, ...] = ()
    start_from: str = ""
    device: str = AUTO


def prepare_and_start(plan: RunPlan) -> Generator[tuple[int, int], None, None]:
    """Write the scene's cases, then start training; yield (cases done, cases in all) between short steps.

    If writing or starting fails, or the generator is closed early, the run's folder is removed.

    Raises:
        InputError: the folder exists, or a case is not usable.
        OutputError: a file cannot be written, or no process can be started.
    """
    run = plan.run
    refuse_if_existing(run)
    used = [row for row in plan.rows if row.role != LEFT_OUT]
    nodes = [_nodes_of(row) for row in used]
    recipe = with_chosen_spacing(plan.recipe, plan.settings)
    for row in used:
        yield from _with_progress(_refuse_unusable_voxels(row, recipe), (0, len(used)))
    one_channel = plan.recipe.input_channels == 1
    try:
        _make_folder(run.scans)
        cases: list[Case] = []
        for number, row in enumerate(used, start=1):
            # For a scan in a file, nothing is written, so a yield every 500 cases is enough.
            if isinstance(row.source, SceneScan) or number % 500 == 0:
                yield len(cases), len(used)
            writing = export_case(row, run.scans, number, one_channel)
            cases.append((yield from _with_progress(writing, (len(cases), len(used)))))
            if _nodes_of(row) != nodes[number - 1]:  # A new node may have got the ID of a removed node.
                what = _("the volume or segmentation was removed from the scene while the cases were written")
                raise InputError(what, path=row.name, remedy=_("Check the cases, and press Start again."))
        write_list(cases, run.scans / "cases.csv")
        (run.scans / "recipe.json").write_text(plan.recipe.to_json(), encoding="utf-8")
        yield len(used), len(used)
        start_process(run, train_arguments(plan))
    except BaseException as error:
        with suppress(DCAMTError):  # The first error is the one that explains the failure.
            discard(run)
        if isinstance(error, OSError):
            raise write_error(error, run.path) from error
        raise


def _nodes_of(row: CaseRow) -> list[Any]:
    source = row.source
    identifiers = (source.volume, source.segmentation) if isinstance(source, SceneScan) else ()
    return [slicer.mrmlScene.GetNodeByID(identifier) for identifier in identifiers]


def _refuse_unusable_voxels(row: CaseRow, recipe: Recipe) -> Generator[None, None, None]:
    # The voxels may have changed since the case was checked.
    if isinstance(row.source, SceneScan):
        facts = yield from check_voxels(row.source, row.role, recipe)
        if facts.problems:
            raise InputError(" ".join(facts.problems), path=row.name)


def _with_progress(
    steps: Generator[None, None, Result], progress: tuple[int, int]
) -> Generator[tuple[int, int], None, Result]:
    # `closing` closes open files before their folder is removed, as Windows requires.
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield progress


def refuse_if_existing(run: RunFolder) -> None:
    """Raise InputError if the run's folder exists."""
    if os.path.lexists(run.path):
        raise InputError(_("exists already"), path=run.path, remedy=_("Choose another name for the run."))


def train_arguments(plan: RunPlan) -> list[str]:
    """Return the arguments of `dcamt` for a plan."""
    arguments = ["train", str(plan.run.scans / "cases.csv"), "--run", str(plan.run.path), "--device", plan.device]
    arguments += ["--start-from", plan.start_from] if plan.start_from else []
    # Not `--effort`, which would scale the iterations that the user typed.
    changes = [*effort_settings(plan.recipe, plan.effort), *plan.settings]
    return [*arguments, "--recipe", str(plan.run.scans / "recipe.json"), "--set", *changes]


def resume(run: RunFolder, device: str = AUTO) -> None:
    """Resume a run; raise InputError if a process already trains the run, OutputError if no process can be started."""
    _refuse_if_trained(run, _("Select the run to watch it."))
    start_process(run, ["train", "--run", str(run.path), "--resume", "--device", device])


def start_writing_models(run: RunFolder, device: str = AUTO) -> None:
    """Start a process that writes the models of a paused or failed run from its last checkpoint.

    Raises the errors of `resume`.
    """
    _refuse_if_trained(run, _("Press Stop again to stop that process."))
    start_process(run, ["train", "--run", str(run.path), "--stop", "--device", device])


def start_process(run: RunFolder, arguments: Sequence[str]) -> None:
    """Start `dcamt` detached from the application's pipes, terminal and process group, so that the run outlives Slicer.

    Raises:
        OutputError: the process cannot be started, or its log file cannot be written.
    """
    for entry in started:
        entry.process.poll()  # Without this call, an ended process would remain a zombie.
    started[:] = [entry for entry in started if entry.process.returncode is None or entry.run.path != run.path]
    flags = 0
    if os.name == "nt":
        # Without these flags, closing the process's console window, or pressing Ctrl+C in it, would end the run.
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined]
    command = [python_program(), "-m", "dcamt", *arguments]
    try:
        file = run.log.open("ab")
    except OSError as error:
        raise write_error(error, run.log) from error
    events_bytes = _size(run.events)
    try:
        with file as log:
            log_bytes = log.tell()
            process = subprocess.Popen(
                command,
                cwd=ENGINE_FOLDER,
                env=os.environ | ENGINE_VARIABLES,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=os.name != "nt",
                creationflags=flags,
                close_fds=True,
            )
    except OSError as error:
        text = _("the training process could not be started ({reason}). Free some memory and disk, and try again.")
        raise OutputError(f"{run.path}: {text.format(reason=error.strerror)}") from error
    started.append(StartedProcess(run, process, log_bytes, events_bytes))


def is_starting(run: RunFolder) -> bool:
    """Return whether a process for the run, started by this application, is alive and has not locked the run yet."""
    held = is_held(run.lock)
    entries = [entry for entry in started if entry.run.path == run.path]
    for entry in entries:
        entry.locked = entry.locked or held
    return any(not entry.locked and entry.process.poll() is None for entry in entries)


def start_failure(run: RunFolder) -> str:
    """Return the error of the last process for the run, started by this application: the last line of its output.

    The text is empty if there is no such error, or if `RunState.reason` explains the error.
    """
    entry = next((entry for entry in reversed(started) if entry.run.path == run.path), None)
    if entry is None or entry.process.poll() in (None, 0):
        return ""
    has_new_events = _size(run.events) != entry.events_bytes
    return "" if entry.locked or has_new_events else last_line(run.log, entry.log_bytes)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def discard(run: RunFolder) -> None:
    """Delete a run's folder if it exists; if the folder is a link, delete the link and its target.

    Raises:
        InputError: a process trains the run.
        OutputError: the folder cannot be removed.
    """
    _refuse_if_trained(run, _("Pause or stop the run first."))
    folder = run.path.resolve()
    removed = folder.with_name(f"{DISCARDED_PREFIX}{secrets.token_hex(4)}")
    try:
        # Rename the folder before deleting its files: while one of the files is open, Windows refuses to rename the
        # folder, and then no file is deleted.
        with suppress(FileNotFoundError):
            wait_while_in_use(folder.rename, removed)
        try:
            remove_file(run.path)  # After the renaming, only a link or a Windows junction is left.
        except OSError:
            with suppress(FileNotFoundError):
                wait_while_in_use(removed.rename, folder)
            raise
    except OSError as error:
        what = _(
            "could not be removed ({reason}). Close programs that use it, or change its permissions. Then discard the"
            " run again."
        )
        path = _find_open_file(folder) or run.path
        raise OutputError(f"{path}: {what.format(reason=error.strerror or error)}") from error
    try:
        with suppress(FileNotFoundError):
            wait_while_in_use(shutil.rmtree, removed)
    except OSError as error:
        what = _("could not be removed ({reason}). Change its permissions, and delete this folder.")
        raise OutputError(f"{removed}: {what.format(reason=error.strerror or error)}") from error


def _find_open_file(folder: Path) -> Path | None:
    """Return a file that a program has opened.

    Windows refuses to rename an open file, even to its own name.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            file.rename(file)
        except OSError:
            return file
    return None


def _refuse_if_trained(run: RunFolder, remedy: str) -> None:
    if is_held(run.lock):
        raise InputError(_("is being trained by another process"), path=run.path, remedy=remedy)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        what = _("cannot be created ({reason}). Choose another folder of runs.").format(reason=error.strerror)
        raise OutputError(f"{folder.parent}: {what}") from error
