"""The training panel: saving with the scene, the folder of runs, packages, translation, and closing."""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import weakref
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import qt
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION
from dcamt.errors import InputError
from dcamt.runs.folder import RunFolder
from DCAMTSlicerLib import engine_messages
from DCAMTTrainingLib import session as session_module
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.cases.store import MAX_TITLE, load_cases, title_of_unread
from DCAMTTrainingLib.cases.table_model import REMARK
from DCAMTTrainingLib.panels import outline as outline_panel
from DCAMTTrainingLib.panels import runs as runs_panel
from DCAMTTrainingLib.runs.folders import run_named, runs_folder, set_runs_folder
from scene_nodes import add_case, ellipsoid, write_scan
from slicer_harness import (
    LoopMonitor,
    Pause,
    Person,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
    open_module,
    pip,
    process_events,
    reload_scene,
    scene_saved_and_closed,
    shortest_pause,
    type_keys,
)
from training_case import PAUSED, STARTED, TrainingCase


class CategoryTest(TrainingCase):
    def test_module_category_is_translated_like_the_categories_of_slicer(self) -> None:
        from DCAMTTraining import DCAMTTraining

        class Parent:
            """Replaces Slicer's module object."""

            path = "."

        def translate(context: str, text: str) -> str:
            return f"{text} in {context}"

        with mock.patch.object(sys.modules["DCAMTTraining"], "translate", translate):
            entry = DCAMTTraining(Parent())
        self.assertEqual(list(entry.parent.categories), ["Segmentation in qSlicerAbstractCoreModule"])


class EmptyTableTest(TrainingCase):
    def test_buttons_that_need_a_case_are_disabled_without_cases(self) -> None:
        def enabled() -> set[bool]:
            ui = self.ui
            buttons = (ui.setRoleButton, ui.validationButton, ui.segmentsButton, ui.removeButton, ui.checkButton)
            return {bool(button.enabled) for button in (*buttons, ui.exportListButton)}

        self.assertEqual(enabled(), {False})
        self.assertIn("add scans from the scene, a folder or a list", self.ui.casesSummary.text)
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.assertEqual(enabled(), {True})


class WarningsTest(TrainingCase):
    def test_warnings_and_problems_of_files_are_translated(self) -> None:
        image, label = ellipsoid(1)
        scan, outline = write_scan(self.folder / "scan.nrrd", image), write_scan(self.folder / "label.nrrd", label)
        rows = [CaseRow("good", FileScan(str(scan), str(outline)), LABELLED)]
        rows.append(CaseRow("doubtful", FileScan(str(outline)), UNLABELLED))
        rows.append(CaseRow("gone", FileScan(str(self.folder / "gone.nrrd")), UNLABELLED))
        with mock.patch.object(engine_messages, "tr", str.upper):
            self.session.table.add(rows)
            self.wait_for(lambda: self.session.checked, "the check")
        self.module.widget.cases.refresh()
        good, doubtful, gone = self.session.table.rows
        self.assertEqual((good.remark, good.note), ("", ""))
        self.assertEqual(doubtful.remark, "")
        self.assertIn("2 DIFFERENT INTENSITIES", doubtful.note)
        self.assertIn("DOES NOT EXIST", gone.remark)
        self.assertFalse(self.ui.casesTable.isColumnHidden(REMARK))
        model = self.ui.casesTable.model()
        self.assertIn("2 DIFFERENT INTENSITIES", model.data(model.index(1, REMARK)))


