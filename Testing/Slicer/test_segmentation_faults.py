"""After a failure, one message is shown, the scene is unchanged, and the next Apply works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
from dcamt.worker.requests import SegmentRequest
from dcamt_testing.broken_workers import BUG, GPU_TOO_SMALL_FOR_THE_MODEL, without_package
from DCAMTSlicerLib.node_types import VolumeNode
from fault_case import FaultCase
from scene_nodes import add_scan, segment_mask
from slicer_harness import Person, choose, click, process_events_until
from unchanged_scene import scene_state


class WorkerFaultTest(FaultCase):
    def assert_one_error(self, text: str, start: Callable[[], None]) -> str:
        """Fail unless `start` leads to one error with `text` and leaves the scene unchanged.

        Returns:
            The error's details.
        """
        with Person() as person:
            person.expects(text, "Ok")
            start()
            self.wait()
        self.assertEqual([window.kind for window in person.seen], ["error"])
        self.assertEqual(scene_state(), self.state)
        self.assertEqual(self.ui.statusLabel.text, person.seen[0].text)
        self.assertFalse(self.ui.progressBar.visible)
        return str(person.seen[0].detail)

    def assert_apply_fails(self, text: str, volume: VolumeNode) -> str:
        self.prepare(volume)
        self.state = scene_state()
        return self.assert_one_error(text, lambda: click(self.ui.applyButton))

    def assert_broken_worker_is_reported(self, text: str) -> None:
        volume = add_scan()
        self.assert_apply_fails(text, volume)
        self.use_working_worker()
        self.assert_the_next_apply_works(volume)

    def test_message_about_a_killed_process_depends_on_the_signal(self) -> None:
        for number, message in ((signal.SIGKILL, "memory ran out"), (signal.SIGSEGV, "crashed")):
            with self.subTest(message):
                pid = self.begin(add_scan())
                self.assert_one_error(message, lambda pid=pid, number=number: os.kill(pid, number))
        self.assert_the_next_apply_works()

    def test_bug_in_the_engine_is_reported_with_a_traceback_in_the_log(self) -> None:
        self.use_worker_script(BUG)
        self.assert_broken_worker_is_reported("AssertionError: a bug")
        self.assertIn("Traceback", self.logic.log())

    def test_missing_package_is_reported(self) -> None:
        self.use_worker_script(without_package("torch"))
        self.assert_broken_worker_is_reported("packages are missing: torch")

    def test_interpreter_that_cannot_be_started_is_reported(self) -> None:
        self.worker._python = "/nowhere/PythonSlicer"
        self.assert_broken_worker_is_reported("could not be started (/nowhere/PythonSlicer)")

    def test_cpu_is_used_with_a_note_when_the_gpu_is_too_small(self) -> None:
        self.use_worker_script(GPU_TOO_SMALL_FOR_THE_MODEL)
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)
        self.assertIn("Not enough GPU memory; the CPU was used.", self.ui.statusLabel.text)
        self.assertIn("Not enough GPU memory", self.logic.log())

    def test_missing_device_is_reported_without_a_traceback(self) -> None:
        choose(self.ui.deviceComboBox, "GPU (Apple)")
        volume = add_scan()
        self.assertEqual(self.assert_apply_fails("'mps'", volume), "")
        self.assertNotIn("Traceback", self.logic.log())
        choose(self.ui.deviceComboBox, "Automatic")
        self.assert_the_next_apply_works(volume)

    def fill_disk_at(self, file: str) -> None:
        """Simulate a disk that is full when Slicer or the worker writes `file`."""
        real = self.worker.make_folder

        def make() -> str:
            folder = real()
            Path(folder, file).symlink_to("/dev/full")
            return str(folder)

        self.worker.make_folder = make
        self.addCleanup(self.worker.__dict__.pop, "make_folder", None)

    def test_full_disk_is_reported_when_the_volume_is_written_for_the_worker(self) -> None:
        if not os.path.exists("/dev/full"):
            self.skipTest("needs /dev/full")
        volume = add_scan()
        self.fill_disk_at("volume.npy")
        self.assert_apply_fails("volume.npy: the disk is full", volume)
        self.assertIn("You can choose another temporary folder", self.ui.statusLabel.text)
        del self.worker.make_folder
        self.assert_the_next_apply_works(volume)

    def test_full_disk_is_reported_when_the_result_is_written(self) -> None:
        if not os.path.exists("/dev/full"):
            self.skipTest("needs /dev/full")
        volume = add_scan()
        self.fill_disk_at("doubt.npy")
        self.assert_apply_fails("the disk is full", volume)
        del self.worker.make_folder
        self.assert_the_next_apply_works(volume)

    def test_missing_temporary_folder_is_reported(self) -> None:
        volume = add_scan()
        before, slicer.app.temporaryPath = slicer.app.temporaryPath, "/nowhere/at/all"
        self.addCleanup(setattr, slicer.app, "temporaryPath", before)
        self.assert_apply_fails("/nowhere/at/all", volume)
        slicer.app.temporaryPath = before
        self.assert_the_next_apply_works(volume)

    def test_temporary_folder_chosen_in_the_settings_is_used_at_once(self) -> None:
        self.segment(add_scan())
        before, earlier_root = slicer.app.temporaryPath, Path(self.worker._root)
        self.addCleanup(setattr, slicer.app, "temporaryPath", before)
        slicer.app.temporaryPath = str(self.home)
        self.assert_the_next_apply_works()
        self.assertEqual(Path(self.worker._root).parent, self.home)
        self.assertFalse(earlier_root.exists())
        self.assertEqual(os.listdir(self.worker._root), [])

    def test_unknown_event_of_the_worker_is_reported(self) -> None:
        self.use_worker_script("""print('{"event": "later"}', flush=True)""")
        self.assert_broken_worker_is_reported("different versions (the event 'later' is unknown). Restart Slicer.")

    def test_volume_without_an_image_is_reported(self) -> None:
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        self.assert_apply_fails("empty: holds no image", empty)
        self.assert_the_next_apply_works()

    def test_volume_with_nan_in_its_geometry_is_refused_and_does_not_block_the_next_apply(self) -> None:
        affine = np.diag([1.5, 1.5, 1.5, 1.0])
        affine[0, 3] = np.nan
        broken = add_scan("broken", affine=affine)
        self.assert_apply_fails("broken: has NaN or infinite numbers in its geometry", broken)
        self.assert_the_next_apply_works()

    def test_worker_is_not_busy_after_refusing_a_request_with_nan(self) -> None:
        folder = Path(self.worker.make_folder())
        request = SegmentRequest("tiny", folder / "volume.npy", np.full((4, 4), np.nan), folder)
        with self.assertRaises(ValueError):
            self.worker.request(request, lambda event: None)
        self.assertFalse(self.worker.is_busy)

    def test_failure_is_shown_after_the_module_was_left(self) -> None:
        pid = self.begin(add_scan())
        self.module.leave()
        with Person() as person:
            person.expects("memory ran out", "Ok")
            os.kill(pid, signal.SIGKILL)
            process_events_until(lambda: not self.logic.isRunning(), "the end")
        self.assertEqual(len(person.seen), 1)
        self.module.enter()
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assert_the_next_apply_works()
