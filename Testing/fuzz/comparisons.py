"""Compare a mutated scan's voxels and geometry, as the engine reads them, with the original and another reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fuzz.seeds import AFFINE, DICOM_AFFINE, H5_AFFINE, RAS_TO_LPS, SHAPE, dicom_voxels, voxels


def judge(path: Path, read_voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return (outcome, reason) for a mutated scan.

    - "right": equal to the original.
    - "other": unequal, but another reader does not contradict DCAMT.
    - "failed": another reader contradicts DCAMT, or the checksums of a .zip file should have revealed the change.

    Args:
        read_voxels: (1, I, J, K).
        affine: index to LPS mm.
    """
    expected = (dicom_voxels() if is_dicom(path) else voxels())[None]
    same_voxels = read_voxels.shape == expected.shape and bool((read_voxels == expected).all())
    expected_affine = H5_AFFINE if path.suffix == ".h5" else DICOM_AFFINE if is_dicom(path) else AFFINE
    if same_voxels and close(affine, expected_affine):
        return "right", ""
    if path.suffix == ".zip":
        return "failed", "the zip file's checksums did not reveal that voxels or geometry changed"
    if path.suffix == ".h5":
        return compare_with_h5py(path, read_voxels, affine)
    if is_dicom(path):
        return compare_with_pydicom(path, read_voxels, affine)
    if path.name.startswith("second."):
        return compare_with_nibabel(path, read_voxels, affine)
    return compare_with_itk(path, read_voxels, affine)


def is_dicom(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".dcm" or path.name in ("x.zip", "DICOMDIR")


def close(affine: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two affines are nearly equal.

    The elements of the 3x3 parts may differ by less than 0.001 mm, and the coordinates of the far corner by less than
    0.01 mm.
    """
    far_corner = np.array([*SHAPE, 1.0])
    return bool(
        np.abs(affine[:3, :3] - other[:3, :3]).max() < 1e-3 and np.abs((affine - other) @ far_corner).max() < 0.01
    )


def compare_with_pydicom(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "failed" if at least one slice has no equal frame in pydicom, else "other".

    A frame is equal to a slice if it has the slice's pixels, position and pixel spacing.
    """
    import pydicom

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
        has_equal_frame = any(
            np.linalg.norm(frame_start - start) < 0.05
            and np.allclose(frame_spacing[::-1], spacing, rtol=1e-3)
            and np.array_equal(pixels, voxels[0, :, :, k])
            for frame_start, frame_spacing, pixels in frames
        )
        if not has_equal_frame:
            return "failed", f"pydicom has no frame with the pixels, position and pixel spacing of slice {k}"
    return "other", "as pydicom"


def compare_with_nibabel(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "failed" if nibabel reads different voxels, else "other".

    The directions are compared if the sform's code is 1. The directions of a sheared sform beside a qform are not
    compared, because DCAMT uses the qform. The spacing is not compared, because nibabel and DCAMT may take the spacing
    from different fields.
    """
    import nibabel as nib
    from nibabel.openers import ImageOpener

    try:
        image = nib.load(path)
        with ImageOpener(path) as file:  # `image.header` has lost the signs of the spacings.
            header = type(image.header).from_fileobj(file, check=False)
        array = np.asarray(image.dataobj)
    except Exception:  # nibabel raises errors of many types.
        return "other", "nibabel does not read it"
    if array.size != voxels.size or not np.allclose(array.reshape(voxels[0].shape), voxels[0], rtol=1e-4):
        return "failed", f"nibabel reads other voxels than DCAMT: shape {array.shape}, DCAMT's {voxels.shape}"
    axes = [one[:3, :3] / np.linalg.norm(one[:3, :3], axis=0) for one in (RAS_TO_LPS @ image.affine, affine)]
    sheared = not np.abs(axes[0].T @ axes[0] - np.eye(3)).max() < 1e-4
    has_qform = int(header["qform_code"]) > 0
    dcamt_ignores_pixdim = sheared and not has_qform
    signs = 1 if dcamt_ignores_pixdim else np.sign(header["pixdim"][1:4])
    coded = int(header["sform_code"]) == 1
    if coded and np.isfinite(axes[0]).all() and np.abs(axes[0] * signs - axes[1]).max() > 0.01:
        if sheared and has_qform:
            return "other", "sheared: DCAMT uses the qform"
        return "failed", "nibabel has other directions"
    return "other", "as nibabel"


def compare_with_h5py(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "failed" if h5py reads different voxels, or if the affine differs from `H5_AFFINE`; else "other"."""
    import h5py

    with h5py.File(path) as file:
        same = np.array_equal(file["image"][()], voxels[0]) and np.allclose(affine, H5_AFFINE)
    return ("other", "as h5py") if same else ("failed", "h5py reads other numbers")


def compare_with_itk(path: Path, voxels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    """Return "failed" if SimpleITK reads different voxels or positions, else "other".

    Positions that are not finite in SimpleITK are not compared.
    """
    import SimpleITK as sitk  # noqa: N813

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return "other", "SimpleITK does not read it"
    array = sitk.GetArrayFromImage(image)
    if array.ndim != 3 or array.size != voxels[0].size or not np.array_equal(array.transpose(2, 1, 0), voxels[0]):
        return "failed", f"SimpleITK reads other voxels than DCAMT: shape {array.shape[::-1]}, DCAMT's {voxels.shape}"
    theirs = np.eye(4)
    theirs[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    theirs[:3, 3] = image.GetOrigin()
    if np.isfinite(theirs).all() and not close(affine, theirs):
        listed = f"{np.round(theirs[:3].ravel(), 3).tolist()}, dcamt {np.round(affine[:3].ravel(), 3).tolist()}"
        return "failed", f"SimpleITK has another geometry: {listed}"
    return "other", "as SimpleITK"