class ClosedModuleTest(TrainingCase):
    def test_closing_the_module_releases_all_its_parts(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        widget = self.module.widget
        parts = (widget, self.session, widget.sections, widget.cases, widget.task, widget.effort)
        parts += (widget.starting, widget.runs, widget.watching, widget.results, widget.outlining)
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
        self.add_list(self.write_case_list())
        self.ui.iterationsEdit.text = "123"
        choose(self.ui.effortSelector, "Quick try")
        with scene_saved_and_closed():
            self.assertEqual(len(self.session.table), 0)
            self.assertEqual(self.ui.iterationsEdit.text, "")
        process_events()
        self.assertEqual([row.name for row in self.session.table.rows], ["scan", "A"])
        self.assertEqual(self.ui.iterationsEdit.text, "123")
        self.assertEqual(self.ui.effortSelector.currentText, "Quick try")
        self.assertEqual(self.ui.casesTable.model().rowCount(), 2)

    def test_cases_are_kept_when_a_scene_with_other_cases_is_imported(self) -> None:
        add_case("imported", 1)
        click(self.ui.addSceneButton)
        file = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(file))
        close_scene()
        add_case("mine", 2)
        click(self.ui.addSceneButton)
        self.add_list(self.write_case_list())
        self.session.table.set_role([0], LEFT_OUT)
        before = list(self.session.table.rows)
        slicer.mrmlScene.ReadFromMRB(file, False)
        process_events()
        rows = self.session.table.rows
        self.assertEqual([row.name for row in rows], ["mine", "A", "imported"])
        self.assertEqual([(row.source, row.role) for row in rows[:2]], [(row.source, row.role) for row in before])
        self.assertEqual(slicer.mrmlScene.GetNodeByID(rows[2].source.volume).GetName(), "imported")
        self.session.save()
        self.assertEqual([row.name for row in load_cases(self.session._node).rows], ["mine", "A", "imported"])

    def test_case_that_cannot_be_read_is_reported_and_survives_edits_and_an_import(self) -> None:
        add_case("imported", 1)
        click(self.ui.addSceneButton)
        file = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(file))
        close_scene()
        later = {"name": "later", "source": {"image": "later.nrrd", "label": ""}, "role": "dancer"}
        node = self.session._node
        self.module.widget._detach()
        node.SetParameter("cases", json.dumps([later]))
        self.module.widget._attach()
        self.add_list(self.write_case_list())
        self.assertEqual([row.name for row in self.session.table.rows], ["A"])
        slicer.mrmlScene.ReadFromMRB(file, False)
        process_events()
        self.assertEqual([row.name for row in self.session.table.rows], ["A", "imported"])
        self.module.widget.cases.refresh()
        self.assertIn("cannot read: 1.", self.ui.casesSummary.text)
        self.session.save()
        self.assertEqual(load_cases(self.session._node).unread, [later])

    def test_cases_that_this_version_cannot_read_are_listed_and_removed(self) -> None:
        self.assertTrue(self.ui.removeUnreadButton.isHidden())
        later = {"name": "later", "source": {"image": "later.nrrd", "label": ""}, "role": "dancer"}
        unread = [later, {"strange": 1}, *({"name": f"case {number}"} for number in range(20))]
        node = self.session._node
        self.module.widget._detach()
        node.SetParameter("cases", json.dumps(unread))
        self.module.widget._attach()
        self.assertEqual(len(self.session.table), 0)
        self.assertFalse(self.ui.removeUnreadButton.isHidden())
        with Person() as person:
            person.expects('• later, later.nrrd\n• {"strange": 1}\n• case 0\n', "Cancel")
            click(self.ui.removeUnreadButton)
        self.assertEqual(load_cases(node).unread, unread)
        with Person() as person:
            person.expects("… and 12 more", "Ok")
            click(self.ui.removeUnreadButton)
        self.assertEqual(load_cases(node).unread, [])
        self.assertTrue(self.ui.removeUnreadButton.isHidden())
        self.assertNotIn("cannot read", self.ui.casesSummary.text)

    def test_title_of_an_unread_case_is_shortened_to_the_limit(self) -> None:
        for length in (MAX_TITLE, MAX_TITLE + 1):
            title = title_of_unread("x" * length)
            self.assertEqual(len(title), MAX_TITLE)
            self.assertEqual(title.endswith("…"), length > MAX_TITLE)

    def test_imported_volume_does_not_replace_the_deleted_volume_of_a_case(self) -> None:
        add_case("imported", 1)
        click(self.ui.addSceneButton)
        file = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(file))
        close_scene()
        volume, _outline = add_case("mine", 2)
        click(self.ui.addSceneButton)
        slicer.mrmlScene.RemoveNode(volume)
        slicer.mrmlScene.ReadFromMRB(file, False)  # the imported volume takes the removed volume's ID
        process_events()
        volumes = [slicer.mrmlScene.GetNodeByID(row.source.volume) for row in self.session.table.rows]
        self.assertEqual([one and one.GetName() for one in volumes], [None, "imported"])

    def test_new_node_with_a_removed_nodes_id_does_not_join_the_removed_nodes_case(self) -> None:
        for kind in ("volume", "segmentation"):
            with self.subTest(kind):
                close_scene()
                add_case("mine", 1)
                click(self.ui.addSceneButton)
                reload_scene()  # From now on, Slicer gives the ID of a removed node to a new node.
                self.wait_for(lambda: self.session.checked, "the check")
                identifier = getattr(self.session.table.rows[0].source, kind)
                slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(identifier))
                other = dict(zip(("volume", "segmentation"), add_case("other", 2), strict=True))
                self.assertEqual(other[kind].GetID(), identifier)
                for reloads in (False, True):
                    if reloads:
                        reload_scene()
                    self.wait_for(lambda: self.session.checked, "the check")
                    (row,) = self.session.table.rows
                    self.assertIsNone(slicer.mrmlScene.GetNodeByID(getattr(row.source, kind)))
                    self.assertIn(f"The {kind} is no longer in the scene", row.remark)
                    self.assertIn(f"The {kind} is no longer in the scene", self.ui.problemsLabel.text)

    def test_removed_volumes_that_had_the_same_id_stay_two_cases(self) -> None:
        add_case("first", 1)
        reload_scene()  # From now on, Slicer gives the ID of a removed node to a new node.
        identifiers = set()
        for name in ("first", "second"):
            click(self.ui.addSceneButton)
            volume = slicer.util.getFirstNodeByName(name)
            identifiers.add(volume.GetID())
            slicer.mrmlScene.RemoveNode(volume)
            if name == "first":
                add_case("second", 2)
        self.assertEqual(len(identifiers), 1)
        for _reload in range(2):
            rows = self.session.table.rows
            self.assertEqual([row.name for row in rows], ["first", "second"])
            self.assertEqual(len({row.scan for row in rows}), 2)
            reload_scene()

    def test_new_volume_with_the_id_of_a_removed_volume_does_not_join_the_unread_case(self) -> None:
        add_case("mine", 1)
        click(self.ui.addSceneButton)
        reload_scene()  # From now on, Slicer gives the ID of a removed node to a new node.
        node = self.session._node
        self.module.widget._detach()
        node.SetParameter("cases", node.GetParameter("cases").replace(LABELLED, "dancer"))
        self.module.widget._attach()
        volume = slicer.util.getFirstNodeByName("mine")
        identifier = volume.GetID()
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(add_case("other", 2)[0].GetID(), identifier)
        self.session.save()
        (unread,) = load_cases(self.session._node).unread
        self.assertEqual(unread["name"], "mine")
        self.assertIsNone(slicer.mrmlScene.GetNodeByID(unread["source"]["volume"]))

    def test_cases_are_kept_when_the_module_is_closed(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.close_module()
        self.module = open_module("DCAMTTraining")
        self.assertEqual([row.name for row in self.module.logic.session.table.rows], ["scan"])

    def test_device_is_a_setting_of_the_computer_and_not_of_the_scene(self) -> None:
        choose(self.ui.deviceSelector, "CPU")
        close_scene()
        self.assertEqual(self.ui.deviceSelector.currentText, "CPU")
        self.assertEqual(self.session.device(), "cpu")

    def test_unused_run_name_is_suggested(self) -> None:
        (self.runs / "run-1").mkdir()
        (self.runs / "run-2").mkdir()
        close_scene()  # the default name in a new scene is run-1, which is taken here
        self.assertEqual(self.ui.runNameEdit.text, "run-3")
        other = self.folder / "other runs"
        other.mkdir()
        self.ui.runsFolderEdit.currentPath = str(other)
        self.assertEqual(self.ui.runNameEdit.text, "run-3")
        (other / "run-3").mkdir()
        self.session.notify_settings_changed()
        self.assertIn("A run “run-3” exists already", self.ui.problemsLabel.text)
        self.ui.runsFolderEdit.currentPath = str(self.runs)
        self.ui.runsFolderEdit.currentPath = str(other)
        self.assertEqual(self.ui.runNameEdit.text, "run-1")

    def test_invalid_run_name_is_refused(self) -> None:
        for name in ("CON", "nul.txt", "run.", ".run", "a/b", "", "\ud800"):
            with self.assertRaisesRegex(InputError, "cannot be a run's name"):
                run_named(name)
        self.assertEqual(run_named("console ").path, runs_folder() / "console")
        self.session.settings.runName = "CON"
        self.assertIn("CON: cannot be a run's name", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_name_that_is_too_long_for_a_folder_is_refused(self) -> None:
        for name in ("a" * 81, "\U0001fac0" * 70):
            with self.assertRaisesRegex(InputError, "is too long for a run's name"):
                run_named(name)

    def write_case_list(self) -> Path:
        path = self.folder / "cases.csv"
        path.write_text("name,image,label,role\nA,a.nrrd,,unlabelled\n", encoding="utf-8")
        return path


class FolderOfRunsTest(TrainingCase):
    def test_unwritable_folder_is_reported(self) -> None:
        add_case("one", 1)
        click(self.ui.addSceneButton)
        self.choose_tiny_model_and_settings()
        self.measure()
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

    def type_folder(self, path: Path | str) -> Any:
        """Type over the path in the field; return the field's line edit."""
        edit = self.ui.runsFolderEdit.findChildren(qt.QLineEdit)[0]
        edit.selectAll()
        type_keys(edit, str(path))
        return edit

    def test_typed_folder_is_used_after_enter_and_its_text_is_never_changed(self) -> None:
        nested = self.folder / "nested" / "runs"
        nested.mkdir(parents=True)
        for folder in (nested, self.folder / "new" / "runs"):
            edit = self.type_folder(folder)
            self.module.widget.runs.refresh()  # The panel does this when another program starts a run.
            self.assertEqual(self.ui.runsFolderEdit.currentPath, str(folder))
            self.assertNotEqual(runs_folder(), folder)
            type_keys(edit, "\n")
            self.assertEqual(self.ui.runsFolderEdit.currentPath, str(folder))
            self.assertEqual(runs_folder(), folder)

    def test_characters_are_inserted_at_the_cursor_of_the_path(self) -> None:
        (self.folder / "a" / "runs").mkdir(parents=True)
        edit = self.type_folder(self.folder / "runs")
        edit.setCursorPosition(len(str(self.folder)))
        type_keys(edit, "/a\n")
        self.assertEqual(runs_folder(), self.folder / "a" / "runs")

    def test_start_uses_the_typed_folder(self) -> None:
        self.type_folder(self.folder / "other")
        self.ui.startButton.pressed.emit()
        self.assertEqual(runs_folder(), self.folder / "other")

    def test_typed_relative_path_is_refused(self) -> None:
        self.type_folder("runs\n")
        self.assertEqual(self.ui.runsFolderEdit.currentPath, str(self.runs))
        self.assertEqual(runs_folder(), self.runs)

    def test_typed_folder_that_is_not_writable_is_reported(self) -> None:
        (self.folder / "file").write_text("", encoding="utf-8")
        self.type_folder(f"{self.folder / 'file' / 'runs'}\n")
        self.assertIn("is not writable. Choose another folder", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)

    def test_unreadable_subfolder_is_ignored(self) -> None:
        lost = self.runs / "lost+found"
        lost.mkdir()
        self.write_run()
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


class TypingTest(TrainingCase):
    def type_within(self, edit: Any, before: str, typed: str, after: str) -> None:
        edit.setCursorPosition(len(before))
        type_keys(edit, typed)
        self.assertEqual((edit.text, edit.cursorPosition), (before + typed + after, len(before + typed)))

    def test_characters_are_inserted_at_the_cursor(self) -> None:
        self.ui.advancedBox.collapsed = False
        widgets = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
        edits = {name: widget for name, widget in widgets.items() if name and widget.className() == "QLineEdit"}
        for name, edit in edits.items():
            with self.subTest(name):
                edit.text = "0.6,2.5"
                self.type_within(edit, "0.6", "25", ",2.5")
                self.assertEqual(getattr(self.session.settings, name), "0.625,2.5")
        self.assertGreater(len(edits), 10)

    def test_digits_are_inserted_at_the_cursor_of_a_number(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        self.ui.validationSpinBox.value = 14
        self.type_within(self.ui.validationSpinBox.findChildren(qt.QLineEdit)[0], "1", "23", "4")
        self.assertEqual(self.session.settings.validationCount, 1234)


class PackagesTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        stack = ExitStack()
        stack.enter_context(pip.replace_pip_of_slicer())
        self.addCleanup(stack.close)
        pip.missing = {"nibabel"}

    def test_installation_is_offered_only_by_buttons_that_compute(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        process_events()
        for button in (self.ui.checkButton, self.ui.suggestButton, self.ui.measureButton, self.ui.startButton):
            with Person() as person:
                person.expects("DCAMT needs Python packages", "Cancel")
                click(button)
            self.assertEqual(person.errors(), [])  # declining causes no error message
        self.assertFalse(self.session.estimation.running or self.session.checking)
        self.assertEqual(list(self.runs.iterdir()), [])
        self.assertTrue(self.ui.startButton.enabled)

    def test_nothing_starts_if_the_scene_was_closed_during_the_installation(self) -> None:
        for button in (self.ui.checkButton, self.ui.suggestButton, self.ui.measureButton, self.ui.startButton):
            pip.missing = {"nibabel"}
            add_case("scan", 1)
            click(self.ui.addSceneButton)
            process_events()
            with self.subTest(button=button.name), Person() as person:
                qt.QTimer.singleShot(0, close_scene)
                person.expects("DCAMT needs Python packages", "Ok")
                person.expects("During the installation, the scene was closed", "Ok")
                click(button)
            suggestion = self.module.widget.task._suggestion
            self.assertFalse(self.session.estimation.running or self.session.checking or suggestion)
            self.assertFalse(self.module.widget.starting.starting)

    def click_and_select_another_run_during_the_installation(self, button: Any) -> RunFolder:
        """Select a run, click, and select another run during the installation; return the first run."""
        first, second = (self.make_run(name, STARTED, PAUSED) for name in ("first", "second"))
        for run in (first, second):
            run.model.write_bytes(b"a model")
        self.module.widget.runs.refresh()
        choose(self.ui.runSelector, "first: paused")
        qt.QTimer.singleShot(0, lambda: choose(self.ui.runSelector, "second: paused"))
        with Person() as person:
            person.expects("DCAMT needs Python packages", "Ok")
            click(button)
        return first

    def test_resume_button_resumes_the_run_selected_before_the_installation(self) -> None:
        with mock.patch.object(runs_panel, "resume") as resume:
            first = self.click_and_select_another_run_during_the_installation(self.ui.resumeButton)
        self.assertEqual([call.args[0].path for call in resume.call_args_list], [first.path])

    def test_nothing_is_ranked_if_another_run_was_selected_during_the_installation(self) -> None:
        with mock.patch.object(outline_panel, "EngineCommand") as command:
            self.click_and_select_another_run_during_the_installation(self.ui.rankButton)
        command.assert_not_called()
        text = "During the installation, another run was selected. Rank again."
        self.assertEqual(self.ui.rankStatusLabel.text, text)

    def test_packages_are_looked_for_until_they_are_installed(self) -> None:
        answers = [["nibabel"], []]
        with mock.patch.object(session_module, "missing_packages", side_effect=answers) as looked_for:
            for _edit in range(4):
                self.session._on_saved(None)
        self.assertEqual(looked_for.call_count, 0)  # there are no cases
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        with mock.patch.object(session_module, "missing_packages", side_effect=answers) as looked_for:
            for expected in (1, 2, 2, 2):
                self.session._on_saved(None)
                self.assertEqual(looked_for.call_count, expected)

    def test_reason_and_output_of_a_failed_installation_are_shown(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        pip.returncode, pip.output = 1, ("Collecting nibabel", "ERROR: No space left on device")
        with Person() as person:
            person.expects("DCAMT needs Python packages", "Ok")
            person.expects("ERROR: No space left on device", "Ok")
            click(self.ui.checkButton)
        self.assertIn("ERROR: No space left on device", person.seen[-1].text)
        self.assertIn("Collecting nibabel", person.seen[-1].detail)


class TenThousandCasesTest(TrainingCase):
    def test_window_is_not_blocked_by_ten_thousand_cases(self) -> None:
        table = self.folder / "cases.csv"
        rows = [f"case{n:05d},images/{n}.nrrd,labels/{n}.nrrd,labelled" for n in range(10_000)]
        table.write_text("\n".join(["name,image,label,role", *rows]), encoding="utf-8")
        add_case("in the scene")

        def add_cases() -> Pause:
            self.session.table.replace_all([])
            with Person() as person:
                person.expects("List of cases", str(table))
                click(self.ui.addSceneButton)
                click(self.ui.addListButton)
            with LoopMonitor() as monitor:
                self.wait_for(lambda: len(self.session.table) == 10_001, "the list")
                self.wait_for(lambda: self.session.table.rows[200].remark, "some of the headers")
                self.session.table.set_role([5], VALIDATION)
                node = self.session._node
                self.wait_for(lambda: f'"{VALIDATION}"' in node.GetParameter("cases"), "the saved change")
            return monitor.pause

        assert_stays_responsive(shortest_pause(add_cases))
        self.assertEqual(self.ui.casesTable.model().rowCount(), 10_001)
        self.assertIsInstance(self.session.table.rows[7].source, FileScan)
        node = self.session._node
        self.assertEqual(load_cases(node).rows, [replace(row, remark="", note="") for row in self.session.table.rows])


class SelfTest(TrainingCase):
    def test_self_test_of_the_module_passes(self) -> None:
        slicer.selfTests["DCAMTTraining"]()
