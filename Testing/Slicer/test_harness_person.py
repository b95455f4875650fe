"""Test `Person`, `DialogWatcher`, `LoopMonitor` and the detection of hidden errors."""

from __future__ import annotations

import gc
import time
import types
import unittest
from collections.abc import Iterator
from unittest import mock

import qt
import slicer
from slicer_harness import (
    LoopMonitor,
    Person,
    UnexpectedQuestion,
    assert_stays_responsive,
    expect_no_hidden_errors,
    longest_step,
    pause_of,
    process_events,
    slot_errors,
)
from slicer_harness.loop_monitor import Pause, reference_seconds
from slicer_harness.person import DialogWatcher, pop_unanswered


class QuestionTest(unittest.TestCase):
    def test_answer_is_returned_to_the_module(self) -> None:
        with Person() as person:
            person.expects("go on", "Ok").expects("really", "Cancel").expects("sure", "No")
            self.assertTrue(slicer.util.confirmOkCancelDisplay("Go on?", "DCAMT"))
            self.assertFalse(slicer.util.confirmOkCancelDisplay("Really?"))
            self.assertFalse(slicer.util.confirmYesNoDisplay("Sure?"))
        self.assertEqual([question.kind for question in person.seen], ["question"] * 3)
        self.assertEqual((person.seen[0].title, person.seen[0].text), ("DCAMT", "Go on?"))

    def test_messages_are_recorded(self) -> None:
        with Person() as person:
            person.expects("failed").expects("careful").expects("note")
            slicer.util.errorDisplay("It failed.", detailedText="at line 3")
            slicer.util.warningDisplay("Be careful.")
            slicer.util.infoDisplay("A note.")
        self.assertEqual([question.kind for question in person.seen], ["error", "warning", "information"])
        self.assertEqual(person.errors(), ["It failed."])
        self.assertEqual(person.seen[0].detail, "at line 3")

    def test_text_is_recorded_as_a_person_sees_it(self) -> None:
        with Person() as person:
            person.expects("scan").expects("scan")
            slicer.util.errorDisplay("<b>scan</b> 1 &amp; 2")
            slicer.util.errorDisplay("<b>scan</b> 1 &amp; 2", textFormat=qt.Qt.PlainText)
        self.assertEqual(person.errors(), ["scan 1 & 2", "<b>scan</b> 1 &amp; 2"])

    def test_unexpected_question_fails(self) -> None:
        with self.assertRaises(UnexpectedQuestion):
            slicer.util.confirmOkCancelDisplay("Go on?")
        with Person() as person, self.assertRaises(UnexpectedQuestion):
            person.expects("something else")
            try:
                slicer.util.errorDisplay("Go on?")
            finally:
                person._expected.clear()
        self.assertEqual(len(pop_unanswered()), 2)

    def test_expected_question_that_is_not_asked_fails(self) -> None:
        with self.assertRaisesRegex(AssertionError, "never asked: \\['go on'\\]"), Person() as person:
            person.expects("go on")

    def test_answer_with_a_missing_button_fails(self) -> None:
        with self.assertRaisesRegex(UnexpectedQuestion, "no button Yes"), Person() as person:
            person.expects("go on", "Yes")
            slicer.util.confirmOkCancelDisplay("Go on?")
        pop_unanswered()

    def test_questions_for_paths_and_texts_are_answered(self) -> None:
        with Person() as person:
            person.expects("save", "/tmp/out.csv").expects("open", ["/a", "/b"]).expects("name", "mine")
            person.expects("folder", "/data")
            self.assertEqual(qt.QFileDialog.getSaveFileName(None, "Save table", "", "*.csv"), "/tmp/out.csv")
            self.assertEqual(qt.QFileDialog.getOpenFileNames(None, "Open models"), ("/a", "/b"))
            self.assertEqual(qt.QInputDialog.getText(None, "Model", "Name:"), "mine")
            self.assertEqual(qt.QFileDialog.getExistingDirectory(None, "Folder"), "/data")

    def test_qt_message_boxes_are_answered(self) -> None:
        with Person() as person:
            person.expects("remove", "Yes").expects("broken")
            self.assertEqual(qt.QMessageBox.question(None, "DCAMT", "Remove it?"), qt.QMessageBox.Yes)
            box = qt.QMessageBox()
            box.text = "Broken."
            box.setStandardButtons(qt.QMessageBox.Ok)
            self.assertEqual(box.exec_(), qt.QMessageBox.Ok)

    def test_function_answers_a_dialog(self) -> None:
        dialog = qt.QDialog()
        dialog.windowTitle = "Pairs"
        edit = qt.QLineEdit(dialog)

        def work(shown: object) -> None:
            edit.text = "chosen"
            shown.accept()

        with Person() as person:
            person.expects("pairs", work)
            self.assertEqual(dialog.exec_(), qt.QDialog.Accepted)
        self.assertEqual(edit.text, "chosen")

    def test_dialog_left_open_is_closed_and_reported_as_an_error(self) -> None:
        dialog = qt.QDialog()
        with Person() as person:
            person.expects("", lambda shown: None)
            self.assertEqual(dialog.exec_(), qt.QDialog.Rejected)
        self.assertIn("was left open", str(slot_errors.pop_errors()[0]))


