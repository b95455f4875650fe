"""Read scans and labelmaps: choose the reader by a file's content and ending, and check the result."""

from __future__ import annotations

import codecs
import errno
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError, plain_number, without_path
from ..geometry import Grid
from ..process_settings import default_numpy_settings
from ..typed_names import plain_name
from ..volume import (
    Labelmap,
    OverlapNote,
    Volume,
    as_labels,
    check_channels,
    check_label_grid,
    check_scan,
    check_scan_grid,
)
from .blank_slices import blank_slices_note
from .channels import channel_files, names_of_channels, one_channel_note, read_channels
from .dicom import open_dicom_file, open_dicom_folder, open_dicomdir
from .dicom_completeness import dicomdir_files
from .dicom_files import (
    CONTOUR_CLASS,
    CONTOUR_REMEDY,
    DIRECTORY_CLASS,
    SEGMENTATION_CLASSES,
    begins_as_dicom,
    files_below,
    is_image_class,
    is_unplaced_capture,
    list_names,
    quiet_pydicom,
    stated_class,
)
from .dicom_segments import is_dicom_segmentation, open_dicom_segments, refuse_undescribed
from .dicom_stacks import ScanChoice
from .formats import (
    DICOM_SLICE_ENDINGS,
    ENDINGS_READ_BY_ITK,
    IMAGE_ENDINGS,
    LABEL_ENDINGS,
    SCAN_ENDINGS,
    ZIP_ENDING,
    AnyPath,
    ending,
    given_path,
)
from .hdf5 import MAGIC as HDF5_MAGIC
from .hdf5 import open_hdf5
from .interruption import interrupt_on_sigterm
from .itk import open_itk
from .nifti import open_nifti
from .nrrd import open_nrrd
from .nrrd_header import MAGIC as NRRD_MAGIC
from .segment_overlaps import MappingOption, overlap_notes
from .stored_image import StoredImage, StoredSegment, is_gzip, library_errors, open_zip, read_head
from .temporary import refuse_full_folder, temporary_folder
from .volume_content import may_hold_volume

_NRRD_ENDINGS = (".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr")
_NIFTI_ENDINGS = (".nii", ".nii.gz")
_ENDINGS_PREFERRED_IN_ARCHIVES = {*SCAN_ENDINGS, *LABEL_ENDINGS} - {*ENDINGS_READ_BY_ITK, ZIP_ENDING}
_ENDINGS_WITHOUT_SEGMENTS = {*IMAGE_ENDINGS} - {*_NRRD_ENDINGS, *DICOM_SLICE_ENDINGS, ZIP_ENDING}
_ZIP_MAGIC = b"PK\x03\x04"
_EMPTY_ZIP_MAGIC = b"PK\x05\x06"
_OTHER_KINDS = {
    b"7z\xbc\xaf\x27\x1c": "7z archive",
    b"Rar!\x1a\x07": "RAR archive",
    b"%PDF": "PDF document",
}
"""First bytes of files that are no scans, and the kinds of these files."""
_WEB_PAGE = re.compile(
    rb"(<\?[^>]*>\s*|<!--((?!-->).)*-->\s*)*"  # XML declarations and comments
    rb"<(!doctype html|html|head|body|([a-z]+:)?error)\b",
    re.IGNORECASE | re.DOTALL,
)
"""The start of a page or an error message that a server sent in place of a file."""
_JSON = re.compile(rb'{\s*"[^"]*"\s*:')
_EXTRACT = "Extract the archive, and choose the scan."
_ENCRYPTED = 1
"""The flag of an encrypted file in a zip file (APPNOTE.TXT of PKWARE, 4.4.4)."""
_MAXIMUM_UNZIPPED = 16 << 30
_MAPPING_IN_PYTHON = MappingOption("In Python, give the mapping as mapping=... to the function that reads the file.")


class LabelMapping(Protocol):
    """A mapping of label values or segment names to labels, such as `dict[str, int]` or `dict[int | str, int]`."""

    def items(self) -> Iterable[tuple[int | str, int]]: ...


