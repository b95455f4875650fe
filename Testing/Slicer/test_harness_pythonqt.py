"""The harness's module `qt` follows conventions of PythonQt."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import qt
from slicer_harness import process_events, process_events_until


class PropertyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.button = qt.QPushButton("Apply")

    def test_property_is_read_and_set_as_an_attribute(self) -> None:
        self.button.enabled = False
        self.button.text = "Cancel"
        self.assertEqual((self.button.enabled, self.button.text), (False, "Cancel"))

    def test_property_cannot_be_called(self) -> None:
        with self.assertRaisesRegex(TypeError, "'str' object is not callable"):
            self.button.text()

    def test_getter_whose_name_differs_from_its_property_is_a_method(self) -> None:
        self.assertTrue(self.button.isEnabled())
        self.button.setEnabled(False)
        self.assertFalse(self.button.isEnabled())

    def test_object_name_is_set_by_the_attribute_called_name(self) -> None:
        self.button.name = "applyButton"
        self.assertEqual(self.button.objectName, "applyButton")

    def test_unknown_attribute_cannot_be_set(self) -> None:
        with self.assertRaisesRegex(AttributeError, "creating new attributes on C"):
            self.button.enable = False

    def test_unknown_attribute_cannot_be_read(self) -> None:
        with self.assertRaisesRegex(AttributeError, "has no attribute named 'caption'"):
            _ = self.button.caption

    def test_property_without_setter_cannot_be_set(self) -> None:
        with self.assertRaisesRegex(AttributeError, "not writable"):
            qt.QComboBox().count = 3

    def test_value_of_wrong_type_is_refused(self) -> None:
        for name, value in (
            ("icon", "no icon"),
            ("text", Path("folder")),
            ("text", None),
            ("enabled", None),
            ("enabled", "yes"),
            ("enabled", self.button),
            ("maximumWidth", "3"),
        ):
            with self.subTest(name), self.assertRaisesRegex(AttributeError, f"Property '{name}' .* does not accept"):
                setattr(self.button, name, value)

    def test_equal_methods_have_equal_hashes(self) -> None:
        other = object.__new__(type(self.button))  # a second wrapper of the same Qt object
        object.__setattr__(other, "_object", self.button._object)
        self.assertEqual(other.click, self.button.click)
        self.assertEqual(hash(other.click), hash(self.button.click))

    def test_methods_and_signals_cannot_be_overwritten(self) -> None:
        with self.assertRaisesRegex(AttributeError, "Slot 'click' can not be overwritten"):
            self.button.click = print
        with self.assertRaisesRegex(AttributeError, "Signal 'clicked' can not be overwritten"):
            self.button.clicked = print

    def test_dynamic_property_is_an_attribute_after_it_was_set(self) -> None:
        self.button.setProperty("SlicerParameterName", "quality")
        self.assertEqual(self.button.SlicerParameterName, "quality")
        self.assertEqual(self.button.property("SlicerParameterName"), "quality")
        self.assertIsNone(self.button.property("other"))

    def test_properties_accept_enumeration_values(self) -> None:
        label = qt.QLabel()
        label.alignment = qt.Qt.AlignRight
        self.assertEqual(label.alignment, qt.Qt.AlignRight)
        self.button.focusPolicy = qt.Qt.NoFocus
        self.assertEqual(self.button.focusPolicy, qt.Qt.NoFocus)

    def test_use_of_a_destroyed_object_raises(self) -> None:
        self.button.delete()
        self.assertFalse(self.button)
        with self.assertRaisesRegex(ValueError, "destroyed QPushButton"):
            _ = self.button.text

    def test_child_object_is_an_attribute_by_its_name(self) -> None:
        box = qt.QWidget()
        child = qt.QLabel("inner", box)
        child.name = "innerLabel"
        self.assertIs(box.innerLabel, child)


class ModuleTest(unittest.TestCase):
    def test_names_that_pythonqt_lacks_are_refused(self) -> None:
        for name in ("Signal", "Slot", "Property", "QtWidgets", "NoSuchClass"):
            with self.assertRaisesRegex(AttributeError, name):
                getattr(qt, name)

    def test_keyword_arguments_are_refused(self) -> None:
        with self.assertRaisesRegex(TypeError, "no keyword arguments"):
            qt.QPushButton(text="Apply")
        with self.assertRaisesRegex(TypeError, "no keyword arguments"):
            qt.QPushButton().setText(text="Apply")

    def test_path_objects_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, r"pass str\(path\)"):
            qt.QFile(Path("scan.nrrd"))
        with self.assertRaisesRegex(ValueError, r"pass str\(path\)"):
            qt.QProcess().setWorkingDirectory(Path("folder"))

    def test_enumeration_values_are_integers(self) -> None:
        self.assertEqual(qt.QProcess.NotRunning, 0)
        self.assertEqual(qt.Qt.UserRole + 1, 257)
        both = qt.QMessageBox.Ok | qt.QMessageBox.Cancel
        self.assertEqual(both, int(qt.QMessageBox.Ok) + int(qt.QMessageBox.Cancel))
        self.assertEqual(both & qt.QMessageBox.Ok, qt.QMessageBox.Ok)

    def test_lists_are_returned_as_tuples(self) -> None:
        layout = qt.QVBoxLayout(parent := qt.QWidget())
        button = qt.QPushButton()
        layout.addWidget(button)
        self.assertIsInstance(parent.children(), tuple)
        self.assertIs(parent.findChildren(qt.QPushButton)[0], button)
        self.assertIs(button.parent(), parent)


class TableModelTest(unittest.TestCase):
    """Python classes can derive from Qt's classes and override virtual methods."""

    def setUp(self) -> None:
        class Cells(qt.QAbstractTableModel):
            def __init__(self) -> None:
                super().__init__()
                self.rows = [["b", 2], ["a", 1]]

            def rowCount(self, parent: object = None) -> int:  # noqa: N802
                return len(self.rows)

            def columnCount(self, parent: object = None) -> int:  # noqa: N802
                return 2

            def data(self, index: object, role: int = 0) -> object:
                if role == qt.Qt.DisplayRole:
                    return self.rows[index.row()][index.column()]
                return qt.Qt.Checked if role == qt.Qt.CheckStateRole else None

            def setData(self, index: object, value: object, role: int = 2) -> bool:  # noqa: N802
                self.rows[index.row()][index.column()] = value
                self.dataChanged.emit(index, index)
                return True

            def flags(self, index: object) -> int:
                return super().flags(index) | qt.Qt.ItemIsEditable

        self.cells = Cells()

    def test_view_has_the_model_and_the_model_returns_its_data(self) -> None:
        view = qt.QTableView()
        view.setModel(self.cells)
        self.assertIs(view.model(), self.cells)
        self.assertEqual(view.model().index(0, 0).data(), "b")
        self.assertEqual(self.cells.index(0, 0).data(qt.Qt.CheckStateRole), 2)

    def test_super_calls_the_method_of_qt(self) -> None:
        flags = self.cells.flags(self.cells.index(0, 0))
        self.assertTrue(flags & qt.Qt.ItemIsEditable)
        self.assertTrue(flags & qt.Qt.ItemIsEnabled)

    def test_proxy_sorts_the_model(self) -> None:
        proxy = qt.QSortFilterProxyModel()
        proxy.setSourceModel(self.cells)
        proxy.sort(0)
        self.assertEqual([proxy.index(row, 0).data() for row in range(proxy.rowCount())], ["a", "b"])
        self.assertEqual(proxy.mapToSource(proxy.index(0, 0)).row(), 1)

    def test_change_emits_data_changed(self) -> None:
        received: list[object] = []
        self.cells.dataChanged.connect(lambda first, last: received.append((first.row(), last.column())))
        self.cells.setData(self.cells.index(1, 0), "c")
        self.assertEqual((received, self.cells.rows[1][0]), ([(1, 0)], "c"))

    def test_inserted_row_can_be_selected(self) -> None:
        view = qt.QTableView()
        view.setModel(self.cells)
        self.cells.beginInsertRows(qt.QModelIndex(), 2, 2)
        self.cells.rows.append(["d", 4])
        self.cells.endInsertRows()
        view.selectRow(2)
        self.assertEqual([index.row() for index in view.selectionModel().selectedRows()], [2])

    def test_object_of_a_derived_class_accepts_new_attributes(self) -> None:
        self.cells.remark = "kept"
        self.assertEqual(self.cells.remark, "kept")

    def test_standard_model_has_check_boxes(self) -> None:
        model = qt.QStandardItemModel()
        item = qt.QStandardItem("case")
        item.setCheckable(True)
        item.setCheckState(qt.Qt.Checked)
        item.setData("path", qt.Qt.UserRole)
        model.appendRow([item, qt.QStandardItem("role")])
        self.assertEqual(model.item(0, 0).checkState(), qt.Qt.Checked)
        self.assertEqual(model.index(0, 0).data(qt.Qt.UserRole), "path")
        self.assertEqual(model.rowCount(), 1)


