"""Distinguish scans from labels by the names of files and folders, and find the files that belong to one case.

Terms of the package `cases` (the examples leave out the endings of files):

- Part: the name of a folder below the searched folder, or a file's name without its ending.
- Word: a piece of a part between `_`, `-`, `.` or blanks. `p1Mask` has the words `p1` and `mask`; `img0001` has the
  words `img` and `0001`.
- Kind: scan, label, label of another structure, or automatic result (`FileKind`).
- Key: the parts of a file's path without words for the kind, such as `images` or `seg`; empty parts are left out.
  Files with equal keys belong to one case: `images/p1` and `labels/p1_seg` have the key `("p1",)`.
- Loose key: the key in lower case, without words for the modality or the file format. `MRI/P1_lge` has the loose key
  `("p1",)`.
- Mask: a file that is named like a scan but has few different values, such as `p1_LA` beside `p1` (see `masks`).
- Further words: the words that a file's path has in addition to a scan's path. `p1_LA` adds `la` to `p1`.

The words cover nnU-Net (channel suffix `_0000`), the Left Atrial Segmentation Challenge 2018 (`lgemri`, `laendo`,
`lawall`), LAScarQS 2022 (`enhanced`, `atriumSegImgMO`, `scarSegImgM`) and EMIDEC (`Images`, `Contours`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ..io.channels import without_channel
from ..io.formats import LABEL_ENDINGS, SCAN_ENDINGS, ending, scan_name, without_maps

IMAGE_WORDS = frozenset(
    [
        *("image", "images", "img", "imgs", "imaging", "scan", "scans", "volume", "volumes", "imagestr", "imagests"),
        *("lgemri", "enhanced", "bild", "bilder", "imagen", "imagenes", "immagine", "immagini"),
    ]
)
ATRIUM_WORDS = frozenset(("la", "left", "atrium", "atrial", "leftatrium", "endo", "endocardium", "cavity", "lumen"))
"""Words for the left atrium, which a label's name may add to its scan's name: `p1_LA_gt` for `p1`."""
OTHER_STRUCTURES = frozenset(
    [
        *("ra", "rv", "lv", "right", "ventricle", "myo", "myocardium", "epi", "epicardium", "wall", "scar", "fibrosis"),
        *("lge", "fat", "aorta", "pv", "pvs", "veins", "laa", "appendage", "esophagus"),
    ]
)
"""Words for other structures. `p1_RV_gt` is a label of another structure for the scan `p1`."""
QUALIFIERS = frozenset(
    ("corrected", "edited", "final", "reviewed", "checked", "consensus", "expert", "manual", "binary", "ground")
)
"""Words that state how a label was made, which a label's name may add: `p1_final_seg` for `p1`."""
OUTLINE_WORDS = frozenset(
    [
        *ATRIUM_WORDS,
        *QUALIFIERS,
        *("roi", "rois", "labelled", "labeled", "gold", "reference", "references", "ref", "blood", "pool", "heart"),
        *("target", "targets", "delineation", "delineations", "lab", "labs"),
    ]
)
"""Words that a mask of the atrium may add to its scan's path: `p1_roi` for `p1`."""
_SUFFIXES = ("seg", "segmentation", "mask", "label", "gt", "contour")
LABEL_WORDS = frozenset(
    [
        *(
            "label",
            "labels",
            "labelmap",
            "lbl",
            "lbls",
            "labelstr",
            "labelsts",
            "seg",
            "segs",
            "segmentation",
            "segmentations",
        ),
        *("mask", "masks", "gt", "groundtruth", "outline", "outlines", "annotation", "annotations", "dseg", "laendo"),
        *("truth", "goldstandard", "annot", "annotated", "segm", "segmented"),
        *("maske", "masken", "segmentierung", "segmentierungen", "kontur", "konturen", "masque", "masques"),
        *("mascara", "máscara", "mascaras", "segmentación", "segmentacion", "maschera", "maschere", "segmentazione"),
        *("contour", "contours", "manual", "atriumsegimgmo", "atriumsegimg", "atriumsegimgm"),
        *(f"{structure}{suffix}" for structure in ("la", "atrium", "leftatrium") for suffix in _SUFFIXES),
    ]
)
OTHER_LABEL_WORDS = frozenset(
    [
        *("lawall", "scarsegimgm", "scarsegimg", "scarsegimgmo"),
        *(f"{structure}{suffix}" for structure in ("ra", "rv", "lv", "wall", "scar") for suffix in _SUFFIXES),
    ]
)
"""Words that alone mark a label of another structure (`FileKind.OTHER_LABEL`): `p1_lawall`."""
PREDICTION_WORDS = frozenset(("pred", "preds", "predict", "prediction", "predictions", "predicted", "autoseg"))
"""Words for automatic results, which are neither scans nor labels."""
RESULT_WORDS = frozenset(
    [
        *("auto", "automatic", "automated", "result", "results", "output", "outputs", "out", "dcamt", "nnunet"),
        *("prob", "probs", "probability", "probabilities", "softmax", "logits", "uncertainty", "entropy", "confidence"),
        *("probmap", "probmaps", "heatmap", "heatmaps", "distance", "distmap", "sdf", "totalseg", "totalsegmentator"),
        *("doubt", "disagreement", "agreement"),
    ]
)
"""Words that mark an automatic result only beside its scan or label (`classify_all`): `p1_output` beside `p1`."""
_FORMAT_WORDS = frozenset(
    [
        *("dicom", "dcm", "nifti", "nii", "nrrd", "mha", "raw", "orig", "original", "originals", "data"),
        *("input", "inputs"),
    ]
)
MODALITY_WORDS = _FORMAT_WORDS | frozenset(
    ("mri", "mr", "mra", "ct", "cta", "lge", "de", "t1", "t2", "t1ce", "flair", "c0", "cine", "bssfp")
)
"""Words for the modality or the file format. Loose keys leave them out."""
_FILE_WORDS = frozenset(("file", "files", "map", "maps", "folder", "all"))
"""Words that the name of a folder of labels may have, such as `label maps` (`is_folder_of_labels`)."""
_KIND_WORDS = IMAGE_WORDS | LABEL_WORDS | OTHER_LABEL_WORDS | PREDICTION_WORDS
"""Words for the kind of a file. Keys leave them out."""
PAIRING_WORDS = IMAGE_WORDS | LABEL_WORDS | PREDICTION_WORDS | RESULT_WORDS
"""Words in which the names of a case's files may differ: `p1_image`, `p1_seg`, `p1_dcamt`.

Words for another structure, such as `lawall`, are not among them.
"""
SEPARATORS = re.compile(r"([_\-. ]+)")
_NUMBERED = re.compile(r"(?<![^_\-. ])(label|labels|img|image|seg|mask|gt|volume|scan)(\d+)(?![^_\-. ])", re.IGNORECASE)
"""A word that is joined to a number, as in `img0001`."""

