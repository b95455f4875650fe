"""The case list of a training run: which scans, which labels, in which role."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import atomic_path

LABELLED, UNLABELLED, VALIDATION = "labelled", "unlabelled", "validation"
ROLES = (LABELLED, UNLABELLED, VALIDATION)
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

    Raises:
        InputError: the file, a column, an image or a label is missing, a role is unknown, a name comes twice, no case
            is labelled, or a validation scan is also trained on.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as a case list ({error})", path=path) from error
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise InputError(
            f"lacks the column '{missing[0]}'", path=path, remedy=f"Its first line must read {','.join(COLUMNS)}."
        )
    cases = [_case(row, path, number) for number, row in rows]
    _check(cases, path)
    return cases


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
    if values["role"] not in ROLES:
        raise InputError(
            f"{where} ('{values['name']}') has the role '{values['role']}'",
            path=path,
            remedy=f"Use {', '.join(ROLES)}.",
        )
    if values["role"] != UNLABELLED and not values["label"]:
        raise InputError(f"{where} ('{values['name']}') is for {values['role']}, but names no label", path=path)
    image = path.parent / values["image"]
    label = path.parent / values["label"] if values["label"] and values["role"] != UNLABELLED else None
    for file in (image, label):
        if file is not None and not file.exists():
            raise InputError(f"{where} names {file}, which does not exist", path=path)
    return Case(values["name"], image, label, values["role"])


def _check(cases: Sequence[Case], path: Path) -> None:
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
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
