"""The table of cases in the training panel: rows, roles, background checks, and saving with the scene."""

from __future__ import annotations

import json
import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import qt
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION
from dcamt.errors import InputError
from dcamt.recipe_files import load_recipe
from DCAMTSlicerLib import engine_process
from DCAMTSlicerLib.engine_process import wait_for_killed
from DCAMTTrainingLib.cases.check import CaseCheck
from DCAMTTrainingLib.cases.lists import write_lines
from DCAMTTrainingLib.cases.rows import CaseRow, CaseTable, FileScan, SceneScan, UniqueNames, parse_row, rows_to_json
from DCAMTTrainingLib.cases.scene_source import row_of, scene_rows
from DCAMTTrainingLib.cases.store import load_cases, save_rows
from DCAMTTrainingLib.cases.table_model import LABEL, REMARK, ROLE, SIZE, SPACING, CaseTableModel, next_role
from scene_nodes import add_case, add_volume, ellipsoid, write_endless_program, write_scan
from slicer_harness import (
    LoopMonitor,
    assert_stays_responsive,
    close_scene,
    pause_of,
    process_events,
    process_events_until,
    scene_saved_and_closed,
    start_afresh,
)


def file_row(name: str, role: str = UNLABELLED, label: str = "") -> CaseRow:
    return CaseRow(name, FileScan(f"/scans/{name}.nrrd", label), role)


def scene_row(segmentation: str, segments: tuple[tuple[str, int], ...] = (("s1", 1),)) -> CaseRow:
    return CaseRow("x", SceneScan("v", segmentation, segments if segmentation else ()), LABELLED)


