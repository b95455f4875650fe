"""Provide a read-only table of texts for a QTableView; each text is computed when the view asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from DCAMTSlicerLib.plain_text import tooltip

ROW_PIXELS = 24
_HEADER_AND_SCROLL_BAR_PIXELS = 44


class PlainTableModel(qt.QAbstractTableModel):
    """Table model whose rows may have any type.

    Args:
        titles: column headers.
        cells: returns the texts of one row.
    """

    def __init__(self, titles: Sequence[str], cells: Callable[[Any], Sequence[str]]) -> None:
        qt.QAbstractTableModel.__init__(self)
        self._titles, self._cells = tuple(titles), cells
        self.rows: list[Any] = []

    def show(self, rows: Sequence[Any]) -> None:
        """Replace all rows."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def rowCount(self, parent: Any = None) -> int:  # noqa: N802
        return len(self.rows)

    def columnCount(self, parent: Any = None) -> int:  # noqa: N802
        return len(self._titles)

    def headerData(self, section: int, orientation: int, role: int = 0) -> Any:  # noqa: N802
        if role != qt.Qt.DisplayRole:
            return None
        return self._titles[section] if orientation == qt.Qt.Horizontal else section + 1

    def data(self, index: Any, role: int = 0) -> Any:
        if role not in (qt.Qt.DisplayRole, qt.Qt.ToolTipRole):
            return None
        text = self._cells(self.rows[index.row()])[index.column()]
        return tooltip(text) if role == qt.Qt.ToolTipRole else text


def fit_height(view: Any, count: int, least: int, most: int) -> None:
    """Set the height of a QTableView to `count` rows, but at least `least` and at most `most` rows."""
    rows = min(max(count, least), most)
    view.setFixedHeight(_HEADER_AND_SCROLL_BAR_PIXELS + rows * ROW_PIXELS)


def selected_rows(view: Any) -> list[int]:
    """Return the indices of the selected rows of a QTableView, in ascending order."""
    return sorted(index.row() for index in view.selectionModel().selectedRows())
