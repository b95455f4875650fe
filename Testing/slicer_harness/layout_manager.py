"""Provide `slicer.app.layoutManager()`: real layout logic and view nodes, and view widgets that draw nothing."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore

_SETTING = "MainWindow/layout"


class LayoutManager:
    """Creates the view nodes of a layout, as Slicer does; `resets` counts the resets of views."""

    def __init__(self, scene: Any, application_logic: Any) -> None:
        self.resets = 0
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._slices: dict[str, Any] = {}
        self._charts: dict[str, Any] = {}
        self._collection = vtk.vtkCollection()
        application_logic.SetSliceLogics(self._collection)
        application_logic.SetViewLogics(vtk.vtkCollection())
        conventional = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
        self.setLayout(int(QtCore.QSettings().value(_SETTING, conventional)))
        layout_node = self._logic.GetLayoutNode()
        layout_node.AddObserver("ModifiedEvent", lambda *_: self._update_views())

    @property
    def layout(self) -> int:
        return int(self._logic.GetLayoutNode().GetViewArrangement())

    def setLayout(self, layout: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(layout)
        self._update_views()

    def store(self) -> None:
        """Save the layout for the next session."""
        QtCore.QSettings().setValue(_SETTING, self.layout)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> Any:
        return _SliceWidget(self._slices[name]) if name in self._slices else None

    def mrmlSliceLogics(self) -> Any:
        return self._collection

    @property
    def threeDViewCount(self) -> int:
        return len(self._nodes("vtkMRMLViewNode"))

    def threeDWidget(self, index: int) -> Any:
        return _ThreeDWidget(self._nodes("vtkMRMLViewNode")[index], self)

    @property
    def plotViewCount(self) -> int:
        return len(self._nodes("vtkMRMLPlotViewNode"))

    def plotWidget(self, index: int) -> Any:
        node = self._nodes("vtkMRMLPlotViewNode")[index]
        return _PlotWidget(node, self._charts.setdefault(node.GetID(), vtk.vtkChartXY()))

    @property
    def tableViewCount(self) -> int:
        return len(self._nodes("vtkMRMLTableViewNode"))

    def resetSliceViews(self) -> None:
        self.resets += 1
        for logic in self._slices.values():
            logic.FitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self.resets += 1

    def _nodes(self, kind: str) -> list[Any]:
        shown = self._logic.GetViewNodes()
        nodes = [shown.GetItemAsObject(index) for index in range(shown.GetNumberOfItems())]
        return [node for node in nodes if node.IsA(kind)]

    def _update_views(self) -> None:
        """Create a logic for each new slice view of the layout, and mark the layout's view nodes as shown."""
        for node in self._nodes("vtkMRMLAbstractViewNode"):
            node.SetMappedInLayout(1)
        for node in self._nodes("vtkMRMLSliceNode"):
            if node.GetLayoutName() not in self._slices:
                logic = slicer.vtkMRMLSliceLogic()
                logic.SetMRMLScene(node.GetScene())
                logic.SetSliceNode(node)
                self._slices[node.GetLayoutName()] = logic
                self._collection.AddItem(logic)


class _SliceWidget:
    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        return self._logic


class _ThreeDWidget:
    def __init__(self, node: Any, manager: LayoutManager) -> None:
        self._node, self._manager = node, manager

    def mrmlViewNode(self) -> Any:
        return self._node

    def threeDView(self) -> Any:
        return self

    def resetFocalPoint(self) -> None:
        self._manager.resets += 1


class _PlotWidget:
    def __init__(self, node: Any, chart: Any) -> None:
        self._node, self._chart = node, chart

    def plotView(self) -> Any:
        return self

    def chart(self) -> Any:
        return self._chart

    def mrmlPlotViewNode(self) -> Any:
        return self._node
