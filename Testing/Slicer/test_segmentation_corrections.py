"""Edits of a result are noticed, and an edited result is replaced only after a question."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.models.calibration import ExpectedOverlap
from DCAMTSegmentationLib import correction_marks, result_insertion, training_cases
from DCAMTSegmentationLib.result_nodes import find_results
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from fake_worker import FakeWorker, PanelCase
from made_results import block
from scene_nodes import add_outline, add_scan, draw_segment, segment_mask
from slicer_harness import Person, choose, click
from unchanged_scene import fail_after


class UndoTest(PanelCase):
    def test_undo_and_redo_are_noticed_when_the_panel_is_entered(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertFalse(correction_marks.is_outdated(segmentation))
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentation)
        if not hasattr(editor, "saveStateForUndo"):
            self.skipTest("this Segment Editor offers no method that stores a state for undo")
        editor.saveStateForUndo()
        draw_segment(segmentation, volume, block(4))
        self.assertTrue(correction_marks.is_outdated(segmentation))
        correction_marks.mark_measured(segmentation, fingerprint(segmentation), correction_marks.axes_of(segmentation))
        self.module.panel.exit()
        editor.undo()
        self.module.panel.enter()
        # The measurement included the block, and undo removed the block.
        self.assertIn("changed since the measurement", self.ui.trustLabel.text)
        self.assertFalse(correction_marks.is_corrected(segmentation))
        self.module.panel.exit()
        editor.redo()
        self.module.panel.enter()
        self.assertNotIn("changed since the measurement", self.ui.trustLabel.text)
        self.assertTrue(correction_marks.is_corrected(segmentation))


class TrustTest(PanelCase):
    def test_trust_label_mentions_the_correction(self) -> None:
        text = "These values describe the outline before its correction."
        for expected in (None, ExpectedOverlap(0.9, 0.87, 0.93)):
            self.open(FakeWorker(expected=expected))
            volume = add_scan()
            segmentation = self.segment(volume)
            self.assertNotIn(text, self.ui.trustLabel.text)
            draw_segment(segmentation, volume, block(4))
            self.assertIn(text, self.ui.trustLabel.text)
            click(self.ui.measureButton)
            self.wait()
            self.assertIn(text, self.ui.trustLabel.text)


class HardenedTransformTest(PanelCase):
    def test_measurements_are_outdated_after_a_scaling_transform_was_hardened(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "transform")
        moved, scaled = np.eye(4), np.diag([10.0, 10.0, 10.0, 1.0])  # from cm to mm
        moved[:3, 3] = (5, -3, 40)
        for matrix, is_outdated in ((moved, False), (scaled, True)):
            self.module.panel.exit()
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
            for node in (segmentation, volume):
                node.SetAndObserveTransformNodeID(transform.GetID())
                node.HardenTransform()
            self.module.panel.enter()
            self.assertEqual(correction_marks.is_outdated(segmentation), is_outdated)
            self.assertFalse(correction_marks.is_corrected(segmentation))
        self.assertIn("measure again", self.ui.trustLabel.text)
        correction_marks.mark_measured(segmentation, fingerprint(segmentation), correction_marks.axes_of(segmentation))
        self.module.panel.enter()
        self.assertNotIn("measure again", self.ui.trustLabel.text)

    def test_result_must_be_measured_again_if_the_scan_has_a_scaling_transform(self) -> None:
        shift, scaling = np.eye(4), np.diag([1.1, 1.05, 1.08, 1.0])
        shift[:3, 3] = (5, -3, 40)
        slight_scaling = np.diag([1.002, 1.0, 1.0, 1.0])
        for matrix, is_scaled in ((shift, False), (scaling, True), (slight_scaling, True)):
            volume = add_scan()
            segmentation = add_outline(volume, block(8))
            transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
            volume.SetAndObserveTransformNodeID(transform.GetID())
            self.prepare(volume)
            choose(self.ui.outputSelector, segmentation)
            with Person() as person:
                person.expects("3D Slicer resamples DCAMT's segments", "Ok")
                self.assertIs(self.segment(volume), segmentation)
            before = float(self.logic.measurements(segmentation)[0]["volume_ml"])
            self.assertEqual("measure again" in self.ui.trustLabel.text, is_scaled)
            click(self.ui.measureButton)
            self.wait()
            after = float(self.logic.measurements(segmentation)[0]["volume_ml"])
            self.assertAlmostEqual(after, before * np.linalg.det(matrix), delta=0.01)
            self.assertNotIn("measure again", self.ui.trustLabel.text)
            self.assertFalse(correction_marks.is_corrected(segmentation))


class ReplacementCase(PanelCase):
    def check_question_before_replacement(
        self, segmentation: SegmentationNode, volume: VolumeNode, corrected: np.ndarray, question: str
    ) -> None:
        with Person() as person:
            person.expects(question, "Cancel")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        np.testing.assert_array_equal(segment_mask(segmentation, volume), corrected)
        with Person() as person:
            person.expects(question, "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertTrue((segment_mask(segmentation, volume) != corrected).any())


class CorrectionTest(ReplacementCase):
    def test_corrected_result_is_replaced_only_after_a_question(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.module.leave()
        corrected = paint(segmentation, volume)
        self.module.enter()
        self.check_question_before_replacement(segmentation, volume, corrected, "was edited")

    def test_edit_outside_the_module_is_noticed_but_hiding_and_showing_the_surface_is_no_edit(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.ui.show3DCheckBox.click()
        self.ui.show3DCheckBox.click()
        self.assertFalse(correction_marks.is_corrected(segmentation))
        self.assertNotIn("correction", self.ui.trustLabel.text)
        self.module.leave()
        draw_segment(segmentation, volume, block(4))
        self.assertTrue(correction_marks.is_corrected(segmentation))
        self.module.enter()
        self.assertIn("changed since the measurement", self.ui.trustLabel.text)

    def test_edit_made_while_another_result_was_chosen_is_noticed(self) -> None:
        volume, other = add_scan(), add_scan("CT", seed=5)
        segmentation, untouched = self.segment(volume), self.segment(other)
        mask = segment_mask(segmentation, volume).copy()
        inside = np.argwhere(mask)[np.count_nonzero(mask) // 2]
        mask[tuple(inside)] = 0  # removing this voxel does not change the segment's extent
        draw_segment(segmentation, volume, mask)
        self.ui.inputSelector.setCurrentNode(volume)
        self.assertEqual(self.ui.outputSelector.currentNode(), segmentation)
        self.assertTrue(correction_marks.is_corrected(segmentation))
        self.assertIn("changed since the measurement", self.ui.trustLabel.text)
        click(self.ui.measureButton)
        self.wait()
        self.ui.inputSelector.setCurrentNode(other)
        self.assertFalse(correction_marks.is_corrected(untouched))
        self.ui.inputSelector.setCurrentNode(volume)
        self.assertNotIn("changed since the measurement", self.ui.trustLabel.text)
        self.assertTrue(correction_marks.is_corrected(segmentation))


def paint(segmentation: SegmentationNode, volume: VolumeNode) -> np.ndarray:
    """Replace the first segment's mask; return the new mask (K, J, I)."""
    mask = np.zeros((16, 20, 24), np.uint8)
    mask[4:9, 5:12, 6:15] = 1
    draw_segment(segmentation, volume, mask)
    return mask


