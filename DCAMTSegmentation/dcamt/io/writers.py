"""Write labelmaps, segmentations and volumes as NRRD or NIfTI, and recognise files that DCAMT wrote."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import Code, Labelmap, SegmentInfo, Volume, as_labels, check_grid
from .atomic import atomic_path
from .formats import LABELMAP_OUTPUTS, VOLUME_OUTPUTS, ending

_COMPRESSION = 4  # of 9; higher levels hardly make files smaller, and take seconds longer for large labelmaps
_HEAD_BYTES = 1 << 16
_MARKER = "\x1a"  # starts the code of a character that is not ASCII: `_to_ascii` writes "ä" as "\x1a228;"
_DESCRIP = 148  # offset of `descrip` in the NIfTI-1 header
TERMINOLOGY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_ANATOMY_CONTEXT = "Anatomic codes - DICOM master list"


MARK = "DCAMT"
"""Mark of the files that this module writes: a key in the NRRD header, and the first word of NIfTI's `descrip`."""


def write_labelmap(labelmap: Labelmap, path: str | Path, segments: Sequence[SegmentInfo] = ()) -> None:
    """Write a labelmap in the format of the path's ending: `.seg.nrrd` (with segments), `.nrrd`, `.nii.gz` or `.nii`.

    The file is written completely or not at all.

    Args:
        segments: name, colour and codes of each label value; required for `.seg.nrrd`, otherwise ignored.

    Raises:
        InputError: the ending is not that of a labelmap file, the voxels are not whole numbers from 0 to 2^32 - 1, or
            `volume.check_grid` refuses the grid.
        OutputError: the file cannot be written.
        ValueError: a label value of a `.seg.nrrd` has no segment, or two segments have the same label value.
    """
    path = Path(path)
    kind = ending(path)
    check_grid(labelmap.grid, path)
    voxels = as_labels(labelmap.voxels, path)
    if kind == ".seg.nrrd":
        _write_segmentation(voxels, labelmap.grid, path, segments)
    elif kind == ".nrrd":
        _write_nrrd(voxels, labelmap.grid, path)
    elif kind in (".nii", ".nii.gz"):
        _write_nifti(voxels, labelmap.grid, path)
    else:
        raise InputError(
            "does not have the ending of a labelmap",
            path=path,
            remedy=f"Use {' or '.join(LABELMAP_OUTPUTS)}.",
        )


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a scan or map in the format of the path's ending: `.nrrd`, `.nii.gz` or `.nii`.

    Several channels become the last axis of NIfTI, or the first axis (kind "list") of NRRD. The voxels keep their type,
    except bool (written as uint8) and float16 (as float32). The file is written completely or not at all.

    Raises:
        InputError: the ending is not that of a volume file, or `volume.check_grid` refuses the grid.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    kind = ending(path)
    check_grid(volume.grid, path)
    voxels = volume.voxels
    widened = {"bool": np.uint8, "float16": np.float32}.get(voxels.dtype.name)
    if widened is not None:
        voxels = voxels.astype(widened)
    if kind == ".nrrd":
        _write_nrrd(voxels[0] if len(voxels) == 1 else voxels, volume.grid, path)
    elif kind in (".nii", ".nii.gz"):
        _write_nifti(voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1), volume.grid, path)
    else:
        raise InputError(
            "does not have the ending of a volume",
            path=path,
            remedy=f"Use {' or '.join(VOLUME_OUTPUTS)}.",
        )


def is_dcamt_result(path: Path) -> bool:
    """Return whether a file has the mark of DCAMT; False if the file cannot be read.

    Slicer drops the mark when it saves the file. In formats other than NRRD and NIfTI, such as DICOM and HTML, the mark
    is the word "DCAMT" anywhere in the first 64 KiB.
    """
    kind = ending(path)
    try:
        with gzip.open(path) if kind == ".nii.gz" else open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return False
    if kind in (".nii", ".nii.gz"):
        return head[_DESCRIP : _DESCRIP + len(MARK)] == MARK.encode()
    if kind in (".nrrd", ".seg.nrrd"):
        return f"\n{MARK}:=".encode() in head.partition(b"\n\n")[0]
    return MARK.encode() in head


def _write_nifti(voxels: np.ndarray, grid: Grid, path: Path) -> None:
    import nibabel as nib

    new_image: Any = nib.Nifti1Image  # untyped in nibabel
    image = new_image(voxels, grid.affine, dtype=voxels.dtype)
    image.set_sform(grid.affine, code=1)
    # A qform cannot represent shear. Without a qform, ITK refuses a sheared image instead of misplacing it.
    axes = grid.affine[:3, :3] / grid.spacing
    orthogonal = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    image.set_qform(grid.affine, code=1 if orthogonal else 0)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{MARK} result".encode()
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _write_nrrd(voxels: np.ndarray, grid: Grid, path: Path) -> None:
    """Write `voxels` (I, J, K) or (C, I, J, K) as a gzip-compressed NRRD file in LPS."""
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
        MARK: "result",
    }
    with atomic_path(path) as temporary:
        nrrd.write(str(temporary), voxels, header, compression_level=_COMPRESSION)


def _write_segmentation(voxels: np.ndarray, grid: Grid, path: Path, segments: Sequence[SegmentInfo]) -> None:
    import slicerio

    known = [segment.label for segment in segments]
    nameless = sorted({int(label) for label in np.unique(voxels)} - {0, *known})
    if nameless or len(set(known)) != len(known):
        raise ValueError(f"label values {nameless} have no segment, or a value occurs twice in {known}")
    segmentation: dict[str, Any] = {
        "voxels": voxels,
        "ijkToLPS": RAS_TO_LPS @ grid.affine,
        "containedRepresentationNames": ["Binary labelmap"],
        MARK: "result",
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
    return "".join(character if character.isascii() else f"{_MARKER}{ord(character)};" for character in line)


def _restore_characters(path: Path) -> None:
    """Replace the codes of `_to_ascii` in a NRRD header by their characters in UTF-8, as 3D Slicer writes them."""
    header, blank, data = path.read_bytes().partition(b"\n\n")
    text = re.sub(rf"{_MARKER}(\d+);", lambda match: chr(int(match[1])), header.decode("ascii"))
    path.write_bytes(text.encode("utf-8", "backslashreplace") + blank + data)
