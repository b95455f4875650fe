"""The result in the scene: geometry, surface, names, codes and folders; other nodes and segments stay unchanged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.geometry import Grid
from dcamt.metrics.measurements import Measurements
from dcamt.volume import Code, SegmentInfo
from dcamt.wall.closed_surface import closed_surface
from dcamt.worker.protocol import SegmentResult
from DCAMTSegmentationLib import result_insertion, review
from DCAMTSegmentationLib.measurements_table import rows_of
from DCAMTSegmentationLib.result_insertion import LoadedResult, SegmentationOptions, insert_result
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from segmentation_case import (
    ROOT,
    SegmentationCase,
    add_scan,
    choose,
    click,
    close_scene,
    model_folder,
    scene_state,
    segment_mask,
    start_afresh,
)
from vtk.util.numpy_support import vtk_to_numpy


def oblique(degrees: float = 25.0) -> np.ndarray:
    """Return an affine (4, 4) with unequal spacings and oblique axes, one of them flipped."""
    turn = np.radians(degrees)
    about_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_r = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    affine = np.eye(4)
    affine[:3, :3] = about_s @ about_r @ np.diag([1.4, -1.6, 2.0])
    affine[:3, 3] = [12, -34, 56]
    return affine


def segment_by_command(volume: VolumeNode) -> np.ndarray:
    """Return the labels (K, J, I) of `dcamt segment`, run in a separate process on the same voxels and geometry."""
    with tempfile.TemporaryDirectory() as folder:
        scan, result = Path(folder, "scan.nrrd"), Path(folder, "out.seg.nrrd")
        saved = slicer.mrmlScene.CopyNode(volume)
        saved.SetAndObserveTransformNodeID(None)
        slicer.util.saveNode(saved, str(scan))
        slicer.mrmlScene.RemoveNode(saved)
        python = shutil.which("PythonSlicer") or sys.executable
        arguments = ["segment", str(scan), "-o", str(result), "--model", str(model_folder() / "tiny.dcamt")]
        subprocess.run(
            [python, "-m", "dcamt", *arguments, "--device", "cpu"],
            cwd=ROOT / "DCAMTSegmentation",
            check=True,
            capture_output=True,
        )
        loaded = slicer.util.loadSegmentation(str(result))
        try:
            return np.array(segment_mask(loaded, saved))
        finally:
            slicer.mrmlScene.RemoveNode(loaded)


def segment_tag(segment: Any, name: str) -> str:
    text = vtk.reference("")
    segment.GetTag(name, text)
    return str(text.get())


class GridTest(SegmentationCase):
    def assert_equals_the_command_line(self, volume: VolumeNode, segmentation: SegmentationNode) -> None:
        mask = segment_mask(segmentation, volume)
        expected = segment_by_command(volume)
        self.assertGreater(int(mask.sum()), 50)
        differing = int((mask != expected).sum())
        # Threads may add in another order, which can change voxels exactly on the boundary.
        self.assertLessEqual(differing, 2)

    def test_result_equals_that_of_the_command_in_any_orientation(self) -> None:
        axes = np.diag([-1.5, -1.5, 1.5, 1.0])
        sagittal = np.array([[0, 0, 2.0, 5], [1.4, 0, 0, -7], [0, -1.4, 0, 9], [0, 0, 0, 1]])
        for name, affine in (("axial", axes), ("sagittal", sagittal), ("oblique", oblique())):
            with self.subTest(name):
                volume = add_scan(name, affine=affine, seed=len(name))
                self.assert_equals_the_command_line(volume, self.segment(volume))

    def test_result_lies_on_the_grid_of_the_volume(self) -> None:
        volume = add_scan(affine=oblique())
        segmentation = self.segment(volume)
        image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), oblique(), atol=1e-9)
        geometry = segmentation.GetSegmentation().GetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        )
        reference = slicer.vtkOrientedImageData()
        slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, reference, False)
        reference.GetImageToWorldMatrix(matrix)
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), oblique(), atol=1e-5)
        self.assertEqual(reference.GetExtent(), (0, 23, 0, 19, 0, 15))
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertEqual(segmentation.GetNodeReference(role), volume)

    def test_result_moves_with_the_volume_under_a_linear_transform(self) -> None:
        volume = add_scan(affine=oblique())
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "to atlas")
        moved = vtk.vtkTransform()
        moved.RotateZ(30)
        moved.Translate(5, -20, 40)
        transform.SetMatrixTransformToParent(moved.GetMatrix())
        volume.SetAndObserveTransformNodeID(transform.GetID())
        segmentation = self.segment(volume)
        self.assertEqual(segmentation.GetParentTransformNode(), transform)
        self.assert_equals_the_command_line(volume, segmentation)
        map_node = slicer.util.getNode("LGE doubt")
        self.assertEqual(map_node.GetParentTransformNode(), transform)

    def test_result_is_placed_correctly_in_a_segmentation_under_another_transform(self) -> None:
        volume = add_scan()
        alone = self.segment(volume)
        expected, places = np.array(segment_mask(alone, volume)), self.logic.doubtfulPlaces(alone)
        self.assertGreater(len(places), 0)
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        target.CreateDefaultDisplayNodes()
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        foreign = target.GetSegmentation().AddEmptySegment("Mine")
        drawn = np.zeros_like(expected)
        drawn[2:4, 2:4, 2:4] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, target, foreign, volume)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        moved = vtk.vtkTransform()
        moved.Translate(1.5, 3.0, -1.5)  # whole voxels, so that resampling is exact
        transform.SetMatrixTransformToParent(moved.GetMatrix())
        target.SetAndObserveTransformNodeID(transform.GetID())
        choose(self.ui.outputSelector, target)
        self.segment(volume)
        identifier = next(name for name in target.GetSegmentation().GetSegmentIDs() if name != foreign)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(target, identifier, volume)
        np.testing.assert_array_equal(mask, expected)
        for place, own in zip(places, self.logic.doubtfulPlaces(target), strict=True):
            world = [0.0, 0.0, 0.0]
            target.TransformPointToWorld(own.position, world)
            np.testing.assert_allclose(world, place.position, atol=1e-6)


class SurfaceTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()

    def test_surface_is_closed_and_has_the_volume_of_the_voxels(self) -> None:
        shape = (44, 56, 60)
        volume = add_scan(shape=shape, affine=oblique())
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)[..., ::-1]
        points = (index - index.mean(axis=(0, 1, 2))) @ oblique()[:3, :3].T
        labels = (((points / [30, 24, 27]) ** 2).sum(axis=-1) <= 1).astype(np.uint8)
        segmentation = insert_all(result_of(labels), volume)
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        surface = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(name)
        edges = vtk.vtkFeatureEdges()
        edges.SetInputData(surface)
        edges.FeatureEdgesOff()
        edges.ManifoldEdgesOff()
        edges.NonManifoldEdgesOff()
        edges.Update()
        self.assertEqual(edges.GetOutput().GetNumberOfCells(), 0)
        triangles, mass = vtk.vtkTriangleFilter(), vtk.vtkMassProperties()
        triangles.SetInputData(surface)
        mass.SetInputConnection(triangles.GetOutputPort())
        self.assertAlmostEqual(mass.GetVolume() / (4 / 3 * np.pi * 30 * 24 * 27), 1, delta=0.02)
        bounds = np.array(surface.GetBounds())
        centre = oblique() @ [*((np.array(shape[::-1]) - 1) / 2), 1]
        np.testing.assert_allclose((bounds[::2] + bounds[1::2]) / 2, centre[:3], atol=0.7)

    def test_surface_of_the_worker_equals_that_of_slicer(self) -> None:
        shape = (30, 36, 40)
        volume = add_scan(shape=shape, affine=oblique())
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)[..., ::-1]
        points = (index - [36, 17, 14]) @ oblique()[:3, :3].T  # the ball touches the scan's border
        labels = (((points / [18, 12, 15]) ** 2).sum(axis=-1) <= 1).astype(np.uint8)
        result = result_of(labels)
        (item,) = result.classes
        i, j, k = (slice(low, high) for low, high in item.box)
        grid = Grid(shape[::-1], oblique())
        vertices, triangles = closed_surface(labels.T[i, j, k] == 1, grid, (i.start, j.start, k.start))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "surface.npz")
            np.savez(path, points=vertices, triangles=triangles)
            with mock.patch.object(result_insertion, "compute_surface") as build:
                given = insert_all(replace(result, classes=[replace(item, surface=path)]), volume)
            build.assert_not_called()
        own = insert_all(result, volume)
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        surfaces = [node.GetSegmentation().GetNthSegment(0).GetRepresentation(name) for node in (given, own)]
        ours, slicers = (vtk_to_numpy(surface.GetPoints().GetData()) for surface in surfaces)
        np.testing.assert_allclose(ours, slicers, atol=0.01)
        volumes = []
        for surface in surfaces:
            triangles, mass = vtk.vtkTriangleFilter(), vtk.vtkMassProperties()
            triangles.SetInputData(surface)
            mass.SetInputConnection(triangles.GetOutputPort())
            volumes.append(mass.GetVolume())
        # Smoothing shrinks both alike; test_wall_surface.py compares with known volumes.
        self.assertAlmostEqual(volumes[0] / volumes[1], 1, delta=0.001)

    def test_empty_result_is_an_empty_segment(self) -> None:
        volume = add_scan()
        segmentation = insert_all(result_of(np.zeros((16, 20, 24), np.uint8)), volume)
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
        self.assertEqual(int(segment_mask(segmentation, volume).sum()), 0)

    def test_failed_step_removes_what_was_added(self) -> None:
        volume = add_scan()
        state = scene_state()
        labels = np.zeros((16, 20, 24), np.uint8)
        labels[4:8, 4:8, 4:8] = 1
        broken = replace(result_of(labels), measurements=[Measurements("LGE", "LA", *["no number"] * 6)])
        with self.assertRaises(TypeError):
            insert_all(broken, volume)
        self.assertEqual(scene_state(), state)

    def test_failed_step_keeps_the_earlier_result(self) -> None:
        volume = add_scan()
        labels = np.zeros((16, 20, 24), np.uint8)
        labels[4:8, 4:8, 4:8] = 1
        segmentation = insert_all(result_of(labels), volume)
        mask = np.array(segment_mask(segmentation, volume))
        rows = rows_of(review.get_referenced_node(segmentation, review.MEASUREMENTS))
        state = scene_state()
        broken = replace(result_of(np.ones_like(labels)), measurements=[Measurements("LGE", "LA", *["no number"] * 6)])
        with self.assertRaises(TypeError):
            insert_all(broken, volume, segmentation)
        self.assertEqual(scene_state(), state)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), mask)
        self.assertEqual(rows_of(review.get_referenced_node(segmentation, review.MEASUREMENTS)), rows)


def result_of(labels: np.ndarray) -> LoadedResult:
    """Return a result with a map of doubt, as made from the worker's event."""
    info = SegmentInfo(1, "Left atrium", (0.8, 0.3, 0.3), Code("SCT", "82471001", "Left atrium"))
    filled = np.argwhere(labels)[:, ::-1]
    box = None
    if len(filled):
        box = tuple((low, high + 1) for low, high in zip(filled.min(0), filled.max(0), strict=True))
    row = Measurements("LGE", "Left atrium", 1.0, *[float("nan")] * 5)
    return LoadedResult(labels, np.zeros_like(labels), 0.9, [], [row], [SegmentResult(info, box)])


