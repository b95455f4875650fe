"""Test the placement and the display of the region of interest, and its use in requests."""

from __future__ import annotations

import json

import numpy as np
import slicer
from dcamt.geometry import CUT_BY_REGION
from DCAMTSegmentationLib import review
from DCAMTSlicerLib.segment_surfaces import surface_name
from fake_worker import PanelCase
from scene_nodes import add_scan, draw_segment, segment_mask
from segmentation_case import SegmentationCase
from slicer_harness import Person, choose, click, process_events, scene_saved_and_closed


class RegionTest(PanelCase):
    def test_region_is_placed_around_a_result(self) -> None:
        volume = add_scan(shape=(60, 60, 60))
        segmentation = self.segment(volume)
        mask = np.zeros((60, 60, 60), np.uint8)
        mask[20:30, 25:40, 30:44] = 1
        draw_segment(segmentation, volume, mask)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        np.testing.assert_allclose(region.GetCenterWorld(), [-1.5 * 36.5, -1.5 * 32, 1.5 * 24.5], atol=1e-3)
        np.testing.assert_allclose(region.GetSize(), [1.5 * 14 + 40, 1.5 * 15 + 40, 1.5 * 10 + 40], atol=1e-3)

    def test_region_is_placed_at_the_centre_of_the_volume_if_the_result_has_no_labelmap(self) -> None:
        volume = add_scan(shape=(60, 60, 60))
        segmentation = self.segment(volume)
        segmentation.CreateClosedSurfaceRepresentation()
        segmentation.GetSegmentation().SetSourceRepresentationName(surface_name())
        segmentation.RemoveBinaryLabelmapRepresentation()
        click(self.ui.placeRegionButton)
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        centre = self.ui.regionSelector.currentNode().GetCenterWorld()
        np.testing.assert_allclose(centre, (bounds[::2] + bounds[1::2]) / 2, atol=1e-3)

    def test_region_of_size_0_is_refused(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
        region.SetSize(0.0, 0.0, 0.0)
        choose(self.ui.regionSelector, region)
        with Person() as person:
            person.expects("box: an edge of the region is 0 mm. Press “Place around the heart”", "Ok")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        click(self.ui.placeRegionButton)
        self.assertEqual(self.ui.regionSelector.currentNode(), region)
        click(self.ui.applyButton)
        self.wait()
        (request,) = self.module.worker.requests
        self.assertIsNotNone(request.region)

    def test_region_cannot_be_placed_in_a_volume_without_an_image(self) -> None:
        choose(self.ui.inputSelector, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
        with Person() as person:
            person.expects("empty: holds no image", "Ok")
            click(self.ui.placeRegionButton)
        self.assertIsNone(self.settings.region)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLMarkupsROINode"), [])

    def test_region_has_a_bright_colour_and_no_fill(self) -> None:
        choose(self.ui.inputSelector, add_scan())
        click(self.ui.placeRegionButton)
        added = self.ui.regionSelector.addNode()
        for region in (slicer.util.getNode("Heart region"), added):
            display = region.GetDisplayNode()
            self.assertFalse(display.GetFillVisibility())
            self.assertGreater(min(display.GetSelectedColor()[:2]), 0.8)

    def test_status_names_the_segmented_region(self) -> None:
        self.segment(add_scan())
        self.assertNotIn("region", self.ui.statusLabel.text)
        click(self.ui.placeRegionButton)
        self.segment(add_scan("another patient"))
        self.assertIn("Only the region “Heart region” was segmented.", self.ui.statusLabel.text)

    def test_note_is_shown_if_the_region_was_placed_on_another_scan(self) -> None:
        def is_noted() -> bool:
            return "belongs to another scan than “Bernd”" in self.ui.regionNoteLabel.text

        anna, bernd = add_scan("Anna"), add_scan("Bernd", seed=5)
        choose(self.ui.inputSelector, anna)
        click(self.ui.placeRegionButton)
        self.assertEqual(self.ui.regionNoteLabel.text, "")
        choose(self.ui.inputSelector, bernd)
        self.assertTrue(is_noted())
        choose(self.ui.inputSelector, anna)
        self.assertEqual(self.ui.regionNoteLabel.text, "")
        choose(self.ui.inputSelector, bernd)
        slicer.mrmlScene.RemoveNode(anna)
        self.assertTrue(is_noted())
        with scene_saved_and_closed():
            self.assertEqual(self.ui.regionNoteLabel.text, "")
        process_events()
        self.assertTrue(is_noted())
        click(self.ui.placeRegionButton)
        self.assertEqual(self.ui.regionNoteLabel.text, "")
        choose(self.ui.regionSelector, None)
        choose(self.ui.inputSelector, add_scan("Clara", seed=6))
        self.assertEqual(self.ui.regionNoteLabel.text, "")

    def test_region_has_no_note_for_a_clone_of_the_scan(self) -> None:
        anna, clone = add_scan("Anna"), add_scan("Anna Copy")
        choose(self.ui.inputSelector, anna)
        choose(self.ui.regionSelector, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box"))
        choose(self.ui.inputSelector, clone)
        self.assertEqual(self.ui.regionNoteLabel.text, "")
        choose(self.ui.inputSelector, add_scan("Bernd", seed=5))
        self.assertIn("“box” belongs to another scan than “Bernd”", self.ui.regionNoteLabel.text)

    def test_moved_region_belongs_to_the_chosen_scan(self) -> None:
        def is_noted() -> bool:
            return bool(self.ui.regionNoteLabel.text)

        anna, bernd = add_scan("Anna"), add_scan("Bernd", seed=5)
        choose(self.ui.inputSelector, anna)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        turn = np.diag([0.0, 0, 1, 1])
        turn[0, 1], turn[1, 0], turn[:3, 3] = -1, 1, region.GetCenter()
        moves = (
            lambda: region.SetCenterWorld(-20.0, -20.0, 10.0),
            lambda: region.SetSizeWorld(14.0, 12.0, 10.0),
            lambda: region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn)),
        )
        for volume, other, move in zip((bernd, anna, bernd), (anna, bernd, anna), moves, strict=True):
            choose(self.ui.inputSelector, volume)
            self.assertTrue(is_noted())
            region.SetName(f"region on {volume.GetName()}")
            region.SetLocked(not region.GetLocked())
            self.assertTrue(is_noted())
            move()
            self.assertFalse(is_noted())
            choose(self.ui.inputSelector, other)
            self.assertTrue(is_noted())

    def test_region_that_is_moved_while_another_module_is_open_keeps_its_scan(self) -> None:
        choose(self.ui.inputSelector, add_scan("Anna"))
        click(self.ui.placeRegionButton)
        choose(self.ui.inputSelector, add_scan("Bernd", seed=5))
        self.module.panel.exit()
        self.ui.regionSelector.currentNode().SetCenterWorld(-20.0, -20.0, 10.0)
        self.module.panel.enter()
        self.assertIn("another scan than “Bernd”", self.ui.regionNoteLabel.text)

    def test_panel_names_the_region_of_a_result_until_the_whole_scan_is_segmented(self) -> None:
        def is_named() -> bool:
            return "Only the region “Anna's box” was segmented." in self.ui.trustLabel.text

        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertFalse(is_named())
        click(self.ui.placeRegionButton)
        self.ui.regionSelector.currentNode().SetName("Anna's box")
        self.assertIs(self.segment(volume), segmentation)
        self.assertTrue(is_named())
        slicer.mrmlScene.RemoveNode(self.ui.regionSelector.currentNode())
        with scene_saved_and_closed():
            self.assertFalse(is_named())
        process_events()
        self.assertTrue(is_named())
        (sent,) = [request.region for request in self.module.worker.requests if request.region is not None]
        self.assertEqual(review.region_of(self.settings.outputSegmentation), sent)
        self.segment(slicer.util.getNode("LGE"))
        self.assertFalse(is_named())

    def test_panel_says_that_the_region_cuts_the_outline_until_the_outline_is_corrected(self) -> None:
        def is_said() -> bool:
            return CUT_BY_REGION in self.ui.trustLabel.text

        volume = add_scan()
        choose(self.ui.inputSelector, volume)
        click(self.ui.placeRegionButton)
        self.module.worker.notes = (CUT_BY_REGION,)
        segmentation = self.segment(volume)
        self.assertTrue(is_said())
        mask = segment_mask(segmentation, volume)
        draw_segment(segmentation, volume, np.roll(mask, 1))
        self.module.enter()
        self.assertFalse(is_said())
        self.module.worker.notes = ()
        choose(self.ui.outputSelector, None)
        self.segment(volume)
        self.assertFalse(is_said())

    def test_panel_names_the_region_even_if_the_coordinates_cannot_be_read(self) -> None:
        segmentation = self.segment(add_scan())
        segmentation.SetAttribute("DCAMT.regionName", "box")
        too_large = json.dumps({"low": [10**400, 0, 0], "high": [1, 2, 3], "to_unit": None})
        texts = (None, "damaged", '{"later": 1}', "7", '{"low": "abc", "high": [1, 2, 3]}', too_large, "[" * 100_000)
        for text in texts:
            segmentation.SetAttribute("DCAMT.region", text)
            self.assertIsNone(review.region_of(segmentation))
            self.module.enter()
            self.assertIn("Only the region “box” was segmented.", self.ui.trustLabel.text)

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
        for point in ([1, 1, 1], [-1, 0.5, 0], [0, 0, -1]):  # in units of half the region's size
            world = to_world @ [*(np.array(point) * half), 1.0]
            np.testing.assert_allclose((to_unit @ world)[:3], point, atol=1e-9)


class WorkerRegionTest(SegmentationCase):
    def test_region_is_placed_and_limits_the_result(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        bounds, region_bounds = np.zeros(6), np.zeros(6)
        volume.GetRASBounds(bounds)
        region.GetRASBounds(region_bounds)
        np.testing.assert_allclose(region_bounds, bounds, atol=1e-6)
        middle = (bounds[::2] + bounds[1::2]) / 2
        region.SetSizeWorld(14.0, 12.0, 10.0)
        click(self.ui.applyButton)
        self.wait()
        k, j, i = np.nonzero(segment_mask(self.settings.outputSegmentation, volume))
        points = np.stack([-1.5 * i, -1.5 * j, 1.5 * k], axis=1)
        self.assertGreater(len(points), 0)
        self.assertTrue((abs(points - middle) <= np.array([7, 6, 5]) + 1e-3).all())

    def test_region_outside_the_volume_is_reported(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        click(self.ui.placeRegionButton)
        self.ui.regionSelector.currentNode().SetCenterWorld(500.0, 500.0, 500.0)
        with Person() as person:
            person.expects("LGE: the region of interest lies outside the scan. Move the region onto the scan", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertIsNone(self.settings.outputSegmentation)
