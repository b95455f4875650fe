"""What goes wrong in the worker ends in one clear message, the scene as it was, and the next Apply working."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import slicer
from dcamt_testing.broken_workers import BUG, GPU_TOO_SMALL_FOR_THE_MODEL, without_package
from fault_case import LARGE, FaultCase
from segmentation_case import (
    Person,
    add_scan,
    choose,
    click,
    own_mask,
    process_events_until,
    scene_state,
)


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