class RowsTest(unittest.TestCase):
    def setUp(self):
        self.table = CaseTable()
        self.received = []
        self.table.on_reset.append(lambda: self.received.append("reset"))
        self.table.on_changed.append(lambda first, last: self.received.append((first, last)))

    def test_scan_is_added_once_and_equal_names_get_numbers(self):
        same_name = CaseRow("a", FileScan("/other/a.nrrd"), UNLABELLED)
        self.assertEqual(self.table.add([file_row("a"), file_row("b"), same_name]), 3)
        self.assertEqual([row.name for row in self.table.rows], ["a", "b", "a_2"])
        outlined = CaseRow("again", FileScan("/scans/b.nrrd", "/scans/b_label.nrrd"), LABELLED)
        self.assertEqual(self.table.add([outlined]), 0)
        self.assertEqual(self.table.rows[1], CaseRow("b", outlined.source, LABELLED))
        self.assertEqual(self.received, ["reset", "reset"])

    def test_case_added_again_gets_the_new_name_of_its_node(self):
        rows = [replace(scene_row("one"), name="scan", source=SceneScan(volume)) for volume in ("v1", "v2")]
        self.table.add(rows)
        for names, expected in (
            (("scan", "scan"), ["scan", "scan_2"]),
            (("p1", "scan"), ["p1", "scan_2"]),
            (("scan", "p1"), ["scan", "p1"]),
            (("p1", "scan"), ["p1", "scan"]),
            (("p1", "p1"), ["p1", "p1_2"]),
            (("p2", "p1"), ["p2", "p1_2"]),
            (("LA", "LA_2"), ["LA", "LA_2"]),
            (("p1", "LA"), ["p1", "LA"]),
            (("LA", "LA"), ["LA_2", "LA"]),
        ):
            self.table.replace_all([parse_row(data) for data in json.loads(rows_to_json(self.table.rows))])
            self.table.add([replace(row, name=name) for row, name in zip(rows, names, strict=True)])
            self.assertEqual([row.name for row in self.table.rows], expected)

    def test_name_in_a_case_list_replaces_the_earlier_name(self):
        self.table.add([file_row("a"), file_row("b")])
        for repeated in (1, 2, 2):
            self.table.add([replace(file_row("a"), name="b")] * repeated, roles_chosen=True)
            self.assertEqual([row.name for row in self.table.rows], ["b_2", "b"])
        swapped = [replace(file_row("a"), name="b"), replace(file_row("b"), name="c")]
        for _ in range(2):
            self.table.add(swapped, roles_chosen=True)
            self.assertEqual([row.name for row in self.table.rows], ["b", "c"])

    def test_case_added_again_keeps_the_chosen_role(self):
        self.table.add([scene_row("one")])
        for role in (VALIDATION, UNLABELLED, LEFT_OUT):
            self.table.set_role([0], role)
            self.table.add([scene_row("one")])
            self.assertEqual(self.table.rows[0].role, role)

    def test_cases_of_one_name_are_numbered_in_linear_time(self):
        names = UniqueNames(["LGE"])
        examined = []

        class CountedSet(set):
            def __contains__(self, name):
                examined.append(name)
                return super().__contains__(name)

        names._taken = CountedSet(names._taken)
        self.assertEqual([names.add("LGE") for _ in range(50)], [f"LGE_{number}" for number in range(2, 52)])
        self.assertLess(len(examined), 3 * 50)

    def test_role_in_a_case_list_replaces_the_earlier_role(self):
        self.table.add([scene_row("one")])
        self.table.add([replace(scene_row("one"), role=VALIDATION)], roles_chosen=True)
        self.assertEqual(self.table.rows[0].role, VALIDATION)

    def test_case_added_again_gets_the_new_segments_unless_a_person_chose_the_old_ones(self):
        self.table.add([scene_row("one")])
        self.table.add([scene_row("one", (("s1", 2), ("s3", 1)))])  # the classes changed, or a segment was added
        self.assertEqual(self.table.rows[0].source.segments, (("s1", 2), ("s3", 1)))
        self.table.replace_row(0, replace(self.table.rows[0], source=SceneScan("v", "one", (("s2", 1),), chosen=True)))
        self.table.add([scene_row("one")])
        self.assertEqual(self.table.rows[0].source.segments, (("s2", 1),))
        self.assertEqual([parse_row(data) for data in json.loads(rows_to_json(self.table.rows))], self.table.rows)

    def test_another_segmentation_replaces_the_chosen_segments_but_not_the_role(self):
        chosen = SceneScan("v", "one", (("s2", 1),), chosen=True)
        self.table.add([replace(scene_row("one"), source=chosen, role=VALIDATION)])
        self.table.add([scene_row("another")])
        self.assertEqual(
            (self.table.rows[0].source, self.table.rows[0].role), (scene_row("another").source, VALIDATION)
        )

    def test_case_added_again_is_unlabelled_while_it_has_no_segmentation(self):
        self.table.add([scene_row("one")])
        self.table.add([replace(scene_row(""), role=UNLABELLED)])
        self.assertEqual(self.table.rows[0].role, UNLABELLED)
        self.table.add([scene_row("one")])
        self.assertEqual(self.table.rows[0].role, LABELLED)

    def test_role_that_needs_a_label_is_refused_without_a_label(self):
        self.table.add([file_row("a"), file_row("b", LABELLED, "/b_label.nrrd")])
        self.assertEqual(self.table.set_role([0, 1], VALIDATION), 1)
        self.assertEqual([row.role for row in self.table.rows], [UNLABELLED, VALIDATION])
        self.assertEqual(self.table.set_role([0, 1], LEFT_OUT), 0)
        self.assertEqual(self.received[-1], (0, 1))
        with self.assertRaises(ValueError):
            self.table.set_role([0], "dancer")

    def test_label_mapping_is_set_for_label_files_in_one_edit(self):
        edits = []
        self.table.on_edited.append(lambda: edits.append(len(self.table)))
        self.table.add(
            [file_row("a"), *(file_row(f"l{n}", LABELLED, f"/l{n}.nrrd") for n in range(3)), scene_row("one")]
        )
        edits.clear()
        self.assertEqual(self.table.set_label_mapping([0, 1, 3, 4], "420=1"), 2)
        labels = [getattr(row.source, "labels", "") for row in self.table.rows]
        self.assertEqual(labels, ["", "420=1", "", "420=1", ""])
        self.assertEqual((self.received[-1], len(edits)), ((1, 3), 1))
        self.assertEqual(self.table.set_label_mapping([0], "420=1"), 0)
        self.assertEqual(len(edits), 1)

    def test_validation_leaves_at_least_one_labelled_case_for_training(self):
        self.table.add([file_row(f"l{n}", LABELLED, f"/l{n}.nrrd") for n in range(4)] + [file_row("u")])
        self.assertEqual(self.table.use_for_validation(2), 2)
        self.assertEqual([row.role for row in self.table.rows], [LABELLED] * 2 + [VALIDATION] * 2 + [UNLABELLED])
        self.assertEqual(self.table.use_for_validation(1), 1)
        self.assertEqual(self.table.count(LABELLED), 3)
        self.assertEqual(self.table.use_for_validation(9), 3)
        self.assertEqual(self.table.use_for_validation(0), 0)
        self.assertEqual(self.table.count(VALIDATION), 0)

    def test_json_holds_neither_removed_rows_nor_remarks(self):
        self.table.add([file_row(f"c{n}") for n in range(3)])
        self.table.set_facts(2, (4, 5, 6), (1.0, 1.0, 2.5), "wrong")
        self.table.remove([0, 1])
        kept = [parse_row(data) for data in json.loads(rows_to_json(self.table.rows))]
        self.assertEqual(kept, [CaseRow("c2", FileScan("/scans/c2.nrrd"), UNLABELLED, (4, 5, 6), (1.0, 1.0, 2.5))])

    def test_json_that_is_not_a_valid_row_is_refused(self):
        valid = {"name": "a", "source": {"image": "i", "label": ""}, "role": UNLABELLED}
        self.assertEqual(parse_row(valid), CaseRow("a", FileScan("i"), UNLABELLED))
        for stored in (
            {"a": 1},
            1,
            {**valid, "role": "dancer"},
            {**valid, "role": []},
            {**valid, "name": 5},
            {**valid, "plain_name": 5},
            {**valid, "source": {"image": 5, "label": ""}},
            {**valid, "size": 3},
            {**valid, "size": [float("inf")]},
        ):
            with self.assertRaises(ValueError):
                parse_row(stored)

    def test_next_role_cycles_through_the_possible_roles(self):
        row = file_row("a", LABELLED, "/label.nrrd")
        seen = []
        for _ in range(5):
            seen.append(row.role)
            row = CaseRow(row.name, row.source, next_role(row))
        self.assertEqual(seen, [LABELLED, UNLABELLED, VALIDATION, LEFT_OUT, LABELLED])
        self.assertEqual(next_role(file_row("b")), LEFT_OUT)
        self.assertEqual(next_role(file_row("b", LEFT_OUT)), UNLABELLED)