_JOINED = re.compile(r"(.*\d)([^\W\d_]+)")
"""A name that ends in a number and letters, as in `p1LA`."""

_CAPITALISED = re.compile(
    r"(?<=[a-z0-9])(?=(?:Seg|Segmentation|Mask|Label|Labels|Labelmap|Contour|GT|GroundTruth|Pred|Image|Scan)(?![A-Za-z]))"
)
"""The start of a capitalised word, as in `p1Mask`."""


def _split_words(text: str) -> list[str]:
    """Return the words of a name at even indices, and the separators between them at odd indices.

    Accented letters are composed (NFC): archives made on macOS may contain decomposed names.
    """
    text = unicodedata.normalize("NFC", text)
    return SEPARATORS.split(_NUMBERED.sub(r"\1_\2", _CAPITALISED.sub("_", text)))


class FileKind(Enum):
    """The kind of a file, judged by its name; the module `masks` also considers the file's values."""

    SCAN = "scan"
    LABEL = "label"
    OTHER_LABEL = "label of another structure"
    RESULT = "automatic result"


@dataclass(frozen=True)
class NamedFile:
    """A file with its kind and its key (see the terms above)."""

    path: Path
    kind: FileKind
    key: tuple[str, ...]


def case_name(path: str | Path) -> str:
    """Return the name of a file's case: `case_of` of the file's name without ending.

    >>> [case_name(name) for name in ("la_001_0000.nii.gz", "la_001_label.seg.nrrd", "la_001_pred.nrrd")]
    ['la_001', 'la_001', 'la_001']
    >>> case_name("1.3.6.1.4.1.14519.5.2.1.1.nii.gz")
    '1.3.6.1.4.1.14519.5.2.1.1'
    """
    return case_of(scan_name(path))


