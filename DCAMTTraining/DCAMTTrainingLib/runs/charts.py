"""A run's curves in the scene: one table and one chart of the losses, one of the validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from .curves import Curve, RunCurves

STEP = "iteration"
# Of Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = (
    (0.0, 0.45, 0.7),
    (0.9, 0.6, 0.0),
    (0.0, 0.62, 0.45),
    (0.84, 0.37, 0.0),
    (0.8, 0.47, 0.65),
    (0.34, 0.71, 0.91),
    (0.2, 0.2, 0.2),
)
_CHART = "DCAMT.chart"
LOSSES, SCORES = "losses", "scores"


class TrainingCharts:
    """Nodes of one run in the scene, made when they are first needed and again if somebody deletes them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def update(self, curves: RunCurves) -> None:
        """Bring tables, series and charts up to the curves."""
        losses = {loss_title(name): curve for name, curve in curves.losses.items()}
        scores = {score_title(name, branch): curve for (name, branch), curve in curves.dice.items()}
        self._fill(LOSSES, _("{run}: losses").format(run=self._name), _("loss"), losses)
        self._fill(SCORES, _("{run}: validation").format(run=self._name), _("Dice"), scores)

    def chart(self, kind: str) -> Any | None:
        """The chart of `LOSSES` or `SCORES`; None if it is not in the scene."""
        return _find("vtkMRMLPlotChartNode", self._key(kind))

    def show(self, kind: str) -> None:
        """Put a chart into Slicer's plot view, with a layout that has one."""
        chart = self.chart(kind)
        if chart is None:
            return
        manager = slicer.app.layoutManager()
        with_plot = slicer.modules.plots.logic().GetLayoutWithPlot(manager.layout)
        if manager.layout != with_plot:
            manager.setLayout(with_plot)
        for view in slicer.util.getNodesByClass("vtkMRMLPlotViewNode"):
            view.SetPlotChartNodeID(chart.GetID())

    def remove(self) -> None:
        """Take all nodes of this run's charts out of the scene."""
        for kind in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
            for node in slicer.util.getNodesByClass(kind):
                if (node.GetAttribute(_CHART) or "").startswith(f"{self._name}\n"):
                    slicer.mrmlScene.RemoveNode(node)

    def _key(self, kind: str, series: str = "") -> str:
        return "\n".join((self._name, kind, series))

    def _fill(self, kind: str, title: str, axis: str, curves: Mapping[str, Curve]) -> None:
        drawn = {name: curve for name, curve in curves.items() if curve.steps}
        if not drawn:
            return
        table = self._node("vtkMRMLTableNode", self._key(kind), title)
        fill_table(table, drawn)
        chart = self._node("vtkMRMLPlotChartNode", self._key(kind), title)
        for number, name in enumerate(drawn):
            key = self._key(kind, name)
            series = _find("vtkMRMLPlotSeriesNode", key)
            if series is None:
                series = self._node("vtkMRMLPlotSeriesNode", key, name)
                series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
                markers = slicer.vtkMRMLPlotSeriesNode
                # The first validation is a single point: a line alone would not show it.
                series.SetMarkerStyle(markers.MarkerStyleCircle if kind == SCORES else markers.MarkerStyleNone)
                series.SetLineWidth(2)
                series.SetColor(*COLOURS[number % len(COLOURS)])
            if series.GetTableNode() is not table:
                series.SetAndObserveTableNodeID(table.GetID())
            # A curve has iterations of its own: after thinning, or where it begins later.
            series.SetXColumnName(f"{STEP}, {name}")
            series.SetYColumnName(name)
            if not chart.HasPlotSeriesNodeID(series.GetID()):
                chart.AddAndObservePlotSeriesNodeID(series.GetID())
        if chart.GetTitle() != title:
            chart.SetTitle(title)
            chart.SetXAxisTitle(_("iteration"))
            chart.SetYAxisTitle(axis)

    def _node(self, kind: str, key: str, name: str) -> Any:
        node = _find(kind, key)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
            node.SetAttribute(_CHART, key)
            # The run's folder keeps its events; a scene need not.
            node.SetSaveWithScene(False)
        return node


def fill_table(node: Any, curves: Mapping[str, Curve]) -> None:
    """Two columns a curve; shorter ones end in NaN, which charts leave out. One notice of the change for all."""
    length = max(len(curve.steps) for curve in curves.values())
    changing = node.StartModify()
    try:
        table = node.GetTable()
        for name, curve in curves.items():
            for column, values in ((f"{STEP}, {name}", curve.steps), (name, curve.values)):
                _set_column(table, column, values, length)
        table.SetNumberOfRows(length)
        table.Modified()
        node.Modified()
    finally:
        node.EndModify(changing)


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


def _find(kind: str, key: str) -> Any | None:
    return next((node for node in slicer.util.getNodesByClass(kind) if node.GetAttribute(_CHART) == key), None)


def loss_title(name: str) -> str:
    """What a chart calls a part of the objective."""
    return str(
        {
            "total": _("total"),
            "supervised": _("supervised"),
            "distillation": _("distillation"),
            "mmd": _("MMD"),
            "intra_class": _("contrast within classes"),
            "inter_class": _("contrast between classes"),
            "copy_paste": _("mixed patches"),
        }.get(name, name)
    )


def score_title(class_name: str, branch: str) -> str:
    who = _("both branches") if branch == "mean" else _("branch {name}").format(name=branch)
    return f"{class_name}, {who}"
