"""What can be known of a run's cases before it starts: each row's size and spacing, and all that is wrong.

Headers come first, for every case; then the labels, of which alone the voxels are read; then which validation scans
are trained on as well. Ten thousand cases are looked at one after the other, and only facts are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.readers import Header, read_header
from ..recipe import Recipe
from .case_list import LABELLED, LEFT_OUT, VALIDATION, Case
from .labels import read_outline


@dataclass(frozen=True)
class CaseFacts:
    """What is known of the case at `index` of the list; it replaces what was known before.

    size: voxels along the stored axes (I, J, K). spacing: mm along them. channels: images in the scan's file.
    labels: the values in the label, background left out. Each is None where it is not known, or not yet.
    problems: a sentence each, with its remedy.
    """

    index: int
    name: str
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    channels: int | None = None
    labels: tuple[int, ...] | None = None
    problems: tuple[str, ...] = ()


def check_cases(cases: Sequence[Case], recipe: Recipe) -> Iterator[CaseFacts]:
    """Facts of every case by its header, then again those of cases about which more was found out."""
    facts: list[CaseFacts] = []
    names = Counter(case.name for case in cases)
    grids_differ: set[int] = set()
    for index, case in enumerate(cases):
        found, alike = _by_headers(index, case, recipe)
        if names[case.name] > 1:
            found = _also(found, f"The name '{case.name}' comes twice. Give each case its own.")
        if not alike:
            grids_differ.add(index)
        facts.append(found)
        yield found
    for index, case in enumerate(cases):
        if _needs_label(case) and index not in grids_differ:
            facts[index] = _by_label(facts[index], case, recipe)
            yield facts[index]
    for index, what in _overlaps(cases):
        facts[index] = _also(facts[index], what)
        yield facts[index]


def list_problems(cases: Sequence[Case], facts: Iterable[CaseFacts], recipe: Recipe) -> list[str]:
    """What is wrong with the list as a whole; `facts` are the last of each case."""
    outlined = [fact for fact in facts if cases[fact.index].role == LABELLED]
    if not outlined:
        return ["No case is labelled, so there is nothing to learn from. Give a case its label and that role."]
    held = {value for fact in outlined for value in fact.labels or ()}
    return [
        f"No labelled case holds the class '{info.name}' (label {info.label}). Add one, or leave the class out."
        for info in recipe.classes
        if info.label not in held
    ]


def _by_headers(index: int, case: Case, recipe: Recipe) -> tuple[CaseFacts, bool]:
    """The facts, and whether the label is worth reading."""
    facts = CaseFacts(index, case.name)
    scan: Header | None = None
    try:
        scan = read_header(case.image)
    except InputError as error:
        facts = _also(facts, _told("scan", case.image, error))
    else:
        spacing = tuple(round(float(mm), 4) for mm in scan.grid.spacing)
        facts = replace(facts, size=scan.grid.shape, spacing=spacing, channels=scan.channels)
        if scan.channels != recipe.input_channels:
            what = f"The scan holds {scan.channels} channel(s), but the recipe takes {recipe.input_channels}"
            facts = _also(facts, f"{what}. Choose another file or recipe.")
    if not _needs_label(case):
        return facts, False
    if case.label is None:
        return _also(facts, f"The case is for {case.role}, but has no label. Choose one, or change its role."), False
    try:
        label = read_header(case.label, flatten_segments=True)
    except InputError as error:
        return _also(facts, _told("label", case.label, error)), False
    if scan is not None and not label.grid.matches(scan.grid):
        sizes = (" x ".join(map(str, header.grid.shape)) for header in (label, scan))
        what = "The label lies on another grid than the scan ({} and {} voxels)".format(*sizes)
        return _also(facts, f"{what}. Outline this very scan, or resample one of them."), False
    return facts, True


def _needs_label(case: Case) -> bool:
    return case.role in (LABELLED, VALIDATION)


def _by_label(facts: CaseFacts, case: Case, recipe: Recipe) -> CaseFacts:
    assert case.label is not None
    try:
        values = np.unique(read_outline(case.label, recipe).voxels)
    except InputError as error:
        return _also(facts, _told("label", case.label, error))
    facts = replace(facts, labels=tuple(int(value) for value in values if value))
    if not facts.labels:
        return _also(facts, "The label is empty. Outline the scan, or make the case unlabelled.")
    unknown = [value for value in facts.labels if value >= recipe.outputs]
    if unknown:
        listed = ", ".join(map(str, unknown))
        known = f"but the recipe '{recipe.name}' knows 1 to {recipe.outputs - 1}"
        return _also(facts, f"The label holds {listed}, {known}. Choose another recipe, or renumber the label.")
    return facts


def _overlaps(cases: Sequence[Case]) -> Iterator[tuple[int, str]]:
    """Of each scan that is both validated and trained on, by its file or its bytes: index and what to say."""
    used = [index for index, case in enumerate(cases) if case.role != LEFT_OUT]
    told: set[int] = set()
    for same, key in (("file", _identity), ("content", _content)):
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        if same == "content":
            used = _of_one_size(cases, used)
        for index in used:
            if (identity := key(cases[index].image)) is not None:
                groups[identity].append(index)
        for members in groups.values():
            sides = [[i for i in members if (cases[i].role == VALIDATION) == held] for held in (True, False)]
            for own, others in (sides, sides[::-1]) if all(sides) else ():
                for index in own:
                    if index not in told:
                        told.add(index)
                        use = "validated on, too" if own is sides[1] else "trained on, too"
                        other = cases[others[0]].name
                        yield index, f"The scan is {use}: it is of the same {same} as '{other}'. Leave one of them out."


def _identity(path: Path) -> Hashable:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _of_one_size(cases: Sequence[Case], used: Iterable[int]) -> list[int]:
    """Those whose file is as long as one on the other side of the split: only they are worth reading."""
    sizes: defaultdict[int, list[int]] = defaultdict(list)
    for index in used:
        path = cases[index].image
        if path.is_file():
            sizes[path.stat().st_size].append(index)
    return [i for group in sizes.values() if len({cases[i].role == VALIDATION for i in group}) == 2 for i in group]


def _content(path: Path) -> Hashable:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return None
    return digest.digest()


def _also(facts: CaseFacts, what: str) -> CaseFacts:
    return replace(facts, problems=(*facts.problems, what))


def _told(what: str, path: Path, error: InputError) -> str:
    """The error without the path, which the row shows already."""
    return f"The {what} {str(error).removeprefix(f'{path}: ')}"
