"""Define the image formats by their file endings, and the names of result files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError


@dataclass(frozen=True)
class Format:
    """A file ending and its uses.

    Attributes:
        scan: whether a file with this ending counts as a scan when a folder is searched.
        labels: whether such a file counts as a labelmap.
        writes_labels: whether `io.writers` writes labelmaps.
        writes_volume: whether `io.writers` writes other volumes.
    """

    ending: str
    scan: bool = False
    labels: bool = False
    writes_labels: bool = False
    writes_volume: bool = False


BENCHMARK_ENDING = ".h5"
"""Ending of the left atrium benchmark's files, which contain scan and label."""
ZIP_ENDING = ".zip"
DICOM_ENDING = ".dcm"
"""Ending with which DICOM segmentations and reports are written."""
DICOM_SLICE_ENDINGS = (DICOM_ENDING, ".ima")
"""Usual endings of DICOM slices; a slice may also have another ending or none."""
ENDINGS_READ_BY_ITK = (".hdr", ".hdr.gz", ".gipl", ".gipl.gz", ".vtk", ".mnc", ".tif", ".tiff", ".mrc")
"""Endings of the scan formats read with SimpleITK, except MetaImage (`.mha`, `.mhd`)."""
FORMATS = (
    Format(".seg.nrrd", labels=True, writes_labels=True),
    Format(".nii.gz", scan=True, labels=True, writes_labels=True, writes_volume=True),
    Format(".nrrd", scan=True, labels=True, writes_labels=True, writes_volume=True),
    Format(".nii", scan=True, labels=True, writes_labels=True, writes_volume=True),
    Format(".nhdr", scan=True, labels=True),
    Format(".mha", scan=True, labels=True),
    Format(".mhd", scan=True, labels=True),
    Format(".seg.nhdr", labels=True),
    Format(BENCHMARK_ENDING, scan=True, labels=True),
    # A file with one of these endings counts only if it may hold a volume (`volume_content.may_hold_volume`).
    *(Format(kind, scan=True, labels=True) for kind in ENDINGS_READ_BY_ITK),
    # In a folder that is searched for scans, a zip file counts as a scan only if the folder holds no other scan
    # (`cases.name_pairing`).
    Format(ZIP_ENDING, scan=True),
    # The remaining endings are listed so that an output path with one of them counts as a file, not as a folder.
    *map(Format, (".nrrd.gz", ".nhdr.gz", ".mha.gz", ".mhd.gz", ".img.gz", ".mnc.gz")),
    *map(Format, (".img", *DICOM_SLICE_ENDINGS, ".mgh", ".mgz", ".vti", ".nia")),
    *map(Format, (".png", ".jpg", ".jpeg", ".bmp")),
)
SCAN_ENDINGS = tuple(known.ending for known in FORMATS if known.scan)
LABEL_ENDINGS = tuple(known.ending for known in FORMATS if known.labels)
LABELMAP_OUTPUTS = tuple(known.ending for known in FORMATS if known.writes_labels)
VOLUME_OUTPUTS = tuple(known.ending for known in FORMATS if known.writes_volume)
IMAGE_ENDINGS = tuple(known.ending for known in FORMATS)
REPORT_ENDINGS = (".html", ".htm")
"""Endings with which the HTML report of a scan is written; a DICOM report of measurements has `DICOM_ENDING`."""
MAP_SUFFIXES = ("_agreement", "_probabilities")
"""Suffixes of the maps beside a segmentation, appended to the segmentation's name."""
_HEADER_ENDINGS = (".hdr", ".hdr.gz", ".mhd", ".nhdr", ".seg.nhdr")
_DATA_ENDINGS = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw", ".seg.raw", ".seg.raw.gz")
"""Usual endings of the data files of images with `_HEADER_ENDINGS`."""
_DOUBLE_ENDINGS = tuple(end for end in IMAGE_ENDINGS if end.count(".") > 1)


AnyPath = str | os.PathLike[str]
"""The path of a file or folder."""


def given_path(path: AnyPath) -> Path:
    """Convert a path to a `Path`.

    `~` at the start of a text stands for the user's home folder, as in the commands. A `Path` is returned unchanged,
    since it may lead to a folder named `~`.

    Raises:
        InputError: the text is empty, as from an empty cell of a table; `Path("")` would be the working folder.
    """
    if path == "":
        raise InputError("the name of a file or folder is empty", remedy="Give its name.")
    return path if isinstance(path, Path) else Path(os.path.expanduser(path))


def in_resolved_folder(path: Path) -> Path:
    """Return the absolute path. Links to folders are resolved; a link to the file is kept."""
    # Further channels (`x_0001`) and `dataset.json` lie beside the link, not beside its target.
    return path.parent.resolve() / path.name


def ending(path: AnyPath) -> str:
    """Return a file's ending in lower case, such as ".nrrd" or, for a double ending of `FORMATS`, ".nii.gz"."""
    name = Path(path).name.lower()
    return next((end for end in _DOUBLE_ENDINGS if name.endswith(end)), Path(name).suffix)


def scan_name(path: AnyPath) -> str:
    """Return the name of a scan, segmentation or map without its ending; for a folder, the name of its resolved path.

    >>> scan_name("patients/la000_image.nii.gz")
    'la000_image'
    >>> scan_name("patients/x.seg.nrrd")
    'x'
    """
    path = Path(path)
    if os.path.isdir(path):
        return path.resolve().name
    stem = path.name[: len(path.name) - len(ending(path))]
    return stem or path.name


def same_named_nifti(path: Path) -> Path | None:
    """Return the path that ITK confuses with a NIfTI file: `x.nii` for `x.nii.gz`, and `x.nii.gz` for `x.nii`.

    If both files exist, ITK reads the voxels of `x.nii` for both. For other formats, the result is None.
    """
    if ending(path) == ".nii.gz":
        return path.with_name(path.name[:-3])
    if ending(path) == ".nii":
        return path.with_name(f"{path.name}{'.GZ' if path.name.endswith('.NII') else '.gz'}")
    return None


def data_files_beside(path: Path) -> list[Path]:
    """Return the paths beside a header at which the image's data file may lie, such as `la.img` for `la.hdr`.

    The files need not exist.
    """
    if ending(path) not in _HEADER_ENDINGS:
        return []
    name = scan_name(path)
    return [path.with_name(f"{name}{end}") for end in _DATA_ENDINGS]


def agreement_path(segmentation: Path) -> Path:
    """Return the path of the agreement map beside a segmentation; `x.seg.nrrd` has `x_agreement.nrrd`.

    >>> agreement_path(Path("out/x.nii.gz")).name
    'x_agreement.nii.gz'
    """
    kind = ending(segmentation)
    # A map is a plain volume, not a segmentation.
    return segmentation.with_name(f"{scan_name(segmentation)}_agreement{'.nrrd' if kind == '.seg.nrrd' else kind}")


def without_maps(files: Iterable[Path]) -> list[Path]:
    """Return `files` without the agreement and probability maps whose segmentation is also in `files`.

    >>> [path.name for path in without_maps([Path("x.nrrd"), Path("x_probabilities.nii.gz"), Path("y_agreement.nrrd")])]
    ['x.nrrd', 'y_agreement.nrrd']
    """
    files = list(files)
    names = {(file.parent, scan_name(file)) for file in files}

    def is_map(file: Path) -> bool:
        name = scan_name(file)
        stems = [name.removesuffix(suffix) for suffix in MAP_SUFFIXES if name.endswith(suffix)]
        return any((file.parent, stem) in names for stem in stems)

    return [file for file in files if not is_map(file)]
