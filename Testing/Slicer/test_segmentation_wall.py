"""The section Wall: thresholds, openings, changed outlines, lists, and the export."""

from __future__ import annotations

import itertools
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.wall.burden import OPENING, WALL, decaaf_stage
from dcamt.wall.colors import COLOR_STOPS, OPENING_COLOR, RATIO_RANGE
from dcamt.wall.files import method_text
from dcamt.wall.settings import IIR, MAXIMUM, MEAN, METHODS_DISAGREE, PRESETS, Threshold
from DCAMTSegmentationLib import wall_nodes, wall_panel
from DCAMTSegmentationLib.result_nodes import WALL_COLORS, WALL_MODEL, get_referenced_node
from DCAMTSlicerLib import engine_messages
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.segment_voxels import read_segment
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from fake_worker import FakePanel, FakeWorker
from scene_nodes import add_scan
from slicer_harness import Person, assert_stays_responsive, choose, click, pause_of, process_events
from vtk.util.numpy_support import vtk_to_numpy
from wall_case import (
    AFFINE,
    RADIUS_MM,
    SHAPE,
    ChosenPhantomCase,
    InsertedWallCase,
    add_closed_curve,
    add_phantom,
    burden_cell,
    phantom,
    scalars,
)


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

    def test_outline_moved_relative_to_its_scan_is_noticed(self) -> None:
        volume, segmentation = self.volume, self.segmentation
        transforms = []
        for name, distance_mm in (("small", 0.05), ("large", 20.0)):
            transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
            matrix = np.eye(4)
            matrix[0, 3] = distance_mm
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
            transforms.append(transform.GetID())
        small, large = transforms
        placed = wall_nodes.placement(segmentation, "blood", ijk_to_ras(volume), np.eye(4))
        measured = fingerprint(segmentation, ["blood"])
        wall_nodes.store_measured_outline(segmentation, "blood", measured, placed)
        for of_segmentation, of_volume, is_moved in (
            (None, None, False),
            (large, None, True),
            (large, large, False),
            (small, None, False),
            (None, large, True),
        ):
            segmentation.SetAndObserveTransformNodeID(of_segmentation)
            volume.SetAndObserveTransformNodeID(of_volume)
            self.module.panel.enter()
            self.assertEqual("The outline was changed after" in self.ui.wallLabel.text, is_moved)
        # The volume still has the transform `large`. Hardening a node's transform keeps the node's position in the
        # world, so the outline does not move relative to its scan.
        segmentation.SetAndObserveTransformNodeID(large)
        for node in (segmentation, volume):
            node.HardenTransform()
            self.module.panel.enter()
            self.assertNotIn("The outline was changed after", self.ui.wallLabel.text)

    def test_text_names_the_measured_scan_while_another_scan_is_chosen(self) -> None:
        self.volume.SetName("baseline")
        choose(self.ui.inputSelector, add_scan("follow-up"))
        choose(self.ui.outputSelector, self.segmentation)
        self.module.panel.enter()
        self.assertIn("Measured in baseline.", self.ui.wallLabel.text)
        slicer.mrmlScene.RemoveNode(self.volume)
        self.module.panel.enter()
        self.assertIn("Measured in baseline.", self.ui.wallLabel.text)

    def test_text_contains_each_note_of_the_wall_once(self) -> None:
        text = self.ui.wallLabel.text
        self.assertTrue(self.wall.proposed)
        for note in self.wall.notes:
            self.assertEqual(text.count(note), 1)
        self.assertNotIn("Corrected openings:", text)

    def test_table_shows_all_regions_without_vertical_scrolling(self) -> None:
        self.ui.wallCollapsibleButton.collapsed = False
        self.module.widget.setFixedWidth(400)
        self.module.widget.show()
        process_events()
        table, rows = self.ui.wallTable, self.ui.wallTable.model().rowCount()
        bottom = table.rowViewportPosition(rows - 1) + table.rowHeight(rows - 1)
        height = table.viewport().height
        self.module.widget.hide()
        self.assertEqual(rows, 7)
        self.assertLessEqual(bottom, height)

    def test_wall_whose_scan_and_outline_were_scaled_is_outdated(self) -> None:
        placed = wall_nodes.placement(self.segmentation, "blood", ijk_to_ras(self.volume), np.eye(4))
        measured = fingerprint(self.segmentation, ["blood"])
        wall_nodes.store_measured_outline(self.segmentation, "blood", measured, placed)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "from cm to mm")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([10.0, 10.0, 10.0, 1.0])))
        for node in (self.segmentation, self.volume):
            node.SetAndObserveTransformNodeID(transform.GetID())
            node.HardenTransform()
        self.module.panel.enter()
        self.assertIn("The outline was changed after", self.ui.wallLabel.text)

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

    def test_selection_is_kept_for_a_segment_with_the_same_identifier_and_name(self) -> None:
        other = add_phantom()[1]
        for segmentation, name in ((self.segmentation, "scar"), (other, "aorta")):
            segmentation.GetSegmentation().AddEmptySegment("Segment_1", name)
        process_events()
        choose(self.ui.wallSegmentComboBox, "scar")
        choose(self.ui.outputSelector, other)
        self.assertEqual(self.ui.wallSegmentComboBox.currentText, "blood")
        other.GetSegmentation().GetSegment("Segment_1").SetName("scar")
        process_events()
        choose(self.ui.wallSegmentComboBox, "scar")
        choose(self.ui.outputSelector, self.segmentation)
        self.assertEqual(self.ui.wallSegmentComboBox.currentText, "scar")


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
        colors = get_referenced_node(self.segmentation, WALL_COLORS)
        display = get_referenced_node(self.segmentation, WALL_MODEL).GetDisplayNode()
        self.assertEqual(display.GetScalarRange(), RATIO_RANGE)
        for threshold in (0.8, 1.2, 1.6):
            self.ui.wallThresholdSlider.value = threshold
            low, high = display.GetScalarRange()
            at = (threshold - low) / (high - low) * (wall_nodes.COLORS - 1)
            below, above = [0.0] * 4, [0.0] * 4
            colors.GetColor(int(at) - 2, below)
            colors.GetColor(int(at) + 2, above)
            self.assertGreater(below[2], below[0])  # bluish
            self.assertGreater(above[0], above[2] + 0.4)  # yellow to red
        for index, color in ((1, COLOR_STOPS[0][1]), (wall_nodes.COLORS - 1, COLOR_STOPS[-1][1]), (0, OPENING_COLOR)):
            table_color = [0.0] * 4
            colors.GetColor(index, table_color)
            np.testing.assert_allclose(table_color[:3], color, atol=0.01)

    def test_enhanced_wall_is_drawn_warm_and_other_wall_blue_at_every_threshold(self) -> None:
        count = len(self.wall.ratio)
        self.wall = replace(self.wall, ratio=np.linspace(0.1, 5.0, count, dtype=np.float32))
        model, is_wall = self.insert_wall(self.segmentation), self.wall.kind == WALL
        choose(self.ui.outputSelector, None)
        choose(self.ui.outputSelector, self.segmentation)
        display, table = model.GetDisplayNode(), vtk.vtkLookupTable()
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        for threshold in (0.5, 0.6, 0.79, 1.2, 1.81, 2.0, 2.3, 2.5):
            self.ui.wallThresholdSlider.value = threshold
            low, high = display.GetScalarRange()
            table.DeepCopy(display.GetColorNode().GetLookupTable())
            table.SetRange(low, high)
            shown = model.GetPolyData().GetPointData().GetArray(display.GetActiveScalarName())
            red, _green, blue = vtk_to_numpy(table.MapScalars(shown, vtk.VTK_COLOR_MODE_MAP_SCALARS, -1))[:, :3].T
            is_warm = red > blue
            np.testing.assert_array_equal(is_warm[is_wall], self.wall.ratio[is_wall] > threshold, str(threshold))
            self.assertTrue(low < threshold < high)
            labels = np.linspace(low, high, legend.GetNumberOfLabels())
            np.testing.assert_allclose(labels, labels.round(1), err_msg="the legend's labels")

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

    def test_method_is_named_as_in_files(self) -> None:
        for sample in (MAXIMUM, MEAN):
            wall = replace(self.wall, settings=replace(self.wall.settings, sample=sample))
            self.assertEqual(wall_panel._method_text(wall), method_text(wall))


