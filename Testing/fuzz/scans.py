"""Read 500 mutated scans of all formats; each must end in the right voxels or in one InputError of one line.

    python Testing/fuzz/scans.py [--count 500] [--seed 0] [--seconds 60]

A mutation cuts a file, overwrites, removes, doubles or inserts bytes, zeroes its second half, renames it, or removes
one of several files. What is read must be the voxels of the whole file, at the same places, unless the mutation hit
voxels that no checksum covers (uncompressed data) or a header value that makes another valid scan; then SimpleITK must
read the same, where it reads the file at all. Every read runs in a process of its own kind with a limit of time: a
crash, a hang, another exception, more than one line of message, and a file left in the folder are failures, and make
the exit status 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "DCAMTSegmentation"), str(ROOT / "Testing"), str(ROOT / "Testing" / "Python")]
SHAPE = (16, 16, 12)


def voxels() -> np.ndarray:
    """Return the scan of all files (I, J, K)."""
    i, j, k = np.indices(SHAPE)
    return ((i * 7 + j * 13 + 100 + 10 * k) % 4000).astype(np.int16)


def write_seeds(folder: Path) -> list[Path]:
    """Write one scan in every format; returns the path to read of each, alone in a folder."""
    import SimpleITK as sitk  # noqa: N813
    from test_dicom_frames import write_frames, write_slice

    image = sitk.GetImageFromArray(voxels().transpose(2, 1, 0))
    image.SetSpacing((1.2, 1.3, 2.0))
    image.SetOrigin((5, -6, 7))
    paths = []
    for name, packed in (
        *((f"x{end}", False) for end in (".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".vtk", ".hdr", ".tif")),
        *((f"x{end}", True) for end in (".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl.gz", ".img.gz", ".tif")),
    ):
        path = folder / f"{len(paths):02}" / name
        path.parent.mkdir()
        sitk.WriteImage(image, str(path), useCompression=packed)
        paths.append(path)
    frames = folder / "frames" / "x.dcm"
    frames.parent.mkdir()
    paths.append(write_frames(frames, range(12)))
    for k in range(12):
        write_slice(folder / "series" / "dicom" / f"{k:02}.dcm", k)
    paths.append(folder / "series" / "dicom")
    archive = folder / "zip" / "x"
    archive.parent.mkdir()
    shutil.make_archive(str(archive), "zip", folder / "series")
    paths.append(archive.with_suffix(".zip"))
    return paths


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Damage the scan at `path` in one way; returns what was done."""
    files = sorted(file for file in path.parent.rglob("*") if file.is_file())
    file = files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    near = int(rng.integers(min(len(data), 400))) if rng.random() < 0.6 else int(rng.integers(len(data)))
    ways: dict[str, Callable[[], bytes | bytearray]] = {
        "cut": lambda: data[: int(rng.integers(len(data)))],
        "overwritten": lambda: data[:near] + bytes([int(rng.integers(256))]) + data[near + 1 :],
        "bits flipped": lambda: data[:near] + bytes(b ^ 0xFF for b in data[near : near + 4]) + data[near + 4 :],
        "removed": lambda: data[:near] + data[near + int(rng.integers(1, 40)) :],
        "inserted": lambda: data[:near] + rng.bytes(int(rng.integers(1, 40))) + data[near:],
        "doubled": lambda: data[:near] + data[near : near + 30] * 2 + data[near + 30 :],
        "zeros at the end": lambda: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        "bytes appended": lambda: data + rng.bytes(9),
        "empty": lambda: b"",
        "missing": lambda: b"",
        "digits changed": lambda: _change_digit(data, rng),
    }
    way = list(ways)[rng.integers(len(ways))]
    if way == "missing":
        file.unlink()
    else:
        file.write_bytes(ways[way]())
    return f"{file.name}: {way}"


def _change_digit(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Return the data with one of its first digits replaced, as of sizes and spacings in a text header."""
    digits = [n for n, byte in enumerate(data[:600]) if 48 <= byte <= 57]
    if digits:
        data[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
    return data


def read(path: Path, answers: multiprocessing.Queue[tuple[str, str]]) -> None:
    """Read a scan, and put what happened into the queue: "right", "refused", "other" or "failed", and details."""
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
    expected = voxels()[None]
    if volume.voxels.shape == expected.shape and (volume.voxels == expected).all():
        answers.put(("right", ""))
    else:
        answers.put(compare_with_itk(path, volume))


def compare_with_itk(path: Path, volume: object) -> tuple[str, str]:
    """Return "other" if SimpleITK reads the same voxels or cannot read the file, or else "failed"."""
    import SimpleITK as sitk  # noqa: N813

    found = volume.voxels  # type: ignore[attr-defined]
    if path.is_dir() or path.suffix in (".zip", ".dcm"):
        return "other", "changed voxels"
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        return "other", "SimpleITK does not read it"
    if array.ndim == 3 and array.size == found[0].size and np.array_equal(array.transpose(2, 1, 0), found[0]):
        return "other", "as SimpleITK"
    return "failed", f"SimpleITK reads {array.shape[::-1]} other voxels, dcamt {found.shape}"


def main() -> int:
    """Run the fuzz; 0 if every read ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="limit of one read")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    counts: Counter[str] = Counter()
    failures = []
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    import SimpleITK  # noqa: F401 - imported once, before the processes are forked

    with tempfile.TemporaryDirectory(prefix="dcamt-fuzz-") as temporary:
        seeds = Path(temporary, "seeds")
        seeds.mkdir()
        paths = write_seeds(seeds)
        for number in range(options.count):
            seed = paths[number % len(paths)]
            home = Path(temporary, "work")
            shutil.copytree(seeds / seed.relative_to(seeds).parts[0], home)
            path = home / Path(*seed.relative_to(seeds).parts[1:])
            what = mutate(path, rng)
            before = sorted(home.rglob("*"))
            answers = context.Queue()
            process = context.Process(target=read, args=(path, answers))
            started = time.monotonic()
            process.start()
            try:
                outcome, detail = answers.get(timeout=options.seconds)
            except Exception:
                outcome, detail = "failed", f"no answer in {time.monotonic() - started:.0f} s, exit {process.exitcode}"
                process.kill()
            process.join()
            if outcome != "failed" and sorted(home.rglob("*")) != before:
                outcome, detail = "failed", "left a file behind"
            counts[outcome] += 1
            if outcome == "failed":
                failures.append(f"{number} {seed.relative_to(seeds)} ({what}): {detail}")
            shutil.rmtree(home)
    for failure in failures:
        print(failure)
    print(f"{options.count} scans: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
