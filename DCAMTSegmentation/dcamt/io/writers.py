"""Write labelmaps, segmentations and volumes as NRRD or NIfTI, and recognise files that DCAMT wrote."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import DCAMTError, InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import Code, Labelmap, SegmentInfo, Volume, as_labels, check_grid
from .atomic import atomic_path
from .dicom_files import is_dicom_head
from .dicom_output import pixel_checksums
from .formats import (
    LABELMAP_OUTPUTS,
    REPORT_ENDINGS,
    VOLUME_OUTPUTS,
    AnyPath,
    ending,
    given_path,
    same_named_nifti,
)
from .surfaces import SURFACE_OUTPUTS

_COMPRESSION = 4  # of 9; higher levels hardly make files smaller, and take seconds longer for large labelmaps
_HEAD_BYTES, _BLOCK_BYTES = 1 << 16, 1 << 20
_UNREADABLE = (OSError, EOFError, zlib.error, DCAMTError)
_CODE_START = "\x1a"  # starts the code of a character that is not ASCII: `_to_ascii` writes "ä" as "\x1a228;"
_DESCRIP = slice(148, 228)  # bytes of `descrip` in the NIfTI-1 header
_NIFTI_HEADER_BYTES = 352  # bytes before the voxels in a file that nibabel wrote
_NIFTI_ENDINGS, _NRRD_ENDINGS = (".nii", ".nii.gz"), (".nrrd", ".seg.nrrd")
TERMINOLOGY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_ANATOMY_CONTEXT = "Anatomic codes - DICOM master list"


MARK = "DCAMT"
"""Mark of the files that this module writes: a key in the NRRD header, and the first word of NIfTI's `descrip`."""
_CHECKSUM = "DCAMT_CRC32"
"""NRRD key of the voxels' checksum. In NIfTI, `descrip` contains the checksum after the mark, without this key.

A program that edits the voxels may keep the mark. The checksum then no longer fits the voxels and shows the edit. Older
versions of DCAMT wrote no checksum.
"""


def write_labelmap(
    labelmap: Labelmap, path: AnyPath, segments: Sequence[SegmentInfo] = (), *, mark: bool = False
) -> None:
    """Write a labelmap in the format of the path's ending: `.seg.nrrd` (with segments), `.nrrd`, `.nii.gz` or `.nii`.

    The file is written completely or not at all.

    Args:
        segments: name, colour and codes of each label value; required for `.seg.nrrd`, otherwise ignored.
        mark: whether the file gets the mark of DCAMT's results (`is_dcamt_result`). A labelmap with the mark counts as
            an uncorrected result, not as an expert's outline.

    Raises:
        InputError: the ending is not that of a labelmap file, the voxels are not whole numbers from 0 to 2^32 - 1,
            `volume.check_grid` refuses the grid, or the file would be `x.nii` beside `x.nii.gz` or the reverse.
        OutputError: the file cannot be written.
        ValueError: a label value of a `.seg.nrrd` has no segment, or two segments have the same label value.
    """
    path = given_path(path)
    kind = ending(path)
    check_grid(labelmap.grid, path)
    voxels = as_labels(labelmap.voxels, path)
    if kind == ".seg.nrrd":
        _write_segmentation(voxels, labelmap.grid, path, segments, mark)
    elif kind == ".nrrd":
        _write_nrrd(voxels, labelmap.grid, path, mark)
    elif kind in (".nii", ".nii.gz"):
        _write_nifti(voxels, labelmap.grid, path, mark)
    else:
        raise InputError(
            "does not have the ending of a labelmap",
            path=path,
            remedy=f"Use {' or '.join(LABELMAP_OUTPUTS)}.",
        )


def write_volume(volume: Volume, path: AnyPath, *, mark: bool = False) -> None:
    """Write a scan or map in the format of the path's ending: `.nrrd`, `.nii.gz` or `.nii`.

    Several channels become the last axis of NIfTI, or the first axis (kind "list") of NRRD. The voxels keep their type,
    except bool (written as uint8) and float16 (as float32). The file is written completely or not at all.

    Args:
        mark: as for `write_labelmap`.

    Raises:
        InputError: the ending is not that of a volume file, `volume.check_grid` refuses the grid, or the file would be
            `x.nii` beside `x.nii.gz` or the reverse.
        OutputError: the file cannot be written.
    """
    path = given_path(path)
    kind = ending(path)
    check_grid(volume.grid, path)
    voxels = volume.voxels
    widened = {"bool": np.uint8, "float16": np.float32}.get(voxels.dtype.name)
    if widened is not None:
        voxels = voxels.astype(widened)
    voxels = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False)
    if kind == ".nrrd":
        _write_nrrd(voxels[0] if len(voxels) == 1 else voxels, volume.grid, path, mark)
    elif kind in (".nii", ".nii.gz"):
        _write_nifti(voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1), volume.grid, path, mark)
    else:
        raise InputError(
            "does not have the ending of a volume",
            path=path,
            remedy=f"Use {' or '.join(VOLUME_OUTPUTS)}.",
        )


