"""Read DICOM headers; collect the frames of images, and list damaged files and files of other kinds."""

from __future__ import annotations

import logging
import os
import re
import struct
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from ..errors import InputError, MissingPackage, package_error
from ..process_settings import shared_by_threads
from .dicom_frames import Frame, UnplacedError, frames_of, integer, words_of
from .formats import DICOM_SLICE_ENDINGS, ending
from .stored_image import library_errors, open_zip

OLDEST_PYDICOM = (3, 0, 1)
SEGMENTATION_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # binary or fractional
    "1.2.840.10008.5.1.4.1.1.66.7",  # labelmap
)
CONTOUR_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
"""SOP class of contours for radiotherapy (RT Structure Set)."""
CONTOUR_REMEDY = "Convert them to a segmentation, for instance in 3D Slicer with the extension SlicerRT."
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_IMAGE_CLASSES = {
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        *("2", "2.1", "2.2"),  # CT, enhanced, legacy converted enhanced
        *("4", "4.1", "4.4"),  # MR
        *("128", "130", "128.1"),  # PET
        *("7", "7.2", "7.3"),  # secondary capture
        "13.1.1",  # X-ray 3D angiographic
    )
}
_CAPTURES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("7", "7.1", "7.2", "7.3", "7.4"))
_OTHER_ENDINGS = frozenset(
    (
        *(".txt", ".xml", ".json", ".csv", ".pdf", ".rtf", ".doc", ".docx", ".xls", ".xlsx", ".log", ".md"),
        *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".html", ".htm", ".js", ".css", ".ico"),
        *(".ini", ".inf", ".db", ".exe", ".dll", ".bat", ".sh", ".py", ".zip"),
        *(".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".raw", ".vtk", ".stl", ".mrml", ".mrb"),
    )
)
"""Files with these endings are not opened."""
_CLASS_TAG = 0x00080016  # SOP class
_UID = re.compile(rb"[ -~]*[!-~][ -~]*\0?")  # Some programs write letters or blanks, which DICOM forbids.
_MEDIA_CLASS = b"\x02\x00\x02\x00UI"  # Tag and VR of the SOP class in the file meta information.
_PIXEL_DATA = (0x7FE0, 0x0010)
_PIXEL_VRS = (b"OB", b"OW", b"UN")
_HAS_JUNCTIONS = sys.platform == "win32"  # `os.path.islink` does not recognise them.
_UNDEFINED_LENGTH = 0xFFFFFFFF  # Stands for compressed pixel data, which have items and an end marker.
_ITEM, _END_MARKER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_SHOWN = 8  # `list_names` shows at most this many names.
_MAXIMUM_FILES = 100_000


Fault = Literal["damaged", "unplaced", "colour", "foreign"]
"""Why the frames of a file cannot be used:

- damaged: the file is damaged or cannot be read,
- unplaced: the header does not state where the images lie in the patient,
- colour: the images are in colour,
- foreign: the file is of another kind, for example an RT Structure Set.
"""


@dataclass(frozen=True)
class RejectedFile:
    """A file whose frames cannot be used.

    Attributes:
        what: the fault or the kind of file in words, such as "empty", "no DICOM" or "RT Structure Set".
        series: the SeriesInstanceUID; "" if missing or damaged.
        instance: number of a foreign file in its series; 0 if not stated.
    """

    file: Path
    fault: Fault
    what: str
    series: str = ""
    instance: int = 0


@dataclass(frozen=True, eq=False)
class FoundFiles:
    """The frames of grey images that have a place in the patient, and the files without such frames."""

    frames: list[Frame]
    rejected: list[RejectedFile]

    def rejected_as(self, fault: Fault) -> list[RejectedFile]:
        """Return the rejected files with this fault."""
        return [rejected for rejected in self.rejected if rejected.fault == fault]


