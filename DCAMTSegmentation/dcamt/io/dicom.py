"""A folder of DICOM slices: one series, every slice in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .itk import LPS_TO_RAS, quiet_sitk, quiet_terminal, read_itk, read_itk_header
from .library_errors import library_errors

_SPACING_TOLERANCE = 0.02  # of the slice spacing, or 0.01 mm, which is what scanners round their positions to
_SHOWN_SERIES = 6
_DESCRIPTION, _POSITION, _ORIENTATION, _PIXEL_SPACING = "0008|103e", "0020|0032", "0020|0037", "0028|0030"


@dataclass(frozen=True, eq=False)
class _Slice:
    """One file's place in the patient: LPS mm, as DICOM has it."""

    file: str
    position: np.ndarray  # (3,) centre of the first pixel
    orientation: np.ndarray  # (6,) unit vectors along a row (i) and down a column (j)
    spacing: np.ndarray  # (2,) mm between rows (j), then between columns (i), DICOM's order
    size: tuple[int, ...]


def read_dicom_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (1, I, J, K) and affine (RAS mm) of the one DICOM series in `folder`; k runs along the normal.

    The affine comes from the slices' own positions (DICOM PS3.3 C.7.6.2.1.1), so a tilted stack stays
    sheared. Rescale slope and intercept are applied slice by slice. Raises InputError for no series or more
    than one, for slices that are missing, doubled, unevenly spaced or of different size, and for damaged
    files.
    """
    sitk = quiet_sitk()
    files = _series_files(sitk, folder)
    if len(files) == 1:
        return read_itk(Path(files[0]))  # a multi-frame file, or a clear word about the single slice
    affine, slices = _stack(folder, [_read_place(sitk, folder, file) for file in files])
    with library_errors(folder, "a DICOM series"), quiet_terminal():
        # (J, I) each; a whole-series reader would squeeze every slice into the first one's type.
        planes = [np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(one.file))) for one in slices]
    if any(plane.ndim != 2 for plane in planes):
        raise InputError("holds colour or multi-frame slices", path=folder, remedy="A grey-scale scan is needed.")
    voxels = np.stack([plane.T for plane in planes], axis=-1)
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    return voxels[np.newaxis], LPS_TO_RAS @ affine


def read_dicom_header(folder: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (1, I, J, K) and affine (RAS mm) as `read_dicom_folder` gives them, without its voxels.

    Raises InputError as `read_dicom_folder` does, but for what only the voxels show.
    """
    sitk = quiet_sitk()
    files = _series_files(sitk, folder)
    if len(files) == 1:
        return read_itk_header(Path(files[0]))
    affine, slices = _stack(folder, [_read_place(sitk, folder, file) for file in files])
    return (1, *slices[0].size, len(slices)), LPS_TO_RAS @ affine


def _series_files(sitk: Any, folder: Path) -> tuple[str, ...]:
    """The files of the one series in `folder`."""
    with library_errors(folder, "a DICOM series"), quiet_terminal():
        finder = sitk.ImageSeriesReader
        series: dict[str, tuple[str, ...]] = {
            uid: finder.GetGDCMSeriesFileNames(str(folder), uid) for uid in finder.GetGDCMSeriesIDs(str(folder))
        }
    if not series:
        raise InputError("holds no DICOM slices", path=folder, remedy="Choose the folder that holds the slices.")
    if len(series) > 1:
        raise _several(sitk, folder, list(series.values()))
    (files,) = series.values()
    return files


def _header(sitk: Any, folder: Path, file: str) -> Any:
    with library_errors(Path(file), "a DICOM slice"), quiet_terminal():
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(file)
        reader.ReadImageInformation()
    return reader


def _several(sitk: Any, folder: Path, series: list[tuple[str, ...]]) -> InputError:
    names = []
    for files in series[:_SHOWN_SERIES]:
        header = _header(sitk, folder, files[0])
        name = header.GetMetaData(_DESCRIPTION).strip() if header.HasMetaDataKey(_DESCRIPTION) else ""
        name = name.encode("utf-8", "replace").decode()  # bytes of another alphabet cannot be printed
        names.append(f'"{name or "unnamed"}" ({len(files)} slice{"s" if len(files) > 1 else ""})')
    more = f" and {len(series) - _SHOWN_SERIES} more" if len(series) > _SHOWN_SERIES else ""
    return InputError(
        f"holds {len(series)} DICOM series: {', '.join(names)}{more}",
        path=folder,
        remedy="Move the one to segment into a folder of its own.",
    )


def _read_place(sitk: Any, folder: Path, file: str) -> _Slice:
    header = _header(sitk, folder, file)
    numbers = []
    for tag, count in ((_POSITION, 3), (_ORIENTATION, 6), (_PIXEL_SPACING, 2)):
        try:
            values = np.array([float(v) for v in header.GetMetaData(tag).split("\\")])
        except (RuntimeError, ValueError):
            values = np.array([])
        if values.shape != (count,) or not np.isfinite(values).all():
            raise InputError(
                "does not say where its slice lies in the patient",
                path=file,
                remedy="Remove it, if it is a report or a screenshot, or export the series again.",
            )
        numbers.append(values)
    position, orientation, spacing = numbers
    return _Slice(file, position, orientation, spacing, tuple(header.GetSize()[:2]))


def _stack(folder: Path, slices: list[_Slice]) -> tuple[np.ndarray, list[_Slice]]:
    """Affine (LPS mm) of the slices, and them in its order; raises InputError unless they make a lattice."""
    first = slices[0]
    for other in slices[1:]:
        alike = other.size == first.size and np.allclose(other.spacing, first.spacing, rtol=1e-3)
        if not (alike and np.allclose(other.orientation, first.orientation, atol=1e-3)):
            names = f"{Path(first.file).name}, {Path(other.file).name}"
            raise InputError(
                f"holds slices of different size or orientation ({names})",
                path=folder,
                remedy="Move the stack to segment into a folder of its own.",
            )
    row, column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(row, column)
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.stack([one.position for one in slices])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    tolerance = max(0.01, _SPACING_TOLERANCE * usual)
    if gaps.min() <= tolerance:
        raise InputError(
            f"holds {len(slices)} slices, some of them at the same place",
            path=folder,
            remedy="It may hold several time points or a copy; leave one stack only.",
        )
    if gaps.max() > usual + tolerance or gaps.min() < usual - tolerance:
        lost = int(np.sum(np.maximum(np.rint(gaps / usual) - 1, 0)))
        what = f"lacks about {lost} of its slices" if lost else "has unevenly spaced slices"
        raise InputError(
            f"{what} (gaps of {gaps.min():.2f} to {gaps.max():.2f} mm)",
            path=folder,
            remedy="Export the whole series again.",
        )
    affine = np.eye(4)
    affine[:3, 0] = row * first.spacing[1]
    affine[:3, 1] = column * first.spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    off = positions - (positions[0] + np.arange(len(slices))[:, np.newaxis] * affine[:3, 2])
    if np.linalg.norm(off, axis=1).max() > max(0.05, 0.05 * usual):
        raise InputError("has slices shifted sideways", path=folder, remedy="Export the whole series again.")
    return affine, slices
