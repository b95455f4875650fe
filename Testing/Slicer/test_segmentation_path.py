"""The panel, operated as a person does: choose, segment, review, correct, export, and add training cases."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import slicer
from dcamt.metrics.doubtful_places import DoubtfulPlace
from DCAMTSegmentationLib import review
from DCAMTSegmentationLib.training_cases import scene_cases
from segmentation_case import Person, SegmentationCase, add_scan, choose, click, model_folder, segment_mask


class WholeWorkflowTest(SegmentationCase):
    def test_volume_is_segmented_corrected_and_added_as_a_training_case(self) -> None:
        volume = add_scan()
        self.assertFalse(self.ui.nextPlaceButton.enabled)
        segmentation = self.segment(volume)

        self.assertEqual(segmentation.GetName(), "LGE segmentation")
        self.assertEqual(self.ui.outputSelector.currentNode(), segmentation)
        mask = segment_mask(segmentation, volume)
        self.assertGreater(int(mask.sum()), 50)

        row = self.logic.measurements(segmentation)[0]
        voxel_ml = float(np.prod(volume.GetSpacing())) / 1000
        self.assertAlmostEqual(float(row["volume_ml"]), mask.sum() * voxel_ml, delta=0.006)
        table = self.ui.measurementsTable
        self.assertEqual(table.mrmlTableNode().GetName(), "LGE measurements")
        # One measurement per row, because columns for all measurements would be too wide for the panel.
        self.assertTrue(table.transposed)
        self.assertIn(f"LGE: Left atrium {mask.sum() * voxel_ml:.1f} mL", self.ui.resultLabel.text)
        self.assertEqual(self.ui.statusLabel.text, "LGE was segmented with Tiny.")

        self.assertIn("agree to", self.ui.trustLabel.text)
        places = self.logic.doubtfulPlaces(segmentation)
        self.assertGreater(len(places), 0)
        click(self.ui.nextPlaceButton)
        self.assertIn(f"1 of {len(places)}", self.ui.placeLabel.text)

        click(self.ui.correctButton)
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        self.assertEqual(editor.segmentationNode(), segmentation)
        self.assertEqual(editor.sourceVolumeNode(), volume)
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        self.assertEqual(editor.currentSegmentID(), identifier)
        corrected = np.zeros_like(mask)
        corrected[4:9, 5:12, 6:15] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, segmentation, identifier, volume)

        self.module.enter()
        self.assertIn("before the correction", self.ui.trustLabel.text)
        click(self.ui.measureButton)
        self.wait()
        self.assertNotIn("before the correction", self.ui.trustLabel.text)
        again = self.logic.measurements(segmentation)[0]
        self.assertEqual((again["scan"], again["segment"]), ("LGE", "Left atrium"))
        self.assertAlmostEqual(float(again["volume_ml"]), 5 * 7 * 9 * voxel_ml, delta=0.006)
        self.assertAlmostEqual(float(again["transverse_diameter_mm"]), 9 * 1.5, delta=0.01)
        self.assertAlmostEqual(float(again["anteroposterior_diameter_mm"]), 7 * 1.5, delta=0.01)
        click(self.ui.teachButton)
        self.assertIn("LGE with this segmentation is a training case now", self.ui.teachLabel.text)
        (case,) = scene_cases()
        self.assertEqual((case.volume, case.segmentation), (volume, segmentation))
        np.testing.assert_array_equal(segment_mask(case.segmentation, volume), corrected)

    def test_fast_quality_states_that_it_measures_no_agreement(self) -> None:
        volume = add_scan()
        choose(self.ui.qualityComboBox, "Fast: one branch")
        segmentation = self.segment(volume)
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)
        self.assertIsNone(self.logic.trust(segmentation))
        self.assertIn("one branch", self.ui.trustLabel.text)
        self.assertFalse(self.ui.nextPlaceButton.enabled)
        self.assertFalse(self.ui.doubtCheckBox.enabled)

    def test_corrected_result_is_replaced_only_after_a_question(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        click(self.ui.correctButton)
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        corrected = np.zeros_like(segment_mask(segmentation, volume))
        corrected[4:9, 5:12, 6:15] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, segmentation, identifier, volume)
        self.module.enter()
        with Person() as person:
            person.expects("was edited", "Cancel")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        np.testing.assert_array_equal(segment_mask(segmentation, volume), corrected)
        with Person() as person:
            person.expects("was edited", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertTrue((segment_mask(segmentation, volume) != corrected).any())


class ChoicesTest(SegmentationCase):
    def test_choices_are_kept_when_the_module_is_left_and_entered(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        choose(self.ui.qualityComboBox, "Fast: one branch")
        choose(self.ui.deviceComboBox, "CPU")
        self.ui.show3DCheckBox.click()
        for _turn in range(2):
            self.module.leave()
            self.module.enter()
            self.assertEqual(self.ui.qualityComboBox.currentText, "Fast: one branch")
            self.assertEqual(self.ui.deviceComboBox.currentText, "CPU")
            self.assertEqual(self.ui.modelComboBox.currentText, "Tiny")
            self.assertEqual(self.ui.inputSelector.currentNode(), volume)
            self.assertFalse(self.ui.show3DCheckBox.checked)
            self.assertEqual(self.settings.quality.value, "fast")


class ReviewTest(SegmentationCase):
    def test_measurements_are_copied_in_a_format_for_spreadsheets(self) -> None:
        segmentation = self.segment(add_scan())
        click(self.ui.copyButton)
        head, row = slicer.app.clipboard().text().splitlines()
        self.assertEqual(head.split("\t")[:3], ["Scan", "Segment", "Volume (mL)"])
        values = row.split("\t")
        self.assertEqual(values[:2], ["LGE", "Left atrium"])
        self.assertEqual(values[2], self.logic.measurements(segmentation)[0]["volume_ml"])
        self.assertEqual(len(values), 8)

    def test_measurements_are_exported(self) -> None:
        segmentation = self.segment(add_scan())
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            path = Path(folder, "atrium.csv")
            person.expects("Export measurements", str(path))
            click(self.ui.exportButton)
            lines = path.read_text(encoding="utf-8").splitlines()
        self.assertTrue(lines[0].startswith("scan,segment,volume_ml,surface_cm2,long_diameter_mm"))
        self.assertEqual(lines[1].split(","), list(self.logic.measurements(segmentation)[0].values()))

    def test_failed_export_is_reported_with_the_reason(self) -> None:
        self.segment(add_scan())
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            person.expects("Export measurements", str(Path(folder)))
            person.expects("is a folder", "Ok")
            click(self.ui.exportButton)
        self.assertEqual(len(person.errors()), 1)

    def test_every_kind_of_edit_is_noticed(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.ui.show3DCheckBox.click()
        self.ui.show3DCheckBox.click()
        self.assertFalse(review.is_corrected(segmentation))  # creating its surface is not an edit
        self.assertNotIn("correction", self.ui.trustLabel.text)
        self.module.leave()
        mask = np.zeros_like(segment_mask(segmentation, volume))
        mask[4:8, 4:8, 4:8] = 1
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
        self.assertTrue(review.is_corrected(segmentation))
        self.module.enter()
        self.assertIn("before the correction", self.ui.trustLabel.text)

    def test_edit_made_while_another_result_was_chosen_is_noticed(self) -> None:
        volume, other = add_scan(), add_scan("CT", seed=5)
        segmentation, untouched = self.segment(volume), self.segment(other)
        mask = segment_mask(segmentation, volume).copy()
        mask[tuple(np.argwhere(mask)[0])] = 0  # one voxel that does not change the segment's extent
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
        self.ui.inputSelector.setCurrentNode(volume)
        self.assertEqual(self.ui.outputSelector.currentNode(), segmentation)
        self.assertTrue(review.is_corrected(segmentation))
        self.assertIn("before the correction", self.ui.trustLabel.text)
        click(self.ui.measureButton)
        self.wait()
        self.ui.inputSelector.setCurrentNode(other)
        self.assertFalse(review.is_corrected(untouched))
        self.ui.inputSelector.setCurrentNode(volume)
        self.assertNotIn("before the correction", self.ui.trustLabel.text)  # it was measured after the correction
        self.assertTrue(review.is_corrected(segmentation))

    def test_export_is_disabled_when_the_table_was_deleted(self) -> None:
        self.segment(add_scan())
        self.assertTrue(self.ui.exportButton.enabled)
        slicer.mrmlScene.RemoveNode(slicer.util.getNode("LGE measurements"))
        self.assertFalse(self.ui.exportButton.enabled)
        self.assertFalse(self.ui.copyButton.enabled)
        self.assertFalse(self.ui.measureButton.enabled)
        slicer.mrmlScene.RemoveNode(slicer.util.getNode("LGE doubt"))
        self.assertFalse(self.ui.doubtCheckBox.enabled)

    def test_nothing_is_exported_when_no_file_is_chosen(self) -> None:
        self.segment(add_scan())
        with Person() as person:
            person.expects("Export measurements", "")
            click(self.ui.exportButton)

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
                self.assertAlmostEqual(x, width / 2, delta=1)  # and at its centre
                self.assertAlmostEqual(y, height / 2, delta=1)
        self.assertEqual(self.ui.placeLabel.text, "1 of 3: 0.50 mL in doubt")

    def test_map_of_doubt_is_shown_over_the_slices_and_hidden_again(self) -> None:
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

    def test_map_of_doubt_has_the_grid_of_the_volume_and_is_high_at_doubtful_places(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        map_node = slicer.util.getNode("LGE doubt")
        values = slicer.util.arrayFromVolume(map_node)
        self.assertEqual(values.shape, slicer.util.arrayFromVolume(volume).shape)
        to_ijk = np.linalg.inv(np.diag([-1.5, -1.5, 1.5, 1.0]))
        for place in self.logic.doubtfulPlaces(segmentation):
            i, j, k = np.rint(to_ijk[:3] @ [*place.position, 1]).astype(int)
            self.assertGreaterEqual(values[k, j, i], 50)  # percent

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


class ModelListTest(SegmentationCase):
    def titles(self) -> list[str]:
        return [self.ui.modelComboBox.itemText(index) for index in range(self.ui.modelComboBox.count)]

    def test_shipped_model_is_listed_first_and_described_by_its_tooltip(self) -> None:
        self.assertEqual(self.titles(), ["Left atrium in LGE-MRI", "Tiny"])
        self.assertEqual(self.ui.modelComboBox.currentText, "Left atrium in LGE-MRI")
        for text in ("Segments: Left atrium", "LGE-MRI", "Dice 0.92 (accurate)", "never seen in training"):
            self.assertIn(text, self.ui.modelComboBox.toolTip)
        self.assertFalse(self.ui.removeModelButton.enabled)  # the shipped model cannot be removed

    def test_model_is_imported_chosen_and_removed(self) -> None:
        with Person() as person:
            person.expects("Import a model", str(model_folder() / "other.dcamt"))
            click(self.ui.importModelButton)
        self.assertIn("Other", self.titles())
        self.assertEqual(self.ui.modelComboBox.currentText, "Other")
        self.assertEqual(self.settings.model, "other")
        self.assertTrue((self.home / "models" / "other.dcamt").exists())
        with Person() as person:
            person.expects("Delete the model", "Cancel")
            click(self.ui.removeModelButton)
        self.assertIn("Other", self.titles())
        with Person() as person:
            person.expects("Delete the model", "Ok")
            click(self.ui.removeModelButton)
        self.assertNotIn("Other", self.titles())
        self.assertFalse((self.home / "models" / "other.dcamt").exists())
        self.assertEqual(self.settings.model, "left-atrium")

    def test_status_is_cleared_when_another_model_is_chosen(self) -> None:
        self.ui.statusLabel.text = "LGE was segmented with Left atrium in LGE-MRI."
        choose(self.ui.modelComboBox, "Tiny")
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_file_that_is_not_a_model_is_refused(self) -> None:
        bad = self.home / "bad.dcamt"
        bad.write_bytes(b"no model")
        with Person() as person:
            person.expects("Import a model", str(bad))
            person.expects("bad.dcamt", "Ok")
            click(self.ui.importModelButton)
        self.assertEqual(len(person.errors()), 1)
        self.assertEqual(len(self.titles()), 2)

    def test_second_model_with_the_same_name_is_refused(self) -> None:
        with Person() as person:
            person.expects("Import a model", str(model_folder() / "tiny.dcamt"))
            person.expects("in the list already", "Ok")
            click(self.ui.importModelButton)
        self.assertEqual(len(person.errors()), 1)

    def test_missing_model_is_shown_and_reported(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        (self.home / "models" / "tiny.dcamt").unlink()
        self.module.leave()
        self.module.enter()
        self.assertEqual(self.ui.modelComboBox.currentText, "tiny (missing)")
        with Person() as person:
            person.expects("no such model file", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertIsNone(self.settings.outputSegmentation)


class RegionTest(SegmentationCase):
    def test_region_is_placed_and_limits_the_result(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        bounds, own = np.zeros(6), np.zeros(6)
        volume.GetRASBounds(bounds)
        region.GetRASBounds(own)
        np.testing.assert_allclose(own, bounds, atol=1e-6)  # the volume is smaller than the default region
        middle = (bounds[::2] + bounds[1::2]) / 2
        region.SetSizeWorld(14.0, 12.0, 10.0)
        click(self.ui.applyButton)
        self.wait()
        k, j, i = np.nonzero(segment_mask(self.settings.outputSegmentation, volume))
        points = np.stack([-1.5 * i, -1.5 * j, 1.5 * k], axis=1)
        self.assertGreater(len(points), 0)
        self.assertTrue((abs(points - middle) <= np.array([7, 6, 5]) + 1e-3).all())

    def test_region_is_placed_around_a_result(self) -> None:
        volume = add_scan(shape=(60, 60, 60))
        segmentation = self.segment(volume)
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        mask = np.zeros((60, 60, 60), np.uint8)
        mask[20:30, 25:40, 30:44] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        np.testing.assert_allclose(region.GetCenterWorld(), [-1.5 * 36.5, -1.5 * 32, 1.5 * 24.5], atol=1e-3)
        np.testing.assert_allclose(region.GetSize(), [1.5 * 14 + 40, 1.5 * 15 + 40, 1.5 * 10 + 40], atol=1e-3)

    def test_region_outside_the_volume_is_reported(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        click(self.ui.placeRegionButton)
        self.ui.regionSelector.currentNode().SetCenterWorld(500.0, 500.0, 500.0)
        with Person() as person:
            person.expects("outside the scan", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertIsNone(self.settings.outputSegmentation)

    def test_region_without_a_position_is_reported_and_then_placed(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
        region.SetSize(0.0, 0.0, 0.0)
        choose(self.ui.regionSelector, region)
        with Person() as person:
            person.expects("box: one of its edges is 0 mm. Press Place around the heart", "Ok")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        click(self.ui.placeRegionButton)
        self.assertEqual(self.ui.regionSelector.currentNode(), region)
        click(self.ui.applyButton)
        self.wait()
        self.assertGreater(int(segment_mask(self.settings.outputSegmentation, volume).sum()), 0)
