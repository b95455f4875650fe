"""The views and the panel agree on the scan and the result after a choice, a new result or the import of a scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from DCAMTSegmentationLib import views, wall_nodes
from DCAMTSegmentationLib.result_nodes import WALL_MODEL, find_results, get_referenced_node
from DCAMTSegmentationLib.worker_job import JobOutcome
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.terms_of_use import record_acceptance
from fake_worker import PanelCase, slice_composites
from scene_nodes import add_scan
from slicer_harness import choose, click, close_scene, process_events_until, reload_scene, scene_saved_and_closed
from wall_case import add_phantom, expected_wall


class TwoScansTest(PanelCase):
    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = add_scan("one"), add_scan("two", shape=(14, 22, 18), seed=7)
        slicer.util.setSliceViewerLayers(background=self.two, fit=True)

    def test_panel_chooses_the_scan_shown_in_the_views(self) -> None:
        self.settings.inputVolume = None
        self.module.panel.enter()
        self.assertEqual(self.ui.inputSelector.currentNode(), self.two)

    def test_chosen_volume_is_shown(self) -> None:
        choose(self.ui.inputSelector, self.one)
        for volume in (self.two, self.one):
            for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
                view.SetFieldOfView(11.0, 12.0, 1.0)
            choose(self.ui.inputSelector, volume)
            self.assert_shown(volume)
            for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
                self.assertNotEqual(view.GetFieldOfView()[:2], (11.0, 12.0))  # the view was fitted to the volume

    def test_new_result_is_shown_over_its_scan(self) -> None:
        choose(self.ui.inputSelector, self.one)
        self.module.worker.before_answer = lambda: slicer.util.setSliceViewerLayers(background=self.two)
        for _time in range(2):  # The first result creates a segmentation node; the second is inserted into this node.
            self.segment(self.one)
            self.assert_shown(self.one)

    def test_results_of_other_scans_are_hidden_until_their_scan_is_chosen(self) -> None:
        first, second = self.segment(self.one), self.segment(self.two)
        self.assertFalse(first.GetDisplayNode().GetVisibility())
        self.assertTrue(second.GetDisplayNode().GetVisibility())
        choose(self.ui.inputSelector, self.one)
        self.assertTrue(first.GetDisplayNode().GetVisibility())
        self.assertFalse(second.GetDisplayNode().GetVisibility())
        self.assertEqual(self.ui.outputSelector.currentNode(), first)

    def test_wall_and_its_legend_are_hidden_with_their_result(self) -> None:
        first = self.segment(self.one)
        wall = wall_nodes.insert_wall(expected_wall(), self.one, first, SceneChanges())

        def visible() -> list[bool]:
            return [bool(wall.GetNthDisplayNode(index).GetVisibility()) for index in range(2)]

        self.assertEqual(visible(), [True, True])
        choose(self.ui.inputSelector, self.two)
        self.assertEqual(visible(), [False, False])
        choose(self.ui.inputSelector, self.one)
        self.assertEqual(visible(), [True, True])
        wall.GetNthDisplayNode(1).SetVisibility(False)  # As if a person hid the legend.
        for volume in (self.two, self.one):
            choose(self.ui.inputSelector, volume)
        self.assertEqual(visible(), [True, False])
        choose(self.ui.inputSelector, self.two)
        wall_nodes.insert_wall(expected_wall(), self.one, first, SceneChanges())
        views.hide_wall_over_other_scan(first)
        self.assertEqual(visible(), [False, False])

    def test_wall_measured_while_another_scan_was_chosen_is_hidden(self) -> None:
        first = self.segment(self.one)
        self.segment(self.two)
        wall = wall_nodes.insert_wall(expected_wall(), self.one, first, SceneChanges())
        self.module.panel._on_wall_measured(JobOutcome(first, "The wall was measured."))
        self.assertFalse(wall.GetDisplayNode().GetVisibility())
        choose(self.ui.inputSelector, self.one)
        self.assertTrue(wall.GetDisplayNode().GetVisibility())

    def test_result_hidden_by_a_person_stays_hidden_until_its_scan_is_segmented_again(self) -> None:
        first = self.segment(self.one)
        first.GetDisplayNode().SetVisibility(False)
        choose(self.ui.inputSelector, self.two)
        choose(self.ui.inputSelector, self.one)
        self.assertFalse(first.GetDisplayNode().GetVisibility())
        self.assertIs(self.segment(self.one), first)
        self.assertTrue(first.GetDisplayNode().GetVisibility())

    def test_result_hidden_by_a_person_while_another_scan_is_chosen_stays_hidden(self) -> None:
        first = self.segment(self.one)
        choose(self.ui.inputSelector, self.two)
        display = first.GetDisplayNode()
        for visible in (True, False):
            display.SetVisibility(visible)
        choose(self.ui.inputSelector, self.one)
        self.assertFalse(display.GetVisibility())
        display.SetVisibility(True)
        for volume, visible in ((self.two, False), (self.one, True)):
            choose(self.ui.inputSelector, volume)
            self.assertEqual(bool(display.GetVisibility()), visible)

    def test_nodes_that_a_person_hides_after_a_reload_stay_hidden(self) -> None:
        first = self.segment(self.one)
        wall_nodes.insert_wall(expected_wall(), self.one, first, SceneChanges())
        choose(self.ui.inputSelector, self.two)
        self.module.panel.exit()
        reload_scene()
        self.module.panel.enter()
        first = slicer.util.getNode("one segmentation")
        displays = [first.GetDisplayNode(), get_referenced_node(first, WALL_MODEL).GetDisplayNode()]
        self.assertFalse(any(display.GetVisibility() for display in displays))
        for display in displays:
            for visible in (True, False):
                display.SetVisibility(visible)
        choose(self.ui.inputSelector, slicer.util.getNode("one"))
        self.assertFalse(any(display.GetVisibility() for display in displays))

    def test_result_of_a_removed_scan_is_shown_when_chosen(self) -> None:
        first = self.segment(self.one)
        wall = wall_nodes.insert_wall(expected_wall(), self.one, first, SceneChanges())
        choose(self.ui.inputSelector, self.two)
        slicer.mrmlScene.RemoveNode(self.one)
        self.assertFalse(first.GetDisplayNode().GetVisibility())
        choose(self.ui.outputSelector, first)
        self.assertTrue(first.GetDisplayNode().GetVisibility())
        self.assertTrue(wall.GetDisplayNode().GetVisibility())

    def test_wall_of_a_drawn_segmentation_is_hidden_over_other_scans(self) -> None:
        volume, drawn = add_phantom()
        choose(self.ui.inputSelector, volume)
        wall = wall_nodes.insert_wall(expected_wall(), volume, drawn, SceneChanges())
        for _time in range(2):
            choose(self.ui.inputSelector, self.two)
            self.assertFalse(wall.GetDisplayNode().GetVisibility())
            self.assertTrue(drawn.GetDisplayNode().GetVisibility())
            choose(self.ui.inputSelector, volume)
            self.assertTrue(wall.GetDisplayNode().GetVisibility())
            self.module.panel._on_wall_measured(JobOutcome(drawn, "The wall was measured."))
            self.assertTrue(wall.GetDisplayNode().GetVisibility())
        choose(self.ui.inputSelector, self.two)
        wall_nodes.insert_wall(expected_wall(), volume, drawn, SceneChanges())
        self.module.panel._on_wall_measured(JobOutcome(drawn, "The wall was measured."))
        self.assertFalse(wall.GetDisplayNode().GetVisibility())
        slicer.mrmlScene.RemoveNode(volume)
        wall.GetDisplayNode().SetVisibility(True)
        choose(self.ui.inputSelector, self.one)
        self.assertTrue(wall.GetDisplayNode().GetVisibility())

    def test_new_result_shows_a_segment_that_a_person_hid_in_the_earlier_result(self) -> None:
        first = self.segment(self.one)
        identifier = first.GetSegmentation().GetNthSegmentID(0)
        first.GetDisplayNode().SetSegmentVisibility(identifier, False)
        self.assertIs(self.segment(self.one), first)
        self.assertTrue(first.GetDisplayNode().GetSegmentVisibility(identifier))

    def apply_to_first(self, midway: Callable[[], None]) -> Any:
        self.module.worker.before_answer = midway
        choose(self.ui.inputSelector, self.one)
        record_acceptance("left-atrium")
        click(self.ui.applyButton)
        process_events_until(lambda: not self.logic.isRunning(), "the result")
        (result,) = find_results()
        return result

    def test_result_is_hidden_if_another_scan_was_chosen_before_it_arrived(self) -> None:
        result = self.apply_to_first(lambda: choose(self.ui.inputSelector, self.two))
        self.assert_shown(self.two)
        self.assertEqual(result.GetName(), "one segmentation")
        self.assertFalse(result.GetDisplayNode().GetVisibility())
        self.assertIsNone(self.settings.outputSegmentation)
        self.assertEqual(self.ui.trustLabel.text, "No result yet: choose a volume and press Apply.")
        choose(self.ui.inputSelector, self.one)
        self.assertTrue(result.GetDisplayNode().GetVisibility())
        self.assertIn("one: Left atrium", self.ui.resultLabel.text)

    def test_return_to_the_module_shows_a_result_that_arrived_meanwhile(self) -> None:
        def leave() -> None:
            self.module.panel.exit()
            slicer.util.setSliceViewerLayers(background=self.two)

        result = self.apply_to_first(leave)
        self.assert_shown(self.two)
        self.assertFalse(result.GetDisplayNode().GetVisibility())
        self.module.panel.enter()
        self.assert_shown(self.one)
        self.assertTrue(result.GetDisplayNode().GetVisibility())
        self.assertTrue(self.ui.inputsCollapsibleButton.collapsed)
        # Later returns leave the views as they are.
        self.module.panel.exit()
        slicer.util.setSliceViewerLayers(background=self.two)
        self.module.panel.enter()
        self.assert_shown(self.two)

    def test_closing_the_scene_forgets_a_result_that_waits_to_be_shown(self) -> None:
        self.apply_to_first(self.module.panel.exit)
        self.assertIsNotNone(self.module.panel._arrived)
        close_scene()
        self.assertIsNone(self.module.panel._arrived)

    def test_choosing_a_result_shows_its_scan(self) -> None:
        first, _second = self.segment(self.one), self.segment(self.two)
        choose(self.ui.outputSelector, first)
        self.assert_shown(self.one)
        self.assertEqual(self.ui.inputSelector.currentNode(), self.one)
        self.assertIn("one: Left atrium", self.ui.resultLabel.text)

    def test_going_to_the_next_doubtful_place_shows_its_scan(self) -> None:
        self.segment(self.one)
        slicer.util.setSliceViewerLayers(background=self.two)
        click(self.ui.nextPlaceButton)
        self.assert_shown(self.one)

    def test_going_to_the_next_doubtful_place_keeps_the_zoom(self) -> None:
        self.segment(self.one)
        (view, *_others) = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        view.SetFieldOfView(11.0, 12.0, 1.0)
        click(self.ui.nextPlaceButton)
        self.assertEqual(view.GetFieldOfView()[:2], (11.0, 12.0))

    def test_status_refers_to_the_chosen_scan(self) -> None:
        self.segment(self.one)
        self.assertEqual(self.ui.statusLabel.text, "one was segmented with the model Left atrium in LGE-MRI.")
        self.assertIn("Left atrium in LGE-MRI", self.ui.resultLabel.toolTip)
        choose(self.ui.inputSelector, self.two)
        self.assertEqual(self.ui.statusLabel.text, "")
        self.assertEqual(self.ui.resultLabel.text, "")
        self.segment(self.two)
        close_scene()
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_status_of_a_scan_without_a_result_is_cleared_when_another_scan_is_chosen(self) -> None:
        choose(self.ui.inputSelector, self.one)
        self.ui.statusLabel.text = "Cancelled."
        choose(self.ui.inputSelector, self.two)
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_only_the_first_result_centres_the_3d_views(self) -> None:
        layout = slicer.app.layoutManager()
        if not hasattr(layout, "resets"):
            self.skipTest("needs the harness's count of view resets")
        choose(self.ui.inputSelector, self.one)
        before = layout.resets
        self.segment(self.one)
        self.assertEqual(layout.resets, before + 1)
        click(self.ui.measureButton)
        self.wait()
        self.assertEqual(layout.resets, before + 1)
        self.segment(self.one)
        self.assertEqual(layout.resets, before + 1)


class NewVolumeTest(PanelCase):
    def test_loaded_volume_is_chosen_when_none_was_chosen(self) -> None:
        self.assertIsNone(self.ui.inputSelector.currentNode())
        volume = add_scan()
        process_events_until(lambda: self.ui.inputSelector.currentNode() is not None, "the volume")
        self.assertEqual(self.ui.inputSelector.currentNode(), volume)
        self.assertTrue(self.ui.applyButton.enabled)
        add_scan("second")
        slicer.app.processEvents()
        self.assertEqual(self.ui.inputSelector.currentNode(), volume)

    def test_volume_hidden_by_another_module_is_not_chosen(self) -> None:
        hidden = add_scan()
        hidden.SetHideFromEditors(True)
        slicer.app.processEvents()
        self.assertIsNone(self.settings.inputVolume)
        self.module.leave()
        self.module.enter()
        self.assertIsNone(self.settings.inputVolume)
        self.assertFalse(self.ui.applyButton.enabled)


class ImportTest(PanelCase):
    def test_panel_chooses_an_imported_result_and_can_hide_its_doubt_map(self) -> None:
        self.segment(add_scan())
        self.ui.doubtCheckBox.click()
        with scene_saved_and_closed():
            self.assertIn("No result yet", self.ui.trustLabel.text)
        slicer.app.processEvents()
        self.assertEqual(self.ui.outputSelector.currentNode().GetName(), "LGE segmentation")
        self.assertIn("branches: 93%", self.ui.trustLabel.text)
        self.ui.doubtCheckBox.click()
        map_node = slicer.util.getNode("LGE doubt")
        for composite in slice_composites():
            self.assertNotEqual(composite.GetForegroundVolumeID(), map_node.GetID())

    def test_panel_ignores_changes_of_its_parameters_during_an_import(self) -> None:
        self.segment(add_scan())
        scene = slicer.mrmlScene
        scene.StartState(scene.ImportState)
        try:
            # During an import, the reference to the volume cannot be resolved yet. Removing the reference has the
            # same effect.
            self.settings.parameterNode.SetNodeReferenceID("inputVolume", None)
            self.settings.parameterNode.Modified()
            self.assertEqual(self.ui.outputSelector.currentNode().GetName(), "LGE segmentation")
            self.assertIn("branches: 93%", self.ui.trustLabel.text)
        finally:
            scene.EndState(scene.ImportState)