def insert_all(result: LoadedResult, volume: VolumeNode, target: Any = None) -> Any:
    """Run all steps that insert a result into the scene; return the segmentation node."""
    steps = insert_result(result, SegmentationOptions(volume, target=target))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class NameTest(SegmentationCase):
    def test_segment_has_name_color_and_code(self) -> None:
        segmentation = self.segment(add_scan())
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
        segment = segmentation.GetSegmentation().GetNthSegment(0)
        self.assertEqual(segment.GetName(), "Left atrium")
        red, green, blue = segment.GetColor()
        self.assertGreater(red, max(green, blue))
        entry = slicer.vtkSlicerTerminologyEntry()
        logic = slicer.vtkSlicerTerminologiesModuleLogic()
        logic.DeserializeTerminologyEntry(segment_tag(segment, segment.GetTerminologyEntryTagName()), entry)
        for code, expected in (
            (entry.GetCategoryObject(), ("SCT", "123037004", "Anatomical Structure")),
            (entry.GetTypeObject(), ("SCT", "82471001", "Left atrium")),
        ):
            code_texts = (code.GetCodingSchemeDesignator(), code.GetCodeValue(), code.GetCodeMeaning())
            self.assertEqual(code_texts, expected)

    def test_result_lies_in_a_folder_beside_its_volume_with_its_helper_nodes(self) -> None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Somebody")
        study = hierarchy.CreateStudyItem(subject, "MR 2026")
        volume = add_scan()
        hierarchy.CreateItem(study, volume)  # in Slicer, this moves the volume's existing item
        segmentation = self.segment(volume)
        result = hierarchy.GetItemByDataNode(segmentation)
        folder = hierarchy.GetItemParent(result)
        self.assertEqual(hierarchy.GetItemName(folder), "LGE – DCAMT")
        self.assertEqual(hierarchy.GetItemParent(folder), study)
        for name in ("LGE doubt", "LGE measurements"):
            item = hierarchy.GetItemByDataNode(slicer.util.getNode(name))
            self.assertEqual(hierarchy.GetItemParent(item), result, name)