def same_name_output_error(path: Path, other: Path) -> InputError:
    """Return the error for a NIfTI file that would lie beside `other`, its `same_named_nifti`."""
    plain = min(path.name, other.name, key=len)
    what = f"would lie beside {other.name}, and 3D Slicer would read the voxels of {plain} for both files"
    remedy = "Give another name, folder or format."
    if os.path.lexists(other):
        remedy = f"Give another name, folder or format, or move {other.name}."
    return InputError(what, path=path, remedy=remedy)


def is_dcamt_result(path: Path) -> bool:
    """Return whether a file has the mark of DCAMT and unchanged voxels; False if the file cannot be read.

    Slicer drops the mark when it saves a segmentation. Without a checksum in the file, the mark alone decides.
    """
    try:
        stated, status = _stated_checksum(path), path.stat()
        return stated is not None and (not stated or stated == _checksum_in(path, (status.st_mtime_ns, status.st_size)))
    except _UNREADABLE:
        return False


def has_mark(path: Path) -> bool:
    """Return whether a file has the mark of DCAMT, even if its voxels have changed; False if it cannot be read."""
    try:
        return _stated_checksum(path) is not None
    except _UNREADABLE:
        return False


def _stated_checksum(path: Path) -> str | None:
    """Return the checksum that a file's mark states; "" for a mark without checksum, None for a file without mark."""
    kind = ending(path)
    with _open(path) as file:
        head = file.read(_HEAD_BYTES)
    if kind in _NIFTI_ENDINGS:
        header, mark, checksum = head[_DESCRIP], rf"^{MARK}", rf"^{MARK} result (\w+)"
    elif kind in _NRRD_ENDINGS:
        header, mark, checksum = head.partition(b"\n\n")[0], rf"\n{MARK}:=", rf"\n{_CHECKSUM}:=(\w+)"
    else:
        return _stated_in_other_format(path, head)
    if not re.search(mark.encode(), header):
        return None
    found = re.search(checksum.encode(), header)
    return found[1].decode() if found else ""


def _stated_in_other_format(path: Path, head: bytes) -> str | None:
    """Return the result of `_stated_checksum` for a file that is neither NRRD nor NIfTI.

    In DICOM files, surfaces and reports, the mark is the word "DCAMT" anywhere in the first 64 KiB.
    """
    if MARK.encode() not in head:
        return None
    if is_dicom_head(head):
        return pixel_checksums(path)[0]
    return "" if ending(path) in (*SURFACE_OUTPUTS, *REPORT_ENDINGS) else None


@lru_cache(maxsize=1 << 16)  # A command may examine a folder of thousands of results several times.
def _checksum_in(path: Path, state: tuple[int, int]) -> str:
    """Return the checksum of the voxels in a file with a mark, cached until `state` (time and size) changes."""
    kind = ending(path)
    if kind in _NRRD_ENDINGS:
        with open(path, "rb") as file:
            # The voxels are a gzip stream. It ends with the CRC-32 and the size of the uncompressed data (RFC 1952), 4
            # bytes each.
            file.seek(-8, os.SEEK_END)
            return f"{int.from_bytes(file.read(4), 'little'):08x}"
    if kind in _NIFTI_ENDINGS:
        checksum = 0
        with _open(path) as file:
            file.seek(_NIFTI_HEADER_BYTES)
            while block := file.read(_BLOCK_BYTES):
                checksum = zlib.crc32(block, checksum)
        return f"{checksum:08x}"
    return pixel_checksums(path)[1]


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if ending(path) == ".nii.gz" else open(path, "rb")


def _checksum_of(voxels: np.ndarray) -> str:
    # The first axis varies fastest, as in the files.
    return f"{zlib.crc32(voxels.tobytes('F')):08x}"


