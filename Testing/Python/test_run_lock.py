"""Only one process at a time holds the lock of a run folder; the end of the process frees the lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dcamt.errors import InputError, OutputError
from dcamt.runs import lock
from dcamt.runs.lock import is_held, run_lock
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import new_trainer, write_cases_folder
from dcamt_testing.warm_python import interpreter
from filelock import FileLock

HOLDER = """
import sys, time
from pathlib import Path
from dcamt.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

CONTENDER = """
import os, sys
from pathlib import Path
from dcamt.errors import InputError
from dcamt.runs.lock import run_lock
path, alone = Path(sys.argv[1]), Path(sys.argv[2])
held = 0
while held < 40:
    try:
        with run_lock(path):
            os.close(os.open(alone, os.O_CREAT | os.O_EXCL))  # fails if another process holds the lock
            alone.unlink()
            held += 1
    except InputError:
        pass
"""


def all_paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_released_lock_removes_its_file_and_the_empty_folders_that_it_made(tmp_path: Path) -> None:
    with run_lock(tmp_path / "runs" / "a" / "train.lock"):
        assert all_paths(tmp_path) == ["runs", "runs/a", "runs/a/train.lock"]
    assert all_paths(tmp_path) == []
    with run_lock(tmp_path / "runs" / "a" / "train.lock"):
        (tmp_path / "runs" / "a" / "recipe.json").touch()
    assert all_paths(tmp_path) == ["runs", "runs/a", "runs/a/recipe.json"]
    (tmp_path / "empty").mkdir()
    with run_lock(tmp_path / "empty" / "train.lock"):
        pass
    assert (tmp_path / "empty").is_dir()  # the folder existed before the lock


def test_second_holder_is_refused_and_the_first_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.lock"
    with run_lock(path):
        for _ in range(2):
            with pytest.raises(InputError) as caught, run_lock(path):
                pass
            message = f"{path.parent}: is being trained by another process. Stop that process first, or wait."
            assert str(caught.value) == message
            assert path.exists()
    with run_lock(path):
        pass


def test_exception_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.lock"
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), run_lock(path):
            raise error
        assert all_paths(tmp_path) == []


def test_lock_is_held_until_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.lock"
    assert not is_held(path)
    assert not path.exists()
    holder = subprocess.Popen(
        [interpreter(), "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_held(path)
    assert is_held(path)
    with pytest.raises(InputError, match="is being trained by another process"), run_lock(path):
        pass
    holder.kill()
    holder.communicate()
    assert path.exists()
    assert not is_held(path)
    with run_lock(path):
        pass
    assert all_paths(tmp_path) == ["run"]


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_lock_of_an_earlier_version_is_respected(tmp_path: Path) -> None:
    """Earlier versions locked the same file with `flock` instead of the package `filelock`."""
    import fcntl

    path = tmp_path / "train.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert is_held(path)
        with pytest.raises(InputError, match="is being trained by another process"), run_lock(path):
            pass
    assert not is_held(path)


def test_competing_processes_do_not_hold_the_lock_together(tmp_path: Path) -> None:
    """Releasing removes the lock file. A process must not lock the removed file while another locks a new file."""
    arguments = [interpreter(), "-c", CONTENDER, str(tmp_path / "run" / "train.lock"), str(tmp_path / "alone")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    contenders = [subprocess.Popen(arguments, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    results = [(process.communicate()[1], process.returncode) for process in contenders]
    assert results == [("", 0)] * 4


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_run_lock_waits_while_another_process_tests_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`is_held` takes a shared lock for an instant, or longer if a busy machine suspends the process."""
    import fcntl

    path = tmp_path / "train.lock"
    answers: list[bool] = []
    path.touch()
    monkeypatch.setattr(lock, "ACQUIRE_TIMEOUT_S", 0)
    with path.open("rb") as tested_by_other:
        fcntl.flock(tested_by_other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert not is_held(path)

        def ask(path: Path) -> bool:
            answers.append(is_held(path))
            if len(answers) == 3:
                fcntl.flock(tested_by_other, fcntl.LOCK_UN)
            return answers[-1]

        monkeypatch.setattr(lock, "is_held", ask)
        with run_lock(path):
            assert answers == [False] * 3
            assert is_held(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_lock_is_refused_while_another_program_keeps_its_file_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(lock, "PATIENCE_S", 0.0)
    path = tmp_path / "lock"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(InputError, match="is kept locked by another program"), run_lock(path):
            pass
    with run_lock(path):
        pass


def test_lock_is_granted_to_all_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", fail)
    (tmp_path / "train.lock").touch()
    assert not is_held(tmp_path / "train.lock")
    with run_lock(tmp_path / "train.lock"), run_lock(tmp_path / "train.lock"):
        pass
    assert all_paths(tmp_path) == []


def test_lock_in_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run" / "train.lock").mkdir(parents=True)
    for path in (tmp_path / "file" / "run" / "train.lock", tmp_path / "run" / "train.lock"):
        with pytest.raises(OutputError) as caught, run_lock(path):
            pass
        assert str(caught.value).startswith(f"{path}: could not be written (")
        assert "\n" not in str(caught.value)
    assert all_paths(tmp_path) == ["file", "run", "run/train.lock"]


def test_resumed_run_on_a_read_only_disk_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    table = write_cases_folder(tmp_path / "cases", labelled=1)
    new_trainer(tmp_path / "run", table).save()
    monkeypatch.setattr(FileLock, "acquire", fail)
    train = ["train", "--device", "cpu", "--run"]
    copy = "Copy the run's folder to a disk where you may write, and resume it there."
    for further, run, remedy in (
        (["--resume"], "run", copy),
        (["--stop"], "run", copy),
        ([str(table)], "new", "Choose another folder."),
    ):
        capsys.readouterr()
        assert call_dcamt([*train, tmp_path / run, *further]) == 1
        message = f"{tmp_path / run / 'train.lock'}: could not be written ({os.strerror(errno.EROFS)}). {remedy}"
        assert message in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="needs the permissions of POSIX")
def test_lock_file_is_writable_for_the_group_of_a_shared_folder(tmp_path: Path) -> None:
    path, umask = tmp_path / "train.lock", os.umask(0o002)
    try:
        with run_lock(path):
            assert path.stat().st_mode & 0o060 == 0o060
    finally:
        os.umask(umask)


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_lock_file_that_may_not_be_opened_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(lock: FileLock, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(lock.lock_file))

    path = tmp_path / "run" / "train.lock"
    with run_lock(path), monkeypatch.context() as context:
        context.setattr(FileLock, "acquire", deny)
        with pytest.raises(InputError, match="is being trained by another process"), run_lock(path):
            pass
    path.parent.mkdir()
    path.touch()
    with monkeypatch.context() as context:
        context.setattr(FileLock, "acquire", deny)
        with pytest.raises(OutputError, match="Delete this file"), run_lock(path):
            pass
    path.unlink()
    with run_lock(path):
        pass
