"""One process at a time trains in a folder, and no process that ended keeps another from it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dcamt.errors import InputError, OutputError
from dcamt.runs import lock as module
from dcamt.runs.lock import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from dcamt.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_file_is_there_as_long_as_the_lock_and_so_are_new_folders(tmp_path: Path) -> None:
    with run_lock(tmp_path / "runs" / "a" / "train.lock"):
        assert everything(tmp_path) == ["runs", "runs/a", "runs/a/train.lock"]
    assert everything(tmp_path) == []
    with run_lock(tmp_path / "runs" / "a" / "train.lock"):
        (tmp_path / "runs" / "a" / "recipe.json").touch()
    assert everything(tmp_path) == ["runs", "runs/a", "runs/a/recipe.json"]
    (tmp_path / "empty").mkdir()
    with run_lock(tmp_path / "empty" / "train.lock"):
        pass
    assert (tmp_path / "empty").is_dir()  # it was there before


def test_a_second_holder_is_refused_and_the_first_one_undisturbed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.lock"
    with run_lock(path):
        for _ in range(2):
            with pytest.raises(InputError) as caught, run_lock(path):
                pass
            told = f"{path.parent}: is being trained by another process. Stop that one first, or let it end."
            assert str(caught.value) == told
            assert path.exists()
    with run_lock(path):
        pass


def test_an_error_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.lock"
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), run_lock(path):
            raise error
        assert everything(tmp_path) == []


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="is being trained by another process"), run_lock(path):
        pass
    holder.kill()
    holder.communicate()
    assert path.exists()  # left behind, and no lock any more
    with run_lock(path):
        pass
    assert everything(tmp_path) == ["run"]


def test_a_file_that_its_holder_removed_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process has opened the last one's file, which is gone by the time that it locks it."""
    path, real, calls = tmp_path / "train.lock", module._lock, []

    def late(handle: int) -> None:
        calls.append(handle)
        if len(calls) < 3:
            path.unlink()
            if len(calls) == 2:
                path.touch()  # and a third process has made its own
        real(handle)

    monkeypatch.setattr(module, "_lock", late)
    with run_lock(path):
        assert len(calls) == 3
        monkeypatch.undo()
        with pytest.raises(InputError), run_lock(path):
            pass


def test_a_file_system_without_locks_is_trained_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(handle: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module, "_lock", unknown)
    with run_lock(tmp_path / "train.lock"), run_lock(tmp_path / "train.lock"):
        pass
    assert everything(tmp_path) == []


def test_a_place_where_no_file_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run" / "train.lock").mkdir(parents=True)
    for path in (tmp_path / "file" / "run" / "train.lock", tmp_path / "run" / "train.lock"):
        with pytest.raises(OutputError) as caught, run_lock(path):
            pass
        assert str(caught.value).startswith(f"{path}: could not be written (")
        assert "\n" not in str(caught.value)
    assert everything(tmp_path) == ["file", "run", "run/train.lock"]
