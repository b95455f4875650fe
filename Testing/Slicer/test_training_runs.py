"""Runs controlled by the panel: start, pause, resume, stop, discard, and detecting runs of earlier sessions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unittest
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import slicer
from dcamt.errors import InputError
from dcamt.models.package import open_model
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import is_held, run_lock
from dcamt.runs.requests import PAUSE, write_request
from dcamt.runs.state import FAILED, FINISHED, PAUSED, RUNNING, STOPPED, run_state
from dcamt_testing.processes import is_alive
from DCAMTSlicerLib import engine_process, stepped_task
from DCAMTSlicerLib.terms_of_use import SETTINGS_GROUP
from DCAMTTrainingLib import engine_command
from DCAMTTrainingLib.panels import start as start_panel
from DCAMTTrainingLib.runs import start as run_start
from DCAMTTrainingLib.runs.start import RunPlan, is_starting, prepare_and_start, resume, started
from DCAMTTrainingLib.settings import chosen_settings
from slicer_harness import (
    LoopMonitor,
    Person,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
    in_real_slicer,
    open_module,
    process_events,
    process_events_until,
)
from training_case import ROOT, TrainingCase
from training_scenes import add_case, endless_program

SHIPPED_DOUBLE_CLICK_S = stepped_task.DOUBLE_CLICK_S


class RunsTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(3):
            add_case(f"scan{number}", number)
        click(self.ui.addSceneButton)
        self.ui.validationSpinBox.value = 1
        click(self.ui.validationButton)

    def start(self, **changes: str) -> RunFolder:
        """Click Start and wait for the first iterations."""
        self.choose_tiny_model_and_settings(**changes)
        self.set_estimate()
        name = self.session.settings.runName
        click(self.ui.startButton)
        run = RunFolder(self.runs / name)
        self.wait_for(lambda: run_state(run).iteration > 0 or not self.job_running(), f"the first steps of {name}")
        self.assertGreater(run_state(run).iteration, 0, f"{self.ui.problemsLabel.text} {self.ui.runStatusLabel.text}")
        return run

    def job_running(self) -> bool:
        job = self.module.widget.starting.job
        return (job is not None and job.running) or any(one.process.poll() is None for one in started)

    def state(self, run: RunFolder) -> str:
        return run_state(run).state

    def test_run_finishes_with_charts_and_results(self) -> None:
        self.choose_tiny_model_and_settings(iterations="30")
        self.set_estimate()
        process_events()
        run = RunFolder(self.runs / "run-1")
        with LoopMonitor() as monitor:
            click(self.ui.startButton)
            self.wait_for(lambda: self.state(run) == FINISHED, "the end of the run")
            self.wait_for(lambda: self.ui.useModelButton.enabled, "its results in the panel")
        assert_stays_responsive(monitor.longest_work)
        self.assertIn("Finished", self.ui.runStatusLabel.text)
        # All other sections are closed so that the results and their buttons fit on a laptop's screen.
        self.assertFalse(self.ui.resultsButton.collapsed)
        others = (self.ui.casesButton, self.ui.taskButton, self.ui.runButton, self.ui.watchButton)
        self.assertTrue(all(section.collapsed for section in others))
        self.assertEqual(open_model(run.model).card.trained_on["iterations"], 30)
        # Charts are added to the scene only on request.
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotChartNode"), [])
        click(self.ui.lossesButton)
        click(self.ui.scoresButton)
        charts = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLPlotChartNode")}
        self.assertEqual(charts, {"run-1: losses", "run-1: validation"})
        self.assertEqual(self.ui.resultsTable.model().rowCount(), 2)  # the case and the mean
        self.assertTrue(self.ui.reportButton.enabled)
        self.assertEqual(self.session.settings.runName, "run-2")
        # The scene's volumes were written to the run's folder and are unchanged in the scene.
        self.assertEqual(len(list(run.scans.glob("*.nrrd"))), 6)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 3)

    def test_run_is_paused_resumed_and_stopped(self) -> None:
        run = self.start(iterations="100000")
        self.wait_for(lambda: self.ui.pauseButton.enabled, "the run to be seen running")
        self.assertFalse(self.ui.discardButton.enabled)
        click(self.ui.pauseButton)
        self.wait_for(lambda: self.state(run) == PAUSED, "the pause")
        self.assertFalse(is_held(run.lock))
        self.wait_for(lambda: self.ui.resumeButton.enabled, "the pause in the panel")
        self.assertIn("Paused", self.ui.runStatusLabel.text)
        step = run_state(run).iteration
        click(self.ui.resumeButton)
        self.wait_for(lambda: run_state(run).iteration > step, "the run to go on")
        started = [event.iteration for event in run.read_events() if event.kind == "started"]
        self.assertEqual(started, [0, step])
        self.wait_for(lambda: self.ui.stopButton.enabled, "the run to be seen running")
        click(self.ui.stopButton)
        self.wait_for(lambda: self.state(run) == STOPPED, "the stop")
        self.wait_for(lambda: self.ui.useModelButton.enabled, "its model in the panel")
        self.assertTrue(run.model.is_file())
        self.assertIn("Stopped", self.ui.runStatusLabel.text)

    def test_stopping_a_paused_run_writes_its_models(self) -> None:
        run = self.start(iterations="100000")
        self.wait_for(lambda: self.ui.pauseButton.enabled, "the run to be seen running")
        click(self.ui.pauseButton)
        self.wait_for(lambda: self.state(run) == PAUSED and self.ui.stopButton.enabled, "the pause in the panel")
        step = run_state(run).iteration
        choose(self.ui.deviceSelector, "CPU")
        click(self.ui.stopButton)
        arguments = [one.process.args for one in started if one.run.path == run.path][-1]
        self.assertEqual(arguments[-2:], ["--device", "cpu"])
        self.assertFalse(self.ui.stopButton.enabled)
        self.assertFalse(self.ui.resumeButton.enabled)
        self.wait_for(lambda: self.state(run) == STOPPED, "the stop")
        self.wait_for(lambda: self.ui.useModelButton.enabled, "its model in the panel")
        self.assertEqual(open_model(run.model).card.trained_on["iterations"], step)
        self.assertFalse(self.ui.stopButton.enabled)

    def test_stopping_a_run_before_its_pause_is_shown_starts_one_process(self) -> None:
        run = self.start(iterations="100000")
        self.wait_for(lambda: self.ui.stopButton.enabled, "the run to be seen running")
        self.module.widget.runs.watch.close()
        write_request(run, PAUSE)
        self.wait_for(lambda: self.state(run) == PAUSED, "the pause")
        self.assertIn("Running", self.ui.runStatusLabel.text)
        click(self.ui.stopButton)
        for _ in range(2):
            for button in (self.ui.stopButton, self.ui.pauseButton, self.ui.resumeButton, self.ui.discardButton):
                self.assertFalse(button.enabled)
            self.assertIn("Starting", self.ui.runStatusLabel.text)
            self.module.widget.runs.refresh()  # entering the module again does the same
        self.wait_for(lambda: self.state(run) == STOPPED, "the stop")

    def test_run_continues_without_scene_and_module_and_is_found_again(self) -> None:
        run = self.start(iterations="100000")
        close_scene()
        self.assertEqual(self.state(run), RUNNING)
        self.close_module()
        step = run_state(run).iteration
        process_events_until(lambda: run_state(run).iteration > step)
        self.module = open_module("DCAMTTraining")
        self.ui = self.module.ui
        self.wait_for(lambda: "Running" in self.ui.runStatusLabel.text, "the run to be found running")
        self.assertIn("run-1: running", self.ui.runSelector.currentText)
        self.wait_for(lambda: self.ui.lossesButton.enabled, "its losses")
        click(self.ui.lossesButton)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")), 1)
        click(self.ui.pauseButton)
        self.wait_for(lambda: self.state(run) == PAUSED, "the pause")

    @unittest.skipIf(os.name == "nt", "needs POSIX signals")
    def test_killed_run_is_reported_and_can_be_resumed(self) -> None:
        run = self.start(iterations="100000")
        process = next(one.process for one in started if one.run.path == run.path)
        # The process has its own session, so it does not end with the application.
        self.assertNotEqual(os.getsid(process.pid), os.getsid(0))
        self.wait_for(lambda: any(event.kind == "checkpoint" for event in run.read_events()), "a checkpoint")
        process.send_signal(signal.SIGKILL)
        self.wait_for(lambda: self.state(run) == FAILED, "the end")
        self.wait_for(lambda: self.ui.resumeButton.enabled, "the failure in the panel")
        self.assertIn("The process was killed", self.ui.runStatusLabel.text)
        click(self.ui.resumeButton)
        self.wait_for(lambda: self.state(run) == RUNNING, "the run to go on")

    def test_discard_asks_first(self) -> None:
        run = self.start(iterations="2")
        self.wait_for(lambda: self.state(run) == FINISHED and self.ui.discardButton.enabled, "the end of the run")
        with Person() as person:
            person.expects("Delete the run", "Cancel")
            click(self.ui.discardButton)
        self.assertTrue(run.path.exists())
        with Person() as person:
            person.expects("Delete the run", "Ok")
            click(self.ui.discardButton)
        self.assertFalse(run.path.exists())
        self.assertEqual(self.ui.runStatusLabel.text, "No runs yet.")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotChartNode"), [])

    def test_two_runs_never_write_to_one_folder(self) -> None:
        run = self.start(iterations="100000")
        self.session.settings.runName = "run-1"
        self.assertIn("A run “run-1” exists already", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        with self.assertRaisesRegex(InputError, "exists already"):
            self.module.logic.start(print, print)
        self.assertEqual(self.state(run), RUNNING)
        with self.assertRaisesRegex(Exception, "by another process"):
            resume(run)

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

    @mock.patch.object(stepped_task, "DOUBLE_CLICK_S", SHIPPED_DOUBLE_CLICK_S)
    def test_double_click_on_start_starts_one_job_however_slow_the_start_and_fast_the_job(self) -> None:
        now = [100.0]

        class FakeJob(mock.Mock):
            """Replaces the start of a run; it takes 20 s of the event loop."""

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

    def test_task_of_one_channel_writes_and_estimates_one_channel(self) -> None:
        estimates, one = [], self.session.recipe()
        for channels in (1, 2):
            recipe = replace(one, input_channels=channels)
            plan = RunPlan(RunFolder(self.runs / "x"), recipe, self.session.table.rows, "quick")
            with (
                mock.patch.object(run_start, "export_case", side_effect=InputError("no file")) as export,
                self.assertRaises(InputError),
            ):
                list(prepare_and_start(plan))
            self.assertEqual(export.call_args.args[3], channels == 1)
            nothing = {"memory_bytes": 0, "disk_bytes": 0}
            estimates.append(self.session.estimation._with_scene_volumes(nothing, recipe)["memory_bytes"])
        self.assertGreater(estimates[0], 0)
        self.assertAlmostEqual(estimates[1], 2 * estimates[0], delta=1)

    def test_terms_of_a_shipped_model_are_accepted_before_a_run_starts_from_it(self) -> None:
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

    def open_files(self) -> list[str]:
        paths = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the descriptor with which the folder was listed
                paths.append(os.readlink(descriptor))
        return [path for path in paths if path.startswith(str(self.runs))]

    @unittest.skipIf(os.name == "nt", "runs a shell script")
    def test_closing_the_scene_cancels_a_start(self) -> None:
        self.choose_tiny_model_and_settings()
        self.set_estimate()
        click(self.ui.startButton)
        close_scene()
        process_events()
        self.assertEqual(list(self.runs.iterdir()), [])
        self.assertEqual(self.ui.startButton.text, "Start")
        self.assertFalse(self.ui.startButton.enabled)
        add_case("of the next scene")
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        # The scene is closed while the estimate is measured.
        with mock.patch.object(engine_process, "python_program", return_value=endless_program(self.folder)):
            click(self.ui.startButton)
            self.wait_for(lambda: self.session.estimation.running, "the estimation")
            close_scene()
        process_events()
        self.assertFalse(self.session.estimation.running)
        self.assertEqual(list(self.runs.iterdir()), [])

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
        self.wait_for(lambda: not is_starting(plan.run), "its end")
        self.module.widget.runs.show(plan.run)
        self.assertIn("Failed", self.ui.runStatusLabel.text)
        self.assertIn("patch must be a multiple", self.ui.runStatusLabel.text)
        self.assertFalse(self.ui.resumeButton.enabled)

    def test_problems_of_cases_are_shown_before_the_start(self) -> None:
        for index in range(3):
            self.session.table.set_role([index], "unlabelled")
        self.assertFalse(self.ui.startButton.enabled)
        self.assertIn("No case is labelled", self.ui.problemsLabel.text)
        self.session.table.set_role([0], "labelled")
        self.assertTrue(self.ui.startButton.enabled)
        self.session.settings.patch = "15,15,15"
        self.assertFalse(self.ui.startButton.enabled)
        self.assertIn("patch must be a multiple", self.ui.problemsLabel.text)


# Acts as PythonSlicer on Linux and Windows: starts the interpreter as a child and waits for it.
LAUNCHER = """#!{python}
import pathlib, subprocess, sys
child = subprocess.Popen([{python!r}, *sys.argv[1:]])
pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
sys.exit(child.wait())
"""


@unittest.skipUnless(sys.platform == "linux", "needs /proc")
class LauncherTest(TrainingCase):
    def test_cancelling_a_command_ends_the_child_of_the_launcher(self) -> None:
        launcher = self.folder / "launcher"
        launcher.write_text(LAUNCHER.format(python=sys.executable), encoding="utf-8")
        launcher.chmod(0o755)
        received = []
        with mock.patch.object(engine_process, "python_program", return_value=str(launcher)):
            # The command prints nothing and does not end while the watched run continues.
            run = RunFolder(self.runs / "watched")
            run.path.mkdir()
            with run_lock(run.lock):
                arguments = ["train", "--run", str(run.path), "--watch"]
                command = engine_command.EngineCommand(arguments, received.append, received.append).start()
                pid = self.folder / "child"
                self.wait_for(lambda: pid.exists() and pid.read_text(encoding="utf-8"), "the launcher's child")
                child = int(pid.read_text(encoding="utf-8"))
                process_events_until(lambda: len(os.listdir(f"/proc/{child}/task")) > 1 or not command.running)
                self.assertTrue(command.running)
                command.cancel()
                self.wait_for(lambda: not is_alive(child), "the child's end")
        self.assertEqual(received, [])


# An application that starts a run and is killed immediately afterwards.
KILLED_APPLICATION = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
import slicer_harness
slicer_harness.install()
from pathlib import Path
from dcamt.runs.folder import RunFolder
from DCAMTTrainingLib.runs.start import start_process
run = RunFolder(Path(sys.argv[1]))
start_process(run, ["train", "--run", str(run.path), "--resume", "--device", "cpu"])
os.kill(os.getpid(), signal.SIGKILL)
"""