class ExistingSegmentationTest(SegmentationCase):
    def test_only_segments_made_by_dcamt_are_replaced(self) -> None:
        volume = add_scan()
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        target.CreateDefaultDisplayNodes()
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        foreign = target.GetSegmentation().AddEmptySegment("scar", "Left atrium", [0.1, 0.9, 0.2])
        drawn = np.zeros((16, 20, 24), np.uint8)
        drawn[1:5, 2:8, 3:9] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, target, foreign, volume)
        choose(self.ui.outputSelector, target)
        segmentation = self.segment(volume)
        self.assertEqual(segmentation, target)
        self.assertEqual(target.GetName(), "mine")
        first = list(target.GetSegmentation().GetSegmentIDs())
        self.assertEqual(len(first), 2)
        accurate = np.array(segment_mask(target, volume, 1))

        choose(self.ui.qualityComboBox, "Fast: one branch")
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.segment(volume)
        self.assertEqual(list(target.GetSegmentation().GetSegmentIDs()), first)  # identifiers are kept
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes - 2)  # the map and its display node are removed
        self.assertTrue((segment_mask(target, volume, 1) != accurate).any())
        np.testing.assert_array_equal(segment_mask(target, volume, 0), drawn)
        segment = target.GetSegmentation().GetSegment(foreign)
        self.assertEqual((segment.GetName(), segment.GetColor()), ("Left atrium", (0.1, 0.9, 0.2)))

    def test_map_of_an_earlier_result_is_no_longer_used_after_fast_quality(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertIsNotNone(self.logic.trust(segmentation))
        choose(self.ui.qualityComboBox, "Fast: one branch")
        self.segment(volume)
        self.assertIsNone(self.logic.trust(segmentation))
        self.assertEqual(self.logic.doubtfulPlaces(segmentation), [])
        self.assertFalse(self.ui.doubtCheckBox.enabled)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [volume])
        choose(self.ui.qualityComboBox, "Accurate: both branches")
        self.segment(volume)
        _volume, map_ = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        segmentation.SetNodeReferenceID(review.DOUBT_MAP, None)
        self.assertTrue(review.is_map(map_))  # still recognised as a map, although no result refers to it
        self.assertIs(self.logic.firstVolume(), volume)

    def test_results_of_two_volumes_are_kept_apart(self) -> None:
        one, two = add_scan("one", affine=oblique()), add_scan("two", shape=(14, 22, 18), seed=7)
        results = {}
        for volume in (one, two):
            results[volume.GetName()] = self.segment(volume)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")), 2)
        masks = {volume.GetName(): np.array(segment_mask(results[volume.GetName()], volume)) for volume in (one, two)}
        for volume in (one, two):
            expected = segment_by_command(volume)
            self.assertLessEqual(int((masks[volume.GetName()] != expected).sum()), 2)
        # Segmented again, each volume's result replaces only that volume's earlier one.
        for volume in (two, one):
            self.assertEqual(self.segment(volume), results[volume.GetName()])
        for volume in (one, two):
            np.testing.assert_array_equal(segment_mask(results[volume.GetName()], volume), masks[volume.GetName()])
            rows = self.logic.measurements(results[volume.GetName()])
            self.assertEqual(rows[0]["scan"], volume.GetName())