def walk_folders(
    folder: Path, ignored: Iterable[Path] = (), on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Yield each folder from `folder` down, its subfolders' names and its files, in the order of names.

    Hidden files, hidden folders, folders named `__MACOSX...` and the folders `ignored` are left out. Links to folders
    (on Windows also junctions) are followed, except links that lead to:

    - `folder` itself or a folder inside `folder`,
    - a folder that contains the link, because the search would never end, or
    - a folder to which an earlier link leads.

    Args:
        on_error: is called with the error for each folder that cannot be listed. The error's `filename` is the folder's
            path.
    """
    root = os.path.realpath(folder)
    left_out = {os.path.realpath(path) for path in ignored}
    followed: set[str] = set()

    def is_searched(place: str, name: str) -> bool:
        path = os.path.join(place, name)
        if not (left_out or _HAS_JUNCTIONS or os.path.islink(path)):
            return True
        above, real = os.path.realpath(place), os.path.realpath(path)
        is_link = real != os.path.join(above, name)
        if not is_link or real in left_out:
            return real not in left_out
        is_left_out = real in followed or _is_within(real, root) or _is_within(above, real)
        followed.add(real)
        return not is_left_out

    for place, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        shown = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        folders[:] = [name for name in shown if is_searched(place, name)]
        yield Path(place), folders, [Path(place, name) for name in sorted(names) if not name.startswith(".")]


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def unreadable_folders(folder: Path, ignored: Iterable[Path] = ()) -> list[Path]:
    """Return the folders from `folder` down that cannot be listed, such as `lost+found` on a disk of Linux."""
    unreadable: list[Path] = []
    for _ in walk_folders(folder, ignored, lambda error: unreadable.append(Path(error.filename))):
        pass
    return unreadable


def files_below(folder: Path, on_error: Callable[[OSError], None] | None = None) -> list[Path]:
    """Return the files of a folder, then those of each subfolder, as `walk_folders` finds them.

    Raises:
        InputError: there are more than 100000 files.
    """
    files: list[Path] = []
    with library_errors(folder, "a folder"):
        for _, _, inside in walk_folders(folder, on_error=on_error):
            files += inside
            if len(files) > _MAXIMUM_FILES:
                raise InputError("holds more than 100000 files", path=folder, remedy="Choose the series' own folder.")
    return files


def is_dicom_name(path: Path) -> bool:
    """Return whether a file may be DICOM by its name."""
    return not (path.name.startswith(".") or path.name.upper() == "DICOMDIR" or path.suffix.lower() in _OTHER_ENDINGS)


def is_no_file(path: Path) -> bool:
    """Return whether a path leads to a folder, pipe, socket or device.

    False for a missing file and for a link to a missing file.
    """
    return os.path.exists(path) and not os.path.isfile(path)


def is_dicom_head(head: bytes) -> bool:
    """Return whether a file begins with DICOM's preamble or file meta information."""
    is_meta_information = head[:2] == b"\x02\x00" and head[4:6] in (b"UL", b"OB", b"UI")
    return head[128:132] == b"DICM" or is_meta_information


def _is_bare_head(head: bytes) -> bool:
    """Return whether a file may be a data set without file meta information: its first bytes are a tag of group 8."""
    return head[:2] == b"\x08\x00" and head[3:4] == b"\x00"


def begins_as_dicom(path: Path, head: bytes) -> bool:
    """Return whether a file with the first bytes `head` may be DICOM.

    A file without preamble and meta information must also have a fitting name: `slice.dcm`, `IM0001` or `1.2.840.113`.
    """
    kind = ending(path)
    ends_like_uid = kind[1:].isdecimal()
    is_named_like_slice = kind in (*DICOM_SLICE_ENDINGS, "") or ends_like_uid
    return is_dicom_head(head) or (_is_bare_head(head) and is_named_like_slice)


def stated_class(path: Path) -> str | None:
    """Return the SOP class that a file states; "" if it states none, None if the file does not begin as DICOM."""
    try:
        if is_no_file(path):
            return None
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError:
        return None
    if not begins_as_dicom(path, head):
        return None
    at = head.find(_MEDIA_CLASS)  # Much faster than `read_attributes`.
    if at < 0:
        return str((read_attributes(path, "SOPClassUID") or {}).get("SOPClassUID", ""))
    start = at + len(_MEDIA_CLASS) + 2
    return head[start : start + int.from_bytes(head[start - 2 : start], "little")].decode("latin-1").rstrip("\0 ")


def is_image_class(sop_class: str) -> bool:
    """Return whether a scan may consist of images of this SOP class; True if no class is stated ("")."""
    return not sop_class or sop_class in _IMAGE_CLASSES


def is_unplaced_capture(path: Path, sop_class: str) -> bool:
    """Return whether a file of this SOP class is a screenshot: a Secondary Capture that states no position."""
    if sop_class not in _CAPTURES:
        return False
    places = ("ImagePositionPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    return read_attributes(path, *places) == {}


def read_dicom(file: Path | IO[bytes], **options: Any) -> Any:
    """Return the data set of a DICOM file with or without a preamble; pydicom's `dcmread` gets `options`.

    If the file states no transfer syntax, the data set gets the syntax that fits the encoding.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    _refuse_old_pydicom()
    with open(file, "rb") if isinstance(file, Path) else nullcontext(file) as stream:
        head = stream.read(132)
        stream.seek(0)
        data = dcmread(stream, force=is_dicom_head(head) or _is_bare_head(head), **options)
    if "TransferSyntaxUID" not in getattr(data, "file_meta", ()):
        data.ensure_file_meta()
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if _encoding_of(data)[0] else ExplicitVRLittleEndian
    return data


def _refuse_old_pydicom() -> None:
    from pydicom import __version__

    if tuple(map(int, re.findall(r"\d+", __version__)[:3])) < OLDEST_PYDICOM:
        oldest = ".".join(map(str, OLDEST_PYDICOM))
        what = f"pydicom {__version__} is too old: DCAMT needs {oldest} or later"
        raise MissingPackage(what, remedy="Update the package, then try again.", packages=["pydicom"])


def read_attributes(file: Path | IO[bytes], *keywords: str) -> dict[str, Any] | None:
    """Return the value of each of `keywords` that a file's header has; None if the file cannot be read as DICOM."""
    try:
        with quiet_pydicom():
            header = read_dicom(file, stop_before_pixels=True, specific_tags=list(keywords))
            return {keyword: header.get(keyword) for keyword in keywords if keyword in header}
    except Exception as error:  # pydicom raises errors of many types.
        if package_error(error) is not None:
            raise
        return None


def read_attributes_in_zip(archive: Path, extracted: Path, *keywords: str) -> dict[str, Any] | None:
    """Return what `read_attributes` returns for a member of a zip file.

    Args:
        extracted: the path at which the member was extracted. The file may be gone.
    """
    try:
        with open_zip(archive) as members:
            infos = {_extracted_name(info.filename): info for info in members.infolist()}
            names = [name for name in infos if extracted.as_posix().endswith(f"/{name}")]
            with members.open(infos[max(names, key=len)]) as member:
                return read_attributes(member, *keywords)
    except (OSError, ValueError, zipfile.BadZipFile):
        return None


def _extracted_name(member: str) -> str:
    """Return the path at which `ZipFile.extractall` extracts a member."""
    return "/".join(part for part in member.split("/") if part not in ("", ".", ".."))


def read_files(files: Iterable[Path]) -> FoundFiles:
    """Return the frames of usable files, and the rejected files; a DICOMDIR adds to neither list."""
    frames: list[Frame] = []
    rejected: list[RejectedFile] = []
    for file in files:
        found = _read_file(file)
        if isinstance(found, RejectedFile):
            rejected.append(found)
        else:
            frames += found
    return FoundFiles(frames, rejected)


def _read_file(path: Path) -> list[Frame] | RejectedFile:
    from pydicom.errors import InvalidDicomError

    try:
        size = path.stat().st_size
        if size == 0:
            return RejectedFile(path, "damaged", "empty")
        with open(path, "rb") as file, quiet_pydicom():
            head = file.read(132)
            file.seek(0)
            data = read_dicom(file, stop_before_pixels=True)
            held = _pixel_bytes(file, data, size)
    except InvalidDicomError:
        # A file that is named like a slice or begins with zeros may be a damaged slice.
        if path.suffix.lower() in DICOM_SLICE_ENDINGS:
            return RejectedFile(path, "damaged", "no DICOM")
        if not any(head) and not _is_data_of_pair(path):
            return RejectedFile(path, "damaged", "begins with zeros")
        return RejectedFile(path, "foreign", "no DICOM")
    except MissingPackage:
        raise
    except OSError as error:
        return RejectedFile(path, "damaged", error.strerror or "unreadable")
    except Exception:
        return RejectedFile(path, "damaged", "damaged")
    with quiet_pydicom():
        series = _series_of(data)
        try:
            return _read_frames(path, data, held, series)
        except Exception:
            return RejectedFile(path, "damaged", "damaged header", series)


def _series_of(data: Any) -> str:
    """Return the SeriesInstanceUID; "" if it is missing or damaged."""
    try:
        raw = data.get_item("SeriesInstanceUID")
        is_whole = len(raw.value) == raw.length and _UID.fullmatch(raw.value)
        return str(data.SeriesInstanceUID) if is_whole else ""
    except Exception:  # pydicom raises errors of many types.
        return ""


def _is_data_of_pair(path: Path) -> bool:
    """Return whether a file is the `.img` of an Analyze or NIfTI pair, whose voxels may begin with zeros."""
    headers = (path.with_suffix(kind) for kind in (".hdr", ".HDR"))
    return path.suffix.lower() == ".img" and any(map(Path.is_file, headers))


def _read_frames(path: Path, data: Any, held: int | None, series: str) -> list[Frame] | RejectedFile:
    """Return the frames of a file with the header `data`.

    Args:
        held: the result of `_pixel_bytes`.
        series: the result of `_series_of`.
    """
    meta = getattr(data, "file_meta", None)
    kind = str(data.get("SOPClassUID", "") or getattr(meta, "MediaStorageSOPClassUID", ""))
    cut = RejectedFile(path, "damaged", "cut", series)
    foreign = partial(RejectedFile, path, "foreign", series=series, instance=integer(data.get("InstanceNumber")))
    if kind == DIRECTORY_CLASS:
        return []
    last_tag = max(map(int, data.keys()), default=0)
    may_be_cut_in_sop_class = held is None and last_tag <= _CLASS_TAG
    if may_be_cut_in_sop_class:
        return cut
    if kind not in _IMAGE_CLASSES and (kind or "Rows" not in data):
        return foreign(class_name(kind))
    if "MOSAIC" in [word.upper() for word in words_of(data.get("ImageType"))]:
        return RejectedFile(path, "foreign", "mosaic of several slices")
    try:
        frames = frames_of(path, data)
    except UnplacedError as error:
        if kind in _CAPTURES:
            return foreign("Secondary Capture without a position")
        return cut if held is None else RejectedFile(path, "unplaced", str(error), series)
    expected = _expected_bytes(data)
    if held is None or (expected is not None and held < expected):
        return cut
    if expected and held >= expected + expected // len(frames):
        return RejectedFile(path, "damaged", "more pixels than its header states", series)
    photometric = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(data.get("SamplesPerPixel", 1)) != 1 or not photometric.startswith("MONOCHROME"):
        if kind in _CAPTURES:
            return foreign("Secondary Capture in colour")
        return RejectedFile(path, "colour", "colour images", series)
    return frames


def class_name(sop_class: str) -> str:
    """Return the name of an SOP class, such as "MR Image".

    An unknown UID is returned unchanged. For text that is not a UID, the result is "unknown kind".
    """
    from pydicom.uid import UID

    known = re.fullmatch(r"[0-9.]{1,64}", sop_class)
    return UID(sop_class).name.removesuffix(" Storage") if known else "unknown kind"


def _pixel_bytes(file: Any, data: Any, size: int) -> int | None:
    """Return the number of bytes of pixel data in a file.

    The result is None for missing or cut pixel data, and -1 for compressed pixel data.

    Args:
        file: the open file, positioned at the pixel data.
        data: the attributes before the pixel data.
    """
    syntax = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is not None and syntax.is_deflated:
        return -1 if "Rows" in data else None
    at = file.tell()
    head = file.read(12)
    _, little = _encoding_of(data)
    order = "<" if little else ">"
    if len(head) < 8 or struct.unpack(f"{order}2H", head[:4]) != _PIXEL_DATA:
        return None
    # Bytes after the tag:
    # - explicit VR: the VR ("OB", "OW" or "UN"), two unused bytes, the length in four bytes;
    # - implicit VR: the length in four bytes.
    has_explicit_vr = head[4:6] in _PIXEL_VRS
    if has_explicit_vr:
        length, start = struct.unpack(f"{order}I", head[8:12])[0], at + 12
    else:
        length, start = struct.unpack(f"{order}I", head[4:8])[0], at + 8
    if length != _UNDEFINED_LENGTH:
        return int(length) if start + length <= size else None
    while True:
        file.seek(start)
        item = file.read(8)
        if len(item) < 8:
            return None
        group, element, length = struct.unpack("<2HI", item)
        if (group, element) == _END_MARKER:
            return -1
        if (group, element) != _ITEM or start + 8 + length > size:
            return None
        start += 8 + length


def _encoding_of(data: Any) -> tuple[bool, bool]:
    """Return whether a file has implicit VR, and whether it is little-endian."""
    implicit, little = getattr(data, "original_encoding", None) or (data.read_implicit_vr, data.read_little_endian)
    return bool(implicit), little is not False


def _expected_bytes(data: Any) -> int | None:
    """Return the number of bytes of pixel data according to the header; None for compressed pixel data."""
    syntax = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is not None and (syntax.is_encapsulated or syntax.is_deflated):
        return None
    number = int(data.get("NumberOfFrames", 1) or 1)
    pixels = int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel", 1)) * number
    return pixels * int(data.BitsAllocated) // 8


def list_names(names: Sequence[str]) -> str:
    """Return text with the first `_SHOWN` names and the number of further names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


class _CaughtWarnings(threading.local):
    texts: list[str] | None = None


_caught = _CaughtWarnings()


@contextmanager
def quiet_pydicom() -> Iterator[list[str]]:
    """Suppress pydicom's log messages and all warnings inside the block; yield the warnings of this thread."""
    outer = _caught.texts
    _caught.texts = texts = list[str]()
    try:
        with _quiet_process():
            yield texts
    finally:
        _caught.texts = outer


@shared_by_threads
def _quiet_process() -> Iterator[None]:
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = _catch_warning
            yield
    finally:
        logger.setLevel(level)


def _catch_warning(message: Warning | str, *_: object, **__: object) -> None:
    if _caught.texts is not None:
        _caught.texts.append(str(message))