def case_of(scan: str) -> str:
    """Return the name of a scan's case: the scan's name without `_0000` and a last word of `PAIRING_WORDS`.

    >>> case_of("la_001_image_0000")
    'la_001'
    """
    name = unicodedata.normalize("NFC", without_channel(scan))
    words = SEPARATORS.split(_CAPITALISED.sub("_", name))
    if len(words) > 2 and words[-1].lower() in PAIRING_WORDS:
        name = without_channel("".join(words[:-2]))
    return name


def without_words(name: str, dropped: Collection[str]) -> str:
    """Return a name without the words in `dropped`, and without separators at its ends."""
    words = _split_words(name)
    # Word n and the separator before it.
    kept = [
        "".join(words[max(0, 2 * n - 1) : 2 * n + 1])
        for n, word in enumerate(words[::2])
        if word.lower() not in dropped
    ]
    return "".join(kept).strip("_-. ")


def classify(path: Path, folder: Path) -> NamedFile:
    """Return the kind and the key of a file below `folder`, judged by the words of its path alone.

    The first rule that applies determines the kind:
    - a word of `PREDICTION_WORDS`: an automatic result, such as `p1_pred`. A folder's word `predict` does not count;
    - a word of `OTHER_LABEL_WORDS`: a label of another structure, such as `p1_lawall`;
    - a word of `LABEL_WORDS`, or an ending that only labels have: a label, such as `labels/p1` or `p1.seg.nrrd`;
    - otherwise: a scan.
    """
    return _classify(path, folder, frozenset())


def _classify(path: Path, folder: Path, result_words: Collection[str]) -> NamedFile:
    """Classify a file as `classify` does, but `result_words` also mark a result and are left out of the key."""
    parts = _parts(path, folder)
    path_words: set[str] = set()
    key = []
    for part in parts:
        words = {word.lower() for word in _split_words(part)[::2]}
        # A folder `predict` may hold scans that are still to be segmented.
        path_words |= words if part is parts[-1] else words - {"predict"}
        if text := without_words(part, _KIND_WORDS | frozenset(result_words)):
            key.append(text)
    kind = FileKind.SCAN
    if path_words & PREDICTION_WORDS or not path_words.isdisjoint(result_words):
        kind = FileKind.RESULT
    elif path_words & OTHER_LABEL_WORDS:
        kind = FileKind.OTHER_LABEL
    elif path_words & LABEL_WORDS or (ending(path) not in SCAN_ENDINGS and ending(path) in LABEL_ENDINGS):
        kind = FileKind.LABEL
    return NamedFile(path, kind, tuple(key))


def _parts(path: Path, folder: Path) -> list[str]:
    """Return the names of the folders between `folder` and a file, and the file's name without ending."""
    parts = list(path.relative_to(folder).parts)
    return [*parts[:-1], scan_name(path)] if parts else []


def classify_all(files: Iterable[Path], folder: Path) -> list[NamedFile]:
    """Return the kind and the key of each file below `folder`, judged by the words of all paths.

    The rules of `classify` apply first. Then three rules change kinds and keys, in this order:

    1. MONAI Label stores the labels of its model in a folder `original`, and the corrected labels in a folder `final`
       beside it. If `final` holds a label and `original` holds no scan, the labels in `original` are results.
    2. A file with words of `RESULT_WORDS` in its path is a result if its key without these words is the key of a scan:
       `p1_output` or `output/p1` beside `p1`. If a word is in the file's name, the key of a label suffices:
       `p1_output` beside `p1_label`. A file with one of these words in its name is also a result if the name adds
       words for structures to a scan's loose key: `p1/LA_prob` beside `p1/lge`. That scan or label must have no word of
       `RESULT_WORDS` in its own path.
    3. If a label's name adds words for structures or qualifiers to a scan's name, the label gets the scan's key:
       `p1_LA_gt` beside `p1` gets the key `("p1",)`. If a word means another structure, the label becomes a label of
       another structure: `p1_RV_gt`.
    """
    files = list(files)
    named = [classify(path, folder) for path in files]
    final = {
        file.path.parent.parent
        for file in named
        if file.kind is FileKind.LABEL and file.path.parent.name.lower() == "final"
    }
    # A folder of DICOM slices is itself the path of a scan.
    with_scans = {place for file in named if file.kind is FileKind.SCAN for place in (file.path, file.path.parent)}
    for n, file in enumerate(named):
        place = file.path.parent
        is_original = place.name.lower() == "original" and place.parent in final and place not in with_scans
        if file.kind is FileKind.LABEL and is_original:
            named[n] = replace(file, kind=FileKind.RESULT)
    unsure = {path for path in files if any(_words(part) & RESULT_WORDS for part in _parts(path, folder))}
    scans, labels = (
        {without_first_channel(file.key) for file in named if file.kind is kind and file.path not in unsure}
        for kind in (FileKind.SCAN, FileKind.LABEL)
    )
    loose_scans = {loose_key(key) for key in scans}
    for n, file in enumerate(named):
        if file.path in unsure:
            result = _classify(file.path, folder, RESULT_WORDS)
            in_name = bool(_words(scan_name(file.path)) & RESULT_WORDS)
            key = without_first_channel(result.key)
            if key in scans or (in_name and (key in labels or _adds_structures(key, loose_scans))):
                named[n] = result
    scans |= {without_first_channel(file.key) for file in named if file.kind is FileKind.SCAN}
    return [
        _with_key_of_scan(file, scans)
        if file.kind is FileKind.LABEL and without_first_channel(file.key) not in scans
        else file
        for file in named
    ]


