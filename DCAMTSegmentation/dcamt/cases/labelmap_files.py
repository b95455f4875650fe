"""List the labelmaps of a folder, such as predictions and labels, by the names of their cases."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from ..io.dicom_files import CONTOUR_REMEDY, files_below
from ..io.formats import DICOM_ENDING, LABEL_ENDINGS, scan_name
from ..io.readers import missing_file_error, read_header
from ..io.stored_image import read_head
from ..io.writers import has_mark, is_dcamt_result
from .case_list import Case
from .case_names import case_name, case_of
from .dicom_labels import dicom_files_among
from .few_values import has_few_values
from .folder_files import image_files, images_below, is_file_or_missing_link
from .folders import MAX_REASONS, find_all_scans
from .found_cases import SEVERAL_LABELS
from .keys import loose_key, name_ends, name_starts, without_first_channel
from .label_pairing import plain_case_name, possible_cases
from .masks import masks_named_after_scans
from .names import FileKind, NamedFile, classify_all, labels_beside_scans
from .words import (
    ATRIUM_WORDS,
    LABEL_WORDS,
    OTHER_STRUCTURES,
    PREDICTION_WORDS,
    RESULT_WORDS,
    describes_label,
    has_word,
    is_folder_of_labels,
    means_examination,
    modalities,
    rest_of,
    rests_of_mask,
    without_words,
    words_of,
)


def labelmaps_by_case(
    folder: Path,
    skip_images: bool = False,
    ignored: Iterable[Path] = (),
    names: Collection[str] = (),
    prefer_subfolders: bool = False,
    prefer_results: bool = False,
) -> dict[str, Path]:
    """Return a dictionary from the names of cases to the labelmap files of `folder`: from `p1` to `p1_seg.nrrd`.

    The first rule that applies determines the labelmaps:

    1. The labels in the subfolders, if no file in `folder` itself looks like a label (`has_few_values`), and the
       subfolders hold cases with labels.
    2. The labelmaps in the subfolders (`_only_files_of_subfolders`), if each subfolder holds exactly one labelmap, and
       `folder` itself holds only scans or no image files at all.
    3. Otherwise, the files in `folder` itself.

    Args:
        skip_images: leave out scans, and automatic results whose case has a label. Of `p1`, `p1_seg` and `p1_pred`,
            only `p1_seg` is returned. If the folder holds only scans, no scan is left out.
        ignored: subfolders that are not searched, such as the folder of the predictions.
        names: the names by which the caller looks up labelmaps (see `_by_name_of_folder` and `_case_name_among`).
        prefer_subfolders: prefer the labels of the subfolders to DCAMT results in `folder` itself.
        prefer_results: with `skip_images`, return `p1_pred` instead of `p1_seg` if `p1_pred` has few different voxel
            values (`has_few_values`); a probability map has many.

    Raises:
        InputError: `folder` is not a folder, cannot be read or holds no labelmap, or two files belong to one case.
    """
    if not os.path.exists(folder):
        raise missing_file_error(folder)
    if not os.path.isdir(folder):
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the files.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError("cannot be read (no permission)", path=folder, remedy="Change its permissions.")
    files = _possible_labelmaps(folder)
    has_subfolders = any(map(os.path.isdir, folder.iterdir()))
    own = [file for file in files if not (prefer_subfolders and is_dcamt_result(file))]
    if has_subfolders and not any(map(has_few_values, own)):
        labels = _labels_in_subfolders(folder, ignored, names)
        if labels:
            return labels
    no_labelmap = not files or (has_subfolders and all(map(_has_many_values, files)))
    only_files = _only_files_of_subfolders(folder, ignored) if no_labelmap else []
    if not (files or only_files):
        raise _no_labelmap(folder)
    if skip_images:
        files = _without_scans(files, folder, names, prefer_results)
    cases: dict[str, Path] = {}
    for case, path in only_files or [(_case_name_among(names, path), path) for path in files]:
        if case in cases:
            remedy = "Keep one file for each case."
            raise InputError(f"belongs to the same case ({case}) as {cases[case].name}", path=path, remedy=remedy)
        cases[case] = path
    return cases


def _case_name_among(names: Collection[str], path: Path) -> str:
    name = scan_name(path)
    return name if name in names else case_name(path)


def _possible_labelmaps(folder: Path) -> list[Path]:
    """Return the image files and DICOM segmentations in a folder, and blank files that may be damaged segmentations."""
    entries = [path for path in sorted(folder.iterdir()) if is_file_or_missing_link(path)]
    dicom_files = dicom_files_among(filter(os.path.isfile, entries))
    blank = filter(_is_blank, dicom_files.slices) if dicom_files.segmentations else ()
    return [*image_files(entries), *dicom_files.segmentations, *blank]


def _no_labelmap(folder: Path) -> InputError:
    if below := next(filter(_is_labelmap, files_below(folder)), None):
        return InputError(
            f"holds no segmentation itself, but folders below it do ({below.relative_to(folder).as_posix()})",
            path=folder,
            remedy="Choose the folder that holds the files, put the files of all cases into one folder, or keep only"
            " one file, such as p1/p1_seg.nii.gz, in the folder of each case.",
        )
    if contours := dicom_files_among(filter(os.path.isfile, sorted(folder.iterdir()))).contours:
        what = f"holds no segmentation, but contours (RT Structure Set), such as {contours[0].name}"
        return InputError(what, path=folder, remedy=CONTOUR_REMEDY)
    endings = ", ".join((*LABEL_ENDINGS, DICOM_ENDING))
    return InputError("holds no segmentation", path=folder, remedy=f"Choose a folder of files that end in {endings}.")


def _labels_in_subfolders(folder: Path, ignored: Iterable[Path], names: Collection[str]) -> dict[str, Path]:
    """Return {case name: label}; {} if no case has a label, or if two labelled cases have the same name.

    Raises:
        InputError: at least one scan has several labels, and no scan has exactly one.
    """
    try:
        found_cases = find_all_scans(folder, ignored)
    except InputError:
        return {}
    cases = (*found_cases.cases, *found_cases.unused)
    labels = _by_name_of_folder([case for case in cases if case.label is not None], folder, names)
    scans = {case.image for case in cases}
    skipped = [file.path for file in found_cases.skipped if file.reason == SEVERAL_LABELS]
    several = [path for path in skipped if path not in scans]
    if several and not labels:
        files = ", ".join(path.relative_to(folder).as_posix() for path in several[:MAX_REASONS])
        remedy = "Keep one label for each scan, or put the labels of all cases into one folder."
        raise InputError(f"holds several labels for one scan ({files})", path=folder, remedy=remedy)
    return dict(labels) if len(dict(labels)) == len(labels) else {}


def _only_files_of_subfolders(folder: Path, ignored: Iterable[Path]) -> list[tuple[str, Path]]:
    """Return (case, labelmap) for each subfolder with images. An example from MONAI: (`p1`, `p1/p1_trans`).

    A labelmap whose name begins with the case's may lie in a folder for labels or, as in BIDS, in the folder `anat`:
    `Case_1/Contours/Case_1` (EMIDEC).

    Return [] if a subfolder with images holds no possible labelmap, or several (`_may_be_label_of_case`).
    """
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in images_below(folder, ignored):
        if path.parent == folder and not os.path.isdir(path):
            continue
        place = path.parent
        if place.name == "anat" or is_folder_of_labels(place.name):
            begins_with_case = rest_of(scan_name(path), scan_name(place.parent)) is not None
            place = place.parent if begins_with_case and place.parent != folder else place
        if os.path.isdir(path) or place.parent != folder:
            return []
        found[place] += [path] if _may_be_label_of_case(path, place) else []
    each_has_one_labelmap = all(len(files) == 1 for files in found.values())
    if not each_has_one_labelmap:
        return []
    return [(case_of(place.name), file) for place, (file,) in found.items()]


def _may_be_label_of_case(path: Path, place: Path) -> bool:
    """Return whether a file is probably the label of the case in the folder `place`: `p1/p1_trans`, `p1/LA_final`."""
    name = scan_name(path)
    if (rest := rest_of(name, scan_name(place))) is not None:
        return not (has_word(rest, OTHER_STRUCTURES) or means_examination(words_of(rest)))
    results = PREDICTION_WORDS | RESULT_WORDS
    is_named = has_word(name, results | LABEL_WORDS | ATRIUM_WORDS)  # Not `p1/001`, which may be a scan.
    names_atrium = has_word(name, ATRIUM_WORDS - {"left"})
    # `heart_atrium_left` (TotalSegmentator) is the left atrium, but `heart_seg` may be the whole heart.
    ignored = results | {"heart"} if names_atrium else results
    return is_named and describes_label(without_words(name, ignored))


def _by_name_of_folder(cases: Sequence[Case], folder: Path, names: Collection[str]) -> list[tuple[str, Path]]:
    """Return (name, label) for each labelled case; the name is that of the case or of a folder above its scan.

    `dcamt segment` names the result of the DICOM scan `Pat1/LGE` after the folder `Pat1`. Therefore, if `names`
    contains `Pat1` but not `LGE`, the label of this scan gets the name `Pat1`.
    """
    names_without_case = set(names) - {case_of(case.name) for case in cases}
    cases_below: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        folders = case.image.relative_to(folder).parts[:-1] if case.image.is_relative_to(folder) else ()
        for name in {case_of(part) for part in folders} & names_without_case:
            cases_below[name].append(case_of(case.name))
    renamed = {}
    for name, (case_below, *others) in cases_below.items():
        if not others and case_below not in names:
            renamed[case_below] = name
    return [(renamed.get(name := case_of(case.name), name), case.label) for case in cases if case.label is not None]


def _without_scans(files: Sequence[Path], folder: Path, names: Collection[str], prefer_results: bool) -> list[Path]:
    """Leave out the scans, and the files that another label or result of the same case replaces.

    For example, the label `p1_LA_seg` replaces the mask `p1_LA` of the scan `p1`.
    """
    named = classify_all(files, folder)
    labels = set(labels_beside_scans(files, folder))
    results = _automatic_results(named)
    masks = masks_named_after_scans(named).values()
    outlines = [path for path in files if path not in results and (path in labels or has_few_values(path))]
    if prefer_results:
        segmentations = set(filter(has_few_values, results))
        named_as_labels = {file.path for file in (*named, *masks) if file.kind is FileKind.LABEL}
        replaced = {label for label, _ in _pairs_of_one_case((labels | named_as_labels) - results, segmentations)}
        replaced |= {result for _, result in _pairs_of_one_case([*outlines, *segmentations], results - segmentations)}
    else:
        replaced = {result for _, result in _pairs_of_one_case(outlines, results)}
    labels -= replaced
    outlined = {case for path in {*outlines, *labels} - replaced for case in possible_cases(scan_name(path))}
    labelled = {case_name(path) for path in labels}
    replaced |= {mask.path for mask in masks if mask.path not in labels and case_name(mask.path) in labelled}
    labels |= {mask.path for mask in masks}
    keys = {mask.key for mask in masks}
    starts = {start for file in named if file.path in labels for start in name_starts(loose_key(file.key))}
    without_case = {path for path in outlines if _case_name_among(names, path) not in names}
    names_of_outlines = [name for file in named if file.path in without_case for name in loose_key(file.key)]
    rests = {(rest,) for name in names_of_outlines for rest in rests_of_mask(name)}

    def is_scan(file: NamedFile) -> bool:
        if not keys.isdisjoint((file.key, without_first_channel(file.key))):
            return True
        has_name_of_label = plain_case_name(case_name(file.path)) in outlined
        has_key_of_mask = loose_key(file.key) in keys
        key = loose_key(without_first_channel(file.key))
        # The scan `p1_LGE_3D` has the word `p1` of the outline `p1_LA`.
        has_words_of_outline = not rests.isdisjoint((*name_starts(key), *name_ends(key)))
        is_similar = has_name_of_label or has_key_of_mask or key in starts or has_words_of_outline
        return is_similar and file.path not in labels and _has_many_values(file.path)

    scans = {file.path for file in named if is_scan(file)}
    scans |= _scans_beside_masks([file for file in named if file.path not in scans], labels)
    others = [file.path for file in named if file.kind is FileKind.SCAN and file.path not in labels]
    if not scans:
        others = [path for path in others if names and _case_name_among(names, path) not in names]
    if scans or outlines:
        unlabelled_scans = set(filter(_has_many_values, others))
        scans |= unlabelled_scans
    left_out = scans - labels | replaced
    return [path for path in files if path not in left_out]


def _automatic_results(named: Sequence[NamedFile]) -> set[Path]:
    # An uncorrected result of DCAMT (`is_dcamt_result`) counts as a label if its case has no other label.
    results = {file.path for file in named if file.kind is FileKind.RESULT}
    possible_results = {file.path for file in named if has_word(scan_name(file.path), RESULT_WORDS)}
    others = [file for file in named if file.path not in results | possible_results]
    labels = {file.path for file in others if file.kind is FileKind.LABEL or has_few_values(file.path)}
    results |= {result for _, result in _pairs_of_one_case(labels, possible_results)}
    # `is_dcamt_result` reads the voxels, so a file is examined only if its case has another label.
    rivals = [(label, file) for label, file in _pairs_of_one_case(labels, filter(has_mark, labels)) if label != file]
    return results | {file for label, file in rivals if is_dcamt_result(file) and not is_dcamt_result(label)}


def _pairs_of_one_case(labels: Iterable[Path], results: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield (label, result) for each label and each result that may belong to the same case, judged by their names.

    For example, `p1_LA_manual` may be a label of the case of `p1_pred`.
    """
    results_of_case: defaultdict[str, list[Path]] = defaultdict(list)
    for result in results:
        results_of_case[plain_case_name(case_name(result))].append(result)
    for label in labels:
        for case in possible_cases(scan_name(label)):
            for result in results_of_case[case]:
                if modalities([scan_name(label)]) <= modalities([scan_name(result)]):
                    yield label, result


def _has_many_values(path: Path) -> bool:
    """Return whether a file has many different values; False for a damaged file, which may be a label."""
    if has_few_values(path):
        return False
    try:
        read_header(path)
    except InputError:
        return False
    return True


def _is_blank(path: Path) -> bool:
    """Return whether a file is empty or unreadable, or its first 132 bytes are zeros, as after an interrupted copy.

    A DICOM file is not blank: of its first 132 bytes, 128 are often zeros, but the last 4 are `DICM`.
    """
    return not any(read_head(path, 132))


def _scans_beside_masks(named: Iterable[NamedFile], labels: Collection[Path]) -> set[Path]:
    """Return the scans that have a label or mask: `p1_0000` with `p1`, `volume-1` with `segmentation-1`."""
    similar: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in named:
        similar[loose_key(without_first_channel(file.key))].append(file.path)
    scans = set()
    for paths in similar.values():
        if len(paths) > 1:
            many = {path for path in paths if path not in labels and _has_many_values(path)}
            has_mask = len(many) < len(paths)
            scans |= many if has_mask else set()
    return scans


def _is_labelmap(path: Path) -> bool:
    return os.path.isfile(path) and bool(image_files([path]) or dicom_files_among([path]).segmentations)