class PersistenceTest(SegmentationCase):
    def test_choices_and_result_are_restored_with_a_saved_scene(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        choose(self.ui.qualityComboBox, "Fast: one branch")
        choose(self.ui.deviceComboBox, "CPU")
        self.ui.doubtCheckBox.click()
        click(self.ui.placeRegionButton)
        click(self.ui.teachButton)
        mask, rows = np.array(segment_mask(segmentation, volume)), self.logic.measurements(segmentation)
        places, trust = self.logic.doubtfulPlaces(segmentation), self.logic.trust(segmentation)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "scene.mrb"))
            self.assertTrue(slicer.util.saveScene(path))
            close_scene()
            self.assertIsNone(self.ui.inputSelector.currentNode())
            self.assertEqual(self.ui.qualityComboBox.currentText, "Accurate: both branches")
            slicer.util.loadScene(path)
        slicer.app.processEvents()
        self.assertEqual(self.ui.inputSelector.currentNode().GetName(), "LGE")
        self.assertEqual(self.ui.outputSelector.currentNode().GetName(), "LGE segmentation")
        self.assertEqual(self.ui.regionSelector.currentNode().GetName(), "Heart region")
        self.assertEqual(self.ui.modelComboBox.currentText, "Tiny")
        self.assertEqual(self.ui.qualityComboBox.currentText, "Fast: one branch")
        self.assertEqual(self.ui.deviceComboBox.currentText, "CPU")
        self.assertTrue(self.ui.doubtCheckBox.checked)
        loaded, volume = self.settings.outputSegmentation, self.settings.inputVolume
        np.testing.assert_array_equal(segment_mask(loaded, volume), mask)
        self.assertEqual(self.logic.measurements(loaded), rows)
        self.assertEqual(self.logic.doubtfulPlaces(loaded), places)
        self.assertEqual(self.logic.trust(loaded), trust)
        self.assertFalse(review.is_corrected(loaded))
        self.assertFalse(review.is_outdated(loaded))
        self.assertTrue(self.ui.nextPlaceButton.enabled)
        self.assertIn("training case", self.ui.teachLabel.text)
        # The map was visible when the scene was saved; it can be hidden.
        self.ui.doubtCheckBox.click()
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertNotEqual(composite.GetForegroundVolumeID(), slicer.util.getNode("LGE doubt").GetID())
        # The segments are still recognised as made by DCAMT.
        choose(self.ui.qualityComboBox, "Accurate: both branches")
        self.segment(volume)
        self.assertEqual(loaded.GetSegmentation().GetNumberOfSegments(), 1)


