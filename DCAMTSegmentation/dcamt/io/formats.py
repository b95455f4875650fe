"""Know image formats by the ending of a file's name, and name the files of results."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Format:
    """An ending of file names.

    scan: a file of a folder of scans with it is a scan. labels: a file of a folder of labelmaps with it is a labelmap.
    writes_labels and writes_volume: labelmaps and other volumes can be written to it.
    """

    ending: str
    scan: bool = False
    labels: bool = False
    writes_labels: bool = False
    writes_volume: bool = False


BENCHMARK_ENDING = ".h5"
"""Of the left atrium benchmark's files, which hold scan and label."""
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
    # Known for what they are, so that a result's name with one of these is not taken for a folder's.
    *map(Format, (".nrrd.gz", ".nhdr.gz", ".mha.gz", ".mhd.gz", ".img.gz", ".hdr.gz", ".gipl.gz", ".mnc.gz")),
    *map(Format, (".img", ".hdr", ".dcm", ".ima", ".gipl", ".mgh", ".mgz", ".mnc", ".vtk", ".vti", ".nia")),
    *map(Format, (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")),
)
SCAN_ENDINGS = tuple(form.ending for form in FORMATS if form.scan)
LABEL_ENDINGS = tuple(form.ending for form in FORMATS if form.labels)
LABELMAP_OUTPUTS = tuple(form.ending for form in FORMATS if form.writes_labels)
VOLUME_OUTPUTS = tuple(form.ending for form in FORMATS if form.writes_volume)
IMAGE_ENDINGS = tuple(form.ending for form in FORMATS)
MAP_SUFFIXES = ("_agreement", "_probabilities")
"""What the name of a segmentation is extended by for the maps that lie beside it."""
# Longest first, so that ".seg.nrrd" is found before ".nrrd".
_DOUBLE_ENDINGS = sorted((end for end in IMAGE_ENDINGS if end.count(".") > 1), key=len, reverse=True)


def ending(path: str | Path) -> str:
    """Return a file's ending in lower case, double ones whole: ".nii.gz", ".seg.nrrd", ".nrrd"."""
    name = Path(path).name.lower()
    return next((end for end in _DOUBLE_ENDINGS if name.endswith(end)), Path(name).suffix)


def scan_name(path: str | Path) -> str:
    """Return a scan's name without its ending: `la000_image.nii.gz` -> `la000_image`; a folder keeps its name.

    >>> scan_name("patients/x.seg.nrrd")
    'x'
    """
    path = Path(path)
    if path.is_dir():
        return path.resolve().name
    stem = path.name[: len(path.name) - len(ending(path))]
    return stem or path.name


def plain_name(name: str) -> str:
    """Return what names of classes and segments have in common that differ in capitals, blanks and hyphens only.

    >>> plain_name("Left-Atrium") == plain_name("left atrium")
    True
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def agreement_path(segmentation: Path) -> Path:
    """Return the path of the agreement map beside a segmentation; `x.seg.nrrd` has `x_agreement.nrrd`.

    >>> agreement_path(Path("out/x.nii.gz")).name
    'x_agreement.nii.gz'
    """
    kind = ending(segmentation)
    # A map is not a segmentation: it goes into a plain volume.
    return segmentation.with_name(f"{scan_name(segmentation)}_agreement{'.nrrd' if kind == '.seg.nrrd' else kind}")


def without_maps(files: Iterable[Path]) -> list[Path]:
    """Return `files` without the maps of agreement and probabilities that belong to others among them.

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