def _words(text: str) -> set[str]:
    return {word.lower() for word in _split_words(text)[::2]}


def without_first_channel(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return a key without `_0000` at the end of its last part."""
    return (*key[:-1], without_channel(key[-1])) if key else key


def _with_key_of_scan(label: NamedFile, scans: Collection[tuple[str, ...]]) -> NamedFile:
    """Return the label with the changes of the third rule of `classify_all`; unchanged if the rule does not apply.

    Args:
        scans: the keys of the scans.
    """
    *folders, name = label.key or ("",)
    words = SEPARATORS.split(name)
    for first, last in _ranges_without(words, ATRIUM_WORDS | OTHER_STRUCTURES | QUALIFIERS):
        rest = "".join(words[first:last])
        key = (*folders, rest) if rest else tuple(folders)
        if key in scans:
            dropped = {word.lower() for word in (*words[:first], *words[last:])}
            kind = FileKind.OTHER_LABEL if dropped & OTHER_STRUCTURES else FileKind.LABEL
            return replace(label, key=key, kind=kind)
    return label


def _adds_structures(key: tuple[str, ...], loose_scans: Collection[tuple[str, ...]]) -> bool:
    """Return whether a key adds words for structures to a scan's `loose_key`."""
    *folders, name = key or ("",)
    words = SEPARATORS.split(name)
    # `p1/lge_result` beside `p1/T1` may be a scan.
    droppable = ATRIUM_WORDS | OTHER_STRUCTURES - MODALITY_WORDS
    shorter = ("".join(words[first:last]) for first, last in _ranges_without(words, droppable))
    keys = {loose_key((*folders, rest)) for rest in shorter if rest != name} - {()}
    return not keys.isdisjoint(loose_scans)


def _ranges_without(words: Sequence[str], droppable: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield the start and stop of each range of `words` that remains when droppable words at the ends are dropped.

    Words and separators alternate in `words`; each word is dropped with the separator beside it. For `LA_p1_final` and
    the droppable words `la` and `final`, the ranges are `LA_p1_final`, `LA_p1`, `p1_final` and `p1`, in this order.
    """
    first = 0
    while True:
        last = len(words)
        yield first, last
        while last > first and words[last - 1].lower() in droppable:
            last = max(first, last - 2)
            yield first, last
        if first >= len(words) or words[first].lower() not in droppable:
            return
        first += 2


def named_after_scans(named: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile, frozenset[str]]]:
    """Yield (file, scan, further words) for each file that is named like a scan with further words.

    Both files have the kind scan; `file` may be a mask. Capitals do not matter. The further words are in lower case.
    They are at the end or at the beginning of the file's name, or they are the name of a folder:
    - `p1_LA` and `LA_p1` add `la` to `p1`, and so does `p1LA`, in which the word follows a number;
    - `LA/p1` and `LA/LA_p1` add `la` to `scans/p1`. All words of such a folder must be in `OUTLINE_WORDS` or
      `OTHER_STRUCTURES`.

    If several scans fit a file, they are yielded in this order:

    1. Scans whose key is the file's key without words of the name; scans with more words in their names come first.
       For `p1_T1_LA`, these are `p1_T1`, then `p1`.
    2. Scans whose key is the file's key without a folder: `scans/p1` for `LA/p1`.
    3. Scans found in the same two ways by their loose keys: `p1_LA` adds `la` to `p1_lge`.

    For the scans found by their loose keys:
    - The `key` of the yielded scan is its loose key.
    - Words for the modality are further words: `p1_T2_LA` adds `t2` and `la` to `p1_lge`.
    - If all further words are in `MODALITY_WORDS`, nothing is yielded: `p1_T2` beside `p1_lge` is another scan.
    """
    return _fitting_scans(named, _shorter_keys)


def in_folders_named_after_scans(named: Sequence[NamedFile]) -> Iterator[tuple[NamedFile, NamedFile, frozenset[str]]]:
    """Yield (file, scan, further words) for each file below a folder that is named after a scan.

    `p1_chambers/aorta` adds `chambers` and `aorta` to `p1`. Capitals and loose keys are treated as by
    `named_after_scans`.
    """
    return _fitting_scans(named, _keys_of_folders)


_Candidates = list[tuple[tuple[str, ...], list[str]]]
"""Keys that a scan may have, each with the further words that a file then adds to the scan's path."""


def _fitting_scans(
    named: Sequence[NamedFile], candidates_of: Callable[[Sequence[str], str], _Candidates]
) -> Iterator[tuple[NamedFile, NamedFile, frozenset[str]]]:
    """Yield (file, scan, further words) for each scan that has one of a file's candidate keys.

    For each file, the scans with the loose key of a candidate come last.

    Args:
        candidates_of: returns the candidates of a file from the parts of its key: its folders and its name.
    """
    whole = {_lower(file.key): file for file in named if file.kind is FileKind.SCAN}
    keys = {file.path: without_first_channel(file.key) for file in whole.values()}
    scans = {_lower(keys[file.path]): replace(file, key=keys[file.path]) for file in whole.values()} | whole
    loose = {loose_key(key): replace(file, key=loose_key(key)) for key, file in scans.items()}
    for file in whole.values():
        *folders, name = _lower(file.key) or ("",)
        candidates = candidates_of(folders, name)
        for by_key, simplified in ((scans, tuple), (loose, loose_key)):
            for parts, dropped in candidates:
                further = frozenset(word for word in dropped if word.isalnum())
                scan = by_key.get(simplified(filter(None, parts)))
                fits = by_key is scans or not (further <= MODALITY_WORDS or modalities(parts))
                if scan is not None and scan.path != file.path and fits:
                    yield file, scan, further


def _shorter_keys(folders: Sequence[str], name: str) -> _Candidates:
    """Return the candidates of a file for `named_after_scans`."""
    words = SEPARATORS.split(name)
    ends = [(words[:last], words[last:]) for last in (*range(len(words) - 2, 0, -2), 0)]
    starts = [(words[first:], words[:first]) for first in range(2, len(words), 2)]
    shorter = [((*folders, "".join(kept)), dropped) for kept, dropped in (*ends, *starts)]
    if joined := _JOINED.fullmatch(name):
        shorter.append(((*folders, joined[1]), [joined[2]]))
    shorter.sort(key=lambda parts: -len(SEPARATORS.split(parts[0][-1])))
    for n, part in enumerate(folders):
        if _words(part) <= OUTLINE_WORDS | OTHER_STRUCTURES:
            for rest in dict.fromkeys((name, without_words(name, _words(part)))):
                shorter.append(((*folders[:n], *folders[n + 1 :], rest), SEPARATORS.split(part)))
    return shorter


def _keys_of_folders(folders: Sequence[str], name: str) -> _Candidates:
    """Return the candidates of a file for `in_folders_named_after_scans`.

    A candidate's further words leave out the words of its key: `p1/LA/p1` adds only `LA` to `p1`. A folder whose name
    has only words for the file format, such as `data`, is named after no scan.

    >>> _keys_of_folders(["p1_chambers"], "p1_aorta")
    [(('p1_chambers',), ['aorta']), (('p1',), ['chambers', 'aorta'])]
    """
    keys: _Candidates = []
    for n in range(len(folders) - 1, -1, -1):
        words, below = SEPARATORS.split(folders[n]), SEPARATORS.split("_".join((*folders[n + 1 :], name)))[::2]
        for last in range(len(words), 0, -2):
            key = (*folders[:n], "".join(words[:last]))
            known = {word for part in key for word in SEPARATORS.split(part)[::2]}
            if not known <= _FORMAT_WORDS:
                keys.append((key, [word for word in (*words[last + 1 :: 2], *below) if word not in known]))
    return keys


def labels_beside_scans(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the labels and results that belong to a scan among the files.

    A label or result belongs to a scan in these cases; capitals do not matter:
    - The loose keys are equal: `p1_seg` and `p1_lge`.
    - The key is the scan's key with words added at the end: `p1_reader2_seg` and `p1`.
    - The name has only words for labels and numbers, and the scan lies in the same folder: Slicer saves
      `Segmentation-label_1` beside a scan of any name.

    A file that is named like a label but has no scan may be a scan itself: `heart_seg` without `heart`.
    """
    named = classify_all(files, folder)
    scans = {_lower(without_first_channel(file.key)) for file in named if file.kind is FileKind.SCAN}
    loose_scans = {loose_key(key) for key in scans} - {()}
    folders_of_scans = {file.path.parent for file in named if file.kind is FileKind.SCAN}

    def has_scan(key: tuple[str, ...], path: Path) -> bool:
        if path.parent in folders_of_scans and _has_only_label_words(path):
            return True
        if loose_key(key) in loose_scans or without_first_channel(key) in scans:
            return True
        return any(start in scans for start in name_starts(_lower(key)))

    return [file.path for file in named if file.kind is not FileKind.SCAN and has_scan(file.key, file.path)]


def loose_key(key: Iterable[str]) -> tuple[str, ...]:
    """Return the loose key: a key in lower case, without the words of `MODALITY_WORDS`.

    >>> loose_key(("MRI", "P1_lge"))
    ('p1',)
    """
    parts = (without_words(part, MODALITY_WORDS).casefold() for part in key)
    return tuple(part for part in parts if part)


def name_starts(key: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the whole key, then the key without the last word of its last part, without the last two, and so on.

    >>> list(name_starts(("a", "p1_post")))
    [('a', 'p1_post'), ('a', 'p1')]
    """
    words = SEPARATORS.split(key[-1]) if key else []
    for last in range(len(words), 0, -2):
        yield (*key[:-1], "".join(words[:last]))


def modalities(parts: Iterable[str]) -> set[str]:
    """Return the words for the modality in the parts of a path, in lower case; words for the file format do not count.

    >>> sorted(modalities(("nifti", "p1_LGE_MR")))
    ['lge', 'mr']
    """
    return {word for part in parts for word in _words(part)} & MODALITY_WORDS - _FORMAT_WORDS


def without_outline_words(name: str) -> str:
    """Return a name without the words of `OUTLINE_WORDS`."""
    return without_words(name, OUTLINE_WORDS)


def is_folder_of_labels(name: str) -> bool:
    """Return whether a folder's name has only words for labels, outlines or the modality, and words such as `maps`.

    At least one word must mean labels. The name may begin with a number.

    >>> names = ("Labels_LA", "2_label maps", "Ground Truth", "p2", "siteB_labels", "labels_2")
    >>> [is_folder_of_labels(name) for name in names]
    [True, True, True, False, False, False]
    """
    first, *others = re.findall(r"[^\W_]+", name.lower()) or [""]
    rest = {*others, *(() if first.isdecimal() else (first,))} - LABEL_WORDS
    return has_word(name, LABEL_WORDS) and rest <= OUTLINE_WORDS | MODALITY_WORDS | _FILE_WORDS


def has_word(name: str, words: Collection[str]) -> bool:
    """Return whether a name has one of the words."""
    return not _words(name).isdisjoint(words)


def _lower(key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.casefold() for part in key)


def _has_only_label_words(path: Path) -> bool:
    """Return whether a file's name consists of words for labels and of numbers."""
    words = [word for word in _words(scan_name(path)) if word and not word.isdecimal()]
    return bool(words) and all(word in LABEL_WORDS for word in words)


def image_files(files: Iterable[Path]) -> list[Path]:
    """Return the files with the ending of a scan or label, except hidden files and the maps beside a segmentation."""
    shown = [path for path in files if not path.name.startswith(".")]
    return [path for path in without_maps(shown) if ending(path) in (*SCAN_ENDINGS, *LABEL_ENDINGS)]