class UnknownHistoryTest(ReplacementCase):
    def copy_of_result(self, volume: VolumeNode) -> SegmentationNode:
        """Return a node with a result's segment and tags, but without DCAMT's attributes, as if loaded from a file."""
        result = self.segment(volume)
        loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "from file")
        loaded.CreateDefaultDisplayNodes()
        loaded.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        identifier = result.GetSegmentation().GetNthSegmentID(0)
        loaded.GetSegmentation().CopySegmentFromSegmentation(result.GetSegmentation(), identifier)
        slicer.mrmlScene.RemoveNode(result)
        return loaded

    def test_segments_loaded_from_a_file_are_replaced_only_after_a_question(self) -> None:
        volume = add_scan()
        loaded = self.copy_of_result(volume)
        corrected = paint(loaded, volume)
        choose(self.ui.outputSelector, loaded)
        self.check_question_before_replacement(loaded, volume, corrected, "may have been edited")
        self.segment(volume)  # DCAMT asks no question, because the node now has DCAMT's attributes.


class ReplacedTrainingCaseTest(ReplacementCase):
    def test_replaced_training_case_is_no_training_case_any_more(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        corrected = paint(segmentation, volume)
        click(self.ui.trainingCaseButton)
        self.assertNotIn("not corrected", self.ui.trainingCaseLabel.text)
        self.check_question_before_replacement(segmentation, volume, corrected, "no longer be a training case")
        self.assertEqual(training_cases.scene_cases(), [])
        self.assertEqual(self.ui.trainingCaseLabel.text, "")
        self.segment(volume)  # DCAMT asks no question, because the result is unchanged.

    def test_uncorrected_training_case_is_replaced_only_after_a_question(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        click(self.ui.trainingCaseButton)
        self.assertIn("The result was not corrected. Check it", self.ui.trainingCaseLabel.text)
        with Person() as person:
            person.expects("no longer be a training case", "Cancel")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        self.assertTrue(training_cases.is_case(segmentation))

    def test_training_case_is_restored_if_the_insertion_fails(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        click(self.ui.trainingCaseButton)
        with fail_after(training_cases, "remove_case"), Person() as person:
            person.expects("no longer be a training case", "Ok")
            person.expects("memory", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertTrue(training_cases.is_case(segmentation))


class EditedMeanwhileTest(PanelCase):
    def test_new_node_gets_the_result_if_the_output_became_a_training_case_meanwhile(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        before = segment_mask(segmentation, volume)
        self.module.worker.before_answer = lambda: click(self.ui.trainingCaseButton)
        click(self.ui.applyButton)
        self.wait()
        self.check_new_result_beside(segmentation, volume, before)
        self.assertTrue(training_cases.is_case(segmentation))

    def check_new_result_beside(self, segmentation: Any, volume: Any, corrected: np.ndarray) -> None:
        np.testing.assert_array_equal(segment_mask(segmentation, volume), corrected)
        (result,) = [node for node in find_results() if node is not segmentation]
        self.assertEqual(self.settings.outputSegmentation, result)
        reason = "“LGE segmentation” was edited or became a training case during the computation"
        self.assertIn(f"The result is in “{result.GetName()}”, since {reason}.", self.ui.statusLabel.text)

    def test_new_node_gets_the_result_if_the_output_was_edited_during_the_computation(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        corrected: list[np.ndarray] = []
        self.module.worker.before_answer = lambda: corrected.append(paint(segmentation, volume))
        click(self.ui.applyButton)
        self.wait()
        self.check_new_result_beside(segmentation, volume, corrected[0])

    def test_new_node_gets_the_result_if_the_output_was_edited_during_the_insertion(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        corrected: list[np.ndarray] = []
        build_segment = result_insertion.build_segment

        def edit(*arguments: Any) -> Any:
            if not corrected:
                corrected.append(paint(segmentation, volume))
            return build_segment(*arguments)

        with mock.patch.object(result_insertion, "build_segment", edit):
            click(self.ui.applyButton)
            self.wait()
        self.check_new_result_beside(segmentation, volume, corrected[0])
