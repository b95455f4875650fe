"""Test training runs in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unittest
from unittest import mock

import slicer
from dcamt.models.package import open_model
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import is_held, run_lock
from dcamt.runs.requests import PAUSE, write_request
from dcamt.runs.state import FAILED, FINISHED, PAUSED, RUNNING, STOPPED, run_state
from dcamt_testing.broken_workers import SLOW_TRAINING
from dcamt_testing.processes import is_alive
from DCAMTSlicerLib import engine_process
from DCAMTTrainingLib import engine_command
from DCAMTTrainingLib.panels.sections import SECTIONS
from DCAMTTrainingLib.runs import start as run_start
from DCAMTTrainingLib.runs.start import RunPlan, prepare_and_start, started
from DCAMTTrainingLib.settings import chosen_settings
from engine_case import write_python
from scene_nodes import add_case
from slicer_harness import (
    LoopMonitor,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
    open_module,
    process_events,
    process_events_until,
)
from training_case import ROOT, CasesCase, TrainingCase


class RunsTest(CasesCase):
    def start(self) -> RunFolder:
        """Click Start for a long run, and wait for the first iterations."""
        if os.name != "nt":  # `write_python` writes a shell script, which Windows cannot start.
            python = write_python(self.folder, SLOW_TRAINING, "dcamt")
            patch = mock.patch.object(run_start, "python_program", return_value=python)
            patch.start()
            self.addCleanup(patch.stop)
        self.choose_tiny_model_and_settings(iterations="100000")
        self.measure()
        name = self.session.settings.runName
        click(self.ui.startButton)
        run = RunFolder(self.runs / name)
        self.wait_for(
            lambda: run_state(run).iteration > 0 or not self.is_run_starting_or_running(),
            f"the first iterations of {name}",
        )
        self.assertGreater(run_state(run).iteration, 0, f"{self.ui.problemsLabel.text} {self.ui.runStatusLabel.text}")
        return run

    def is_run_starting_or_running(self) -> bool:
        job = self.module.widget.starting.job
        return (job is not None and job.running) or any(one.process.poll() is None for one in started)

    def state(self, run: RunFolder) -> str:
        return run_state(run).state

    def test_run_finishes_with_charts_and_results(self) -> None:
        self.choose_tiny_model_and_settings(iterations="30")
        self.measure()
        process_events()
        run = RunFolder(self.runs / "run-1")
        with LoopMonitor() as monitor:
            click(self.ui.startButton)
            self.wait_for(lambda: self.state(run) == FINISHED, "the end of the run")
            self.wait_for(lambda: self.ui.useModelButton.enabled, "its results in the panel")
        assert_stays_responsive(monitor.pause)
        self.assertIn("Finished", self.ui.runStatusLabel.text)
        # All other sections are closed so that the results and their buttons fit on a laptop's screen.
        opened = [name for name in SECTIONS if not getattr(self.ui, name).collapsed]
        self.assertEqual(opened, ["resultsButton"])
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
        # The scene's volumes and labels were written to the run's folder, and no volume was added to the scene.
        self.assertEqual(len(list(run.scans.glob("*.nrrd"))), 6)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 3)

    def test_run_is_paused_resumed_and_stopped(self) -> None:
        run = self.start()
        self.wait_for(lambda: self.ui.pauseButton.enabled, "the run to be shown as running")
        self.assertFalse(self.ui.discardButton.enabled)
        click(self.ui.pauseButton)
        self.wait_for(lambda: self.state(run) == PAUSED, "the pause")
        self.assertFalse(is_held(run.lock))
        self.wait_for(lambda: self.ui.resumeButton.enabled, "the pause in the panel")
        self.assertIn("Paused", self.ui.runStatusLabel.text)
        iteration = run_state(run).iteration
        click(self.ui.resumeButton)
        self.wait_for(lambda: run_state(run).iteration > iteration, "the run to go on")
        starts = [event.iteration for event in run.read_events() if event.kind == "started"]
        self.assertEqual(starts, [0, iteration])
        self.wait_for(lambda: self.ui.stopButton.enabled, "the run to be shown as running")
        click(self.ui.stopButton)
        self.wait_for(lambda: self.state(run) == STOPPED, "the stop")
        self.wait_for(lambda: self.ui.useModelButton.enabled, "its model in the panel")
        self.assertTrue(run.model.is_file())
        self.assertIn("Stopped", self.ui.runStatusLabel.text)

    def test_stopping_a_paused_run_starts_a_process_that_writes_its_model(self) -> None:
        """The click on Stop comes before the panel shows the pause."""
        run = self.start()
        self.wait_for(lambda: self.ui.stopButton.enabled, "the run to be shown as running")
        choose(self.ui.deviceSelector, "CPU")
        self.module.widget.runs.watch.close()
        write_request(run, PAUSE)
        self.wait_for(lambda: self.state(run) == PAUSED, "the pause")
        iteration = run_state(run).iteration
        self.assertIn("Running", self.ui.runStatusLabel.text)
        click(self.ui.stopButton)
        arguments = [one.process.args for one in started if one.run.path == run.path][-1]
        self.assertEqual(arguments[-2:], ["--device", "cpu"])
        for _ in range(2):
            for button in (self.ui.stopButton, self.ui.pauseButton, self.ui.resumeButton, self.ui.discardButton):
                self.assertFalse(button.enabled)
            self.assertIn("Starting", self.ui.runStatusLabel.text)
            self.module.widget.runs.refresh()  # called whenever the module is entered
        self.wait_for(lambda: self.state(run) == STOPPED, "the stop")
        self.assertEqual(open_model(run.model).card.trained_on["iterations"], iteration)

    def test_run_continues_without_scene_and_module_and_is_found_again(self) -> None:
        run = self.start()
        close_scene()
        self.assertEqual(self.state(run), RUNNING)
        self.close_module()
        iteration = run_state(run).iteration
        process_events_until(lambda: run_state(run).iteration > iteration)
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
        run = self.start()
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


# PythonSlicer may be a launcher like this.
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
            # While the test holds the run's lock, the command waits and prints nothing.
            run = RunFolder(self.runs / "watched")
            run.path.mkdir()
            with run_lock(run.lock):
                arguments = ["train", "--run", str(run.path), "--watch"]
                command = engine_command.EngineCommand(arguments, received.append, received.append).start()
                pid = self.folder / "child"
                self.wait_for(lambda: pid.exists() and pid.read_text(encoding="utf-8"), "the launcher's child")
                child = int(pid.read_text(encoding="utf-8"))
                # Cancelling kills only the launcher, and closes stdin. The child's second thread waits until stdin
                # closes, and then ends the child. So cancel only after the child started this thread.
                process_events_until(lambda: len(os.listdir(f"/proc/{child}/task")) > 1 or not command.running)
                self.assertTrue(command.running)
                command.cancel()
                self.wait_for(lambda: not is_alive(child), "the child's end")
        self.assertEqual(received, [])


# An application that starts a run and is killed immediately afterwards. The import of `start_process` also imports
# Slicer's modules. Starting a process does not use these modules, so mocks replace them.
KILLED_APPLICATION = """
import json, os, signal, sys
from pathlib import Path
from unittest import mock
sys.path[:0] = sys.argv[3:]
for name in ("slicer", "slicer.util", "slicer.i18n", "qt", "vtk", "vtk.util", "vtk.util.numpy_support"):
    sys.modules[name] = mock.MagicMock()