@dataclass(frozen=True, eq=False)
class Header:
    """The number of channels and the grid of an image file; `partial` is as in `Labelmap`."""

    channels: int
    grid: Grid
    partial: bool = False


@default_numpy_settings()
def read_scan(path: AnyPath, channels: int = 1, choice: ScanChoice | None = None) -> Volume:
    """Read and check a scan.

    Args:
        path: a file in NIfTI, NRRD, MetaImage or another format of docs/formats.md, a folder with DICOM files (also in
            subfolders), a multi-frame DICOM file, a DICOMDIR, a zip file of one of these, or the left atrium
            benchmark's `.h5`.
        channels: the number of channels C that the scan must have: all in one file, or one in each of the files
            `x_0000`, `x_0001`, ..., of which `path` is the first.
        choice: a `dcamt.ScanChoice`: the image to read if a DICOM folder, DICOMDIR or file contains several.

    Returns:
        The scan. Intensities keep the file's type unless the file scales them. The scan's `notes` state what was
        skipped or assumed. Its `channel_names` are those of a `dataset.json` beside the file or one folder above.

    Raises:
        InputError: the file is missing, empty, damaged, two-dimensional or in no known format, is a DICOM segmentation,
            has a different number of channels, contains several images of which `choice` chooses none, or is not DICOM
            although `choice` is given; or `volume.check_scan` refuses the scan.
        TypeError: `choice` is not a `ScanChoice`.
    """
    path = given_path(path)
    if not isinstance(choice, ScanChoice | None):
        raise TypeError(f"choice must be a dcamt.ScanChoice, not {type(choice).__name__}")
    if channels > 1 and (files := channel_files(path)) and _has_one_channel(path, choice):
        volume = read_channels(path, files, channels, lambda file: _read_scan(file, 1, choice))
    else:
        volume = _read_scan(path, channels, choice)
    notes = (*one_channel_note(path), *volume.notes) if channels == 1 else volume.notes
    return replace(volume, notes=notes, channel_names=names_of_channels(path, channels))


def is_dicom_scan(path: Path) -> bool:
    """Return whether `read_scan` reads a scan as DICOM.

    A scan that is missing or cannot be read counts as DICOM; `read_scan` states what is wrong.
    """
    head = read_head(path) if os.path.isfile(path) else b""
    if not head or head.startswith(_EMPTY_ZIP_MAGIC):
        return True
    if not head.startswith(_ZIP_MAGIC):
        return _is_dicom_file(path, head)
    try:
        with _unzipped(path, label=False) as inner:
            return is_dicom_scan(inner)
    except InputError:
        return True


def _has_one_channel(path: Path, choice: ScanChoice | None) -> bool:
    # A file `x_0000` with several channels is a complete scan, so `x_0001` is not one of its channels.
    with _open_image(path, choice or ScanChoice()) as image:
        return image.channels == 1


def _read_scan(path: Path, channels: int, choice: ScanChoice | None) -> Volume:
    with _open_image(path, choice or ScanChoice()) as image:
        check_scan_grid(image.grid, path)
        check_channels(image.channels, channels, path)
        volume = Volume(image.load(), image.grid, path, image.notes, image.frames, modality=image.modality)
    check_scan(volume)
    return replace(volume, notes=(*volume.notes, *blank_slices_note(volume.voxels)))


