"""Adding cases from folders, lists, the scene and the segmentation module, and mapping values of label files."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION, list_cases
from dcamt.cases.folders import find_cases
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap
from dcamt.volume import TISSUE, Labelmap, SegmentInfo
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.result_segments import CLASS_TAG
from DCAMTTrainingLib.cases import check
from DCAMTTrainingLib.cases.store import load_cases
from DCAMTTrainingLib.cases.table_model import REMARK, ROLE
from DCAMTTrainingLib.panels import cases as cases_panel
from scene_nodes import add_case, add_outline, add_volume, ellipsoid, write_scan
from slicer_harness import Person, choose, click, close_scene, open_module, process_events
from training_case import TrainingCase


class SourcesTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        self.table = self.session.table

    def test_pairs_of_a_folder_are_shown_before_they_are_added(self) -> None:
        data = self.folder / "data"
        for number in range(3):
            image, label = ellipsoid(number)
            write_scan(data / f"p{number}_image.nrrd", image)
            if number < 2:
                write_scan(data / (f"p{number}_label.nrrd" if number else "p0_LA_gt.nrrd"), label)
        write_scan(data / "lost_label.nrrd", label)
        write_scan(data / "p2_pred.nrrd", label)
        seen = []

        def record_pairs_and(answer):
            def act(dialog):
                tables = [child for child in dialog.children() if child.className() == "QTableView"]
                for table in tables:
                    model = table.model()
                    seen.append([model.data(model.index(row, 0)) for row in range(model.rowCount())])
                getattr(dialog, answer)()

            return act

        with Person() as person:
            person.expects("Folder of scans", str(data))
            person.expects("Cases in the folder", record_pairs_and("reject"))
            click(self.ui.addFolderButton)
            self.wait_for(lambda: len(seen) == 2, "the pairs")
            process_events()
        self.assertEqual(seen[0], ["p0", "p1", "p2"])
        self.assertEqual(sorted(seen[1]), ["lost_label.nrrd", "p2_pred.nrrd"])
        self.assertEqual(len(self.table), 0)
        with Person() as person:
            person.expects("Folder of scans", str(data))
            person.expects("Cases in the folder", record_pairs_and("accept"))
            click(self.ui.addFolderButton)
            self.wait_for(lambda: len(self.table) == 3, "the cases")
        self.assertEqual([row.role for row in self.table.rows], [LABELLED, LABELLED, UNLABELLED])
        paired = [(case.name, str(case.image), str(case.label or "")) for case in find_cases(data).cases]
        self.assertEqual([(row.name, row.source.image, row.source.label) for row in self.table.rows], paired)
        self.assertEqual(self.table.rows[0].source.label, str(data / "p0_LA_gt.nrrd"))
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual([row.size for row in self.table.rows], [(24, 22, 20)] * 3)
        self.assertEqual(self.ui.casesTable.model().rowCount(), 3)

    def test_volume_named_like_a_label_of_another_volume_is_left_out(self) -> None:
        for name in ("p1", "p1_seg", "p2 heart_seg"):
            add_volume(name, ellipsoid(0)[0])
        click(self.ui.addSceneButton)
        rows = {row.name: row for row in self.table.rows}
        self.assertEqual([rows[name].role for name in rows], [UNLABELLED, LEFT_OUT, UNLABELLED])
        self.assertIn("Named like a label", rows["p1_seg"].note)

    def test_folder_without_scans_is_reported(self) -> None:
        with Person() as person:
            person.expects("Folder of scans", str(self.folder / "runs"))
            person.expects("holds no scan", "Ok")
            click(self.ui.addFolderButton)
            self.wait_for(lambda: person.errors(), "the message")

    def test_cases_of_a_folder_are_not_added_to_another_scene(self) -> None:
        case = {"name": "p1", "image": "p1.nrrd", "label": None, "role": UNLABELLED}
        for message in ("", "the folder holds no scan"):
            with (
                self.subTest(message),
                mock.patch.object(cases_panel, "EngineCommand") as command,
                Person() as person,
            ):
                command.return_value.start.return_value.running = False
                person.expects("Folder of scans", str(self.folder))
                click(self.ui.addFolderButton)
                _arguments, on_event, on_end = command.call_args.args
                close_scene()
                process_events()
                on_event({"event": "cases", "cases": [case]})
                person.expects("another scene was opened during the search", "Ok")
                on_end(message)
                self.assertEqual(len(self.table), 0)

    def test_case_lists_are_added_and_saved_in_the_format_of_dcamt_train(self) -> None:
        image, label = ellipsoid(1)
        write_scan(self.folder / "a.nrrd", image)
        write_scan(self.folder / "a_label.nrrd", label)
        given = self.folder / "cases.csv"
        given.write_text(
            "name,image,label,role\nA,a.nrrd,a_label.nrrd,labelled\nB,b.nrrd,,left out\n", encoding="utf-8"
        )
        add_case("in the scene")
        self.add_list(given)
        click(self.ui.addSceneButton)
        self.assertEqual([row.name for row in self.table.rows], ["A", "B", "in the scene"])
        written = self.folder / "out" / "cases.csv"
        written.parent.mkdir()
        with Person() as person:
            person.expects("Save the list", str(written.with_suffix("")))  # The ending is added.
            person.expects("their scans are not files: 1.", "Ok")
            click(self.ui.exportListButton)
        with Person() as person:
            person.expects("Save the list", str(written.with_suffix("")))
            person.expects(f"“{written}” exists. Replace the file?", "Cancel")
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

    def test_scan_named_twice_in_a_list_is_added_once_with_a_message(self) -> None:
        given = self.folder / "cases.csv"
        lines = [
            "name,image,label,role",
            "A,a.nrrd,one.nrrd,labelled",
            "A2,a.nrrd,two.nrrd,labelled",
            "B,b.nrrd,,left out",
        ]
        given.write_text("\n".join(lines), encoding="utf-8")
        with Person() as person:
            person.expects("List of cases", str(given))
            person.expects("Number of lines that repeat a scan: 1.", "Ok")
            click(self.ui.addListButton)
            self.wait_for(lambda: len(person.seen) == 2, "the message")
        self.assertEqual([row.name for row in self.table.rows], ["A", "B"])

    def test_list_in_another_encoding_than_utf8_is_added_with_a_message(self) -> None:
        given = self.folder / "cases.csv"
        given.write_text("name,image,label,role\nMüller,a.nrrd,,left out\n", encoding="latin-1")
        with Person() as person:
            person.expects("List of cases", str(given))
            person.expects(f"{given}: The list is not UTF-8 and was read as Windows-1252. Check the names", "Ok")
            click(self.ui.addListButton)
            self.wait_for(lambda: len(person.seen) == 2, "the message")
        self.assertEqual([row.name for row in self.table.rows], ["Müller"])

    def test_second_folder_or_second_list_is_refused_while_the_first_is_read(self) -> None:
        with mock.patch.object(cases_panel, "EngineCommand") as command, Person() as person:
            command.return_value.start.return_value.running = True
            person.expects("Folder of scans", str(self.folder))
            click(self.ui.addFolderButton)
            click(self.ui.addFolderButton)
        self.assertIn("is still looking for scans", self.ui.casesSummary.text)
        given = self.folder / "cases.csv"
        with mock.patch.object(cases_panel, "SteppedTask") as task, Person() as person:
            task.return_value.start.return_value.running = True
            person.expects("List of cases", str(given))
            click(self.ui.addListButton)
            click(self.ui.addListButton)
        self.assertIn("is still reading the list", self.ui.casesSummary.text)

    def test_list_is_not_added_if_a_line_is_invalid_or_the_scene_is_closed_meanwhile(self) -> None:
        lines = [f"case{n},{n}.nrrd,,unlabelled" for n in range(5000)]
        table = self.folder / "cases.csv"
        table.write_text("\n".join(["name,image,label,role", *lines, "last,x.nrrd,,dancer"]), encoding="utf-8")
        with Person() as person:
            person.expects("List of cases", str(table))
            person.expects("line 5002 ('last') has the unknown role 'dancer'", "Ok")
            click(self.ui.addListButton)
            self.wait_for(lambda: person.errors(), "the message")
        self.assertEqual(len(self.table), 0)
        table.write_text("\n".join(["name,image,label,role", *lines]), encoding="utf-8")
        steps = self.session.add_list_in_steps(table)
        next(steps)
        close_scene()
        process_events()
        with self.assertRaisesRegex(InputError, "another scene was opened while the list was read"):
            list(steps)
        self.assertEqual(len(self.table), 0)

    def test_training_cases_of_the_segmentation_module_are_added(self) -> None:
        click(self.ui.addResultsButton)
        self.assertIn("No result is a training case yet", self.ui.casesSummary.text)
        volume, outline = add_case("corrected")
        add_case("not added", 1)
        training_cases.add_case(volume, outline)
        click(self.ui.addResultsButton)
        self.assertEqual([(row.name, row.role) for row in self.table.rows], [("corrected", LABELLED)])

    def test_adding_results_chooses_the_segmentation_modules_model_to_start_from(self) -> None:
        self.choose_tiny_model_and_settings()
        self.session.settings.startFrom = ""
        segmentation_module = open_module("DCAMTSegmentation")
        self.addCleanup(segmentation_module.close)
        segmentation_module.logic.getParameterNode().model = "tiny"
        training_cases.add_case(*add_case("corrected"))
        slicer.util.selectModule("DCAMTTraining")
        click(self.ui.addResultsButton)
        self.assertEqual(self.session.settings.startFrom, "tiny")
        self.assertIn("tiny", self.ui.startFromSelector.currentText)
        # A model that the user has already chosen is kept.
        self.session.settings.startFrom = "left-atrium"
        click(self.ui.addResultsButton)
        self.assertEqual(self.session.settings.startFrom, "left-atrium")

    def test_result_added_in_the_segmentation_module_is_listed_when_the_panel_opens(self) -> None:
        volume, outline = add_case("corrected")
        self.module.leave()
        training_cases.add_case(volume, outline)
        self.module.enter()
        self.assertEqual([(row.name, row.role) for row in self.table.rows], [("corrected", LABELLED)])
        self.table.remove([0])
        self.module.leave()
        self.module.enter()
        self.assertEqual(len(self.table), 0)
        self.module.leave()
        training_cases.add_case(volume, outline)
        self.module.enter()
        self.assertEqual(len(self.table), 1)

    def test_roles_change_by_clicks_and_problems_are_marked_in_rows(self) -> None:
        add_case("scan", 1)
        empty = add_volume("empty outline", ellipsoid(2)[0])
        add_outline(empty, np.zeros_like(ellipsoid(2)[1]))
        click(self.ui.addSceneButton)
        self.wait_for(lambda: self.session.checked, "the check")
        model = self.ui.casesTable.model()
        self.assertEqual(self.table.rows[0].remark, "")
        self.assertIn("empty", model.data(model.index(1, REMARK)))
        self.assertIn("empty outline: The label is empty", self.ui.problemsLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.ui.casesTable.clicked.emit(model.index(1, ROLE))
        self.assertEqual(model.data(model.index(1, ROLE)), "unlabelled")
        self.ui.casesTable.clicked.emit(model.index(1, REMARK))
        self.assertEqual(model.data(model.index(1, ROLE)), "unlabelled")
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual(self.table.rows[1].remark, "")
        self.assertTrue(self.ui.startButton.enabled)
        for button in (self.ui.removeButton, self.ui.setRoleButton):
            click(button)
            self.assertIn("Select the rows", self.ui.casesSummary.text)
        self.assertEqual(len(self.table.rows), 2)
        self.ui.casesTable.selectRow(0)
        choose(self.ui.roleSelector, "validation")
        click(self.ui.setRoleButton)
        self.assertEqual(self.table.rows[0].role, VALIDATION)
        self.assertFalse(self.ui.startButton.enabled)
        click(self.ui.removeButton)
        self.assertEqual([row.name for row in self.table.rows], ["empty outline"])
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 2)

    def test_person_chooses_segments_for_classes(self) -> None:
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
        self.table.set_role([0], VALIDATION)
        with Person() as person:
            person.expects("Segments of the case", answer)
            click(self.ui.segmentsButton)
        self.assertEqual(self.table.rows[0].role, VALIDATION)

    def test_result_becomes_a_label_if_the_user_chooses_its_segments(self) -> None:
        _volume, result = add_case("scan", 1)
        result.GetSegmentation().GetNthSegment(0).SetTag(CLASS_TAG, "SCT 82471001")
        click(self.ui.addSceneButton)
        self.assertEqual(self.table.rows[0].role, UNLABELLED)
        self.ui.casesTable.selectRow(0)

        def answer(dialog):
            boxes = {child.objectName: child for child in dialog.children() if child.className() == "QComboBox"}
            choose(boxes["segmentationSelector"], result.GetName())
            choose(boxes["classSelector1"], "Left atrium")
            dialog.accept()

        with Person() as person:
            person.expects("Segments of the case", answer)
            click(self.ui.segmentsButton)
        self.assertTrue(training_cases.is_case(result))
        self.wait_for(lambda: self.session.checked, "the check")
        self.assertEqual((self.table.rows[0].role, self.table.rows[0].remark), (LABELLED, ""))

    def test_check_removes_an_outdated_note(self) -> None:
        add_case("scan", 1)
        click(self.ui.addSceneButton)
        for note in ("Only the first channel is used.", ""):
            with mock.patch.object(check, "channels_note", return_value=note):
                self.session.check_cases()
                self.wait_for(lambda: self.session.checked, "the check")
            self.assertEqual(self.table.rows[0].note, note)

    def test_segments_are_chosen_for_one_case_of_the_scene_at_a_time(self) -> None:
        for number in range(2):
            add_case(f"scan{number}", number)
        click(self.ui.addSceneButton)
        before = list(self.table.rows)
        self.ui.casesTable.selectAll()
        click(self.ui.segmentsButton)
        self.assertIn("Select only one case of the scene", self.ui.casesSummary.text)
        self.assertEqual([row.source for row in self.table.rows], [row.source for row in before])


class LabelValuesTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        image, label = ellipsoid(1)
        write_scan(self.folder / "a.nrrd", image)
        write_scan(self.folder / "a_label.nrrd", label.astype(np.int16) * 420)
        self.list = self.folder / "cases.csv"

    def add_list_of(self, text: str) -> None:
        self.list.write_text(text, encoding="utf-8")
        self.add_list(self.list)
        self.wait_for(lambda: self.session.checked, "the check")

    def test_label_values_are_mapped_in_the_panel(self) -> None:
        self.add_list_of("name,image,label,role\nA,a.nrrd,a_label.nrrd,labelled\n")
        self.assertIn("420", self.session.table.rows[0].remark)
        self.assertFalse(self.ui.startButton.enabled)
        self.ui.casesTable.selectRow(0)
        for text, failure in (("420=aorta", "names no known class"), ("420=Left atrium", "")):
            with Person() as person:
                person.expects("Values of the label files", self.enter_mapping(text))
                if failure:
                    person.expects(failure, "Ok")
                click(self.ui.segmentsButton)
        self.assertEqual(self.session.table.rows[0].source.labels, "420=Left atrium")
        self.wait_for(lambda: self.session.checked, "the second check")
        self.assertEqual(self.session.table.rows[0].remark, "")
        self.assertTrue(self.ui.startButton.enabled)
        self.assertEqual(load_cases(self.session._node).rows[0].source.labels, "420=Left atrium")
        with Person() as person:
            person.expects("Save the list", str(self.folder / "out.csv"))
            click(self.ui.exportListButton)
        self.assertEqual(list_cases(self.folder / "out.csv")[0].labels, "420=Left atrium")

    def test_segment_whose_name_and_value_belong_to_different_classes_must_be_mapped(self) -> None:
        choose(self.ui.taskSelector, "My own classes, in MRI")
        click(self.ui.addClassButton)
        for row, name in enumerate(("Left atrium", "Aorta")):
            self.ui.classesTable.item(row, 0).setText(name)
        labels = ellipsoid(1)[1].T.astype(np.uint8)
        labels[:, :, :2] = 2 * (labels.max(axis=2, keepdims=True) > 0)
        infos = [
            SegmentInfo(value, name, (1.0, 0.0, 0.0), TISSUE) for value, name in ((1, "Aorta"), (2, "Left atrium"))
        ]
        grid = Grid(labels.shape, np.diag((2.0, 2.0, 2.0, 1.0)))
        write_labelmap(Labelmap(labels, grid), self.folder / "a.seg.nrrd", infos)
        self.add_list_of("name,image,label,role\nA,a.nrrd,a.seg.nrrd,labelled\n")
        problem = (
            "The label has the segment 'Aorta' with the label value 1, but the class 'Aorta' has the label value 2."
        )
        self.assertIn(problem, self.session.table.rows[0].remark)
        self.assertFalse(self.ui.startButton.enabled)
        self.ui.casesTable.selectRow(0)
        with Person() as person:
            person.expects("Values of the label files", self.enter_mapping("Aorta=Aorta; Left atrium=Left atrium"))
            click(self.ui.segmentsButton)
        self.wait_for(lambda: self.session.checked, "the second check")
        self.assertEqual(self.session.table.rows[0].remark, "")

    def test_user_is_told_if_no_selected_case_has_a_label_file(self) -> None:
        self.add_list_of("name,image,label,role\nA,a.nrrd,,unlabelled\n")
        self.ui.casesTable.selectRow(0)
        with Person() as person:
            person.expects("Values of the label files", self.enter_mapping("420=Left atrium"))
            click(self.ui.segmentsButton)
        self.assertEqual(self.ui.casesSummary.text, "No selected case has a label file.")

    def enter_mapping(self, text: str) -> Any:
        def act(dialog: Any) -> None:
            (edit,) = (child for child in dialog.children() if child.className() == "QLineEdit")
            edit.setText(text)
            dialog.accept()

        return act

    def test_label_values_are_mapped_in_a_case_list(self) -> None:
        self.add_list_of("name,image,label,role,labels\nA,a.nrrd,a_label.nrrd,labelled,420=left-atrium\n")
        row = self.session.table.rows[0]
        self.assertEqual((row.source.labels, row.remark), ("420=left-atrium", ""))
