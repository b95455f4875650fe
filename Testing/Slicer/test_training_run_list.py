"""The list of runs and the state of each run, read from run folders."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import slicer
from dcamt.errors import InputError, OutputError
from dcamt.runs.failure_note import FailureNote, write_note
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import run_lock
from dcamt.runs.requests import PAUSE, write_request
from dcamt.runs.state import RunState, run_state
from DCAMTTrainingLib.panels import runs as runs_panel
from DCAMTTrainingLib.runs.folders import runs_folder
from DCAMTTrainingLib.runs.start import discard
from slicer_harness import LoopMonitor, Person, assert_stays_responsive, choose, click
from training_case import FINISHED, PAUSED, STARTED, CasesCase, TrainingCase


class ListOfRunsTest(TrainingCase):
    def test_run_without_a_process_is_shown_with_its_state_and_any_failure(self) -> None:
        counts = {"labelled": 1, "unlabelled": 0, "validation": 0, "device": "cpu", "resumed": False}
        trained = {"event": "progress", "step": 4, "of": 10, "losses": {"total": 1.0}}
        begun = [{**STARTED, **counts}, trained, {"event": "checkpoint", "step": 4}]
        self.make_run("paused", *begun, PAUSED)
        self.make_run("stopped", *begun, {**FINISHED, "step": 4, "seconds": 1.0})
        self.make_run("finished", *begun, {**FINISHED, "seconds": 1.0}).model.write_bytes(b"a model")
        self.make_run("killed", *begun)
        full = FailureNote("events.jsonl: the disk is full. Free some space.", unwritten=True)
        write_note(self.make_run("full", *begun).failure, full)
        faulty = FailureNote("the losses are no longer numbers. Start anew.")
        write_note(self.make_run("faulty", *begun).failure, faulty)
        self.module.widget.runs.refresh()
        texts = {self.ui.runSelector.itemText(index) for index in range(self.ui.runSelector.count)}
        states = {"paused", "stopped", "finished"}
        expected = {f"{name}: {name}" for name in states} | {"killed: failed", "full: paused", "faulty: failed"}
        self.assertEqual(texts, expected)
        for name, text, resumable in (
            ("paused: paused", "Paused, 4 of 10 iterations.", True),
            ("stopped: stopped", "Stopped, 4 of 10 iterations.", True),
            ("finished: finished", "Finished, 10 of 10 iterations.", False),
            ("killed: failed", "The process was killed", True),
            ("full: paused", "the disk is full. Free some space.", True),
            ("faulty: failed", "Failed, 4 of 10 iterations. the losses are no longer numbers.", True),
        ):
            choose(self.ui.runSelector, name)
            self.assertIn(text, self.ui.runStatusLabel.text)
            self.assertEqual(self.ui.resumeButton.enabled, resumable, name)
            self.assertFalse(self.ui.pauseButton.enabled)
            self.assertEqual(self.ui.stopButton.enabled, resumable and not name.startswith("stopped"), name)
            self.assertTrue(self.ui.discardButton.enabled)
        # Charts are added to the scene only on request.
        self.wait_for(lambda: self.ui.lossesButton.enabled, "the losses")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotChartNode"), [])

    def test_runs_are_stored_in_the_home_folder_unless_another_folder_is_chosen(self) -> None:
        slicer.app.userSettings().remove("DCAMT/RunsFolder")
        self.module.widget.runs.refresh()
        self.assertEqual(Path(self.ui.runsFolderEdit.currentPath), Path.home() / "DCAMT runs")
        self.ui.runsFolderEdit.currentPath = str(self.runs)
        self.assertEqual(runs_folder(), self.runs)

    def test_run_is_deleted_only_after_confirmation(self) -> None:
        run = self.make_run("ended", STARTED, FINISHED)
        self.module.widget.runs.refresh()
        with Person() as person:
            person.expects("Delete the run", "Cancel")
            click(self.ui.discardButton)
        self.assertTrue(run.path.exists())
        with Person() as person:
            person.expects("Delete the run", "Ok")
            click(self.ui.discardButton)
        self.assertFalse(run.path.exists())
        self.assertEqual(self.ui.runStatusLabel.text, "No runs yet.")

    def make_linked_run(self) -> tuple[RunFolder, Path]:
        """Return a run whose path is a link, and the folder to which the link points."""
        run = self.make_run("ended", STARTED)
        moved = self.folder / "disk" / "on a larger disk"
        moved.parent.mkdir()
        run.path.rename(moved)
        run.path.symlink_to(moved)
        return run, moved

    @unittest.skipIf(os.name == "nt", "links need a permission on Windows")
    def test_run_behind_a_link_is_deleted(self) -> None:
        run, moved = self.make_linked_run()
        self.module.widget.runs.refresh()
        with Person() as person:
            person.expects("Delete the run", "Ok")
            click(self.ui.discardButton)
        self.assertFalse(run.path.is_symlink() or moved.exists())
        run.path.symlink_to(moved)
        discard(run)
        self.assertFalse(run.path.is_symlink())

    @unittest.skipIf(os.name == "nt", "links need a permission on Windows")
    def test_run_behind_a_windows_junction_is_deleted(self) -> None:
        run, moved = self.make_linked_run()
        with mock.patch.object(Path, "is_symlink", return_value=False):  # as for a junction
            discard(run)
        self.assertFalse(os.path.lexists(run.path) or moved.exists())

    @unittest.skipIf(os.name == "nt", "links need a permission on Windows")
    def test_run_whose_link_cannot_be_removed_stays_until_it_is_discarded_again(self) -> None:
        run, moved = self.make_linked_run()
        before = sorted(moved.rglob("*"))
        denied = PermissionError(errno.EACCES, "Permission denied", str(run.path))
        message = re.escape(f"{run.path}: could not be removed (Permission denied). Close programs")
        with mock.patch.object(Path, "unlink", side_effect=denied), self.assertRaisesRegex(OutputError, message):
            discard(run)
        self.assertEqual(sorted(moved.rglob("*")), before)
        discard(run)
        self.assertEqual([*moved.parent.iterdir(), *self.runs.iterdir()], [])

    def test_refused_deletion_advises_to_change_permissions(self) -> None:
        run = self.make_run("ended", STARTED)
        denied = PermissionError(errno.EACCES, "Permission denied", str(run.path))
        with mock.patch("shutil.rmtree", side_effect=denied), self.assertRaisesRegex(OutputError, "its permissions"):
            discard(run)

    def test_run_with_an_open_file_is_deleted_as_a_whole_or_not_at_all(self) -> None:
        run = self.make_run("ended", STARTED)
        opened = run.validation
        opened.write_text("case,label,dice", encoding="utf-8")
        before = sorted(run.path.rglob("*"))
        rename = Path.rename

        def rename_as_on_windows(path: Path, target: Path) -> Path:
            if path in (opened, *opened.parents):
                raise PermissionError(errno.EACCES, "Access is denied", str(path))
            return rename(path, target)

        message = re.escape(f"{opened}: could not be removed (Access is denied). Close programs that use it")
        with mock.patch.object(Path, "rename", rename_as_on_windows), self.assertRaisesRegex(OutputError, message):
            discard(run)
        self.assertEqual(sorted(run.path.rglob("*")), before)
        discard(run)
        self.assertEqual(list(self.runs.iterdir()), [])

    def test_message_names_the_folder_that_remains_after_a_failed_deletion(self) -> None:
        run = self.make_run("ended", STARTED)
        denied = PermissionError(errno.EACCES, "Permission denied")
        with mock.patch("shutil.rmtree", side_effect=denied), self.assertRaises(OutputError) as caught:
            discard(run)
        (remaining,) = self.runs.iterdir()
        self.assertTrue(str(caught.exception).startswith(f"{remaining}: could not be removed (Permission denied)."))
        self.assertFalse(run.path.exists())
        self.module.widget.runs.refresh()
        self.assertEqual(self.ui.runSelector.count, 0)

    def test_folder_of_another_program_is_no_run(self) -> None:
        project, other = self.runs / "project", self.runs / "other"
        (project / "scans").mkdir(parents=True)
        other.mkdir()
        (project / "recipe.json").write_text("{}", encoding="utf-8")
        (other / "train.log").write_text("epoch 1", encoding="utf-8")
        self.module.widget.runs.refresh()
        self.assertEqual(self.ui.runSelector.count, 0)

    def test_discard_question_names_files_that_the_run_did_not_write(self) -> None:
        run = self.make_run("ended", STARTED)
        for path in (run.scans, run.preview, run.ranking):
            path.mkdir()
        for path in (run.model, run.best, run.report, run.validation, run.log, run.lock, run.origin, run.request):
            path.touch()
        self.assertNotIn("do not belong", runs_panel.discard_question(run))
        (run.path / "notes.txt").touch()
        (run.ranking / "p1.seg.nrrd").touch()  # a proposal corrected in Slicer
        self.module.widget.runs.refresh()
        with Person() as person:
            person.expects(
                "do not belong to the run, but would be deleted, too: notes.txt, ranking/p1.seg.nrrd", "Cancel"
            )
            click(self.ui.discardButton)
        self.assertTrue(run.path.exists())

    def test_removed_folder_of_the_selected_run_is_reported(self) -> None:
        run = self.make_run("gone", STARTED, PAUSED)
        self.module.widget.runs.refresh()
        self.assertTrue(self.ui.resumeButton.enabled)
        run.path.rename(self.folder / "moved")
        self.wait_for(lambda: "cannot be found" in self.ui.runStatusLabel.text, "the message")
        buttons = (self.ui.pauseButton, self.ui.stopButton, self.ui.resumeButton, self.ui.discardButton)
        self.assertFalse(any(button.enabled for button in buttons))

    def test_run_is_watched_again_once_its_disk_answers(self) -> None:
        run = self.make_run("remote", STARTED, PAUSED)
        run.validation.write_text("case,label,dice\none,1,0.5\n", encoding="utf-8")
        self.module.widget.runs.refresh()
        self.wait_for(lambda: self.ui.resumeButton.enabled, "the run")

        def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                if str(path).startswith(str(self.runs)):
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
                return real(path, *arguments, **options)

            return call

        with mock.patch.object(os, "stat", refusing(os.stat)), mock.patch.object(io, "open", refusing(io.open)):
            self.wait_for(lambda: "cannot be found" in self.ui.runStatusLabel.text, "the message")
            self.assertFalse(self.ui.resumeButton.enabled)
            self.module.widget.results.update()
            self.module.widget.outlining.update()
            texts = [problem.text for problem in self.session.problems()]
            self.assertTrue(any("is not writable" in text for text in texts), texts)
            with self.assertRaisesRegex(InputError, "does not exist"):
                write_request(run, PAUSE)
        with run.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(FINISHED) + "\n")
        self.wait_for(lambda: self.ui.runStatusLabel.text.startswith("Finished"), "the run")

    def test_list_follows_runs_that_other_programs_start_or_end(self) -> None:
        with mock.patch.object(runs_panel, "LIST_MS", 50):
            self.module.widget.runs.refresh()
            self.assertEqual(self.ui.runSelector.count, 0)
            first = self.make_run("first", STARTED, PAUSED)
            self.wait_for(lambda: self.ui.runSelector.count == 1, "the first run")
            other = self.make_run("other", STARTED, PAUSED)
            self.wait_for(lambda: self.ui.runSelector.count == 2, "the other run")
            self.assertEqual(self.module.widget.runs.watch.run.path, first.path)
            with other.events.open("a", encoding="utf-8") as file:
                file.write(json.dumps(FINISHED) + "\n")
            texts = {"first: paused", "other: finished"}
            self.wait_for(lambda: {self.ui.runSelector.itemText(n) for n in range(2)} == texts, "the state")

    def test_slicer_stays_responsive_while_the_states_of_many_runs_are_updated(self) -> None:
        for number in range(20):
            self.make_run(f"run-{number}", STARTED)
        self.module.widget.runs.refresh()
        read = []

        def read_slowly(run: RunFolder) -> RunState:
            until = time.process_time() + 0.02
            while time.process_time() < until:
                pass
            read.append(run.path.name)
            return run_state(run)

        with (
            mock.patch.object(runs_panel, "LIST_MS", 50),
            mock.patch.object(runs_panel, "run_state", read_slowly),
            LoopMonitor() as monitor,
        ):
            self.module.widget.runs._listing.start(0)
            self.wait_for(lambda: len(read) > 60, "the states")
        assert_stays_responsive(monitor.pause)

    def test_status_shows_speed_remaining_time_and_memory(self) -> None:
        losses = {"total": 1.0}
        begun = {"event": "started", "step": 0, "of": 400, "labelled": 1, "unlabelled": 0, "validation": 0}
        begun |= {"device": "cpu", "resumed": False}
        going = {"event": "progress", "step": 343, "of": 400, "losses": losses, "steps_per_s": 0.741, "eta_s": 77.4}
        run = self.make_run("going", begun, {**going, "memory_bytes": 820_000_000})
        with run_lock(run.lock):
            self.module.widget.runs.refresh()
            text = "Running, 343 of 400 iterations, 0.74 per second, 77 s left, 0.8 GB of memory."
            self.wait_for(lambda: self.ui.runStatusLabel.text == text, self.ui.runStatusLabel.text)
            self.assertTrue(self.ui.pauseButton.enabled and self.ui.stopButton.enabled)
            self.assertFalse(self.ui.resumeButton.enabled or self.ui.discardButton.enabled)

    def test_status_shows_no_remaining_time_while_no_iteration_is_trained(self) -> None:
        begun = {"event": "started", "step": 0, "of": 400, "labelled": 1, "unlabelled": 0, "validation": 0}
        begun |= {"device": "cpu", "resumed": False}
        going = {"event": "progress", "step": 343, "of": 400, "losses": {}, "steps_per_s": 0.741, "eta_s": 77.4}
        paused, loading = {"event": "paused", "step": 343}, {"event": "loading", "step": 2, "of": 60}
        last = {**going, "step": 400, "eta_s": 0.0}
        validating = {"event": "validating", "step": 400, "validated": 1, "validation": 16}
        scored = {"event": "validation", "step": 400, "dice": {}, "seconds": 20.0}
        finished = {"event": "finished", "step": 400, "model": "model.dcamt", "seconds": 540.0}
        for name, events, text in (
            ("resuming", [going, paused], "Running, 343 of 400 iterations."),
            ("resumed", [going, paused, loading], "Running, reading case 3 of 60."),
            ("iterated", [last], "Running, 400 of 400 iterations, 0.74 per second."),
            ("validating", [last, validating], "Running, 400 of 400 iterations, validating case 2 of 16."),
            ("validated", [last, validating, scored], "Running, 400 of 400 iterations, 0.74 per second."),
            ("calibrating", [last, finished], "Running, 400 of 400 iterations."),
        ):
            run = self.make_run(name, begun, *events)
            with self.subTest(name), run_lock(run.lock):
                runs = self.module.widget.runs
                runs.show(run)
                self.wait_for(lambda runs=runs: not runs.watch._changed, "the events")
                self.assertEqual(self.ui.runStatusLabel.text, text)

    def test_damaged_run_folder_does_not_block_the_module(self) -> None:
        run = self.make_run("damaged")
        run.recipe.write_text("{", encoding="utf-8")
        run.events.write_bytes(b"\xff\xfe\n{\n[]\n")
        (self.runs / "no run").mkdir()
        (self.runs / "file").touch()
        self.module.widget.runs.refresh()
        self.assertEqual(self.ui.runSelector.count, 1)
        self.assertIn("Failed", self.ui.runStatusLabel.text)


class NameOfNextRunTest(CasesCase):
    def setUp(self) -> None:
        super().setUp()
        self.session.settings.runName = "first"
        self.wait_for(lambda: self.ui.startButton.enabled, "the check of the cases")

    def is_refused(self) -> bool:
        return "A run “first” exists already" in self.ui.problemsLabel.text and not self.ui.startButton.enabled

    def test_name_of_a_discarded_run_is_accepted_again(self) -> None:
        self.make_run("first", STARTED, PAUSED)
        self.module.widget.runs.refresh()
        self.session.notify_settings_changed()
        self.assertTrue(self.is_refused())
        with Person() as person:
            person.expects("Delete the run", "Ok")
            click(self.ui.discardButton)
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemsLabel.text)

    def test_name_is_refused_as_long_as_a_run_of_another_program_has_it(self) -> None:
        with mock.patch.object(runs_panel, "LIST_MS", 50):
            self.module.widget.runs.refresh()
            for other in ("", "other"):
                if other:
                    self.make_run(other, STARTED, PAUSED)
                    self.wait_for(lambda: self.ui.runSelector.count == 1, "the other run")
                run = self.make_run("first", STARTED, PAUSED)
                self.wait_for(self.is_refused, "the refusal")
                run.path.rename(self.folder / f"moved {other}")
                self.wait_for(lambda: self.ui.startButton.enabled, "the end of the refusal")
                self.module.widget.runs.refresh()