@default_numpy_settings()
def read_labelmap(
    path: AnyPath,
    mapping: LabelMapping | None = None,
    option: MappingOption | None = _MAPPING_IN_PYTHON,
) -> Labelmap:
    """Read a labelmap from any format that `read_scan` reads, or from a segmentation (`.seg.nrrd`, DICOM SEG).

    Segments keep their label values if these are unique and above 0; otherwise the segments are numbered 1, 2, ... in
    the file's order. Where segments overlap, a voxel gets the label of the segment that is last in the file or, with
    `mapping`, last in `mapping`. Without `mapping`, the labelmap's `notes` name each segment that loses voxels to
    another segment (`OverlapNote`).

    A segmentation that was saved cropped to its segments stays cropped; `volume.fit_labelmap` extends it to its scan's
    grid.

    Args:
        mapping: maps segment names, or the label values that this function returns without `mapping`, to labels from 0
            (background) to 255. Values and segments that are not in `mapping` become background. The name "left atrium"
            also fits the segments "Left-Atrium" and "LeftAtrium".
        option: the option by which the user can give a mapping. The notes about overlaps advise this option. None if
            the user cannot give a mapping.

    Raises:
        InputError: the file cannot be read, as in `read_scan`; values are negative, fractional or above 2^32 - 1; or
            `mapping` has a name that no segment has, or a label that is not a whole number from 0 to 255. Unlike
            `read_scan`, this function accepts segmentations and blank or small images.
        TypeError: `mapping` is not a mapping.
    """
    path = given_path(path)
    if mapping is not None and not hasattr(mapping, "items"):
        raise TypeError(f"mapping must be a dict, such as {{420: 1}}, not {type(mapping).__name__}")
    with _open_image(path, ScanChoice(), label=True) as image:
        check_label_grid(image.grid, path, partial=bool(image.segments))
        if image.channels != 1 and not image.segments:
            remedy = "Save each labelmap as a file of its own."
            raise InputError(f"holds {image.channels} volumes, not one labelmap", path=path, remedy=remedy)
        layers, segments = image.load(), image.segments
    if segments:
        _refuse_undescribed_values(layers, segments, path)
    notes = image.notes
    if mapping is not None:
        labels = _map_labels(layers, segments, mapping, path)
    elif segments:
        labels, do_overlap = _flatten_segments(layers, segments)
        notes = (*notes, *(overlap_notes(layers, segments, labels, option) if do_overlap else ()))
    else:
        labels = as_labels(layers[0], path)
    return Labelmap(labels, image.grid, path, partial=bool(segments), notes=notes, finest_step_mm=image.finest_step_mm)


def map_labelmap(labelmap: Labelmap, mapping: LabelMapping) -> Labelmap:
    """Return the labelmap with its values mapped as in `read_labelmap`.

    Raises:
        InputError: `mapping` contains a name (a `Labelmap` has no named segments), or a label that is not a whole
            number from 0 to 255.
    """
    voxels = _map_labels(labelmap.voxels[None], (), mapping, labelmap.path)
    labels = {source: label for source, label in mapping.items() if isinstance(source, int)}
    notes = (
        OverlapNote(note, labels[note.label]) if isinstance(note, OverlapNote) else note
        for note in labelmap.notes_about(list(labels))
    )
    return replace(labelmap, voxels=voxels, notes=tuple(notes))


def read_segments(path: AnyPath) -> tuple[StoredSegment, ...]:
    """Return the segments of a segmentation file with the labels that `read_labelmap` gives them without a mapping.

    A file with the ending of a format without segments, such as `.nii.gz`, is not opened, and the result is ().

    Raises:
        InputError: the file cannot be opened, as in `read_labelmap`.
    """
    path = given_path(path)
    if ending(path) in _ENDINGS_WITHOUT_SEGMENTS and not os.path.isdir(path):
        return ()
    with _open_image(path, ScanChoice(), label=True) as image:
        return image.segments


def read_header(
    path: AnyPath, as_labelmap: bool = False, channels: int = 1, choice: ScanChoice | None = None
) -> Header:
    """Check and return the header of a scan or, with `as_labelmap`, of a labelmap.

    The segments of a labelmap count as one channel. If `channels` is above 1 and the file has one channel, the separate
    files `x_0000`, `x_0001`, ... are counted as channels (see `read_scan`). `choice` chooses the image, as in
    `read_scan`.

    Raises:
        InputError: the file is refused as in `read_scan` or, with `as_labelmap`, as in `read_labelmap`. A wrong number
            of channels and wrong voxels, such as fractional values of a labelmap, are not refused.
    """
    path = given_path(path)
    with _open_image(path, choice or ScanChoice(), label=as_labelmap) as image:
        if as_labelmap:
            check_label_grid(image.grid, path, partial=bool(image.segments))
        else:
            check_scan_grid(image.grid, path)
        image.verify()
        files = channel_files(path) if channels > 1 and image.channels == 1 else ()
        partial = as_labelmap and bool(image.segments)
        return Header(len(files) or (1 if partial else image.channels), image.grid, partial)