class HiddenErrorTest(unittest.TestCase):
    """Errors that Slicer would only print must fail a test."""

    def raise_error(self, *_: object) -> None:
        raise RuntimeError("the slot failed")

    def test_errors_in_slots_timers_and_observers_are_kept(self) -> None:
        button, node = qt.QPushButton(), slicer.vtkMRMLTextNode()
        button.clicked.connect(self.raise_error)
        node.AddObserver("ModifiedEvent", self.raise_error)
        button.click()
        qt.QTimer.singleShot(0, self.raise_error)
        process_events()
        node.Modified()
        errors = slot_errors.pop_errors()
        self.assertEqual([str(error) for error in errors], ["the slot failed"] * 3)

    def test_hidden_errors_fail_the_test(self) -> None:
        button = qt.QPushButton()
        button.clicked.connect(self.raise_error)
        button.click()
        with self.assertRaisesRegex(AssertionError, "the slot failed"):
            expect_no_hidden_errors()
        expect_no_hidden_errors()

    def test_error_does_not_fail_the_test_if_the_person_sees_it(self) -> None:
        def apply() -> None:
            with slicer.util.tryWithErrorDisplay("It did not start."):
                self.raise_error()

        button = qt.QPushButton()
        button.clicked.connect(apply)
        with Person() as person:
            person.expects("did not start")
            button.click()
        expect_no_hidden_errors()


class LoopMonitorTest(unittest.TestCase):
    def test_pause_is_compared_with_a_reference_computation(self) -> None:
        assert_stays_responsive(Pause(0.1, reference=0.01))
        with self.assertRaisesRegex(AssertionError, "the panel waited for 0.110 s, 11.0 times the reference"):
            assert_stays_responsive(Pause(0.11, reference=0.01), "the panel")

    def test_pause_of_the_event_loop_is_measured(self) -> None:
        with LoopMonitor() as monitor:
            process_events()
            time.sleep(0.15)
            process_events()
        self.assertGreaterEqual(monitor.longest_pause, 0.15)
        self.assertLess(monitor.longest_work, monitor.longest_pause)
        self.assertEqual(monitor.pause.seconds, monitor.longest_work)
        self.assertGreater(monitor.pause.reference, 0)

    def test_garbage_collector_ignores_earlier_objects_while_a_step_is_timed(self) -> None:
        earlier = [[number] for number in range(200_000)]

        def find_tracked() -> list[str]:
            return [str(type(item)) for item in gc.get_objects() if item is earlier]

        self.assertNotEqual(find_tracked(), [])
        found: list[list[str]] = []
        pause_of(lambda: found.append(find_tracked()), tries=1)
        longest_step(lambda: iter([found.append(find_tracked())]), tries=1)
        self.assertEqual(found, [[], []])

    def test_job_is_timed_again_after_a_noticeable_pause(self) -> None:
        pause = 30 * reference_seconds()
        runs = iter(((0.0, pause), (0.001, 0.002), (pause,)))

        def steps() -> Iterator[None]:
            for seconds in next(runs):
                end = time.thread_time() + seconds
                while time.thread_time() < end:
                    pass
                yield

        longest = longest_step(steps)
        self.assertGreaterEqual(longest.seconds, 0.002)
        self.assertFalse(longest.is_noticeable)
        self.assertEqual(next(runs), (pause,))  # no third run was needed

    def test_processor_time_of_work_is_measured(self) -> None:
        def work() -> None:
            end = time.process_time() + 0.1
            while time.process_time() < end:
                pass

        with LoopMonitor() as monitor:
            qt.QTimer.singleShot(0, work)
            for _ in range(5):
                process_events()
        self.assertGreaterEqual(monitor.longest_work, 0.1)
        self.assertGreater(monitor.turns, 1)