class TableModelTest(unittest.TestCase):
    def test_table_model_returns_the_rows_and_signals_changes(self):
        table = CaseTable()
        model = CaseTableModel(table)
        view = qt.QTableView()
        view.setModel(model)
        self.assertEqual((model.rowCount(), model.columnCount()), (0, 7))
        table.add([file_row("a", LABELLED, "/x/a_label.nrrd"), file_row("b")])
        self.assertEqual(view.model().rowCount(), 2)
        texts = [view.model().data(view.model().index(0, column), qt.Qt.DisplayRole) for column in range(7)]
        # Paths are shown relative to the common folder of all files.
        self.assertEqual(texts, ["a", "labelled", "", "", "", "scans/a.nrrd", "x/a_label.nrrd"])
        self.assertEqual(model.data(model.index(0, LABEL), qt.Qt.ToolTipRole), "/x/a_label.nrrd")
        self.assertEqual(model.headerData(ROLE, qt.Qt.Horizontal, qt.Qt.DisplayRole), "Role")
        changes = []
        model.dataChanged.connect(lambda first, last: changes.append((first.row(), last.row())))
        table.set_facts(1, (10, 20, 30), (0.5, 0.5, 1.0), "is gone")
        self.assertEqual(changes, [(1, 1)])
        texts = [model.data(model.index(1, column), qt.Qt.DisplayRole) for column in (SIZE, SPACING, REMARK)]
        self.assertEqual(texts, ["10×20×30", "0.500×0.500×1.000", "is gone"])
        self.assertEqual(model.data(model.index(1, SIZE), qt.Qt.ToolTipRole), "10×20×30\nis gone")
        self.assertIsNotNone(model.data(model.index(1, REMARK), qt.Qt.ForegroundRole))
        self.assertIsNone(model.data(model.index(1, ROLE), qt.Qt.ForegroundRole))
        table.set_facts(1, (10, 20, 30), (0.625, 0.625, 0.625), "")
        self.assertEqual(model.data(model.index(1, SPACING), qt.Qt.DisplayRole), "0.625")

    def test_table_of_ten_thousand_cases_does_not_block_the_window(self):
        table = CaseTable()
        model = CaseTableModel(table)
        view = qt.QTableView()
        view.setModel(model)
        view.show()
        rows = [file_row(f"case{n:05d}", LABELLED, f"/labels/{n}.nrrd") for n in range(10000)]

        def pause_in_view(action):
            def act():
                action()
                slicer.app.processEvents()

            return pause_of(act)

        assert_stays_responsive(pause_in_view(lambda: table.replace_all(rows)))
        assert_stays_responsive(pause_in_view(lambda: table.set_role([5000], VALIDATION)))
        assert_stays_responsive(pause_in_view(lambda: table.use_for_validation(200)))
        assert_stays_responsive(pause_in_view(lambda: table.set_facts(9999, (1, 2, 3), (1, 1, 1), "")))
        assert_stays_responsive(pause_in_view(lambda: view.scrollToBottom()))


