"""How much memory and disk this machine has left, and how much of it this process takes, on every system."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def free_memory_bytes() -> int | None:
    """Memory that programs may still take without swapping; None where the system does not say."""
    if sys.platform == "win32":
        return _windows_free_memory()
    if sys.platform == "darwin":
        return _mac_free_memory()
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def free_disk_bytes(folder: Path) -> int | None:
    """Free bytes where the folder is, or will be; None where the system does not say."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), None)
    try:
        return shutil.disk_usage(there).free if there is not None else None
    except OSError:
        return None


def peak_memory_bytes() -> int | None:
    """The most that this process has taken so far; None where the system does not say."""
    if sys.platform == "win32":
        return _windows_peak_memory()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it needs next; whether it does (glibc alone is asked).

    glibc hands blocks of 32 MiB and more back at once, and of a new one the system empties each page as it is first
    touched. Networks ask for such blocks hundreds of times in an iteration of training, the same ones each time.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    no_block_apart = mallopt(_M_MMAP_MAX, 0)
    nothing_back = mallopt(_M_TRIM_THRESHOLD, -1)
    return bool(no_block_apart and nothing_back)


def _mac_free_memory() -> int | None:
    """From what `vm_stat` prints: pages that hold nothing, and those that can be given up at once."""
    try:
        said = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, check=True, timeout=5).stdout
        page = int(re.search(r"page size of (\d+) bytes", said)[1])  # type: ignore[index]
        counts = {name: int(count) for name, count in re.findall(r"^Pages ([a-z]+): +(\d+)\.$", said, re.MULTILINE)}
        return page * sum(counts[kind] for kind in ("free", "inactive", "speculative"))
    except (OSError, subprocess.SubprocessError, TypeError, KeyError):
        return None


if sys.platform == "win32":
    from ctypes import wintypes

    class _Status(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.DWORD),
            ("load", wintypes.DWORD),
            *((name, ctypes.c_ulonglong) for name in ("physical", "free", "b", "c", "d", "e", "f")),
        )

    class _Counters(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            ("peak", ctypes.c_size_t),
            *((name, ctypes.c_size_t) for name in ("working", "a", "b", "c", "d", "e", "f")),
        )

    def _windows_free_memory() -> int | None:
        status = _Status(length=ctypes.sizeof(_Status))
        return int(status.free) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None

    def _windows_peak_memory() -> int | None:
        counters = _Counters(length=ctypes.sizeof(_Counters))
        process = wintypes.HANDLE(-1)  # this one
        done = ctypes.windll.kernel32.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.length)
        return int(counters.peak) if done else None
