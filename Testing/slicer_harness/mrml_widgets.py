"""Provide the qMRML widgets that the modules' panels use, except the node selector (node_combo_box.py)."""

from __future__ import annotations

from typing import Any, ClassVar

import slicer
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from .ctk_widgets import ctkCollapsibleButton, ctkMenuButton
from .observation import Observation
from .stored_property import stored


def _with_scene(base: type) -> Any:
    """Return a subclass of the widget class `base` that has a scene.

    This is no mix-in class because PySide ignores the signals of mix-ins.
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


class qMRMLCollapsibleButton(_with_scene(ctkCollapsibleButton)):
    """A collapsible button with a scene."""


class qMRMLTableView(_with_scene(QtWidgets.QTableView)):
    """Shows a table node's cells and follows their changes."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._transposed = False
        self._observation = Observation(self, qMRMLTableView._fill)
        self._cells = QtGui.QStandardItemModel(self)
        self.setModel(self._cells)

    firstRowLocked = stored(bool, False, lambda self: self._fill())
    firstColumnLocked = stored(bool, False, lambda self: self._fill())

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
        """Fill the cells; the node decides whether the header or the first row shows the column names.

        In a transposed table, the vertical header or the first column shows them.
        """
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

    @Slot()
    def copySelection(self) -> None:
        """Copy the selected cells to the clipboard, with tabs between columns."""
        chosen = sorted((index.row(), index.column(), str(index.data())) for index in self.selectedIndexes())
        lines: dict[int, list[str]] = {}
        for row, _column, text in chosen:
            lines.setdefault(row, []).append(text)
        QtGui.QGuiApplication.clipboard().setText("\n".join("\t".join(line) for line in lines.values()))


class qMRMLSegmentsTableView(qMRMLWidget):
    """Lists the segments of a segmentation when `setSegmentationNode` is called; later changes are not shown."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._table = QtWidgets.QTableWidget(0, 1, self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)

    selectionMode = stored(int, 3)
    headerVisible = stored(bool, True)
    visibilityColumnVisible = stored(bool, True)
    colorColumnVisible = stored(bool, True)
    opacityColumnVisible = stored(bool, True)
    statusColumnVisible = stored(bool, True)
    layerColumnVisible = stored(bool, False)
    readOnly = stored(bool, False)
    filterBarVisible = stored(bool, False)

    def segmentationNode(self) -> Any:
        return self._node

    @Slot(object)
    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        ids = list(node.GetSegmentation().GetSegmentIDs()) if node is not None else []
        self._table.setRowCount(len(ids))
        for row, segment in enumerate(ids):
            name = node.GetSegmentation().GetSegment(segment).GetName()
            self._table.setItem(row, 0, QtWidgets.QTableWidgetItem(name))

    segmentCount = Property(int, lambda self: self._table.rowCount())


class qMRMLSegmentationShow3DButton(ctkMenuButton):
    """Creates the closed surface of a segmentation, or removes it."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setText("Show 3D")
        self.setCheckable(True)
        self._node: Any = None
        self._observation = Observation(self, qMRMLSegmentationShow3DButton._update)
        self.toggled.connect(self._on_toggled)
        self._update()

    locked = stored(bool, False, lambda self: self._update())

    def segmentationNode(self) -> Any:
        return self._node

    @Slot(object)
    def setSegmentationNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, slicer.vtkMRMLSegmentationNode):
            raise ValueError(f"setSegmentationNode takes a vtkMRMLSegmentationNode, not {type(node).__name__}")
        self._node = node
        kinds = ("SegmentAdded", "SegmentRemoved", "RepresentationModified", "ContainedRepresentationNamesModified")
        self._observation.follow(node, [getattr(slicer.vtkSegmentation, kind) for kind in kinds] if node else ())
        self._update()

    def _shown(self) -> bool:
        return self._node is not None and self._node.GetSegmentation().ContainsRepresentation(_surface())

    def _on_toggled(self, shown: bool) -> None:
        if self._node is None or shown == self._shown():
            return
        if shown:
            self._node.CreateClosedSurfaceRepresentation()
        else:
            self._node.RemoveClosedSurfaceRepresentation()

    def _update(self) -> None:
        segments = self._node.GetSegmentation().GetNumberOfSegments() if self._node is not None else 0
        self.setEnabled(segments > 0 and not self.property("locked"))
        self.blockSignals(True)
        self.setChecked(self._shown())
        self.blockSignals(False)


def _surface() -> str:
    return slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()


class qMRMLPlotView(_with_scene(QtWidgets.QWidget)):
    """Holds a plot view node and draws nothing; `fits` counts the calls of `fitToContent`."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self.fits = 0

    @Slot(object)
    def setMRMLPlotViewNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, slicer.vtkMRMLPlotViewNode):
            raise ValueError(f"setMRMLPlotViewNode takes a vtkMRMLPlotViewNode, not {type(node).__name__}")
        self._node = node

    @Slot()
    def fitToContent(self) -> None:
        self.fits += 1


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
