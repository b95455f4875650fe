"""The harness loads .ui files and refuses unknown classes, headers, properties and connections."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import slicer
from slicer_harness.ui_files import CUSTOM_WIDGETS, UiFileError

SELECTOR = "<class>qMRMLNodeComboBox</class><extends>QWidget</extends><header>qMRMLNodeComboBox.h</header>"
FORM = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Panel</class>
 <widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="layout">
  <item><widget class="qMRMLNodeComboBox" name="selector">
   <property name="nodeTypes"><stringlist><string>vtkMRMLModelNode</string></stringlist></property>
   <property name="noneEnabled"><bool>true</bool></property>
   <property name="SlicerParameterName" stdset="0"><string>model</string></property>
  </widget></item>
  <item><widget class="QCheckBox" name="checkBox"><property name="checked"><bool>true</bool></property></widget></item>
 </layout></widget>
 <customwidgets>
  <customwidget>SELECTOR</customwidget>
  <customwidget><class>qMRMLWidget</class><extends>QWidget</extends><header>qMRMLWidget.h</header></customwidget>
 </customwidgets>
 <connections>
  <connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>
  <connection><sender>checkBox</sender><signal>toggled(bool)</signal>
   <receiver>selector</receiver><slot>setVisible(bool)</slot></connection>
 </connections>
</ui>""".replace("SELECTOR", SELECTOR)


class LoadingTest(unittest.TestCase):
    def load_form(self, form: str) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "Panel.ui")
            path.write_text(form, encoding="utf-8")
            return slicer.util.loadUI(str(path))

    def test_widgets_have_the_classes_and_properties_of_the_file(self) -> None:
        panel = self.load_form(FORM)
        ui = slicer.util.childWidgetVariables(panel)
        self.assertIs(type(panel), slicer.qMRMLWidget)
        self.assertIs(type(ui.selector), slicer.qMRMLNodeComboBox)
        self.assertEqual(ui.selector.nodeTypes, ("vtkMRMLModelNode",))
        self.assertTrue(ui.selector.noneEnabled)
        self.assertEqual(ui.selector.property("SlicerParameterName"), "model")
        self.assertTrue(ui.checkBox.checked)

    def test_connections_of_the_file_are_made(self) -> None:
        panel = self.load_form(FORM)
        ui = slicer.util.childWidgetVariables(panel)
        self.assertFalse(ui.selector.enabled)
        panel.setMRMLScene(slicer.mrmlScene)
        self.assertTrue(ui.selector.enabled)
        self.assertIs(ui.selector.mrmlScene(), slicer.mrmlScene)
        ui.checkBox.checked = False
        self.assertTrue(ui.selector.isHidden())

    def test_unknown_or_wrong_names_in_a_file_are_refused(self) -> None:
        for what, old, new, message in (
            ("an unknown Qt class", 'class="QCheckBox"', 'class="QTickBox"', "no widget class QTickBox"),
            ("an unknown custom class", "qMRMLNodeComboBox", "qMRMLNodeChooser", "no widget class qMRMLNodeChooser"),
            ("a wrong header", "qMRMLNodeComboBox.h", "qMRMLWidgets.h", "the header of qMRMLNodeComboBox"),
            ("a wrong base", SELECTOR, SELECTOR.replace("QWidget", "QComboBox"), "extends QWidget, not QComboBox"),
            ("no entry", f"<customwidget>{SELECTOR}</customwidget>", "", "no entry among the custom widgets"),
            ("an unknown property", '"noneEnabled"', '"noneAllowed"', "has no property noneAllowed"),
            ("an unknown signal", "toggled(bool)", "ticked(bool)", "'ticked\\(bool\\)' does not exist on QCheckBox"),
            ("an unknown slot", "setVisible(bool)", "setSeen(bool)", "slot 'setSeen\\(bool\\)' does not exist"),
            ("an unknown sender", "<sender>checkBox", "<sender>tickBox", "names tickBox, which the form lacks"),
        ):
            with self.subTest(what), self.assertRaisesRegex((UiFileError, ValueError, AttributeError), message):
                self.load_form(FORM.replace(old, new))

    def test_missing_file_is_refused(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "file not found"):
            slicer.util.loadUI("/no/such/file.ui")

    def test_every_custom_widget_can_be_created_and_refuses_unknown_properties(self) -> None:
        for name, (_cls, bases) in CUSTOM_WIDGETS.items():
            with self.subTest(name):
                entry = f"<class>{name}</class><extends>{bases[0]}</extends><header>{name}.h</header>"
                form = (
                    f'<ui version="4.0"><class>P</class><widget class="QWidget" name="P"><layout class="QVBoxLayout">'
                    f'<item><widget class="{name}" name="made"/></item></layout></widget>'
                    f"<customwidgets><customwidget>{entry}</customwidget></customwidgets></ui>"
                )
                panel = self.load_form(form)
                made = slicer.util.childWidgetVariables(panel).made
                self.assertEqual(made.className(), name)
                with self.assertRaises(AttributeError):
                    made.noSuchProperty = 1

    def test_collapsed_group_box_has_a_small_maximum_height(self) -> None:
        import ctk
        import qt

        group = ctk.ctkCollapsibleGroupBox()
        layout = qt.QVBoxLayout(group)
        for number in range(9):
            layout.addWidget(qt.QLabel(str(number)))
        for collapsed in (True, False, True):
            group.collapsed = collapsed
            self.assertEqual(group.maximumHeight < 40, collapsed)
