"""Show charts of a run in Slicer's plot view: one for the losses and one for the validation scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.report.colors import CHART_COLORS
from dcamt.report.loss_titles import loss_title
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from .curves import Curve, RunCurves

STEP = "iteration"
LOSSES, SCORES = "losses", "scores"
_CHART = "DCAMT.chart"
_NODE_CLASSES = ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode")


class TrainingCharts:
    """Manages the chart nodes of a run."""

    def __init__(self, run_name: str) -> None:
        self._run_name = run_name
        self._layout_before: int | None = None
        self._has_moved_legends = False

    def show(self, kind: str, curves: RunCurves) -> None:
        """Show the chart of `LOSSES` or `SCORES` in the plot view, in a layout that has a plot view.

        If `curves` has no points for this chart, show the chart that is already in the scene, if any.
        """
        self._fill(kind, curves)
        chart = self.chart(kind)
        if chart is None:
            return
        manager = slicer.app.layoutManager()
        with_plot = slicer.modules.plots.logic().GetLayoutWithPlot(manager.layout)
        if manager.layout != with_plot:
            self._layout_before = manager.layout
            manager.setLayout(with_plot)
        for view in slicer.util.getNodesByClass("vtkMRMLPlotViewNode"):
            view.SetPlotChartNodeID(chart.GetID())
        _place_legends(place_legend_outside)
        self._has_moved_legends = True

    def update(self, curves: RunCurves) -> None:
        """Update the charts that are in the scene."""
        for kind in (LOSSES, SCORES):
            if self.chart(kind) is not None:
                self._fill(kind, curves)

    def chart(self, kind: str) -> Any | None:
        """Return the chart node of `LOSSES` or `SCORES`; None if it is not in the scene."""
        return _find("vtkMRMLPlotChartNode", self._key(kind))

    def hide(self) -> None:
        """Remove this run's chart nodes. Restore the layout from before `show`, unless the user chose another one."""
        if self._has_moved_legends:
            _place_legends(lambda chart: chart.GetLegend().SetInline(True))
            self._has_moved_legends = False
        if self._layout_before is not None:
            _restore_layout(self._layout_before)
            self._layout_before = None
        for node_class in _NODE_CLASSES:
            for node in slicer.util.getNodesByClass(node_class):
                if (node.GetAttribute(_CHART) or "").startswith(f"{self._run_name}\n"):
                    slicer.mrmlScene.RemoveNode(node)
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), self._folder_name())
        if folder:
            hierarchy.RemoveItem(folder)

    def _key(self, kind: str, series: str = "") -> str:
        return "\n".join((self._run_name, kind, series))

    def _folder_name(self) -> str:
        return str(_("{run}: charts").format(run=self._run_name))

    def _fill(self, kind: str, curves: RunCurves) -> None:
        if kind == LOSSES:
            title, axis = _("{run}: losses").format(run=self._run_name), _("loss")
            named = {loss_title(name, _): curve for name, curve in curves.losses.items()}
        else:
            title, axis = _("{run}: validation").format(run=self._run_name), _("Dice")
            several_classes = len({name for name, _branch in curves.dice}) > 1
            named = {
                score_title(name, branch): curve
                for (name, branch), curve in curves.dice.items()
                if branch == "mean" or not several_classes
            }
        drawn = {name: curve for name, curve in named.items() if curve.steps or self._was_drawn(kind, name)}
        if not drawn:
            return
        table = self._node("vtkMRMLTableNode", self._key(kind), title)
        fill_table(table, drawn)
        chart = self._node("vtkMRMLPlotChartNode", self._key(kind), title)
        for number, name in enumerate(drawn):
            series = self._series(kind, name, number)
            if series.GetTableNode() is not table:
                series.SetAndObserveTableNodeID(table.GetID())
            # Each curve has its own iterations: curves are thinned, and some begin later.
            series.SetXColumnName(f"{STEP}, {name}")
            series.SetYColumnName(name)
            # Only markers make a single point visible.
            markers = slicer.vtkMRMLPlotSeriesNode
            is_marked = kind == SCORES or len(drawn[name].steps) == 1
            series.SetMarkerStyle(markers.MarkerStyleCircle if is_marked else markers.MarkerStyleNone)
            if not chart.HasPlotSeriesNodeID(series.GetID()):
                chart.AddAndObservePlotSeriesNodeID(series.GetID())
        if chart.GetTitle() != title:
            chart.SetTitle(title)
            chart.SetXAxisTitle(_("iteration"))
            chart.SetYAxisTitle(axis)

    def _was_drawn(self, kind: str, name: str) -> bool:
        return _find("vtkMRMLPlotSeriesNode", self._key(kind, name)) is not None

    def _series(self, kind: str, name: str, number: int) -> Any:
        key = self._key(kind, name)
        series = _find("vtkMRMLPlotSeriesNode", key)
        if series is None:
            series = self._node("vtkMRMLPlotSeriesNode", key, name)
            series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
            series.SetLineWidth(2)
            used, place_of_color = divmod(number, len(CHART_COLORS))
            styles = slicer.vtkMRMLPlotSeriesNode
            series.SetLineStyle((styles.LineStyleSolid, styles.LineStyleDash, styles.LineStyleDot)[used % 3])
            hexadecimal = CHART_COLORS[place_of_color]
            series.SetColor(*(int(hexadecimal[place : place + 2], 16) / 255 for place in (1, 3, 5)))
        return series

    def _node(self, node_class: str, key: str, name: str) -> Any:
        """Return the node with this key. If the scene has none, create a hidden node that is never saved."""
        node = _find(node_class, key)
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass(node_class)
            node.UnRegister(None)
            node.SetName(name)
            node.SetAttribute(_CHART, key)
            node.SetHideFromEditors(True)
            # The charts can be drawn again from the events in the run's folder.
            node.SetSaveWithScene(False)
            slicer.mrmlScene.AddNode(node)
            hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
            hierarchy.CreateItem(self._folder(hierarchy), node)
        return node

    def _folder(self, hierarchy: Any) -> int:
        """Return the subject hierarchy folder of the run's chart nodes. If there is none, create a hidden folder."""
        scene_item = hierarchy.GetSceneItemID()
        folder = hierarchy.GetItemChildWithName(scene_item, self._folder_name())
        if not folder:
            folder = hierarchy.CreateFolderItem(scene_item, self._folder_name())
            excluded = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
            hierarchy.SetItemAttribute(folder, excluded, "1")
        return int(folder)


