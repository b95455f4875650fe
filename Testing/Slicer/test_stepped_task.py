"""The steps, end, failure and cancelling of a `SteppedTask`, and the single call of a `DelayedCall`."""

from __future__ import annotations

import unittest
from collections.abc import Generator

import qt
from dcamt.errors import InputError
from DCAMTSlicerLib.stepped_task import DelayedCall, SteppedTask
from slicer_harness import process_events, process_events_until


class SteppedTaskTest(unittest.TestCase):
    def setUp(self) -> None:
        self.steps_taken: list[int] = []
        self.closed = 0
        self.ends: list[Exception | None] = []
        self.values: list[int] = []

    def steps(self, failure: Exception | None = None) -> Generator[int, None, None]:
        try:
            for number in range(3):
                self.steps_taken.append(number)
                yield number * 10
            if failure is not None:
                raise failure
        finally:
            self.closed += 1

    def task(self, failure: Exception | None = None) -> SteppedTask:
        return SteppedTask(self.steps(failure), self.ends.append, self.values.append)

    def test_constructor_starts_nothing(self) -> None:
        task = self.task()
        process_events()
        self.assertEqual(self.steps_taken, [])
        self.assertFalse(task.running)

    def test_other_events_are_processed_between_steps(self) -> None:
        seen: list[int] = []
        task = self.task().start()
        self.assertEqual(self.steps_taken, [])
        qt.QTimer.singleShot(0, lambda: seen.append(len(self.steps_taken)))
        process_events_until(lambda: not task.running)
        self.assertEqual(seen, [1])
        self.assertEqual((self.values, self.ends, self.closed), ([0, 10, 20], [None], 1))

    def test_error_is_passed_to_the_callback_once(self) -> None:
        failure = InputError("is empty", path="scan.nrrd")
        task = self.task(failure).start()
        process_events_until(lambda: not task.running)
        self.assertEqual((self.ends, self.closed), ([failure], 1))

    def test_cancelling_closes_the_generator_without_a_callback(self) -> None:
        task = self.task().start()
        process_events_until(lambda: self.steps_taken)
        task.cancel()
        task.cancel()
        process_events()
        self.assertEqual((self.ends, self.closed), ([], 1))
        self.assertLess(len(self.steps_taken), 3)

    def test_step_may_cancel_its_own_task(self) -> None:
        def steps() -> Generator[None, None, None]:
            try:
                task.cancel()
                yield
            finally:
                self.closed += 1

        task = SteppedTask(steps(), self.ends.append)
        task.start()
        process_events()
        process_events_until(lambda: self.closed)
        self.assertEqual((self.ends, self.closed), ([], 1))


class DelayedCallTest(unittest.TestCase):
    def setUp(self) -> None:
        self.calls: list[int] = []

    def delayed_call(self) -> DelayedCall:
        return DelayedCall(lambda: self.calls.append(1))

    def test_second_start_replaces_the_first(self) -> None:
        delayed = self.delayed_call()
        delayed.start(3600000)
        delayed.start(0)
        process_events_until(lambda: bool(self.calls), what="the call")

    def test_stop_and_close_prevent_the_call(self) -> None:
        stopped, closed, closed_before = (self.delayed_call() for _ in range(3))
        stopped.start(0)
        stopped.stop()
        closed.start(0)
        closed.close()
        closed_before.close()
        closed_before.start(0)
        marker: list[int] = []
        qt.QTimer.singleShot(10, lambda: marker.append(1))
        process_events_until(lambda: bool(marker), what="a later timer")
        self.assertEqual(self.calls, [])
