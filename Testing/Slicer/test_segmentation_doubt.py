"""The review of doubt in the panel: the map, the doubtful places, the agreement and the expected overlap."""

from __future__ import annotations

from unittest import mock

import numpy as np
import slicer
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.models.calibration import ExpectedOverlap
from DCAMTSegmentationLib import review, review_panel
from DCAMTSegmentationLib.doubt_map import OPAQUE_FROM_PERCENT
from DCAMTSegmentationLib.result_nodes import DOUBT_MAP, get_referenced_node
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from fake_worker import FakeWorker, PanelCase, slice_composites
from scene_nodes import add_scan
from segmentation_case import SegmentationCase
from slicer_harness import choose, click, reload_scene


class MapTest(PanelCase):
    def test_visible_map_turns_the_result_into_an_outline_and_adds_a_legend(self) -> None:
        segmentation = self.segment(add_scan())
        display = segmentation.GetDisplayNode()
        self.assertTrue(display.GetVisibility2DFill())
        self.ui.doubtCheckBox.click()
        self.assertFalse(display.GetVisibility2DFill())
        self.assertTrue(display.GetVisibility2DOutline())
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertTrue(legend.GetVisibility())
        self.assertIn("Doubt (%)", legend.GetTitleText())
        self.assertLessEqual(max(legend.GetSize()), 0.3)  # fractions of the view
        self.assertEqual(legend.GetDisplayableNode(), slicer.util.getNode("LGE doubt"))
        self.ui.doubtCheckBox.click()
        self.assertTrue(display.GetVisibility2DFill())
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"), [])

    def test_legend_omits_percentages_that_are_transparent_in_the_map(self) -> None:
        self.segment(add_scan())
        self.ui.doubtCheckBox.click()
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        display = legend.GetPrimaryDisplayNode()
        self.assertEqual(display.GetWindowLevelMin(), display.GetLowerThreshold())
        self.assertEqual(display.GetWindowLevelMax(), 100)

    def test_hiding_the_map_keeps_the_fill_that_a_person_chose(self) -> None:
        display = self.segment(add_scan()).GetDisplayNode()
        self.ui.doubtCheckBox.click()
        for visible in (True, False):
            display.SetVisibility2DFill(visible)
        self.ui.doubtCheckBox.click()
        self.assertFalse(display.GetVisibility2DFill())

    def test_map_is_in_percent(self) -> None:
        self.segment(add_scan())
        values = slicer.util.arrayFromVolume(slicer.util.getNode("LGE doubt"))
        self.assertEqual(set(np.unique(values)), {0, round(200 / 2.55)})

    def test_map_of_an_older_version_keeps_its_title_until_the_next_result(self) -> None:
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
        self.assertEqual(get_referenced_node(segmentation, DOUBT_MAP), map_node)
        self.ui.doubtCheckBox.click()
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertIn("Doubt (%)", legend.GetTitleText())

    def test_new_result_keeps_the_threshold_that_a_person_chose(self) -> None:
        volume = add_scan()
        self.segment(volume)
        display = slicer.util.getNode("LGE doubt").GetDisplayNode()
        self.assertEqual(display.GetLowerThreshold(), OPAQUE_FROM_PERCENT)
        display.SetThreshold(5, 100)
        self.segment(volume)
        self.assertEqual(display.GetLowerThreshold(), 5)

    def test_new_result_resets_the_threshold_of_a_map_from_an_older_version(self) -> None:
        volume = add_scan()
        self.segment(volume)
        map_node = slicer.util.getNode("LGE doubt")
        map_node.SetAttribute("DCAMT.map", "1")
        display = map_node.GetDisplayNode()
        display.SetThreshold(5, 100)
        self.segment(volume)
        self.assertEqual(display.GetLowerThreshold(), OPAQUE_FROM_PERCENT)

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

    def test_map_stays_visible_in_segment_editor_and_a_button_leads_back_to_the_panel(self) -> None:
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

    def test_map_of_doubt_replaces_the_foreground_of_the_slices_until_the_map_is_hidden(self) -> None:
        volume, before = add_scan(), add_scan("CT", seed=5)
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        self.assertEqual(len(composites), 3)
        for composite in composites:
            composite.SetForegroundVolumeID(before.GetID())
            composite.SetForegroundOpacity(0.25)
        self.segment(volume)
        self.ui.doubtCheckBox.click()
        map_node = slicer.util.getNode("LGE doubt")
        for composite in composites:
            self.assertEqual(composite.GetForegroundVolumeID(), map_node.GetID())
            self.assertGreater(composite.GetForegroundOpacity(), 0.3)
        self.ui.doubtCheckBox.click()
        for composite in composites:
            self.assertEqual(composite.GetForegroundVolumeID(), before.GetID())
            self.assertEqual(composite.GetForegroundOpacity(), 0.25)

    def test_removed_foreground_is_not_replaced_by_a_new_volume_with_the_same_id(self) -> None:
        add_scan("CT", seed=5)
        self.segment(add_scan())
        reload_scene()  # From now on, Slicer gives the ID of a removed node to a new node.
        before = slicer.util.getFirstNodeByName("CT")
        identifier = before.GetID()
        for composite in slice_composites():
            composite.SetForegroundVolumeID(identifier)
        self.ui.doubtCheckBox.click()
        slicer.mrmlScene.RemoveNode(before)
        self.assertEqual(add_scan("other").GetID(), identifier)
        self.ui.doubtCheckBox.click()
        self.assertEqual([composite.GetForegroundVolumeID() for composite in slice_composites()], [None] * 3)

    def test_foreground_chosen_instead_of_the_map_is_kept_until_the_map_is_shown_again(self) -> None:
        other = add_scan("CT")
        self.segment(add_scan())
        self.ui.doubtCheckBox.click()
        for composite in slice_composites():
            composite.SetForegroundVolumeID(other.GetID())
            composite.SetForegroundOpacity(0.5)
        for change in (self.module.panel.enter, self.ui.doubtCheckBox.click):
            change()
            for composite in slice_composites():
                self.assertEqual(
                    (composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()), (other.GetID(), 0.5)
                )
        self.ui.doubtCheckBox.click()
        map_id = slicer.util.getNode("LGE doubt").GetID()
        self.assertEqual({composite.GetForegroundVolumeID() for composite in slice_composites()}, {map_id})

    def test_check_box_is_disabled_after_the_map_is_deleted(self) -> None:
        self.segment(add_scan())
        self.assertTrue(self.ui.doubtCheckBox.enabled)
        slicer.mrmlScene.RemoveNode(slicer.util.getNode("LGE doubt"))
        self.assertFalse(self.ui.doubtCheckBox.enabled)


