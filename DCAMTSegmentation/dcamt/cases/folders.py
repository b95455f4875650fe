"""Which scans and labels in a folder belong together: a proposal to be shown before it is taken.

Understood are nnU-Net's `imagesTr`/`labelsTr` (channel suffix `_0000`), the Medical Segmentation Decathlon's
`dataset.json`, and any folders whose files' names tell images from labels (`x_image`/`x_label`, `x.nrrd`/`x.seg.nrrd`,
`images/x`/`labels/x`, a folder a patient with `image` and `label`, a folder a patient of DICOM slices).
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io.formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name, without_agreement_maps
from .case_list import LABELLED, UNLABELLED, Case

NNUNET, DECATHLON, NAMES = "nnU-Net", "Decathlon", "names"
IMAGE_WORDS = frozenset(
    ("image", "images", "img", "imgs", "scan", "scans", "volume", "volumes", "imagestr", "imagests", "lgemri")
)
LABEL_WORDS = frozenset(
    [
        *("label", "labels", "labelmap", "lbl", "labelstr", "labelsts", "seg", "segs", "segmentation", "segmentations"),
        *("mask", "masks", "gt", "groundtruth", "outline", "annotation", "laendo"),
    ]
)
"""Words of file and folder names; the last of each tuple is that of the 2018 Left Atrial Segmentation Challenge."""
_SLICES = (".dcm", ".ima")
_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class LeftOver:
    """A file that the proposal leaves out, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class FoundCases:
    """What a folder seems to hold; nothing of it was opened but a `dataset.json`.

    layout: by which convention it was read. cases: those with a label are labelled, the others unlabelled; each name
    once. left_over: files that belong to no case. classes: the data set's own names of its labels, where it has any.
    """

    layout: str
    cases: tuple[Case, ...]
    left_over: tuple[LeftOver, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()


def find_cases(folder: Path) -> FoundCases:
    """Pair the scans below `folder` with their labels, by a data set's own list or by name.

    Raises:
        InputError: it is no folder, holds no scan, or its `dataset.json` cannot be read.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the scans.")
    described = _description(folder)
    if "training" in described:
        found = _decathlon(folder, described)
    elif (folder / "imagesTr").is_dir():
        found = _nnunet(folder, described)
    else:
        found = _by_names(folder)
    if not found.cases:
        raise InputError("holds no scan", path=folder, remedy=f"Files end in {', '.join(SCAN_ENDINGS)}.")
    return found


def _description(folder: Path) -> dict[str, Any]:
    """What `dataset.json` says; empty where there is none."""
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Mend it, or take it away.") from error
    return data if isinstance(data, dict) else {}


def _classes(described: dict[str, Any]) -> tuple[tuple[int, str], ...]:
    """Label values and their names: the Decathlon has {"1": "name"}, nnU-Net {"name": 1}."""
    listed = described.get("labels")
    found = {}
    for key, value in listed.items() if isinstance(listed, dict) else ():
        for number, name in ((key, value), (value, key)):
            if str(number).isdigit() and isinstance(name, str) and int(number) > 0:
                found[int(number)] = name
    return tuple(sorted(found.items()))


def _decathlon(folder: Path, described: dict[str, Any]) -> FoundCases:
    """Cases by the list in `dataset.json`: `training` has image and label, `test` has images alone."""
    cases: list[Case] = []
    left_over: list[LeftOver] = []

    def take(image: object, label: object) -> None:
        files = [folder / text for text in (image, label) if isinstance(text, str) and text]
        missing = [file for file in files if not file.exists()]
        if missing or not files:
            left_over.extend(LeftOver(file, "dataset.json names it, but it is not there") for file in missing)
        else:
            outlined = files[1] if len(files) > 1 else None
            cases.append(Case(scan_name(files[0]), files[0], outlined, LABELLED if outlined else UNLABELLED))

    for key in ("training", "validation", "test"):
        entries = described.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                take(entry.get("image"), entry.get("label"))
            else:
                take(entry, None)
    return FoundCases(DECATHLON, _with_own_names(cases), tuple(left_over), _classes(described))


def _nnunet(folder: Path, described: dict[str, Any]) -> FoundCases:
    """`imagesTr/x_0000` with `labelsTr/x`; `imagesTs` is unlabelled, or left out if its labels are there, for tests."""
    cases: list[Case] = []
    left_over: list[LeftOver] = []
    for part in ("Tr", "Ts"):
        images, labels = folder / f"images{part}", folder / f"labels{part}"
        outlined = {scan_name(file): file for file in _files(labels, LABEL_ENDINGS)}
        if part == "Ts" and outlined:
            why = "the data set keeps it for tests"
            left_over += [LeftOver(file, why) for file in (*_files(images, SCAN_ENDINGS), *outlined.values())]
            continue
        taken = set()
        for file in _files(images, SCAN_ENDINGS):
            name = _CHANNEL.sub("", scan_name(file))
            channel = _CHANNEL.search(scan_name(file))
            if channel and int(channel[1]) > 0:
                left_over.append(LeftOver(file, "another channel of its case; a scan here is one file"))
                continue
            label = outlined.get(name)
            taken.add(name)
            cases.append(Case(name, file, label, LABELLED if label else UNLABELLED))
        left_over += [LeftOver(file, "a label without a scan") for name, file in outlined.items() if name not in taken]
    return FoundCases(NNUNET, _with_own_names(cases), tuple(left_over), _classes(described))


def _files(folder: Path, endings: Iterable[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    kinds = tuple(endings)
    return sorted(f for f in folder.iterdir() if f.is_file() and ending(f) in kinds and not f.name.startswith("."))


def _by_names(folder: Path) -> FoundCases:
    """Pair by what is left of a file's place and name when the words for image and label are taken out of it."""
    images: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    labels: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in _scans_below(folder):
        is_label, key = _role_and_key(path, folder)
        (labels if is_label else images)[key].append(path)
    cases: list[Case] = []
    left_over: list[LeftOver] = []
    for key, scans in images.items():
        outlines = labels.pop(key, [])
        if len(scans) > 1 and outlines:
            left_over += [LeftOver(path, "several scans and labels go by one name") for path in (*scans, *outlines)]
        elif len(outlines) > 1:
            left_over += [LeftOver(path, "several labels for one scan") for path in (*scans, *outlines)]
        else:
            name = "_".join(key[-1:]) or scan_name(folder)
            label = outlines[0] if outlines else None
            cases += [Case(name, scan, label, LABELLED if label else UNLABELLED) for scan in scans]
    left_over += [LeftOver(path, "a label without a scan") for outlines in labels.values() for path in outlines]
    return FoundCases(NAMES, _with_own_names(cases), tuple(left_over))


def _scans_below(folder: Path) -> Iterator[Path]:
    """Image files at any depth, and folders of DICOM slices as one path each; hidden ones are passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = [Path(place, name) for name in sorted(files) if not name.startswith(".")]
        yield from (path for path in without_agreement_maps(shown) if ending(path) in (*SCAN_ENDINGS, *LABEL_ENDINGS))
        if any(ending(path) in _SLICES for path in shown):
            yield Path(place)


def _role_and_key(path: Path, folder: Path) -> tuple[bool, tuple[str, ...]]:
    """Whether a path's words say that it is a label, and its parts without such words."""
    parts = list(path.relative_to(folder).parts)
    if parts:
        parts[-1] = scan_name(path)
    is_label = ending(path) not in SCAN_ENDINGS and ending(path) in LABEL_ENDINGS
    key = []
    for part in parts:
        words = re.split(r"([_\-. ]+)", part)
        told = [word.lower() for word in words[::2]]
        is_label = is_label or any(word in LABEL_WORDS for word in told)
        kept = [
            "".join(words[max(0, 2 * n - 1) : 2 * n + 1])
            for n, word in enumerate(told)
            if word not in IMAGE_WORDS and word not in LABEL_WORDS
        ]
        if text := "".join(kept).strip("_-. "):
            key.append(text)
    return is_label, tuple(key)


def _with_own_names(cases: Iterable[Case]) -> tuple[Case, ...]:
    """The cases with names that tell them apart: the folders above a scan are added where one name comes twice."""
    cases = list(cases)
    for depth in range(1, 64):
        seen: defaultdict[str, list[int]] = defaultdict(list)
        for index, case in enumerate(cases):
            seen[case.name].append(index)
        twice = [index for members in seen.values() if len(members) > 1 for index in members]
        if not twice:
            return tuple(cases)
        for place, index in enumerate(twice):
            case = cases[index]
            above = case.image.parent.parts[1:]
            # With no folder left to name, a number tells them apart.
            more = above[-depth] if depth <= len(above) else str(place + 1)
            cases[index] = Case(f"{more}_{case.name}", case.image, case.label, case.role)
    return tuple(cases)
