"""Check the cases of a run as training does, before the run starts, and collect facts about the cases.

Only the facts of a case stay in memory, not its voxels.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import InputError, user_error, without_path
from ..geometry import canonical_orientation
from ..io.file_identity import file_identity, is_same_file
from ..io.readers import read_header
from ..io.slabs import slabs
from ..recipe import Recipe
from ..volume import Labelmap, Volume, size_warning
from .case_list import LEFT_OUT, VALIDATION, Case, ListedCase, Rule, violations
from .case_scans import check_case_channels, mixed_orders, read_case_scan, unused_channel_files
from .few_values import count_few_values
from .labels import check_label, find_classes_on_grid, label_notes, label_values, read_case_label, refuse_thin_classes
from .uncorrected_labels import is_uncorrected

_Result = TypeVar("_Result")
_HEADERS = 0.1  # fraction of the progress for the headers; the voxels take the rest
_MOST_OF_THE_SCAN = 0.5
"""A label that covers a larger fraction of its scan is probably inverted."""


@dataclass(frozen=True)
class CaseFacts:
    """Facts about the case at `index` of the list.

    `size`, `spacing`, `channels`, `labels` and `checksum` are None while they are unknown.

    Attributes:
        size: voxels along the stored axes (I, J, K).
        spacing: mm along the stored axes.
        channels: number of the scan's channels, stored in one file or in several files.
        labels: values of the label after label mapping, without background.
        checksum: the `scan_checksum`; None unless it was requested.
        problems: why training would refuse the case, each with its remedy.
        warnings: what a person should check.
    """

    index: int
    name: str
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    channels: int | None = None
    labels: tuple[int, ...] | None = None
    checksum: str | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_cases(
    cases: Sequence[Case],
    recipe: Recipe,
    with_checksums: bool = False,
    progress: Callable[[float], None] = lambda done: None,
) -> Iterator[CaseFacts]:
    """Yield the facts of each case as soon as its headers are checked.

    If a later check adds facts about a case, all facts about the case are yielded again.

    Args:
        progress: called with the fraction of the work that is done.
    """
    facts: list[CaseFacts] = []
    repeated = {
        index: str(violation)
        for violation in violations(cases)
        if violation.rule is Rule.DISTINCT_NAMES
        for index in violation.cases
    }
    readable: list[int] = []
    for index, case in enumerate(cases):
        case_facts = _facts_or_problem(_check_headers, CaseFacts(index, case.name), case, recipe)
        if case.role != LEFT_OUT and not case_facts.problems:
            readable.append(index)
        if index in repeated:
            case_facts = _with_problem(case_facts, repeated[index])
        facts.append(case_facts)
        yield case_facts
        progress(_HEADERS * (index + 1) / len(cases))
    checksums: dict[int, str] = {}
    for done, index in enumerate(readable):
        progress(_HEADERS + (1 - _HEADERS) * done / len(readable))
        checked = _facts_or_problem(_check_voxels, facts[index], cases[index], recipe)
        if checked.checksum is not None:
            checksums[index] = checked.checksum
        if not with_checksums:
            checked = replace(checked, checksum=None)
        if checked != facts[index]:
            facts[index] = checked
            yield checked
    for index, error in mixed_orders(cases, recipe):
        facts[index] = _with_problem(facts[index], _without_path("scan", cases[index].image, error))
        yield facts[index]
    equal_scans = list(_equal_scans(cases, checksums))
    for index, other, what in conflicting_scans(cases, equal_scans):
        error = _conflict(cases[index], cases[other], what)
        facts[index] = _with_problem(facts[index], _without_path("scan", cases[index].image, error))
        yield facts[index]
    unused = unused_channel_files(cases, recipe.input_channels)
    for index, text in (*repeated_scans(cases, equal_scans), *_shared_labels(cases), *unused):
        facts[index] = replace(facts[index], warnings=(*facts[index].warnings, text))
        yield facts[index]


def list_problems(cases: Sequence[Case], facts: Iterable[CaseFacts], recipe: Recipe) -> list[str]:
    """Return the problems of the list as a whole.

    Args:
        facts: the last facts that `check_cases` yielded for each case.
    """
    values = {fact.index: fact.labels for fact in facts if fact.labels is not None}
    return [str(violation) for violation in violations(cases, recipe, values) if not violation.cases]


class ScanUses:
    """Finds a scan that is used both for training and for validation, while the scans of a run are read one by one."""

    def __init__(self) -> None:
        self._first_case: dict[str, Case] = {}

    def add(self, case: Case, checksum: str) -> None:
        """Raise InputError if a training case and a validation case have equal scans.

        The scan of `case` is compared with the scans of the cases that were added before.

        Args:
            checksum: the `scan_checksum` of the case.
        """
        first = self._first_case.setdefault(checksum, case)
        if (first.role == VALIDATION) != (case.role == VALIDATION):
            raise _conflict(case, first, "file" if is_same_file(first.image, case.image) else "content")


def few_values_warning(volume: Volume) -> str:
    """Return the warning about a scan that is probably a label; empty for other scans."""
    count = count_few_values(volume.voxels)
    if count is None:
        return ""
    return f"The scan has only {count} different intensities, like a label. Check that the file is the scan."


def scan_warnings(volume: Volume) -> list[str]:
    """Return `few_values_warning` and `size_warning`, each only if it is not empty."""
    return [text for text in (few_values_warning(volume), size_warning(volume.grid)) if text]


def scan_notes(volume: Volume) -> tuple[str, ...]:
    """Return the `scan_warnings` and the scan's notes, without duplicates."""
    return tuple(dict.fromkeys((*scan_warnings(volume), *volume.notes)))


