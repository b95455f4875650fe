"""The harness's signals, slots and deletions follow PythonQt's conventions."""

from __future__ import annotations

import unittest

import qt
from slicer_harness import expect_no_hidden_errors


class SignalTest(unittest.TestCase):
    def setUp(self) -> None:
        self.button = qt.QPushButton()
        self.button.checkable = True
        self.received: list[object] = []

    def test_function_gets_as_many_arguments_as_it_takes(self) -> None:
        self.button.clicked.connect(lambda: self.received.append("none"))
        self.button.clicked.connect(lambda checked: self.received.append(checked))
        self.button.clicked.connect(lambda *all_: self.received.append(all_))
        self.button.click()
        self.assertEqual(self.received, ["none", True, (True,)])

    def test_signal_is_connected_by_signature(self) -> None:
        self.button.connect("clicked(bool)", self.received.append)
        self.button.connect("clicked()", lambda: self.received.append("no argument"))
        self.button.click()
        self.assertEqual(self.received, [True, "no argument"])

    def test_unknown_signature_is_refused(self) -> None:
        for signature in ("clicked(int)", "pushed()"):
            with self.assertRaisesRegex(ValueError, "does not exist on QPushButton"):
                self.button.connect(signature, print)

    def test_signal_name_without_parentheses_is_refused(self) -> None:
        for method in (self.button.connect, self.button.disconnect):
            with self.assertRaisesRegex(ValueError, "write its arguments"):
                method("clicked", print)

    def test_keyword_arguments_are_refused(self) -> None:
        for method in (self.button.connect, self.button.disconnect):
            with self.assertRaises(TypeError):
                method(signal="clicked()", receiver=print)

    def test_disconnected_receiver_is_not_called(self) -> None:
        self.button.clicked.connect(self.received.append)
        self.button.connect("toggled(bool)", self.received.append)
        self.assertTrue(self.button.clicked.disconnect(self.received.append))
        self.assertTrue(self.button.disconnect("toggled(bool)", self.received.append))
        self.assertFalse(self.button.disconnect("toggled(bool)", self.received.append))
        self.button.click()
        self.assertEqual(self.received, [])

    def test_all_receivers_of_a_signal_can_be_disconnected(self) -> None:
        self.button.clicked.connect(self.received.append)
        self.button.clicked.connect(lambda: self.received.append("second"))
        self.button.clicked.disconnect()
        self.button.click()
        self.assertEqual(self.received, [])

    def test_signal_calls_a_qt_slot(self) -> None:
        edit, label = qt.QLineEdit(), qt.QLabel()
        edit.textChanged.connect(label.setText)
        edit.text = "written"
        self.assertEqual(label.text, "written")

    def test_signal_calls_a_static_method_of_a_qt_class(self) -> None:
        self.button.connect("clicked()", qt.QApplication.restoreOverrideCursor)
        qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
        self.button.click()
        self.assertIsNone(qt.QApplication.overrideCursor())

    def test_receiver_that_is_not_callable_is_refused(self) -> None:
        with self.assertRaises(TypeError):
            self.button.clicked.connect("onClicked")

    def test_signal_can_be_emitted(self) -> None:
        self.button.toggled.connect(self.received.append)
        self.button.toggled.emit(True)
        self.assertEqual(self.received, [True])


class StringConnectionTest(unittest.TestCase):
    def test_signal_calls_a_slot_of_a_qt_object(self) -> None:
        edit, label = qt.QLineEdit(), qt.QLabel()
        self.assertTrue(edit.connect("textChanged(QString)", label, "setText(QString)"))
        edit.text = "written"
        self.assertEqual(label.text, "written")
        self.assertTrue(edit.disconnect("textChanged(QString)", label, "setText(QString)"))
        edit.text = "changed"
        self.assertEqual(label.text, "written")

    def test_signal_can_be_connected_to_another_signal(self) -> None:
        first, second = qt.QPushButton(), qt.QPushButton()
        received: list[bool] = []
        second.clicked.connect(received.append)
        first.connect("clicked(bool)", second, "clicked(bool)")
        first.click()
        self.assertEqual(received, [False])

    def test_unknown_slot_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, r"slot 'write\(\)' does not exist on QLabel"):
            qt.QLineEdit().connect("textChanged(QString)", qt.QLabel(), "write()")


class DeletionTest(unittest.TestCase):
    def make_dialog(self) -> tuple[object, object]:
        dialog = qt.QDialog()
        buttons = qt.QDialogButtonBox()
        buttons.setStandardButtons(qt.QDialogButtonBox.Ok)
        return dialog, buttons

    def test_slot_of_a_python_owned_dialog_is_refused(self) -> None:
        dialog, buttons = self.make_dialog()
        with self.assertRaisesRegex(RuntimeError, r'write sender.connect\("accepted\(\)", dialog, "accept\(\)"\)'):
            buttons.accepted.connect(dialog.accept)
        with self.assertRaisesRegex(RuntimeError, "Slicer would crash"):
            buttons.connect("rejected()", dialog.reject)

    def test_slot_of_a_dialog_that_qt_owns_is_accepted(self) -> None:
        window = qt.QWidget()
        dialog, button = qt.QDialog(window), qt.QPushButton()
        button.clicked.connect(dialog.accept)
        button.click()
        self.assertEqual(dialog.result(), qt.QDialog.Accepted)

    def test_deletion_is_safe_when_the_slot_is_given_by_name(self) -> None:
        dialog, buttons = self.make_dialog()
        qt.QVBoxLayout(dialog).addWidget(buttons)
        buttons.connect("accepted()", dialog, "accept()")
        buttons.button(qt.QDialogButtonBox.Ok).click()
        self.assertEqual(dialog.result(), qt.QDialog.Accepted)
        dialog.deleteLater()
        del dialog, buttons
        expect_no_hidden_errors()

    def test_deleting_a_dialog_that_only_a_lambda_holds_is_reported(self) -> None:
        dialog, buttons = self.make_dialog()
        qt.QVBoxLayout(dialog).addWidget(buttons)
        buttons.accepted.connect(lambda held=dialog: held.accept())
        dialog.deleteLater()
        del dialog, buttons
        with self.assertRaisesRegex(AssertionError, "Slicer would end here with a segmentation fault"):
            expect_no_hidden_errors()

    def test_deletion_is_safe_when_another_reference_exists(self) -> None:
        dialog, buttons = self.make_dialog()
        qt.QVBoxLayout(dialog).addWidget(buttons)
        buttons.accepted.connect(lambda held=dialog: held.accept())
        dialog.deleteLater()
        del buttons
        expect_no_hidden_errors()
        self.assertFalse(dialog)

    def test_deleting_a_button_in_its_own_signal_is_reported(self) -> None:
        window = qt.QWidget()
        button = qt.QPushButton(window)
        button.clicked.connect(lambda checked, held=window: held.findChildren(qt.QPushButton)[0].setParent(None))
        button.click()
        with self.assertRaisesRegex(AssertionError, "could delete the object before the signal ends"):
            expect_no_hidden_errors()
        button.setParent(None)  # safe outside of the signal

    def test_connection_keeps_a_strong_reference_to_its_slot(self) -> None:
        class Listener:
            def receive(self) -> None:
                received.append("clicked")

        received: list[str] = []
        button = qt.QPushButton()
        button.clicked.connect(Listener().receive)
        button.click()
        self.assertEqual(received, ["clicked"])
