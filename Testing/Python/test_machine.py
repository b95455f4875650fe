"""Test the measurement of memory and disk space, the reuse of freed memory, and `without_garbage_collection`."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcamt import cli, machine
from dcamt.machine import (
    free_disk_bytes,
    free_memory_bytes,
    keep_freed_memory,
    without_garbage_collection,
)

COUNT_PAGE_FAULTS = """
import resource
from dcamt.machine import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
{first}
bytes(1) * (96 << 20)
before = faults()
for _ in range(10):
    bytes(1) * (64 << 20)
print(faults() - before)
"""


def test_peak_memory_rises_with_an_allocation() -> None:
    """Measure the peak in a child process, because an allocation in this process may reuse freed memory.

    The child's peak must not include the memory that this process holds.
    """
    program = (
        "from dcamt.machine import peak_memory_bytes; before = peak_memory_bytes();"
        "held = b'1' * 200_000_000; print(before, peak_memory_bytes() - before)"
    )
    held = bytes(1) * 200_000_000
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, encoding="utf-8")
    before, rise = map(int, done.stdout.split())
    assert before < len(held) / 2
    assert rise == pytest.approx(200e6, rel=0.1)


def test_free_memory_is_plausible() -> None:
    free = free_memory_bytes()
    assert free is not None
    assert 1e8 < free < 1e14


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_free_memory_equals_the_available_memory_that_the_kernel_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_free_in_control_groups", list)
    with open("/proc/meminfo", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    free = free_memory_bytes()
    assert free is not None
    assert abs(free - available) < 2e9  # other programs change the free memory meanwhile


LIMIT_1, USAGE_1 = "memory.limit_in_bytes", "memory.usage_in_bytes"
LIMIT_2, USAGE_2 = "memory.max", "memory.current"


@pytest.mark.skipif(sys.platform != "linux", reason="needs control groups")
@pytest.mark.parametrize(
    ("memberships", "groups", "free_mb"),
    [
        pytest.param("0::/", {".": (LIMIT_2, "900", USAGE_2, 300, 100)}, 700, id="container, version 2"),
        pytest.param(
            "0::/job/step",
            {"job/step": (LIMIT_2, "max", USAGE_2, 500, 100), "job": (LIMIT_2, "800", USAGE_2, 600, 50)},
            250,
            id="limit of the job, not of its step",
        ),
        pytest.param(
            "0::/job/step",
            {"job/step": (LIMIT_2, "300", USAGE_2, 100, 0), "job": (LIMIT_2, "800", USAGE_2, 700, 0)},
            100,
            id="job almost full",
        ),
        pytest.param(
            "5:cpu,memory:/docker/1a\n1:name=systemd:/docker/1a\n0::/",
            {"memory": (LIMIT_1, "500", USAGE_1, 200, 30)},
            330,
            id="container, version 1",
        ),
        pytest.param(
            "4:memory:/slurm/job\n0::/",
            {"memory": (LIMIT_1, "9e12", USAGE_1, 900, 0), "memory/slurm/job": (LIMIT_1, "400", USAGE_1, 500, 0)},
            0,
            id="job, version 1, full",
        ),
    ],
)
def test_free_memory_respects_the_limits_of_control_groups(
    memberships: str,
    groups: dict[str, tuple[str, str, str, int, int]],
    free_mb: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`groups` states for each control group its limit, its usage, and how much of the usage is page cache, in MB."""
    file = tmp_path / "memberships"
    file.write_text(f"{memberships}\n", encoding="ascii")
    for name, (limit_file, limit, usage_file, usage, cache) in groups.items():
        folder = tmp_path / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        most = limit if limit == "max" else f"{float(limit) * 1e6:.0f}"
        (folder / limit_file).write_text(f"{most}\n", encoding="ascii")
        (folder / usage_file).write_text(f"{usage * 10**6}\n", encoding="ascii")
        total = f"total_inactive_file {cache * 10**6}\n" if limit_file == LIMIT_1 else ""
        own = 0 if total else cache * 10**6
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {own}\n{total}", encoding="ascii")
    monkeypatch.setattr(machine, "_MEMBERSHIPS", file)
    monkeypatch.setattr(machine, "_CONTROL_GROUPS", tmp_path / "cgroup")
    assert free_memory_bytes() == free_mb * 10**6


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_free_memory_respects_the_limit_of_the_address_space() -> None:
    program = """
import resource
import psutil
from dcamt.machine import free_memory_bytes
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (200 << 20),) * 2)
print(free_memory_bytes())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, encoding="utf-8")
    assert int(done.stdout) == pytest.approx(200 << 20, rel=0.1)


def test_free_disk_space_is_found_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    free = free_disk_bytes(tmp_path / "runs" / "first")
    assert free is not None
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1e9


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's mallopt")
def test_freed_memory_is_reused_without_page_faults() -> None:
    """Count the page faults of ten allocations of 64 MiB, in child processes because mallopt's setting is permanent."""
    faults = []
    for first in ("", "assert keep_freed_memory()"):
        command = [sys.executable, "-c", COUNT_PAGE_FAULTS.format(first=first)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
        faults.append(int(done.stdout))
    by_default, if_kept = faults
    assert if_kept < 50 < by_default / 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc_trim")
def test_freed_memory_is_not_held() -> None:
    program = """
import psutil
from dcamt.machine import held_memory_bytes, keep_freed_memory
keep_freed_memory()
before = held_memory_bytes()
bytes(1) * 200_000_000
kept = psutil.Process().memory_info().rss - before
held = bytes(1) * 100_000_000
print(kept, held_memory_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, encoding="utf-8")
    kept, rise = map(int, done.stdout.split())
    assert kept > 150e6
    assert rise == pytest.approx(100e6, rel=0.1)


def test_keep_freed_memory_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_freed_memory()


@pytest.mark.parametrize(("command", "is_kept"), [("train", True), ("segment", True), ("models", False)])
def test_only_commands_that_run_a_network_keep_freed_memory(
    command: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(None))
    arguments = {"train": ["no.csv", "--run", "nowhere"], "segment": ["no.nrrd", "-o", "x.nrrd"], "models": ["list"]}
    cli.main([command, *arguments[command]])
    assert bool(asked) is is_kept


@pytest.fixture
def restore_garbage_collection() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("restore_garbage_collection")
def test_objects_created_without_garbage_collection_are_not_searched_for_cycles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    passes = sum(generation["collections"] for generation in gc.get_stats())
    with without_garbage_collection():
        objects = [[] for _ in range(5000)]  # more than gc.get_threshold()[0], so that a search would start
        assert sum(generation["collections"] for generation in gc.get_stats()) == passes
    assert gc.isenabled()
    assert not any(one is objects for one in gc.get_objects())
    later: list[int] = []
    assert any(one is later for one in gc.get_objects())


@pytest.mark.usefixtures("restore_garbage_collection")
def test_garbage_collection_goes_on_if_torch_is_already_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    earlier: list[int] = []
    with without_garbage_collection():
        assert gc.isenabled()
    assert any(one is earlier for one in gc.get_objects())


@pytest.mark.usefixtures("restore_garbage_collection")
@pytest.mark.parametrize(("arguments", "is_frozen"), [(None, True), (["models", "list"], False)])
def test_main_calls_gc_freeze_only_if_arguments_is_none(
    arguments: list[str] | None, is_frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["dcamt", "models", "list"])
    before = gc.get_freeze_count()
    assert cli.main(arguments) == 0
    assert (gc.get_freeze_count() > before) is is_frozen


def test_free_disk_space_for_an_unreadable_folder_is_taken_from_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale, stat = tmp_path / "stale", os.stat

    def refuse(path: object, *arguments: object, **options: object) -> os.stat_result:
        if str(path) == str(stale):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return stat(path, *arguments, **options)  # type: ignore[arg-type, call-overload, no-any-return]

    stale.mkdir()
    monkeypatch.setattr(os, "stat", refuse)
    assert free_disk_bytes(stale) is not None