class AnalyticMeasurementTest(unittest.TestCase):
    """Measurements of shapes of known size, from the worker's code to the table."""

    def setUp(self) -> None:
        start_afresh()

    def test_table_shows_the_size_of_ellipsoids_on_oblique_anisotropic_grids(self) -> None:
        from dcamt.geometry import Grid
        from dcamt.metrics.measurements import measure
        from dcamt.recipe import load_recipe
        from dcamt.volume import Labelmap
        from DCAMTSegmentationLib.measurements_table import fill_table

        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
        affine = oblique() @ np.diag([0.5, 0.5, 0.6, 1])
        shape = (130, 130, 110)
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
        points = (index - (np.array(shape) - 1) / 2) @ affine[:3, :3].T
        for radii in ((30.0, 30.0, 30.0), (38.0, 22.0, 30.0)):
            with self.subTest(radii):
                inside = ((points / radii) ** 2).sum(axis=-1) <= 1
                rows = measure(Labelmap(inside.astype(np.uint8), Grid(shape, affine)), load_recipe("la").classes, "x")
                fill_table(table, rows)
                (row,) = rows_of(table)
                a, b, c = radii
                volume_ml = 4 / 3 * np.pi * a * b * c / 1000
                p = 1.6075  # K. Thomsen's formula of an ellipsoid's area, exact to 1.1 %
                mean = ((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3
                surface_cm2 = 4 * np.pi * mean ** (1 / p) / 100
                self.assertAlmostEqual(float(row["volume_ml"]) / volume_ml, 1, delta=0.02)
                self.assertAlmostEqual(float(row["surface_cm2"]) / surface_cm2, 1, delta=0.02)
                self.assertAlmostEqual(float(row["long_diameter_mm"]) / (2 * max(radii)), 1, delta=0.02)
                self.assertAlmostEqual(float(row["transverse_diameter_mm"]) / (2 * a), 1, delta=0.02)
                self.assertAlmostEqual(float(row["anteroposterior_diameter_mm"]) / (2 * b), 1, delta=0.02)
