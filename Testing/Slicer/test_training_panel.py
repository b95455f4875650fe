"""The training panel: sources of cases, roles, task, estimates, and what a scene saves."""

from __future__ import annotations

import ast
import errno
import gc
import os
import subprocess
import sys
import tempfile
import unittest
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED, UNLABELLED, VALIDATION, list_cases
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt.recipe import load_recipe
from dcamt.runs.folder import RunFolder
from dcamt.runs.state import FINISHED, RUNNING, RunState
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib import engine_messages
from DCAMTTrainingLib import measurement as measurement_module
from DCAMTTrainingLib import session as session_module
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.cases.store import load_rows
from DCAMTTrainingLib.cases.table_model import IMAGE, NAME, REMARK, ROLE
from DCAMTTrainingLib.panels import runs as runs_panel
from DCAMTTrainingLib.panels import sections
from DCAMTTrainingLib.runs import watch as watch_module
from DCAMTTrainingLib.runs.folders import runs_folder, set_runs_folder
from DCAMTTrainingLib.task import classes_from_json, suggested_recipe
from slicer_harness import (
    LoopMonitor,
    Person,
    assert_no_pause,
    choose,
    click,
    close_scene,
    in_real_slicer,
    open_module,
    pip,
    process_events,
)
from training_case import ROOT, TrainingCase
from training_scenes import add_case, add_outline, add_volume, ellipsoid


