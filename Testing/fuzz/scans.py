"""Read 500 mutated scans of all formats; each must give the right voxels or an InputError with a one-line message.

    python Testing/fuzz/scans.py [--count 500] [--seed 0] [--seconds 60] [--segment] [--minutes M] [--keep FOLDER]

A mutation truncates a file, overwrites, removes, duplicates or inserts bytes, zeroes the second half, renames the file,
or removes one of several files.

The voxels and positions that are read must equal those of the original file. There are two exceptions: the mutation
changed voxels that no checksum covers (uncompressed data), or a header value so that the file is another valid scan.
Then SimpleITK, or pydicom for DICOM, must read the same voxels at the same positions, if it can read the file.

Every read runs in a separate process with a time limit. A crash, a timeout, another exception, a message of several
lines and a file left in the folder are failures; after a failure, the exit status is 1.
"""

from __future__ import annotations

import argparse
import bz2
import faulthandler
import importlib.util
import multiprocessing
import os
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

SHAPE = (16, 16, 12)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ITK_AFFINE = np.array([[1.2, 0, 0, 5], [0, 1.3, 0, -6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
DICOM_AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
H5_AFFINE = np.diag([0.625, 0.625, 0.625, 1.0])
"""The affine (voxel index to LPS mm) of the files written by SimpleITK and of the DICOM files."""
MARGIN_S = 60
"""Seconds for the process that starts the command and reads its result, beside the command's own limit."""
COMMAND = """
import faulthandler, sys
faulthandler.enable()
faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)
sys.path.insert(0, sys.argv[1])
from dcamt import cli
sys.exit(cli.main(sys.argv[3:]))
"""
"""A program that runs the command `dcamt`; after a limit of seconds, it prints the stack of each thread and ends."""


def voxels() -> np.ndarray:
    """Return the voxels (I, J, K) of all files except DICOM."""
    i, j, k = np.indices(SHAPE)
    return ((i * 7 + j * 13 + 100 + 10 * k) % 4000).astype(np.int16)


def dicom_voxels() -> np.ndarray:
    """Return the voxels (I, J, K) of the DICOM files, which `dcamt_testing.dicom_positions` writes."""
    frames = np.broadcast_to(100 + 10 * np.arange(SHAPE[2]), SHAPE).copy()
    frames[0, 0] += 1
    return frames


def write_seeds(folder: Path) -> list[Path]:
    """Write a scan in every format, each in a separate folder; return the paths to read."""
    import SimpleITK as sitk  # noqa: N813
    from dcamt_testing.dicom_positions import write_frames, write_slice
    from dcamt_testing.dicom_series import write_dicomdir

    image = sitk.GetImageFromArray(voxels().transpose(2, 1, 0))
    image.SetSpacing((1.2, 1.3, 2.0))
    image.SetOrigin((5, -6, 7))
    paths = []
    for name, packed in (
        *((f"x{end}", False) for end in (".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".vtk", ".hdr", ".tif")),
        *((f"x{end}", False) for end in (".mrc", ".mnc")),
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
    packed_nifti = folder / "packed" / "nifti"
    (folder / "packed").mkdir()
    shutil.make_archive(str(packed_nifti), "zip", next(path.parent for path in paths if path.name == "x.nii.gz"))
    paths.append(packed_nifti.with_suffix(".zip"))
    for k in range(12):
        write_slice(folder / "medium" / f"IM{k:02}", k)
    paths.append(write_dicomdir(folder / "medium"))
    paths += write_nrrd_encodings(folder / "encodings")
    paths += [write_nifti2(folder / name) for name in ("nifti2/second.nii", "nifti2_packed/second.nii.gz")]
    paths += [write_compressed_frames(folder / "rle", "1.2.840.10008.1.2.5")]
    if importlib.util.find_spec("h5py"):
        paths.append(write_benchmark_file(folder / "benchmark"))
    return paths


def write_nrrd_encodings(folder: Path) -> list[Path]:
    """Write the scan as NRRD in the encodings and with the lists of data files that ITK's writer does not use."""
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 16 16 12\nendian: little\n"
        "space directions: (1.2,0,0) (0,1.3,0) (0,0,2)\nspace origin: (5,-6,7)\nencoding: "
    )
    raw = voxels().tobytes("F")
    text = " ".join(map(str, voxels().ravel("F"))).encode()
    paths = []
    for encoding, data in (("ascii", text), ("hex", raw.hex().encode()), ("bzip2", bz2.compress(raw))):
        path = folder / encoding / "x.nrrd"
        path.parent.mkdir(parents=True)
        path.write_bytes(f"{header}{encoding}\n\n".encode() + data)
        paths.append(path)
    names = [f"x{k:02}.raw" for k in range(SHAPE[2])]
    for kind, field in (("list", "LIST\n" + "\n".join(names) + "\n"), ("pattern", "x%02d.raw 0 11 1\n")):
        path = folder / kind / "x.nhdr"
        path.parent.mkdir()
        path.write_text(f"{header}raw\ndata file: {field}", encoding="utf-8")
        for k, name in enumerate(names):
            (path.parent / name).write_bytes(voxels()[:, :, k].tobytes("F"))
        paths.append(path)
    return paths


def write_nifti2(path: Path) -> Path:
    """Write the scan as NIfTI-2, which ITK does not read; return its path."""
    import nibabel as nib

    path.parent.mkdir()
    nib.save(nib.Nifti2Image(voxels(), RAS_TO_LPS @ ITK_AFFINE), path)
    return path


def write_compressed_frames(folder: Path, syntax: str) -> Path:
    """Write an enhanced MR image in a compressed transfer syntax; return its path."""
    import pydicom
    from dcamt_testing.dicom_positions import write_frames

    folder.mkdir()
    data = pydicom.dcmread(write_frames(folder / "x.dcm", range(12)))
    data.compress(syntax)
    data.save_as(folder / "x.dcm")
    return folder / "x.dcm"


def write_benchmark_file(folder: Path) -> Path:
    """Write the scan as the left atrium benchmark stores it; return its path."""
    import h5py

    folder.mkdir()
    with h5py.File(folder / "mri_norm2.h5", "w") as file:
        file.create_dataset("image", data=voxels(), compression="gzip")
        file.create_dataset("label", data=(voxels() > 200).astype(np.uint8), compression="gzip")
    return folder / "mri_norm2.h5"


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Apply one mutation to the scan at `path`; return its description."""
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
        "renamed": lambda: b"",
        "digits changed": lambda: _change_digit(data, rng),
    }
    way = list(ways)[rng.integers(len(ways))]
    if way == "missing":
        file.unlink()
    elif way == "renamed":
        file.rename(file.with_name(f"renamed{file.suffix}"))
    else:
        file.write_bytes(ways[way]())
    return f"{file.name}: {way}"


def _change_digit(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Return the data with one of its first digits replaced, which changes sizes or spacings in a text header."""
    digits = [n for n, byte in enumerate(data[:600]) if 48 <= byte <= 57]
    if digits:
        data[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
    return data


def read(path: Path, answers: multiprocessing.Queue[tuple[str, str]]) -> None:
    """Read a scan and put the outcome into the queue: "right", "refused", "other" or "failed", and details."""
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

    A segmented scan has a result on the grid that `read_scan` finds; a refused one has an exit status of 1, lines that
    name `dcamt` alone, and no result. The command may take `seconds`; then it is killed, and its stack is the reason.
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


def judge(path: Path, read: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return the outcome for voxels (1, I, J, K) and their affine (index to LPS mm), and the reason.

    "right": equal to the original. "other": equal to what another reader finds in the mutated file. "failed": neither.
    """
    expected = (dicom_voxels() if is_dicom(path) else voxels())[None]
    same_voxels = read.shape == expected.shape and bool((read == expected).all())
    expected_affine = H5_AFFINE if path.suffix == ".h5" else DICOM_AFFINE if is_dicom(path) else ITK_AFFINE
    if same_voxels and close(affine, expected_affine):
        return "right", ""
    if path.stem == "nifti":
        return "failed", "an archive whose checksums hold has other voxels or geometry"
    if path.suffix == ".h5":
        return compare_with_h5py(path, read, affine)
    if is_dicom(path):
        return compare_with_pydicom(path, read, affine)
    if path.name.startswith("second."):
        return compare_with_nibabel(path, read, affine)
    return compare_with_itk(path, read, affine)


def is_dicom(path: Path) -> bool:
    """Return whether a scan is one of the DICOM files; SimpleITK wrote the others."""
    return path.is_dir() or path.suffix == ".dcm" or path.name in ("x.zip", "DICOMDIR")


def close(affine: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two affines give all voxels of a scan the same position to within 0.01 mm."""
    corner = np.array([*SHAPE, 1.0])
    return bool(np.abs(affine[:3, :3] - other[:3, :3]).max() < 1e-3 and np.abs((affine - other) @ corner).max() < 0.01)


def compare_with_pydicom(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "other" if pydicom finds each slice's pixels and position in a frame of the files, else "failed".

    A zip file is compared with the original, because checksums protect all of its data except names and dates.
    """
    import pydicom

    if path.suffix == ".zip":
        return "failed", "an archive whose checksums hold has other voxels or geometry"
    folder = path.parent if path.name == "DICOMDIR" else path
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()] if folder.is_dir() else [path]
    frames = []
    for file in files:
        try:
            data = pydicom.dcmread(file, force=True)
            pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
            groups = data.get("PerFrameFunctionalGroupsSequence")
            shared = data.get("SharedFunctionalGroupsSequence", [None])[0]
            for number, plane in enumerate(pixels):
                place = groups[number].PlanePositionSequence[0] if groups else data
                spacing = shared.PixelMeasuresSequence[0].PixelSpacing if shared else data.PixelSpacing
                frames.append((np.array(place.ImagePositionPatient, float), np.array(spacing, float), plane.T))
        except Exception:  # a damaged file, which DCAMT skipped or refused
            continue
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    for k in range(voxels.shape[3]):
        start = affine[:3, 3] + k * affine[:3, 2]
        near = [
            f for f in frames if np.linalg.norm(f[0] - start) < 0.05 and np.allclose(f[1][::-1], spacing, rtol=1e-3)
        ]
        if not any(np.array_equal(plane, voxels[0, :, :, k]) for _, _, plane in near):
            return "failed", f"pydicom has no frame with the pixels of slice {k} at its place"
    return "other", "as pydicom"


def compare_with_nibabel(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "other" if nibabel reads the same voxels at the same positions or cannot read the file, else "failed".

    nibabel takes the spacing from the sform, DCAMT from `pixdim` as ITK does, so only directions are compared.
    """
    import nibabel as nib

    try:
        image = nib.load(path)
        array = np.asarray(image.dataobj)
    except Exception:  # nibabel raises errors of many types.
        return "other", "nibabel does not read it"
    if array.size != voxels.size or not np.allclose(array.reshape(voxels[0].shape), voxels[0], rtol=1e-4):
        return "failed", f"nibabel reads {array.shape} other voxels, dcamt {voxels.shape}"
    axes = [one[:3, :3] / np.linalg.norm(one[:3, :3], axis=0) for one in (RAS_TO_LPS @ image.affine, affine)]
    signs = np.sign(image.header["pixdim"][1:4])
    coded = int(image.header["sform_code"]) == 1
    if coded and np.isfinite(axes[0]).all() and np.abs(axes[0] * signs - axes[1]).max() > 0.01:
        orthogonal = np.abs(axes[0].T @ axes[0] - np.eye(3)).max() < 1e-4
        return ("failed", "nibabel has other directions") if orthogonal else ("other", "sheared: the qform is used")
    return "other", "as nibabel"


def compare_with_h5py(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "other" if h5py reads the same numbers, whose places a benchmark file does not store; else "failed"."""
    import h5py

    with h5py.File(path) as file:
        same = np.array_equal(file["image"][()], voxels[0]) and np.allclose(affine, H5_AFFINE)
    return ("other", "as h5py") if same else ("failed", "h5py reads other numbers")


def compare_with_itk(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "other" if SimpleITK reads the same voxels and positions or cannot read the file, else "failed"."""
    import SimpleITK as sitk  # noqa: N813

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return "other", "SimpleITK does not read it"
    array = sitk.GetArrayFromImage(image)
    if array.ndim != 3 or array.size != voxels[0].size or not np.array_equal(array.transpose(2, 1, 0), voxels[0]):
        return "failed", f"SimpleITK reads {array.shape[::-1]} other voxels, dcamt {voxels.shape}"
    theirs = np.eye(4)
    theirs[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    theirs[:3, 3] = image.GetOrigin()
    if np.isfinite(theirs).all() and not close(affine, theirs):
        listed = f"{np.round(theirs[:3].ravel(), 3).tolist()}, dcamt {np.round(affine[:3].ravel(), 3).tolist()}"
        return "failed", f"SimpleITK has another geometry: {listed}"
    return "other", "as SimpleITK"


def write_tiny_model(path: Path) -> Path:
    """Write a model of random weights in a process of its own: a process that has used torch must not be forked."""
    code = "import pathlib, sys, dcamt_testing.model_files as files; files.save_tiny_network(pathlib.Path(sys.argv[1]))"
    search = os.pathsep.join(str(ROOT / folder) for folder in ("DCAMTSegmentation", "Testing"))
    subprocess.run([interpreter(), "-c", code, str(path)], env={**os.environ, "PYTHONPATH": search}, check=True)
    return path


def main() -> int:
    """Read the mutated scans; return 0 if no read failed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="limit of one read")
    parser.add_argument("--segment", action="store_true", help="segment the scans by the command, with a tiny model")
    parser.add_argument("--minutes", type=float, default=np.inf, help="start no further scan after this time")
    parser.add_argument("--keep", type=Path, help="folder to copy the files to whose read failed")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    counts: Counter[str] = Counter()
    failures = []
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    import SimpleITK  # noqa: F401 - imported once, before the processes are forked

    interpreter()  # starts the server of Python processes, which the forked processes share
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
            home = Path(temporary, "work")
            shutil.copytree(seeds / seed.relative_to(seeds).parts[0], home)
            path = home / Path(*seed.relative_to(seeds).parts[1:])
            what = mutate(path, rng)
            before = sorted(home.rglob("*"))
            answers = context.Queue()
            process = context.Process(target=read, args=(path, answers))
            if model:
                process = context.Process(target=segment, args=(path, model, options.seconds, answers))
            started = time.monotonic()
            process.start()
            try:
                outcome, detail = answers.get(timeout=options.seconds + (MARGIN_S if model else 0))
            except Exception:
                outcome, detail = "failed", f"no answer in {time.monotonic() - started:.0f} s, exit {process.exitcode}"
                process.kill()
            process.join()
            if outcome != "failed" and sorted(home.rglob("*")) != before:
                outcome, detail = "failed", "left a file behind"
            counts[outcome] += 1
            if outcome == "failed":
                failures.append(f"{number} {seed.relative_to(seeds)} ({what}): {detail}")
                print(failures[-1], file=sys.stderr, flush=True)
                if options.keep:
                    shutil.copytree(home, options.keep / f"{options.seed}-{number}", dirs_exist_ok=True)
            shutil.rmtree(home)
    for failure in failures:
        print(failure)
    print(
        f"{sum(counts.values())} scans: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
