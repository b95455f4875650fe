"""The task of a run: classes, suggested recipe, model to start from; estimates of time, memory and disk space."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION
from dcamt.errors import InputError
from dcamt.models.store import user_folder
from dcamt.recipe_files import load_recipe
from DCAMTSegmentationLib import training_cases
from DCAMTTrainingLib import estimation as estimation_module
from DCAMTTrainingLib import session as session_module
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.task import classes_from_json, parse_suggested_recipe, recipe_from_model
from scene_nodes import add_case, add_outline, add_volume, ellipsoid
from slicer_harness import LoopMonitor, Person, assert_stays_responsive, choose, click, close_scene
from training_case import TrainingCase


class TaskTest(TrainingCase):
    def name_two_classes(self) -> None:
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)  # the table starts with one class
        self.assertEqual(self.ui.classesTable.rowCount, 2)
        self.ui.classesTable.item(0, 0).setText("Scar")
        self.ui.classesTable.item(1, 0).setText("Wall")

    def test_user_defined_classes_have_names_colors_and_terminology(self) -> None:
        self.assertTrue(self.ui.ownClassesWidget.isHidden())
        self.name_two_classes()
        self.assertFalse(self.ui.ownClassesWidget.isHidden())
        self.ui.classesTable.item(0, 1).setText("#ff0000")
        self.ui.classesTable.item(1, 2).setText("SCT 39607008 Lung")
        recipe = self.session.recipe()
        self.assertEqual([info.name for info in recipe.classes], ["Scar", "Wall"])
        self.assertEqual(recipe.classes[0].color, (1.0, 0.0, 0.0))
        code = recipe.classes[1].type
        self.assertEqual((code.scheme, code.value, code.meaning), ("SCT", "39607008", "Lung"))

    def test_task_and_model_that_a_script_chooses_are_shown(self) -> None:
        settings = self.session.settings
        for task, title in (("pancreas", "Pancreas in contrast-enhanced CT"), ("own-mri", "My own classes, in MRI")):
            settings.task = task
            self.assertEqual(self.ui.taskSelector.currentText, title)
        self.assertFalse(self.ui.ownClassesWidget.isHidden())
        for model, title in (("gone", "gone (not in the list of models)"), ("", "Scratch (random weights)")):
            settings.startFrom = model
            self.assertEqual(self.ui.startFromSelector.currentText, title)
            self.assertEqual(settings.startFrom, model)

    def test_code_may_be_typed_with_commas(self) -> None:
        self.name_two_classes()
        self.ui.classesTable.item(0, 2).setText("SCT, 39607008, Lung, left")
        stored = classes_from_json(self.session.settings.ownClasses)
        self.assertEqual(stored[0].code, ("SCT", "39607008", "Lung, left"))

    def test_invalid_colour_or_code_of_a_class_is_not_accepted_and_the_reason_is_shown(self) -> None:
        self.name_two_classes()
        before = self.session.recipe().classes
        entries = (1, "reddish", "“reddish” is not a colour"), (2, "SCT 39607008", "“SCT 39607008” is not a code")
        for column, text, reason in entries:
            self.ui.classesTable.item(0, column).setText(text)
            self.assertIn(reason, self.ui.classMessageLabel.text)
            self.assertFalse(self.ui.classMessageLabel.isHidden())
            self.assertEqual(self.session.recipe().classes, before)
        self.ui.classesTable.item(0, 1).setText("red")
        self.assertEqual(self.ui.classMessageLabel.text, "")
        self.assertTrue(self.ui.classMessageLabel.isHidden())

    def test_user_defined_classes_are_stored_in_the_settings(self) -> None:
        self.name_two_classes()
        stored = classes_from_json(self.session.settings.ownClasses)
        self.assertEqual([user_class.name for user_class in stored], ["Scar", "Wall"])

    def test_damaged_class_keeps_its_place_and_the_others_stay(self) -> None:
        self.name_two_classes()
        click(self.ui.addClassButton)
        stored = json.loads(self.session.settings.ownClasses)
        good = stored[2]
        for damaged, name, message in (
            ({**stored[1], "color": [0.5, 300.0, 0.1]}, "Wall", "class 2 “Wall” (colour)"),
            ({**stored[1], "color": [float("nan")] * 3}, "Wall", "class 2 “Wall” (colour)"),
            ({**stored[1], "code": [1, 2, 3]}, "Wall", "class 2 “Wall” (code)"),
            ({**stored[1], "name": None}, "", "class 2 (name)"),
            ({"name": "Wall"}, "Wall", "class 2 “Wall” (colour, code)"),
            (7, "", "class 2 (name, colour, code)"),
        ):
            with self.subTest(damaged=damaged):
                self.session.settings.ownClasses = json.dumps([stored[0], damaged, good])
                self.module.widget.task.refresh()
                names = [self.ui.classesTable.item(row, 0).text() for row in range(self.ui.classesTable.rowCount)]
                self.assertEqual(names, ["Scar", name, good["name"]])
                self.assertIn(message, self.ui.classMessageLabel.text)
                self.assertFalse(self.ui.classMessageLabel.isHidden())
                self.session.check_cases()
                self.session.notify_settings_changed()
                self.assertEqual("each class needs a name" in self.ui.problemsLabel.text, not name)
        self.ui.classesTable.item(1, 0).setText("Wall")
        self.assertEqual([info.name for info in self.session.recipe().classes], ["Scar", "Wall", good["name"]])
        self.assertEqual(self.ui.classMessageLabel.text, "")

    def test_stored_classes_that_are_not_a_json_list_are_reported(self) -> None:
        choose(self.ui.taskSelector, "My own classes, in MRI")
        for text, is_damaged in (("", False), ("[]", False), ("x", True), ("{}", True), ("[" * 100000, True)):
            self.session.settings.ownClasses = text
            self.module.widget.task.refresh()
            self.assertEqual(self.ui.classesTable.rowCount, 0)
            self.assertEqual("all classes" in self.ui.classMessageLabel.text, is_damaged)

    def test_two_classes_with_the_same_name_are_reported_until_one_is_removed(self) -> None:
        self.name_two_classes()
        self.ui.classesTable.item(1, 0).setText("scar")
        self.assertIn("two classes have the same name", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        click(self.ui.removeClassButton)  # removes the last class
        self.assertEqual([info.name for info in self.session.recipe().classes], ["Scar"])
        self.assertNotIn("two classes have the same name", self.ui.problemsLabel.text)

    def test_recipe_is_suggested_from_scene_cases_and_stored_in_the_parameter_node(self) -> None:
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
        # The scans have voxels of 2 mm; the classes are those of the recipe `la`, the default task.
        self.assertEqual(recipe.spacing, (2.0, 2.0, 2.0))
        self.assertEqual([info.name for info in recipe.classes], [info.name for info in load_recipe("la").classes])
        self.assertIn("2×2×2 mm", self.ui.suggestionLabel.text)
        self.assertEqual(list(Path(slicer.app.temporaryPath).glob("dcamt-suggestion-*")), [])
        parameter_node = slicer.mrmlScene.GetSingletonNode("DCAMTTraining", "vtkMRMLScriptedModuleNode")
        self.assertEqual(parse_suggested_recipe(parameter_node.GetParameter("suggestedRecipe")), recipe)
        choose(self.ui.taskSelector, "Left atrium in LGE-MRI")
        self.assertNotEqual(self.session.recipe().spacing, recipe.spacing)

    def test_failed_suggestion_is_reported_with_the_reason(self) -> None:
        broken = self.folder / "broken.nrrd"
        broken.write_text("not an image", encoding="utf-8")
        scan = FileScan(str(broken), str(broken))
        self.session.table.add([CaseRow("broken", scan, "labelled")])
        click(self.ui.suggestButton)
        self.wait_for(lambda: self.ui.suggestButton.text != "Cancel", "the failure")
        self.assertIn("broken.nrrd", self.ui.suggestionLabel.text)
        self.assertEqual(self.session.settings.task, "la")

    def test_closing_the_scene_cancels_a_suggestion(self) -> None:
        broken = self.folder / "broken.nrrd"
        broken.write_text("not an image", encoding="utf-8")
        self.session.table.add([CaseRow("broken", FileScan(str(broken), str(broken)), "labelled")])
        click(self.ui.suggestButton)
        suggestion = self.module.widget.task._suggestion
        close_scene()
        self.assertFalse(suggestion.running)
        self.assertEqual((self.ui.suggestButton.text, self.ui.suggestionLabel.text), ("Suggest from cases", ""))

    def test_missing_suggested_recipe_is_reported_with_a_remedy(self) -> None:
        choose(self.ui.taskSelector, "Suggested from the cases")
        self.assertIn("Press Suggest from cases", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_segments_follow_the_classes_of_the_task(self) -> None:
        voxels, labels = ellipsoid(1)
        labels = np.where((labels == 0) & (np.roll(labels, 4, axis=2) > 0), 2, labels)
        names = [("Left atrium", "Pancreas"), ("Left atrium", "Aorta")]
        outlines = [add_outline(add_volume(f"scan{n}", voxels), labels, pair) for n, pair in enumerate(names)]
        click(self.ui.addSceneButton)

        def segments() -> list[list[str]]:
            parts = [outline.GetSegmentation() for outline in outlines]
            sources = [row.source.segments for row in self.session.table.rows]
            return [
                [part.GetSegment(name).GetName() for name, _label in pairs]
                for part, pairs in zip(parts, sources, strict=True)
            ]

        self.assertEqual(segments(), [["Left atrium"], ["Left atrium"]])
        choose(self.ui.taskSelector, load_recipe("pancreas").title)
        self.assertEqual(segments(), [["Pancreas"], []])
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual([bool(row.remark) for row in self.session.table.rows], [False, True])
        choose(self.ui.taskSelector, "My own classes, in CT")
        self.assertEqual(segments(), [[], []])
        name = self.ui.classesTable.item(0, 0)
        name.setText("Left atrium")
        self.assertEqual(segments(), [["Left atrium"], ["Left atrium"]])
        # No case has a segment “Atrium”, so the renamed class keeps its segments.
        self.ui.classesTable.item(0, 0).setText("Atrium")
        self.assertEqual(segments(), [["Left atrium"], ["Left atrium"]])
        self.ui.classesTable.item(0, 0).setText("Aorta")
        self.assertEqual(segments(), [[], ["Aorta"]])
        self.assertEqual([row.role for row in self.session.table.rows], [LABELLED] * 2)

    def test_unlabelled_case_becomes_labelled_when_a_task_with_its_class_is_chosen(self) -> None:
        voxels, labels = ellipsoid(1)
        labels = np.where((labels == 0) & (np.roll(labels, 4, axis=2) > 0), 2, labels)
        volume = add_volume("scan", voxels)
        training_cases.add_case(volume, add_outline(volume, labels, ("Pancreas", "Aorta")))
        click(self.ui.addSceneButton)
        self.assertEqual([row.role for row in self.session.table.rows], [UNLABELLED])
        choose(self.ui.taskSelector, load_recipe("pancreas").title)
        self.assertEqual([row.role for row in self.session.table.rows], [LABELLED])

    def test_segments_are_chosen_for_the_classes_of_the_task_not_of_the_model(self) -> None:
        voxels, labels = ellipsoid(1)
        labels = np.where((labels == 0) & (np.roll(labels, 4, axis=2) > 0), 2, labels)
        outline = add_outline(add_volume("scan", voxels), labels, ("Left atrium", "Scar"))
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        self.name_two_classes()
        self.assertIn("the number of classes is 1 in the model, but 2 in the task", self.ui.problemsLabel.text)
        scar = outline.GetSegmentation().GetSegmentIdBySegmentName("Scar")
        self.assertEqual(self.session.table.rows[0].source.segments, ((scar, 1),))

    def test_segments_that_the_user_chose_stay_when_a_class_is_renamed(self) -> None:
        outline = add_case("scan", 1)[1]
        outline.GetSegmentation().AddEmptySegment("", "Scar")
        identifier = outline.GetSegmentation().GetNthSegmentID(0)
        click(self.ui.addSceneButton)
        row = self.session.table.rows[0]
        source = replace(row.source, segments=((identifier, 1),), chosen=True)
        self.session.table.replace_row(0, replace(row, source=source))
        choose(self.ui.taskSelector, "My own classes, in MRI")
        self.ui.classesTable.item(0, 0).setText("Scar")
        self.assertEqual(self.session.table.rows[0].source, source)

    def test_unknown_task_of_a_scene_is_shown_and_can_be_replaced(self) -> None:
        self.session.settings.task = "spine"
        self.module.leave()
        self.module.enter()
        self.assertEqual(self.ui.taskSelector.currentText, "spine (not in the list of tasks)")
        choose(self.ui.taskSelector, "Left atrium in LGE-MRI")
        self.assertEqual(self.session.settings.task, "la")

    def test_class_missing_from_all_labels_is_reported_before_the_start(self) -> None:
        add_case("scan", 1)
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        self.ui.classesTable.item(0, 0).setText("Left atrium")
        self.ui.classesTable.item(1, 0).setText("Aorta")
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertIn("No labelled case contains “Aorta” (label value 2)", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_training_cannot_start_from_a_model_with_a_different_number_of_classes(self) -> None:
        self.choose_tiny_model_and_settings()
        self.assertEqual(self.session.recipe().network.channels, (4, 8, 8))
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        self.assertIn("the number of classes is 1 in the model, but 2 in the task", self.ui.problemsLabel.text)
        choose(self.ui.startFromSelector, "Scratch (random weights)")
        self.assertEqual(self.session.settings.startFrom, "")
        self.assertNotIn("the number of classes", self.ui.problemsLabel.text)

    def test_removed_model_is_shown_and_can_be_replaced_by_random_weights(self) -> None:
        self.choose_tiny_model_and_settings()
        (user_folder() / "tiny.dcamt").unlink()
        self.module.leave()
        self.module.enter()
        self.assertEqual(self.ui.startFromSelector.currentText, "tiny (not in the list of models)")
        self.assertIn("tiny: there is no such model file", self.ui.problemsLabel.text)
        choose(self.ui.startFromSelector, "Scratch (random weights)")
        self.assertEqual(self.session.settings.startFrom, "")
        self.assertNotIn("tiny", self.ui.problemsLabel.text)

    def test_training_cannot_start_from_a_model_with_a_different_number_of_channels(self) -> None:
        self.choose_tiny_model_and_settings()
        recipe = replace(self.session.recipe(), input_channels=2)
        with self.assertRaisesRegex(InputError, "tiny: the number of channels is 1 in the model, but 2 in the recipe"):
            recipe_from_model("tiny", recipe)

    def test_training_that_starts_from_a_model_keeps_the_names_of_the_tasks_channels(self) -> None:
        self.choose_tiny_model_and_settings()
        recipe = replace(self.session.recipe(), channel_names=("LGE MRI",))
        self.assertEqual(recipe_from_model("tiny", recipe).channel_names, ("LGE MRI",))


class EstimateTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()

    def estimate_folders(self) -> list[Path]:
        return list(Path(slicer.app.temporaryPath).glob("dcamt-estimate-*"))

    def test_estimate_is_shown_until_the_effort_changes(self) -> None:
        add_case("two", 2)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings(iterations="")
        choose(self.ui.effortSelector, "Quick try")
        self.assertIn("Press Measure to see", self.ui.estimateLabel.text)
        with LoopMonitor() as monitor:
            click(self.ui.measureButton)
            self.assertEqual(self.ui.measureButton.text, "Stop measuring")
            self.wait_for(lambda: self.ui.measureButton.text == "Measure", "the estimation")
        assert_stays_responsive(monitor.pause)
        self.assertRegex(self.ui.estimateLabel.text, r"About \d+ (s|min|h) on the CPU for 500 iterations, .* of memory")
        choose(self.ui.effortSelector, "Thorough")
        self.assertIn("Press Measure to see", self.ui.estimateLabel.text)

    def test_cancelled_estimate_leaves_no_files(self) -> None:
        """Files left behind would disclose the names of the cases."""
        click(self.ui.measureButton)
        self.assertEqual(len(self.estimate_folders()), 1)
        click(self.ui.measureButton)
        self.assertEqual(self.ui.measureButton.text, "Measure")
        self.assertEqual(self.estimate_folders(), [])

    def test_closing_the_scene_cancels_the_estimation(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        with mock.patch.object(estimation_module, "EngineCommand") as command:
            command.return_value.running = False
            click(self.ui.measureButton)
            close_scene()
        command.return_value.cancel.assert_called()

    def test_failure_of_a_check_disappears_when_all_cases_are_removed(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.session.check_failure = "The check failed."
        self.session.table.replace_all([])
        self.assertNotIn("The check failed.", [problem.text for problem in self.session.problems()])

    def test_failure_of_a_check_disappears_when_the_scene_is_closed(self) -> None:
        self.session.check_failure = "The check failed."
        self.assertIn("The check failed.", [problem.text for problem in self.session.problems()])
        close_scene()
        self.assertNotIn("The check failed.", [problem.text for problem in self.session.problems()])

    def test_estimate_reports_a_full_disk(self) -> None:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/temporary")
        for name in ("tempfile.mkdtemp", "pathlib.Path.write_text"):
            with mock.patch(name, side_effect=full), Person() as person:
                person.expects("the disk is full")
                click(self.ui.measureButton)
            self.assertEqual(self.ui.measureButton.text, "Measure")
            self.assertEqual(self.estimate_folders(), [])

    def test_estimate_is_not_valid_after_choosing_a_start_model_with_another_network(self) -> None:
        self.measure()
        self.assertIsNotNone(self.session.estimation.estimate())
        recipe = self.session.recipe()
        other_recipe = replace(recipe, network=replace(recipe.network, attention_heads=0))
        with mock.patch.object(session_module, "recipe_from_model", return_value=other_recipe):
            self.session.settings.startFrom = "another model"
            self.assertIsNone(self.session.estimation.estimate())

    def test_estimate_is_valid_only_for_its_cases(self) -> None:
        self.measure()
        self.session.table.set_role([0], VALIDATION)
        self.assertIsNone(self.session.estimation.estimate())
        self.session.table.set_role([0], LABELLED)
        self.assertIsNotNone(self.session.estimation.estimate())
        add_case("another", 2)
        click(self.ui.addSceneButton)
        self.assertIsNone(self.session.estimation.estimate())

    def test_estimated_memory_covers_loading_the_scans_except_on_cuda(self) -> None:
        (row,) = self.session.table.rows
        assert row.size is not None
        assert row.spacing is not None
        spacing = self.session.recipe().spacing
        self.assertEqual(self.session.recipe().input_channels, 1)
        count = math.prod(row.size)
        voxels = count * math.prod(row.spacing) / math.prod(spacing)
        resident = 2 * voxels
        # The process takes 500 MB. Three arrays are in float32: the scan, its resampled intensities and its normalised
        # intensities. Two arrays of local moments are in float64.
        loading = 500e6 + resident + 4 * count + (4 + 4 + 2 * 8) * voxels
        for device, measured, expected in (
            ("cpu", 0, loading),
            ("mps", 0, loading),
            ("cpu", 10**10, 10**10 + resident),
            ("cuda", 0, resident),
        ):
            self.measure(device=device, memory_bytes=measured)
            estimated = self.session.estimation.estimate()
            self.assertAlmostEqual(estimated["memory_bytes"], expected, delta=2)

    def test_estimate_is_not_valid_after_two_cases_swap_roles(self) -> None:
        add_case("another", 2)
        click(self.ui.addSceneButton)
        self.session.table.set_role([1], LEFT_OUT)
        self.measure()
        self.session.table.set_role([0], LEFT_OUT)
        self.session.table.set_role([1], LABELLED)
        self.assertIsNone(self.session.estimation.estimate())
        self.session.table.set_role([1], LEFT_OUT)
        self.session.table.set_role([0], LABELLED)
        self.assertIsNotNone(self.session.estimation.estimate())

    def test_estimate_is_valid_only_for_its_device(self) -> None:
        self.measure(device="cuda")
        self.assertIn("on the GPU", self.ui.estimateLabel.text)
        choose(self.ui.deviceSelector, "CPU")
        self.assertIn("Press Measure to see", self.ui.estimateLabel.text)

    def test_estimate_for_a_script_uses_the_device_that_the_script_chose(self) -> None:
        self.measure()
        self.wait_for(lambda: self.session.checked, "the check")
        messages: list[str] = []
        with mock.patch.object(estimation_module, "EngineCommand") as command:
            command.return_value.running = False
            job = self.module.logic.start(print, lambda run, message: messages.append(message), device="cuda")
        arguments, on_event, on_end = command.call_args.args
        self.assertEqual(arguments[arguments.index("--device") + 1], "cuda")
        on_event({"event": "estimate", "device": "cuda", "memory_bytes": 2, "memory_free": 1, "disk_bytes": 0})
        on_end("")
        self.assertFalse(job.running)
        self.assertIn("of GPU memory, but may only use", messages[0])
        # The script's estimate does not replace the panel's estimate for the CPU.
        self.assertEqual(self.session.estimation.estimate()["device"], "cpu")
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemsLabel.text)

    def test_estimate_ignores_left_out_cases(self) -> None:
        add_case("two", 2)
        click(self.ui.addSceneButton)
        lists, estimates = [], []

        def memory_and_disk(meanwhile: Callable[[], object] = lambda: None) -> tuple[int, int]:
            with mock.patch.object(estimation_module, "EngineCommand") as command:
                self.session.estimation.start(self.folder, self.session.device(), lambda message: None)
                (path,) = (Path(text) for text in command.call_args.args[0] if text.endswith("cases.csv"))
                lists.append(path.read_text(encoding="utf-8"))
                on_event = command.call_args.args[1]
                roles = [row.role for row in self.session.table.rows]
                meanwhile()
                on_event({"event": "estimate", "device": "cuda", "memory_bytes": 0, "disk_bytes": 0})
                for index, role in enumerate(roles):
                    self.session.table.set_role([index], role)
                estimates.append(self.session.estimation.estimate())
                self.session.estimation.cancel()
            return estimates[-1]["memory_bytes"], estimates[-1]["disk_bytes"]

        both = memory_and_disk()
        self.assertEqual(memory_and_disk(lambda: self.session.table.set_role([1], LEFT_OUT)), both)
        self.session.table.set_role([1], LEFT_OUT)
        self.assertEqual(memory_and_disk(), (both[0] / 2, both[1] / 2))
        self.assertEqual([len(text.splitlines()) for text in lists], [3, 3, 2])

    def test_chosen_device_is_passed_to_the_command(self) -> None:
        choose(self.ui.deviceSelector, "CPU")
        with mock.patch.object(estimation_module, "EngineCommand") as command:
            self.session.estimation.start(self.folder, self.session.device(), lambda message: None)
        arguments = command.call_args.args[0]
        self.assertEqual(arguments[arguments.index("--device") + 1], "cpu")

    def test_invalid_number_of_iterations_prevents_a_run(self) -> None:
        self.session.settings.iterations = "4²"
        self.assertIn("'4²' is not a valid value of this setting", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_message_about_a_setting_says_what_to_write(self) -> None:
        for name, text, message in (
            ("learningRate", "0,01", "Setting learning_rate: '0,01' is not a valid value of this setting. Write"),
            ("patch", "64x64x32", "Setting patch: '64x64x32' is not a valid value of this setting. Write"),
            ("patch", "64,64,30", "Setting: patch must be a multiple of"),
        ):
            with self.subTest(name=name, text=text):
                setattr(self.session.settings, name, text)
                self.assertIn(message, self.ui.problemsLabel.text)
                setattr(self.session.settings, name, "")

    def test_lack_of_disk_space_or_memory_is_reported_before_the_start(self) -> None:
        enough = mock.patch.object(estimation_module, "free_disk_bytes", return_value=10**12)
        enough.start()
        self.addCleanup(enough.stop)
        self.measure()
        self.assertTrue(self.ui.startButton.enabled)
        with mock.patch.object(estimation_module, "free_disk_bytes", return_value=5 * 10**6):
            self.session.notify_settings_changed()
            self.assertIn("Free some space, or choose another folder", self.ui.problemsLabel.text)
            self.assertFalse(self.ui.startButton.enabled)
        needed = self.session.estimation.estimate()["disk_bytes"]
        with mock.patch.object(estimation_module, "free_disk_bytes", return_value=round(needed / 0.95)):
            self.session.notify_settings_changed()
            amounts = re.findall(r"[\d.]+(?= GB)", self.ui.problemsLabel.text)
            self.assertLess(float(amounts[1]), float(amounts[0]), "usable GB must be less than needed GB")
        self.session.notify_settings_changed()  # enough space again; the estimate is still valid
        self.assertTrue(self.ui.startButton.enabled)
        self.measure(memory_free=5 * 10**7)
        self.assertIn("Choose a smaller patch, fewer patches per iteration", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
