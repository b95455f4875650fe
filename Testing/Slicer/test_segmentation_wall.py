"""The section Wall: thresholds, openings, changed outlines, and saving with the scene."""

from __future__ import annotations

import itertools
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.wall.burden import OPENING, decaaf_stage
from dcamt.wall.colors import COLOR_STOPS, OPENING_COLOR
from dcamt.wall.files import method_text
from dcamt.wall.settings import IIR, MAXIMUM, MEAN, METHODS_DISAGREE, PRESETS, Threshold
from DCAMTSegmentationLib import review, wall_nodes, wall_panel
from DCAMTSlicerLib import engine_messages
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.segment_voxels import read_segment
from fake_worker import FakePanel, FakeWorker
from slicer_harness import (
    Person,
    assert_stays_responsive,
    choose,
    click,
    expect_no_hidden_errors,
    pause_of,
    process_events,
    scene_saved_and_closed,
)
from wall_case import (
    AFFINE,
    RADIUS_MM,
    SHAPE,
    ChosenPhantomCase,
    InsertedWallCase,
    add_phantom,
    burden_cell,
    phantom,
    scalars,
)


def add_closed_curve(towards: np.ndarray, degrees: float = 35.0) -> Any:
    """Add a closed curve around the ball's cap in the direction `towards` (RAS); `degrees` is the cap's half angle."""
    axis = towards / np.linalg.norm(towards)
    side = np.cross(axis, [0.3, 0.2, 1.0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    centre = (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsClosedCurveNode", "valve")
    for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        direction = np.cos(np.radians(degrees)) * axis
        direction = direction + np.sin(np.radians(degrees)) * (np.cos(turn) * side + np.sin(turn) * other)
        node.AddControlPoint(*(centre + RADIUS_MM * direction))
    return node


def decimate(surface: Any) -> Any:
    """Return a surface with about half of the triangles, as Surface Toolbox makes it."""
    decimated = vtk.vtkDecimatePro()
    decimated.SetInputData(surface)
    decimated.SetTargetReduction(0.5)
    decimated.Update()
    return decimated.GetOutput()


class OutlineTest(InsertedWallCase):
    def test_changed_outline_is_noticed_until_the_change_is_undone(self) -> None:
        mask = read_segment(self.segmentation, "blood").mask
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))
        warning, label = "The outline was changed after", phantom()[1]
        self.module.panel.enter()
        self.assertNotIn(warning, self.ui.wallLabel.text)
        smaller = label.copy()
        smaller[:20] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, self.segmentation, "blood", self.volume)
        self.assertIn(warning, self.ui.wallLabel.text)
        self.module.panel.enter()
        self.assertIn(warning, self.ui.wallLabel.text)
        slicer.util.updateSegmentBinaryLabelmapFromArray(label, self.segmentation, "blood", self.volume)
        again = read_segment(self.segmentation, "blood").mask
        np.testing.assert_array_equal(again, mask)
        for update in (process_events, self.module.panel.enter):
            update()
            self.assertNotIn(warning, self.ui.wallLabel.text)

    def test_edit_of_another_segment_is_not_reported_as_a_changed_outline(self) -> None:
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))
        everywhere = np.ones_like(phantom()[1])
        self.segmentation.GetSegmentation().AddEmptySegment("other", "other")
        slicer.util.updateSegmentBinaryLabelmapFromArray(everywhere, self.segmentation, "other", self.volume)
        process_events()
        self.assertNotIn("The outline was changed after", self.ui.wallLabel.text)


class PresetListTest(unittest.TestCase):
    def test_sources_of_the_presets_are_translated(self) -> None:
        with mock.patch.object(engine_messages, "tr", str.upper):
            module = FakePanel(FakeWorker())
            self.addCleanup(module.close)
        shown = [module.ui.wallPresetComboBox.itemText(index) for index in range(len(PRESETS))]
        self.assertEqual(shown, [f"{preset.threshold.text} ({preset.source.upper()})" for preset in PRESETS])


