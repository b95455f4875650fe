"""Find the cases of a folder by the names of its files.

First, each file gets a kind, such as scan or label, and a key from its path (the module `names` explains both terms).
Further steps correct kinds and keys. At the end, a scan and a label with equal keys are a case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..io.channels import MAXIMUM_CHANNELS, channel_files, has_channel_files
from ..io.formats import BENCHMARK_ENDING, ending, scan_name
from .case_list import LABELLED, UNLABELLED, Case
from .case_names import name_of_key, with_folders, with_numbers
from .dicom_labels import pair_dicom_segmentations, segmentation_file
from .few_values import has_few_values
from .folder_files import images_below, zip_files_below
from .found_cases import (
    CONTOURS,
    DCAMT_RESULT,
    NAMES,
    NO_SCAN,
    OTHER_CHANNEL,
    OTHER_LABEL,
    RESULT,
    SEVERAL_LABELS,
    FoundCases,
    SkippedFile,
)
from .keys import Key, name_starts, without_first_channel
from .left_over_labels import with_keys_of_scans
from .masks import recognise_masks
from .names import FileKind, NamedFile, classify_all
from .uncorrected_labels import is_uncorrected
from .words import means_other_structure, words_of

_REASONS = {
    FileKind.OTHER_LABEL: OTHER_LABEL,
    FileKind.MASK_WITHOUT_SCAN: NO_SCAN,
    FileKind.RESULT: RESULT,
    FileKind.DCAMT_RESULT: DCAMT_RESULT,
    FileKind.OTHER_CHANNEL: OTHER_CHANNEL,
    FileKind.CONTOURS: CONTOURS,
}


def find_cases_by_names(folder: Path, ignored: Iterable[Path] = ()) -> FoundCases:
    """Find the cases of a folder by the names of its files.

    - A scan with one label becomes a labelled case: `p1_image`, `p1_label`.
    - A scan without a label becomes an unlabelled case.
    - If a scan has several labels (`p1`, `p1_seg`, `p1_gt`) or a label has several scans, all these files are skipped.
      `FoundCases.unused` lists these scans.
    - A label without a scan is skipped.
    - DCAMT results are skipped if their scan also has a label from another source.
    - A zip file is a scan if there are no other scans.
    """
    images = list(images_below(folder, ignored))
    files = classify_all(images, folder)
    zip_files = zip_files_below(folder, ignored)
    if zip_files and all(file.kind is not FileKind.SCAN or has_few_values(file.path) for file in files):
        files = classify_all([*images, *zip_files], folder)
    files = pair_dicom_segmentations(files, folder)
    files = _mark_results(files)
    results = {segmentation_file(file.path) for file in files if file.kind is FileKind.DCAMT_RESULT}
    files = recognise_masks(files)
    files = _join_channels(files)
    files = _pair_labels(files, folder)
    found = _cases_of_equal_keys(files, folder)
    return replace(found, skipped=tuple(_advise_on_corrections(found, results, folder)))


def _mark_results(files: Iterable[NamedFile]) -> list[NamedFile]:
    return [
        replace(file, kind=FileKind.DCAMT_RESULT) if file.kind is FileKind.LABEL and is_uncorrected(file.path) else file
        for file in files
    ]


def _join_channels(files: Sequence[NamedFile]) -> list[NamedFile]:
    """Return the files; the first of the channel files `x_0000`, `x_0001`, ... becomes the scan `x`.

    A number such as `_0001` may mean a channel or a patient. The numbers mean channels if one of two conditions holds:

    - The folder's name or a `dataset.json` shows that the numbers mean channels (`has_channel_files`).
    - A label `x` exists, and no label has the name of a single file, such as `x_0001` (`_join_channels_of_labels`).
    """
    first = {file.path for file in files if file.kind is FileKind.SCAN and has_channel_files(file.path)}
    further = {path for first_path in first for path in channel_files(first_path)[1:]}
    numbered = {file.key for file in files if file.path in first}
    taken = {(file.kind, file.key) for file in files if file.kind is not FileKind.SCAN}
    joined = []
    for file in files:
        key = without_first_channel(file.key)
        if file.kind is FileKind.SCAN and file.path in further:
            file = replace(file, kind=FileKind.OTHER_CHANNEL)
        elif file.key in numbered and (file.kind, key) not in taken:
            file = replace(file, key=key)
        joined.append(file)
    return _join_channels_of_labels(joined)


def _join_channels_of_labels(files: Sequence[NamedFile]) -> list[NamedFile]:
    """Join channel files that fulfil the second condition of `_join_channels`."""
    scans, labels, results = (_keys(files, kind) for kind in (FileKind.SCAN, FileKind.LABEL, FileKind.DCAMT_RESULT))
    case_keys: dict[Key, Key] = {}
    others: set[Key] = set()
    for key in (labels | results) - scans - {()}:
        first, *further, too_many = [(*key[:-1], f"{key[-1]}_{n:04d}") for n in range(MAXIMUM_CHANNELS + 1)]
        labelled = labels if key in labels else labels | results
        files_have_own_labels = not labelled.isdisjoint((first, *further))
        if first in scans and too_many not in scans and not files_have_own_labels:
            case_keys[first] = key
            others.update(further)
    joined = []
    for file in files:
        if file.kind is FileKind.SCAN and file.key in others:
            file = replace(file, kind=FileKind.OTHER_CHANNEL)
        elif file.kind is FileKind.SCAN and file.key in case_keys:
            file = replace(file, key=case_keys[file.key])
        joined.append(file)
    return joined


def _pair_labels(files: Sequence[NamedFile], folder: Path) -> list[NamedFile]:
    # A DCAMT result becomes a label if its scan has no label from another source.
    scans, labels, results = (
        [file for file in files if file.kind is kind] for kind in (FileKind.SCAN, FileKind.LABEL, FileKind.DCAMT_RESULT)
    )
    others = [file for file in files if file.kind in _REASONS and file.kind is not FileKind.DCAMT_RESULT]
    names = _names_of_cases(scans, folder)
    labels = with_keys_of_scans(labels, scans, names)
    labelled = {scan.key for scan in scans} & {label.key for label in labels}
    for result in with_keys_of_scans(results, scans, names):
        if result.key in labelled:
            others.append(result)
        else:
            labels.append(replace(result, kind=FileKind.LABEL))
    return [*scans, *labels, *others]


def _names_of_cases(scans: Sequence[NamedFile], folder: Path) -> dict[str, Key]:
    """Return {name of a case: key of its scan}, with the names that `folders.find_all_scans` gives to cases."""
    names = [name_of_key(scan.key) or scan_name(folder) for scan in scans]
    names = with_numbers(with_folders(names, [scan.path for scan in scans]))
    return {name: scan.key for name, scan in zip(names, scans, strict=True)}


def _cases_of_equal_keys(files: Sequence[NamedFile], folder: Path) -> FoundCases:
    scans: defaultdict[Key, list[Path]] = defaultdict(list)
    labels: defaultdict[Key, list[Path]] = defaultdict(list)
    skipped = []
    for file in files:
        if file.kind in _REASONS:
            skipped.append(SkippedFile(file.path, _REASONS[file.kind]))
        else:
            (scans if file.kind is FileKind.SCAN else labels)[file.key].append(file.path)
    cases: list[Case] = []
    unused: list[Case] = []
    for key, images in scans.items():
        own_labels = labels.pop(key, [])
        name = name_of_key(key) or scan_name(folder)
        if not own_labels or len(images) == len(own_labels) == 1:
            for image in images:
                # A benchmark file (.h5) contains its own label.
                own_image = image if ending(image) == BENCHMARK_ENDING else None
                label = segmentation_file(own_labels[0]) if own_labels else own_image
                cases.append(Case(name, image, label, LABELLED if label else UNLABELLED))
        else:
            reason = SEVERAL_LABELS if len(images) == 1 else "several scans and labels have the same name"
            skipped += [SkippedFile(path, reason) for path in (*images, *own_labels)]
            unused += [Case(name, image, None, UNLABELLED) for image in images]
    skipped += [SkippedFile(path, NO_SCAN) for paths in labels.values() for path in paths]
    return FoundCases(NAMES, tuple(cases), tuple(skipped), unused=tuple(unused))


def _advise_on_corrections(found: FoundCases, results: Collection[Path], folder: Path) -> Iterator[SkippedFile]:
    """Yield the skipped files. If a file may be a corrected DCAMT result, its `reason` also proposes a new name."""
    cases: defaultdict[tuple[Path | None, str], list[Case]] = defaultdict(list)
    for case in found.cases:
        for place in (case.image.parent, None):
            cases[place, scan_name(case.image).casefold()].append(case)
    for file in found.skipped:
        if file.reason in (NO_SCAN, OTHER_LABEL):
            starts = (start for (start,) in name_starts((scan_name(file.path).casefold(),)))
            places = ((place, start) for start in starts for place in (file.path.parent, None))
            fitting = next((cases[place] for place in places if place in cases), [])
            if len(fitting) == 1 and fitting[0].label in results:
                file = replace(file, reason=_with_advice(file, fitting[0], folder))
        yield file


def _with_advice(file: SkippedFile, case: Case, folder: Path) -> str:
    words, words_of_scan = (words_of(" ".join(path.relative_to(folder).parts)) for path in (file.path, case.image))
    names = (f"{scan_name(case.image)}_{label}{ending(file.path)}" for label in ("seg", "corrected_seg"))
    new = next((path for path in map(case.image.with_name, names) if not path.exists()), None)
    if new is None or means_other_structure(words - words_of_scan):
        return file.reason
    return f"{file.reason}; if it is the corrected label of '{case.name}', rename it to {new}"


def _keys(files: Iterable[NamedFile], kind: FileKind) -> set[Key]:
    return {file.key for file in files if file.kind is kind}
