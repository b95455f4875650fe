"""Provide the qMRML widgets that the modules' panels use, except the node selector (node_combo_box.py)."""

from __future__ import annotations

from typing import Any, ClassVar

import slicer
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from .observation import Observation


def _with_scene(base: type) -> Any:
    """Return a subclass of the widget class `base`; the subclass has a scene.

    The subclass is made by a function, and not with a mix-in class, because PySide ignores the signals of mix-ins.
    """

    class WithScene(base):
        SIGNATURES: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged(PyObject)"}
        mrmlSceneChanged = Signal(object)

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._scene: Any = None

        @Slot(object)
        def setMRMLScene(self, scene: Any) -> None:
            if scene is not self._scene:
                self._scene = scene
                self.mrmlSceneChanged.emit(scene)

        def mrmlScene(self) -> Any:
            return self._scene

    return WithScene


class qMRMLWidget(_with_scene(QtWidgets.QWidget)):
    """A widget with a scene."""


class qMRMLTableView(_with_scene(QtWidgets.QTableView)):
    """Shows a table node's cells and follows their changes."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._transposed = False
        self._observation = Observation(self, qMRMLTableView._fill)
        self._cells = QtGui.QStandardItemModel(self)
        self.setModel(self._cells)

    def _is_transposed(self) -> bool:
        return self._node is not None and self._transposed

    def _transpose(self, transposed: bool) -> None:
        # As in Slicer, the setting is ignored if the view has no table node (qMRMLTableView.cxx).
        if self._node is not None:
            self._transposed = transposed
            self._fill()

    transposed = Property(bool, _is_transposed, _transpose)

    @Slot(object)
    def setMRMLTableNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, slicer.vtkMRMLTableNode):
            raise ValueError(f"setMRMLTableNode takes a vtkMRMLTableNode, not {type(node).__name__}")
        self._node = node
        self._observation.follow(node)
        self._fill()
        self.horizontalHeader().setMinimumSectionSize(60)
        self.resizeColumnsToContents()

    def mrmlTableNode(self) -> Any:
        return self._node

    def _fill(self) -> None:
        self._cells.clear()
        table = self._node.GetTable() if self._node is not None else None
        if table is None:
            return
        names = [table.GetColumnName(column) or "" for column in range(table.GetNumberOfColumns())]
        rows = [
            [table.GetValue(row, column).ToString() for column in range(len(names))]
            for row in range(table.GetNumberOfRows())
        ]
        titled = self._node.GetUseColumnTitleAsColumnHeader()
        if not titled:
            rows = [names, *rows]
        for cells in zip(*rows, strict=True) if self._transposed else rows:
            self._cells.appendRow([QtGui.QStandardItem(cell) for cell in cells])
        letters = [chr(ord("A") + place % 26) for place in range(len(names))]
        labels = [self._node.GetColumnTitle(name) or name for name in names] if titled else letters
        if self._transposed:
            self._cells.setVerticalHeaderLabels(labels)
        else:
            self._cells.setHorizontalHeaderLabels(labels)


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The panel of a scripted module."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        QtWidgets.QVBoxLayout(self)
        self._entered = False
        self._python: Any = None
        self._fill: Any = None

    isEntered = Property(bool, lambda self: self._entered)

    def self(self) -> Any:
        """Return the module's Python widget."""
        return self._python

    def reload(self) -> None:
        """Make a new Python widget for the module."""
        self._fill()