class SegmentListTest(ChosenPhantomCase):
    def names(self) -> list[str]:
        box = self.ui.wallSegmentComboBox
        return [box.itemText(index) for index in range(box.count)]

    def test_renamed_and_added_segments_are_listed(self) -> None:
        segments = self.segmentation.GetSegmentation()
        segments.GetSegment("blood").SetName("LA")
        process_events()
        self.assertEqual(self.names(), ["LA"])
        segments.AddEmptySegment("other", "other")
        process_events()
        self.assertEqual(self.names(), ["LA", "other"])
        segments.RemoveSegment("blood")
        process_events()
        self.assertEqual(self.names(), ["other"])

    def test_segments_of_the_chosen_segmentation_are_listed(self) -> None:
        renamed = add_phantom()[1]
        renamed.GetSegmentation().GetSegment("blood").SetName("renamed")
        for segmentation, name in ((renamed, "renamed"), (self.segmentation, "blood"), (renamed, "renamed")):
            choose(self.ui.outputSelector, segmentation)
            self.assertEqual(self.names(), [name])


class ThresholdTest(InsertedWallCase):
    def test_new_threshold_takes_effect_without_the_worker(self) -> None:
        before = burden_cell(self.segmentation)
        preset = next(
            self.ui.wallPresetComboBox.itemText(index)
            for index in range(self.ui.wallPresetComboBox.count)
            if self.ui.wallPresetComboBox.itemText(index).startswith("IIR > 1.61")
        )
        choose(self.ui.wallPresetComboBox, preset)
        self.assertLess(float(burden_cell(self.segmentation)), float(before))
        burdens = self.wall.burdens(Threshold(IIR, 1.61))
        self.assertIn(f"stage {decaaf_stage(burdens[0].percent)} by IIR > 1.61", self.ui.wallLabel.text)
        self.assertIn(METHODS_DISAGREE, self.ui.wallLabel.text)
        for row, burden in enumerate(burdens):
            self.assertEqual(burden_cell(self.segmentation, row=row), f"{burden.percent:.1f}")
            self.assertEqual(burden_cell(self.segmentation, "wall_cm2", row), f"{burden.wall_cm2:.1f}")
        self.ui.wallThresholdSlider.value = 0.6
        self.assertEqual(self.ui.wallPresetComboBox.currentText, "Own threshold")
        ratio, kind = scalars(self.segmentation, "ratio"), scalars(self.segmentation, "opening")
        np.testing.assert_array_equal(scalars(self.segmentation, "enhanced"), (ratio > 0.6) & (kind == 0))
        self.assertEqual(self.module.worker.requests, [])

    def test_colours_change_at_the_threshold(self) -> None:
        colors = review.get_referenced_node(self.segmentation, review.WALL_COLORS)
        for threshold in (0.8, 1.2, 1.6):
            self.ui.wallThresholdSlider.value = threshold
            at = (threshold - wall_nodes.LOWEST) / (wall_nodes.HIGHEST - wall_nodes.LOWEST) * (wall_nodes.COLORS - 1)
            below, above = [0.0] * 4, [0.0] * 4
            colors.GetColor(int(at) - 2, below)
            colors.GetColor(int(at) + 2, above)
            self.assertGreater(below[2], below[0])  # bluish
            self.assertGreater(above[0], above[2] + 0.4)  # yellow to red
        # The end colours and the grey of openings equal those in the report's pictures.
        for index, color in ((1, COLOR_STOPS[0][1]), (wall_nodes.COLORS - 1, COLOR_STOPS[-1][1]), (0, OPENING_COLOR)):
            table_color = [0.0] * 4
            colors.GetColor(index, table_color)
            np.testing.assert_allclose(table_color[:3], color, atol=0.01)

    def test_two_moves_of_the_slider_cause_no_noticeable_pause(self) -> None:
        steps = iter(range(1, 17))

        def move_slider_twice() -> None:
            for _move in range(2):
                self.ui.wallThresholdSlider.value = 1.0 + 0.05 * next(steps)

        assert_stays_responsive(pause_of(move_slider_twice, tries=8))

    def test_chosen_method_is_named_and_starts_at_its_default_threshold(self) -> None:
        choose(self.ui.wallKindComboBox, "Blood pool mean + SD")
        self.assertIn("blood pool mean + 2 SD", self.ui.wallLabel.text)
        self.assertEqual(self.ui.wallThresholdSlider.value, 2.0)


