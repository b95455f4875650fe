"""The views and the panel stay consistent when scans, results, maps and doubtful places are chosen."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.models import store
from dcamt.models.calibration import ExpectedOverlap
from dcamt.models.store import model_path
from dcamt.worker.protocol import WorkerProgress
from DCAMTSegmentationLib import review
from DCAMTSlicerLib import stepped_task
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.terms_of_use import SETTINGS_GROUP, read_terms, record_acceptance
from fake_worker import FakeWorker, ViewCase, slice_composites
from segmentation_case import Person, add_scan, choose, click, close_scene, process_events_until

SHIPPED_DOUBLE_CLICK_S = stepped_task.DOUBLE_CLICK_S


class TwoScansTest(ViewCase):
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
        for _time in range(2):  # first into a new segmentation, then into the same one
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

    def test_result_hidden_by_a_person_stays_hidden_until_the_next_one(self) -> None:
        first = self.segment(self.one)
        first.GetDisplayNode().SetVisibility(False)
        choose(self.ui.inputSelector, self.two)
        choose(self.ui.inputSelector, self.one)
        self.assertFalse(first.GetDisplayNode().GetVisibility())
        self.assertIs(self.segment(self.one), first)
        self.assertTrue(first.GetDisplayNode().GetVisibility())

    def apply_to_first(self, midway: Callable[[], None]) -> Any:
        """Segment the first scan, call `midway` while it runs, and return the result."""
        self.module.worker.before_answer = midway
        choose(self.ui.inputSelector, self.one)
        record_acceptance("left-atrium")
        click(self.ui.applyButton)
        process_events_until(lambda: not self.logic.isRunning(), "the result")
        (result,) = review.results()
        return result

    def test_result_is_hidden_if_another_scan_was_chosen_meanwhile(self) -> None:
        result = self.apply_to_first(lambda: choose(self.ui.inputSelector, self.two))
        self.assert_shown(self.two)
        self.assertFalse(result.GetDisplayNode().GetVisibility())
        self.assertEqual(self.ui.trustLabel.text, "No result yet: choose a volume and press Apply.")
        choose(self.ui.inputSelector, self.one)
        self.assertTrue(result.GetDisplayNode().GetVisibility())
        self.assertIn("one: Left atrium", self.ui.resultLabel.text)

    def test_result_that_arrives_in_another_module_is_shown_on_return(self) -> None:
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

    def test_result_that_arrived_in_another_module_is_forgotten_with_its_scene(self) -> None:
        self.assertIs(self.apply_to_first(self.module.panel.exit), self.module.panel._arrived)
        close_scene()
        self.assertIsNone(self.module.panel._arrived)

    def test_choosing_a_result_shows_its_scan(self) -> None:
        first, _second = self.segment(self.one), self.segment(self.two)
        choose(self.ui.outputSelector, first)
        self.assert_shown(self.one)
        self.assertEqual(self.ui.inputSelector.currentNode(), self.one)
        self.assertIn("one: Left atrium", self.ui.resultLabel.text)

    def test_next_place_shows_its_scan(self) -> None:
        self.segment(self.one)
        slicer.util.setSliceViewerLayers(background=self.two)
        click(self.ui.nextPlaceButton)
        self.assert_shown(self.one)

    def test_next_place_keeps_the_zoom(self) -> None:
        self.segment(self.one)
        (view, *_others) = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        view.SetFieldOfView(11.0, 12.0, 1.0)
        click(self.ui.nextPlaceButton)
        self.assertEqual(view.GetFieldOfView()[:2], (11.0, 12.0))

    def test_status_refers_to_the_chosen_scan(self) -> None:
        self.segment(self.one)
        self.assertEqual(self.ui.statusLabel.text, "one was segmented with Left atrium in LGE-MRI.")
        self.assertIn("Left atrium in LGE-MRI", self.ui.resultLabel.toolTip)
        choose(self.ui.inputSelector, self.two)
        self.assertEqual(self.ui.statusLabel.text, "")
        self.assertEqual(self.ui.resultLabel.text, "")
        self.segment(self.two)
        close_scene()
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_status_of_a_scan_without_a_result_is_cleared_with_the_scan(self) -> None:
        choose(self.ui.inputSelector, self.one)
        self.ui.statusLabel.text = "Cancelled."
        choose(self.ui.inputSelector, self.two)
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_first_result_centres_the_3d_views(self) -> None:
        layout = slicer.app.layoutManager()
        if not hasattr(layout, "resets"):
            self.skipTest("needs the harness's count of view resets")
        choose(self.ui.inputSelector, self.one)
        before = layout.resets
        self.segment(self.one)
        self.assertEqual(layout.resets, before + 1)
        self.segment(self.one)
        self.assertEqual(layout.resets, before + 1)


class NewVolumeTest(ViewCase):
    def test_loaded_volume_is_chosen_when_none_was_chosen(self) -> None:
        self.assertIsNone(self.ui.inputSelector.currentNode())
        volume = add_scan()
        process_events_until(lambda: self.ui.inputSelector.currentNode() is not None, "the volume")
        self.assertEqual(self.ui.inputSelector.currentNode(), volume)
        self.assertTrue(self.ui.applyButton.enabled)
        add_scan("second")
        slicer.app.processEvents()
        self.assertEqual(self.ui.inputSelector.currentNode(), volume)


class ImportTest(ViewCase):
    def test_scene_loaded_while_the_panel_is_open_keeps_its_result(self) -> None:
        self.segment(add_scan())
        self.ui.doubtCheckBox.click()
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "scene.mrb"))
            self.assertTrue(slicer.util.saveScene(path))
            close_scene()
            self.assertIn("No result yet", self.ui.trustLabel.text)
            slicer.util.loadScene(path)
        slicer.app.processEvents()
        self.assertEqual(self.ui.outputSelector.currentNode().GetName(), "LGE segmentation")
        self.assertIn("agree to 93%", self.ui.trustLabel.text)
        self.ui.doubtCheckBox.click()
        map_node = slicer.util.getNode("LGE doubt")
        for composite in slice_composites():
            self.assertNotEqual(composite.GetForegroundVolumeID(), map_node.GetID())

    def test_panel_sends_no_events_during_an_import(self) -> None:
        self.segment(add_scan())
        scene = slicer.mrmlScene
        scene.StartState(scene.ImportState)
        try:
            # During the import, node references cannot be resolved yet.
            self.settings.parameterNode.SetNodeReferenceID("inputVolume", None)
            self.settings.parameterNode.Modified()
            self.assertEqual(self.ui.outputSelector.currentNode().GetName(), "LGE segmentation")
            self.assertIn("agree to 93%", self.ui.trustLabel.text)
        finally:
            scene.EndState(scene.ImportState)


class MapTest(ViewCase):
    def test_result_is_an_outline_and_a_legend_is_shown_when_the_map_is_visible(self) -> None:
        segmentation = self.segment(add_scan())
        display = segmentation.GetDisplayNode()
        self.assertTrue(display.GetVisibility2DFill())
        self.ui.doubtCheckBox.click()
        self.assertFalse(display.GetVisibility2DFill())
        self.assertTrue(display.GetVisibility2DOutline())
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertTrue(legend.GetVisibility())
        self.assertIn("Doubt (%)", legend.GetTitleText())
        self.assertLessEqual(max(legend.GetSize()), 0.3)  # the font size follows the legend's size
        self.assertEqual(legend.GetDisplayableNode(), slicer.util.getNode("LGE doubt"))
        self.ui.doubtCheckBox.click()
        self.assertTrue(display.GetVisibility2DFill())
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"), [])

    def test_map_is_in_percent(self) -> None:
        self.segment(add_scan())
        values = slicer.util.arrayFromVolume(slicer.util.getNode("LGE doubt"))
        self.assertEqual(set(np.unique(values)), {0, round(200 / 2.55)})

    def test_map_of_an_older_version_keeps_its_title_until_it_is_replaced(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        map_node = slicer.util.getNode("LGE doubt")
        map_node.SetName("LGE disagreement")
        map_node.SetAttribute("DCAMT.map", "1")  # as older versions marked a map of disagreement
        self.ui.doubtCheckBox.click()
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertIn("Disagreement (%)", legend.GetTitleText())
        self.ui.doubtCheckBox.click()
        self.segment(volume)
        self.assertIn("LGE doubt", map_node.GetName())
        self.assertEqual(review.get_referenced_node(segmentation, review.DOUBT_MAP), map_node)
        self.ui.doubtCheckBox.click()
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertIn("Doubt (%)", legend.GetTitleText())

    def test_map_of_another_scan_is_hidden(self) -> None:
        one, two = add_scan("one"), add_scan("two", seed=3)
        self.segment(one)
        self.ui.doubtCheckBox.click()
        choose(self.ui.inputSelector, two)
        map_node = slicer.util.getNode("one doubt")
        for composite in slice_composites():
            self.assertNotEqual(composite.GetForegroundVolumeID(), map_node.GetID())
        choose(self.ui.inputSelector, one)
        for composite in slice_composites():
            self.assertEqual(composite.GetForegroundVolumeID(), map_node.GetID())

    def test_map_stays_visible_in_segment_editor_and_a_button_returns(self) -> None:
        from slicer_harness import open_module

        other = add_scan("other", seed=4)
        segmentation = self.segment(add_scan())
        self.ui.doubtCheckBox.click()
        map_node = slicer.util.getNode("LGE doubt")
        slicer.util.setSliceViewerLayers(background=other)
        module = open_module("DCAMTSegmentation")
        self.addCleanup(module.close)
        module.ui.outputSelector.setCurrentNode(segmentation)
        click(module.ui.correctButton)
        for composite in slice_composites():
            self.assertEqual(composite.GetForegroundVolumeID(), map_node.GetID())
        panel = slicer.modules.segmenteditor.widgetRepresentation()
        button = slicer.util.findChild(panel, "DCAMTBackButton")
        self.assertEqual(button.text, "Back to DCAMT Segmentation")
        button.click()
        self.assertEqual(slicer.util.selectedModule(), "DCAMTSegmentation")
        slicer.app.processEvents()
        self.assertEqual(len(slicer.util.findChildren(panel, "DCAMTBackButton")), 0)


class PlaceTest(ViewCase):
    def test_doubtful_place_is_marked(self) -> None:
        segmentation = self.segment(add_scan())
        click(self.ui.nextPlaceButton)
        (mark,) = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        place = self.logic.doubtfulPlaces(segmentation)[0]
        position = np.zeros(3)
        mark.GetNthControlPointPositionWorld(0, position)
        np.testing.assert_allclose(position, place.position, atol=1e-6)
        self.assertEqual(mark.GetNthControlPointLabel(0), "1 of 2")
        click(self.ui.nextPlaceButton)
        self.assertEqual(mark.GetNumberOfControlPoints(), 1)
        self.assertEqual(mark.GetNthControlPointLabel(0), "2 of 2")

    def test_mark_is_removed_with_another_scan_or_a_new_result(self) -> None:
        one, two = add_scan("one"), add_scan("two", seed=3)
        self.segment(one)
        click(self.ui.nextPlaceButton)
        choose(self.ui.inputSelector, two)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"), [])
        self.segment(two)
        click(self.ui.nextPlaceButton)
        self.segment(two)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"), [])


class DoubtTextTest(ViewCase):
    def test_low_agreement_without_a_place_is_shown(self) -> None:
        self.open(FakeWorker(trust=0.41, places=0))
        self.segment(add_scan())
        self.assertIn("41% only", self.ui.trustLabel.text)
        self.assertIn("check all of it", self.ui.trustLabel.text)
        self.assertNotIn("0 doubtful places", self.ui.trustLabel.text)

    def test_high_agreement_without_a_place_is_shown(self) -> None:
        self.open(FakeWorker(trust=0.97, places=0))
        self.segment(add_scan())
        self.assertEqual(self.ui.trustLabel.text, "The branches agree to 97%; no doubtful place.")

    def test_expected_overlap_is_shown_instead_of_the_agreement(self) -> None:
        self.open(FakeWorker(places=1, expected=ExpectedOverlap(0.921, 0.881, 0.949)))
        self.segment(add_scan())
        text = "Expected overlap with an expert: 0.92 (0.88 to 0.95); one doubtful place."
        self.assertEqual(self.ui.trustLabel.text, text)

    def test_low_expected_overlap_without_places_is_shown(self) -> None:
        self.open(FakeWorker(trust=0.41, places=0, expected=ExpectedOverlap(0.31, 0.05, 0.6)))
        self.segment(add_scan())
        text = "Expected overlap with an expert: 0.31 (0.05 to 0.60); no doubtful place."
        self.assertEqual(self.ui.trustLabel.text, f"{text} This outline is probably wrong: check all of it.")

    def test_fast_quality_explains_that_one_branch_shows_no_doubtful_place(self) -> None:
        text = "Fast quality runs one branch: it does not show where to doubt."
        overlap = "Expected overlap with an expert:"
        wrong = "This outline is probably wrong: check all of it."
        for expected, shown in (
            (None, text),
            (ExpectedOverlap(0.921, 0.881, 0.949), f"{overlap} 0.92 (0.88 to 0.95). {text}"),
            (ExpectedOverlap(0.31, 0.05, 0.6), f"{overlap} 0.31 (0.05 to 0.60). {wrong} {text}"),
        ):
            self.open(FakeWorker(trust=None, places=0, expected=expected))
            self.segment(add_scan())
            self.assertEqual(self.ui.trustLabel.text, shown)
            self.assertFalse(self.ui.nextPlaceButton.enabled or self.ui.doubtCheckBox.enabled)


class ApplyTooltipTest(ViewCase):
    def test_tooltip_of_the_button_explains_apply_and_cancel(self) -> None:
        self.assertEqual(self.ui.applyButton.toolTip, "Choose a volume first.")
        seen = []
        self.module.worker.before_answer = lambda: seen.append((self.ui.applyButton.text, self.ui.applyButton.toolTip))
        self.segment(add_scan())
        self.assertEqual(seen, [("Cancel", "Cancel the segmentation. The scene stays unchanged.")])
        self.assertEqual(self.ui.applyButton.toolTip, "Segment the volume. Slicer stays usable meanwhile.")


class UndoTest(ViewCase):
    def test_undo_and_redo_update_the_panel_on_return(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertFalse(review.is_outdated(segmentation))
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentation)
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        if not hasattr(editor, "saveStateForUndo"):
            self.skipTest("a real Segment Editor stores undo states only for its own effects")
        editor.saveStateForUndo()
        mask = np.zeros((16, 20, 24), np.uint8)
        mask[4:8, 4:8, 4:8] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
        self.assertTrue(review.is_outdated(segmentation))
        review.mark_measured(segmentation, fingerprint(segmentation))
        self.module.panel.exit()
        editor.undo()
        self.module.panel.enter()
        # The table still holds measurements of the edited segment, but the edit was undone.
        self.assertIn("before the correction", self.ui.trustLabel.text)
        self.assertFalse(review.is_corrected(segmentation))
        self.module.panel.exit()
        editor.redo()
        self.module.panel.enter()
        self.assertNotIn("before the correction", self.ui.trustLabel.text)
        self.assertTrue(review.is_corrected(segmentation))


class PanelLayoutTest(ViewCase):
    def test_inputs_are_collapsed_after_apply(self) -> None:
        self.segment(add_scan())
        for name in ("inputsCollapsibleButton", "outputCollapsibleButton", "optionsCollapsibleButton"):
            self.assertTrue(getattr(self.ui, name).collapsed, name)
        self.assertFalse(self.ui.reviewCollapsibleButton.collapsed)

    def test_result_is_visible_without_scrolling_on_a_laptop(self) -> None:
        self.segment(add_scan())
        self.module.widget.resize(400, 560)  # the panel's size in a window of 1366 x 740
        self.module.widget.show()
        slicer.app.processEvents()
        last = self.ui.teachButton
        bottom = last.mapTo(self.module.widget, last.rect.bottomLeft()).y()
        # No widget covers the end of the table.
        table, below = self.ui.measurementsTable, self.ui.measureButton
        end = table.mapTo(self.module.widget, table.rect.bottomLeft()).y()
        self.assertLessEqual(end, below.mapTo(self.module.widget, below.rect.topLeft()).y())
        self.module.widget.hide()
        self.assertLessEqual(bottom, 560)

    def test_no_button_cuts_its_text_in_a_narrow_panel(self) -> None:
        self.segment(add_scan())
        self.module.widget.setFixedWidth(400)
        self.module.widget.show()
        slicer.app.processEvents()
        buttons = [*slicer.util.findChildren(self.module.widget, className="QPushButton")]
        shown = [button for button in buttons if button.visible]
        self.assertIn(self.ui.measureButton, shown)
        for button in shown:
            self.assertGreaterEqual(button.width, button.minimumSizeHint.width(), button.text)
        self.module.widget.hide()

    def test_measurements_have_a_fixed_number_of_digits(self) -> None:
        self.segment(add_scan())
        table = self.ui.measurementsTable.mrmlTableNode().GetTable()
        text = table.GetValueByName(0, "volume_ml").ToString()
        self.assertRegex(text, r"^\d+\.\d\d$")

    def test_double_click_on_apply_does_not_cancel(self) -> None:
        choose(self.ui.inputSelector, add_scan())
        with mock.patch.object(stepped_task, "DOUBLE_CLICK_S", 3600.0):
            record_acceptance("left-atrium")
            click(self.ui.applyButton)
            click(self.ui.applyButton)
            self.assertTrue(self.logic.isRunning())
        click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")

    @mock.patch.object(stepped_task, "DOUBLE_CLICK_S", SHIPPED_DOUBLE_CLICK_S)
    def test_double_click_on_apply_starts_one_job_however_slow_the_start_and_fast_the_job(self) -> None:
        now = [100.0]

        def ensure_packages() -> None:
            now[0] += 20.0

        choose(self.ui.inputSelector, add_scan())
        record_acceptance("left-atrium")
        with (
            mock.patch.object(stepped_task, "time", mock.Mock(monotonic=lambda: now[0])),
            mock.patch.object(self.logic, "ensurePackages", ensure_packages),
        ):
            click(self.ui.applyButton)
            now[0] += 0.2
            click(self.ui.applyButton)
            self.assertTrue(self.logic.isRunning())
            now[0] += 20.0
            process_events_until(lambda: not self.logic.isRunning(), "the result")
            now[0] += 0.2
            click(self.ui.applyButton)
            self.assertFalse(self.logic.isRunning())
            self.assertEqual(len(self.module.worker.requests), 1)
            now[0] += 1.0
            click(self.ui.applyButton)
            self.assertTrue(self.logic.isRunning())
            now[0] += 1.0
            click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")

    def test_progress_bar_rises_with_the_fraction(self) -> None:
        from DCAMTSegmentationLib.segmentation_job import SegmentationProgress

        choose(self.ui.inputSelector, add_scan())
        record_acceptance("left-atrium")
        click(self.ui.applyButton)
        values = []
        for fraction in (0.1, 0.5, 0.9):
            self.module.panel._on_progress(SegmentationProgress("Segmenting", fraction))
            values.append(self.ui.progressBar.value)
        self.assertEqual(values, [100, 500, 900])

    def test_progress_bar_never_moves_back(self) -> None:
        from DCAMTSegmentationLib.result_insertion import SegmentationOptions
        from DCAMTSegmentationLib.segmentation_job import SegmentationJob

        fractions: list[float] = []
        job = SegmentationJob(
            self.module.worker,
            SegmentationOptions(add_scan()),
            lambda progress: fractions.append(progress.fraction),
            lambda outcome: None,
        )
        for fraction in (0.0, 0.3, 0.1, 0.5, 0.0):
            job.handle_progress(WorkerProgress("1", "segmenting", fraction))
        self.assertEqual(fractions, [0.0, 0.3, 0.3, 0.5, 0.5])


class RegionDisplayTest(ViewCase):
    def test_region_has_no_fill_and_a_distinct_color(self) -> None:
        choose(self.ui.inputSelector, add_scan())
        click(self.ui.placeRegionButton)
        added = self.ui.regionSelector.addNode()
        for region in (slicer.util.getNode("Heart region"), added):
            display = region.GetDisplayNode()
            self.assertFalse(display.GetFillVisibility())
            self.assertGreater(min(display.GetSelectedColor()[:2]), 0.8)

    def test_rotated_region_is_sent_with_its_rotation(self) -> None:
        volume = add_scan()
        choose(self.ui.inputSelector, volume)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        self.segment(volume)
        self.assertIsNone(self.module.worker.requests[-1].region.to_unit)
        turn = np.eye(4)
        angle = np.radians(30)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn[:3, 3] = region.GetCenter()
        region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn))
        self.segment(volume)
        to_unit = np.array(self.module.worker.requests[-1].region.to_unit)
        half = np.array(region.GetSize()) / 2
        to_world = slicer.util.arrayFromVTKMatrix(region.GetObjectToWorldMatrix())
        for own in ([1, 1, 1], [-1, 0.5, 0], [0, 0, -1]):
            world = to_world @ [*(np.array(own) * half), 1.0]
            np.testing.assert_allclose((to_unit @ world)[:3], own, atol=1e-9)


class TermsTest(ViewCase):
    def test_terms_of_a_shipped_model_are_shown_once_before_its_first_use(self) -> None:
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        choose(self.ui.inputSelector, add_scan())
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        for text in ("research", "not a medical device", "2018 Left Atrial Segmentation Challenge"):
            self.assertIn(text, read_terms("left-atrium"))
        with Person() as person:
            person.expects("terms of use", "Cancel")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.module.worker.requests, [])
        self.assertIn("not accepted", self.ui.statusLabel.text)
        with Person() as person:
            person.expects("terms of use", "Ok")
            click(self.ui.applyButton)
            process_events_until(lambda: not self.logic.isRunning(), "the result")
            click(self.ui.applyButton)  # not asked again
            process_events_until(lambda: not self.logic.isRunning(), "the result")
        self.assertEqual(len(self.module.worker.requests), 2)

    def test_dialog_states_that_ok_accepts_the_terms(self) -> None:
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        choose(self.ui.inputSelector, add_scan())
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        with Person() as person:
            person.expects("OK means that you accept them", "Cancel")
            click(self.ui.applyButton)

    def test_shipped_model_given_by_its_file_has_the_same_terms(self) -> None:
        file = str(model_path("left-atrium"))
        self.assertEqual(read_terms(file), read_terms("left-atrium"))
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        choose(self.ui.inputSelector, add_scan())
        self.settings.model = file
        with Person() as person:
            person.expects("terms of use", "Cancel")
            click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])

    def test_shipped_model_without_its_terms_is_not_used(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(model_path("left-atrium"), folder)
            with mock.patch.object(store, "shipped_folders", return_value=[Path(folder)]):
                choose(self.ui.inputSelector, add_scan())
                choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
                with Person() as person:
                    person.expects("left-atrium-terms.txt: the model's terms of use cannot be read", "Ok")
                    click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])
