"""The task of a run: classes, suggested recipe, model to start from; estimates of time, memory and disk space."""

from __future__ import annotations

import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import slicer
from dcamt.cases.case_list import LABELLED, VALIDATION
from dcamt.errors import InputError
from dcamt.recipe import load_recipe
from DCAMTTrainingLib import measurement as measurement_module
from DCAMTTrainingLib import session as session_module
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.task import classes_from_json, continued_recipe, suggested_recipe
from slicer_harness import (
    LoopMonitor,
    assert_stays_responsive,
    choose,
    click,
)
from training_case import TrainingCase
from training_scenes import add_case, add_volume, ellipsoid


class TaskTest(TrainingCase):
    def test_user_defined_classes_have_names_colours_and_terminology(self) -> None:
        self.assertFalse(self.ui.ownClassesWidget.visible)
        choose(self.ui.taskSelector, "My own classes, in MRI")
        self.assertFalse(self.ui.ownClassesWidget.isHidden())
        click(self.ui.addClassButton)
        table = self.ui.classesTable
        self.assertEqual(table.rowCount, 2)
        table.item(0, 0).setText("Scar")
        table.item(0, 1).setText("#ff0000")
        table.item(1, 0).setText("Wall")
        table.item(1, 2).setText("SCT 39607008 Lung")
        recipe = self.session.recipe()
        self.assertEqual([info.name for info in recipe.classes], ["Scar", "Wall"])
        self.assertEqual(recipe.classes[0].color, (1.0, 0.0, 0.0))
        code = recipe.classes[1].type
        self.assertEqual((code.scheme, code.value, code.meaning), ("SCT", "39607008", "Lung"))
        self.assertEqual(len(classes_from_json(self.session.settings.ownClasses)), 2)
        table.item(1, 0).setText("scar")
        self.assertIn("two classes have the same name", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        click(self.ui.removeClassButton)
        self.assertEqual([info.name for info in self.session.recipe().classes], ["Scar"])

    def test_recipe_is_suggested_from_scene_cases_and_saved_with_the_scene(self) -> None:
        self.assertFalse(self.ui.suggestButton.enabled)
        add_case("scan", 1)
        add_volume("plain", ellipsoid(2)[0])
        click(self.ui.addSceneButton)
        self.assertTrue(self.ui.suggestButton.enabled)
        click(self.ui.suggestButton)
        self.assertEqual(self.ui.suggestButton.text, "Cancel")
        self.wait_for(lambda: self.ui.suggestButton.text != "Cancel", "the suggestion")
        self.assertEqual(self.ui.taskSelector.currentText, "Suggested from the cases", self.ui.suggestionLabel.text)
        recipe = self.session.recipe()
        # The scan has voxels of 2 mm; the label has the class of the recipe chosen before.
        self.assertEqual(recipe.spacing, (2.0, 2.0, 2.0))
        self.assertEqual([info.name for info in recipe.classes], [info.name for info in load_recipe("la").classes])
        self.assertIn("2×2×2 mm", self.ui.suggestionLabel.text)
        self.assertEqual(list(Path(slicer.app.temporaryPath).glob("dcamt-suggestion-*")), [])
        saved = slicer.mrmlScene.GetSingletonNode("DCAMTTraining", "vtkMRMLScriptedModuleNode")
        self.assertEqual(suggested_recipe(saved.GetParameter("suggestedRecipe")), recipe)
        choose(self.ui.taskSelector, "Left atrium in LGE-MRI")
        self.assertNotEqual(self.session.recipe().spacing, recipe.spacing)

    def test_failed_suggestion_is_reported_with_the_reason(self) -> None:
        label = self.folder / "broken.nrrd"
        label.write_text("not an image", encoding="utf-8")
        scan = FileScan(str(label), str(label))
        self.session.table.add([CaseRow("broken", scan, "labelled")])
        click(self.ui.suggestButton)
        self.wait_for(lambda: self.ui.suggestButton.text != "Cancel", "the failure")
        self.assertIn("broken.nrrd", self.ui.suggestionLabel.text)
        self.assertEqual(self.session.settings.task, "la")

    def test_missing_suggested_recipe_is_reported_with_what_to_click(self) -> None:
        choose(self.ui.taskSelector, "Suggested from the cases")
        self.assertIn("Press Suggest from cases", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_class_missing_from_all_labels_is_reported_before_the_start(self) -> None:
        add_case("scan", 1)
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        self.ui.classesTable.item(0, 0).setText("Left atrium")
        self.ui.classesTable.item(1, 0).setText("Aorta")
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertIn("No labelled case contains “Aorta” (label 2)", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_training_cannot_start_from_a_model_with_a_different_number_of_classes(self) -> None:
        self.choose_tiny_model_and_settings()
        self.assertEqual(self.session.recipe().network.channels, (4, 8, 8))
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        self.assertIn("segments 1 class(es), but the task has 2", self.ui.problemsLabel.text)
        choose(self.ui.startFromSelector, "Scratch (random weights)")
        self.assertEqual(self.session.settings.startFrom, "")

    def test_training_cannot_start_from_a_model_with_a_different_number_of_channels(self) -> None:
        self.choose_tiny_model_and_settings()
        recipe = replace(self.session.recipe(), input_channels=2)
        with self.assertRaisesRegex(InputError, r"tiny: expects 1 channel\(s\) in each scan, but the task has 2"):
            continued_recipe("tiny", recipe)


class EstimateTest(TrainingCase):
    def test_time_and_memory_are_measured(self) -> None:
        add_case("one", 1)
        add_case("two", 2)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings(iterations="")
        choose(self.ui.effortSelector, "Quick try")
        self.assertIn("Measure", self.ui.estimateLabel.text)
        with LoopMonitor() as monitor:
            click(self.ui.measureButton)
            self.assertEqual(self.ui.measureButton.text, "Stop measuring")
            self.wait_for(lambda: self.ui.measureButton.text == "Measure", "the measurement")
        assert_stays_responsive(monitor.longest_work)
        self.assertRegex(self.ui.estimateLabel.text, r"About \d+ (s|min) on the CPU for 500 iterations, .* of memory")
        choose(self.ui.effortSelector, "Thorough")
        self.assertIn("Measure", self.ui.estimateLabel.text)
        click(self.ui.measureButton)
        self.assertEqual(len(self.measurement_folders()), 1)
        click(self.ui.measureButton)
        self.assertEqual(self.ui.measureButton.text, "Measure")
        self.assertEqual(self.measurement_folders(), [])  # removed, because they contain the cases' names

    def measurement_folders(self) -> list[Path]:
        return list(Path(slicer.app.temporaryPath).glob("dcamt-estimate-*"))

    def test_estimate_is_valid_only_for_its_start_model(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        self.set_estimate()
        self.assertIsNotNone(self.session.measurement.estimate())
        recipe = self.session.recipe()
        other = replace(recipe, network=replace(recipe.network, attention_heads=0))
        with mock.patch.object(session_module, "continued_recipe", return_value=other):
            self.session.settings.startFrom = "another model"
            self.assertIsNone(self.session.measurement.estimate())

    def test_estimate_is_valid_only_for_its_cases(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        self.set_estimate()
        self.session.table.set_role([0], VALIDATION)
        self.assertIsNone(self.session.measurement.estimate())
        self.session.table.set_role([0], LABELLED)
        self.assertIsNotNone(self.session.measurement.estimate())
        add_case("another", 2)
        click(self.ui.addSceneButton)
        self.assertIsNone(self.session.measurement.estimate())

    def test_estimate_is_valid_only_for_its_device(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        self.set_estimate(device="cuda")
        self.assertIn("on the GPU", self.ui.estimateLabel.text)
        choose(self.ui.deviceSelector, "CPU")
        self.assertIn("Press Measure to see", self.ui.estimateLabel.text)
        with mock.patch.object(measurement_module, "EngineCommand") as command:
            self.session.measurement.start(self.folder, self.session.device(), print)
        words = command.call_args.args[0]
        self.assertEqual(words[words.index("--device") + 1], "cpu")

    def test_lack_of_disk_space_or_memory_is_reported_before_the_start(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        self.set_estimate()
        self.assertTrue(self.ui.startButton.enabled)
        with mock.patch.object(measurement_module, "free_disk_bytes", return_value=5 * 10**6):
            self.session.notify_settings_changed()
            self.assertIn("Free some space, or choose another folder", self.ui.problemsLabel.text)
            self.assertFalse(self.ui.startButton.enabled)
        self.session.notify_settings_changed()  # now there is enough space, without another measurement
        self.assertTrue(self.ui.startButton.enabled)
        self.set_estimate(memory_free=5 * 10**7)
        self.assertIn("Choose a smaller patch or batch", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)


if __name__ == "__main__":
    unittest.main()