class OpeningTest(InsertedWallCase):
    def test_surface_inside_a_curve_becomes_an_opening_and_then_wall_again(self) -> None:
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
        self.assertIn("Corrected openings:", self.ui.wallLabel.text)
        click(self.ui.wallCloseButton)
        self.assertAlmostEqual(float(burden_cell(self.segmentation, "wall_cm2")), before, delta=0.11)

    def test_curve_around_a_wide_cap_opens_the_whole_cap(self) -> None:
        axis = np.array([-1.0, 0.2, -0.3])
        choose(self.ui.wallCurveSelector, add_closed_curve(axis, degrees=60.0))
        click(self.ui.wallOpenButton)
        points = self.wall.surface.points - (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3]
        cosine = points @ axis / np.linalg.norm(axis) / np.linalg.norm(points, axis=1)
        # The curve has only twelve control points on the circle of 60 degrees. Between these points, it may lie inside
        # the circle. So only the points up to 52 degrees are checked.
        inside = cosine > np.cos(np.radians(52))
        self.assertTrue((scalars(self.segmentation, "opening")[inside] == OPENING).all())

    def test_no_burden_is_stated_if_no_wall_is_left(self) -> None:
        # Each curve encloses a cap of the ball. The axes of the caps point from the ball's centre to the 6 faces and
        # the 8 corners of a cube. Together, the caps cover the ball.
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

    def test_wall_export_refuses_an_unknown_or_missing_ending(self) -> None:
        for ending in (".vtk", ""):
            with self.subTest(ending), tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"wall{ending}")
                with Person() as person:
                    person.expects("Export the wall", str(path))
                    person.expects("does not have the ending of a table or surface", "Ok")
                    click(self.ui.wallExportButton)
                self.assertFalse(path.exists())

    def test_outdated_wall_is_exported_only_after_a_question(self) -> None:
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))
        smaller = phantom()[1]
        smaller[:20] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, self.segmentation, "blood", self.volume)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "wall.csv")
            with Person() as person:
                person.expects("The outline was changed after the measurement", "Cancel")
                click(self.ui.wallExportButton)
            self.assertFalse(path.exists())
            with Person() as person:
                person.expects("The outline was changed after the measurement", "Ok")
                person.expects("Export the wall", str(path))
                click(self.ui.wallExportButton)
            self.assertTrue(path.exists())