def coverage_warning(labelmap: Labelmap) -> str:
    """Return the warning about a label that covers most of its scan; empty for other labels."""
    covered = np.count_nonzero(labelmap.voxels) / labelmap.voxels.size
    if covered <= _MOST_OF_THE_SCAN:
        return ""
    return f"The label covers {covered:.0%} of the scan. Check that its background is 0."


def _facts_or_problem(
    check: Callable[[CaseFacts, Case, Recipe], CaseFacts], facts: CaseFacts, case: Case, recipe: Recipe
) -> CaseFacts:
    """Return the facts that `check` returns; add a problem to `facts` if `check` raises an exception."""
    try:
        return check(facts, case, recipe)
    except Exception as error:
        return _with_problem(facts, f"The case cannot be checked: {user_error(error)}")


def _check_headers(facts: CaseFacts, case: Case, recipe: Recipe) -> CaseFacts:
    if case.name.startswith("#") and case.role != LEFT_OUT:
        what = "The case is used although its name begins with '#'. To leave the case out, remove it from the list."
        facts = replace(facts, warnings=(what,))
    try:
        scan = read_header(case.image, channels=recipe.input_channels)
        spacing = tuple(round(float(mm), 4) for mm in scan.grid.spacing)
        facts = replace(facts, size=scan.grid.shape, spacing=spacing, channels=scan.channels)
        check_case_channels(scan.channels, recipe, case.image)
    except InputError as error:
        facts = _with_problem(facts, _without_path("scan", case.image, error))
    if not case.needs_label:
        return facts
    if case.label is None:
        return _with_problem(
            facts, f"The case has the role {case.role}, but no label. Choose a label, or change the role."
        )
    try:
        read_header(case.label, as_labelmap=True)
    except InputError as error:
        return _with_problem(facts, _without_path("label", case.label, error))
    return facts


def _check_voxels(facts: CaseFacts, case: Case, recipe: Recipe) -> CaseFacts:
    try:
        volume = read_case_scan(case.image, recipe)
    except InputError as error:
        return _with_problem(facts, _without_path("scan", case.image, error))
    grid = volume.grid
    warnings = (*facts.warnings, *scan_notes(volume))
    facts = replace(facts, warnings=warnings, checksum=scan_checksum(volume))
    del volume
    if not case.needs_label or case.label is None:
        return facts
    try:
        labelmap = read_case_label(case, recipe, grid)
    except InputError as error:
        return _with_problem(facts, _without_path("label", case.label, error))
    facts = replace(facts, warnings=(*facts.warnings, *label_notes(case, labelmap, recipe)))
    facts = _result_of(with_label(facts, case, labelmap, recipe))
    if is_uncorrected(case.label):
        what = "The label is a result of DCAMT that was not corrected. Check it before training on it."
        facts = replace(facts, warnings=(*facts.warnings, what))
    return facts


def with_label(facts: CaseFacts, case: Case, labelmap: Labelmap, recipe: Recipe) -> Generator[None, None, CaseFacts]:
    """Check a case's label as training does; return `facts` with the label's values, problems and warnings.

    The generator yields between short steps, so that an event loop can run.

    Args:
        case: `case.label` is None if `labelmap` was not read from a file.
        labelmap: the case's label, on the grid of its scan.
    """
    facts = replace(facts, labels=label_values(labelmap))
    yield
    if warning := coverage_warning(labelmap):
        facts = replace(facts, warnings=(*facts.warnings, warning))
    try:
        check_label(case, labelmap, recipe)
        yield
        present = set[int]()
        for classes in find_classes_on_grid(labelmap, recipe):
            present |= classes
            yield
        refuse_thin_classes(labelmap, present, recipe, case.label)
    except InputError as error:
        return _with_problem(facts, _without_path("label", case.label, error))
    return facts


def scan_checksum(volume: Volume) -> str:
    """Return a checksum that is equal for scans of the same voxels, whatever the format of their files.

    Type of the voxels, order and direction of the stored axes, position and spacing do not matter. Only the first
    channel is compared.
    """
    return _result_of(scan_checksum_in_steps(volume))


