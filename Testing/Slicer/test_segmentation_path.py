"""Use the panel as a person does."""

from __future__ import annotations

import numpy as np
import slicer
from DCAMTSegmentationLib.training_cases import scene_cases
from scene_nodes import add_scan, draw_segment, segment_mask
from segmentation_case import SegmentationCase
from slicer_harness import choose, click


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
        self.assertIn(f"LGE: Left atrium {row['volume_ml']} mL", self.ui.resultLabel.text)
        self.assertEqual(self.ui.statusLabel.text, "LGE was segmented with the model Tiny.")

        self.assertIn("Agreement of the branches", self.ui.trustLabel.text)
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
        draw_segment(segmentation, volume, corrected)

        self.module.enter()
        self.assertIn("changed since the measurement", self.ui.trustLabel.text)
        click(self.ui.measureButton)
        self.wait()
        self.assertNotIn("changed since the measurement", self.ui.trustLabel.text)
        again = self.logic.measurements(segmentation)[0]
        self.assertEqual((again["scan"], again["segment"]), ("LGE", "Left atrium"))
        self.assertAlmostEqual(float(again["volume_ml"]), 5 * 7 * 9 * voxel_ml, delta=0.006)
        self.assertAlmostEqual(float(again["transverse_diameter_mm"]), 9 * 1.5, delta=0.01)
        self.assertAlmostEqual(float(again["anteroposterior_diameter_mm"]), 7 * 1.5, delta=0.01)
        click(self.ui.trainingCaseButton)
        self.assertIn("LGE with this segmentation is a training case now", self.ui.trainingCaseLabel.text)
        (case,) = scene_cases()
        self.assertEqual((case.volume, case.segmentation), (volume, segmentation))
        np.testing.assert_array_equal(segment_mask(case.segmentation, volume), corrected)

    def test_result_of_fast_quality_has_neither_agreement_nor_doubt(self) -> None:
        volume = add_scan()
        choose(self.ui.qualityComboBox, "Fast: one branch")
        segmentation = self.segment(volume)
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)
        self.assertIsNone(self.logic.trust(segmentation))
        self.assertIn("need quality “Accurate”", self.ui.trustLabel.text)
        self.assertFalse(self.ui.nextPlaceButton.enabled)
        self.assertFalse(self.ui.doubtCheckBox.enabled)


class ChoicesTest(SegmentationCase):
    def test_choices_are_kept_when_the_module_is_left_and_entered_again(self) -> None:
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
