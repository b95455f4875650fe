"""Pair the labelmap files of two folders, such as predictions and labels, by the names of their cases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ..errors import InputError
from ..io.channels import without_channel
from ..io.dicom_files import CONTOUR_REMEDY, stated_class
from ..io.formats import DICOM_ENDING, LABEL_ENDINGS, scan_name
from ..io.stored_image import read_head
from ..io.writers import is_dcamt_result
from .case_list import Case
from .case_names import case_name, case_of
from .dicom_labels import dicom_files_among
from .few_values import has_few_values
from .folders import MAX_REASONS, find_all_scans
from .found_cases import SEVERAL_LABELS, images_below
from .masks import masks_named_after_scans
from .names import (
    FileKind,
    NamedFile,
    classify_all,
    image_files,
    is_file_or_missing_link,
    labels_beside_scans,
    loose_key,
    name_starts,
    without_first_channel,
)
from .words import (
    ATRIUM_WORDS,
    LABEL_WORDS,
    MODALITY_WORDS,
    OTHER_STRUCTURES,
    PAIRING_WORDS,
    PREDICTION_WORDS,
    QUALIFIERS,
    RESULT_WORDS,
    SEPARATORS,
    describes_label,
    has_word,
    modalities,
    rest_of,
    without_numbers_after_labels,
    without_words,
)


def labelmaps_by_case(
    folder: Path,
    skip_images: bool = False,
    ignored: Iterable[Path] = (),
    names: Collection[str] = (),
    prefer_subfolders: bool = False,
) -> dict[str, Path]:
    """Return the labelmap files of `folder` by the name of their case: `p1_seg.nrrd` by `p1`.

    If the subfolders hold labelled cases, and no file in `folder` itself has few voxel values (`has_few_values`),
    return the labels of these cases. If `folder` itself holds no labelmap, return the only labelmap of each subfolder
    (`_only_files_of_subfolders`).

    Args:
        skip_images: leave out scans and results. A scan is left out if the folder holds its label, its mask of the
            atrium (`masks`) or its automatic result. An automatic result is left out if its case has a label. Of `p1`,
            `p1_seg` and `p1_pred`, only `p1_seg` is returned.
        ignored: subfolders that are not searched, such as the folder of the predictions.
        names: the names of the predictions or scans that need a labelmap (`_by_name_of_folder`).
        prefer_subfolders: prefer the labels of the subfolders to DCAMT results in `folder` itself.

    Raises:
        InputError: `folder` is not a folder or holds no labelmap, or two files belong to one case.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, remedy="Name the folder that holds the files.")
    entries = [path for path in sorted(folder.iterdir()) if is_file_or_missing_link(path)]
    files = image_files(entries)
    dicom_files = dicom_files_among(filter(Path.is_file, entries))
    files += dicom_files.segmentations
    if dicom_files.segmentations:
        # A blank file may be a damaged segmentation. It is listed, so that reading it raises an InputError.
        files += filter(_is_blank, dicom_files.slices)
    has_subfolders = any(map(Path.is_dir, folder.iterdir()))
    own = [file for file in files if not (prefer_subfolders and is_dcamt_result(file))]
    if (
        has_subfolders
        and not any(map(has_few_values, own))
        and (labels := _labels_in_subfolders(folder, ignored, names))
    ):
        return labels
    only_files = [] if files else _only_files_of_subfolders(folder, ignored)
    if not (files or only_files):
        endings = ", ".join((*LABEL_ENDINGS, DICOM_ENDING))
        if below := next(filter(_is_labelmap, sorted(folder.rglob("*"))), None):
            what = f"holds no segmentation itself, but folders below it do ({below.relative_to(folder).as_posix()})"
            remedy = (
                "Choose the folder that holds the files, put the files of all cases into one folder, or keep only one"
                " file, such as p1/p1_seg.nii.gz, in the folder of each case."
            )
            raise InputError(what, path=folder, remedy=remedy)
        if dicom_files.contours:
            what = f"holds no segmentation, but contours (RT Structure Set), such as {dicom_files.contours[0].name}"
            raise InputError(what, path=folder, remedy=CONTOUR_REMEDY)
        raise InputError(
            "holds no segmentation", path=folder, remedy=f"Choose a folder of files that end in {endings}."
        )
    if skip_images:
        files = _without_scans(files, folder)
    cases: dict[str, Path] = {}
    for case, path in only_files or [(case_name(path), path) for path in files]:
        if case in cases:
            remedy = "Keep one file for each case."
            raise InputError(f"belongs to the same case ({case}) as {cases[case].name}", path=path, remedy=remedy)
        cases[case] = path
    return cases


