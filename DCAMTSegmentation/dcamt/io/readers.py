"""Read scans and labelmaps: choose the reader by a file's content and ending, and check what it read."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Labelmap, Volume, as_labels, check_grid, check_scan, check_scan_grid
from .channels import channel_files, one_channel_note, read_channels
from .dicom import ScanChoice, open_dicom_file, open_dicom_folder, open_dicomdir
from .dicom_frames import DIRECTORY_CLASS, SEGMENTATION_CLASS, quiet_pydicom
from .dicom_segments import open_dicom_segments
from .formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, plain_name
from .hdf5 import MAGIC as HDF5_MAGIC
from .hdf5 import open_hdf5
from .itk import open_itk
from .nifti import open_nifti
from .nrrd import MAGIC as NRRD_MAGIC
from .nrrd import open_nrrd
from .stored_image import StoredImage, StoredSegment, library_errors, read_head

_NRRD_ENDINGS = (".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr")
_NIFTI_ENDINGS = (".nii", ".nii.gz")
_DICOM_ENDINGS = (".dcm", ".ima", "")
_ZIP_MAGIC = b"PK\x03\x04"
_MAXIMUM_UNZIPPED = 16 << 30


@dataclass(frozen=True, eq=False)
class Header:
    """The content of a file before any voxel is read: C of its voxels (C, I, J, K), and their grid."""

    channels: int
    grid: Grid


def read_scan(path: str | Path, channels: int = 1, choice: ScanChoice | None = None) -> Volume:
    """Read and check a scan.

    Args:
        path: NIfTI, NRRD, MetaImage, another ITK format, a folder of DICOM files or one above, a DICOM file of many
            frames, a DICOMDIR, a zip file of one of these, or the left atrium benchmark's `.h5`. See docs/formats.md.
        channels: number of images that the file must hold, C of the voxels (C, I, J, K); or of channel files `x_0000`,
            `x_0001`, ..., of one image each, of which `path` is the first.
        choice: which of several images in a DICOM folder.

    Returns:
        The scan; intensities keep the file's type unless it scales them, which makes them float32. Its `notes` say
        what was passed over or assumed.

    Raises:
        InputError: the file is missing, empty, damaged, two-dimensional, holds another number of images, or something
            that `volume.check_scan` refuses.
    """
    path = Path(path)
    if channels > 1 and (files := channel_files(path)) and _holds_one_image(path, choice):
        return read_channels(path, files, channels, lambda file: _read_scan(file, 1, choice))
    volume = _read_scan(path, channels, choice)
    return replace(volume, notes=(*one_channel_note(path), *volume.notes)) if channels == 1 else volume


def _holds_one_image(path: Path, choice: ScanChoice | None) -> bool:
    """Return whether a file can be a channel of a scan; a 4D file is a scan of its own, whatever its number means."""
    with _open_image(path, choice or ScanChoice()) as image:
        return image.channels == 1


def _read_scan(path: Path, channels: int, choice: ScanChoice | None) -> Volume:
    """Read and check the scan of one file or folder."""
    with _open_image(path, choice or ScanChoice()) as image:
        if image.labels_only:
            raise InputError("is a segmentation, not a scan", path=path, remedy="Choose the scan that it belongs to.")
        check_scan_grid(image.grid, path)
        if image.channels != channels:
            remedy = "Extract one of them to a file of its own." if channels == 1 else f"{channels} are needed."
            raise InputError(f"holds {image.channels} volumes (4D)", path=path, remedy=remedy)
        volume = Volume(image.load(), image.grid, path, image.notes, image.frames)
    check_scan(volume)
    return volume


def read_labelmap(path: str | Path, mapping: Mapping[int | str, int] | None = None) -> Labelmap:
    """Read a labelmap from any format that `read_scan` reads, or a segmentation (`.seg.nrrd`, DICOM SEG).

    The layers of a segmentation become one labelmap: segments keep their label values where these are unique, or else
    are numbered 1, 2, ... in the file's order; where segments overlap the later one wins. A segmentation that was
    saved cropped to its segments stays so; `volume.fit_labelmap` brings it to its scan's grid.

    mapping: the label that each value, or each segment of a name, in the file becomes, several to one allowed;
    everything else becomes background. In names, capitals, blanks, hyphens and underscores do not count.

    Raises:
        InputError: as `read_scan`, except that blank and small labelmaps are accepted; for negative or fractional
            values; and for a name in `mapping` that no segment of the file has.
    """
    path = Path(path)
    with _open_image(path, ScanChoice(), label=True) as image:
        check_grid(image.grid, path)
        if image.channels != 1 and not image.segments:
            remedy = "Save one labelmap a file."
            raise InputError(f"holds {image.channels} volumes, not one labelmap", path=path, remedy=remedy)
        voxels, grid = image.load(), image.grid
    if mapping is not None:
        return Labelmap(_map_labels(voxels, image.segments, mapping, path), grid, path, bool(image.segments))
    if image.segments:
        return Labelmap(_flatten_segments(voxels, image.segments), grid, path, partial=True)
    return Labelmap(as_labels(voxels[0], path), grid, path)


def read_segments(path: str | Path) -> tuple[StoredSegment, ...]:
    """Return the segments that a segmentation file names, with the labels that `read_labelmap` gives them.

    Most formats name none. Raises InputError as `read_labelmap` does for a damaged header.
    """
    path = Path(path)
    if ending(path) not in (*_NRRD_ENDINGS, *_DICOM_ENDINGS):
        return ()
    with _open_image(path, ScanChoice(), label=True) as image:
        return image.segments


def read_header(path: str | Path, flatten_segments: bool = False, channels: int = 1) -> Header:
    """Return the header of a scan or, with `flatten_segments`, of a labelmap, checked as far as it goes.

    No voxel is kept. With `channels` above 1, the files of a scan's channels count as `read_scan` reads them. Raises
    InputError as `read_scan` and `read_labelmap` do, but for another number of channels and for what only the voxels
    show.
    """
    path = Path(path)
    with _open_image(path, ScanChoice(), label=flatten_segments) as image:
        if flatten_segments:
            check_grid(image.grid, path)
        else:
            check_scan_grid(image.grid, path)
        image.verify()
        files = channel_files(path) if channels > 1 and image.channels == 1 else ()
        return Header(len(files) or (1 if flatten_segments and image.segments else image.channels), image.grid)


@contextmanager
def _open_image(path: Path, choice: ScanChoice, label: bool = False) -> Iterator[StoredImage]:
    """Open an image by its content, then by its ending; raises InputError if it is missing, empty or unknown."""
    # os.path, unlike pathlib, answers False to a name the system cannot even look up.
    if not os.path.exists(path):
        raise InputError("does not exist", path=path, remedy="Check the name and the folder.")
    if os.path.isdir(path):
        yield open_dicom_folder(path, choice)
        return
    if not os.path.isfile(path):
        raise InputError("is no file", path=path, remedy="Choose a file or a folder.")
    with library_errors(path, "a file"):
        if os.path.getsize(path) == 0:
            raise InputError("is an empty file", path=path, remedy="Copy or export it again.")
        with open(path, "rb") as file:
            start = file.read(4)
    if start == _ZIP_MAGIC:
        with _unzipped(path) as inner, _open_image(inner, choice, label) as image:
            yield image
    else:
        yield _open_file(path, choice, label)


def _open_file(path: Path, choice: ScanChoice, label: bool) -> StoredImage:
    kind, head = ending(path), read_head(path)
    if kind in _NRRD_ENDINGS:
        return open_nrrd(path)
    if kind in _NIFTI_ENDINGS:
        return open_nifti(path)
    if head[128:132] == b"DICM" or path.name.upper() == "DICOMDIR" or _is_bare_dicom(kind, head):
        return _open_dicom(path, choice, label)
    if head.startswith(NRRD_MAGIC):
        return open_nrrd(path)
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return open_nifti(path)
    if head.startswith(HDF5_MAGIC) and kind in (".h5", ".hdf5"):
        return open_hdf5(path, label)
    return open_itk(path)


def _is_bare_dicom(kind: str, head: bytes) -> bool:
    """Return whether a file may be DICOM without a preamble."""
    return kind in _DICOM_ENDINGS and head[:2] == b"\x08\x00" and head[3:4] == b"\x00"


def _open_dicom(path: Path, choice: ScanChoice, label: bool) -> StoredImage:
    from pydicom import dcmread

    with library_errors(path, "a DICOM file"), quiet_pydicom():
        data = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID"])
        kind = str(data.get("SOPClassUID", "") or getattr(data.file_meta, "MediaStorageSOPClassUID", ""))
    if kind == DIRECTORY_CLASS or path.name.upper() == "DICOMDIR":
        return open_dicomdir(path, choice)
    if kind == SEGMENTATION_CLASS:
        if not label:
            raise InputError("is a segmentation, not a scan", path=path, remedy="Choose the scan that it belongs to.")
        return open_dicom_segments(path)
    return open_dicom_file(path, choice)


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """Extract a zip file for as long as the block runs: the image in it if there is one, or else the folder."""
    with tempfile.TemporaryDirectory(prefix="dcamt-") as folder:
        with library_errors(path, "a zip file"), zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
            if size > min(_MAXIMUM_UNZIPPED, shutil.disk_usage(folder).free):
                raise InputError(f"holds {size >> 30} GiB", path=path, remedy="Extract it, and choose the scan.")
            archive.extractall(folder)
        files = [file for file in Path(folder).rglob("*") if file.is_file() and not file.name.startswith(".")]
        images = [file for file in files if ending(file) in (*SCAN_ENDINGS, *LABEL_ENDINGS)]
        if len(images) > 1 and len(images) == len(files):
            names = ", ".join(sorted(file.name for file in images)[:5])
            what = f"holds {len(images)} images ({names}{', ...' if len(images) > 5 else ''})"
            raise InputError(what, path=path, remedy="Extract it, and choose one of them.")
        try:
            yield images[0] if len(images) == 1 else Path(folder)
        except InputError as error:
            inner = images[0] if len(images) == 1 else Path(folder)
            text = str(error).removeprefix(f"{path}: ").removeprefix(f"{inner}: ").replace(f"{folder}{os.sep}", "")
            raise InputError(text, path=path) from error


def _flatten_segments(layers: np.ndarray, segments: tuple[StoredSegment, ...]) -> np.ndarray:
    """Return the labels (I, J, K) of the segments in `layers` (L, I, J, K)."""
    labels = np.zeros(layers.shape[1:], dtype=np.min_scalar_type(max(segment.label for segment in segments)))
    for segment in segments:
        labels[layers[segment.layer] == segment.value] = segment.label
    return labels


def _map_labels(
    layers: np.ndarray, segments: tuple[StoredSegment, ...], mapping: Mapping[int | str, int], path: Path
) -> np.ndarray:
    """Return the labels (I, J, K), uint8, that `mapping` makes of the file's values and segments."""
    labels = np.zeros(layers.shape[1:], np.uint8)
    flat: np.ndarray | None = None
    for source, label in mapping.items():
        if isinstance(source, str):
            named = [segment for segment in segments if plain_name(segment.name or "") == plain_name(source)]
            if not named:
                known = ", ".join(f'"{segment.name}"' for segment in segments if segment.name)
                what = f'has no segment "{source}"{f", but {known}" if known else ""}'
                raise InputError(what, path=path, remedy="Name one of its segments or a label value.")
            for segment in named:
                labels[layers[segment.layer] == segment.value] = label
        else:
            if flat is None:
                flat = _flatten_segments(layers, segments) if segments else as_labels(layers[0], path)
            labels[flat == source] = label
    return labels