def write(path: Path, voxels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in write_nrrd_in_slabs(voxels, np.diag((2.0, 2.0, 2.0, 1.0)), path):
        pass
    return path


class SourcesTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        self.table = self.session.table

    def test_the_pairs_of_a_folder_are_shown_before_they_are_added(self) -> None:
        data = self.folder / "data"
        for number in range(3):
            image, label = ellipsoid(number)
            write(data / f"p{number}_image.nrrd", image)
            if number < 2:
                write(data / f"p{number}_label.nrrd", label)
        write(data / "lost_label.nrrd", label)
        seen = []

        def look(answer):
            def act(dialog):
                tables = [child for child in dialog.children() if child.className() == "QTableView"]
                for table in tables:
                    model = table.model()
                    seen.append([model.data(model.index(row, 0)) for row in range(model.rowCount())])
                getattr(dialog, answer)()

            return act

        with Person() as person:
            person.expects("Folder of scans", str(data))
            person.expects("Cases in the folder", look("reject"))
            click(self.ui.addFolderButton)
            self.wait_for(lambda: len(seen) == 2, "the pairs")
            process_events()
        self.assertEqual(seen[0], ["p0", "p1", "p2"])
        self.assertTrue(seen[1][0].endswith("lost_label.nrrd"))
        self.assertEqual(len(self.table), 0)
        with Person() as person:
            person.expects("Folder of scans", str(data))
            person.expects("Cases in the folder", look("accept"))
            click(self.ui.addFolderButton)
            self.wait_for(lambda: len(self.table) == 3, "the cases")
        self.assertEqual([row.role for row in self.table.rows], [LABELLED, LABELLED, UNLABELLED])
        self.wait_for(lambda: self.session.checked, "their headers")
        self.assertEqual([row.size for row in self.table.rows], [(24, 22, 20)] * 3)
        self.assertEqual(self.ui.casesTable.model().rowCount(), 3)

    def test_a_folder_without_scans_is_reported(self) -> None:
        with Person() as person:
            person.expects("Folder of scans", str(self.folder / "runs"))
            person.expects("holds no scan", "Ok")
            click(self.ui.addFolderButton)
            self.wait_for(lambda: person.errors(), "the message")

    def test_case_lists_are_added_and_saved_as_dcamt_train_reads_them(self) -> None:
        image, label = ellipsoid(1)
        write(self.folder / "a.nrrd", image)
        write(self.folder / "a_label.nrrd", label)
        given = self.folder / "cases.csv"
        given.write_text(
            "name,image,label,role\nA,a.nrrd,a_label.nrrd,labelled\nB,b.nrrd,,left out\n", encoding="utf-8"
        )
        add_case("in the scene")
        with Person() as person:
            person.expects("List of cases", str(given))
            click(self.ui.addListButton)
        self.wait_for(lambda: len(self.table), "the list")
        click(self.ui.addSceneButton)
        self.assertEqual([row.name for row in self.table.rows], ["A", "B", "in the scene"])
        written = self.folder / "out" / "cases.csv"
        written.parent.mkdir()
        with Person() as person:
            person.expects("Save the list", str(written))
            person.expects("1 case(s) are not in the list", "Ok")
            click(self.ui.exportListButton)
        cases = list_cases(written)
        self.assertEqual([(case.name, case.role) for case in cases], [("A", "labelled"), ("B", "left out")])
        self.assertEqual(cases[0].image.resolve(), (self.folder / "a.nrrd").resolve())
        self.assertEqual(cases[0].label.resolve(), (self.folder / "a_label.nrrd").resolve())
        given.write_text("name,image\n", encoding="utf-8")
        with Person() as person:
            person.expects("List of cases", str(given))
            person.expects("lacks the column 'label'", "Ok")
            click(self.ui.addListButton)
            self.wait_for(lambda: person.errors(), "the message")
        self.assertEqual(len(self.table), 3)

    def test_an_invalid_line_or_a_closed_scene_adds_no_case(self) -> None:
        lines = [f"case{n},{n}.nrrd,,unlabelled" for n in range(5000)]
        table = self.folder / "cases.csv"
        table.write_text("\n".join(["name,image,label,role", *lines, "last,x.nrrd,,dancer"]), encoding="utf-8")
        with Person() as person:
            person.expects("List of cases", str(table))
            person.expects("line 5002 ('last') has the role 'dancer'", "Ok")
            click(self.ui.addListButton)
            self.wait_for(lambda: person.errors(), "the message")
        self.assertEqual(len(self.table), 0)
        table.write_text("\n".join(["name,image,label,role", *lines]), encoding="utf-8")
        steps = self.session.add_list_in_steps(table)
        next(steps)
        close_scene()
        process_events()
        self.assertEqual(list(steps), [None] * 5)
        self.assertEqual(len(self.table), 0)

    def test_training_cases_of_the_segmentation_module_are_added(self) -> None:
        click(self.ui.addSentButton)
        self.assertIn("No result was added yet", self.ui.casesSummary.text)
        volume, outline = add_case("corrected")
        add_case("not sent", 1)
        training_cases.add_case(volume, outline)
        click(self.ui.addSentButton)
        self.assertEqual([(row.name, row.role) for row in self.table.rows], [("corrected", LABELLED)])

    def test_added_results_suggest_training_on_from_the_model_in_use(self) -> None:
        self.make_small()
        self.session.settings.startFrom = ""
        segmentation_module = open_module("DCAMTSegmentation")
        self.addCleanup(segmentation_module.close)
        segmentation_module.logic.getParameterNode().model = "tiny"
        training_cases.add_case(*add_case("corrected"))
        slicer.util.selectModule("DCAMTTraining")
        click(self.ui.addSentButton)
        self.assertEqual(self.session.settings.startFrom, "tiny")
        self.assertIn("tiny", self.ui.startFromSelector.currentText)
        # What the person chose stays.
        choose(self.ui.startFromSelector, "Scratch (random weights)")
        self.session.settings.startFrom = "left-atrium"
        click(self.ui.addSentButton)
        self.assertEqual(self.session.settings.startFrom, "left-atrium")

    def test_a_result_added_in_dcamt_segmentation_is_listed_when_the_panel_is_opened(self) -> None:
        volume, outline = add_case("corrected")
        self.module.leave()
        training_cases.add_case(volume, outline)
        self.module.enter()
        self.assertEqual([(row.name, row.role) for row in self.table.rows], [("corrected", LABELLED)])
        # Removed from the table it stays away, until it is added again.
        self.table.remove([0])
        self.module.leave()
        self.module.enter()
        self.assertEqual(len(self.table), 0)
        self.module.leave()
        training_cases.add_case(volume, outline)
        self.module.enter()
        self.assertEqual(len(self.table), 1)

    def test_roles_change_by_click_and_problems_are_marked_in_their_rows(self) -> None:
        add_case("scan", 1)
        empty = add_volume("empty outline", ellipsoid(2)[0])
        add_outline(empty, np.zeros_like(ellipsoid(2)[1]))
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        model = self.ui.casesTable.model()
        self.assertEqual(model.data(model.index(0, REMARK)), "")
        self.assertIn("empty", model.data(model.index(1, REMARK)))
        self.assertIn("empty outline: The label is empty", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.ui.casesTable.clicked.emit(model.index(1, ROLE))
        self.assertEqual(model.data(model.index(1, ROLE)), "unlabelled")
        self.ui.casesTable.clicked.emit(model.index(1, REMARK))
        self.assertEqual(model.data(model.index(1, ROLE)), "unlabelled")
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual(model.data(model.index(1, REMARK)), "")
        self.assertTrue(self.ui.startButton.enabled)
        self.ui.casesTable.selectRow(0)
        choose(self.ui.roleSelector, "validation")
        click(self.ui.setRoleButton)
        self.assertEqual(self.table.rows[0].role, VALIDATION)
        self.assertFalse(self.ui.startButton.enabled)
        click(self.ui.removeButton)
        self.assertEqual([row.name for row in self.table.rows], ["empty outline"])
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 2)

    def test_segments_are_chosen_for_classes(self) -> None:
        image, label = ellipsoid(3)
        volume = add_volume("scan", image)
        outline = add_outline(volume, label * 2, ("something", "else"))
        click(self.ui.addSceneButton)
        self.assertEqual(self.table.rows[0].role, UNLABELLED)
        self.ui.casesTable.selectRow(0)

        def answer(dialog):
            boxes = {child.objectName: child for child in dialog.children() if child.className() == "QComboBox"}
            choose(boxes["segmentationSelector"], outline.GetName())
            choose(boxes["classSelector1"], "else")
            dialog.accept()

        with Person() as person:
            person.expects("Segments of the case", answer)
            click(self.ui.segmentsButton)
        second = outline.GetSegmentation().GetNthSegmentID(1)
        self.assertEqual(self.table.rows[0].source.segments, ((second, 1),))
        self.assertEqual(self.table.rows[0].role, LABELLED)


class LabelValuesTest(TrainingCase):
    """Label files with other values than the recipe's."""

    def setUp(self) -> None:
        super().setUp()
        image, label = ellipsoid(1)
        write(self.folder / "a.nrrd", image)
        write(self.folder / "a_label.nrrd", label.astype(np.int16) * 420)
        self.list = self.folder / "cases.csv"

    def add_list(self, text: str) -> None:
        self.list.write_text(text, encoding="utf-8")
        self.session.add_list(self.list)
        self.wait_for(lambda: self.session.checked, "the check")

    def test_values_are_mapped_in_the_panel(self) -> None:
        self.add_list("name,image,label,role\nA,a.nrrd,a_label.nrrd,labelled\n")
        self.assertIn("420", self.session.table.rows[0].remark)
        self.assertFalse(self.ui.startButton.enabled)
        self.ui.casesTable.selectRow(0)
        for text, failure in (("420=aorta", "names no class"), ("420=Left atrium", "")):
            with Person() as person:
                person.expects("Values of the label files", self.enter(text))
                if failure:
                    person.expects(failure, "Ok")
                click(self.ui.segmentsButton)
        self.assertEqual(self.session.table.rows[0].source.labels, "420=Left atrium")
        self.wait_for(lambda: self.session.checked, "the second check")
        self.assertEqual(self.session.table.rows[0].remark, "")
        self.assertTrue(self.ui.startButton.enabled)
        # The mapping is saved with the scene, and in a list.
        self.assertEqual(load_rows(self.session._node)[0].source.labels, "420=Left atrium")
        with Person() as person:
            person.expects("Save the list", str(self.folder / "out.csv"))
            click(self.ui.exportListButton)
        self.assertEqual(list_cases(self.folder / "out.csv")[0].labels, "420=Left atrium")

    def enter(self, text: str) -> Any:
        def act(dialog: Any) -> None:
            (edit,) = (child for child in dialog.children() if child.className() == "QLineEdit")
            edit.setText(text)
            dialog.accept()

        return act

    def test_values_are_mapped_in_a_list(self) -> None:
        self.add_list("name,image,label,role,labels\nA,a.nrrd,a_label.nrrd,labelled,420=left-atrium\n")
        row = self.session.table.rows[0]
        self.assertEqual((row.source.labels, row.remark), ("420=left-atrium", ""))


class WidthTest(TrainingCase):
    """A panel of Slicer's usual width shows all columns that need action without scrolling."""

    def edges(self, view: Any, columns: range) -> list[int]:
        """Return the right edges of columns in pixels from the left of the view."""
        return [view.columnViewportPosition(column) + view.columnWidth(column) for column in columns]

    def test_remarks_and_scores_are_seen(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        cases = self.ui.casesTable
        self.assertTrue(cases.isColumnHidden(REMARK))
        self.assertGreater(cases.columnWidth(NAME), 150)
        self.session.table.set_facts(0, None, None, "The label is empty. Outline the scan.")
        process_events()
        self.module.widget.cases.refresh()
        self.assertFalse(cases.isColumnHidden(REMARK))
        self.ui.resultsButton.collapsed = False
        panel = self.module.panel
        panel.setFixedWidth(510)
        panel.show()
        process_events()
        results = self.ui.resultsTable
        self.assertLessEqual(max(self.edges(cases, range(REMARK + 1))), cases.viewport().width)
        self.assertGreater(cases.columnWidth(REMARK), 200)
        self.assertLessEqual(max(self.edges(results, range(6))), results.viewport().width)
        self.assertGreater(results.columnWidth(0), 80)


class CategoryTest(TrainingCase):
    def test_the_category_is_slicers_own_in_its_language(self) -> None:
        from DCAMTTraining import DCAMTTraining

        class Parent:
            """Stands in for the module's entry in the list of modules."""

            path = "."

        def translate(context: str, text: str) -> str:
            return f"{text} in {context}"

        with mock.patch.object(sys.modules["DCAMTTraining"], "translate", translate):
            entry = DCAMTTraining(Parent())
        self.assertEqual(list(entry.parent.categories), ["Segmentation in qSlicerAbstractCoreModule"])


class WarningsTest(TrainingCase):
    def test_warnings_and_problems_of_files_are_shown_in_the_applications_language(self) -> None:
        image, label = ellipsoid(1)
        scan, outline = write(self.folder / "scan.nrrd", image), write(self.folder / "label.nrrd", label)
        rows = [CaseRow("good", FileScan(str(scan), str(outline)), LABELLED)]
        rows.append(CaseRow("doubtful", FileScan(str(outline)), UNLABELLED))
        rows.append(CaseRow("gone", FileScan(str(self.folder / "gone.nrrd")), UNLABELLED))
        with mock.patch.object(engine_messages, "tr", str.upper):
            self.session.table.add(rows)
            self.wait_for(lambda: self.session.checked, "the check")
        self.module.widget.cases.refresh()
        good, doubtful, gone = self.session.table.rows
        self.assertEqual((good.remark, good.note), ("", ""))
        # A person should look at it, but it keeps nobody from training.
        self.assertEqual(doubtful.remark, "")
        self.assertIn("2 DIFFERENT INTENSITIES", doubtful.note)
        self.assertIn("DOES NOT EXIST", gone.remark)
        self.assertFalse(self.ui.casesTable.isColumnHidden(REMARK))
        model = self.ui.casesTable.model()
        self.assertIn("2 DIFFERENT INTENSITIES", model.data(model.index(1, REMARK)))


class ClosedModuleTest(TrainingCase):
    def test_a_closed_module_leaves_nothing_alive(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        widget = self.module.widget
        parts = (widget, self.session, widget.cases, widget.task, widget.outlining)
        left = [weakref.ref(part) for part in parts]
        del widget, parts
        self.close_module()
        self.session = self.ui = None
        process_events()
        gc.collect()
        self.assertEqual([part() for part in left if part() is not None], [])


class SavedStateTest(TrainingCase):
    def test_cases_and_settings_are_restored_with_the_scene(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.session.add_list(self._list())
        self.ui.iterationsEdit.text = "123"
        choose(self.ui.effortSelector, "Quick try")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "scene.mrb")
            slicer.util.saveScene(path)
            close_scene()
            self.assertEqual(len(self.session.table), 0)
            self.assertEqual(self.ui.iterationsEdit.text, "")
            slicer.util.loadScene(path)
            process_events()
        self.assertEqual([row.name for row in self.session.table.rows], ["scan", "A"])
        self.assertEqual(self.ui.iterationsEdit.text, "123")
        self.assertEqual(self.ui.effortSelector.currentText, "Quick try")
        self.assertEqual(self.ui.casesTable.model().rowCount(), 2)

    def test_cases_outlive_the_module(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.close_module()
        self.module = open_module("DCAMTTraining")
        self.assertEqual([row.name for row in self.module.logic.session.table.rows], ["scan"])

    def test_the_device_belongs_to_the_computer_and_outlives_the_scene(self) -> None:
        choose(self.ui.deviceSelector, "CPU")
        close_scene()
        self.assertEqual(self.ui.deviceSelector.currentText, "CPU")
        self.assertEqual(self.session.device(), "cpu")

    def test_a_free_run_name_is_suggested_at_once(self) -> None:
        (self.runs / "run-1").mkdir()
        (self.runs / "run-2").mkdir()
        close_scene()  # the settings of a new scene begin with run-1
        self.assertEqual(self.ui.runNameEdit.text, "run-3")
        other = self.folder / "other runs"
        other.mkdir()
        self.ui.runsFolderEdit.currentPath = str(other)
        self.assertEqual(self.ui.runNameEdit.text, "run-3")
        (other / "run-3").mkdir()
        self.assertFalse(self.ui.startButton.enabled)
        self.ui.runsFolderEdit.currentPath = str(self.runs)
        self.ui.runsFolderEdit.currentPath = str(other)
        self.assertEqual(self.ui.runNameEdit.text, "run-1")

    def _list(self) -> Path:
        path = self.folder / "cases.csv"
        path.write_text("name,image,label,role\nA,a.nrrd,,unlabelled\n", encoding="utf-8")
        return path


class SectionsTest(TrainingCase):
    """Which sections are open, so that the next step is on a laptop's screen."""

    def open_sections(self) -> set[str]:
        return {name for name in sections.SECTIONS if not getattr(self.ui, name).collapsed}

    def test_a_new_panel_shows_cases_and_start_without_scrolling_on_a_laptop(self) -> None:
        self.assertEqual(self.open_sections(), set(sections.PREPARE))
        self.session.table.add([CaseRow(f"case {number}", FileScan(f"{number}.nrrd"), LABELLED) for number in range(9)])
        process_events()
        width = 510
        panel, start = self.module.widget.parent, self.ui.startButton
        panel.setFixedWidth(width)
        panel.show()
        process_events()
        # As Slicer's scroll area does in a window of 1366 x 740.
        panel.resize(width, max(panel.layout().totalHeightForWidth(width), 560))
        process_events()
        bottom = start.mapTo(panel, start.rect.bottomLeft()).y()
        columns = [self.ui.casesTable.columnViewportPosition(column) for column in (IMAGE,)]
        room = self.ui.casesTable.viewport().width
        panel.hide()
        self.assertLessEqual(bottom, 560)
        # All columns before the paths are seen.
        self.assertLessEqual(columns[0], room)
        # What controls a run is not there before the first one.
        self.assertTrue(all(getattr(self.ui, name).isHidden() for name in sections.RUN_WIDGETS))

    def test_sections_follow_the_run(self) -> None:
        run = RunFolder(self.runs / "earlier")
        run.path.mkdir()
        run.recipe.write_text(tiny_recipe().to_json(), encoding="utf-8")
        with (
            mock.patch.object(watch_module, "run_state") as polled,
            mock.patch.object(runs_panel, "run_state") as listed,
        ):
            polled.return_value = listed.return_value = RunState(RUNNING, step=1, of=2)
            self.module.widget.runs.refresh()
            self.assertEqual(self.open_sections(), set(sections.TRAIN))
            self.assertFalse(self.ui.pauseButton.isHidden())
            # What a person opens stays open while the run goes on.
            self.ui.casesButton.collapsed = False
            self.wait_for(lambda: self.module.widget.runs.watch.caught_up, "the first poll")
            self.assertIn("casesButton", self.open_sections())
            polled.return_value = listed.return_value = RunState(FINISHED, step=2, of=2)
            self.wait_for(lambda: "resultsButton" in self.open_sections(), "the results")
        self.assertEqual(self.open_sections(), set(sections.READ))

    def test_titles_name_the_choices_of_closed_sections(self) -> None:
        self.assertEqual(self.ui.taskButton.text, "Task: Left atrium in LGE-MRI")
        choose(self.ui.effortSelector, "Quick try")
        self.assertEqual(self.ui.effortButton.text, "Effort: Quick try")


class TaskTest(TrainingCase):
    def test_own_classes_have_names_colours_and_terminology(self) -> None:
        self.assertFalse(self.ui.ownClassesWidget.visible)
        choose(self.ui.taskSelector, "My own classes, in MRI")
        self.assertFalse(self.ui.ownClassesWidget.isHidden())
        click(self.ui.addClassButton)
        table = self.ui.classesTable
        self.assertEqual(table.rowCount, 2)
        table.item(0, 0).setText("Scar")
        table.item(0, 1).setText("#ff0000")
        table.item(1, 0).setText("Wall")
        table.item(1, 2).setText("SCT 39607008 Lung")
        recipe = self.session.recipe()
        self.assertEqual([info.name for info in recipe.classes], ["Scar", "Wall"])
        self.assertEqual(recipe.classes[0].color, (1.0, 0.0, 0.0))
        code = recipe.classes[1].type
        self.assertEqual((code.scheme, code.value, code.meaning), ("SCT", "39607008", "Lung"))
        self.assertEqual(len(classes_from_json(self.session.settings.ownClasses)), 2)
        table.item(1, 0).setText("scar")
        self.assertIn("two classes have the same name", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        click(self.ui.removeClassButton)
        self.assertEqual([info.name for info in self.session.recipe().classes], ["Scar"])

    def test_a_recipe_is_suggested_from_cases_of_the_scene_and_saved_with_it(self) -> None:
        self.assertFalse(self.ui.suggestButton.enabled)
        add_case("scan", 1)
        add_volume("plain", ellipsoid(2)[0])
        click(self.ui.addSceneButton)
        self.assertTrue(self.ui.suggestButton.enabled)
        click(self.ui.suggestButton)
        self.assertEqual(self.ui.suggestButton.text, "Cancel")
        self.wait_for(lambda: self.ui.suggestButton.text != "Cancel", "the suggestion")
        self.assertEqual(self.ui.taskSelector.currentText, "Suggested from the cases", self.ui.suggestionLabel.text)
        recipe = self.session.recipe()
        # The scan has voxels of 2 mm, and its label the class of the recipe that was chosen before.
        self.assertEqual(recipe.spacing, (2.0, 2.0, 2.0))
        self.assertEqual([info.name for info in recipe.classes], [info.name for info in load_recipe("la").classes])
        self.assertIn("2×2×2 mm", self.ui.suggestionLabel.text)
        self.assertEqual(list(Path(slicer.app.temporaryPath).glob("dcamt-suggestion-*")), [])
        saved = slicer.mrmlScene.GetSingletonNode("DCAMTTraining", "vtkMRMLScriptedModuleNode")
        self.assertEqual(suggested_recipe(saved.GetParameter("suggestedRecipe")), recipe)
        choose(self.ui.taskSelector, "Left atrium in LGE-MRI")
        self.assertNotEqual(self.session.recipe().spacing, recipe.spacing)

    def test_a_suggestion_that_fails_says_why(self) -> None:
        label = self.folder / "broken.nrrd"
        label.write_text("no image", encoding="utf-8")
        scan = FileScan(str(label), str(label))
        self.session.table.add([CaseRow("broken", scan, "labelled")])
        click(self.ui.suggestButton)
        self.wait_for(lambda: self.ui.suggestButton.text != "Cancel", "the failure")
        self.assertIn("broken.nrrd", self.ui.suggestionLabel.text)
        self.assertEqual(self.session.settings.task, "la")

    def test_a_suggested_task_without_its_recipe_says_what_to_press(self) -> None:
        choose(self.ui.taskSelector, "Suggested from the cases")
        self.assertIn("Press Suggest from cases", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_a_class_missing_in_all_labels_is_reported_before_start(self) -> None:
        add_case("scan", 1)
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        self.ui.classesTable.item(0, 0).setText("Left atrium")
        self.ui.classesTable.item(1, 0).setText("Aorta")
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertIn("No labelled case contains “Aorta” (label 2)", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_a_model_of_other_classes_cannot_be_trained_on(self) -> None:
        self.make_small()
        self.assertEqual(self.session.recipe().network.channels, (4, 8, 8))
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        self.assertIn("segments 1 class(es), but the task has 2", self.ui.problemsLabel.text)
        choose(self.ui.startFromSelector, "Scratch (random weights)")
        self.assertEqual(self.session.settings.startFrom, "")


class EstimateTest(TrainingCase):
    def test_time_and_memory_are_measured_on_this_machine(self) -> None:
        add_case("one", 1)
        add_case("two", 2)
        click(self.ui.addSceneButton)
        self.make_small(iterations="")
        choose(self.ui.effortSelector, "Quick try")
        self.assertIn("Measure", self.ui.estimateLabel.text)
        with LoopMonitor() as monitor:
            click(self.ui.measureButton)
            self.assertEqual(self.ui.measureButton.text, "Stop measuring")
            self.wait_for(lambda: self.ui.measureButton.text == "Measure", "the measurement")
        assert_no_pause(monitor.longest_work)
        self.assertRegex(self.ui.estimateLabel.text, r"About \d+ (s|min) on the CPU for 500 iterations, .* of memory")
        choose(self.ui.effortSelector, "Thorough")
        self.assertIn("Measure", self.ui.estimateLabel.text)
        click(self.ui.measureButton)
        self.assertEqual(len(self.measured_folders()), 1)
        click(self.ui.measureButton)
        self.assertEqual(self.ui.measureButton.text, "Measure")
        self.assertEqual(self.measured_folders(), [])  # they name the cases

    def measured_folders(self) -> list[Path]:
        return list(Path(slicer.app.temporaryPath).glob("dcamt-estimate-*"))

    def test_an_estimate_depends_on_the_model_to_start_from(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.make_small()
        self.take_as_measured()
        self.assertIsNotNone(self.session.measurement.estimate())
        recipe = self.session.recipe()
        other = replace(recipe, network=replace(recipe.network, attention_heads=0))
        with mock.patch.object(session_module, "continued_recipe", return_value=other):
            self.session.settings.startFrom = "another grid"
            self.assertIsNone(self.session.measurement.estimate())

    def test_an_estimate_depends_on_the_cases(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.make_small()
        self.take_as_measured()
        self.session.table.set_role([0], VALIDATION)
        self.assertIsNone(self.session.measurement.estimate())
        self.session.table.set_role([0], LABELLED)
        self.assertIsNotNone(self.session.measurement.estimate())
        add_case("another", 2)
        click(self.ui.addSceneButton)
        self.assertIsNone(self.session.measurement.estimate())

    def test_an_estimate_depends_on_the_device(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.make_small()
        self.take_as_measured(device="cuda")
        self.assertIn("on the GPU", self.ui.estimateLabel.text)
        choose(self.ui.deviceSelector, "CPU")
        self.assertIn("Press Measure to see", self.ui.estimateLabel.text)
        with mock.patch.object(measurement_module, "EngineCommand") as command:
            self.session.measurement.start(self.folder, self.session.device(), print)
        words = command.call_args.args[0]
        self.assertEqual(words[words.index("--device") + 1], "cpu")

    def test_too_little_disk_space_or_memory_is_reported_before_start(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.make_small()
        self.take_as_measured()
        self.assertTrue(self.ui.startButton.enabled)
        with mock.patch.object(measurement_module, "free_disk_bytes", return_value=5 * 10**6):
            self.session.notify_settings_changed()
            self.assertIn("Free some space, or choose another folder", self.ui.problemsLabel.text)
            self.assertFalse(self.ui.startButton.enabled)
        self.session.notify_settings_changed()  # there is room now: nothing has to be measured again
        self.assertTrue(self.ui.startButton.enabled)
        self.take_as_measured(memory_free=5 * 10**7)
        self.assertIn("Choose a smaller patch or batch", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)


class FolderOfRunsTest(TrainingCase):
    def test_a_folder_that_is_not_writable_is_reported_as_such(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.make_small()
        self.take_as_measured()
        (self.folder / "file").write_text("", encoding="utf-8")
        set_runs_folder(str(self.folder / "file" / "runs"))
        self.session.notify_settings_changed()
        self.assertIn("is not writable. Choose another folder", self.ui.problemsLabel.text)
        self.assertNotIn("0.0 GB", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        set_runs_folder(str(self.runs))
        with mock.patch.object(os, "access", lambda path, mode: Path(path) != self.runs):
            self.session.notify_settings_changed()
            self.assertIn(f"{self.runs}, is not writable", self.ui.problemsLabel.text)

    def test_an_unreadable_subfolder_neither_raises_nor_locks_the_panel(self) -> None:
        lost = self.runs / "lost+found"
        lost.mkdir()
        run = self.runs / "earlier"
        run.mkdir()
        (run / "recipe.json").write_text(tiny_recipe().to_json(), encoding="utf-8")
        stat = Path.stat

        def refuse(path: Path, **options: bool) -> os.stat_result:
            if lost in path.parents:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return stat(path, **options)

        self.module.leave()
        with mock.patch.object(Path, "stat", refuse):
            self.module.enter()
            self.assertEqual(self.ui.runSelector.count, 1)
            good = self.folder / "good"
            good.mkdir()
            self.ui.runsFolderEdit.currentPath = str(good)
            self.assertEqual(runs_folder(), good)
            self.assertEqual(self.ui.runSelector.count, 0)


class PackagesTest(TrainingCase):
    """Missing packages are asked for only when something is computed."""

    def setUp(self) -> None:
        super().setUp()
        pip.reset()
        self.addCleanup(pip.reset)
        pip.missing = {"nibabel"}

    def test_packages_are_asked_for_only_when_something_is_computed(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        process_events()
        for button in (self.ui.checkButton, self.ui.measureButton, self.ui.startButton):
            with Person() as person:
                person.expects("DCAMT needs Python packages", "Cancel")
                person.expects("Nothing was installed", "Ok")
                click(button)
        self.assertFalse(self.session.measurement.running or self.session.checking)
        self.assertEqual(list(self.runs.iterdir()), [])
        self.assertTrue(self.ui.startButton.enabled)


class TenThousandTest(TrainingCase):
    def test_ten_thousand_cases_never_block_the_window(self) -> None:
        table = self.folder / "cases.csv"
        rows = [f"case{n:05d},images/{n}.nrrd,labels/{n}.nrrd,labelled" for n in range(10_000)]
        table.write_text("\n".join(["name,image,label,role", *rows]), encoding="utf-8")
        add_case("in the scene")  # which is compared to each file
        with Person() as person:
            person.expects("List of cases", str(table))
            click(self.ui.addSceneButton)
            click(self.ui.addListButton)
        with LoopMonitor() as monitor:
            self.wait_for(lambda: len(self.session.table) == 10_001, "the list")
            self.wait_for(lambda: self.session.table.rows[2000].remark, "some of the headers")
            self.session.table.set_role([5], VALIDATION)
            node = self.session._node
            self.wait_for(lambda: f'"{VALIDATION}"' in node.GetParameter("cases"), "the change in the scene")
        self.assertEqual(self.ui.casesTable.model().rowCount(), 10_001)
        self.assertIsInstance(self.session.table.rows[7].source, FileScan)
        self.assertEqual(load_rows(node), [replace(row, remark="") for row in self.session.table.rows])
        assert_no_pause(monitor.longest_work)


@unittest.skipIf(in_real_slicer(), "measures what the harness' application imports")
class ModuleTest(TrainingCase):
    def test_the_self_test_passes(self) -> None:
        slicer.selfTests["DCAMTTraining"]()

    def test_opening_the_module_imports_no_torch_and_no_heavy_package(self) -> None:
        code = (
            "import sys; sys.path[:0] = sys.argv[1:]; import slicer_harness; slicer_harness.install()\n"
            "before = set(sys.modules)\n"
            "slicer_harness.open_module('DCAMTTraining')\n"
            "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
        )
        places = [str(ROOT / "Testing"), str(ROOT / "DCAMTSegmentation"), str(ROOT / "DCAMTTraining")]
        done = subprocess.run(
            [sys.executable, "-c", code, *places], capture_output=True, text=True, check=True, encoding="utf-8"
        )
        imported = set(ast.literal_eval(done.stdout.splitlines()[-1]))
        self.assertIn("DCAMTTraining", imported)
        self.assertEqual(imported & {"torch", "monai", "SimpleITK", "scipy", "nibabel", "nrrd", "matplotlib"}, set())


if __name__ == "__main__":
    unittest.main()