class PlaceTest(PanelCase):
    def test_doubtful_place_is_marked(self) -> None:
        segmentation = self.segment(add_scan())
        click(self.ui.nextPlaceButton)
        (point,) = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        place = self.logic.doubtfulPlaces(segmentation)[0]
        position = np.zeros(3)
        point.GetNthControlPointPositionWorld(0, position)
        np.testing.assert_allclose(position, place.position, atol=1e-6)
        self.assertEqual(point.GetNthControlPointLabel(0), "1 of 2")
        click(self.ui.nextPlaceButton)
        self.assertEqual(point.GetNumberOfControlPoints(), 1)
        self.assertEqual(point.GetNthControlPointLabel(0), "2 of 2")

    def test_point_is_removed_when_another_scan_is_chosen_or_a_new_result_arrives(self) -> None:
        one, two = add_scan("one"), add_scan("two", seed=3)
        self.segment(one)
        click(self.ui.nextPlaceButton)
        choose(self.ui.inputSelector, two)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"), [])
        self.segment(two)
        click(self.ui.nextPlaceButton)
        self.segment(two)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"), [])

    def test_text_about_a_place_of_the_earlier_result_is_cleared_by_a_new_result(self) -> None:
        volume = add_scan()
        self.segment(volume)
        click(self.ui.nextPlaceButton)
        self.module.leave()
        self.module.enter()
        self.assertIn("1 of 2", self.ui.placeLabel.text)
        self.segment(volume)
        self.assertEqual(self.ui.placeLabel.text, "")

    def test_slices_move_to_each_doubtful_place_in_turn(self) -> None:
        segmentation = self.segment(add_scan())
        doubts = [DoubtfulPlace(at, (0, 0, 0), 0.5, 0.25) for at in ((-20, -9, 12), (-12, -15, 6), (-9, -21, 20))]
        review.store_review_data(segmentation, 0.9, doubts, np.eye(4))
        self.module.enter()
        places = self.logic.doubtfulPlaces(segmentation)
        self.assertEqual([place.position for place in places], [doubt.position for doubt in doubts])
        for place in [*places, places[0]]:
            click(self.ui.nextPlaceButton)
            for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
                to_xy = slicer.util.arrayFromVTKMatrix(view.GetXYToRAS())
                x, y, z = np.linalg.inv(to_xy)[:3] @ [*place.position, 1]
                self.assertAlmostEqual(z, 0, places=3)  # in the slice's plane
                width, height, _depth = view.GetDimensions()
                self.assertAlmostEqual(x, width / 2, delta=1)  # at the view's centre
                self.assertAlmostEqual(y, height / 2, delta=1)
        self.assertEqual(self.ui.placeLabel.text, "1 of 3: 0.50 mL in doubt")