from dcamt.runs.folder import RunFolder
from DCAMTTrainingLib.runs.start import start_process
start_process(RunFolder(Path(sys.argv[1])), json.loads(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@unittest.skipIf(os.name == "nt", "needs POSIX signals")
class KilledApplicationTest(TrainingCase):
    def test_run_continues_after_its_application_was_killed(self) -> None:
        for number in range(2):
            add_case(f"scan{number}", number)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings(iterations="20")
        plan = self.plan()
        with mock.patch.object(run_start, "start_process") as start_process:
            for _step in prepare_and_start(plan):
                pass
        run, train_arguments = start_process.call_args.args
        arguments = [sys.executable, "-c", KILLED_APPLICATION, str(run.path), json.dumps(train_arguments)]
        places = [str(ROOT / name) for name in ("DCAMTSegmentation", "DCAMTTraining")]
        killed = subprocess.run([*arguments, *places], check=False, capture_output=True)
        self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
        self.wait_for(lambda: run_state(run).state == FINISHED, "the end of the run")
        self.assertEqual(open_model(run.model).card.trained_on["iterations"], 20)

    def plan(self) -> RunPlan:
        session = self.session
        settings = chosen_settings(session.settings)
        rows = tuple(session.table.rows)
        return RunPlan(RunFolder(self.runs / "x"), session.recipe(), rows, "quick", settings, "tiny", "cpu")