class OpeningTest(InsertedWallCase):
    def test_surface_inside_a_curve_is_opened_and_closed_again(self) -> None:
        before = float(burden_cell(self.segmentation, "wall_cm2"))
        already = scalars(self.segmentation, "opening") == OPENING
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        opened = scalars(self.segmentation, "opening") == OPENING
        areas = self.wall.surface.point_areas
        # The area of a spherical cap with a half angle of 35 degrees.
        cap_cm2 = 2 * np.pi * RADIUS_MM**2 * (1 - np.cos(np.radians(35))) / 100
        self.assertAlmostEqual(areas[opened & ~already].sum() / 100, cap_cm2, delta=0.15 * cap_cm2)
        self.assertLess(float(burden_cell(self.segmentation, "wall_cm2")), before - 0.8 * cap_cm2)
        self.assertIn("corrected", self.ui.wallLabel.text)
        click(self.ui.wallCloseButton)
        self.assertAlmostEqual(float(burden_cell(self.segmentation, "wall_cm2")), before, delta=0.11)

    def test_curve_around_a_wide_cap_opens_the_whole_cap(self) -> None:
        axis = np.array([-1.0, 0.2, -0.3])
        choose(self.ui.wallCurveSelector, add_closed_curve(axis, degrees=60.0))
        click(self.ui.wallOpenButton)
        points = self.wall.surface.points - (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3]
        cosine = points @ axis / np.linalg.norm(axis) / np.linalg.norm(points, axis=1)
        inside = cosine > np.cos(np.radians(52))  # less than 60, because the curve is a polygon of twelve corners
        self.assertTrue((scalars(self.segmentation, "opening")[inside] == OPENING).all())

    def test_no_burden_is_stated_if_no_wall_is_left(self) -> None:
        # Each cap lies in the direction of a cube's face or corner; together, the caps cover the ball.
        faces = [axis for axis in itertools.product((-1, 0, 1), repeat=3) if np.abs(axis).sum() == 1]
        for axis in (*faces, *itertools.product((-1, 1), repeat=3)):
            choose(self.ui.wallCurveSelector, add_closed_curve(np.array(axis, float), degrees=50))
            click(self.ui.wallOpenButton)
        self.assertTrue((scalars(self.segmentation, "opening") == OPENING).all())
        self.assertIn("No wall is left", self.ui.wallLabel.text)
        self.assertNotIn("nan", self.ui.wallLabel.text)
        self.assertEqual(burden_cell(self.segmentation), "")

    def test_moved_curve_opens_another_place(self) -> None:
        first, second = add_closed_curve(np.array([-1.0, 0.2, -0.3])), add_closed_curve(np.array([0.2, 0.1, 1.0]))
        choose(self.ui.wallCurveSelector, first)
        click(self.ui.wallOpenButton)
        wall_cm2 = burden_cell(self.segmentation, "wall_cm2")
        click(self.ui.wallCloseButton)
        for index in range(first.GetNumberOfControlPoints()):
            first.SetNthControlPointPosition(index, *second.GetNthControlPointPosition(index))
        click(self.ui.wallOpenButton)
        opened = scalars(self.segmentation, "opening") == OPENING
        above = self.wall.surface.points[opened].mean(axis=0) - self.wall.surface.points.mean(axis=0)
        self.assertGreater(above[2], 0.8 * RADIUS_MM)
        self.assertAlmostEqual(float(burden_cell(self.segmentation, "wall_cm2")), float(wall_cm2), delta=0.3)
        self.assertNotIn("were proposed", self.ui.wallLabel.text)

    def test_corrected_openings_are_replaced_only_after_a_question(self) -> None:
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        openings = scalars(self.segmentation, "opening")
        with Person() as person:
            person.expects("The openings of this wall were corrected", "Cancel")
            click(self.ui.wallMeasureButton)
        self.assertFalse(self.module.logic.isRunning())
        np.testing.assert_array_equal(scalars(self.segmentation, "opening"), openings)
        with Person() as person:
            person.expects("The openings of this wall were corrected", "Ok")
            click(self.ui.wallMeasureButton)
        self.assertTrue(self.module.logic.isRunning())
        self.module.logic.cancel()

    def test_curve_away_from_the_surface_is_refused(self) -> None:
        before = self.ui.wallLabel.text
        curve = add_closed_curve(np.array([-1.0, 0.2, -0.3]))
        for index in range(curve.GetNumberOfControlPoints()):
            x, y, z = curve.GetNthControlPointPosition(index)
            curve.SetNthControlPointPosition(index, x, y, z + 300)
        choose(self.ui.wallCurveSelector, curve)
        for button in (self.ui.wallOpenButton, self.ui.wallCloseButton):
            with Person() as person:
                person.expects("encloses no part of the surface", "Ok")
                click(button)
        self.assertEqual(self.ui.wallLabel.text, before)

    def test_curve_created_in_the_selector_can_be_drawn_in_a_view(self) -> None:
        curve = self.ui.wallCurveSelector.addNode()
        self.assertEqual(curve.GetClassName(), "vtkMRMLMarkupsClosedCurveNode")
        selection, interaction = (
            slicer.mrmlScene.GetFirstNodeByClass(name) for name in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode")
        )
        self.assertEqual(selection.GetActivePlaceNodeID(), curve.GetID())
        self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.Place)

    def test_missing_curve_is_reported(self) -> None:
        with Person() as person:
            person.expects("Draw a closed curve", "Ok")
            click(self.ui.wallOpenButton)

    def test_curve_whose_points_were_not_placed_yet_is_reported(self) -> None:
        curve = add_closed_curve(np.array([-1.0, 0.2, -0.3]))
        for index in range(curve.GetNumberOfControlPoints()):
            curve.UnsetNthControlPointPosition(index)
        choose(self.ui.wallCurveSelector, curve)
        with Person() as person:
            person.expects("Draw a closed curve", "Ok")
            click(self.ui.wallOpenButton)


