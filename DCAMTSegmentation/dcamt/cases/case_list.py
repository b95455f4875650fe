"""The case list of a training run: which scans, which labels, in which role."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..io.atomic import atomic_path

LABELLED, UNLABELLED, VALIDATION = "labelled", "unlabelled", "validation"
ROLES = (LABELLED, UNLABELLED, VALIDATION)
LEFT_OUT = "left out"
"""The role of a line that a case list keeps for later, and no run reads."""
COLUMNS = ("name", "image", "label", "role")


@dataclass(frozen=True)
class Case:
    """One scan of a run; `label` is None where nobody outlined it."""

    name: str
    image: Path
    label: Path | None
    role: str


def read_cases(path: Path) -> list[Case]:
    """The cases of a CSV file with the columns `name,image,label,role`, paths relative to the file.

    Lines of the role `left out` are passed over.

    Raises:
        InputError: the file, a column, an image or a label is missing, a role is unknown, a name comes twice, no case
            is labelled, or a validation scan is also trained on.
    """
    cases = []
    for line, case in _listed(path):
        if case.role == LEFT_OUT:
            continue
        if case.role == UNLABELLED:
            case = replace(case, label=None)
        elif case.label is None:
            raise InputError(f"line {line} ('{case.name}') is for {case.role}, but names no label", path=path)
        for file in (case.image, case.label):
            if file is not None and not file.exists():
                raise InputError(f"line {line} names {file}, which does not exist", path=path)
        cases.append(case)
    _check(cases, path)
    return cases


def list_cases(path: Path) -> list[Case]:
    """All lines of a case list as they are: those left out, too, and whether or not their files are there.

    Raises:
        InputError: the file or a column is missing, or a line has no name, no image or an unknown role.
    """
    return list(listed_cases(path))


def listed_cases(path: Path) -> Iterator[Case]:
    """What `list_cases` returns, a line at a time: a list may be long. Raises as it does, where the fault lies."""
    for _, case in _listed(path):
        yield case


def _listed(path: Path) -> Iterator[tuple[int, Case]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
            if missing:
                remedy = f"Its first line must read {','.join(COLUMNS)}."
                raise InputError(f"lacks the column '{missing[0]}'", path=path, remedy=remedy)
            for row in reader:
                yield reader.line_num, _case(row, path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as a case list ({error})", path=path) from error


def write_cases(cases: Sequence[Case], path: Path) -> None:
    """Write the cases as `read_cases` reads them, paths relative to the file where they share its drive."""

    def relative(target: Path | None) -> str:
        if target is None:
            return ""
        try:
            return Path(os.path.relpath(target.resolve(), path.parent.resolve())).as_posix()
        except ValueError:  # another drive, on Windows
            return str(target.resolve())

    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([case.name, relative(case.image), relative(case.label), case.role] for case in cases)


def _case(row: dict[str, str | None], path: Path, line: int) -> Case:
    values = {column: (row.get(column) or "").strip() for column in COLUMNS}
    where = f"line {line}"
    if not values["name"] or not values["image"]:
        raise InputError(f"{where} has no name or no image", path=path)
    if values["role"] not in (*ROLES, LEFT_OUT):
        raise InputError(
            f"{where} ('{values['name']}') has the role '{values['role']}'",
            path=path,
            remedy=f"Use {', '.join(ROLES)}.",
        )
    label = path.parent / values["label"] if values["label"] else None
    return Case(values["name"], path.parent / values["image"], label, values["role"])


def _check(cases: Sequence[Case], path: Path) -> None:
    twice = sorted(name for name, count in Counter(case.name for case in cases).items() if count > 1)
    if twice:
        raise InputError(f"the name '{twice[0]}' comes twice", path=path, remedy="Give each case its own name.")
    if not any(case.role == LABELLED for case in cases):
        raise InputError("no case is labelled, so there is nothing to learn from", path=path)
    held_out = {case.image.resolve() for case in cases if case.role == VALIDATION}
    for case in cases:
        if case.role != VALIDATION and case.image.resolve() in held_out:
            raise InputError(
                f"the scan of '{case.name}' is trained on and also used for validation", path=path, remedy="Choose one."
            )
