"""Test that the panels do not interpret names and paths as HTML."""

from __future__ import annotations

import ast
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.models.package import open_model, write_package
from dcamt.recipe_files import load_recipe
from DCAMTSlicerLib.plain_text import tooltip
from DCAMTTrainingLib.cases.rows import CaseRow, CaseTable, FileScan, SceneScan
from DCAMTTrainingLib.cases.table_model import IMAGE, CaseTableModel
from DCAMTTrainingLib.panels import dialogs
from engine_case import ROOT
from scene_nodes import add_scan
from segmentation_case import SegmentationCase, model_folder
from slicer_harness import Person, choose, click, in_real_slicer, open_module, start_afresh

NAMES = ("in/<b>bold&.nii.gz", "<img src='file:///px.png'>", "1 &lt; 2", "a<c>b", "first\n<p>second  two blanks")


def shown_tooltip(text: str) -> str:
    document = qt.QTextDocument()
    document.setHtml(text)
    return str(document.toPlainText())


def labels_of(dialog: Any) -> list[Any]:
    return [child for child in dialog.children() if child.className() == "QLabel"]


class PlainTextTest(SegmentationCase):
    def assert_plain(self, labels: list[Any]) -> None:
        self.assertGreater(len(labels), 0)
        for label in labels:
            self.assertEqual(label.textFormat, qt.Qt.PlainText, label.text)

    def choose_odd_model(self, name: str, channels: tuple[str, ...] = ("",)) -> None:
        """Write a model with the title `name` into the store, open the panel again, and choose the model."""
        package = open_model(model_folder() / "other.dcamt")
        card = replace(package.card, name="odd", title=name, segments=(name,))
        recipe = replace(package.recipe, input_channels=len(channels), channel_names=channels if channels[0] else ())
        write_package(self.home / "models" / "odd.dcamt", replace(package, card=card, recipe=recipe))
        self.module.close()
        self.module = open_module("DCAMTSegmentation")
        self.ui = self.module.ui
        titles = (self.ui.modelComboBox.itemText(index) for index in range(self.ui.modelComboBox.count))
        choose(self.ui.modelComboBox, next(title for title in titles if title.startswith(name)))

    def test_tooltip_shows_any_text_as_it_is(self) -> None:
        for name in NAMES:
            self.assertEqual(shown_tooltip(tooltip(name)), name)
            self.assertTrue(tooltip(name).startswith("<p"))  # Qt interprets such a text as HTML.
        self.assertEqual(tooltip("scan.nrrd\nis gone"), "scan.nrrd\nis gone")

    def test_labels_of_both_panels_show_texts_as_they_are(self) -> None:
        training = open_module("DCAMTTraining")
        self.addCleanup(training.close)
        for ui in (self.ui, training.ui):
            self.assert_plain([widget for widget in vars(ui).values() if widget.className() == "QLabel"])

    def test_names_of_a_model_are_shown_as_they_are(self) -> None:
        for name in NAMES[:4]:
            self.choose_odd_model(name, ("LGE", name))
            self.assertIn(f"Segments: {name}\n", shown_tooltip(self.ui.modelComboBox.toolTip))
            selector = slicer.util.findChild(self.ui.inputsCollapsibleButton, "channelSelector2")
            label = self.ui.inputsCollapsibleButton.layout().labelForField(selector)
            self.assertEqual(label.text, f"{name}:")
            self.assert_plain([label])
            with Person() as person:
                person.expects(f"Delete the model “{name}", "Cancel")
                click(self.ui.removeModelButton)

    def test_tooltip_of_a_result_shows_the_model_title_as_it_is(self) -> None:
        self.choose_odd_model(NAMES[0])
        volume = add_scan("scan")
        choose(self.ui.inputSelector, volume)
        click(self.ui.applyButton)
        self.wait()
        self.assertIn(f"Segmented with the model {NAMES[0]}", shown_tooltip(self.ui.resultLabel.toolTip))


class DialogTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()
        self.labels: list[tuple[str, Any]] = []

    def record_labels(self, dialog: Any) -> None:
        self.labels = [(label.text, label.textFormat) for label in labels_of(dialog)]
        dialog.reject()

    def test_names_of_classes_are_shown_as_they_are(self) -> None:
        recipe = load_recipe("la")
        recipe = replace(recipe, classes=(replace(recipe.classes[0], name="<b>R&D"),))
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        with Person() as person:
            person.expects("Segments of the case", self.record_labels)
            dialogs.choose_segments(SceneScan(volume.GetID()), recipe)
        self.assertIn(("<b>R&&D:", qt.Qt.PlainText), self.labels)
        with Person() as person:
            person.expects("Values of the label files", self.record_labels)
            dialogs.choose_label_values("", recipe)
        ((text, text_format),) = self.labels
        self.assertIn("1 = <b>R&D", text)
        self.assertEqual(text_format, qt.Qt.PlainText)

    def test_tooltips_of_the_case_table_show_paths_as_they_are(self) -> None:
        table = CaseTable()
        table.add([CaseRow("a", FileScan(f"/{NAMES[0]}"), "unlabelled")])
        model = CaseTableModel(table)
        self.assertEqual(shown_tooltip(model.data(model.index(0, IMAGE), qt.Qt.ToolTipRole)), f"/{NAMES[0]}")


class MessageBoxTest(unittest.TestCase):
    @unittest.skipIf(in_real_slicer(), "the modules' source is not beside the tests")
    def test_modules_open_message_boxes_only_by_the_functions_of_plain_text(self) -> None:
        functions = {"messageBox", "infoDisplay", "warningDisplay", "errorDisplay", "QMessageBox"}
        functions |= {f"confirm{buttons}Display" for buttons in ("OkCancel", "YesNo", "RetryClose")}
        places = set()
        for folder in ("DCAMTSegmentation", "DCAMTTraining"):
            for path in (ROOT / folder).rglob("*.py"):
                tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if functions & {node.attr for node in tree if isinstance(node, ast.Attribute)}:
                    places.add(Path(path).name)
        self.assertEqual(places, {"plain_text.py"})
