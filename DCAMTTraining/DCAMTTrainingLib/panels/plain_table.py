"""A read-only table of texts, made a cell at a time."""
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt


class PlainTableModel(qt.QAbstractTableModel):
    """`rows` are shown under `titles`; `cells(row)` gives the texts of one."""

    def __init__(self, titles: Sequence[str], cells: Callable[[Any], Sequence[str]]) -> None:
        qt.QAbstractTableModel.__init__(self)
        self._titles, self._cells = tuple(titles), cells
        self.rows: list[Any] = []

    def show(self, rows: Sequence[Any]) -> None:
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def rowCount(self, parent: Any = None) -> int:
        return len(self.rows)

    def columnCount(self, parent: Any = None) -> int:
        return len(self._titles)

    def headerData(self, section: int, orientation: int, role: int = 0) -> Any:
        if role != qt.Qt.DisplayRole:
            return None
        return self._titles[section] if orientation == qt.Qt.Horizontal else section + 1

    def data(self, index: Any, role: int = 0) -> Any:
        if role in (qt.Qt.DisplayRole, qt.Qt.ToolTipRole):
            return self._cells(self.rows[index.row()])[index.column()]
        return None


def selected_rows(view: Any) -> list[int]:
    """The rows of a QTableView that are selected."""
    return sorted(index.row() for index in view.selectionModel().selectedRows())