class RealSlicerPersonTest(unittest.TestCase):
    def test_person_answers_windows_only_inside_the_with_block(self) -> None:
        own = types.SimpleNamespace(testingEnabled=lambda: True, temporaryPath="/tmp")
        display, files = slicer.util.errorDisplay, qt.QFileDialog
        in_real_slicer = mock.patch.object(slicer, "_harness", False)
        no_watcher = mock.patch("slicer_harness.person.watch_dialogs")
        with in_real_slicer, no_watcher, mock.patch.object(slicer, "app", own):
            with Person() as person:
                person.expects("go on", "Cancel").expects("it failed").expects("table", "/out.csv")
                self.assertFalse(slicer.app.testingEnabled())
                self.assertEqual(slicer.app.temporaryPath, "/tmp")
                self.assertFalse(slicer.util.confirmOkCancelDisplay("Go on?", windowTitle="DCAMT"))
                with self.assertRaises(KeyError), slicer.util.tryWithErrorDisplay("It failed."):
                    raise KeyError("x")
                self.assertEqual(qt.QFileDialog.getSaveFileName(None, "Table"), "/out.csv")
            self.assertTrue(slicer.app.testingEnabled())
        self.assertIs(slicer.util.errorDisplay, display)
        self.assertIs(qt.QFileDialog, files)
        self.assertEqual([question.kind for question in person.seen], ["question", "error", "save"])


class DialogWatcherTest(unittest.TestCase):
    """`DialogWatcher` with dialogs that really open, as a module's own dialogs do in Slicer."""

    def setUp(self) -> None:
        self.watcher = DialogWatcher()
        self.watcher.start()
        self.addCleanup(self.watcher.stop)

    @staticmethod
    def open(dialog: qt.QDialog) -> int:
        """Call Qt's own `exec`, not the harness's replacement `dialog.exec`."""
        return int(dialog._object.exec())

    def test_dialog_is_answered(self) -> None:
        for answer, expected in (("accept", qt.QDialog.Accepted), ("reject", qt.QDialog.Rejected)):
            dialog = qt.QDialog()
            dialog.windowTitle = "Sample"
            with Person() as person:
                person.expects("Sample", lambda opened, answer=answer: getattr(opened, answer)())
                self.assertEqual(self.open(dialog), expected)

    def test_message_box_is_answered(self) -> None:
        box = qt.QMessageBox(qt.QMessageBox.Warning, "Sample", "Go on?", qt.QMessageBox.Yes | qt.QMessageBox.No)
        with Person() as person:
            person.expects("go on", "No")
            self.assertEqual(self.open(box), qt.QMessageBox.No)
        self.assertEqual([(seen.kind, seen.buttons) for seen in person.seen], [("warning", ("Yes", "No"))])

    def test_unexpected_dialog_is_closed_and_reported(self) -> None:
        self.assertEqual(self.open(qt.QDialog()), qt.QDialog.Rejected)
        with self.assertRaisesRegex(AssertionError, "questions without an answer"):
            expect_no_hidden_errors()

    def test_dialog_left_open_is_closed_and_reported(self) -> None:
        dialog = qt.QDialog()
        dialog.windowTitle = "Sample"
        with Person() as person:
            person.expects("Sample", lambda opened: None)
            self.assertEqual(self.open(dialog), qt.QDialog.Rejected)
        with self.assertRaisesRegex(AssertionError, "Sample was left open"):
            expect_no_hidden_errors()
