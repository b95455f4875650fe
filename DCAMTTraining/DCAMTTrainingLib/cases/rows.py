"""Hold the case table: one row for each case, with source, role, size and the problems found."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dcamt.cases.case_list import LABELLED, LEFT_OUT, ROLES, ROLES_WITH_LABEL, UNLABELLED, VALIDATION

ALL_ROLES = (*ROLES, LEFT_OUT)
_REMOVED = "removed."
"""Prefix of the ID of a removed node in a row; no node of the scene has an ID with this prefix."""


@dataclass(frozen=True)
class FileScan:
    """A scan file and its label file.

    Attributes:
        image: path of a file, or of a folder with a DICOM series.
        label: empty if there is none.
        labels: the label mapping, such as `420=left atrium` (see `dcamt.cases.labels.parse_mapping`); empty if the
            label file has the recipe's values.
    """

    image: str
    label: str = ""
    labels: str = ""


@dataclass(frozen=True)
class SceneScan:
    """A volume node of the scene and its segmentation node, by their node IDs.

    For a node that was removed from the scene, the result of the function `removed_id` replaces the node ID.

    Attributes:
        segmentation: empty if there is none.
        segments: pairs of a segment's identifier and the recipe's label value for the segment.
        chosen: whether the user chose the segments in a dialog.
    """

    volume: str
    segmentation: str = ""
    segments: tuple[tuple[str, int], ...] = ()
    chosen: bool = False


@dataclass(frozen=True)
class CaseRow:
    """One case.

    Attributes:
        size: voxels (I, J, K); None if unknown, as for a file before the first check.
        spacing: mm along I, J, K; None if unknown.
        remark: the problems that the last check found, with their remedies; empty if it found none.
        note: a message for the user that is not a problem.
        plain_name: the name before `UniqueNames` appended a number; empty if it appended none.
    """

    name: str
    source: FileScan | SceneScan
    role: str
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    remark: str = ""
    note: str = ""
    plain_name: str = ""

    @property
    def has_label(self) -> bool:
        """Whether the case has a label file, or a segmentation with a segment for a class."""
        source = self.source
        return bool(source.label) if isinstance(source, FileScan) else bool(source.segmentation and source.segments)

    @property
    def scan(self) -> str:
        """The scan's file path or node ID, unique among the rows."""
        return self.source.image if isinstance(self.source, FileScan) else self.source.volume


