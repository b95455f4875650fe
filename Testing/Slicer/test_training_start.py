"""Test the start of a run."""

from __future__ import annotations

import errno
import os
import sys
import unittest
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED
from dcamt.errors import InputError, OutputError
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import run_lock
from DCAMTSlicerLib import engine_process, stepped_task
from DCAMTSlicerLib.terms_of_use import SETTINGS_GROUP
from DCAMTTrainingLib import estimation as estimation_module
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.panels import start as start_panel
from DCAMTTrainingLib.runs import start as run_start
from DCAMTTrainingLib.runs.start import (
    RunPlan,
    is_starting,
    prepare_and_start,
    resume,
    start_failure,
    start_writing_models,
    started,
)
from DCAMTTrainingLib.start_job import StartJob
from engine_case import SHIPPED_DOUBLE_CLICK_S
from scene_nodes import add_case, add_volume, draw_segment, ellipsoid, run_to_end, write_endless_program, write_scan
from slicer_harness import Person, choose, click, close_scene, process_events, reload_scene
from training_case import PAUSED, STARTED, CasesCase


class StartTest(CasesCase):
    def test_cancelled_start_leaves_no_file(self) -> None:
        self.choose_tiny_model_and_settings()
        click(self.ui.startButton)
        self.assertEqual(self.ui.startButton.text, "Cancel start")
        with mock.patch.object(stepped_task, "DOUBLE_CLICK_S", 3600.0):
            click(self.ui.startButton)  # the second click of a double click
        self.assertEqual(self.ui.startButton.text, "Cancel start")
        click(self.ui.startButton)
        self.assertEqual(list(self.runs.iterdir()), [])
        self.assertIn("Cancelled", self.ui.problemsLabel.text)
        self.assertEqual(self.ui.startButton.text, "Start")
        plan = RunPlan(RunFolder(self.runs / "x"), self.session.recipe(), self.session.table.rows, "quick")
        steps = prepare_and_start(plan)
        for _ in range(3):
            next(steps)
        steps.close()
        self.assertEqual(list(self.runs.iterdir()), [])

    def test_start_fails_if_a_new_volume_gets_the_id_of_a_removed_volume(self) -> None:
        reload_scene()  # From now on, Slicer gives the ID of a removed node to a new node.
        plan = RunPlan(RunFolder(self.runs / "x"), self.session.recipe(), tuple(self.session.table.rows), "quick")
        steps = prepare_and_start(plan)
        while not plan.run.scans.exists():
            next(steps)
        volume = slicer.util.getFirstNodeByName("scan2")
        identifier = volume.GetID()
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(add_volume("other", ellipsoid(7)[0]).GetID(), identifier)
        with self.assertRaisesRegex(InputError, "scan2: the volume or segmentation was removed from the scene"):
            run_to_end(steps)
        self.assertEqual(list(self.runs.iterdir()), [])

    def test_removal_of_a_volume_cancels_the_estimation(self) -> None:
        with mock.patch.object(estimation_module, "EngineCommand") as command:
            command.return_value.running = True
            click(self.ui.measureButton)
            slicer.mrmlScene.RemoveNode(slicer.util.getFirstNodeByName("scan2"))
        command.return_value.cancel.assert_called_once()

    def test_case_whose_label_was_erased_is_marked_when_the_start_fails(self) -> None:
        self.choose_tiny_model_and_settings()
        self.measure()
        self.wait_for(lambda: self.session.checked, "the check")
        segmentation = slicer.util.getFirstNodeByName("scan1 outline")
        volume = slicer.util.getFirstNodeByName("scan1")
        erased = np.zeros_like(slicer.util.arrayFromVolume(volume), np.uint8)
        draw_segment(segmentation, volume, erased)
        click(self.ui.startButton)
        self.wait_for(lambda: not self.module.widget.starting.starting, "the failure")
        self.assertIn("scan1: has an empty label", self.ui.problemsLabel.text)
        self.assertEqual(list(self.runs.iterdir()), [])
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual([bool(row.remark) for row in self.session.table.rows], [False, True, False])

    def test_start_fails_before_any_scan_is_copied_if_a_scan_became_blank(self) -> None:
        self.choose_tiny_model_and_settings()
        self.measure()
        self.wait_for(lambda: self.session.checked, "the check")
        volume = slicer.util.getFirstNodeByName("scan2")
        slicer.util.arrayFromVolume(volume)[:] = 5
        slicer.util.arrayFromVolumeModified(volume)
        with mock.patch.object(run_start, "export_case", side_effect=AssertionError("a scan was copied")):
            click(self.ui.startButton)
            self.wait_for(lambda: not self.module.widget.starting.starting, "the failure")
        self.assertIn("scan2: The scan is blank: every voxel is 5. Choose another scan.", self.ui.problemsLabel.text)
        self.assertEqual(list(self.runs.iterdir()), [])
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual([bool(row.remark) for row in self.session.table.rows], [False, False, True])

    def test_cases_are_checked_again_for_a_changed_spacing_but_not_for_other_settings(self) -> None:
        thin = np.zeros((20, 22, 24), np.uint8)
        thin[10, 5:15, 5:15] = 1
        draw_segment(slicer.util.getFirstNodeByName("scan0 outline"), slicer.util.getFirstNodeByName("scan0"), thin)
        self.choose_tiny_model_and_settings()
        self.wait_for(lambda: self.session.checked, "the check")
        for spacing, has_remark in (("8,8,8", True), ("2,2,2", False)):
            self.session.settings.spacing = spacing
            self.assertFalse(self.session.checked)
            self.wait_for(lambda: self.session.checked, "the check for the changed spacing")
            self.assertEqual([bool(row.remark) for row in self.session.table.rows], [has_remark, False, False])
            self.assertEqual("which has no voxel on the recipe's grid" in self.ui.problemsLabel.text, has_remark)
        self.session.settings.iterations = "30"
        self.assertTrue(self.session.checked)

    def test_start_checks_changed_labels_for_the_chosen_spacing(self) -> None:
        """The thin label has voxels on the chosen grid of 2 mm, but none on the recipe's grid of 8 mm."""
        thin = np.zeros((20, 22, 24), np.uint8)
        thin[10, 5:15, 5:15] = 1
        draw_segment(slicer.util.getFirstNodeByName("scan0 outline"), slicer.util.getFirstNodeByName("scan0"), thin)
        recipe = replace(self.session.recipe(), spacing=(8.0, 8.0, 8.0))
        for settings, is_refused in ((("spacing=2,2,2",), False), ((), True)):
            plan = RunPlan(RunFolder(self.runs / "x"), recipe, self.session.table.rows, "quick", settings)
            with (
                mock.patch.object(run_start, "export_case", side_effect=InputError("a scan is copied")),
                self.assertRaisesRegex(InputError, "scan0: The label holds" if is_refused else "a scan is copied"),
            ):
                list(prepare_and_start(plan))

    def test_check_of_case_files_uses_the_chosen_spacing(self) -> None:
        thin = np.zeros((20, 22, 24), np.uint8)
        thin[10, 5:15, 5:15] = 1
        scan, label = (self.folder / f"{name}.nrrd" for name in ("file", "label"))
        write_scan(scan, ellipsoid(7)[0])
        write_scan(label, thin)
        self.session.table.add([CaseRow("file", FileScan(str(scan), str(label)), LABELLED)])
        for spacing, has_remark in (("8,8,8", True), ("2,2,2", False)):
            self.session.settings.spacing = spacing
            self.wait_for(lambda: self.session.checked, "the check")
            self.assertEqual([bool(row.remark) for row in self.session.table.rows], [False] * 3 + [has_remark])

    def test_script_can_close_the_logic_when_a_start_fails(self) -> None:
        logic = type(self.module.logic)()
        logic.attach()
        ends = []

        def on_end(run: RunFolder | None, message: str) -> None:
            ends.append(message)
            logic.close()

        job = StartJob(logic.session, "cpu", print, on_end)
        job.running = True
        job._on_written(InputError("has an empty label", path="scan1"))
        self.assertEqual(ends, ["scan1: has an empty label."])

    @mock.patch.object(stepped_task, "DOUBLE_CLICK_S", SHIPPED_DOUBLE_CLICK_S)
    def test_double_click_starts_only_one_job(self) -> None:
        now = [100.0]

        class FakeJob(mock.Mock):
            """Replaces the job that starts a run.

            `start` blocks the event loop for 20 s of the simulated time.
            """

            def start(self) -> None:
                now[0] += 20.0
                self.running = True

        self.choose_tiny_model_and_settings()
        jobs = [FakeJob(), FakeJob()]
        with (
            mock.patch.object(stepped_task, "time", mock.Mock(monotonic=lambda: now[0])),
            mock.patch.object(start_panel, "StartJob", side_effect=jobs) as start_job,
        ):
            click(self.ui.startButton)
            now[0] += 0.2
            click(self.ui.startButton)
            jobs[0].cancel.assert_not_called()
            on_end = start_job.call_args.args[-1]
            now[0] += 20.0
            jobs[0].running = False
            on_end(None, "")
            now[0] += 0.2
            click(self.ui.startButton)
            start_job.assert_called_once()
            now[0] += 1.0
            click(self.ui.startButton)
            self.assertEqual(start_job.call_count, 2)
            now[0] += 1.0
            click(self.ui.startButton)
            jobs[1].cancel.assert_called_once()

    def test_only_the_first_channel_is_exported_for_a_recipe_of_one_channel(self) -> None:
        task_recipe = self.session.recipe()
        for channels in (1, 2):
            recipe = replace(task_recipe, input_channels=channels)
            plan = RunPlan(RunFolder(self.runs / "x"), recipe, self.session.table.rows, "quick")
            with (
                mock.patch.object(run_start, "export_case", side_effect=InputError("no file")) as export,
                self.assertRaises(InputError),
            ):
                list(prepare_and_start(plan))
            self.assertEqual(export.call_args.args[3], channels == 1)

    def test_estimated_memory_of_the_scene_grows_with_the_channels_of_the_recipe(self) -> None:
        task_recipe = self.session.recipe()
        estimates = [
            self.session.estimation._scene_bytes(replace(task_recipe, input_channels=channels))[0]
            for channels in (1, 2)
        ]
        self.assertGreater(estimates[0], 0)
        # A voxel takes 1 byte of memory for each channel and 1 for its label.
        self.assertAlmostEqual(estimates[1], 3 / 2 * estimates[0], delta=1)

    def test_terms_of_a_shipped_model_must_be_accepted_before_a_run_starts_from_it(self) -> None:
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        self.module.widget.task.refresh()
        choose(self.ui.startFromSelector, "Left atrium in LGE-MRI (left-atrium)")
        with Person() as person:
            person.expects("terms of use", "Cancel")
            click(self.ui.startButton)
        self.assertIn("not accepted", self.ui.problemsLabel.text)
        self.assertEqual(self.ui.startButton.text, "Start")
        self.assertEqual(list(self.runs.iterdir()), [])
        with Person() as person:
            person.expects("terms of use", "Ok")
            click(self.ui.startButton)
            self.assertEqual(self.ui.startButton.text, "Cancel start")
            click(self.ui.startButton)
            click(self.ui.startButton)  # not asked again
            self.assertEqual(self.ui.startButton.text, "Cancel start")
            click(self.ui.startButton)
        self.assertEqual(list(self.runs.iterdir()), [])

    @unittest.skipUnless(Path("/proc/self/fd").is_dir(), "only Linux lists a process's open files")
    def test_files_are_closed_before_a_cancelled_start_removes_its_folder(self) -> None:
        """Windows cannot remove folders with open files."""
        plan = RunPlan(RunFolder(self.runs / "x"), self.session.recipe(), self.session.table.rows, "quick")
        steps = prepare_and_start(plan)
        while not self.open_files():
            next(steps)
        seen = []
        with mock.patch.object(run_start, "discard", side_effect=lambda run: seen.append(self.open_files())):
            steps.close()
        self.assertEqual(seen, [[]])

    def test_failed_removal_of_the_folder_does_not_hide_why_the_start_failed(self) -> None:
        plan = RunPlan(RunFolder(self.runs / "x"), self.session.recipe(), self.session.table.rows, "quick")
        full, busy = OSError(errno.ENOSPC, "No space left on device"), OutputError("x: could not be removed")
        with (
            mock.patch.object(run_start, "write_list", side_effect=full),
            mock.patch.object(run_start, "discard", side_effect=busy),
            self.assertRaisesRegex(OutputError, "x: the disk is full. Free some space or choose another folder."),
        ):
            run_to_end(prepare_and_start(plan))

    def open_files(self) -> list[str]:
        paths = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # iterdir() also lists its own descriptor, which is closed by now
                paths.append(os.readlink(descriptor))
        return [path for path in paths if path.startswith(str(self.runs))]

    @unittest.skipIf(os.name == "nt", "runs a shell script")
    def test_closing_the_scene_cancels_a_start(self) -> None:
        self.choose_tiny_model_and_settings()
        self.measure()
        click(self.ui.startButton)
        close_scene()
        process_events()
        self.assertEqual(list(self.runs.iterdir()), [])
        self.assertEqual(self.ui.startButton.text, "Start")
        self.assertFalse(self.ui.startButton.enabled)
        add_case("of the next scene")
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        with mock.patch.object(engine_process, "python_program", return_value=write_endless_program(self.folder)):
            click(self.ui.startButton)
            self.wait_for(lambda: self.session.estimation.running, "the estimation")
            close_scene()
        process_events()
        self.assertFalse(self.session.estimation.running)
        self.assertEqual(list(self.runs.iterdir()), [])

    def test_reason_of_a_failed_estimation_is_shown(self) -> None:
        self.choose_tiny_model_and_settings()
        for reason, shown in (("The disk is full.", "The disk is full."), ("", "The estimation was stopped")):
            with mock.patch.object(estimation_module, "EngineCommand") as command:
                command.return_value.running = False
                click(self.ui.startButton)
                self.wait_for(lambda command=command: command.called, "the estimation")
            _arguments, _on_event, on_end = command.call_args.args
            on_end(reason)
            self.assertIn(shown, self.ui.problemsLabel.text)
            self.assertEqual(self.ui.startButton.text, "Start")
        self.assertEqual(list(self.runs.iterdir()), [])

    @unittest.skipIf(os.name == "nt", "runs a shell script")
    def test_start_ends_if_its_estimation_is_stopped(self) -> None:
        self.choose_tiny_model_and_settings()
        with mock.patch.object(engine_process, "python_program", return_value=write_endless_program(self.folder)):
            click(self.ui.startButton)
            self.wait_for(lambda: self.session.estimation.running, "the estimation")
            click(self.ui.measureButton)
            # A repeated check of the cases may still be running.
            self.wait_for(lambda: not self.module.widget.starting.starting, "the end of the start")
        self.assertIn("The estimation was stopped", self.ui.problemsLabel.text)
        self.assertEqual(self.ui.startButton.text, "Start")

    def test_nothing_is_started_if_cases_or_settings_were_changed_during_the_start(self) -> None:
        def change_settings() -> None:
            self.assertIn("Checking the cases", self.ui.problemsLabel.text)
            self.session.settings.iterations = "30"

        def change_label() -> None:
            self.wait_for(lambda: command.called, "the estimation")
            command.return_value.running = True
            row = self.session.table.rows[1]
            source = replace(self.session.table.rows[0].source, volume=row.scan)
            self.session.table.replace_row(1, replace(row, source=source))
            self.wait_for(lambda: self.session.checked, "the check of the changed case")
            command.return_value.running = False

        estimate = {"event": "estimate", "seconds": 60.0, "iterations": 40, "memory_bytes": None, "disk_bytes": 1}
        starting = self.module.widget.starting
        self.choose_tiny_model_and_settings()
        for change in (change_settings, change_label):
            with mock.patch.object(estimation_module, "EngineCommand") as command:
                command.return_value.running = False
                self.session.check_cases()
                click(self.ui.startButton)
                change()
                self.wait_for(lambda command=command: command.called or not starting.starting, "the next step")
                if command.called:
                    _arguments, on_event, on_end = command.call_args.args
                    on_event({**estimate, "device": "cpu"})
                    on_end("")
                self.wait_for(lambda: not starting.starting, "the end of the start")
            self.assertIn("were changed during the start", self.ui.problemsLabel.text, change)
            self.assertEqual(list(self.runs.iterdir()), [], change)

    def test_reason_of_a_failed_start_is_shown(self) -> None:
        self.choose_tiny_model_and_settings()
        plan = RunPlan(
            RunFolder(self.runs / "faulty"),
            self.session.recipe(),
            self.session.table.rows,
            "quick",
            ("patch=15,15,15",),
        )
        for _ in prepare_and_start(plan):
            pass
        self.wait_for(lambda: not is_starting(plan.run), "the end of the process that trains")
        self.module.widget.runs.show(plan.run)
        self.assertIn("Failed", self.ui.runStatusLabel.text)
        self.assertIn("patch must be a multiple", self.ui.runStatusLabel.text)
        self.assertFalse(self.ui.resumeButton.enabled)

    def test_reason_why_a_run_cannot_be_resumed_is_shown(self) -> None:
        run = self.make_run("paused", STARTED, PAUSED, cases=("one,gone.nrrd,,unlabelled",))
        run.log.write_text("an earlier line\n", encoding="utf-8")
        self.module.widget.runs.show(run)
        self.assertNotIn("gone.nrrd", self.ui.runStatusLabel.text)
        click(self.ui.resumeButton)
        self.wait_for(lambda: not is_starting(run), "the end of the process")
        self.wait_for(lambda: self.ui.resumeButton.enabled, "the paused run")
        self.assertIn("gone.nrrd, which does not exist", self.ui.runStatusLabel.text)

    def test_reason_of_a_failed_start_is_utf8_in_any_locale(self) -> None:
        run = self.make_run("paused", STARTED, PAUSED, cases=("one,Müller.nrrd,,unlabelled",))
        latin1 = mock.patch.dict(os.environ, {"PYTHONIOENCODING": "latin-1"})
        with latin1, mock.patch.object(run_start, "python_program", return_value=sys.executable):
            resume(run)
        self.wait_for(lambda: not is_starting(run), "the end of the process")
        self.assertIn("Müller.nrrd, which does not exist", start_failure(run))

    def test_reason_of_a_failed_start_stays_after_another_run_was_resumed(self) -> None:
        runs = []
        for name in ("first", "second"):
            runs.append(self.make_run(name, STARTED, PAUSED, cases=(f"one,{name}.nrrd,,unlabelled",)))
            resume(runs[-1])
        self.wait_for(lambda: not any(map(is_starting, runs)), "the end of the processes")
        resume(runs[1])
        self.wait_for(lambda: not is_starting(runs[1]), "the end of the process")
        for run in runs:
            self.assertIn(f"{run.path.name}.nrrd, which does not exist", start_failure(run))
            self.assertEqual(len([one for one in started if one.run.path == run.path]), 1)

    def test_reason_of_a_failed_start_is_not_shown_after_another_program_trained_the_run(self) -> None:
        run = self.make_run("paused", STARTED, PAUSED, cases=("one,gone.nrrd,,unlabelled",))
        resume(run)
        self.wait_for(lambda: not is_starting(run), "the end of the process")
        self.assertIn("gone.nrrd", start_failure(run))
        with run.events.open("a", encoding="utf-8") as events:
            events.write('{"event": "paused", "step": 6}\n')
        self.module.widget.runs.show(run)
        self.assertNotIn("gone.nrrd", self.ui.runStatusLabel.text)

    def test_problems_of_cases_and_settings_are_shown_before_the_start(self) -> None:
        for index in range(3):
            self.session.table.set_role([index], "unlabelled")
        self.assertFalse(self.ui.startButton.enabled)
        self.assertIn("No case is labelled", self.ui.problemsLabel.text)
        self.session.table.set_role([0], "labelled")
        self.assertTrue(self.ui.startButton.enabled)
        self.session.settings.patch = "15,15,15"
        self.assertFalse(self.ui.startButton.enabled)
        self.assertIn("patch must be a multiple", self.ui.problemsLabel.text)

    def test_panel_tells_how_to_use_the_unlabelled_cases(self) -> None:
        choose(self.ui.startFromSelector, "Left atrium in LGE-MRI (left-atrium)")
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemsLabel.text)
        self.session.table.set_role([0], "unlabelled")
        self.assertIn(
            "The unlabelled cases would not be used. To use them: Enter 4 in the field “Patches per iteration”. Enter"
            " 2 in the field “Weight of distillation”. Otherwise, leave these cases out.",
            self.ui.problemsLabel.text,
        )
        self.assertFalse(self.ui.startButton.enabled)
        self.session.settings.batch = "4"
        self.assertNotIn("Patches per iteration", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.session.settings.distillation = "2"
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemsLabel.text)

    def test_no_second_process_starts_in_the_folder_of_a_running_run(self) -> None:
        run = self.write_run("earlier")
        with run_lock(run.lock):
            self.session.settings.runName = "earlier"
            self.assertIn("A run “earlier” exists already", self.ui.problemsLabel.text)
            self.assertFalse(self.ui.startButton.enabled)
            with self.assertRaisesRegex(InputError, "exists already"):
                self.module.logic.start(print, print)
            for start in (resume, start_writing_models):
                with self.assertRaisesRegex(InputError, "by another process"):
                    start(run)
        self.assertEqual([one for one in started if one.run.path == run.path], [])
