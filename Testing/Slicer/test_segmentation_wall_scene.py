"""The nodes of a wall: saving, copies of the segmentation, and nodes that other modules change or remove."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.wall.burden import OPENING
from dcamt.wall.settings import IIR, Threshold
from DCAMTSegmentationLib import wall_nodes
from DCAMTSegmentationLib.result_nodes import (
    PLACE_POINT,
    WALL_COLORS,
    WALL_MODEL,
    WALL_NODES,
    WALL_TABLE,
    get_referenced_node,
    own_helper,
)
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.scene_changes import SceneChanges
from scene_nodes import copy_node
from slicer_harness import Person, choose, click, expect_no_hidden_errors, scene_saved_and_closed
from vtk.util.numpy_support import vtk_to_numpy
from wall_case import InsertedWallCase, add_closed_curve, add_phantom, burden_cell, scalars


def decimate(surface: Any) -> Any:
    decimated = vtk.vtkDecimatePro()
    decimated.SetInputData(surface)
    decimated.SetTargetReduction(0.5)
    decimated.Update()
    return decimated.GetOutput()


class WallSceneTest(InsertedWallCase):
    def test_wall_is_restored_with_a_saved_scene(self) -> None:
        self.ui.wallThresholdSlider.value = 1.4
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        self.assertIn("Corrected openings:", self.ui.wallLabel.text)
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
        model = get_referenced_node(loaded, WALL_MODEL)
        self.assertEqual(model.GetDisplayNode().GetActiveScalarName(), wall_nodes.SHOWN)

    def test_search_for_a_missing_helper_node_does_not_visit_the_other_segmentations(self) -> None:
        with mock.patch.object(slicer.util, "getNodesByClass", wraps=slicer.util.getNodesByClass) as visited:
            self.assertIsNone(own_helper(self.segmentation, PLACE_POINT))
            self.assertIsNone(own_helper(None, PLACE_POINT))
        visited.assert_not_called()

    def test_names_of_the_colours_and_the_table_are_translated(self) -> None:
        names = {"{wall} colours": "Farben von {wall}", "{wall} burden": "Last von {wall}"}
        volume, segmentation = add_phantom()
        with mock.patch.object(wall_nodes, "_", lambda text: names.get(text, text)):
            wall_nodes.insert_wall(self.wall, volume, segmentation, SceneChanges())
        for role, name in ((WALL_COLORS, "Farben von ball wall"), (WALL_TABLE, "Last von ball wall")):
            self.assertTrue(get_referenced_node(segmentation, role).GetName().startswith(name))

    def test_wall_is_removed_with_its_segmentation(self) -> None:
        slicer.mrmlScene.RemoveNode(self.segmentation)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
        names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLModelNode")]
        self.assertNotIn("ball wall", names)

    def test_new_wall_of_a_copy_does_not_replace_the_wall_of_the_original(self) -> None:
        copy = copy_node(self.segmentation)
        before = get_referenced_node(self.segmentation, WALL_MODEL)
        self.assertIs(get_referenced_node(copy, WALL_MODEL), before)
        self.insert_wall(copy)
        self.assertIsNot(get_referenced_node(copy, WALL_MODEL), before)
        slicer.mrmlScene.RemoveNode(copy)
        nodes = [get_referenced_node(self.segmentation, role) for role in WALL_NODES]
        self.assertNotIn(None, nodes)

    def test_new_wall_of_the_original_hides_the_old_wall_that_a_copy_uses(self) -> None:
        copy = copy_node(self.segmentation)
        shared = get_referenced_node(copy, WALL_MODEL)

        def visibilities(model: Any) -> list[bool]:
            """Return whether a wall and its legend are visible."""
            count = model.GetNumberOfDisplayNodes()
            return [bool(model.GetNthDisplayNode(index).GetVisibility()) for index in range(count)]

        self.assertEqual(visibilities(shared), [True, True])
        with self.assertRaises(MemoryError), SceneChanges() as changes:
            wall_nodes.insert_wall(self.wall, self.volume, self.segmentation, changes)
            raise MemoryError
        self.assertEqual(visibilities(shared), [True, True])
        model = self.insert_wall(self.segmentation)
        self.assertEqual(visibilities(model), [True, True])
        self.assertEqual(visibilities(shared), [False, False])

    def test_threshold_and_openings_of_a_copy_do_not_change_the_wall_of_the_original(self) -> None:
        original = self.segmentation
        wall_nodes.store_measured_outline(original, "blood", fingerprint(original, ["blood"]))
        burden, text = burden_cell(original), self.ui.wallLabel.text
        copy = copy_node(original)
        choose(self.ui.outputSelector, copy)
        self.assertEqual(self.ui.wallLabel.text, text)
        self.ui.wallThresholdSlider.value = 0.6
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        self.assertEqual(wall_nodes.measured_segment(copy), "blood")
        self.assertIs(wall_nodes.measured_volume(copy), self.volume)
        changed = self.ui.wallLabel.text
        self.assertIn("Corrected openings:", changed)
        self.assertEqual(burden_cell(original), burden)
        for chosen, shown in ((original, text), (copy, changed)):
            choose(self.ui.outputSelector, chosen)
            self.assertEqual(self.ui.wallLabel.text, shown)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")), 2)

    def test_wall_of_a_copy_gets_the_transform_of_the_original_wall(self) -> None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        get_referenced_node(self.segmentation, WALL_MODEL).SetAndObserveTransformNodeID(transform.GetID())
        copy = copy_node(self.segmentation)
        slicer.mrmlScene.RemoveNode(self.volume)
        wall_nodes.separate_wall(self.wall, copy)
        model = get_referenced_node(copy, WALL_MODEL)
        self.assertIsNot(model, get_referenced_node(self.segmentation, WALL_MODEL))
        self.assertEqual(model.GetName(), "ball wall_1")
        self.assertIs(model.GetParentTransformNode(), transform)
        self.assertIsNone(wall_nodes.measured_volume(copy))

    def test_edit_of_a_copy_leaves_the_wall_of_the_original_up_to_date(self) -> None:
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))
        copy = copy_node(self.segmentation)
        wall_nodes.mark_outdated(copy)
        self.assertTrue(wall_nodes.is_wall_outdated(copy))
        self.assertFalse(wall_nodes.is_wall_outdated(self.segmentation))

    def test_threshold_is_applied_to_a_decimated_surface(self) -> None:
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        surface = decimate(model.GetPolyData())
        count = surface.GetNumberOfPoints()
        self.assertLess(count, len(scalars(self.segmentation, "ratio")))
        model.SetAndObservePolyData(surface)
        self.ui.wallThresholdSlider.value = 0.6
        self.assertIn("stage", self.ui.wallLabel.text)
        self.assertNotIn("No wall yet", self.ui.wallLabel.text)
        arrays = surface.GetPointData()
        lengths = {arrays.GetArray(index).GetNumberOfTuples() for index in range(arrays.GetNumberOfArrays())}
        self.assertEqual(lengths, {count})
        expect_no_hidden_errors()

    def test_threshold_is_ignored_if_the_surface_lost_its_scalars(self) -> None:
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        surface = decimate(model.GetPolyData())
        surface.GetPointData().Initialize()
        model.SetAndObservePolyData(surface)
        self.ui.wallThresholdSlider.value = 0.6
        self.assertIn("No wall yet", self.ui.wallLabel.text)
        self.assertNotIn("stage", self.ui.wallLabel.text)
        self.assertEqual(surface.GetPointData().GetNumberOfArrays(), 0)
        expect_no_hidden_errors()

    def test_curve_marks_an_opening_on_a_decimated_surface(self) -> None:
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        model.SetAndObservePolyData(decimate(model.GetPolyData()))
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        self.assertTrue((scalars(self.segmentation, "opening") == OPENING).any())

    def harden_shift(self, *nodes: Any) -> None:
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 60.0)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(matrix)
        for node in nodes:
            node.SetAndObserveTransformNodeID(transform.GetID())
            node.HardenTransform()

    def export(self, name: str) -> Path:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, name)
        with Person() as person:
            person.expects("Export the wall", str(path))
            click(self.ui.wallExportButton)
        return path

    def test_curve_marks_an_opening_in_a_wall_moved_by_a_hardened_transform(self) -> None:
        model, curve = slicer.util.getNode("ball wall"), add_closed_curve(np.array([-1.0, 0.2, -0.3]))
        self.harden_shift(self.volume, self.segmentation, model, curve)
        choose(self.ui.wallCurveSelector, curve)
        click(self.ui.wallOpenButton)
        self.assertTrue((scalars(self.segmentation, "opening") == OPENING).any())

    def test_exported_surface_lies_where_a_hardened_transform_moved_it(self) -> None:
        model = slicer.util.getNode("ball wall")
        self.harden_shift(self.volume, self.segmentation, model)
        reader = vtk.vtkSTLReader()
        reader.SetFileName(str(self.export("wall.stl")))
        reader.Update()
        # The STL file has LPS coordinates, and the scene has RAS coordinates. So the signs of x differ.
        low_x, high_x, *_others = reader.GetOutput().GetBounds()
        np.testing.assert_allclose([-high_x, -low_x], model.GetPolyData().GetBounds()[:2], atol=1e-3)

    def test_table_and_text_show_the_new_area_of_a_surface_that_became_smaller(self) -> None:
        points = vtk_to_numpy(slicer.util.getNode("ball wall").GetPolyData().GetPoints().GetData())
        points *= 0.9
        self.module.panel.enter()
        area_cm2 = burden_cell(self.segmentation, "wall_cm2")
        self.assertAlmostEqual(float(area_cm2) / self.wall.burden.wall_cm2, 0.81, delta=0.01)
        self.assertIn(f" of {area_cm2} cm²", self.ui.wallLabel.text)

    def test_panel_shows_a_wall_that_a_script_measured_again(self) -> None:
        other = replace(
            self.wall, pool=replace(self.wall.pool, mean=2 * self.wall.pool.mean), ratio=self.wall.ratio / 2
        )
        wall_nodes.insert_wall(other, self.volume, self.segmentation, SceneChanges())
        self.module.panel.enter()
        self.assertIn(f"{other.burden.percent:.1f}% of the wall", self.ui.wallLabel.text)
        self.ui.wallThresholdSlider.value = 0.7
        self.assertEqual(
            burden_cell(self.segmentation),
            f"{wall_nodes.with_threshold(other, Threshold(IIR, 0.7)).burden.percent:.1f}",
        )

    def test_exported_table_has_the_present_name_of_a_renamed_scan(self) -> None:
        self.volume.SetName("P01")
        text = self.export("wall.csv").read_text(encoding="utf-8")
        self.assertEqual({line.split(",")[0] for line in text.splitlines()[1:]}, {"P01"})

    def test_text_has_the_new_name_of_a_scan_that_was_renamed_and_removed(self) -> None:
        self.volume.SetName("anonymous")
        slicer.mrmlScene.RemoveNode(self.volume)
        self.assertIn("Measured in anonymous.", self.ui.wallLabel.text)

    def test_wall_removed_in_a_batch_is_no_longer_shown(self) -> None:
        scene = slicer.mrmlScene
        scene.StartState(scene.BatchProcessState)
        scene.RemoveNode(get_referenced_node(self.segmentation, WALL_MODEL))
        scene.EndState(scene.BatchProcessState)
        self.assertIn("No wall yet", self.ui.wallLabel.text)
        self.ui.wallThresholdSlider.value = 1.4
        expect_no_hidden_errors()

    def test_new_measurement_replaces_a_removed_table_and_removed_colours(self) -> None:
        for role in (WALL_TABLE, WALL_COLORS):
            slicer.mrmlScene.RemoveNode(get_referenced_node(self.segmentation, role))
        model = self.insert_wall(self.segmentation)
        self.assertEqual(burden_cell(self.segmentation), f"{self.wall.burden.percent:.1f}")
        colors = get_referenced_node(self.segmentation, WALL_COLORS)
        self.assertIsNotNone(colors)
        self.assertIs(model.GetDisplayNode().GetColorNode(), colors)

    def test_new_measurement_keeps_the_legend_and_the_2d_display_that_the_user_chose(self) -> None:
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        legend.SetVisibility(False)
        legend.SetTitleText("IIR")
        model.GetDisplayNode().SetVisibility2D(True)
        self.assertIs(self.insert_wall(self.segmentation), model)
        self.assertFalse(legend.GetVisibility())
        self.assertEqual(legend.GetTitleText(), "IIR")
        self.assertTrue(model.GetDisplayNode().GetVisibility2D())

    def test_new_measurement_keeps_the_colour_table_that_the_user_chose(self) -> None:
        display = get_referenced_node(self.segmentation, WALL_MODEL).GetDisplayNode()
        chosen = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "chosen")
        display.SetAndObserveColorNodeID(chosen.GetID())
        self.insert_wall(self.segmentation)
        self.assertIs(display.GetColorNode(), chosen)
        slicer.mrmlScene.RemoveNode(get_referenced_node(self.segmentation, WALL_COLORS))
        self.insert_wall(self.segmentation)
        self.assertIs(display.GetColorNode(), chosen)
        slicer.mrmlScene.RemoveNode(chosen)
        self.insert_wall(self.segmentation)
        colors = get_referenced_node(self.segmentation, WALL_COLORS)
        self.assertIs(display.GetColorNode(), colors)

    def test_wall_with_an_unreadable_attribute_is_ignored(self) -> None:
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        facts = json.loads(model.GetAttribute("DCAMT.wallFacts"))
        for changed in ({"threshold": "later-3"}, {"pool": [1.0]}, {"pool": None}, {"pool": [10**400, 1, 1]}):
            model.SetAttribute("DCAMT.wallFacts", json.dumps({**facts, **changed}))
            self.assertIsNone(wall_nodes.wall_in_scene(self.segmentation))
        for text in ("{}", "[" * 100_000):
            model.SetAttribute("DCAMT.wallFacts", text)
            choose(self.ui.outputSelector, None)
            choose(self.ui.outputSelector, self.segmentation)
            self.assertIn("No wall yet", self.ui.wallLabel.text)
        wall_nodes.store_scan_name(self.volume)
        self.assertEqual(model.GetAttribute("DCAMT.wallFacts"), text)

    def test_surface_without_scalars_is_no_wall(self) -> None:
        for name in (wall_nodes.RATIO, wall_nodes.KIND, wall_nodes.REGION):
            model = self.insert_wall(self.segmentation)
            self.assertIsNotNone(wall_nodes.wall_in_scene(self.segmentation))
            model.GetPolyData().GetPointData().RemoveArray(name)
            self.assertIsNone(wall_nodes.wall_in_scene(self.segmentation))

    def test_colour_legend_is_visible_and_has_a_title(self) -> None:
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertTrue(legend.GetVisibility())
        self.assertEqual(legend.GetTitleText(), "Intensity ratio")
