"""Measure memory and disk space, and tune this process's memory management."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda", "mps")
"""Device names for `devices.choose_device`."""
_CONTROL_GROUPS, _MEMBERSHIPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Options of glibc's `mallopt`, from its malloc.h."""


def free_memory_bytes() -> int | None:
    """Return the bytes of memory that this process can still use without swapping; None if unknown.

    On Linux, the limits of control groups (containers, jobs) and of `ulimit -v` are considered, too.
    """
    # Imported here, since Slicer imports this module before psutil is installed.
    import psutil

    try:
        available = int(psutil.virtual_memory().available)
    except (OSError, RuntimeError):
        return None
    if sys.platform != "linux":
        return available
    import resource

    address_limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    free = [available, *_free_in_control_groups()]
    if address_limit != resource.RLIM_INFINITY:
        free.append(address_limit - psutil.Process().memory_info().vms)
    return max(0, min(free))


def _free_in_control_groups() -> list[int]:
    """Return the free bytes of each control group (cgroup 1 or 2) that contains this process and limits its memory."""
    try:
        memberships = _MEMBERSHIPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    free: list[int] = []
    for membership in memberships:
        _number, controllers, group = membership.split(":", 2)
        if not controllers:
            root, limit, usage = _CONTROL_GROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CONTROL_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container, `group` may be a path on the host; only `root` exists then.
        parts = group.strip("/").split("/")
        for folder in [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]:
            with suppress(OSError, ValueError, LookupError):  # without a limit, the file is missing or contains "max"
                most = int((folder / limit).read_text(encoding="ascii"))
                lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                statistics = dict(line.split() for line in lines)
                cached = int(statistics.get("total_inactive_file", statistics["inactive_file"]))
                free.append(most - int((folder / usage).read_text(encoding="ascii")) + cached)
    return free


def free_disk_bytes(folder: Path) -> int | None:
    """Return the free bytes on the disk of `folder`, which may not exist yet; None if unknown."""
    # `os.path.isdir` is False if the disk does not answer. `Path.is_dir` raises an error then.
    existing = next((place for place in (folder, *folder.absolute().parents) if os.path.isdir(place)), None)
    try:
        return shutil.disk_usage(existing).free if existing is not None else None
    except OSError:
        return None


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    # psutil does not report the peak on Linux and macOS.
    if sys.platform == "linux":
        # Not `ru_maxrss`: in a new process, its value can start at the parent process's peak.
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_memory_bytes() -> int:
    """Return the resident memory of this process in bytes, without freed memory that glibc keeps."""
    import psutil

    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for reuse (glibc only); return whether that succeeded.

    By default, glibc returns freed blocks of 32 MiB and more to the system at once, and the system clears each page of
    a new block. This is slow, since networks allocate and free blocks of the same sizes hundreds of times in each
    training iteration.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    keeps_blocks_in_heap = mallopt(_M_MMAP_MAX, 0)
    never_trims_heap = mallopt(_M_TRIM_THRESHOLD, -1)
    return bool(keeps_blocks_in_heap and never_trims_heap)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector from searching the objects of the packages that a `with` block imports.

    PyTorch, SciPy and vtk create 240,000 objects. Python would search all of them for reference cycles several times
    during the import, and again at the end of the process. At the end of the `with` block, all existing objects,
    including objects created before the block, are exempted from later searches.
    """
    if "torch" in sys.modules:  # PyTorch was imported before, so little time could be saved.
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
