"""Pair predictions or scans with labels by the names of their cases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from itertools import chain, islice
from pathlib import Path

from ..io.channels import without_channel
from ..io.formats import scan_name
from .case_names import case_of
from .keys import name_starts
from .words import (
    ATRIUM_WORDS,
    MODALITY_WORDS,
    PAIRING_WORDS,
    QUALIFIERS,
    SEPARATORS,
    begins_or_ends_with,
    describes_label,
    further_words,
    may_be_other_structure,
    means_examination,
    means_other_structure,
    modalities,
    rests_of_mask,
    split_words,
    without_numbers_after_labels,
    without_words,
)

_KNOWN_WORDS = ATRIUM_WORDS | QUALIFIERS
_HARMLESS_WORDS = frozenset({"trans"})
"""MONAI adds `trans` to the names of its results."""


def pair_with_labels(cases: Collection[str], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels by the names of their cases; labels without a case keep their own names.

    A case gets the first of these labels that exists (the examples are a case and its label):

    1. the label of the same name: `p1`, `p1`
    2. the only label that differs only in `PAIRING_WORDS`: `img0001`, `label0001`
    3. the only label that differs only in capitals, `PAIRING_WORDS` and `MODALITY_WORDS`: `p1_lge`, `P1_label`
    4. the only label that has the case's name among its `short_names`: `p1`, `p1_LA_final`
    5. as 3, but more words are removed from the label's name (`simplified_label`): `p1_lge`, `p1_LA_final_seg_1`
    6. the only label whose name is the case's name with words added or removed (`_paired_by_further_words`): `p1`,
       `p1_trans`

    A word for a structure other than the atrium, such as `lawall`, must be in both names or in neither: `p1_lawall` is
    no label of the case `p1`.
    """
    known = set(cases)
    labels = _renamed_after_files(known, labels)
    labels = _paired_by_simplified_names(known, labels, lambda name: without_words(name, PAIRING_WORDS))
    labels = _paired_by_simplified_names(known, labels, _without_modality)
    labels = _paired_by_short_names(known, labels)
    starts_of_case_names = {
        start for name in known for (start,) in islice(name_starts((_without_modality(name),)), 1, None)
    }

    def simplified_label(name: str) -> str:
        numbered, unnumbered = map(_without_known_words, (name, without_numbers_after_labels(name)))
        may_be_patient_number = unnumbered in starts_of_case_names
        return numbered if may_be_patient_number else unnumbered

    labels = _paired_by_simplified_names(known, labels, _without_modality, simplified_label)
    return _paired_by_further_words(known, labels)


def _without_modality(name: str) -> str:
    return SEPARATORS.sub("_", without_words(name, PAIRING_WORDS | MODALITY_WORDS)).casefold()


def _without_known_words(name: str) -> str:
    return without_words(_without_modality(name), _KNOWN_WORDS)


def plain_case_name(case: str) -> str:
    """Return a case's name in lower case, without `_0000` and without words that only describe the file.

    If no other word remains, return the whole name.

    >>> [plain_case_name(case) for case in ("P1_lge", "p1_LA_0000", "LA")]
    ['p1', 'p1', 'la']
    """
    return _without_known_words(without_channel(case)) or case.casefold()


def possible_cases(label: str) -> set[str]:
    """Return the `plain_case_name` of each case to which a label with the name `label` may belong.

    >>> [sorted(possible_cases(label)) for label in ("p1_LA_manual", "p1_seg_2", "p1_2_seg", "p1_LA_JS", "p1_RV_seg")]
    [['p1'], ['p1', 'p1_2'], ['p1_2'], ['p1', 'p1_js'], ['p1_rv']]
    """
    cases = {plain_case_name(case_of(label))}
    for (start,) in name_starts((label,)):
        rest = label[len(start) :].lstrip("_-. ")
        is_number_of_case = SEPARATORS.split(rest)[0].isdecimal()
        if rest and not is_number_of_case and describes_label(rest):
            cases.add(plain_case_name(start))
    return cases


