"""Tell scans from labels, and which belong together, by the names of files and folders.

Every command and panel that reads a folder uses the words and rules of this module. They cover nnU-Net (channel suffix
`_0000`), the Left Atrial Segmentation Challenge 2018 (`lgemri`, `laendo`, `lawall`), LAScarQS 2022 (`enhanced`,
`atriumSegImgMO`, `scarSegImgM`), EMIDEC (`Images`, `Contours`), and names with `_image`, `_label`, `_seg`, `_mask`,
`_gt` and their like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import InputError
from ..io.channels import without_channel
from ..io.formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name, without_maps

IMAGE_WORDS = frozenset(
    (
        "image",
        "images",
        "img",
        "imgs",
        "scan",
        "scans",
        "volume",
        "volumes",
        "imagestr",
        "imagests",
        "lgemri",
        "enhanced",
    )
)
LABEL_WORDS = frozenset(
    [
        *("label", "labels", "labelmap", "lbl", "labelstr", "labelsts", "seg", "segs", "segmentation", "segmentations"),
        *("mask", "masks", "gt", "groundtruth", "outline", "outlines", "annotation", "annotations", "dseg", "laendo"),
        *("contour", "contours", "manual", "atriumsegimgmo", "atriumsegimg", "atriumsegimgm"),
    ]
)
OTHER_STRUCTURE_WORDS = frozenset(("lawall", "scarsegimgm", "scarsegimg", "scarsegimgmo"))
"""Names of labels of other structures (the atrium's wall, scar), which are no scans and not the atrium's label."""
_SEPARATORS = re.compile(r"([_\-. ]+)")


class FileKind(Enum):
    """The kind of a file, by its name."""

    SCAN = "scan"
    LABEL = "label"
    OTHER_LABEL = "label of another structure"


@dataclass(frozen=True)
class NamedFile:
    """A file's kind, and the parts of its path without the words that show the kind: equal keys belong together."""

    path: Path
    kind: FileKind
    key: tuple[str, ...]


def case_name(path: str | Path) -> str:
    """Return the name of the case of a file: its name without ending, channel, and final word for image or label.

    >>> [case_name(name) for name in ("la_001_0000.nii.gz", "la_001.nii.gz", "la_001_label.seg.nrrd")]
    ['la_001', 'la_001', 'la_001']
    >>> case_name("1.3.6.1.4.1.14519.5.2.1.1.nii.gz")
    '1.3.6.1.4.1.14519.5.2.1.1'
    """
    name = without_channel(scan_name(path))
    words = _SEPARATORS.split(name)
    if len(words) > 2 and words[-1].lower() in (IMAGE_WORDS | LABEL_WORDS):
        name = without_channel("".join(words[:-2]))
    return name


def classify(path: Path, folder: Path) -> NamedFile:
    """Return the kind of a file below `folder`, from the words in its relative path, and its key."""
    parts = list(path.relative_to(folder).parts)
    if parts:
        parts[-1] = scan_name(path)
    is_label = ending(path) not in SCAN_ENDINGS and ending(path) in LABEL_ENDINGS
    is_other = False
    key = []
    for part in parts:
        words = _SEPARATORS.split(part)
        lower = [word.lower() for word in words[::2]]
        is_label = is_label or any(word in LABEL_WORDS for word in lower)
        is_other = is_other or any(word in OTHER_STRUCTURE_WORDS for word in lower)
        kept = [
            "".join(words[max(0, 2 * n - 1) : 2 * n + 1])
            for n, word in enumerate(lower)
            if word not in IMAGE_WORDS | LABEL_WORDS | OTHER_STRUCTURE_WORDS
        ]
        if text := "".join(kept).strip("_-. "):
            key.append(text)
    kind = FileKind.OTHER_LABEL if is_other else FileKind.LABEL if is_label else FileKind.SCAN
    return NamedFile(path, kind, tuple(key))


def labels_beside_scans(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the files of a folder that are labels of other files in it, by their names.

    A file whose name has a word for labels but no matching scan, such as a lone `heart_seg.nii.gz`, may be a scan.
    """
    named = [classify(path, folder) for path in files]
    scans = {without_channel("/".join(one.key)) for one in named if one.kind is FileKind.SCAN}
    return [one.path for one in named if one.kind is not FileKind.SCAN and without_channel("/".join(one.key)) in scans]


def image_files(files: Iterable[Path]) -> list[Path]:
    """Return the files that are scans or labels by their endings, without hidden files and maps beside them."""
    shown = [path for path in files if not path.name.startswith(".")]
    return [path for path in without_maps(shown) if ending(path) in (*SCAN_ENDINGS, *LABEL_ENDINGS)]


def labelmaps_by_case(folder: Path, skip_images: bool = False) -> dict[str, Path]:
    """Return every labelmap file of `folder` by its case's name, without the scans that lie beside labels.

    Raises:
        InputError: it is no folder, holds no labelmap, or two files belong to one case.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the files.")
    files = [path for path in image_files(sorted(folder.iterdir())) if path.is_file()]
    if not files:
        raise InputError("holds no segmentation", path=folder, remedy=f"Files end in {', '.join(LABEL_ENDINGS)}.")
    if skip_images:
        labels = set(labels_beside_scans(files, folder))
        outlined = {case_name(path) for path in labels}
        files = [path for path in files if path in labels or case_name(path) not in outlined]
    cases: dict[str, Path] = {}
    for path in files:
        case = case_name(path)
        if case in cases:
            remedy = "Keep one file for each case."
            raise InputError(f"is the same case ({case}) as {cases[case].name}", path=path, remedy=remedy)
        cases[case] = path
    return cases