@contextmanager
def _open_image(path: Path, choice: ScanChoice, label: bool = False) -> Iterator[StoredImage]:
    # For a name that the system does not allow, os.path returns False, but pathlib raises an error.
    if not os.path.exists(path):
        raise missing_file_error(path)
    if os.path.isdir(path):
        segmentation = _segmentation_among(path, files_below(path)) if label else None
        yield open_dicom_folder(path, choice) if segmentation is None else open_dicom_segments(segmentation)
        return
    if not os.path.isfile(path):
        raise InputError("is not a regular file", path=path, remedy="Choose a file or a folder.")
    with library_errors(path, "a file"):
        if os.path.getsize(path) == 0:
            raise InputError("is an empty file", path=path, remedy="Copy or export the file again.")
        with open(path, "rb") as file:
            start = file.read(4)
    if start == _EMPTY_ZIP_MAGIC:
        raise InputError("is an empty zip file", path=path, remedy="Pack the scan again.")
    if start == _ZIP_MAGIC:
        with _unzipped(path, label) as inner, _open_image(inner, choice, label) as image:
            yield image
    else:
        yield _open_file(path, choice, label)


def missing_file_error(path: Path) -> InputError:
    """Return the error for a file or folder for which `os.path.exists` is False."""
    try:
        os.stat(path)
        cause = None
    except (OSError, ValueError) as error:
        cause = getattr(error, "errno", None)
    if cause == errno.EACCES:
        return InputError("cannot be read (no permission)", path=path, remedy="Change the permissions of its folder.")
    if os.path.islink(path):
        if cause == errno.ELOOP:
            return InputError("is a link that leads to itself", path=path, remedy="Copy the file itself.")
        what = f"is a link to a missing file, {os.readlink(path)}"
        remedy = "Copy the file itself, or fetch it, for instance with 'git annex get'."
        return InputError(what, path=path, remedy=remedy)
    return InputError("does not exist", path=path, remedy="Check the name and the folder.")


def _open_file(path: Path, choice: ScanChoice, label: bool) -> StoredImage:
    kind, head = ending(path), read_head(path)
    _refuse_other_kinds(path, head)
    if _is_dicom_file(path, head):
        return _open_dicom(path, choice, label)
    if choice != ScanChoice():
        what = "is not DICOM, so no series, kind of images or time point can be chosen"
        remedy = "Leave out the choice (in a terminal: --series, --frame-type and --time)."
        raise InputError(what, path=path, remedy=remedy)
    if kind in _NRRD_ENDINGS:
        return open_nrrd(path)
    if kind in _NIFTI_ENDINGS:
        return open_nifti(path)
    if head.startswith(NRRD_MAGIC):
        return open_nrrd(path)
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return open_nifti(path)
    if head.startswith(HDF5_MAGIC) and kind in (".h5", ".hdf5"):
        return open_hdf5(path, label)
    return open_itk(path)


def _is_dicom_file(path: Path, head: bytes) -> bool:
    has_other_ending = ending(path) in (*_NRRD_ENDINGS, *_NIFTI_ENDINGS)
    return not has_other_ending and (path.name.upper() == "DICOMDIR" or begins_as_dicom(path, head))


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        remedy = "Fetch the scan with 'git lfs pull'."
        raise InputError("is a pointer of Git LFS, not a scan", path=path, remedy=remedy)
    if head.count(b"\n") < 2 and b"/annex/objects/" in head:
        remedy = "Fetch the scan with 'git annex get' or 'datalad get'."
        raise InputError("is a pointer of git-annex, not a scan", path=path, remedy=remedy)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if _WEB_PAGE.match(text):
        raise InputError("is a web page, not a scan", path=path, remedy="Download the scan again.")
    if _JSON.match(text):
        raise InputError("is a JSON file, not a scan", path=path, remedy="Choose the scan, or download it again.")
    kind = next((name for magic, name in _OTHER_KINDS.items() if head.startswith(magic)), "")
    if head[257:262] == b"ustar":
        kind = "tar archive"
    if kind:
        remedy = _EXTRACT if "archive" in kind else "Choose the scan."
        raise InputError(f"is a {kind}, not a scan", path=path, remedy=remedy)