def _write_nifti(voxels: np.ndarray, grid: Grid, path: Path, mark: bool) -> None:
    import nibabel as nib

    other = same_named_nifti(path)
    if other is not None and os.path.lexists(other):
        raise same_name_output_error(path, other)
    new_image: Any = nib.Nifti1Image  # untyped in nibabel
    image = new_image(voxels, grid.affine, dtype=voxels.dtype)
    image.set_sform(grid.affine, code=1)
    # A qform cannot represent shear. Without a qform, ITK refuses a sheared image instead of misplacing it.
    axes = grid.affine[:3, :3] / grid.spacing
    orthogonal = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    image.set_qform(grid.affine, code=1 if orthogonal else 0)
    image.header.set_xyzt_units("mm")
    if mark:
        image.header["descrip"] = f"{MARK} result {_checksum_of(voxels)}".encode()
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _write_nrrd(voxels: np.ndarray, grid: Grid, path: Path, mark: bool) -> None:
    import nrrd

    affine = RAS_TO_LPS @ grid.affine
    directions, kinds = affine[:3, :3].T, ["domain"] * 3
    if voxels.ndim == 4:
        directions, kinds = np.vstack([np.full(3, np.nan), directions]), ["list", *kinds]
    header = {
        "space": "left-posterior-superior",
        "space directions": directions,
        "space origin": affine[:3, 3],
        "kinds": kinds,
        "encoding": "gzip",
        **_nrrd_mark(voxels, mark),
    }
    with atomic_path(path) as temporary:
        nrrd.write(str(temporary), voxels, header, compression_level=_COMPRESSION)


def _nrrd_mark(voxels: np.ndarray, mark: bool) -> dict[str, str]:
    return {MARK: "result", _CHECKSUM: _checksum_of(voxels)} if mark else {}


def _write_segmentation(
    voxels: np.ndarray, grid: Grid, path: Path, segments: Sequence[SegmentInfo], mark: bool
) -> None:
    import slicerio

    known = [segment.label for segment in segments]
    nameless = sorted({int(label) for label in np.unique(voxels)} - {0, *known})
    if nameless:
        raise ValueError(f"label values {nameless} have no segment")
    if len(set(known)) != len(known):
        raise ValueError(f"two segments have the same label value: {known}")
    segmentation: dict[str, Any] = {
        "voxels": voxels,
        "ijkToLPS": RAS_TO_LPS @ grid.affine,
        "containedRepresentationNames": ["Binary labelmap"],
        **_nrrd_mark(voxels, mark),
        "segments": [
            {
                "id": f"Segment_{segment.label}",
                "name": _to_ascii(segment.name),
                "nameAutoGenerated": False,
                "color": list(segment.color),
                "colorAutoGenerated": False,
                "labelValue": segment.label,
                "layer": 0,
                "terminology": {
                    "contextName": TERMINOLOGY_CONTEXT,
                    "category": [_to_ascii(text) for text in _triplet(segment.category)],
                    "type": [_to_ascii(text) for text in _triplet(segment.type)],
                    "anatomicContextName": _ANATOMY_CONTEXT,
                },
            }
            for segment in segments
        ],
    }
    with atomic_path(path) as temporary:
        slicerio.write_segmentation(str(temporary), segmentation, compression_level=_COMPRESSION)
        if any(not text.isascii() for segment in segments for text in _texts(segment)):
            _restore_characters(temporary)


def _texts(segment: SegmentInfo) -> tuple[str, ...]:
    return segment.name, *_triplet(segment.category), *_triplet(segment.type)


def _triplet(code: Code) -> list[str]:
    return [code.scheme, code.value, code.meaning]


def _to_ascii(text: str) -> str:
    """Return the text as one ASCII line, since pynrrd writes only ASCII; codes replace all other characters."""
    line = " ".join(text.splitlines())
    return "".join(character if character.isascii() else f"{_CODE_START}{ord(character)};" for character in line)


def _restore_characters(path: Path) -> None:
    """Replace the codes of `_to_ascii` in a NRRD header by their characters in UTF-8, as 3D Slicer writes them."""
    header, blank, data = path.read_bytes().partition(b"\n\n")
    text = re.sub(rf"{_CODE_START}(\d+);", lambda match: chr(int(match[1])), header.decode("ascii"))
    path.write_bytes(text.encode("utf-8", "backslashreplace") + blank + data)
