"""Run each test class of Testing/Slicer alone, then all classes together in shuffled orders.

PYTHONPATH=Testing python -m slicer_harness.isolation                 # each class alone, then three orders
PYTHONPATH=Testing python -m slicer_harness.isolation --orders 7 8    # the orders of these seeds only
PYTHONPATH=Testing python -m slicer_harness.isolation --part 2/3      # every third class alone, then three orders

Each run is a process of its own. Where the system has fork, the process begins with the `PRELOADED` packages imported.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dcamt_testing import warm_python

TESTS = Path(__file__).resolve().parents[1] / "Slicer"
SEEDS = (1, 2, 3)
PASSED, FAILURE_LINES = 0, 60
PRELOADED = ("pytest", "numpy", "scipy.ndimage", "vtk", "PySide6.QtWidgets", "slicer")
"""Packages imported once, before forking."""


class PytestResult(NamedTuple):
    status: int
    output: str


def find_classes(files: Sequence[str]) -> list[str]:
    """Return the pytest node identifier of each test class, and of each file that has tests outside of classes.

    Raises RuntimeError if pytest cannot collect the tests.
    """
    options = ["--collect-only", "-q", *(files or [str(TESTS)])]
    listed = _pytest(options)
    if listed.status != PASSED:
        raise RuntimeError(listed.output)
    return list(dict.fromkeys(line.rpartition("::")[0] for line in listed.output.splitlines() if "::" in line))


def shuffled(classes: Sequence[str], seed: int) -> list[str]:
    order = list(classes)
    random.Random(seed).shuffle(order)
    return order


def run(classes: Sequence[str], title: str) -> bool:
    """Run classes in this order in one process; print the result, and return whether all tests passed."""
    result = _pytest(["-q", *classes])
    lines = result.output.splitlines()
    print(f"{time.strftime('%H:%M')} {title}: {lines[-1] if lines else f'exit status {result.status}'}", flush=True)
    if result.status != PASSED:
        print("\n".join(lines[-FAILURE_LINES:]), flush=True)
    return result.status == PASSED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="test files; all of Testing/Slicer if none is given")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--orders", nargs="*", type=int, metavar="SEED", help="run only the orders of these seeds")
    only.add_argument("--alone", action="store_true", help="skip the shuffled orders")
    parser.add_argument(
        "--part",
        default="1/1",
        help="for example 2/3: run every third class alone (second, fifth, ...); shuffled orders contain all classes",
    )
    given = parser.parse_args()
    number, count = map(int, given.part.split("/"))
    classes = find_classes(given.files)
    failed = []
    if given.orders is None:
        mine = classes[number - 1 :: count]
        failed += [name for name in mine if not run([name], f"alone: {name}")]
    if not given.alone:
        seeds = SEEDS if given.orders is None else given.orders
        failed += [f"order {seed}" for seed in seeds if not run(shuffled(classes, seed), f"order {seed}")]
    print("failed: " + (", ".join(failed) or "none"))
    return 1 if failed else 0


def _pytest(options: Sequence[str]) -> PytestResult:
    """Run pytest in a separate process, which is forked from this one if the system supports it."""
    arguments = ["-o", "addopts=", "-p", "no:cacheprovider", *options]
    if not hasattr(os, "fork"):
        command = [sys.executable, "-m", "pytest", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=TESTS.parents[1])
        return PytestResult(done.returncode, done.stdout + done.stderr)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    for name in PRELOADED:
        importlib.import_module(name)
    warm_python.start()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = os.fork()
        if child == 0:
            _become_pytest(arguments, output.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return PytestResult(status, output.read())


def _become_pytest(arguments: list[str], output: int) -> None:
    """Run pytest in this forked process, and exit with pytest's status."""
    import pytest

    status = 1
    try:
        atexit._clear()  # The parent's exit functions would end the `warm_python` server.
        os.chdir(TESTS.parents[1])
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = int(pytest.main(arguments))
        atexit._run_exitfuncs()
        sys.stdout.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