class CaseTable:
    """Holds the rows and the listeners of their changes.

    Attributes:
        on_reset: functions called as on_reset() after `add`, `replace_all` and `remove`.
        on_changed: functions called as on_changed(first, last) after some of the rows from `first` to `last` changed.
        on_edited: functions called as on_edited() after each change of the rows, except by `set_facts` and
            `mark_removed`.
    """

    def __init__(self) -> None:
        self.rows: list[CaseRow] = []
        self.on_edited: list[Callable[[], None]] = []
        self.on_reset: list[Callable[[], None]] = []
        self.on_changed: list[Callable[[int, int], None]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: Iterable[CaseRow], roles_chosen: bool = False) -> int:
        """Add cases; return how many are new.

        A new row replaces an existing row of the same scan, but keeps the user's earlier choices (see `_update_row`).
        The existing name is kept, too, unless the volume node was renamed or `roles_chosen` is True.

        Args:
            roles_chosen: True for the rows of a case list: the list's names and roles replace the existing names and
                roles.
        """
        rows = list(rows)
        at = {row.scan: index for index, row in enumerate(self.rows)}
        named = [row for row in rows if row.scan in at and (roles_chosen or isinstance(row.source, SceneScan))]
        new_names = {row.scan: row.name for row in named}
        old_rows = {row.scan: self.rows[at[row.scan]] for row in named}
        old_names = {scan: row.name if roles_chosen else row.plain_name or row.name for scan, row in old_rows.items()}
        renamed = {scan: name for scan, name in new_names.items() if _plain(name) != old_names[scan]}
        names = UniqueNames(row.name for row in self.rows if row.scan not in renamed)
        added = 0
        for row in rows:
            if row.scan in at:
                index = at[row.scan]
                updated = _update_row(self.rows[index], row, roles_chosen)
                if row.scan in renamed:
                    updated = names.rename(updated, renamed.pop(row.scan))
                self.rows[index] = updated
                continue
            at[row.scan] = len(self.rows)
            self.rows.append(names.rename(row, row.name))
            added += 1
        self._reset()
        return added

    def replace_all(self, rows: Sequence[CaseRow]) -> None:
        """Replace the whole table."""
        self.rows = list(rows)
        self._reset()

    def remove(self, indices: Iterable[int]) -> None:
        """Remove cases from the table; their files and nodes stay."""
        removed = set(indices)
        self.rows = [row for index, row in enumerate(self.rows) if index not in removed]
        self._reset()

    def set_role(self, indices: Iterable[int], role: str) -> int:
        """Set the role of cases; return how many keep their old role because they lack the label that `role` needs.

        Raises:
            ValueError: the role is unknown.
        """
        if role not in ALL_ROLES:
            raise ValueError(f"unknown role: {role}")
        rows = {index: self.rows[index] for index in indices}
        able = {index: row for index, row in rows.items() if row.has_label or role not in ROLES_WITH_LABEL}
        self._change({index: replace(row, role=role) for index, row in able.items()})
        return len(rows) - len(able)

    def set_label_mapping(self, indices: Iterable[int], labels: str) -> int:
        """Set the label mapping of those cases that have a label file; return how many these are."""
        sources = {index: self.rows[index].source for index in indices}
        changed = {
            index: replace(self.rows[index], source=replace(source, labels=labels))
            for index, source in sources.items()
            if isinstance(source, FileScan) and source.label
        }
        self._change(changed)
        return len(changed)

    def use_for_validation(self, count: int) -> int:
        """Of the labelled and validation cases, use the last `count` for validation and the others for training.

        At least one case is left for training. Return the number of validation cases.
        """
        indices = [index for index, row in enumerate(self.rows) if row.role in ROLES_WITH_LABEL]
        for_training = max(1, len(indices) - max(0, count))
        roles = {index: LABELLED if place < for_training else VALIDATION for place, index in enumerate(indices)}
        self._change({index: replace(self.rows[index], role=role) for index, role in roles.items()})
        return max(0, len(indices) - for_training)

    def replace_row(self, index: int, row: CaseRow) -> None:
        """Replace the case at `index`; remove other rows with the same scan."""
        self.rows[index] = row
        self._notify_changed(index, index)
        duplicates = [other for other, known in enumerate(self.rows) if known.scan == row.scan and other != index]
        if duplicates:
            self.remove(duplicates)
        else:
            self._notify_edited()

    def set_facts(
        self,
        index: int,
        size: Sequence[int] | None,
        spacing: Sequence[float] | None,
        remark: str,
        note: str | None = None,
    ) -> None:
        """Set size, spacing and remark of the case at `index`, and its note unless `note` is None."""
        row = self.rows[index]
        self.rows[index] = replace(
            row,
            size=tuple(size) if size else None,
            spacing=tuple(spacing) if spacing else None,
            remark=remark,
            note=row.note if note is None else note,
        )
        self._notify_changed(index, index)

    def mark_removed(self, identifier: str) -> bool:
        """Replace the ID of a removed node by its `removed_id`; return whether a row had the ID."""
        affected = False
        for index, row in enumerate(self.rows):
            source = row.source
            if not isinstance(source, SceneScan) or identifier not in (source.volume, source.segmentation):
                continue
            if source.volume == identifier:
                source = replace(source, volume=removed_id(identifier, [known.scan for known in self.rows]))
            else:
                source = replace(source, segmentation=removed_id(identifier))
            self.rows[index] = replace(row, source=source)
            self._notify_changed(index, index)
            affected = True
        return affected

    def count(self, role: str) -> int:
        """Return how many cases have a role."""
        return sum(row.role == role for row in self.rows)

    def _change(self, rows: Mapping[int, CaseRow]) -> None:
        for index, row in rows.items():
            self.rows[index] = row
        if rows:
            self._notify_changed(min(rows), max(rows))
            self._notify_edited()

    def _reset(self) -> None:
        for listener in self.on_reset:
            listener()
        self._notify_edited()

    def _notify_edited(self) -> None:
        for listener in self.on_edited:
            listener()

    def _notify_changed(self, first: int, last: int) -> None:
        for listener in self.on_changed:
            listener(first, last)


