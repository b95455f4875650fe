"""Draw a chart node off-screen with VTK's charts, as Slicer's plot view does."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
import vtkmodules.vtkRenderingContextOpenGL2  # noqa: F401  (draws for vtkContextView)
from DCAMTTrainingLib.runs.charts import place_legend_outside

from .png import window_pixels

WHITE = (1.0, 1.0, 1.0)
TITLE_POINTS, AXIS_POINTS, LABEL_POINTS = 14, 12, 11


def chart_picture(node: Any, size: tuple[int, int], scale: float) -> np.ndarray:
    """Return the picture (rows, columns, 3) of a chart node; raise ValueError unless its series are scatter plots.

    Args:
        size: width and height in pixels.
        scale: pixels of the picture per logical pixel of Qt, for fonts, lines and markers.
    """
    view = vtk.vtkContextView()
    window = view.GetRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(8)
    window.SetSize(*size)
    view.GetRenderer().SetBackground(*WHITE)
    chart = vtk.vtkChartXY()
    view.GetScene().AddItem(chart)
    chart.SetTitle(node.GetTitle() or "")
    chart.GetTitleProperties().SetFontSize(round(TITLE_POINTS * scale))
    for place, title in ((vtk.vtkAxis.BOTTOM, node.GetXAxisTitle()), (vtk.vtkAxis.LEFT, node.GetYAxisTitle())):
        axis = chart.GetAxis(place)
        axis.SetTitle(title or "")
        axis.GetTitleProperties().SetFontSize(round(AXIS_POINTS * scale))
        axis.GetLabelProperties().SetFontSize(round(LABEL_POINTS * scale))
    chart.SetShowLegend(bool(node.GetLegendVisibility()))
    chart.GetLegend().SetLabelSize(round(LABEL_POINTS * scale))
    for index in range(node.GetNumberOfPlotSeriesNodes()):
        _add_line(chart, node.GetNthPlotSeriesNode(index), scale)
    place_legend_outside(chart)
    return window_pixels(window)


def _add_line(chart: Any, series: Any, scale: float) -> None:
    """Add a scatter plot as Slicer draws it: a line, with markers if the series has them."""
    if series.GetPlotType() != slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter:
        raise ValueError(f"{series.GetName()} is not a scatter plot: only scatter plots are drawn here")
    line = chart.AddPlot(vtk.vtkChart.LINE)
    line.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
    line.SetLabel(series.GetName())
    line.SetColorF(*series.GetColor())
    line.SetWidth(series.GetLineWidth() * scale)
    line.GetPen().SetLineType(series.GetLineStyle())
    markers = slicer.vtkMRMLPlotSeriesNode
    if series.GetMarkerStyle() != markers.MarkerStyleNone:
        line.SetMarkerStyle(series.GetMarkerStyle())
        line.SetMarkerSize(series.GetMarkerSize() * scale)
    else:
        line.SetMarkerStyle(vtk.vtkPlotPoints.NONE)
