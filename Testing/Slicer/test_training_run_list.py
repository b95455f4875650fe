"""The list of runs and the state of each run, read from run folders."""

from __future__ import annotations

import errno
import json
import os
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from dcamt.errors import OutputError
from dcamt.runs.failure_note import FailureNote, write_note
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import run_lock
from dcamt.runs.preview import write_preview
from dcamt.runs.state import RunState, run_state
from DCAMTTrainingLib.panels import runs as runs_panel
from DCAMTTrainingLib.panels import watch as watch_panel
from DCAMTTrainingLib.runs.folders import runs_folder
from DCAMTTrainingLib.runs.start import discard
from scene_nodes import ellipsoid
from slicer_harness import (
    LoopMonitor,
    Person,
    announce_quitting,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
)
from training_case import TrainingCase


class ListOfRunsTest(TrainingCase):
    """Run folders in various states, written by the tests."""

    def make_run(
        self, name: str, events: list[dict], failure: FailureNote | None = None, killed: bool = False
    ) -> RunFolder:
        """Write a run with a checkpoint, the given events and no cases.

        Args:
            failure: the reason why the run failed.
            killed: whether to write a blank failure note. Earlier versions of DCAMT left such a note when they
                were killed.
        """
        run = self.write_run(name)
        run.checkpoint.parent.mkdir(exist_ok=True)
        run.checkpoint.touch()
        run.cases.write_text("name,image,label,role\n", encoding="utf-8")
        run.events.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        if failure or killed:
            run.failure.write_bytes(b" " * 4096)
        if failure:
            write_note(run.failure, failure)
        return run

    def test_state_of_a_run_without_a_process_is_shown_with_its_reason(self) -> None:
        counts = {"labelled": 1, "unlabelled": 0, "validation": 0, "device": "cpu", "resumed": False}
        trained = {"event": "progress", "step": 4, "of": 10, "losses": {"total": 1.0}}
        begun = [{"event": "started", "step": 0, "of": 10, **counts}, trained, {"event": "checkpoint", "step": 4}]
        self.make_run("paused", [*begun, {"event": "paused", "step": 4}])
        self.make_run("stopped", [*begun, {"event": "finished", "step": 4, "model": "", "seconds": 1.0}])
        self.make_run("finished", [*begun, {"event": "finished", "step": 10, "model": "", "seconds": 1.0}])
        self.make_run("killed", begun, killed=True)
        self.make_run("full", begun, FailureNote("events.jsonl: the disk is full. Free some space.", unwritten=True))
        self.make_run("faulty", begun, FailureNote("the losses are no longer numbers. Start anew."))
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
            # A paused or failed run can be stopped, which writes its models.
            self.assertEqual(self.ui.stopButton.enabled, resumable and not name.startswith("stopped"), name)
            self.assertTrue(self.ui.discardButton.enabled)
        # Charts are added to the scene only on request.
        self.wait_for(lambda: self.ui.lossesButton.enabled, "the losses")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotChartNode"), [])

    def test_validation_cases_with_missing_files_are_listed_while_slicer_stays_responsive(self) -> None:
        begun = [{"event": "started", "step": 0, "of": 10}, {"event": "paused", "step": 4}]
        run = self.make_run("long", begun)
        lines = [f"case{n},/gone/{n}.nrrd,/gone/{n}_label.nrrd,labelled" for n in range(10_000)]
        lines += ["last case,/gone/a.nrrd,/gone/b.nrrd,validation"]
        run.cases.write_text("\n".join(["name,image,label,role", *lines]), encoding="utf-8")
        self.module.widget.runs.refresh()
        with LoopMonitor() as monitor:
            self.wait_for(lambda: self.ui.previewSelector.enabled, "the cases")
        assert_stays_responsive(monitor.pause)
        self.assertEqual([self.ui.previewSelector.itemText(index) for index in range(2)], ["none", "last case"])

    def test_missing_preview_of_a_run_without_a_process_is_explained(self) -> None:
        begun = {"event": "started", "step": 0, "of": 10}
        for name, last, text in (
            ("paused", {"event": "paused", "step": 4}, "Once resumed, it shows this case"),
            ("finished", {"event": "finished", "step": 10, "model": ""}, "ended without a preview"),
        ):
            run = self.make_run(name, [begun, last])
            run.cases.write_text("name,image,label,role\nlast case,a.nrrd,b.nrrd,validation\n", encoding="utf-8")
            self.module.widget.runs.show(run)
            self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
            choose(self.ui.previewSelector, "last case")
            self.assertIn(text, self.ui.previewStatusLabel.text)

    def test_preview_text_is_shown_again_when_its_case_is_chosen_again(self) -> None:
        run = self.make_run("paused", [{"event": "started", "step": 0, "of": 10}, {"event": "paused", "step": 4}])
        run.cases.write_text("name,image,label,role\none,a,b,validation\ntwo,c,d,validation\n", encoding="utf-8")
        run.preview.mkdir(parents=True)
        scan, label = ellipsoid(1)
        write_preview(run, "one", 4, label.T, np.eye(4), scan.T)
        self.module.widget.runs.show(run)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
        for case, text in (("one", "after iteration 4"), ("two", "Once resumed"), ("one", "after iteration 4")):
            choose(self.ui.previewSelector, case)
            self.wait_for(lambda text=text: text in self.ui.previewStatusLabel.text, text)

    def test_choosing_a_run_without_scores_empties_the_table(self) -> None:
        ended = [{"event": "started", "step": 0, "of": 10}, {"event": "finished", "step": 10, "model": ""}]
        scored, other = self.make_run("scored", ended), self.make_run("other", ended)
        lines = ["case,label,dice,jaccard,hd95_mm,asd_mm", "one,1,0.5,0.3333333,12,3.25"]
        scored.validation.write_text("\n".join(lines), encoding="utf-8")
        for run, rows in ((scored, 1), (other, 0), (scored, 1)):
            self.module.widget.runs.show(run)
            self.assertEqual(self.ui.resultsTable.model().rowCount(), rows)

    def test_failed_request_for_a_preview_is_reported(self) -> None:
        run = self.make_run("paused", [{"event": "started", "step": 0, "of": 10}, {"event": "paused", "step": 4}])
        run.cases.write_text("name,image,label,role\nlast case,a.nrrd,b.nrrd,validation\n", encoding="utf-8")
        self.module.widget.runs.show(run)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
        refused = PermissionError(errno.EACCES, "Permission denied", "case.txt")
        with mock.patch.object(watch_panel, "choose_preview", side_effect=refused), Person() as person:
            person.expects("case.txt: cannot be used (Permission denied)", "Ok")
            choose(self.ui.previewSelector, "last case")

    def test_scores_are_rounded_and_a_single_case_has_no_standard_deviation(self) -> None:
        ended = [{"event": "started", "step": 0, "of": 10}, {"event": "finished", "step": 10, "model": ""}]
        summary = ["mean,1,0.5,0.3333333,12,3.25", "std,1,0,0,0,0"]
        two = ["one,1,0.5,0.3333333,12,3.25", "two,1,0.5,0.3333333,12,3.25", *summary]
        for name, lines in (("single", [two[0], *summary]), ("pair", two)):
            run = self.make_run(name, ended)
            run.validation.write_text("\n".join(["case,label,dice,jaccard,hd95_mm,asd_mm", *lines]), encoding="utf-8")
            self.module.widget.runs.show(run)
            model = self.ui.resultsTable.model()
            cells = [[model.data(model.index(row, column)) for column in range(6)] for row in range(model.rowCount())]
            shown = ["one", "mean"] if name == "single" else ["one", "two", "mean", "std"]
            self.assertEqual([row[0] for row in cells], shown)
            self.assertEqual(cells[0][2:], ["0.500", "0.333", "12.00", "3.25"])

    def test_mean_distances_are_shown_with_the_number_of_their_cases(self) -> None:
        run = self.make_run("missed", [{"event": "started", "step": 0, "of": 10}])
        lines = [
            "case,label,dice,jaccard,hd95_mm,asd_mm,undefined,cases",
            "found,1,0.5,0.4,2,1,0,1",
            "missed,1,0,0,,,1,1",
        ]
        lines += ["mean,1,0.25,0.2,2,1,1,2", "std,1,0.25,0.2,,,1,2", "mean,2,0.5,0.4,2,1,0,2"]
        run.validation.write_text("\n".join(lines), encoding="utf-8")
        self.module.widget.runs.show(run)
        model = self.ui.resultsTable.model()
        names = [model.data(model.index(row, 0)) for row in range(model.rowCount())]
        of = "(distances of 1 of 2 cases)"
        self.assertEqual(names, ["found", "missed", f"mean {of}", f"std {of}", "mean"])

    def test_mean_states_how_many_cases_were_missed_or_lack_the_class(self) -> None:
        run = self.make_run("missed", [{"event": "started", "step": 0, "of": 10}])
        lines = ["case,label,dice,jaccard,hd95_mm,asd_mm,undefined,cases,missed,empty"]
        lines += ["mean,1,0.5,0.4,2,1,2,5,1,1", "mean,2,0.9,0.8,2,1,0,5,0,3"]
        run.validation.write_text("\n".join(lines), encoding="utf-8")
        self.module.widget.runs.show(run)
        model = self.ui.resultsTable.model()
        first, second = (model.data(model.index(row, 0)) for row in range(2))
        self.assertEqual(first, "mean (distances of 3 of 5 cases, 1 missed, 1 without the class: Dice 1)")
        self.assertEqual(second, "mean (3 without the class: Dice 1)")

    def test_charts_are_removed_and_the_layout_is_restored(self) -> None:
        events = [{"event": "started", "step": 0, "of": 10}]
        events.append({"event": "progress", "step": 5, "of": 10, "losses": {"total": 1.0}})
        run = self.make_run("going", events)
        manager = slicer.app.layoutManager()
        layout = manager.layout

        def show_losses() -> None:
            self.wait_for(lambda: self.ui.lossesButton.enabled, "the losses")
            click(self.ui.lossesButton)
            self.assertNotEqual(manager.layout, layout)
            self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")), 1)

        def assert_gone(where: str) -> None:
            self.assertEqual(manager.layout, layout, where)
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotChartNode"), [], where)
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [], where)

        with run_lock(run.lock):
            self.module.widget.runs.refresh()
            show_losses()
            self.module.leave()
            assert_gone("leaving")
            self.module.enter()
            show_losses()
            close_scene()
            assert_gone("closing the scene")
            show_losses()
        self.wait_for(lambda: manager.layout == layout, "the end of the run")
        assert_gone("the end of the run")
        show_losses()
        # Slicer may also close the panel without leaving the module.
        self.module.widget.watching.close()
        assert_gone("closing the panel")

    def test_next_session_starts_with_the_layout_from_before_the_charts(self) -> None:
        events = [{"event": "progress", "step": 5, "of": 10, "losses": {"total": 1.0}}]
        self.make_run("ended", [{"event": "started", "step": 0, "of": 10}, *events])
        manager = slicer.app.layoutManager()
        layout = manager.layout
        self.module.widget.runs.refresh()
        self.wait_for(lambda: self.ui.lossesButton.enabled, "the losses")
        click(self.ui.lossesButton)
        self.assertNotEqual(manager.layout, layout)
        self.addCleanup(slicer.app.settings().remove, "MainWindow/layout")
        announce_quitting()
        self.assertEqual(int(slicer.app.settings().value("MainWindow/layout")), layout)

    def test_runs_are_stored_in_the_home_folder_unless_another_folder_is_chosen(self) -> None:
        slicer.app.userSettings().remove("DCAMT/RunsFolder")
        self.module.widget.runs.refresh()
        self.assertEqual(Path(self.ui.runsFolderEdit.currentPath), Path.home() / "DCAMT runs")
        self.ui.runsFolderEdit.currentPath = str(self.runs)
        self.assertEqual(runs_folder(), self.runs)

    def test_run_is_deleted_only_after_confirmation(self) -> None:
        ended = [{"event": "started", "step": 0, "of": 2}, {"event": "finished", "step": 2, "model": ""}]
        run = self.make_run("ended", ended)
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

    @unittest.skipIf(os.name == "nt", "links need a permission on Windows")
    def test_run_behind_a_link_is_deleted(self) -> None:
        run = self.make_run("ended", [{"event": "started", "step": 0, "of": 2}])
        moved = self.folder / "on a larger disk"
        run.path.rename(moved)
        run.path.symlink_to(moved)
        self.module.widget.runs.refresh()
        with Person() as person:
            person.expects("Delete the run", "Ok")
            click(self.ui.discardButton)
        self.assertFalse(run.path.is_symlink() or moved.exists())
        run.path.symlink_to(moved)
        discard(run)
        self.assertFalse(run.path.is_symlink())

    def test_refused_deletion_advises_to_change_permissions(self) -> None:
        run = self.make_run("ended", [{"event": "started", "step": 0, "of": 2}])
        denied = PermissionError(errno.EACCES, "Permission denied", str(run.path))
        with mock.patch("shutil.rmtree", side_effect=denied), self.assertRaisesRegex(OutputError, "its permissions"):
            discard(run)

    def test_folder_of_another_program_is_no_run(self) -> None:
        project, other = self.runs / "project", self.runs / "other"
        (project / "scans").mkdir(parents=True)
        other.mkdir()
        (project / "recipe.json").write_text("{}", encoding="utf-8")
        (other / "train.log").write_text("epoch 1", encoding="utf-8")
        self.module.widget.runs.refresh()
        self.assertEqual(self.ui.runSelector.count, 0)

    def test_discard_question_names_files_that_the_run_did_not_write(self) -> None:
        run = self.make_run("ended", [{"event": "started", "step": 0, "of": 2}])
        for path in (run.scans, run.preview, run.ranking):
            path.mkdir()
        for path in (run.model, run.best, run.report, run.validation, run.log, run.lock, run.origin, run.request):
            path.touch()
        self.assertNotIn("do not belong", runs_panel.discard_question(run))
        (run.path / "notes.txt").touch()
        (run.ranking / "p1.seg.nrrd").touch()  # A proposal that another program saved has no mark of DCAMT.
        self.module.widget.runs.refresh()
        with Person() as person:
            person.expects("do not belong to the run, and are deleted, too: notes.txt, ranking/p1.seg.nrrd", "Cancel")
            click(self.ui.discardButton)
        self.assertTrue(run.path.exists())

    def test_removed_folder_of_the_selected_run_is_reported(self) -> None:
        run = self.make_run("gone", [{"event": "started", "step": 0, "of": 10}, {"event": "paused", "step": 4}])
        self.module.widget.runs.refresh()
        self.assertTrue(self.ui.resumeButton.enabled)
        run.path.rename(self.folder / "moved")
        self.wait_for(lambda: "does not exist any more" in self.ui.runStatusLabel.text, "the message")
        buttons = (self.ui.pauseButton, self.ui.stopButton, self.ui.resumeButton, self.ui.discardButton)
        self.assertFalse(any(button.enabled for button in buttons))

    def test_list_follows_runs_that_other_programs_start_or_end(self) -> None:
        begun = {"event": "started", "step": 0, "of": 10}
        with mock.patch.object(runs_panel, "LIST_MS", 50):
            self.module.widget.runs.refresh()
            self.assertEqual(self.ui.runSelector.count, 0)
            first = self.make_run("first", [begun, {"event": "paused", "step": 4}])
            self.wait_for(lambda: self.ui.runSelector.count == 1, "the first run")
            other = self.make_run("other", [begun, {"event": "paused", "step": 4}])
            self.wait_for(lambda: self.ui.runSelector.count == 2, "the other run")
            self.assertEqual(self.module.widget.runs.watch.run.path, first.path)
            with other.events.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": "finished", "step": 10, "model": ""}) + "\n")
            texts = {"first: paused", "other: finished"}
            self.wait_for(lambda: {self.ui.runSelector.itemText(n) for n in range(2)} == texts, "the state")

    def test_slicer_stays_responsive_while_the_states_of_many_runs_are_updated(self) -> None:
        for number in range(20):
            self.make_run(f"run-{number}", [{"event": "started", "step": 0, "of": 10}])
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

    def test_chosen_preview_does_not_return_in_the_next_scene(self) -> None:
        run = self.make_run("paused", [{"event": "started", "step": 0, "of": 10}, {"event": "paused", "step": 4}])
        run.cases.write_text("name,image,label,role\none,a,b,validation\n", encoding="utf-8")
        run.preview.mkdir()
        scan, label = ellipsoid(1)
        write_preview(run, "one", 4, label.T, np.eye(4), scan.T)
        self.module.widget.runs.show(run)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
        for _ in range(2):
            choose(self.ui.previewSelector, "one")
            self.wait_for(lambda: "after iteration 4" in self.ui.previewStatusLabel.text, "the preview")
            close_scene()
            self.module.widget.watching.update()  # as after the next poll
            self.assertIsNone(self.module.widget.watching._loading)
            self.assertEqual((self.ui.previewSelector.currentText, self.ui.previewStatusLabel.text), ("none", ""))

    def test_preview_of_a_discarded_run_is_not_shown_for_a_new_run_of_its_name(self) -> None:
        begun = [{"event": "started", "step": 0, "of": 10}, {"event": "paused", "step": 4}]
        for seed in (1, 2):
            run = self.make_run("run-1", begun)
            run.cases.write_text("name,image,label,role\none,a,b,validation\n", encoding="utf-8")
            run.preview.mkdir()
            scan, label = ellipsoid(seed)
            write_preview(run, "one", 4, label.T, np.eye(4), scan.T)
            self.module.widget.runs.show(run)
            self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
            choose(self.ui.previewSelector, "one")
            self.wait_for(lambda: "after iteration 4" in self.ui.previewStatusLabel.text, "the preview")
            volume = slicer.util.getFirstNodeByName("run-1: one")
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), scan)
            with Person() as person:
                person.expects("Delete the run", "Ok")
                click(self.ui.discardButton)
            for kind in ("ScalarVolume", "Segmentation"):
                self.assertEqual(slicer.util.getNodesByClass(f"vtkMRML{kind}Node"), [])

    def test_status_shows_speed_remaining_time_and_memory(self) -> None:
        losses = {"total": 1.0}
        begun = {"event": "started", "step": 0, "of": 400, "labelled": 1, "unlabelled": 0, "validation": 0}
        begun |= {"device": "cpu", "resumed": False}
        going = {"event": "progress", "step": 343, "of": 400, "losses": losses, "steps_per_s": 0.741, "eta_s": 77.4}
        run = self.make_run("going", [begun, {**going, "memory_bytes": 820_000_000}])
        with run_lock(run.lock):
            self.module.widget.runs.refresh()
            text = "Running, 343 of 400 iterations, 0.74 per second, 77 s left, 0.8 GB of memory."
            self.wait_for(lambda: self.ui.runStatusLabel.text == text, self.ui.runStatusLabel.text)
            self.assertTrue(self.ui.pauseButton.enabled and self.ui.stopButton.enabled)
            self.assertFalse(self.ui.resumeButton.enabled or self.ui.discardButton.enabled)

    def test_damaged_run_folder_does_not_block_the_module(self) -> None:
        run = self.make_run("damaged", [])
        run.recipe.write_text("{", encoding="utf-8")
        run.events.write_bytes(b"\xff\xfe\n{\n[]\n")
        (self.runs / "no run").mkdir()
        (self.runs / "file").touch()
        self.module.widget.runs.refresh()
        self.assertEqual(self.ui.runSelector.count, 1)
        self.assertIn("Failed", self.ui.runStatusLabel.text)


if __name__ == "__main__":
    unittest.main()
