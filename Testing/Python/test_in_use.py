"""Test that files are written and removed on Windows although another program keeps them open for a moment."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dcamt.errors import OutputError
from dcamt.io import file_names, in_use
from dcamt.io.atomic import FileAppeared, atomic_path, write_text
from dcamt.models.package import ModelPackage, write_package
from dcamt.models.store import import_model, remove_model
from dcamt.runs.events import CasesLoading, EventLog
from dcamt.runs.failure_note import FailureNote, read_note, remove_blank_note, reserve_note, write_note
from dcamt.runs.folder import RunFolder
from dcamt.runs.preview import choose_preview, chosen_preview
from dcamt.runs.requests import PAUSE, read_request, remove_request, write_request

USED = "The process cannot access the file because it is being used by another process"


_OPERATIONS = ((os, "replace"), (Path, "unlink"), (Path, "rename"), (builtins, "open"), (io, "open"))


class Windows:
    """Simulates Windows: the first `refusals` calls of each operation on each file raise PermissionError.

    Attributes:
        refused: the names of the refused operations, in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
        self.refused: list[str] = []
        self._refusals = refusals
        self._counts: dict[tuple[str, str], int] = {}
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(file_names, "_allows_long_paths", lambda: True)
        for owner, name in _OPERATIONS:
            monkeypatch.setattr(owner, name, self._refusing(name, getattr(owner, name)))

    def _refusing(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            file, is_change = str(args[0]), name != "open" or "+" in str(args[1:2])
            count = self._counts.get((name, file), 0)
            if is_change and os.path.lexists(file) and count < self._refusals:
                self._counts[name, file] = count + 1
                self.refused.append(name)
                raise PermissionError(errno.EACCES, USED, file)
            return action(*args, **kwargs)

        return call


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    return run


def test_file_in_use_for_a_moment_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old", encoding="utf-8")
    windows = Windows(monkeypatch, refusals=3)
    write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert windows.refused == ["open"] * 3 + ["replace"] * 3
    with pytest.raises(FileAppeared), atomic_path(path, replace=False) as temporary:
        temporary.write_text("newer", encoding="utf-8")
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("has_links", [True, False])
def test_new_file_is_made_although_its_temporary_file_is_in_use_for_a_moment(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Incorrect function")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    windows = Windows(monkeypatch, refusals=1)
    with atomic_path(tmp_path / "x.txt", replace=False) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert windows.refused == ["open", "unlink" if has_links else "replace"]
    assert os.listdir(tmp_path) == ["x.txt"]


def test_file_that_stays_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old", encoding="utf-8")
    monkeypatch.setattr(in_use, "PATIENCE_S", 0.1)
    Windows(monkeypatch, refusals=10**9)
    with pytest.raises(OutputError, match=r"x\.txt: cannot be written \(no permission\)\. Close programs"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"


def test_missing_permission_is_reported_at_once_on_other_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.txt"
    windows = Windows(monkeypatch, refusals=1)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(OutputError, match="no permission"):
        write_text(path, "new")
    assert windows.refused[:1] == ["open"]


def test_run_files_in_use_for_a_moment_are_written_renamed_and_removed(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = Windows(monkeypatch, refusals=1)
    write_request(run, PAUSE)
    remove_request(run)
    choose_preview(run, "P1")
    choose_preview(run, None)
    reserve_note(run.failure)
    remove_blank_note(run.failure)
    reserve_note(run.failure)
    write_note(run.failure, FailureNote("the disk is full"))
    log = EventLog(run.events)
    log(CasesLoading(1, 2))
    log(CasesLoading(2, 2))
    run.report.write_text("earlier", encoding="utf-8")
    run.keep_scores(1)
    assert (read_request(run), chosen_preview(run)) == (None, None)
    assert read_note(run.failure) == FailureNote("the disk is full")
    assert [event.loaded for event in run.read_events() if isinstance(event, CasesLoading)] == [1, 2]
    assert (run.path / "report-earlier.html").exists()
    assert set(windows.refused) == {"open", "replace", "unlink", "rename"}


def test_model_in_use_for_a_moment_is_removed(
    tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    write_package(tmp_path / "tiny.dcamt", tiny_package)
    stored = import_model(tmp_path / "tiny.dcamt")
    windows = Windows(monkeypatch, refusals=1)
    remove_model(stored.name)
    assert not stored.path.exists()
    assert windows.refused == ["unlink"]