def _renamed_after_files(cases: Collection[str], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels; for the case `p1_0000`, `{"p1": "p1_0000.nrrd"}` becomes `{"p1_0000": "p1_0000.nrrd"}`."""
    kept = {}
    for name, path in labels.items():
        file = scan_name(path)
        is_case = file == f"{name}_0000" and file in cases and file not in labels and name not in cases
        kept[file if is_case else name] = path
    return kept


def _paired_by_simplified_names(
    cases: Collection[str],
    labels: Mapping[str, Path],
    simplified: Callable[[str], str],
    simplified_label: Callable[[str], str] | None = None,
) -> dict[str, Path]:
    """A label and a case are paired if `simplified` returns the same name for both and for no other label or case.

    Each word for the modality in the label's name must also be in the case's name: `p1_mr` is no label of the case
    `p1_ct`.

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


def _paired_by_short_names(cases: Collection[str], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels; `p1_LA_final` becomes `p1`, the name of its case."""
    folded = Counter(name.casefold() for name in cases)
    by_folded = {name.casefold(): name for name in cases if folded[name.casefold()] == 1}
    fitting: defaultdict[str, list[str]] = defaultdict(list)
    for name in (name for name in labels if name not in cases):
        # If the file of the case `x` is named `x_0000`, the label may be named `x_0000_LA`.
        forms = [form for short in short_names(name) for form in (short, without_channel(short))]
        found = (form if form in cases else by_folded.get(form.casefold()) for form in forms)
        case = next(filter(None, found), None)
        if case is not None and case not in labels:
            fitting[case].append(name)
    paired = dict(labels)
    for case, names in fitting.items():
        if len(names) == 1:
            paired[case] = paired.pop(names[0])
    return paired


def _paired_by_further_words(cases: Set[str], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels by the names of their cases; labels without a case keep their own names."""
    of_words: defaultdict[frozenset[str], set[tuple[str, str]]] = defaultdict(set)
    pairs = [(case, label, words) for label, case, words in _with_further_words(labels.keys(), cases)]
    pairs += list(_with_further_words(cases, labels.keys()))
    for case, label, words in pairs:
        is_other = any(map(str.isdecimal, words)) or means_examination(words) or means_other_structure(words)
        is_other |= may_be_other_structure(words)
        if not is_other and words.isdisjoint(MODALITY_WORDS) and modalities([label]) <= modalities([case]):
            of_words[words].add((case, label))
    unpaired = {
        words: {(case, label) for case, label in found if case not in labels and label not in cases}
        for words, found in of_words.items()
    }
    ways_to_pair = Counter(name for found in unpaired.values() for name in set(chain.from_iterable(found)))
    fitting: set[tuple[str, str]] = set()
    for words, found in of_words.items():
        are_known = words <= _KNOWN_WORDS  # `p1_LA` for `p1`
        are_frequent = len(found) > 1  # `p1_trans` for `p1`, `p2_trans` for `p2`
        has_second_file = any(ways_to_pair[name] > 1 for pair in found for name in pair)
        distinguish_files = has_second_file or found != unpaired[words]
        if are_known or (are_frequent and not distinguish_files):
            fitting |= unpaired[words]
    counts = Counter(name for pair in fitting for name in pair)
    paired = dict(labels)
    for case, label in fitting:
        fit_no_others = counts[case] == counts[label] == 1
        if fit_no_others:
            paired[case] = paired.pop(label)
    return paired


def _with_further_words(names: Collection[str], others: Collection[str]) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield (name, other, added words) for each name that extends a name in `others`: `("p1_LA", "p1", {"la"})`."""
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for other in others:
        by_name[_without_modality(other)].append(other)
    for name in names:
        words = SEPARATORS.split(name)
        parts = [(words[:n], words[n:]) for n in range(1, len(words), 2)]
        parts += [(words[n:], words[:n]) for n in range(2, len(words), 2)]
        for kept, dropped in sorted(parts, key=lambda part: -len(part[0])):
            rest = _without_modality(without_channel("".join(kept)))
            if rest and rest in by_name:
                further = frozenset(map(str.casefold, further_words(dropped))) - PAIRING_WORDS
                yield from ((name, other, further) for other in by_name[rest])
                break


def notes_on_unknown_words(pairs: Iterable[tuple[str, Path]]) -> list[str]:
    """Return at most one note: it names the first pair whose names differ in a word of unknown meaning.

    Args:
        pairs: the name of a case, and the file that was paired with the case.
    """
    found = [(case, path, words) for case, path in pairs if (words := _unknown_words(case, scan_name(path)))]
    if not found:
        return []
    case, path, words = found[0]
    what = f"the meaning of {', '.join(map(repr, words))} is unknown (files with such words: {len(found)})"
    remedy = "If a word means another structure or examination, rename these files."
    return [f"{case} is paired with {path.name}, but {what}. {remedy}"]


def _unknown_words(name: str, other: str) -> list[str]:
    """Return the words of unknown meaning that one of two names adds to the other."""
    known = PAIRING_WORDS | MODALITY_WORDS | _KNOWN_WORDS | _HARMLESS_WORDS
    one, two = (
        {word.casefold(): word for word in split_words(text)[::2] if word.casefold() not in known}
        for text in (without_channel(name), without_channel(other))
    )
    shorter, longer = sorted((one, two), key=len)
    if not shorter or not shorter.keys() <= longer.keys():
        return []
    added = longer.keys() - shorter.keys()
    return [text for word, text in longer.items() if word in added and word.strip("v0123456789") not in {*known, ""}]


def similar_labels(case: str, cases: Set[str], labels: Mapping[str, Path]) -> list[str]:
    """Return the file names of the unpaired labels whose names are similar to the name of `case`.

    The label's name begins or ends with the case's name (label `p1_v2`, case `p1`), or the case's name begins or ends
    with a rest of the label's name (label `p1_LA`, rest `p1`, case `p1_3D`; see `rests_of_mask`).

    Args:
        case: compared without its words for the modality.
        labels: as `pair_with_labels` returns them.
    """
    words = without_words(case, MODALITY_WORDS) or case

    def is_similar(label: str) -> bool:
        return begins_or_ends_with(label, words) or any(
            begins_or_ends_with(words, rest) for rest in rests_of_mask(label)
        )

    return [path.name for name, path in sorted(labels.items()) if name not in cases and is_similar(name)]


def short_names(name: str) -> list[str]:
    """Return the shorter forms of a label's name, the longest first.

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
