"""Write a scan in many of the formats and encodings that the engine reads; `scans.py` mutates these files."""

from __future__ import annotations

import bz2
import importlib.util
import shutil
from pathlib import Path

import numpy as np

SHAPE = (16, 16, 12)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
DICOM_AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
"""The affine (voxel index to LPS mm) of the DICOM files."""
H5_AFFINE = np.diag([0.625, 0.625, 0.625, 1.0])
"""The affine that the engine uses for the file of `write_benchmark_file`; the file holds no affine."""
AFFINE = np.array([[1.2, 0, 0, 5], [0, 1.3, 0, -6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
"""The affine of all other files."""


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
    """Write scans in many formats, each in its own folder; return the paths to read."""
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
    paths += [write_rle_frames(folder / "rle")]
    if importlib.util.find_spec("h5py"):
        paths.append(write_benchmark_file(folder / "benchmark"))
    return paths


def write_nrrd_encodings(folder: Path) -> list[Path]:
    """Write the scan as NRRD in forms that ITK's writer does not use: other encodings, and lists of data files."""
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 16 16 12\nendian: little\n"
        "space directions: (1.2,0,0) (0,1.3,0) (0,0,2)\nspace origin: (5,-6,7)\nencoding: "
    )
    raw = voxels().tobytes("F")
    text = "".join(f"{voxel}\n" for voxel in voxels().ravel("F")).encode()
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
    import nibabel as nib

    path.parent.mkdir()
    nib.save(nib.Nifti2Image(voxels(), RAS_TO_LPS @ AFFINE), path)
    return path


def write_rle_frames(folder: Path) -> Path:
    from dcamt_testing.dicom_positions import edit_dicom, write_frames
    from pydicom.uid import RLELossless

    path = write_frames(folder / "x.dcm", range(12))
    with edit_dicom(path) as data:
        data.compress(RLELossless)
    return path


def write_benchmark_file(folder: Path) -> Path:
    """Write the scan as the left atrium benchmark stores it."""
    import h5py

    folder.mkdir()
    with h5py.File(folder / "mri_norm2.h5", "w") as file:
        file.create_dataset("image", data=voxels(), compression="gzip")
        file.create_dataset("label", data=(voxels() > 200).astype(np.uint8), compression="gzip")
    return folder / "mri_norm2.h5"
