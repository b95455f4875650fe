"""Test the locking of tables."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from dcamt.commands.console import Console
from dcamt.commands.measurement_table import write_measurement_table
from dcamt.errors import OutputError
from dcamt.io import locks
from dcamt.io.locks import table_lock
from dcamt.metrics.measurements import Measurements
from dcamt.runs.lock import is_held
from dcamt.volume import Labelmap, Volume
from dcamt.wall.files import write_wall_csv
from dcamt_testing.synthetic import read_table
from dcamt_testing.wall_cases import add_case, measure_folder
from dcamt_testing.warm_python import interpreter
from filelock import FileLock, Timeout

WRITES = 10
WRITER = """
import sys
from pathlib import Path
from dcamt.commands.console import Console
from dcamt.commands.measurement_table import write_measurement_table
from dcamt.metrics.measurements import Measurements
for number in range(int(sys.argv[3])):
    row = Measurements(f"{sys.argv[2]}{number}", "Left atrium", *[1.0] * 6)
    assert write_measurement_table(Path(sys.argv[1]), [row], [], None, Console(False))
"""


WRITER_BESIDE = """
import sys
from pathlib import Path
from dcamt.commands.result_files import write_beside
from dcamt.errors import OutputError
from dcamt.io.tables import write_table
for number in range(int(sys.argv[3])):
    row = [f"{sys.argv[2]}{number}"]
    write_beside(Path(sys.argv[1]), OutputError("The disk is full."), lambda path: write_table(path, ["scan"], [row]))
"""


def lock_of(table: Path) -> Path:
    return table.with_name(f".{table.name}.lock")


@pytest.mark.parametrize(("code", "file_count"), [(WRITER, 1), (WRITER_BESIDE, 4 * WRITES)], ids=["in", "beside"])
def test_processes_that_write_one_table_keep_all_rows(code: str, file_count: int, tmp_path: Path) -> None:
    table = tmp_path / "new" / "table.csv"
    commands = [[interpreter(), "-c", code, str(table), name, str(WRITES)] for name in "abcd"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    writers = [subprocess.Popen(command, **pipes) for command in commands]  # type: ignore[call-overload]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 4
    files = list(table.parent.glob("table*.csv"))
    scans = sorted(row["scan"] for file in files for row in read_table(file))
    assert scans == sorted(f"{name}{number}" for name in "abcd" for number in range(WRITES))
    assert len(files) == file_count
    assert sorted(table.parent.iterdir()) == sorted(files)  # no lock file is left


def test_wall_table_of_all_scans_is_locked_while_it_is_written(
    wall_phantom: tuple[Volume, Labelmap], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_case(tmp_path, wall_phantom, "a")
    locked_tables: list[Path] = []

    def write(results: object, path: Path, *rows: Sequence[Sequence[str]]) -> None:
        if is_held(lock_of(path)):
            locked_tables.append(path)
        write_wall_csv(results, path, *rows)  # type: ignore[arg-type]

    monkeypatch.setattr("dcamt.commands.wall.write_wall_csv", write)
    assert measure_folder(tmp_path) == 0
    table = tmp_path / "out" / "wall.csv"
    assert locked_tables == [table]
    assert not lock_of(table).exists()


def test_rows_are_written_beside_a_table_that_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.0)
    table = tmp_path / "table.csv"
    row = Measurements("a", "Left atrium", *[1.0] * 6)
    with table_lock(table):
        assert not write_measurement_table(table, [row], [], None, Console(False))
    assert f"{table}: is kept locked by another process, so no rows were added." in capsys.readouterr().err
    (beside,) = tmp_path.iterdir()
    assert beside.name == "table-new.csv"
    assert [row["scan"] for row in read_table(beside)] == ["a"]


def test_locking_a_link_to_a_table_locks_the_table(tmp_path: Path) -> None:
    table, link = tmp_path / "data" / "table.csv", tmp_path / "link.csv"
    link.symlink_to(table)
    with table_lock(link):
        assert is_held(lock_of(table))
    assert list(tmp_path.iterdir()) == [link]


def test_table_is_written_without_a_lock_on_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(lock: FileLock, **_: object) -> None:
        Path(lock.lock_file).touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", fail)
    table = tmp_path / "table.csv"
    assert write_measurement_table(table, [Measurements("a", "Left atrium", *[1.0] * 6)], [], None, Console(False))
    assert list(tmp_path.iterdir()) == [table]


def test_process_without_permission_to_lock_does_not_remove_the_lock_file_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(lock: FileLock, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(lock.lock_file))

    table = tmp_path / "table.csv"
    with table_lock(table):
        monkeypatch.setattr(FileLock, "acquire", deny)
        with table_lock(table):
            assert is_held(lock_of(table))
    assert list(tmp_path.iterdir()) == []


def test_folder_removed_before_locking_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, failures = FileLock.acquire, [FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))]

    def fail_once(lock: FileLock, **options: float) -> None:
        if failures:
            Path(lock.lock_file).parent.rmdir()
            raise failures.pop()
        acquire(lock, **options)

    monkeypatch.setattr(FileLock, "acquire", fail_once)
    table = tmp_path / "new" / "table.csv"
    with table_lock(table):
        assert is_held(lock_of(table))
    assert list(tmp_path.iterdir()) == []


def test_timeout_without_a_lock_file_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(lock: FileLock, **_: object) -> None:
        raise Timeout(str(lock.lock_file))

    monkeypatch.setattr(FileLock, "acquire", time_out)
    with table_lock(tmp_path / "table.csv"):
        assert list(tmp_path.iterdir()) == []


def test_table_with_a_long_name_can_be_locked(tmp_path: Path) -> None:
    with table_lock(tmp_path / f"{'ä' * 125}.csv"):
        (lock,) = tmp_path.iterdir()
        assert is_held(lock)


def test_lock_that_cannot_be_created_does_not_hide_the_error_of_writing_the_table(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table = tmp_path / "file" / "table.csv"
    with pytest.raises(OutputError, match="a part of its path is not a folder"), table_lock(table):
        write_wall_csv([], table)
