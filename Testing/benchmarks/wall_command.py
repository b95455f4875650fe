"""Measure the time that `--wall` adds to the whole command `dcamt segment`.

    python Testing/benchmarks/wall_command.py SCAN [--pairs 8] [--quality fast]

Runs pairs of commands on one scan, with and without `--wall`. Measures each command's processor time (user and system)
and its elapsed time, in seconds. For each of these two times, prints the median with `--wall`, the median without, and
the median and quartiles of the difference within a pair. Processor time depends little on other programs. Elapsed time
depends on the number of idle cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def run_timed(arguments: list[str]) -> tuple[float, float]:
    """Run `dcamt`; return its processor time and its elapsed time, s."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "dcamt", *arguments], check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return processor, elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, metavar="SCAN")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--quality", default="fast")
    options = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        common = ["segment", str(options.scan), "-o", folder, "--overwrite", "--quality", options.quality]
        run_timed(common)  # reads all files into the system's cache
        for number in range(options.pairs):
            # The order alternates, so that a machine that becomes slower over time favours neither variant.
            order = (False, True) if number % 2 else (True, False)
            times = {has_wall: run_timed([*common, *(["--wall"] if has_wall else [])]) for has_wall in order}
            pairs.append((times[True], times[False]))
            print(
                f"pair {number + 1}: with the wall {times[True][0]:.2f} s CPU, {times[True][1]:.2f} s elapsed;"
                f" without {times[False][0]:.2f} and {times[False][1]:.2f} s",
                flush=True,
            )
    for kind, (with_wall, without) in zip(("CPU", "elapsed"), np.array(pairs).transpose(2, 1, 0), strict=True):
        low, middle, high = np.percentile(with_wall - without, (25, 50, 75))
        print(
            f"{kind}: {np.median(with_wall):.2f} s with the wall, {np.median(without):.2f} s without; the wall adds"
            f" {middle:.2f} s (quartiles {low:.2f} to {high:.2f} s)"
        )


if __name__ == "__main__":
    main()
