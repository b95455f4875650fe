"""The whole workflow: segment, correct, add as a case, train from the current model, segment with the new model."""

from __future__ import annotations

import slicer
from dcamt.runs.folder import RunFolder
from dcamt.runs.state import FINISHED, run_state
from dcamt_testing.analytic_scans import dice
from scene_nodes import add_case, add_volume, draw_segment, ellipsoid, segment_mask
from slicer_harness import choose, click, open_module, process_events_until
from training_case import TrainingCase


class LoopTest(TrainingCase):
    def test_model_trained_on_a_correction_segments_better(self) -> None:
        image, truth = ellipsoid(11)
        volume = add_volume("patient", image)
        unseen_image, unseen_truth = ellipsoid(12)
        unseen = add_volume("next patient", unseen_image)
        add_case("for validation", 13)
        self.choose_tiny_model_and_settings(iterations="60", learningRate="0.05")

        # Segment with the existing model, whose weights are random.
        segmentation_module = open_module("DCAMTSegmentation")
        self.addCleanup(segmentation_module.close)
        first = self.segment(segmentation_module, volume, "Tiny")
        before = dice(segment_mask(first, volume), truth)
        unseen_before = dice(segment_mask(self.segment(segmentation_module, unseen, "Tiny"), unseen), unseen_truth)

        # Correct the result in the scene, and add it to the training cases.
        draw_segment(first, volume, truth)
        choose(segmentation_module.ui.inputSelector, volume)
        choose(segmentation_module.ui.outputSelector, first)
        click(segmentation_module.ui.trainingCaseButton)

        # Train from the current model.
        slicer.util.selectModule("DCAMTTraining")
        click(self.ui.addResultsButton)
        self.assertEqual([row.name for row in self.session.table.rows], ["patient"])
        click(self.ui.addSceneButton)
        names = [row.name for row in self.session.table.rows]
        self.session.table.set_role([names.index("for validation")], "validation")
        self.session.table.set_role([names.index("next patient")], "unlabelled")
        self.measure()
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemsLabel.text)
        click(self.ui.startButton)
        run = RunFolder(self.runs / "run-1")
        self.wait_for(lambda: run_state(run).state == FINISHED, "the end of the run")
        self.wait_for(lambda: self.ui.useModelButton.enabled, "the run's model")
        self.assertEqual(run.read_origin().name, "tiny")

        click(self.ui.lossesButton)
        click(self.ui.scoresButton)
        charts = {node.GetName(): node for node in slicer.util.getNodesByClass("vtkMRMLPlotChartNode")}
        self.assertGreaterEqual(charts["run-1: losses"].GetNumberOfPlotSeriesNodes(), 4)
        self.assertEqual(charts["run-1: validation"].GetNumberOfPlotSeriesNodes(), 3)

        # Segment with the new model.
        click(self.ui.useModelButton)
        self.wait_for(lambda: "is in the list" in self.ui.resultsStatusLabel.text, "the import")
        segmentation_module.enter()
        self.assertTrue(segmentation_module.logic.getParameterNode().model.startswith("run-1_"))
        choose(segmentation_module.ui.outputSelector, None)
        again = dice(segment_mask(self.segment(segmentation_module, volume), volume), truth)
        choose(segmentation_module.ui.outputSelector, None)
        unseen_again = dice(segment_mask(self.segment(segmentation_module, unseen), unseen), unseen_truth)
        self.assertGreater(again, before + 0.2)
        self.assertGreater(unseen_again, unseen_before + 0.2)
        self.assertGreater(unseen_again, 0.7)

    def segment(self, module, volume, model: str = ""):
        """Segment a volume into a new segmentation node, with `model` if given; return the node."""
        choose(module.ui.inputSelector, volume)
        if model:
            choose(module.ui.modelComboBox, model)
        choose(module.ui.outputSelector, None)
        click(module.ui.applyButton)
        process_events_until(lambda: not module.logic.isRunning(), "the segmentation's end")
        segmentation = module.logic.getParameterNode().outputSegmentation
        self.assertIsNotNone(segmentation, module.ui.statusLabel.text)
        return segmentation
