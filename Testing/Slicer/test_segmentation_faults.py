"""What goes wrong midway ends in one clear message, the scene as it was, and the next Apply working."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import unittest
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt_testing.broken_workers import BUG, GPU_TOO_SMALL_FOR_THE_MODEL, without_package
from DCAMTSegmentationLib import worker_process
from DCAMTSlicerLib.engine_process import EngineProcess, wait_for_killed
from segmentation_case import (
    PATIENCE_S,
    Person,
    SegmentationCase,
    add_scan,
    announce_quitting,
    assert_no_pause,
    choose,
    click,
    close_scene,
    own_mask,
    process_events_until,
    scene_state,
    work_seconds,
)

LARGE = (120, 150, 150)
"""Voxels of a scan that takes the tiny model some seconds."""
WORKING = ("Preparing", "Segmenting", "Finding")

DEAF = """
from dcamt.worker import protocol
from dcamt.inference import serving, worker
worker.cancelled_by = lambda line: "nobody" if protocol.cancelled_by(line) else None
"""
"""A worker that takes no notice of a request to cancel."""

RUN = "import runpy; runpy.run_module('dcamt.inference.worker', run_name='__main__')"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class FaultCase(SegmentationCase):
    @property
    def worker(self) -> Any:
        return self.logic._worker

    def pid(self) -> int:
        process_events_until(lambda: self.worker._process is not None, 10, "the worker's start")
        return int(self.worker._process._process.processId())

    def begin(self, volume: Any) -> int:
        """Start, and wait until the network computes; returns the worker's process number."""
        self.prepare(volume)
        self.state = scene_state()
        click(self.ui.applyButton)
        self.wait_for_stage(*WORKING)
        return self.pid()

    def assert_the_next_apply_works(self, volume: Any = None) -> None:
        volume = volume or add_scan("next")
        segmentation = self.segment(volume)
        self.assertGreater(int(own_mask(segmentation, volume).sum()), 0)

    def broken_worker(self, program: str) -> None:
        """Let the worker's interpreter run `program` first."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name, "broken.py").write_text(f"{program}\n{RUN}\n", encoding="utf-8")
        script = Path(folder.name, "python")
        python = shutil.which("PythonSlicer") or sys.executable
        code = f"import sys; sys.path.insert(0, ''); exec(open('{folder.name}/broken.py').read())"
        script.write_text(f'#!/bin/sh\nexec "{python}" -c "{code}"\n', encoding="utf-8")
        script.chmod(0o755)
        self.whole = self.worker._python
        self.worker._python = str(script)

    def repaired_worker(self) -> None:
        self.worker._python = self.whole


class CancelTest(FaultCase):
    def test_cancel_stops_at_once_and_leaves_the_scene_as_it_was(self) -> None:
        pid = self.begin(add_scan(shape=LARGE))
        self.assertEqual(self.ui.applyButton.text, "Cancel")
        folders = self.worker._root
        assert_no_pause(work_seconds(lambda: click(self.ui.applyButton), tries=1))
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")
        self.assertEqual(os.listdir(folders), [])
        self.assertEqual(scene_state(), self.state)
        self.assert_the_next_apply_works()
        # The process and its model serve the next segmentation, too.
        self.assertEqual(self.pid(), pid)
        self.assertEqual(self.logic.log().count("Loading the model"), 1)

    def test_a_process_that_does_not_stop_is_killed_and_the_next_request_is_sent_again(self) -> None:
        with mock.patch.object(worker_process, "CANCEL_GRACE_MS", 100):
            self.broken_worker(DEAF)
            pid = self.begin(add_scan(shape=LARGE))
            click(self.ui.applyButton)
            self.repaired_worker()
            self.assert_the_next_apply_works()
        process_events_until(lambda: not alive(pid), PATIENCE_S, "the process's end")

    def test_cancel_before_the_worker_is_up(self) -> None:
        self.prepare(add_scan())
        state = scene_state()
        click(self.ui.applyButton)
        click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")
        for _turn in range(20):
            slicer.app.processEvents()
        self.assertEqual(scene_state(), state)
        self.assertIsNone(self.settings.outputSegmentation)
        self.assert_the_next_apply_works()

    def test_cancel_and_apply_again_many_times(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        for turn in range(6):
            click(self.ui.applyButton)
            until = time.monotonic() + 0.15 * turn
            while time.monotonic() < until:
                slicer.app.processEvents()
            if self.logic.isRunning():
                click(self.ui.applyButton)
        self.assert_the_next_apply_works(volume)

    def test_cancel_while_the_result_comes_in_leaves_an_earlier_one_whole(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        mask, rows = own_mask(segmentation, volume), self.logic.measurements(segmentation)
        state = scene_state()
        from DCAMTSegmentationLib import segmentation_job

        steps, real = [], segmentation_job.insert_result

        def slowly(*arguments: Any) -> Any:
            inner = real(*arguments)
            while True:
                try:
                    next(inner)
                except StopIteration as end:
                    return end.value
                steps.append(1)
                if len(steps) == 2:
                    self.logic.cancel()
                yield

        segmentation_job.insert_result = slowly
        self.addCleanup(setattr, segmentation_job, "insert_result", real)
        choose(self.ui.qualityComboBox, "Fast: one branch")
        click(self.ui.applyButton)
        self.wait()
        self.assertGreaterEqual(len(steps), 2)
        self.assertEqual(scene_state(), state)
        np.testing.assert_array_equal(own_mask(segmentation, volume), mask)
        self.assertEqual(self.logic.measurements(segmentation), rows)
        self.assertIsNotNone(self.logic.trust(segmentation))


class WorkerFaultTest(FaultCase):
    def fails(self, said: str, start: Callable[[], None]) -> str:
        """Exactly one error is shown, and it says so; the scene is as it was."""
        with Person() as person:
            person.expects(said, "Ok")
            start()
            self.wait()
        self.assertEqual(len(person.seen), 1)
        self.assertEqual(scene_state(), self.state)
        self.assertEqual(self.ui.statusLabel.text, person.seen[0].text)
        self.assertFalse(self.ui.progressBar.visible)
        return str(person.seen[0].text)

    def apply(self) -> None:
        self.state = scene_state()
        click(self.ui.applyButton)

    def test_killed_by_the_system(self) -> None:
        pid = self.begin(add_scan(shape=LARGE))
        self.fails("memory ran out", lambda: os.kill(pid, signal.SIGKILL))
        self.assert_the_next_apply_works()

    def test_crashed(self) -> None:
        pid = self.begin(add_scan(shape=LARGE))
        self.fails("crashed", lambda: os.kill(pid, signal.SIGSEGV))
        self.assert_the_next_apply_works()

    def test_a_bug_in_the_engine(self) -> None:
        self.broken_worker(BUG)
        volume = add_scan()
        self.prepare(volume)
        self.fails("AssertionError: a bug", self.apply)
        self.assertIn("Traceback", self.logic.log())
        self.repaired_worker()
        self.assert_the_next_apply_works(volume)

    def test_a_package_that_is_missing(self) -> None:
        self.broken_worker(without_package("torch"))
        volume = add_scan()
        self.prepare(volume)
        self.fails("packages are missing: torch", self.apply)
        self.repaired_worker()
        self.assert_the_next_apply_works(volume)

    def test_an_interpreter_that_cannot_be_started(self) -> None:
        self.whole = self.worker._python
        self.worker._python = "/nowhere/PythonSlicer"
        volume = add_scan()
        self.prepare(volume)
        self.fails("could not be started (/nowhere/PythonSlicer)", self.apply)
        self.repaired_worker()
        self.assert_the_next_apply_works(volume)

    def test_a_gpu_without_room_leads_to_the_cpu_and_says_so(self) -> None:
        self.broken_worker(GPU_TOO_SMALL_FOR_THE_MODEL)
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertGreater(int(own_mask(segmentation, volume).sum()), 0)
        self.assertIn("The GPU's memory did not suffice; the CPU was used.", self.ui.statusLabel.text)
        self.assertIn("The GPU's memory did not suffice", self.logic.log())

    def test_a_refusal_carries_no_traceback(self) -> None:
        choose(self.ui.deviceComboBox, "GPU (Apple)")
        self.prepare(add_scan())
        with Person() as person:
            person.expects("'mps'", "Ok")
            self.apply()
            self.wait()
        self.assertEqual(person.seen[0].detail, "")
        self.assertNotIn("Traceback", self.logic.log())

    def test_a_device_that_is_not_there(self) -> None:
        choose(self.ui.deviceComboBox, "GPU (Apple)")
        volume = add_scan()
        self.prepare(volume)
        self.fails("'mps'", self.apply)
        choose(self.ui.deviceComboBox, "Automatic")
        self.assert_the_next_apply_works(volume)

    def full(self, file: str) -> None:
        """From now on there is no room for this file."""
        real = self.worker.make_folder

        def make() -> str:
            folder = real()
            Path(folder, file).symlink_to("/dev/full")
            return str(folder)

        self.worker.make_folder = make
        self.addCleanup(self.worker.__dict__.pop, "make_folder", None)

    def test_a_full_disk_while_the_volume_is_written_for_the_worker(self) -> None:
        if not os.path.exists("/dev/full"):
            self.skipTest("needs /dev/full")
        volume = add_scan()
        self.prepare(volume)
        self.full("volume.npy")
        self.fails("the disk is full", self.apply)
        del self.worker.make_folder
        self.assert_the_next_apply_works(volume)

    def test_a_disk_that_is_full_as_the_result_is_written(self) -> None:
        if not os.path.exists("/dev/full"):
            self.skipTest("needs /dev/full")
        volume = add_scan()
        self.prepare(volume)
        self.full("disagreement.npy")
        self.fails("the disk is full", self.apply)
        del self.worker.make_folder
        self.assert_the_next_apply_works(volume)

    def test_no_temporary_folder(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        before, self.worker._temporary_folder = self.worker._temporary_folder, "/nowhere/at/all"
        self.fails("No temporary folder", self.apply)
        self.worker._temporary_folder = before
        self.assert_the_next_apply_works(volume)

    def test_a_volume_without_an_image(self) -> None:
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        self.prepare(empty)
        self.fails("empty: holds no image", self.apply)
        self.assert_the_next_apply_works()

    def test_a_failure_is_shown_when_the_module_was_left(self) -> None:
        pid = self.begin(add_scan(shape=LARGE))
        self.module.leave()
        with Person() as person:
            person.expects("memory ran out", "Ok")
            os.kill(pid, signal.SIGKILL)
            process_events_until(lambda: not self.logic.isRunning(), 10, "the end")
        self.assertEqual(len(person.seen), 1)
        self.module.enter()
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assert_the_next_apply_works()


class SceneMidwayTest(FaultCase):
    def test_closing_the_scene(self) -> None:
        pid = self.begin(add_scan(shape=LARGE))
        close_scene()
        self.assertFalse(self.logic.isRunning())
        self.assertFalse(self.worker.is_busy)
        self.assertEqual(self.pid(), pid)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assert_the_next_apply_works()

    def test_closing_the_scene_while_the_volume_is_written_for_the_worker(self) -> None:
        self.prepare(add_scan(shape=LARGE))
        click(self.ui.applyButton)
        close_scene()
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])
        self.assert_the_next_apply_works()

    def test_deleting_the_volume(self) -> None:
        volume = add_scan(shape=(60, 80, 80))
        self.begin(volume)
        with Person() as person:
            person.expects("removed or changed meanwhile", "Ok")
            slicer.mrmlScene.RemoveNode(volume)
            process_events_until(lambda: not self.logic.isRunning(), PATIENCE_S, "the end")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
        self.assert_the_next_apply_works()

    def test_deleting_the_output_makes_a_new_one(self) -> None:
        volume = add_scan(shape=(60, 80, 80))
        first = self.segment(volume)
        self.begin(volume)
        slicer.mrmlScene.RemoveNode(first)
        self.wait()
        (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.assertGreater(int(own_mask(segmentation, volume).sum()), 0)
        self.assertEqual(self.settings.outputSegmentation, segmentation)

    def test_another_selection_does_not_redirect_the_result(self) -> None:
        volume, other = add_scan("one", shape=(60, 80, 80)), add_scan("two", seed=4)
        self.begin(volume)
        choose(self.ui.inputSelector, other)
        self.wait()
        self.assertIsNone(self.settings.outputSegmentation)  # it belongs to the other volume
        (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.assertEqual(segmentation.GetName(), "one segmentation")
        self.assertGreater(int(own_mask(segmentation, volume).sum()), 0)
        choose(self.ui.inputSelector, volume)
        self.assertEqual(self.settings.outputSegmentation, segmentation)

    def test_a_volume_that_is_moved_during_the_work(self) -> None:
        volume = add_scan(shape=(60, 80, 80))
        self.begin(volume)
        with Person() as person:
            person.expects("was moved meanwhile", "Ok")
            volume.SetOrigin(5.0, 6.0, 7.0)
            process_events_until(lambda: not self.logic.isRunning(), PATIENCE_S, "the end")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])

    def test_edited_voxels_and_a_changed_transform_are_noted(self) -> None:
        volume = add_scan(shape=(60, 80, 80))
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.0, 1.0, 1.0, 1.0])))
        self.begin(volume)
        slicer.util.arrayFromVolume(volume)[30, 40, 40] += 1
        slicer.util.arrayFromVolumeModified(volume)
        shift = np.eye(4)
        shift[0, 3] = 20
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shift))
        volume.SetAndObserveTransformNodeID(transform.GetID())
        self.wait()
        for text in ("The voxels of LGE were changed meanwhile", "The transform of LGE was changed meanwhile"):
            self.assertIn(text, self.ui.statusLabel.text)
        segmentation = self.settings.outputSegmentation
        self.assertEqual(segmentation.GetTransformNodeID(), transform.GetID())

    def test_an_unchanged_volume_is_noted_as_such(self) -> None:
        self.segment(add_scan())
        self.assertNotIn("meanwhile", self.ui.statusLabel.text)

    def test_a_volume_that_is_resampled_during_the_work(self) -> None:
        volume = add_scan(shape=(60, 80, 80))
        self.begin(volume)
        with Person() as person:
            person.expects("removed or changed meanwhile", "Ok")
            slicer.util.updateVolumeFromArray(volume, np.zeros((5, 6, 7), np.int16))
            process_events_until(lambda: not self.logic.isRunning(), PATIENCE_S, "the end")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])


class ProcessTest(FaultCase):
    def test_the_process_ends_with_the_module(self) -> None:
        self.segment(add_scan())
        pid, root = self.pid(), self.worker._root
        self.assertTrue(alive(pid))
        self.module.close()
        process_events_until(lambda: not alive(pid), PATIENCE_S, "the process's end")
        self.assertFalse(os.path.exists(root))

    def test_the_process_ends_with_slicer(self) -> None:
        self.segment(add_scan())
        pid = self.pid()
        announce_quitting()
        process_events_until(lambda: not alive(pid), PATIENCE_S, "the process's end")

    def test_a_slicer_that_is_killed_leaves_no_voxels_behind(self) -> None:
        self.begin(add_scan(shape=LARGE))
        root = self.worker._root
        self.assertTrue(list(Path(root).rglob("volume.npy")))
        with Person() as person:
            person.expects("ended unexpectedly", "Ok")
            self.worker._process._process.closeWriteChannel()  # as the system does for a process that is gone
            process_events_until(lambda: not os.path.exists(root), 20, "the folder's end")
            process_events_until(lambda: not self.logic.isRunning(), 20, "the job's end")

    def test_the_process_ends_after_idle_minutes_and_comes_back(self) -> None:
        volume = add_scan()
        pid = self.begin(volume)
        idle = self.worker._idle
        with mock.patch.object(idle, "start", wraps=idle.start) as start:
            self.wait()
        # After the answer it waits for a quarter of an hour, which is over here at once.
        start.assert_called_with(15 * 60000)
        self.assertTrue(alive(pid))
        idle.start(0)
        process_events_until(lambda: not alive(pid), PATIENCE_S, "the process's end")
        self.assert_the_next_apply_works(volume)

    def test_the_process_starts_with_the_first_apply_and_not_before(self) -> None:
        self.prepare(add_scan())
        self.assertIsNone(self.worker._process)

    def test_files_written_for_the_worker_are_removed(self) -> None:
        self.segment(add_scan())
        self.assertEqual(os.listdir(self.worker._root), [])


class EngineProcessTest(unittest.TestCase):
    def test_a_process_is_not_dropped_within_its_own_signal(self) -> None:
        """PythonQt deletes an object with its last reference, and Qt goes on using it after the signal."""
        for python, words in (("/nowhere/PythonSlicer", []), (None, ["-c", 'print(\'{"event": "x"}\')'])):
            heard: list[Any] = []
            process = EngineProcess(words, heard.append, heard.append, python).start()
            wrapper = weakref.ref(process._process)
            with mock.patch.object(process, "_let_go", wraps=process._let_go) as let_go:
                process_events_until(lambda heard=heard: heard and not isinstance(heard[-1], dict), 20, "the end")
            let_go.assert_called_once()
            self.assertIsNotNone(wrapper())
            self.assertEqual(bool(heard[-1].problem), python is not None)
            self.assertEqual(heard[:-1], [] if python else [{"event": "x"}])

    def test_one_turn_of_the_event_loop_delivers_once_however_much_output_arrives(self) -> None:
        heard: list[Any] = []
        process = EngineProcess([], heard.append, heard.append)
        output = mock.Mock()
        output.readAllStandardOutput().data.return_value = b'{"event": "x"}\n' * 2
        process._process, process._runs, process.listening = output, True, True
        # By this clock each event takes longer than a turn may.
        with mock.patch("DCAMTSlicerLib.engine_process.time.monotonic", side_effect=lambda: float(len(heard))):
            for _chunk in range(5):
                process._on_output()
            self.assertEqual(len(heard), 1)
        process_events_until(lambda: len(heard) == 10, 5, "all events")

    def test_events_of_a_killed_process_are_ignored(self) -> None:
        heard: list[Any] = []
        process = EngineProcess(
            ["-c", 'print(\'{"event": "x"}\', flush=True); input()'], heard.append, heard.append
        ).start()
        process_events_until(lambda: heard, 20, "its event")
        process.kill()
        wait_for_killed(5000)
        for _turn in range(20):
            slicer.app.processEvents()
        self.assertEqual(heard, [{"event": "x"}])
        process.write(b"nobody reads it\n")
        process.kill()


class LogTest(FaultCase):
    def test_the_log_opens_on_demand_and_names_every_stage(self) -> None:
        self.assertTrue(self.ui.logCollapsibleButton.collapsed)
        self.segment(add_scan(shape=(60, 80, 80)))
        self.assertEqual(self.ui.logView.plainText, "")
        self.ui.logCollapsibleButton.collapsed = False
        for text in ("LGE, model tiny, accurate", "Loading the model", "LGE was segmented with Tiny"):
            self.assertIn(text, self.ui.logView.plainText)

    def test_progress_has_a_stage_and_a_remaining_time(self) -> None:
        volume = add_scan(shape=(60, 90, 90))
        self.prepare(volume)
        said, shares = set(), []
        click(self.ui.applyButton)
        self.assertFalse(self.ui.progressBar.isHidden())

        def look() -> bool:
            said.add(self.ui.statusLabel.text)
            shares.append(self.ui.progressBar.value)
            return not self.logic.isRunning()

        process_events_until(look, PATIENCE_S, "the end")
        self.assertTrue(any(text.startswith("Segmenting, ") and text.endswith(" left") for text in said), said)
        self.assertGreater(len(set(shares)), 3)