class SavedWithTheSceneTest(unittest.TestCase):
    def test_rows_and_their_nodes_are_restored_from_a_saved_scene(self):
        close_scene()
        recipe = load_recipe("la")
        add_case("scan")
        add_volume("plain", ellipsoid(1)[0])
        rows = [*scene_rows(recipe), CaseRow('quoted "name" %3A;', FileScan("/a b/c;d.nrrd", "/l.nrrd"), VALIDATION)]
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "node with cases")
        save_rows(node, rows)
        self.assertEqual(load_cases(node).rows, rows)
        with scene_saved_and_closed():
            # These nodes get the IDs that the saved nodes had.
            add_case("already here", 3)
            add_volume("another", ellipsoid(4)[0])
        node = slicer.util.getFirstNodeByName("node with cases")
        loaded = load_cases(node).rows
        self.assertEqual([row.name for row in loaded], [row.name for row in rows])
        self.assertEqual(loaded[2], rows[2])
        names = [slicer.mrmlScene.GetNodeByID(row.source.volume).GetName() for row in loaded[:2]]
        self.assertEqual(names, ["scan", "plain"])
        outline = slicer.mrmlScene.GetNodeByID(loaded[0].source.segmentation)
        self.assertEqual(outline.GetName(), "scan outline")
        self.assertEqual(loaded[1].source.segmentation, "")

    def test_removed_node_does_not_change_the_nodes_of_other_cases(self):
        recipe = load_recipe("la")
        for reloads in (False, True):
            for removed in ("volume", "segmentation"):
                close_scene()
                for number in range(3):
                    add_case(f"scan{number}", number)
                rows = scene_rows(recipe)
                node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "node with cases")
                save_rows(node, rows)
                slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(getattr(rows[0].source, removed)))
                if reloads:
                    save_rows(node, rows)
                    with scene_saved_and_closed():
                        # These nodes get the IDs that the saved nodes had.
                        add_case("already here", 3)
                    node = slicer.util.getFirstNodeByName("node with cases")
                loaded = load_cases(node).rows
                with self.subTest(reloads=reloads, removed=removed):
                    self.assertEqual([row.name for row in loaded], ["scan0", "scan1", "scan2"])
                    for row in loaded:
                        volume = slicer.mrmlScene.GetNodeByID(row.source.volume)
                        outline = slicer.mrmlScene.GetNodeByID(row.source.segmentation)
                        names = [one and one.GetName() for one in (volume, outline)]
                        expected = [row.name, f"{row.name} outline"]
                        if row.name == "scan0":
                            expected[("volume", "segmentation").index(removed)] = None
                        self.assertEqual(names, expected)
                    save_rows(node, loaded)
                    self.assertEqual(load_cases(node).rows, loaded)

    def test_cases_are_restored_from_a_scene_of_an_older_version(self):
        close_scene()
        for number in range(2):
            add_case(f"scan{number}", number)
        rows = scene_rows(load_recipe("la"))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "node with cases")
        for row in rows:
            node.AddNodeReferenceID("DCAMT.caseVolume", row.source.volume)
            node.AddNodeReferenceID("DCAMT.caseSegmentation", row.source.segmentation)
        text = rows_to_json(rows)
        # After the import of a scene, the references have the nodes' new IDs, and the text still has the old IDs.
        node.SetParameter("cases", text.replace("Node1", "Node7"))
        self.assertEqual(load_cases(node).rows, rows)
        node.SetParameter("cases", text)
        slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(rows[0].source.volume))
        self.assertEqual(load_cases(node).rows, rows)

    def test_invalid_text_gives_no_rows(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "any")
        self.assertEqual(list(load_cases(node).rows), [])
        for text in ("x", "[1]", '[{"source": 1}]', '{"source": 1}', "[" * 100000):
            node.SetParameter("cases", text)
            self.assertEqual(list(load_cases(node).rows), [])
            saved = load_cases(node)
            self.assertEqual(len(saved.unread), 1)
            save_rows(node, *saved)
            self.assertEqual(load_cases(node).unread, saved.unread)

    def test_saving_cases_keeps_a_case_of_a_later_version_and_the_nodes_of_that_case(self):
        close_scene()
        for number in range(2):
            add_case(f"scan{number}", number)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "node with cases")
        save_rows(node, scene_rows(load_recipe("la")))
        # A later version may store a role that this version does not know.
        node.SetParameter("cases", node.GetParameter("cases").replace(LABELLED, "dancer", 1))
        for reloads in range(2):
            saved = load_cases(node)
            self.assertEqual([row.name for row in saved.rows], ["scan1"])
            (unread,) = saved.unread
            self.assertEqual((unread["name"], unread["role"]), ("scan0", "dancer"))
            self.assertEqual(slicer.mrmlScene.GetNodeByID(unread["source"]["volume"]).GetName(), "scan0")
            save_rows(node, *saved)
            if not reloads:
                with scene_saved_and_closed():
                    # These nodes get the IDs that the saved nodes had.
                    add_case("already here", 3)
                node = slicer.util.getFirstNodeByName("node with cases")


