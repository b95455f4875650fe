"""Run the test classes of Testing/Slicer each alone, and together in shuffled orders.

PYTHONPATH=Testing python -m slicer_harness.isolation                 # each class alone, then three orders
PYTHONPATH=Testing python -m slicer_harness.isolation --orders 7 8    # the orders of these seeds only
PYTHONPATH=Testing python -m slicer_harness.isolation --part 2/3      # every third class, from the second
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "Slicer"
SEEDS = (1, 2, 3)
PASSED, FAILURE_LINES = 0, 60


def find_classes(files: Sequence[str]) -> list[str]:
    """Return the pytest node identifier of each test class, and of each test outside of a class."""
    words = ["--collect-only", "-q", *(files or [str(TESTS)])]
    listed = _pytest(words)
    if listed.returncode != PASSED:
        raise RuntimeError(listed.stdout)
    found = [line.rpartition("::")[0] for line in listed.stdout.splitlines() if "::" in line]
    whole = [name if "::" in name else f"{name}::" for name in found]
    return [name.removesuffix("::") for name in dict.fromkeys(whole)]


def shuffled(classes: Sequence[str], seed: int) -> list[str]:
    """Return the classes in the order of a seed."""
    order = list(classes)
    random.Random(seed).shuffle(order)
    return order


def run(classes: Sequence[str], title: str) -> bool:
    """Run classes in this order in one process; print the result, and return whether all tests passed."""
    ended = _pytest(["-q", *classes])
    lines = ended.stdout.splitlines()
    print(f"{title}: {lines[-1] if lines else ended.stderr}", flush=True)
    if ended.returncode != PASSED:
        print("\n".join(lines[-FAILURE_LINES:]), flush=True)
    return ended.returncode == PASSED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="test files; all of Testing/Slicer if none is given")
    parser.add_argument("--orders", nargs="*", type=int, metavar="SEED", help="run only the orders of these seeds")
    parser.add_argument("--alone", action="store_true", help="run only each class alone")
    parser.add_argument("--part", default="1/1", help="NUMBER/COUNT: every COUNT-th class, from the NUMBER-th")
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


def _pytest(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=TESTS.parents[1])


if __name__ == "__main__":
    sys.exit(main())