def _open_dicom(path: Path, choice: ScanChoice, label: bool) -> StoredImage:
    from pydicom import dcmread

    if is_gzip(path):
        raise InputError("is a DICOM file compressed with gzip", path=path, remedy="Decompress the file.")
    with library_errors(path, "a DICOM file"), quiet_pydicom():
        data = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID"])
        kind = str(data.get("SOPClassUID", "") or getattr(data.file_meta, "MediaStorageSOPClassUID", ""))
    if kind == DIRECTORY_CLASS or path.name.upper() == "DICOMDIR":
        segmentation = _segmentation_among(path, dicomdir_files(path)) if label else None
        return open_dicomdir(path, choice) if segmentation is None else open_dicom_segments(segmentation)
    if kind in SEGMENTATION_CLASSES:
        if not label:
            remedy = "Choose the scan that it belongs to."
            raise InputError("is a segmentation, not a scan", path=path, remedy=remedy)
        return open_dicom_segments(path)
    if label and kind == CONTOUR_CLASS:
        raise InputError("holds contours (RT Structure Set), not labels", path=path, remedy=CONTOUR_REMEDY)
    return open_dicom_file(path, choice)


def _segmentation_among(path: Path, files: Sequence[Path]) -> Path | None:
    segmentations = [file for file in files if is_dicom_segmentation(file)]
    if len(segmentations) > 1:
        what = f"holds {len(segmentations)} segmentations: {list_names([file.name for file in segmentations])}"
        raise InputError(what, path=path, remedy="Choose one of the files.")
    return segmentations[0] if segmentations else None


@contextmanager
def _unzipped(path: Path, label: bool) -> Iterator[Path]:
    """Extract a zip file for the duration of the block.

    An InputError from inside the block is raised again with the zip file's path.

    Yields:
        The first of these that applies:

        - the folder with all extracted files, if a scan (not a labelmap) is read and the folder holds a DICOM image;
        - the only file with one of `_ENDINGS_PREFERRED_IN_ARCHIVES`;
        - the folder with all extracted files, if it holds a DICOM file;
        - the only file with one of `ENDINGS_READ_BY_ITK`, such as `.tif`; if there are several such files, the only one
          of them that may hold a volume (see `may_hold_volume`);
        - the folder with all extracted files.
    """
    # A signal would otherwise end the process at once and leave the extracted scan on the disk.
    with interrupt_on_sigterm(), temporary_folder() as folder:
        _extract(path, folder)
        inner = _image_in_archive(path, Path(folder), label)
        try:
            yield inner
        except InputError as error:
            text = without_path(error, path, inner).replace(f"{folder}{os.sep}", "")
            raise InputError(text, path=path) from error


def _extract(path: Path, folder: str) -> None:
    with library_errors(path, "a zip file"), open_zip(path) as archive:
        size = sum(item.file_size for item in archive.infolist())
        if size > min(_MAXIMUM_UNZIPPED, shutil.disk_usage(folder).free):
            what = f"holds {plain_number(size / 2**30, 2)} GiB, too much to extract to the temporary folder"
            raise InputError(what, path=path, remedy=_EXTRACT)
        if any(item.flag_bits & _ENCRYPTED for item in archive.infolist()):
            raise InputError("is protected by a password", path=path, remedy=_EXTRACT)
        try:
            archive.extractall(folder, archive.infolist())
        except RuntimeError as error:  # Python lacks the compression method, such as Deflate64.
            raise InputError("is compressed by a method that cannot be read", path=path, remedy=_EXTRACT) from error
        except OSError as error:
            refuse_full_folder(error, path)
            raise