def place_legend_outside(chart: Any) -> None:
    """Place the legend of a vtkChartXY to the right of the plot, where it covers no curve."""
    legend = chart.GetLegend()
    legend.SetInline(False)
    legend.SetHorizontalAlignment(vtk.vtkChartLegend.RIGHT)
    legend.SetVerticalAlignment(vtk.vtkChartLegend.TOP)


def fill_table(node: Any, curves: Mapping[str, Curve]) -> None:
    """Write two columns per curve, iterations and values; NaN fills the columns of shorter curves."""
    length = max(len(curve.steps) for curve in curves.values())
    was_modifying = node.StartModify()
    try:
        table = node.GetTable()
        for name, curve in curves.items():
            for column, values in ((f"{STEP}, {name}", curve.steps), (name, curve.values)):
                _set_column(table, column, values, length)
        table.SetNumberOfRows(length)
        table.Modified()
        node.Modified()
    finally:
        node.EndModify(was_modifying)


def score_title(class_name: str, branch: str) -> str:
    """Return the name of a score in a chart; `branch` is "A", "B" or "mean"."""
    branches = _("both branches") if branch == "mean" else _("branch {name}").format(name=branch)
    return f"{class_name}, {branches}"


def _set_column(table: Any, name: str, values: Sequence[float], length: int) -> None:
    padded = np.full(length, np.nan)
    padded[: len(values)] = values
    array = numpy_to_vtk(padded, deep=True)
    array.SetName(name)
    present = table.GetColumnByName(name)
    if present is None:
        table.AddColumn(array)
    else:
        present.DeepCopy(array)


def _find(node_class: str, key: str) -> Any | None:
    return next((node for node in slicer.util.getNodesByClass(node_class) if node.GetAttribute(_CHART) == key), None)


def _place_legends(place: Callable[[Any], None]) -> None:
    """Call `place` with the vtkChartXY of each plot view, since chart nodes do not store where a legend is."""
    manager = slicer.app.layoutManager()
    for index in range(manager.plotViewCount):
        place(manager.plotWidget(index).plotView().chart())


def _restore_layout(layout: int) -> None:
    manager = slicer.app.layoutManager()
    if manager.layout == slicer.modules.plots.logic().GetLayoutWithPlot(layout):
        manager.setLayout(layout)
