"""The surface of a result is closed, shown on request, and the same whether the worker or Slicer computes it."""

from __future__ import annotations

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.geometry import Grid
from dcamt.wall.closed_surface import closed_surface
from DCAMTSegmentationLib import result_insertion
from DCAMTSlicerLib.segment_surfaces import surface_name
from fake_worker import PanelCase
from made_results import insert_all, make_result, mass_properties, oblique
from scene_nodes import add_scan
from slicer_harness import start_afresh
from vtk.util.numpy_support import vtk_to_numpy


class Show3DTest(PanelCase):
    def test_show_3d_creates_and_hides_the_surface(self) -> None:
        segmentation = self.segment(add_scan())
        display = segmentation.GetDisplayNode()
        surface = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        self.assertTrue(segmentation.GetSegmentation().ContainsRepresentation(surface))
        self.assertTrue(display.GetVisibility3D())
        self.ui.show3DCheckBox.click()
        self.assertFalse(display.GetVisibility3D())
        self.ui.show3DCheckBox.click()
        self.assertTrue(display.GetVisibility3D())

    def test_no_surface_is_created_without_show_3d(self) -> None:
        self.ui.show3DCheckBox.click()
        segmentation = self.segment(add_scan())
        surface = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        self.assertFalse(segmentation.GetSegmentation().ContainsRepresentation(surface))

    def test_show_3d_takes_effect_if_clicked_during_the_computation(self) -> None:
        for shown in (False, True):
            self.module.worker.before_answer = self.ui.show3DCheckBox.click
            segmentation = self.segment(add_scan())
            self.assertEqual(self.ui.show3DCheckBox.checked, shown)
            self.assertEqual(bool(segmentation.GetDisplayNode().GetVisibility3D()), shown)
            self.assertEqual(segmentation.GetSegmentation().ContainsRepresentation(surface_name()), True)


class SurfaceTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()

    def test_surface_is_closed_and_has_the_volume_and_centre_of_the_ellipsoid(self) -> None:
        shape = (44, 56, 60)
        volume = add_scan(shape=shape, affine=oblique())
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)[..., ::-1]
        points = (index - index.mean(axis=(0, 1, 2))) @ oblique()[:3, :3].T
        labels = (((points / [30, 24, 27]) ** 2).sum(axis=-1) <= 1).astype(np.uint8)
        segmentation = insert_all(make_result(labels), volume)
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        surface = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(name)
        edges = vtk.vtkFeatureEdges()
        edges.SetInputData(surface)
        edges.FeatureEdgesOff()
        edges.ManifoldEdgesOff()
        edges.NonManifoldEdgesOff()
        edges.Update()
        self.assertEqual(edges.GetOutput().GetNumberOfCells(), 0)
        self.assertAlmostEqual(mass_properties(surface).GetVolume() / (4 / 3 * np.pi * 30 * 24 * 27), 1, delta=0.02)
        bounds = np.array(surface.GetBounds())
        centre = oblique() @ [*((np.array(shape[::-1]) - 1) / 2), 1]
        np.testing.assert_allclose((bounds[::2] + bounds[1::2]) / 2, centre[:3], atol=0.7)

    def test_surface_of_the_worker_equals_that_of_slicer(self) -> None:
        shape = (30, 36, 40)
        volume = add_scan(shape=shape, affine=oblique())
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)[..., ::-1]
        points = (index - [36, 17, 14]) @ oblique()[:3, :3].T  # the scan's border cuts the ellipsoid
        labels = (((points / [18, 12, 15]) ** 2).sum(axis=-1) <= 1).astype(np.uint8)
        result = make_result(labels)
        (item,) = result.classes
        i, j, k = (slice(low, high) for low, high in item.box)
        grid = Grid(shape[::-1], oblique())
        vertices, triangles = closed_surface(labels.T[i, j, k] == 1, grid, (i.start, j.start, k.start))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "surface.npz")
            np.savez(path, points=vertices, triangles=triangles)
            with mock.patch.object(result_insertion, "compute_surface") as compute:
                given = insert_all(replace(result, classes=[replace(item, surface=path)]), volume)
            compute.assert_not_called()
        computed = insert_all(result, volume)
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        surfaces = [node.GetSegmentation().GetNthSegment(0).GetRepresentation(name) for node in (given, computed)]
        given_points, computed_points = (vtk_to_numpy(surface.GetPoints().GetData()) for surface in surfaces)
        np.testing.assert_allclose(given_points, computed_points, atol=0.01)
        given_mm3, computed_mm3 = (mass_properties(surface).GetVolume() for surface in surfaces)
        self.assertAlmostEqual(given_mm3 / computed_mm3, 1, delta=0.001)
