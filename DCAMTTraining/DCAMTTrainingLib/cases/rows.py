"""The case table as plain rows: where each case comes from, its role, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dcamt.cases.case_list import LABELLED, LEFT_OUT, ROLES, UNLABELLED, VALIDATION

ALL_ROLES = (*ROLES, LEFT_OUT)


@dataclass(frozen=True)
class FileScan:
    """A scan on the disk and its label; `label` is empty where nobody outlined it."""

    image: str
    label: str = ""


@dataclass(frozen=True)
class SceneScan:
    """A volume node of the scene and the segmentation node that outlines it, by their IDs.

    segments: identifier of each segment that counts, and the recipe's label that it stands for. chosen: by the person.
    """

    volume: str
    segmentation: str = ""
    segments: tuple[tuple[str, int], ...] = ()
    chosen: bool = False


@dataclass(frozen=True)
class CaseRow:
    """One case. size: voxels (I, J, K). spacing: mm along them. remark: what is wrong, with the remedy, else empty.

    size, spacing and remark are None or empty until the case was looked at.
    """

    name: str
    source: FileScan | SceneScan
    role: str
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    remark: str = ""

    @property
    def has_label(self) -> bool:
        source = self.source
        return bool(source.label) if isinstance(source, FileScan) else bool(source.segmentation and source.segments)

    @property
    def scan(self) -> str:
        """What tells the scan from others: its file, or its node's ID."""
        return self.source.image if isinstance(self.source, FileScan) else self.source.volume


class CaseTable:
    """The rows, and who hears of changes: `on_reset()` after rows came or went, `on_changed(first, last)` else.

    `on_edited()` is called after either, unless only something was found out about a case.
    """

    def __init__(self) -> None:
        self.rows: list[CaseRow] = []
        self.on_edited: list[Callable[[], None]] = []
        self.on_reset: list[Callable[[], None]] = []
        self.on_changed: list[Callable[[int, int], None]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: Iterable[CaseRow], roles_chosen: bool = False) -> int:
        """Add cases; returns how many are new. `roles_chosen`: their roles are a person's, not guessed.

        Of one whose scan is there already the row gets the label, as far as there is one; name, role and segments that
        the person chose for it stay.
        """
        at = {row.scan: index for index, row in enumerate(self.rows)}
        names = {row.name for row in self.rows}
        added = 0
        for row in rows:
            if row.scan in at:
                index = at[row.scan]
                self.rows[index] = _brought_up_to_date(self.rows[index], row, roles_chosen)
                continue
            name = _own_name(row.name, names)
            if name != row.name:
                row = replace(row, name=name)
            names.add(name)
            at[row.scan] = len(self.rows)
            self.rows.append(row)
            added += 1
        self._reset()
        return added

    def replace_all(self, rows: Sequence[CaseRow]) -> None:
        self.rows = list(rows)
        self._reset()

    def remove(self, indices: Iterable[int]) -> None:
        """Take cases off the table; their files and nodes stay."""
        gone = set(indices)
        self.rows = [row for index, row in enumerate(self.rows) if index not in gone]
        self._reset()

    def set_role(self, indices: Iterable[int], role: str) -> int:
        """Give cases a role; returns how many keep theirs, since it needs a label that they lack."""
        if role not in ALL_ROLES:
            raise ValueError(f"no role: {role}")
        refused, changed = 0, []
        for index in indices:
            if role in (LABELLED, VALIDATION) and not self.rows[index].has_label:
                refused += 1
                continue
            self.rows[index] = replace(self.rows[index], role=role)
            changed.append(index)
        if changed:
            self._changed(min(changed), max(changed))
            self._edited()
        return refused

    def use_for_validation(self, count: int) -> int:
        """Let `count` of the outlined cases be for validation, the last ones; returns how many are."""
        outlined = [index for index, row in enumerate(self.rows) if row.role in (LABELLED, VALIDATION)]
        # One at least is learnt from.
        chosen = set(outlined[len(outlined) - max(0, min(count, len(outlined) - 1)) :]) if outlined else set()
        for index in outlined:
            self.rows[index] = replace(self.rows[index], role=VALIDATION if index in chosen else LABELLED)
        if outlined:
            self._changed(outlined[0], outlined[-1])
            self._edited()
        return len(chosen)

    def put(self, index: int, row: CaseRow) -> None:
        """Another state of the case at `index`."""
        self.rows[index] = row
        self._changed(index, index)
        self._edited()

    def note(self, index: int, size: Sequence[int] | None, spacing: Sequence[float] | None, remark: str) -> None:
        """What was found out about the case at `index`."""
        sizes, steps = tuple(size) if size else None, tuple(spacing) if spacing else None
        self.rows[index] = replace(self.rows[index], size=sizes, spacing=steps, remark=remark)
        self._changed(index, index)

    def count(self, role: str) -> int:
        return sum(row.role == role for row in self.rows)

    def _reset(self) -> None:
        for hear in self.on_reset:
            hear()
        self._edited()

    def _edited(self) -> None:
        for hear in self.on_edited:
            hear()

    def _changed(self, first: int, last: int) -> None:
        for hear in self.on_changed:
            hear(first, last)


def default_role(has_label: bool) -> str:
    return LABELLED if has_label else UNLABELLED


def rows_to_json(rows: Sequence[CaseRow]) -> str:
    """The rows as text, to be kept with the scene; remarks are found out anew."""
    listed = [
        # By hand: dataclasses.asdict takes ten times as long, which ten thousand rows would let the window feel.
        {"name": row.name, "source": vars(row.source), "role": row.role, "size": row.size, "spacing": row.spacing}
        for row in rows
    ]
    return json.dumps(listed, separators=(",", ":"))


def rows_from_json(text: str) -> list[CaseRow]:
    """What `rows_to_json` wrote; raises ValueError if it is nothing of the kind."""
    return rows_of(json.loads(text))


def rows_of(listed: Any) -> list[CaseRow]:
    """The rows of what JSON made of their text; raises ValueError if it is nothing of the kind."""
    try:
        return [_row(data) for data in listed]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no case rows: {error}") from error


def _row(data: dict[str, Any]) -> CaseRow:
    source = data["source"]
    if "image" in source:
        scan: FileScan | SceneScan = FileScan(source["image"], source["label"])
    else:
        segments = tuple((str(name), int(label)) for name, label in source["segments"])
        scan = SceneScan(source["volume"], source["segmentation"], segments, bool(source.get("chosen")))
    size, spacing = data.get("size"), data.get("spacing")
    if data["role"] not in ALL_ROLES:
        raise ValueError(f"no role: {data['role']}")
    return CaseRow(data["name"], scan, data["role"], tuple(size) if size else None, tuple(spacing) if spacing else None)


def _brought_up_to_date(row: CaseRow, found: CaseRow, role_chosen: bool) -> CaseRow:
    """`row` with what `found` has of the same scan: name, role and segments stay as far as its label allows.

    `role_chosen`: the role of `found` is a person's, and goes before.
    """
    source, known = found.source, row.source
    if isinstance(source, SceneScan) and isinstance(known, SceneScan) and source.segmentation == known.segmentation:
        source = known if known.chosen else source
    found = replace(found, name=row.name, source=source)
    if role_chosen:
        return found
    # The role that a case was given for want of a label is none that anybody chose.
    keeps = row.role == LEFT_OUT or (row.has_label and found.has_label)
    return replace(found, role=row.role if keeps else default_role(found.has_label))


def _own_name(name: str, taken: set[str]) -> str:
    """The name, or the name with the first number that makes it its own."""
    name = name.strip() or "case"
    if name not in taken:
        return name
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"
