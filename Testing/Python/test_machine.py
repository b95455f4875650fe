"""What the machine has left, on each system, and that memory which is kept is used again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from dcamt import cli, machine
from dcamt.machine import free_memory_bytes, keep_freed_memory, peak_memory_bytes

REPEATED = """
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


def test_this_machine_s_memory() -> None:
    before = peak_memory_bytes()
    assert before is not None
    held = np.ones(before // 8 + 20_000_000)
    after = peak_memory_bytes()
    assert after is not None
    assert after - before > 0.8 * (held.nbytes - before)
    free = free_memory_bytes()
    assert free is not None
    assert 1e8 < free < 1e14


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                3000.
Pages active:                            200000.
Pages inactive:                            5000.
Pages speculative:                          700.
Pages throttled:                              0.
Pages wired down:                         80000.
"Translation faults":                 123456789.
"""


@pytest.mark.parametrize(("said", "free"), [(VM_STAT, 8700 * 16384), ("something else", None)])
def test_a_mac_s_free_memory(said: str, free: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, stdout=said)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert free_memory_bytes() == free


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    """In processes of their own, as it cannot be undone: pages touched for the first time by ten blocks of 64 MiB."""
    new = {}
    for first in ("", "assert keep_freed_memory()"):
        command = [sys.executable, "-c", REPEATED.format(first=first)]
        new[first] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    handed_back, kept = new.values()
    assert kept < 50 < handed_back / 5


def test_where_the_c_library_is_another_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_freed_memory()


@pytest.mark.parametrize(("command", "keeps"), [("train", True), ("segment", True), ("models", False)])
def test_commands_that_run_a_network_keep_it(command: str, keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(None))
    words = {"train": ["no.csv", "--run", "nowhere"], "segment": ["no.nrrd", "-o", "x.nrrd"], "models": ["list"]}
    cli.main([command, *words[command]])
    assert bool(asked) is keeps
