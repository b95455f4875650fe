"""Read mutated scans of many formats; each must give the correct voxels or an InputError with a one-line message.

    python Testing/fuzz/scans.py [--count 500] [--seed 0] [--seconds 60] [--segment] [--minutes M] [--keep FOLDER]

A mutation changes one file of a scan. If the mutation changed the voxels or positions that the engine reads, another
reader reads the mutated scan, too. A contradiction between the two readers is a failure (see `comparisons.py`).
Checksums reveal damage to the files in a zip archive. If the engine reads a mutated archive without an InputError, the
scan must therefore equal the original.

Every read runs in a separate process with a time limit. Further failures are:

- a crash, a timeout or an exception other than InputError;
- a file left in the scan's folder;
- a message of several lines, of 600 characters or more, or without "." or "?" at its end.

After a failure, the exit status is 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "DCAMTSegmentation"), str(ROOT / "Testing"), str(ROOT / "Testing" / "Python")]

from dcamt_testing.warm_python import interpreter  # noqa: E402

from fuzz.comparisons import judge  # noqa: E402
from fuzz.seeds import RAS_TO_LPS, write_seeds  # noqa: E402

MARGIN_S = 60
"""Seconds for starting a command and reading its result, in addition to the command's own limit."""
COMMAND = """
import faulthandler, sys
faulthandler.enable()
faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)
sys.path.insert(0, sys.argv[1])
from dcamt import cli
sys.exit(cli.main(sys.argv[3:]))
"""
"""A program that runs the command `dcamt`; after a time limit, it prints the stack of each thread and ends."""


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Apply one mutation to the scan at `path`; return its description."""
    files = sorted(file for file in path.parent.rglob("*") if file.is_file())
    file = files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    is_in_header = rng.random() < 0.6
    place = int(rng.integers(min(len(data), 400) if is_in_header else len(data)))

    def change_digit() -> bytes | bytearray:
        digits = [n for n, byte in enumerate(data[:600]) if 48 <= byte <= 57]
        if digits:
            data[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
        return data

    renamed = file.with_name(f"renamed{file.suffix}")
    ways: dict[str, Callable[[], bytes | bytearray | Path | None]] = {
        "cut": lambda: data[: int(rng.integers(len(data)))],
        "overwritten": lambda: data[:place] + bytes([int(rng.integers(256))]) + data[place + 1 :],
        "bits flipped": lambda: data[:place] + bytes(b ^ 0xFF for b in data[place : place + 4]) + data[place + 4 :],
        "removed": lambda: data[:place] + data[place + int(rng.integers(1, 40)) :],
        "inserted": lambda: data[:place] + rng.bytes(int(rng.integers(1, 40))) + data[place:],
        "doubled": lambda: data[:place] + data[place : place + 30] * 2 + data[place + 30 :],
        "zeros at the end": lambda: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        "bytes appended": lambda: data + rng.bytes(9),
        "empty": lambda: b"",
        "missing": file.unlink,
        "renamed": lambda: file.rename(renamed),
        "digits changed": change_digit,
    }
    way = list(ways)[rng.integers(len(ways))]
    changed = ways[way]()
    if isinstance(changed, bytes | bytearray):
        file.write_bytes(changed)
    return f"{file.name}: {way}"


def read(path: Path, answers: multiprocessing.Queue[tuple[str, str]]) -> None:
    """Read a scan and put (outcome, details) into the queue.

    The outcome is "refused", "failed" or an outcome of `judge`.
    """
    faulthandler.enable()
    from dcamt.errors import InputError
    from dcamt.io.readers import read_scan

    try:
        volume = read_scan(path)
    except InputError as error:
        message = str(error)
        one_line = "\n" not in message and message.endswith((".", "?")) and len(message) < 600
        answers.put(("refused" if one_line else "failed", message))
        return
    except BaseException as error:
        answers.put(("failed", f"{type(error).__name__}: {error}"))
        return
    answers.put(judge(path, volume.voxels, RAS_TO_LPS @ volume.grid.affine))


def segment(path: Path, model: Path, seconds: float, answers: multiprocessing.Queue[tuple[str, str]]) -> None:
    """Run the command `segment` on a scan and put the outcome into the queue: "segmented", "refused" or "failed".

    "segmented": the exit status is 0, the only result is `x.seg.nrrd`, and the result lies on the scan's grid.
    "refused": the exit status is 1, there is no result, and all lines on stderr begin with "dcamt: ". "failed": in
    all other cases, and if the command leaves a file in its folder for temporary files.

    If the command takes longer than `seconds`, the command prints its stack and ends. The outcome is then "failed",
    with the stack as the reason.
    """
    faulthandler.enable()
    from dcamt.io.readers import read_labelmap, read_scan

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "out")
        arguments = ["segment", path, "-o", out / "x.seg.nrrd", "--model", model, "--device", "cpu"]
        program = [interpreter(), "-c", COMMAND, str(ROOT / "DCAMTSegmentation"), str(seconds), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": temporary}
        ended = subprocess.run(program, capture_output=True, encoding="utf-8", env=environment, check=False)
        try:
            results = sorted(out.rglob("*")) if out.exists() else []
            lines = ended.stderr.splitlines()
            left = sorted(file.name for file in Path(temporary).iterdir() if file != out)
            if left:
                answers.put(("failed", f"left {left} in the folder for temporary files"))
            elif ended.returncode == 0 and results == [out / "x.seg.nrrd"]:
                same = read_labelmap(results[0]).grid.matches(read_scan(path).grid)
                answers.put(("segmented", "") if same else ("failed", "the result lies on a different grid"))
            elif ended.returncode == 1 and not results and lines and all(x.startswith("dcamt: ") for x in lines):
                answers.put(("refused", lines[-1]))
            else:
                last = "\n    ".join(lines[-40:])
                answers.put(("failed", f"exit status {ended.returncode}, results {results}\n    {last}"))
        except BaseException as error:
            answers.put(("failed", f"{type(error).__name__}: {error}"))


def write_tiny_model(path: Path) -> Path:
    """Write a model with random weights in a new process.

    The calling process is forked later, so it must not use torch.
    """
    code = "import pathlib, sys, dcamt_testing.model_files as files; files.save_tiny_network(pathlib.Path(sys.argv[1]))"
    search = os.pathsep.join(str(ROOT / folder) for folder in ("DCAMTSegmentation", "Testing"))
    subprocess.run([interpreter(), "-c", code, str(path)], env={**os.environ, "PYTHONPATH": search}, check=True)
    return path


def run_process(target: Callable[..., None], arguments: tuple[object, ...], timeout_s: float) -> tuple[str, str]:
    """Call `target` in a new process, with `arguments` and a queue; return the outcome from the queue."""
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    answers = context.Queue()
    process = context.Process(target=target, args=(*arguments, answers))
    started = time.monotonic()
    process.start()
    outcome: tuple[str, str]
    try:
        outcome = answers.get(timeout=timeout_s)
    except queue.Empty:
        outcome = "failed", f"no answer in {time.monotonic() - started:.0f} s, exit {process.exitcode}"
        process.kill()
    process.join()
    return outcome


def try_mutation(path: Path, model: Path | None, seconds: float, rng: np.random.Generator) -> tuple[str, str, str]:
    """Mutate a scan and read it, or segment it with a model; return the mutation, the outcome and details."""
    mutation = mutate(path, rng)
    before = sorted(path.parent.rglob("*"))
    if model:
        outcome, detail = run_process(segment, (path, model, seconds), seconds + MARGIN_S)
    else:
        outcome, detail = run_process(read, (path,), seconds)
    if outcome != "failed" and sorted(path.parent.rglob("*")) != before:
        outcome, detail = "failed", "left a file behind"
    return mutation, outcome, detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="time limit for one scan")
    parser.add_argument(
        "--segment", action="store_true", help="segment the scans with a tiny model instead of only reading them"
    )
    parser.add_argument("--minutes", type=float, default=np.inf, help="start no further scan after this time")
    parser.add_argument("--keep", type=Path, help="copy the scans with failures to this folder")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    counts: Counter[str] = Counter()
    failures = []
    import SimpleITK  # noqa: F401 - imported once, before the processes are forked

    interpreter()  # Starts the server of Python processes before the fork, so that all forked processes use one server.
    with tempfile.TemporaryDirectory(prefix="dcamt-fuzz-") as temporary:
        seeds = Path(temporary, "seeds")
        seeds.mkdir()
        paths = write_seeds(seeds)
        model = write_tiny_model(Path(temporary, "tiny.dcamt")) if options.segment else None
        end = time.monotonic() + 60 * options.minutes
        for number in range(options.count):
            if time.monotonic() > end:
                break
            seed = paths[number % len(paths)]
            folder_name, *below = seed.relative_to(seeds).parts
            home = Path(temporary, "work")
            shutil.copytree(seeds / folder_name, home)
            mutation, outcome, detail = try_mutation(home.joinpath(*below), model, options.seconds, rng)
            counts[outcome] += 1
            if outcome == "failed":
                failures.append(f"{number} {seed.relative_to(seeds)} ({mutation}): {detail}")
                print(failures[-1], file=sys.stderr, flush=True)
                if options.keep:
                    shutil.copytree(home, options.keep / f"{options.seed}-{number}", dirs_exist_ok=True)
            shutil.rmtree(home)
    for failure in failures:
        print(failure)
    listed = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    print(f"{sum(counts.values())} scans: {listed}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
