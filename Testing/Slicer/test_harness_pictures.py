"""Off-screen pictures of Slicer's views and charts show the scene."""

from __future__ import annotations

import unittest

import numpy as np
import slicer
import vtk
from pictures.charts import chart_picture
from pictures.views import show_volume, slice_picture, three_d_picture, zoom_slices
from slicer_harness import close_scene

RED = (0.9, 0.1, 0.1)


class ViewsTest(unittest.TestCase):
    """The scene has a dark scan with a bright slab at the patient's right and a red segment in the middle."""

    def setUp(self) -> None:
        close_scene()
        voxels = np.full((40, 40, 40), 20, np.int16)
        voxels[:, :, :5] = 220  # axes (K, J, I); the matrix below places small I at the patient's right
        self.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        slicer.util.updateVolumeFromArray(self.volume, voxels)
        self.volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0])))
        self.volume.CreateDefaultDisplayNodes()
        self.volume.GetDisplayNode().AutoWindowLevelOff()
        self.volume.GetDisplayNode().SetWindowLevelMinMax(0, 255)
        mask = np.zeros((40, 40, 40), np.uint8)
        mask[14:26, 14:26, 14:26] = 1
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "block")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        identifier = segmentation.GetSegmentation().AddEmptySegment("", "block", RED)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, self.volume)
        segmentation.CreateClosedSurfaceRepresentation()
        show_volume(self.volume)

    def test_slice_view_shows_scan_and_segment(self) -> None:
        pixels = slice_picture("Red", (200, 200), fit=True).astype(int)
        self.assertEqual(pixels.shape, (200, 200, 3))
        middle, above, slab = pixels[100, 100], pixels[30, 100], pixels[30, 12]
        self.assertGreater(middle[0] - middle[1], 60)  # the red segment is half transparent over the dark scan
        self.assertLess(np.ptp(above), 5)
        self.assertAlmostEqual(above[0], 20, delta=4)
        self.assertAlmostEqual(slab[0], 220, delta=4)  # the patient's right is on the left of the picture

    def test_zoomed_slice_view_shows_the_segment_larger(self) -> None:
        def count_red_pixels(pixels: np.ndarray) -> int:
            return int((pixels[..., 0].astype(int) - pixels[..., 1] > 60).sum())

        before = count_red_pixels(slice_picture("Red", (200, 200), fit=True))
        zoom_slices(2)
        self.assertAlmostEqual(count_red_pixels(slice_picture("Red", (200, 200), fit=False)) / before, 4, delta=0.4)

    def test_3d_view_shows_the_surface(self) -> None:
        pixels = three_d_picture((200, 200), turn=30, tilt=20).astype(int)
        red = pixels[..., 0] - pixels[..., 1] > 60
        self.assertTrue(red[100, 100])
        self.assertFalse(red[5, 5])

    def test_3d_view_shows_the_colour_legend_of_a_model(self) -> None:
        sphere = vtk.vtkSphereSource()
        sphere.Update()
        model = slicer.modules.models.logic().AddModel(sphere.GetOutput())
        before = three_d_picture((400, 400)).astype(int)
        model.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeWarm1")
        model.GetDisplayNode().SetScalarRange(0, 1)
        legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(model)
        legend.SetVisibility(True)
        changed = np.abs(three_d_picture((400, 400)).astype(int) - before).max(axis=2) > 30
        self.assertTrue(changed[:, 300:].any())
        self.assertFalse(changed[:, :300].any())


class ChartTest(unittest.TestCase):
    def test_rising_series_is_drawn_in_its_colour_and_a_bar_chart_is_refused(self) -> None:
        close_scene()
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "curve")
        rising = np.stack([np.arange(10.0), np.arange(10.0) ** 2], axis=1)
        slicer.util.updateTableFromArray(table, rising, ["step", "loss"])
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "loss")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName("loss")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetColor(*RED)
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "chart")
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        chart.SetLegendVisibility(False)
        pixels = chart_picture(chart, (400, 300), 1.0).astype(int)
        rows, columns = np.nonzero((pixels[..., 0] > 180) & (pixels[..., 1] < 90))
        self.assertGreater(len(rows), 200)
        first, last = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
        self.assertGreater(first - last, 150)  # row 0 is at the top
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
        with self.assertRaises(ValueError):
            chart_picture(chart, (400, 300), 1.0)