def _labels_in_subfolders(folder: Path, ignored: Iterable[Path], names: Collection[str]) -> dict[str, Path]:
    """Return the labels of the cases that `find_all_scans` finds, by the names of the cases (`_by_name_of_folder`).

    The cases include a data set's test cases. Return {} if no case has a label, or if two labelled cases have the same
    name.

    Raises:
        InputError: at least one scan has several labels, and no scan has exactly one.
    """
    try:
        found_cases = find_all_scans(folder, ignored)
    except InputError:  # The caller states what the folder lacks.
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
    """Return (case, labelmap) for each subfolder, which is named after the case: MONAI writes `p1/p1_trans`.

    Return [] if a subfolder holds no fitting file (`_is_only_file`) or several, or a file lies deeper or is DICOM.
    """
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in images_below(folder, ignored):
        if path.is_dir() or path.parent.parent != folder:
            return []
        found[path.parent] += [path] if _is_only_file(path) else []
    if not all(len(files) == 1 for files in found.values()):
        return []
    return [(case_of(place.name), file) for place, (file,) in found.items()]


def _is_only_file(path: Path) -> bool:
    """Return whether a file may be the labelmap of the case after which its folder is named.

    The file's name begins with the folder's name, and no word for another structure follows: `p1/p1_trans`, but not
    `p1/p1_wall`. Or the name describes only a result or a label (`describes_label`): `p1/LA`.
    """
    name = scan_name(path)
    if (rest := rest_of(name, scan_name(path.parent))) is not None:
        return not has_word(rest, OTHER_STRUCTURES)
    results = PREDICTION_WORDS | RESULT_WORDS
    is_named = has_word(name, results | LABEL_WORDS | ATRIUM_WORDS)  # Not `p1/001`, which may be a scan.
    return is_named and describes_label(without_words(name, results))


def _by_name_of_folder(cases: Sequence[Case], folder: Path, names: Collection[str]) -> list[tuple[str, Path]]:
    """Return (name, label) for each labelled case; the name is the case's name or that of a folder above its scan.

    `dcamt segment` names the result of the DICOM scan `Pat1/LGE` after the folder `Pat1`. So the label of this scan
    gets the name `Pat1` if three conditions hold: `Pat1` is one of `names`, the case's own name is not, and no other
    labelled scan lies below a folder of this name.
    """
    own = {case_of(case.name) for case in cases}
    cases_below: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        folders = case.image.relative_to(folder).parts[:-1] if case.image.is_relative_to(folder) else ()
        for name in {case_of(part) for part in folders} & set(names) - own:
            cases_below[name].append(case_of(case.name))
    renamed = {below[0]: name for name, below in cases_below.items() if len(below) == 1 and below[0] not in names}
    return [(renamed.get(name := case_of(case.name), name), case.label) for case in cases if case.label is not None]