class DoubtTextTest(PanelCase):
    def test_low_agreement_without_a_doubtful_place_is_shown(self) -> None:
        self.open(FakeWorker(trust=0.41, places=0))
        self.segment(add_scan())
        self.assertIn("only 41%", self.ui.trustLabel.text)
        self.assertIn("Check the whole segmentation", self.ui.trustLabel.text)
        self.assertNotIn("0 doubtful places", self.ui.trustLabel.text)

    def test_high_agreement_without_a_doubtful_place_is_shown(self) -> None:
        self.open(FakeWorker(trust=0.97, places=0))
        self.segment(add_scan())
        self.assertEqual(self.ui.trustLabel.text, "Agreement of the branches: 97%; no doubtful place.")

    def test_list_of_20_places_is_shown_as_20_or_more(self) -> None:
        for places, text in ((19, "97%; 19 doubtful places."), (20, "97%; 20 or more doubtful places.")):
            with self.subTest(places=places):
                self.open(FakeWorker(trust=0.97, places=places))
                self.segment(add_scan())
                self.assertIn(text, self.ui.trustLabel.text)

    def test_expected_overlap_is_shown_instead_of_the_agreement(self) -> None:
        self.open(FakeWorker(places=1, expected=ExpectedOverlap(0.921, 0.881, 0.949)))
        self.segment(add_scan())
        text = "Expected overlap with an expert's outline: 0.92 (0.88 to 0.95); one doubtful place."
        self.assertEqual(self.ui.trustLabel.text, text)

    def test_interval_of_the_expected_overlap_is_translated(self) -> None:
        self.open(FakeWorker(places=1, expected=ExpectedOverlap(0.92, 0.88, 0.95)))
        translation = {"{value} ({low} to {high})": "{value} (von {low} bis {high})"}
        with mock.patch.object(review_panel, "_", lambda text: translation.get(text, text)):
            self.segment(add_scan())
        self.assertIn("outline: 0.92 (von 0.88 bis 0.95);", self.ui.trustLabel.text)

    def test_expected_overlap_in_an_unknown_form_is_ignored(self) -> None:
        # Another version of DCAMT may have stored other fields.
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        for text in ("[0.9, 0.8, 0.95, 7]", "[0.9]", "damaged", '["a", "b", "c"]', f"[{10**400}, 0, 1]", "[" * 100_000):
            segmentation.SetAttribute("DCAMT.expectedOverlap", text)
            self.assertIsNone(review.expected_overlap(segmentation))

    def test_low_expected_overlap_without_a_doubtful_place_is_shown(self) -> None:
        self.open(FakeWorker(trust=0.41, places=0, expected=ExpectedOverlap(0.31, 0.05, 0.6)))
        self.segment(add_scan())
        text = "Expected overlap with an expert's outline: 0.31 (0.05 to 0.60); no doubtful place."
        self.assertEqual(self.ui.trustLabel.text, f"{text} This outline is probably wrong: check all of it.")

    def test_panel_explains_why_a_fast_result_has_no_doubtful_places(self) -> None:
        text = "Doubtful places and a map of doubt need quality “Accurate”."
        overlap = "Expected overlap with an expert's outline:"
        wrong = "This outline is probably wrong: check all of it."
        for expected, shown in (
            (None, text),
            (ExpectedOverlap(0.921, 0.881, 0.949), f"{overlap} 0.92 (0.88 to 0.95). {text}"),
            (ExpectedOverlap(0.31, 0.05, 0.6), f"{overlap} 0.31 (0.05 to 0.60). {wrong} {text}"),
        ):
            self.open(FakeWorker(expected=expected))
            choose(self.ui.qualityComboBox, "Fast: one branch")
            self.segment(add_scan())
            self.assertEqual(self.ui.trustLabel.text, shown)
            self.assertFalse(self.ui.nextPlaceButton.enabled or self.ui.doubtCheckBox.enabled)


class WorkerMapTest(SegmentationCase):
    def test_map_of_doubt_has_the_grid_of_the_volume_and_is_high_at_doubtful_places(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        map_node = slicer.util.getNode("LGE doubt")
        values = slicer.util.arrayFromVolume(map_node)
        self.assertEqual(values.shape, slicer.util.arrayFromVolume(volume).shape)
        np.testing.assert_allclose(ijk_to_ras(map_node), ijk_to_ras(volume))
        to_ijk = np.linalg.inv(np.diag([-1.5, -1.5, 1.5, 1.0]))
        places = self.logic.doubtfulPlaces(segmentation)
        self.assertGreater(len(places), 0)
        for place in places:
            i, j, k = np.rint(to_ijk[:3] @ [*place.position, 1]).astype(int)
            self.assertGreaterEqual(values[k, j, i], 50)  # percent