def scan_checksum_in_steps(volume: Volume) -> Generator[None, None, str]:
    """Return the `scan_checksum`; yield between short steps, so that an event loop can run."""
    # In the order (Z, Y, X), in which most files store axial scans, the voxels are read fastest.
    voxels = canonical_orientation(volume.grid).apply(volume.voxels[0]).transpose(2, 1, 0)
    digest = hashlib.sha256(repr(voxels.shape).encode())
    for slab in slabs(voxels):
        # Programs may read the same file as integers or as floating-point numbers.
        digest.update(np.ascontiguousarray(voxels[slab], "<f4"))
        yield
    return digest.hexdigest()


def _result_of(steps: Generator[None, None, _Result]) -> _Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


def _equal_scans(cases: Sequence[Case], checksums: Mapping[int, str]) -> Iterator[tuple[str, list[int]]]:
    """Yield ("file" or "content", indices of the cases) for each group of cases with equal scans.

    "file" means that the scans are the same file or folder, "content" that their voxels are equal.

    Args:
        checksums: index of a case -> its `scan_checksum`.
    """
    files = {index: file_identity(case.image) for index, case in enumerate(cases) if case.role != LEFT_OUT}
    keys: tuple[tuple[str, Mapping[int, Hashable]], ...] = (("file", files), ("content", checksums))
    for what, key_of in keys:
        members_by_key: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index, key in key_of.items():
            if key is not None:
                members_by_key[key].append(index)
        yield from ((what, members) for members in members_by_key.values() if len(members) > 1)


def conflicting_scans(
    cases: Sequence[ListedCase], equal_scans: Iterable[tuple[str, list[int]]]
) -> Iterator[tuple[int, int, str]]:
    """Yield once each case whose scan is used both for training and for validation.

    Args:
        equal_scans: groups of cases with equal scans. The first item of a group states what is equal in the scans, such
            as "file" or "content" (see `_equal_scans`); the second item lists the indices of the cases.

    Yields:
        The case's index, the index of a case that uses the same scan for the other purpose, and what is equal.
    """
    reported: set[int] = set()
    for what, members in equal_scans:
        validated = [index for index in members if cases[index].role == VALIDATION]
        trained = [index for index in members if cases[index].role != VALIDATION]
        if not validated or not trained:
            continue
        for group, other in ((validated, trained[0]), (trained, validated[0])):
            for index in (index for index in group if index not in reported):
                reported.add(index)
                yield index, other, what


def _conflict(case: Case, other: Case, what: str) -> InputError:
    role = "validation case" if other.role == VALIDATION else "training case"
    remedy = "Leave one of these cases out."
    text = f"has the same content as the scan of the {role} '{other.name}'"
    if what == "file":
        text = f"is also the scan of the {role} '{other.name}'"
    return InputError(text, path=case.image, remedy=remedy)


def repeated_scans(
    cases: Sequence[ListedCase], equal_scans: Iterable[tuple[str, list[int]]]
) -> Iterator[tuple[int, str]]:
    """Yield index and warning once for each case whose scan is equal to another case's scan.

    If a group of cases with equal scans contains a training case and a validation case, the group is skipped (see
    `conflicting_scans`).

    Args:
        equal_scans: as for `conflicting_scans`.
    """
    reported: set[int] = set()
    for _, members in equal_scans:
        if len({cases[index].role == VALIDATION for index in members}) > 1:
            continue
        for index in (index for index in members if index not in reported):
            reported.add(index)
            other = cases[next(member for member in members if member != index)].name
            yield index, f"The case '{other}' has the same scan. Check that each case has its own scan."


def _shared_labels(cases: Sequence[Case]) -> Iterator[tuple[int, str]]:
    labels: dict[int, Hashable] = {}
    for index, case in enumerate(cases):
        if case.needs_label and case.label is not None and (key := file_identity(case.label)) is not None:
            labels[index] = key
    yield from shared_labels(cases, labels, {index: file_identity(cases[index].image) for index in labels})


def shared_labels(
    cases: Sequence[ListedCase], labels: Mapping[int, Hashable], scans: Mapping[int, Hashable]
) -> Iterator[tuple[int, str]]:
    """Yield index and warning of each case whose label is also the label of a case with another scan.

    Args:
        labels: index of a case -> a value that identifies the case's label. Cases whose index is missing are not
            compared.
        scans: index of a case -> a value that identifies the case's scan, for each case in `labels`.
    """
    members_by_label: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, label in labels.items():
        members_by_label[label].append(index)
    for members in members_by_label.values():
        if len({scans[index] for index in members}) == 1:
            continue
        for index in members:
            other = next(cases[member].name for member in members if scans[member] != scans[index])
            yield index, f"The label is also that of '{other}'. Check that each case has its own label."


def _with_problem(facts: CaseFacts, problem: str) -> CaseFacts:
    return replace(facts, problems=(*facts.problems, problem))


def _without_path(what: str, path: Path | None, error: InputError) -> str:
    """Return the error's message with "The" and `what` in place of `path`, such as "The scan does not exist".

    If the message has a subject of its own, such as "the label mapping names 420 twice", only remove the path and
    capitalise the first letter.
    """
    text = without_path(error, path)
    if text.startswith(("'", "the ")):
        return f"{text[:1].upper()}{text[1:]}"
    return f"The {what} {text}"