def _without_scans(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the files that `labelmaps_by_case` returns with `skip_images`."""
    named = classify_all(files, folder)
    labels = set(labels_beside_scans(files, folder))
    results = {file.path for file in named if file.kind is FileKind.RESULT}
    labelled = {case_name(path) for path in files if path not in results and (path in labels or has_few_values(path))}
    outdone = {path for path in results if case_name(path) in labelled}
    labels -= outdone
    outlined = {case_name(path) for path in labels}
    masks = [mask for mask in masks_named_after_scans(named).values() if mask.kind is FileKind.LABEL]
    labels |= {mask.path for mask in masks}
    keys = {mask.key for mask in masks}
    scans = {file.path for file in named if not keys.isdisjoint((file.key, without_first_channel(file.key)))}
    # Beside the label `p1.seg.nrrd`, the file `p1.nii.gz` is a scan, unless it has few values.
    others = [path for path in files if path not in labels and case_name(path) in outlined]
    scans |= {path for path in others if not has_few_values(path)}
    scans |= _scans_beside_masks([file for file in named if file.path not in scans], labels)
    # The mask `p1_LA` has the loose key of its scan `p1_lge`. So scans are found by their loose keys, too.
    similar = [file.path for file in named if file.path not in labels and loose_key(file.key) in keys]
    scans |= {path for path in similar if not has_few_values(path)}
    left_out = scans - labels | outdone
    return [path for path in files if path not in left_out]


def _is_blank(path: Path) -> bool:
    """Return whether a file is empty or begins with zeros and is not DICOM, as after an interrupted copy."""
    return stated_class(path) is None and not any(read_head(path, 132))


def _scans_beside_masks(named: Iterable[NamedFile], labels: Collection[Path]) -> set[Path]:
    """Return the files that are no masks, but have the loose key of a mask.

    A mask has few values or is one of `labels`. `p1_0000` is the scan of the label `p1`, and `volume-1` that of
    `segmentation-1`.
    """
    similar: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in named:
        similar[loose_key(without_first_channel(file.key))].append(file.path)
    scans = set()
    for paths in similar.values():
        if len(paths) > 1:
            many = {path for path in paths if path not in labels and not has_few_values(path)}
            scans |= many if len(many) < len(paths) else set()
    return scans


def _is_labelmap(path: Path) -> bool:
    """Return whether a path is a file with the ending of a scan or label, or a DICOM segmentation."""
    return path.is_file() and bool(image_files([path]) or dicom_files_among([path]).segmentations)


def pair_with_labels(cases: Collection[str], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels by the names of their cases; labels without a case keep their own names.

    A case gets the first of these labels that exists (the examples are a case and its label):
    - the label of the same name;
    - the label whose file has the case's name: `x_0000.nii.gz` for `x_0000`, although `case_name` names the label `x`;
    - the only label of the same name without `PAIRING_WORDS`: `img0001`, `label0001`;
    - the only label of the same name without `PAIRING_WORDS`, `MODALITY_WORDS` and capitals: `p1_lge`, `P1_label`;
    - the only label that has the case's name among its `short_names`: `p1`, `p1_LA_final`. If the short names include
      several cases, the label fits only the case with the longest name: `p1_LA` rather than `p1`;
    - the only label of the same name without `PAIRING_WORDS`, `MODALITY_WORDS` and capitals. From the label's name,
      `ATRIUM_WORDS`, `QUALIFIERS` and numbers (`without_numbers_after_labels`) are also removed: `p1_lge`,
      `p1_LA_final`, or `p1`, `p1 Segmentation 1`. The numbers stay if the name without them is the beginning of a
      longer case name. Beside a case `p_1`, the label `p_seg_3` is shortened to `p_3`, not to `p`, since a case `p_3`
      may be missing.

    A word for a structure other than the atrium, such as `lawall`, must be in both names or in neither: `p1_lawall` is
    no label of the case `p1`.
    """
    known = set(cases)
    labels = _with_numbers_of_cases(known, labels)
    paired = _paired_by_simplified_names(known, labels, lambda name: without_words(name, PAIRING_WORDS))
    paired = _paired_by_simplified_names(known, paired, _without_modality)
    labels = dict(paired)
    folded = Counter(name.casefold() for name in known)
    by_folded = {name.casefold(): name for name in known if folded[name.casefold()] == 1}

    def find_case(name: str) -> str | None:
        return name if name in known else by_folded.get(name.casefold())

    fitting: defaultdict[str, list[str]] = defaultdict(list)
    for name in (name for name in labels if name not in known):
        # `case_name` drops `_0000` from the name of the prediction `x_0000`; its label may be `x_0000_LA`.
        forms = [form for short in short_names(name) for form in (short, without_channel(short))]
        case = next((found for form in forms if (found := find_case(form))), None)
        if case is not None and case not in labels:
            fitting[case].append(name)
    for case, names in fitting.items():
        if len(names) == 1:
            paired[case] = paired.pop(names[0])
    starts = {start for name in known for (start,) in islice(name_starts((_without_modality(name),)), 1, None)}

    def simplified_label(name: str) -> str:
        shorter, unnumbered = (
            without_words(_without_modality(text), ATRIUM_WORDS | QUALIFIERS)
            for text in (name, without_numbers_after_labels(name))
        )
        return shorter if unnumbered in starts else unnumbered

    return _paired_by_simplified_names(known, paired, _without_modality, simplified_label)


def _without_modality(name: str) -> str:
    """Return a name without `PAIRING_WORDS`, `MODALITY_WORDS` and capitals."""
    return without_words(name, PAIRING_WORDS | MODALITY_WORDS).casefold()


def _with_numbers_of_cases(cases: Collection[str], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels by name, where a label `x_0000` of the case `x_0000` keeps `_0000`, which `case_name` drops."""
    kept = {}
    for name, path in labels.items():
        file = scan_name(path)
        is_number = file == f"{name}_0000" and file in cases and file not in labels and name not in cases
        kept[file if is_number else name] = path
    return kept


def _paired_by_simplified_names(
    cases: Collection[str],
    labels: Mapping[str, Path],
    simplified: Callable[[str], str],
    simplified_label: Callable[[str], str] | None = None,
) -> dict[str, Path]:
    """Return the labels by the names of their cases; labels without a case keep their own names.

    A label and a case are paired if `simplified` returns the same name for both and for no other label or case. An
    empty name pairs nothing. The case must have all the label's words for the modality: `p1_mr` is no label of the
    case `p1_ct`.

    Args:
        simplified_label: used for labels in place of `simplified`, if given.
    """
    paired = dict(labels)
    cases_by_name: defaultdict[str, list[str]] = defaultdict(list)
    labels_by_name: defaultdict[str, list[str]] = defaultdict(list)
    for names, by_name, simplify in (
        (cases, cases_by_name, simplified),
        (labels, labels_by_name, simplified_label or simplified),
    ):
        for name in names:
            by_name[simplify(name)].append(name)
    for shorter, names in cases_by_name.items():
        fitting = labels_by_name[shorter]
        if not shorter or len(names) != 1 or len(fitting) != 1 or names[0] in labels or fitting[0] in cases:
            continue
        if modalities(fitting) <= modalities(names):
            paired[names[0]] = paired.pop(fitting[0])
    return paired


def short_names(name: str) -> list[str]:
    """Return the shorter forms of a label's name, the longest first.

    Words for the atrium and qualifiers are removed one by one, first at the end of the name, then at its beginning.
    At least one word remains.

    >>> short_names("p1_LA_final")
    ['p1_LA', 'p1']
    """
    droppable = ATRIUM_WORDS | QUALIFIERS
    words, shorter = SEPARATORS.split(name), []
    while len(words) > 2 and words[-1].lower() in droppable:
        words = words[:-2]
        shorter.append("".join(words))
    while len(words) > 2 and words[0].lower() in droppable:
        words = words[2:]
        shorter.append("".join(words))
    return shorter