def default_role(has_label: bool) -> str:
    """Return the role of a case for which the user has chosen none."""
    return LABELLED if has_label else UNLABELLED


def removed_id(identifier: str, taken: Container[str] = ()) -> str:
    """Return an ID that no node has, for a row whose node was removed.

    Args:
        identifier: the node's ID, or a `removed_id`, which is returned unchanged.
        taken: IDs from which a new `removed_id` shall differ.
    """
    if identifier.startswith(_REMOVED):
        return identifier
    identifier = _REMOVED + identifier
    while identifier in taken:
        identifier = _REMOVED + identifier
    return identifier


def rows_to_json(rows: Sequence[CaseRow]) -> str:
    """Return the rows as JSON text to save with the scene, without remarks or notes."""
    listed = [
        # `dataclasses.asdict` would take ten times as long, which is noticeable for ten thousand rows.
        {
            "name": row.name,
            "plain_name": row.plain_name,
            "source": vars(row.source),
            "role": row.role,
            "size": row.size,
            "spacing": row.spacing,
        }
        for row in rows
    ]
    return json.dumps(listed, separators=(",", ":"))


def parse_row(data: Any) -> CaseRow:
    """Create a row from parsed JSON; raise ValueError if this version cannot read `data`."""
    try:
        return _row(data)
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a case row: {error}") from error


def _row(data: dict[str, Any]) -> CaseRow:
    source = data["source"]
    if "image" in source:
        texts = (source["image"], source["label"])
        scan: FileScan | SceneScan = FileScan(*texts, str(source.get("labels", "")))
    else:
        texts = (source["volume"], source["segmentation"])
        segments = tuple((str(name), int(label)) for name, label in source["segments"])
        scan = SceneScan(*texts, segments, bool(source.get("chosen")))
    plain_name = data.get("plain_name", "")  # Rows of earlier versions lack it.
    if not all(isinstance(text, str) for text in (data["name"], plain_name, *texts)):
        raise TypeError("a name, file or node is not a text")
    if data["role"] not in ALL_ROLES:
        raise ValueError(f"unknown role: {data['role']}")
    size = tuple(int(count) for count in data.get("size") or ())
    spacing = tuple(float(mm) for mm in data.get("spacing") or ())
    return CaseRow(data["name"], scan, data["role"], size or None, spacing or None, plain_name=plain_name)


def _update_row(row: CaseRow, new_row: CaseRow, role_chosen: bool) -> CaseRow:
    """Return `new_row` with the user's choices from `row`, a row of the same scan.

    Args:
        role_chosen: whether the user chose the role of `new_row`; if so, `new_row` keeps its role.
    """
    source, known = new_row.source, row.source
    if isinstance(source, SceneScan) and isinstance(known, SceneScan) and source.segmentation == known.segmentation:
        source = known if known.chosen else source
    if isinstance(source, FileScan) and isinstance(known, FileScan) and source.label == known.label:
        source = replace(source, labels=source.labels or known.labels)
    new_row = replace(new_row, name=row.name, plain_name=row.plain_name, source=source)
    if role_chosen:
        return new_row
    keeps = row.role == LEFT_OUT or (row.has_label and new_row.has_label)
    return replace(new_row, role=row.role if keeps else default_role(new_row.has_label))


def _plain(name: str) -> str:
    return name.strip() or "case"


class UniqueNames:
    """Makes the names of cases distinct by numbers."""

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = set(names)
        self._numbers: defaultdict[str, int] = defaultdict(lambda: 2)  # name -> the number to try first

    def add(self, name: str) -> str:
        """Return the name without surrounding blanks ("case" if it is empty), with a number appended if it is taken."""
        name = plain = _plain(name)
        while name in self._taken:
            name = f"{plain}_{self._numbers[plain]}"
            self._numbers[plain] += 1
        self._taken.add(name)
        return name

    def rename(self, row: CaseRow, name: str) -> CaseRow:
        """Return `row` with the name that `add` returns for `name`."""
        plain, unique = _plain(name), self.add(name)
        plain_name = plain if unique != plain else ""
        if (unique, plain_name) == (row.name, row.plain_name):
            return row  # A copy of each of ten thousand rows would make the user wait.
        return replace(row, name=unique, plain_name=plain_name)