@unittest.skipIf(os.name == "nt" or in_real_slicer(), "kills an application of the harness")
class KilledApplicationTest(TrainingCase):
    def test_run_continues_after_its_application_was_killed(self) -> None:
        for number in range(2):
            add_case(f"scan{number}", number)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings(iterations="100000")
        plan = self.plan()
        steps = prepare_and_start(plan)
        for _ in steps:
            pass
        self.wait_for(lambda: plan.run.checkpoint.exists() and is_held(plan.run.lock), "the run")
        write_request(plan.run, PAUSE)
        self.wait_for(lambda: run_state(plan.run).state == PAUSED, "the pause")
        last = run_state(plan.run).iteration + 20
        recipe = json.loads(plan.run.recipe.read_text(encoding="utf-8"))
        recipe["training"]["iterations"] = last
        plan.run.recipe.write_text(json.dumps(recipe), encoding="utf-8")
        arguments = [sys.executable, "-c", KILLED_APPLICATION, str(plan.run.path)]
        places = [str(ROOT / name) for name in ("Testing", "DCAMTSegmentation", "DCAMTTraining")]
        # A killed application does not remove its temporary files.
        environment = {**os.environ, "TMPDIR": str(self.folder)}
        killed = subprocess.run([*arguments, *places], check=False, capture_output=True, env=environment)
        self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
        self.wait_for(lambda: run_state(plan.run).state == FINISHED, "the end of the run")
        self.assertEqual(open_model(plan.run.model).card.trained_on["iterations"], last)

    def plan(self) -> RunPlan:
        session = self.session
        settings = chosen_settings(session.settings)
        rows = tuple(session.table.rows)
        return RunPlan(RunFolder(self.runs / "x"), session.recipe(), rows, "quick", settings, "tiny", "cpu")


if __name__ == "__main__":
    unittest.main()