class ProcessTest(unittest.TestCase):
    def test_process_emits_finished_and_returns_its_output(self) -> None:
        process, ends = qt.QProcess(), []
        process.finished.connect(lambda code, status: ends.append((code, status)))
        process.start(sys.executable, ["-c", "print(input()); raise SystemExit(3)"])
        process.write(b"hello\n")
        process_events_until(lambda: ends, what="the end of the process")
        self.assertEqual(ends, [(3, qt.QProcess.NormalExit)])
        self.assertEqual(process.readAllStandardOutput().data().decode().strip(), "hello")
        self.assertEqual(process.state(), qt.QProcess.NotRunning)

    def test_missing_program_is_reported(self) -> None:
        process, errors = qt.QProcess(), []
        process.errorOccurred.connect(errors.append)
        process.start("/no/such/program", [])
        process_events_until(lambda: errors)
        self.assertEqual(errors, [qt.QProcess.FailedToStart])


class TimerAndMenuTest(unittest.TestCase):
    def test_timers_call_their_slots(self) -> None:
        received: list[str] = []
        qt.QTimer.singleShot(0, lambda: received.append("shot"))
        timer = qt.QTimer()
        timer.singleShot = True
        timer.timeout.connect(lambda: received.append("timer"))
        timer.start(1)
        process_events_until(lambda: len(received) == 2)
        self.assertEqual(sorted(received), ["shot", "timer"])
        self.assertFalse(timer.active)

    def test_menu_actions_are_triggered(self) -> None:
        menu, received = qt.QMenu(), []
        action = menu.addAction("Import…")
        action.triggered.connect(lambda: received.append("import"))
        action.trigger()
        process_events()
        self.assertEqual((action.text, received), ("Import…", ["import"]))


class ReferenceCountTest(unittest.TestCase):
    def test_reference_count_of_none_does_not_fall(self) -> None:
        """pyproject.toml excludes PySide6 6.12.0, in which each `parent()` that returns None lowers the count."""
        from PySide6.QtCore import QObject

        without_parent, before = QObject(), sys.getrefcount(None)
        for _ in range(1000):
            without_parent.parent()
        self.assertGreater(sys.getrefcount(None), before - 500)