def _image_in_archive(path: Path, folder: Path, label: bool) -> Path:
    """Return the image to read among the extracted files, or `folder`, as described for `_unzipped`."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    images = [file for file in files if ending(file) in _ENDINGS_PREFERRED_IN_ARCHIVES]
    dicom = [file for file in files if ending(file) not in _ENDINGS_PREFERRED_IN_ARCHIVES and _looks_like_dicom(file)]
    if len(images) == 1 and (label or not any(map(_is_image_of_scan, dicom))):
        return images[0]
    if dicom:
        return folder
    others = [file for file in files if ending(file) in ENDINGS_READ_BY_ITK]
    images = images or (list(filter(may_hold_volume, others)) if len(others) > 1 else others)
    if len(images) > 1:
        what = f"holds {len(images)} images ({list_names(sorted(file.name for file in images))})"
        raise InputError(what, path=path, remedy="Extract the archive, and choose one of its images.")
    if others and not images:
        what = f"holds no volume of at least three slices ({list_names(sorted(file.name for file in others))})"
        raise InputError(what, path=path, remedy="Save the scan as one file, such as p1.nii.gz.")
    if images:
        return images[0]
    if files and all(map(zipfile.is_zipfile, files)):
        names = list_names(sorted(file.name for file in files))
        what = f"holds {'another zip file' if len(files) == 1 else 'zip files'} ({names})"
        raise InputError(what, path=path, remedy="Extract the archive, and choose a zip file inside.")
    return folder


def _looks_like_dicom(file: Path) -> bool:
    return ending(file) in DICOM_SLICE_ENDINGS or stated_class(file) is not None


def _is_image_of_scan(file: Path) -> bool:
    sop_class = stated_class(file) or ""
    return is_image_class(sop_class) and not is_unplaced_capture(file, sop_class)


def _refuse_undescribed_values(layers: np.ndarray, segments: Sequence[StoredSegment], path: Path) -> None:
    for index, layer in enumerate(layers):
        described = [segment.value for segment in segments if segment.layer == index]
        if np.isin(layer, [0, *described], invert=True).any():
            refuse_undescribed(path, set(np.unique(layer[layer != 0]).tolist()), described)


def _flatten_segments(layers: np.ndarray, segments: tuple[StoredSegment, ...]) -> tuple[np.ndarray, bool]:
    """Return the labels (I, J, K) of the segments in `layers` (L, I, J, K), and whether segments overlap."""
    labels = np.zeros(layers.shape[1:], dtype=np.min_scalar_type(max(segment.label for segment in segments)))
    do_overlap = False
    for segment in segments:
        mask = layers[segment.layer] == segment.value
        do_overlap = do_overlap or bool(labels[mask].any())
        labels[mask] = segment.label
    return labels, do_overlap


def _map_labels(
    layers: np.ndarray, segments: tuple[StoredSegment, ...], mapping: LabelMapping, path: Path | None
) -> np.ndarray:
    labels = np.zeros(layers.shape[1:], np.uint8)
    stored = None if segments else as_labels(layers[0], path)
    for source, label in mapping.items():
        if label not in range(256):
            what = f"cannot be mapped: the mapping gives {source!r} the label {label}"
            raise InputError(what, path=path, remedy="In the mapping, write labels from 0 (background) to 255.")
        if isinstance(source, str):
            chosen = _segments_of_name(source, segments, path)
        elif stored is None:
            chosen = [segment for segment in segments if segment.label == source]
        else:
            labels[stored == source] = label
            continue
        for segment in chosen:
            labels[layers[segment.layer] == segment.value] = label
    return labels


def _segments_of_name(name: str, segments: tuple[StoredSegment, ...], path: Path | None) -> list[StoredSegment]:
    named = [segment for segment in segments if plain_name(segment.name or "") == plain_name(name)]
    if not named:
        known = ", ".join(f'"{segment.name}"' for segment in segments if segment.name)
        what = f'has no segment "{name}"{f", but {known}" if known else ""}'
        raise InputError(
            what, path=path, remedy="In the mapping, write the name of a segment of the file, or a label value."
        )
    return named
