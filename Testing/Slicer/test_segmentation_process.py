"""The worker's process: when it starts and ends, how its events are delivered, and its log."""

from __future__ import annotations

import os
import sys
import unittest
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import qt
import slicer
from dcamt_testing.broken_workers import EXPECTS_LONG_WORK
from dcamt_testing.processes import is_alive
from DCAMTSlicerLib import engine_process
from DCAMTSlicerLib.engine_process import EngineProcess, wait_for_killed
from fault_case import FaultCase
from scene_nodes import add_scan
from slicer_harness import Person, announce_quitting, click, process_events_until


class ProcessTest(FaultCase):
    def test_process_starts_with_the_first_apply_and_ends_with_the_module(self) -> None:
        self.prepare(add_scan())
        self.assertIsNone(self.worker._process)
        click(self.ui.applyButton)
        self.wait()
        pid, root = self.pid(), self.worker._root
        self.assertTrue(is_alive(pid))
        self.assertEqual(os.listdir(root), [])  # the files written for the worker are removed
        self.module.close()
        process_events_until(lambda: not is_alive(pid), "the process's end")
        self.assertFalse(os.path.exists(root))

    def test_process_ends_with_slicer(self) -> None:
        self.segment(add_scan())
        pid = self.pid()
        announce_quitting()
        process_events_until(lambda: not is_alive(pid), "the process's end")

    def test_voxel_files_are_removed_when_slicer_is_killed(self) -> None:
        self.begin(add_scan())
        root = self.worker._root
        self.assertTrue(list(Path(root).rglob("volume.npy")))
        with Person() as person:
            person.expects("ended unexpectedly", "Ok")
            self.worker._process._process.closeWriteChannel()  # as the operating system does when Slicer is killed
            process_events_until(lambda: not os.path.exists(root), "the folder's end")
            process_events_until(lambda: not self.logic.isRunning(), "the job's end")

    def test_idle_process_ends_and_is_started_again(self) -> None:
        volume = add_scan()
        pid = self.begin(volume)
        idle = self.worker._idle
        with mock.patch.object(idle, "start", wraps=idle.start) as start:
            self.wait()
        start.assert_called_with(15 * 60000)
        self.assertTrue(is_alive(pid))
        idle.start(0)  # as if 15 minutes had passed
        process_events_until(lambda: not is_alive(pid), "the process's end")
        self.assert_the_next_apply_works(volume)


class EngineProcessTest(unittest.TestCase):
    def test_process_object_is_not_deleted_during_its_own_signal(self) -> None:
        # As soon as Python holds no reference to a QProcess, PythonQt deletes the QProcess, even if Qt still uses it.
        for python, arguments in (("/nowhere/PythonSlicer", []), (None, ["-c", 'print(\'{"event": "x"}\')'])):
            received: list[Any] = []
            process = EngineProcess(arguments, received.append, received.append, python).start()
            wrapper = weakref.ref(process._process)
            with mock.patch.object(process, "_release", wraps=process._release) as release:
                process_events_until(
                    lambda received=received: received and not isinstance(received[-1], dict), "the end"
                )
            release.assert_called_once()
            self.assertIsNotNone(wrapper())
            self.assertEqual(bool(received[-1].problem), python is not None)
            self.assertEqual(received[:-1], [] if python else [{"event": "x"}])

    def test_output_is_utf8_in_any_locale(self) -> None:
        ended: list[Any] = []
        program = "import sys; print('{\"event\": \"Müller\"}'); print('山田', file=sys.stderr)"
        with mock.patch.dict(os.environ, {"PYTHONIOENCODING": "euc-jp"}):
            process = EngineProcess(["-c", program], ended.append, ended.append, sys.executable).start()
        process_events_until(lambda: process not in engine_process._alive, "the end")
        self.assertEqual((ended[0], process.log()), ({"event": "Müller"}, "山田"))

    def test_large_output_is_delivered_in_several_turns_of_the_event_loop(self) -> None:
        received: list[Any] = []
        process = EngineProcess([], received.append, received.append)
        output = mock.Mock()
        output.readAllStandardOutput().data.return_value = b'{"event": "x"}\n' * 2
        process._process, process._is_running, process.listening = output, True, True

        def fake_clock() -> float:
            # Each event takes 1 s, longer than MAX_DELIVERY_S, so each turn of the event loop delivers one event.
            return float(len(received))

        with mock.patch("DCAMTSlicerLib.engine_process.time.monotonic", fake_clock):
            for _chunk in range(5):
                process._on_output()
            self.assertEqual(len(received), 1)
        process_events_until(lambda: len(received) == 10, "all events")

    def test_killed_process_delivers_nothing_and_ignores_calls(self) -> None:
        received: list[Any] = []
        process = EngineProcess(
            ["-c", 'print(\'{"event": "x"}\', flush=True); input()'], received.append, received.append
        ).start()
        process_events_until(lambda: received, "its event")
        process.kill()
        wait_for_killed(5000)
        for _turn in range(20):
            slicer.app.processEvents()
        self.assertEqual(received, [{"event": "x"}])
        process.write(b"nobody reads it\n")
        process.kill()

    def test_process_is_released_once_if_it_ends_while_its_last_input_is_written(self) -> None:
        process = EngineProcess([], mock.Mock(), mock.Mock())
        fake = mock.Mock()
        fake.state.return_value = qt.QProcess.NotRunning
        fake.readAllStandardError().data.return_value = fake.readAllStandardOutput().data.return_value = b""
        # `waitForBytesWritten` emits `finished`, whose handler releases the process.
        fake.waitForBytesWritten.side_effect = lambda milliseconds: process._on_finished()
        process._process, process._is_running, process.listening = fake, True, True
        process.kill(b"keep\n")
        slicer.app.processEvents()
        fake.deleteLater.assert_called_once_with()


class LogAndProgressTest(FaultCase):
    def test_log_stays_empty_until_opened(self) -> None:
        self.assertTrue(self.ui.logCollapsibleButton.collapsed)
        self.segment(add_scan())
        self.assertEqual(self.ui.logView.plainText, "")
        self.ui.logCollapsibleButton.collapsed = False
        for text in ("LGE, model tiny, accurate", "Loading the model", "LGE was segmented with the model Tiny"):
            self.assertIn(text, self.ui.logView.plainText)

    def test_progress_has_a_stage_and_a_remaining_time(self) -> None:
        self.use_worker_script(self.gate_script() + EXPECTS_LONG_WORK)
        self.begin(add_scan())
        self.assertFalse(self.ui.progressBar.isHidden())
        text = self.ui.statusLabel
        process_events_until(
            lambda: text.text.startswith("Segmenting, ") and text.text.endswith(" left"), "the time left"
        )
        self.assertGreater(self.ui.progressBar.value, 0)
        self.wait()
        self.assertIsNotNone(self.settings.outputSegmentation, text.text)