class ExportTest(InsertedWallCase):
    def test_wall_is_exported_as_a_surface_to_stl_obj_ply_and_vtp_files(self) -> None:
        triangles = len(self.wall.surface.triangles)
        with tempfile.TemporaryDirectory() as folder:
            for ending in (".STL", ".obj", ".ply", ".vtp"):
                path = Path(folder, f"wall{ending}")
                with Person() as person:
                    person.expects("Export the wall", str(path))
                    click(self.ui.wallExportButton)
                surface = slicer.util.loadModel(str(path)).GetPolyData()
                self.assertEqual(surface.GetNumberOfPolys(), triangles, ending)

    def test_wall_export_refuses_the_ending_vtk(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "wall.vtk")
            with Person() as person:
                person.expects("Export the wall", str(path))
                person.expects('has the ending ".vtk"', "Ok")
                click(self.ui.wallExportButton)
            self.assertFalse(path.exists())


class WallSceneTest(InsertedWallCase):
    def test_wall_is_restored_with_a_saved_scene(self) -> None:
        self.ui.wallThresholdSlider.value = 1.4
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        self.assertIn(", corrected.", self.ui.wallLabel.text)
        openings = scalars(self.segmentation, "opening")
        text, burden = self.ui.wallLabel.text, burden_cell(self.segmentation)
        with scene_saved_and_closed():
            self.assertIn("No wall yet", self.ui.wallLabel.text)
        slicer.app.processEvents()
        self.assertEqual(self.ui.wallLabel.text, text)
        loaded = slicer.util.getNode("drawn")
        self.assertEqual(burden_cell(loaded), burden)
        np.testing.assert_array_equal(scalars(loaded, "opening"), openings)
        self.ui.wallThresholdSlider.value = 0.6
        self.assertNotEqual(burden_cell(loaded), burden)
        model = review.get_referenced_node(loaded, review.WALL)
        self.assertEqual(model.GetDisplayNode().GetActiveScalarName(), wall_nodes.SHOWN)

    def test_search_for_a_missing_helper_node_does_not_visit_the_other_segmentations(self) -> None:
        with mock.patch.object(slicer.util, "getNodesByClass", wraps=slicer.util.getNodesByClass) as visited:
            self.assertIsNone(review.own_helper(self.segmentation, review.PLACE_POINT))
            self.assertIsNone(review.own_helper(None, review.PLACE_POINT))
        visited.assert_not_called()

    def test_method_is_named_as_in_files(self) -> None:
        for sample in (MAXIMUM, MEAN):
            wall = replace(self.wall, settings=replace(self.wall.settings, sample=sample))
            self.assertEqual(wall_panel._method_text(wall), method_text(wall))

    def test_names_of_the_colours_and_the_table_are_translated(self) -> None:
        names = {"{wall} colours": "Farben von {wall}", "{wall} burden": "Last von {wall}"}
        volume, segmentation = add_phantom()
        with mock.patch.object(wall_nodes, "_", lambda text: names.get(text, text)):
            wall_nodes.insert_wall(self.wall, volume, segmentation, SceneChanges())
        for role, name in ((review.WALL_COLORS, "Farben von ball wall"), (review.WALL_TABLE, "Last von ball wall")):
            self.assertTrue(review.get_referenced_node(segmentation, role).GetName().startswith(name))

    def test_wall_is_removed_with_its_segmentation(self) -> None:
        slicer.mrmlScene.RemoveNode(self.segmentation)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
        names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLModelNode")]
        self.assertNotIn("ball wall", names)

    def test_new_wall_of_a_copy_does_not_replace_the_wall_of_the_original(self) -> None:
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        copy.Copy(self.segmentation)
        before = review.get_referenced_node(self.segmentation, review.WALL)
        self.assertIs(review.get_referenced_node(copy, review.WALL), before)
        wall_nodes.insert_wall(self.wall, self.volume, copy, SceneChanges())
        self.assertIsNot(review.get_referenced_node(copy, review.WALL), before)
        slicer.mrmlScene.RemoveNode(copy)
        nodes = [review.get_referenced_node(self.segmentation, role) for role in review.WALL_NODES]
        self.assertNotIn(None, nodes)

    def test_new_wall_of_the_original_hides_the_old_wall_shared_with_a_copy(self) -> None:
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        copy.Copy(self.segmentation)
        shared = review.get_referenced_node(copy, review.WALL)

        def visibilities(model: Any) -> list[bool]:
            """Return whether a wall and its legend are visible."""
            count = model.GetNumberOfDisplayNodes()
            return [bool(model.GetNthDisplayNode(index).GetVisibility()) for index in range(count)]

        self.assertEqual(visibilities(shared), [True, True])
        with self.assertRaises(MemoryError), SceneChanges() as changes:
            wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, changes)
            raise MemoryError
        self.assertEqual(visibilities(shared), [True, True])
        model = wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, SceneChanges())
        self.assertEqual(visibilities(model), [True, True])
        self.assertEqual(visibilities(shared), [False, False])

    def test_threshold_and_openings_of_a_copy_do_not_change_the_wall_of_the_original(self) -> None:
        original = self.segmentation
        wall_nodes.store_measured_outline(original, "blood", fingerprint(original, ["blood"]))
        burden, text = burden_cell(original), self.ui.wallLabel.text
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        copy.Copy(original)
        choose(self.ui.outputSelector, copy)
        self.assertEqual(self.ui.wallLabel.text, text)
        self.ui.wallThresholdSlider.value = 0.6
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        self.assertEqual(wall_nodes.measured_segment(copy), "blood")
        self.assertIs(wall_nodes.measured_volume(copy), self.volume)
        changed = self.ui.wallLabel.text
        self.assertIn(", corrected.", changed)
        self.assertEqual(burden_cell(original), burden)
        for chosen, shown in ((original, text), (copy, changed)):
            choose(self.ui.outputSelector, chosen)
            self.assertEqual(self.ui.wallLabel.text, shown)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")), 2)

    def test_copy_whose_volume_was_removed_gets_a_wall_at_the_same_place(self) -> None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        review.get_referenced_node(self.segmentation, review.WALL).SetAndObserveTransformNodeID(transform.GetID())
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        copy.Copy(self.segmentation)
        slicer.mrmlScene.RemoveNode(self.volume)
        wall_nodes.separate_wall(self.wall, copy)
        model = review.get_referenced_node(copy, review.WALL)
        self.assertIsNot(model, review.get_referenced_node(self.segmentation, review.WALL))
        self.assertEqual(model.GetName(), "ball wall_1")
        self.assertIs(model.GetParentTransformNode(), transform)
        self.assertIsNone(wall_nodes.measured_volume(copy))

    def test_edit_of_a_copy_leaves_the_wall_of_the_original_up_to_date(self) -> None:
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        copy.Copy(self.segmentation)
        wall_nodes.mark_outdated(copy)
        self.assertTrue(wall_nodes.is_wall_outdated(copy))
        self.assertFalse(wall_nodes.is_wall_outdated(self.segmentation))

    def test_surface_that_another_module_decimated_is_read_again(self) -> None:
        for keeps_scalars, threshold in ((True, 0.6), (False, 0.7)):
            model = review.get_referenced_node(self.segmentation, review.WALL)
            surface = decimate(model.GetPolyData())
            count = surface.GetNumberOfPoints()
            self.assertLess(count, len(scalars(self.segmentation, "ratio")))
            if not keeps_scalars:
                surface.GetPointData().Initialize()
            model.SetAndObservePolyData(surface)
            self.ui.wallThresholdSlider.value = threshold
            self.assertEqual("stage" in self.ui.wallLabel.text, keeps_scalars)
            self.assertEqual("No wall yet" in self.ui.wallLabel.text, not keeps_scalars)
            arrays = surface.GetPointData()
            lengths = {arrays.GetArray(index).GetNumberOfTuples() for index in range(arrays.GetNumberOfArrays())}
            self.assertEqual(lengths, {count} if keeps_scalars else set())
        expect_no_hidden_errors()

    def test_curve_opens_a_decimated_surface(self) -> None:
        model = review.get_referenced_node(self.segmentation, review.WALL)
        model.SetAndObservePolyData(decimate(model.GetPolyData()))
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        self.assertTrue((scalars(self.segmentation, "opening") == OPENING).any())

    def test_wall_removed_in_a_batch_is_no_longer_shown(self) -> None:
        scene = slicer.mrmlScene
        scene.StartState(scene.BatchProcessState)
        scene.RemoveNode(review.get_referenced_node(self.segmentation, review.WALL))
        scene.EndState(scene.BatchProcessState)
        self.assertIn("No wall yet", self.ui.wallLabel.text)
        self.ui.wallThresholdSlider.value = 1.4
        expect_no_hidden_errors()

    def test_new_measurement_replaces_a_removed_table_and_removed_colours(self) -> None:
        for role in (review.WALL_TABLE, review.WALL_COLORS):
            slicer.mrmlScene.RemoveNode(review.get_referenced_node(self.segmentation, role))
        model = wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, SceneChanges())
        self.assertEqual(burden_cell(self.segmentation), f"{self.wall.burden.percent:.1f}")
        colors = review.get_referenced_node(self.segmentation, review.WALL_COLORS)
        self.assertIsNotNone(colors)
        self.assertIs(model.GetDisplayNode().GetColorNode(), colors)

    def test_new_measurement_keeps_the_colour_table_that_the_user_chose(self) -> None:
        display = review.get_referenced_node(self.segmentation, review.WALL).GetDisplayNode()
        chosen = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "chosen")
        display.SetAndObserveColorNodeID(chosen.GetID())
        wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, SceneChanges())
        self.assertIs(display.GetColorNode(), chosen)
        slicer.mrmlScene.RemoveNode(review.get_referenced_node(self.segmentation, review.WALL_COLORS))
        wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, SceneChanges())
        self.assertIs(display.GetColorNode(), chosen)
        slicer.mrmlScene.RemoveNode(chosen)
        wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, SceneChanges())
        colors = review.get_referenced_node(self.segmentation, review.WALL_COLORS)
        self.assertIs(display.GetColorNode(), colors)

    def test_wall_with_unreadable_facts_is_ignored(self) -> None:
        model = review.get_referenced_node(self.segmentation, review.WALL)
        facts = json.loads(model.GetAttribute("DCAMT.wallFacts"))
        for changed in ({"threshold": "later-3"}, {"pool": [1.0]}, {"pool": None}):
            model.SetAttribute("DCAMT.wallFacts", json.dumps({**facts, **changed}))
            self.assertIsNone(wall_nodes.wall_in_scene(self.segmentation))
        model.SetAttribute("DCAMT.wallFacts", "{}")
        choose(self.ui.outputSelector, None)
        choose(self.ui.outputSelector, self.segmentation)
        self.assertIn("No wall yet", self.ui.wallLabel.text)

    def test_surface_without_scalars_is_no_wall(self) -> None:
        for name in (wall_nodes.RATIO, wall_nodes.KIND, wall_nodes.REGION):
            model = wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, SceneChanges())
            self.assertIsNotNone(wall_nodes.wall_in_scene(self.segmentation))
            model.GetPolyData().GetPointData().RemoveArray(name)
            self.assertIsNone(wall_nodes.wall_in_scene(self.segmentation))

    def test_colour_legend_is_visible_and_has_a_title(self) -> None:
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertTrue(legend.GetVisibility())
        self.assertEqual(legend.GetTitleText(), "Intensity ratio")
