"""Run `dcamt` in tests: in the test's own process, in another process, or as a team of processes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dcamt_testing.warm_python import interpreter

FILE_SIZE_LIMIT = """
import resource, sys
import nibabel, nrrd, scipy.ndimage, slicerio, torch  # before the limit, since an import may write larger files
import dcamt.cli, dcamt.training.trainer
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
"""
HANGING_S = 600.0
"""A test that waits longer fails. The time is long, so that no test fails because the machine is busy."""
CALL_DCAMT = "sys.exit(dcamt.cli.main(sys.argv[1:]))"


def forget_packages(*packages: str) -> str:
    """Return Python code that removes the engine and these packages from `sys.modules`."""
    return f"""
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in {("dcamt", *packages)}]:
    del sys.modules[name]
"""


def start_dcamt(arguments: Iterable[str | Path], output: Path, script: str = "") -> subprocess.Popen[bytes]:
    """Start `dcamt` in another process; append its standard output and error to the file `output`.

    Args:
        script: code that runs in the process before `dcamt`.
    """
    program = ["-c", f"{script}\nimport sys, dcamt.cli\n{CALL_DCAMT}"] if script else ["-m", "dcamt"]
    with output.open("ab") as file:
        return subprocess.Popen([interpreter(), *program, *map(str, arguments)], stdout=file, stderr=file)


def run_dcamt(arguments: Iterable[str | Path], output: Path) -> int:
    """Run `dcamt` in another process; return the exit status."""
    return start_dcamt(arguments, output).wait(HANGING_S)


def run_with_file_size_limit(
    limit: int, arguments: Iterable[str | Path], script: str = CALL_DCAMT
) -> subprocess.CompletedProcess[str]:
    """Run `dcamt`, or a script, in a process that cannot write files of more than `limit` bytes (POSIX only).

    The operating system refuses further bytes, as it does when a disk is full.
    """
    return subprocess.run(
        [interpreter(), "-c", FILE_SIZE_LIMIT.format(limit=limit) + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        encoding="utf-8",
    )


def call_dcamt(arguments: Iterable[str | Path]) -> int:
    """Run `dcamt` in this process; return the exit status, including that of a usage error."""
    from dcamt import cli

    try:
        return cli.main([*map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


def open_dcamt(*arguments: str | Path, script: str | None = None) -> subprocess.Popen[str]:
    """Start `dcamt`, or a script that calls it, in another process; the output goes to pipes."""
    program = ["-m", "dcamt"] if script is None else ["-c", script]
    return subprocess.Popen(
        [interpreter(), *program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run_team(
    processes: int, *arguments: str | Path, script: Path | None = None, leader_interpreter: str | None = None
) -> tuple[int, str, str]:
    """Run `dcamt` as a team, with the environment variables of torchrun; terminate all processes when one fails.

    Args:
        script: a program to run instead of `dcamt`.
        leader_interpreter: the Python interpreter of the leader; None for `interpreter()`, which the other processes
            always use.

    Returns:
        The exit status of the first process that failed, or 0; the standard output and the standard error of all
        processes.
    """
    with socket.create_server(("127.0.0.1", 0)) as free, contextlib.ExitStack() as files:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        printed = [files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _stream in range(2)]
        free.close()
        team = []
        for rank in range(processes):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            environment = {**os.environ, **address, **{name: str(number) for name, number in numbers.items()}}
            program = ["-m", "dcamt"] if script is None else [str(script)]
            is_leader = rank == 0
            python = leader_interpreter if is_leader and leader_interpreter else interpreter()
            command = [python, *program, *map(str, arguments)]
            team.append(subprocess.Popen(command, stdout=printed[0], stderr=printed[1], env=environment))
        failed = 0
        while any(process.poll() is None for process in team):
            failed = failed or next((process.returncode for process in team if process.returncode), 0)
            if failed:
                for process in team:
                    process.terminate()
            time.sleep(0.05)
        failed = failed or next((process.returncode for process in team if process.returncode), 0)
        for file in printed:
            file.seek(0)
        return failed, printed[0].read(), printed[1].read()


def own_lines(text: str) -> list[str]:
    """Return the lines of errors and notes that DCAMT wrote, without torchrun's lines."""
    return [line for line in text.splitlines() if re.match(r"dcamt( \w+)*: ", line)]


def wait_until(condition: Callable[[], Any], what: str = "", at_most: float = HANGING_S) -> None:
    """Wait until `condition()` holds; raise AssertionError after `at_most` seconds."""
    end = time.monotonic() + at_most
    while not condition():
        assert time.monotonic() < end, f"never: {what or condition}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; False if it has ended, even if its parent has not waited for it yet."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def read_until(process: subprocess.Popen[str], event: str) -> None:
    """Read a process's JSON lines until an event of this kind; fail if the process ends before the event."""
    assert process.stdout is not None
    while f'"{event}"' not in (line := process.stdout.readline()):
        assert line, f"the process ended before the event {event}"


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Return the bytes of each file below a folder, and None for each subfolder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def check_error_line(errors: str, *parts: str) -> None:
    """Fail unless `errors` is one line that starts with "dcamt" and contains `parts` and a remedy."""
    assert errors.count("\n") == 1, errors
    assert errors.startswith("dcamt"), errors
    assert "Traceback" not in errors
    assert "unexpected" not in errors
    assert ". " in errors, f"no remedy: {errors}"
    for part in parts:
        assert part in errors, errors