class CaseCheckTest(unittest.TestCase):
    def setUp(self):
        start_afresh()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ended = []

    def check(self, table, recipe="la"):
        case_check = CaseCheck(table, load_recipe(recipe), self.ended.append).start()
        process_events_until(lambda: self.ended)
        return case_check

    def test_headers_labels_and_nodes_are_checked_in_the_background(self):
        image, label = ellipsoid()
        for name, voxels in (("a", image), ("a_label", label), ("small_label", label[:18])):
            write_scan(self.folder / f"{name}.nrrd", voxels)
        volume, outline = add_case("in the scene")
        table = CaseTable()
        a = str(self.folder / "a.nrrd")
        table.add([row_of(volume, outline, load_recipe("la"))])
        table.add([CaseRow("a", FileScan(a, str(self.folder / "a_label.nrrd")), LABELLED)])
        table.add([CaseRow("gone", FileScan(str(self.folder / "gone.nrrd")), UNLABELLED)])
        with LoopMonitor() as monitor:
            check = self.check(table)
        assert_stays_responsive(monitor.pause)
        self.assertEqual(self.ended, [""])
        self.assertEqual([bool(row.remark) for row in table.rows], [False, False, True])
        self.assertEqual((table.rows[1].size, table.rows[1].spacing), ((24, 22, 20), (2.0, 2.0, 2.0)))
        self.assertIn("does not exist", table.rows[2].remark)
        self.assertEqual(check.label_values, {0: (1,), 1: (1,)})
        table.replace_row(1, CaseRow("a", FileScan(a, str(self.folder / "small_label.nrrd")), LABELLED))
        self.ended.clear()
        self.check(table)
        self.assertIn("a different grid", table.rows[1].remark)

    def test_size_and_spacing_of_a_changed_volume_are_updated(self):
        volume, outline = add_case("in the scene")
        table = CaseTable()
        table.add([row_of(volume, outline, load_recipe("la"))])
        slicer.util.updateVolumeFromArray(volume, ellipsoid()[0][:12])
        volume.SetSpacing(1.0, 1.0, 3.0)
        self.check(table)
        self.assertEqual((table.rows[0].size, table.rows[0].spacing), ((24, 22, 12), (1.0, 1.0, 3.0)))

    @unittest.skipIf(os.name == "nt", "names of files are UTF-16 on Windows")
    def test_case_whose_path_is_not_utf_8_is_reported_and_the_others_are_checked(self):
        write_scan(self.folder / "good.nrrd", ellipsoid()[0])
        table = CaseTable()
        # Python represents the byte 0xfc of such a name by the character U+DCFC.
        for name in ("M\udcfcller", "good"):
            table.add([CaseRow(name, FileScan(str(self.folder / f"{name}.nrrd")), UNLABELLED)])
        self.check(table)
        self.assertEqual(self.ended, [""])
        self.assertIn("path is not UTF-8. Rename the files", table.rows[0].remark)
        self.assertEqual((table.rows[1].size, table.rows[1].remark), ((24, 22, 20), ""))
        with self.assertRaisesRegex(InputError, "path is not UTF-8"):
            write_lines([("a", table.rows[0].scan, "", UNLABELLED, "")], self.folder / "list.csv")

    def test_training_on_the_file_of_a_validation_scan_is_reported(self):
        volume, outline = add_case("scan")
        path = str(self.folder / "scan.nrrd")
        self.assertTrue(slicer.util.saveNode(volume, path))
        table = CaseTable()
        row = row_of(volume, outline, load_recipe("la"))
        table.add([CaseRow(row.name, row.source, VALIDATION, row.size, row.spacing)])
        table.add([CaseRow("copy", FileScan(path), UNLABELLED)])
        self.check(table)
        self.assertIn("used for training and for validation: “copy” has the same file", table.rows[0].remark)
        # A case that is left out is used neither for training nor for validation.
        for left_out in (1, 0):
            table.set_role([left_out], LEFT_OUT)
            self.ended.clear()
            self.check(table)
            self.assertEqual(table.rows[0].remark, "")
            table.set_role([left_out], UNLABELLED)

    @unittest.skipIf(os.name == "nt", "runs a shell script")
    def test_failed_check_is_reported_even_if_all_headers_were_read(self):
        facts = {"index": 0, "size": [4, 4, 4], "spacing": [1, 1, 1], "labels": None, "problems": [], "warnings": []}
        lines = f"echo '{json.dumps({'event': 'case', **facts})}'\necho 'dcamt: not enough memory' >&2\nexit 1\n"
        program = self.folder / "fails"
        program.write_text(f"#!/bin/sh\n{lines}", encoding="utf-8")
        program.chmod(0o755)
        table = CaseTable()
        table.add([file_row("a")])
        with mock.patch.object(engine_process, "python_program", return_value=str(program)):
            self.check(table)
        self.assertEqual((table.rows[0].size, self.ended), ((4, 4, 4), ["not enough memory"]))

    @unittest.skipIf(os.name == "nt", "runs a shell script")
    def test_end_of_a_cancelled_check_is_not_reported(self):
        table = CaseTable()
        table.add([file_row(f"c{n}") for n in range(50)])
        before, during = (CaseCheck(table, load_recipe("la"), self.ended.append) for _ in range(2))
        before.start().cancel()
        self.assertFalse(before.running)
        with mock.patch.object(engine_process, "python_program", return_value=write_endless_program(self.folder)):
            during.start()
            process_events_until(lambda: during._command is not None, "the command")
        self.assertTrue(during.running)
        during.cancel()
        self.assertFalse(during.running)
        wait_for_killed(120_000)
        process_events()
        self.assertEqual(self.ended, [])
