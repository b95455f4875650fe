"""Cases of the training module: rows, roles, scene nodes, export, checks and saving."""

from __future__ import annotations

import json
import os
import tempfile
import time
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import qt
import slicer
import vtk
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt.recipe import load_recipe
from dcamt.runs.preview import Preview
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import review, training_cases
from DCAMTSlicerLib.result_segments import OWN_TAG
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from DCAMTTrainingLib.cases.check import CaseCheck, scene_remark
from DCAMTTrainingLib.cases.rows import CaseRow, CaseTable, FileScan, SceneScan, parse_rows, rows_to_json
from DCAMTTrainingLib.cases.scene_export import export_case, label_array
from DCAMTTrainingLib.cases.scene_source import outline_of, row_of, scene_rows, segments_of, sent_rows
from DCAMTTrainingLib.cases.store import load_rows, save_rows
from DCAMTTrainingLib.cases.table_model import LABEL, REMARK, ROLE, SIZE, SPACING, CaseTableModel, next_role
from DCAMTTrainingLib.runs.preview import show_preview
from slicer_harness import (
    LoopMonitor,
    assert_no_pause,
    close_scene,
    longest_step,
    process_events_until,
    start_afresh,
    work_seconds,
)
from training_scenes import add_case, add_outline, add_volume, ellipsoid


def file_row(name: str, role: str = UNLABELLED, label: str = "") -> CaseRow:
    return CaseRow(name, FileScan(f"/scans/{name}.nrrd", label), role)


def run_to_end(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class RowsTest(unittest.TestCase):
    def setUp(self):
        self.table = CaseTable()
        self.heard = []
        self.table.on_reset.append(lambda: self.heard.append("reset"))
        self.table.on_changed.append(lambda first, last: self.heard.append((first, last)))

    def test_a_scan_is_added_once_and_equal_names_get_numbers(self):
        same_name = CaseRow("a", FileScan("/other/a.nrrd"), UNLABELLED)
        self.assertEqual(self.table.add([file_row("a"), file_row("b"), same_name]), 3)
        self.assertEqual([row.name for row in self.table.rows], ["a", "b", "a_2"])
        outlined = CaseRow("again", FileScan("/scans/b.nrrd", "/scans/b_label.nrrd"), LABELLED)
        self.assertEqual(self.table.add([outlined]), 0)
        self.assertEqual(self.table.rows[1], CaseRow("b", outlined.source, LABELLED))
        self.assertEqual(self.heard, ["reset", "reset"])

    def test_a_case_added_again_keeps_the_person_s_choices(self):
        def scene(segmentation, segments=(("s1", 1),)):
            return CaseRow("x", SceneScan("v", segmentation, segments if segmentation else ()), LABELLED)

        self.table.add([scene("one")])
        for role in (VALIDATION, UNLABELLED, LEFT_OUT):
            self.table.set_role([0], role)
            self.table.add([scene("one")])
            self.assertEqual(self.table.rows[0].role, role)
        self.table.set_role([0], VALIDATION)
        self.table.add([scene("one", (("s1", 2), ("s3", 1)))])  # the task is another, or there is a new segment
        self.assertEqual(self.table.rows[0].source.segments, (("s1", 2), ("s3", 1)))
        self.table.replace_row(0, replace(self.table.rows[0], source=SceneScan("v", "one", (("s2", 1),), chosen=True)))
        self.table.add([scene("one")])
        self.assertEqual(self.table.rows[0].source.segments, (("s2", 1),))
        self.assertEqual(parse_rows(json.loads(rows_to_json(self.table.rows))), self.table.rows)
        self.table.add([scene("another")])  # another outline has segments of its own
        self.assertEqual((self.table.rows[0].source, self.table.rows[0].role), (scene("another").source, VALIDATION))
        self.table.add([replace(scene(""), role=UNLABELLED)])
        self.assertEqual(self.table.rows[0].role, UNLABELLED)
        self.table.add([scene("one")])  # it was unlabelled for want of an outline
        self.assertEqual(self.table.rows[0].role, LABELLED)
        self.table.add([replace(scene("one"), role=VALIDATION)], roles_chosen=True)
        self.assertEqual(self.table.rows[0].role, VALIDATION)

    def test_a_role_that_needs_a_label_is_refused_without_one(self):
        self.table.add([file_row("a"), file_row("b", LABELLED, "/b_label.nrrd")])
        self.assertEqual(self.table.set_role([0, 1], VALIDATION), 1)
        self.assertEqual([row.role for row in self.table.rows], [UNLABELLED, VALIDATION])
        self.assertEqual(self.table.set_role([0, 1], LEFT_OUT), 0)
        self.assertEqual(self.heard[-1], (0, 1))
        with self.assertRaises(ValueError):
            self.table.set_role([0], "dancer")

    def test_use_for_validation_leaves_one_case_for_training(self):
        self.table.add([file_row(f"l{n}", LABELLED, f"/l{n}.nrrd") for n in range(4)] + [file_row("u")])
        self.assertEqual(self.table.use_for_validation(2), 2)
        self.assertEqual([row.role for row in self.table.rows], [LABELLED] * 2 + [VALIDATION] * 2 + [UNLABELLED])
        self.assertEqual(self.table.use_for_validation(1), 1)
        self.assertEqual(self.table.count(LABELLED), 3)
        self.assertEqual(self.table.use_for_validation(9), 3)
        self.assertEqual(self.table.use_for_validation(0), 0)
        self.assertEqual(self.table.count(VALIDATION), 0)

    def test_rows_are_removed_and_saved_as_json(self):
        self.table.add([file_row(f"c{n}") for n in range(3)])
        self.table.set_facts(2, (4, 5, 6), (1.0, 1.0, 2.5), "wrong")
        self.table.remove([0, 1])
        kept = parse_rows(json.loads(rows_to_json(self.table.rows)))
        self.assertEqual(kept, [CaseRow("c2", FileScan("/scans/c2.nrrd"), UNLABELLED, (4, 5, 6), (1.0, 1.0, 2.5))])
        for text in ("[1]", "{}x", '[{"name": "a", "source": {"image": "i", "label": ""}, "role": "dancer"}]'):
            with self.assertRaises(ValueError):
                parse_rows(json.loads(text))

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
    def test_a_view_shows_the_rows_and_follows_their_changes(self):
        table = CaseTable()
        model = CaseTableModel(table)
        view = qt.QTableView()
        view.setModel(model)
        self.assertEqual((model.rowCount(), model.columnCount()), (0, 7))
        table.add([file_row("a", LABELLED, "/x/a_label.nrrd"), file_row("b")])
        self.assertEqual(view.model().rowCount(), 2)
        texts = [view.model().data(view.model().index(0, column), qt.Qt.DisplayRole) for column in range(7)]
        # Paths are relative to the folder that holds all files.
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

    def test_ten_thousand_cases_stay_fast(self):
        table = CaseTable()
        model = CaseTableModel(table)
        view = qt.QTableView()
        view.setModel(model)
        view.show()
        rows = [file_row(f"case{n:05d}", LABELLED, f"/labels/{n}.nrrd") for n in range(10000)]

        def seconds(action):
            def act():
                action()
                slicer.app.processEvents()

            return work_seconds(act)

        assert_no_pause(seconds(lambda: table.replace_all(rows)))
        assert_no_pause(seconds(lambda: table.set_role([5000], VALIDATION)))
        assert_no_pause(seconds(lambda: table.use_for_validation(200)))
        assert_no_pause(seconds(lambda: table.set_facts(9999, (1, 2, 3), (1, 1, 1), "")))
        assert_no_pause(seconds(lambda: view.scrollToBottom()))


class SceneSourceTest(unittest.TestCase):
    def setUp(self):
        start_afresh()
        self.recipe = load_recipe("la")

    def test_each_volume_is_paired_with_the_segmentation_drawn_on_it(self):
        first, outline = add_case("one", 1)
        second = add_volume("two", ellipsoid(2)[0])
        rows = scene_rows(self.recipe)
        self.assertEqual([row.name for row in rows], ["one", "two"])
        self.assertEqual([row.role for row in rows], [LABELLED, UNLABELLED])
        segment = outline.GetSegmentation().GetNthSegmentID(0)
        self.assertEqual(rows[0].source, SceneScan(first.GetID(), outline.GetID(), ((segment, 1),)))
        self.assertEqual(rows[1].source, SceneScan(second.GetID()))
        self.assertEqual((rows[0].size, rows[0].spacing), ((24, 22, 20), (2.0, 2.0, 2.0)))

    def test_labelmaps_disagreement_maps_and_empty_volumes_are_not_scans(self):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labelmap")
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing in it")
        add_case("scan")
        review.mark_map(add_volume("map", ellipsoid(3)[0]))
        self.assertEqual([row.name for row in scene_rows(self.recipe)], ["scan"])

    def test_a_result_becomes_a_label_only_after_a_person_corrected_it(self):
        volume, _outline = add_case("outlined", 1)
        plain = add_volume("plain", ellipsoid(2)[0])

        def outlines():
            return [row.source.segmentation for row in scene_rows(self.recipe)]

        before = outlines()
        for scan in (volume, plain):
            result = add_outline(scan, ellipsoid(2)[1])
            result.SetNodeReferenceID(review.VOLUME, scan.GetID())
            result.GetSegmentation().GetNthSegment(0).SetTag(OWN_TAG, "SCT:82471001")
            review.store_review_data(result, None, [], np.eye(4))
        proposal = add_outline(plain, ellipsoid(2)[1])
        proposal.SetAttribute("DCAMT.proposal", "/runs/run-1/ranking/plain.seg.nrrd")
        for scan in (volume, plain):
            self.show_preview_on(scan)
        self.assertEqual(outlines(), before)
        # What the person drew into a node that holds a result as well is the person's.
        scar = result.GetSegmentation().AddEmptySegment("", "Left atrium")
        self.assertEqual(outlines(), [before[0], result.GetID()])
        self.assertEqual(segments_of(result, self.recipe), ((scar, 1),))
        result.GetSegmentation().RemoveSegment(scar)
        self.assertEqual(outlines(), before)
        corrected = ellipsoid(2)[1]
        corrected[tuple(np.argwhere(corrected)[0])] = 0
        identifier = result.GetSegmentation().GetNthSegmentID(0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, result, identifier, plain)
        self.assertEqual(outlines(), [before[0], result.GetID()])
        training_cases.add_case(plain, proposal)
        self.assertEqual(outlines(), [before[0], proposal.GetID()])

    def test_the_scan_of_a_preview_is_not_a_case(self):
        add_case("outlined", 1)
        self.show_preview_on(None)
        self.assertEqual([row.name for row in scene_rows(self.recipe)], ["outlined"])

    def show_preview_on(self, volume):
        image, label = ellipsoid(3)
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder, name)) for name in ("scan.npy", "labels.npy")]
            np.save(paths[0], image)
            np.save(paths[1], label)
            affine = np.eye(4) if volume is None else ijk_to_ras(volume)
            run = "run of " + ("files" if volume is None else volume.GetName())
            for _step in show_preview(Preview("case", 10, affine.tolist(), *paths), self.recipe, run, volume):
                pass
        shown = slicer.util.getFirstNodeByName(f"{run}: preview, iteration 10")
        if volume is not None:
            self.assertIs(shown.GetNodeReference("referenceImageGeometryRef"), volume)

    def test_segments_are_matched_by_code_then_name_then_as_the_only_one(self):
        pair = tiny_recipe()
        from dataclasses import replace

        from dcamt.volume import Code, SegmentInfo

        other = SegmentInfo(2, "Aorta", (1, 0, 0), Code("SCT", "15825003", "Aorta"))
        pair = replace(pair, classes=(*pair.classes, other))
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        outline = add_outline(volume, label, ("something", "aorta", "Left Atrium"))
        ids = outline.GetSegmentation().GetSegmentIDs()
        self.assertEqual(segments_of(outline, pair), ((ids[2], 1), (ids[1], 2)))
        coded = outline.GetSegmentation().GetSegment(ids[0])
        entry = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
            "any", "123037004", "SCT", "Anatomical Structure", "82471001", "SCT", "Left atrium", *[""] * 10
        )
        coded.SetTag(coded.GetTerminologyEntryTagName(), entry)
        self.assertEqual(segments_of(outline, pair), ((ids[0], 1), (ids[1], 2)))
        only = add_outline(volume, label, ("Segment_1",))
        self.assertEqual(len(segments_of(only, self.recipe)), 1)
        self.assertEqual(segments_of(only, pair), ())

    def test_an_added_training_case_has_priority_over_other_segmentations(self):
        volume, sent = add_case("scan", 1)
        add_outline(volume, ellipsoid(2)[1])
        self.assertIsNot(outline_of(volume, self.recipe), sent)
        self.assertEqual(sent_rows(self.recipe), [])
        training_cases.add_case(volume, sent)
        self.assertEqual([row.source.segmentation for row in sent_rows(self.recipe)], [sent.GetID()])
        self.assertEqual([row.source.segmentation for row in scene_rows(self.recipe)], [sent.GetID()])

    def load_from_file(self, segmentation, crop: bool = False):
        """Save a segmentation, remove its node, and load the file."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"{segmentation.GetName()}.seg.nrrd")
            if crop:
                segmentation.AddDefaultStorageNode()
                segmentation.GetStorageNode().SetCropToMinimumExtent(True)
            self.assertTrue(slicer.util.saveNode(segmentation, path))
            slicer.mrmlScene.RemoveNode(segmentation)
            loaded = slicer.util.loadSegmentation(path)
        self.assertIsNone(loaded.GetNodeReference("referenceImageGeometryRef"))
        return loaded

    def test_a_segmentation_from_a_file_on_the_scan_s_grid_is_its_label(self):
        for crop in (False, True):
            close_scene()
            image, label = ellipsoid(1)
            volume = add_volume("scan", image, turned=True)
            add_volume("elsewhere", ellipsoid(2)[0])
            loaded = self.load_from_file(add_outline(volume, label), crop)
            rows = scene_rows(self.recipe)
            self.assertEqual([(row.name, row.role) for row in rows], [("scan", LABELLED), ("elsewhere", UNLABELLED)])
            self.assertEqual(rows[0].source.segmentation, loaded.GetID())
            found = run_to_end(label_array(loaded, rows[0].source.segments, volume))
            np.testing.assert_array_equal(found, label)

    def test_a_segmentation_from_a_file_that_is_no_label_is_noted_with_the_reason(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        self.load_from_file(add_outline(volume, label, ("first", "second")))
        (row,) = scene_rows(self.recipe)
        self.assertEqual((row.role, row.remark), (UNLABELLED, ""))
        self.assertIn("no segment is named like a class", row.note)
        volume.SetSpacing(2.0, 2.0, 2.5)
        self.assertIn("lies on another grid", scene_rows(self.recipe)[0].note)
        volume.SetSpacing(2.0, 2.0, 2.0)
        twin = add_volume("twin", image)
        self.assertIsNotNone(twin)
        self.assertIn("fits several scans", scene_rows(self.recipe)[1].note)
        # A note is shown in the column of remarks, and does not mark the row as faulty.
        table = CaseTable()
        model = CaseTableModel(table)
        table.add(scene_rows(self.recipe))
        self.assertIn("fits several scans", model.data(model.index(0, REMARK), qt.Qt.DisplayRole))
        self.assertIsNone(model.data(model.index(0, REMARK), qt.Qt.ForegroundRole))

    def test_remarks_on_cases_of_the_scene(self):
        volume, outline = add_case("scan")
        row = row_of(volume, outline, self.recipe)
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe), ("", (1,)))
        empty = add_outline(volume, np.zeros_like(ellipsoid()[1]))
        text, held = scene_remark(row_of(volume, empty, self.recipe).source, LABELLED, self.recipe)
        self.assertIn("empty", text)
        self.assertEqual(held, ())
        self.assertEqual(scene_remark(row_of(volume, empty, self.recipe).source, UNLABELLED, self.recipe)[0], "")
        slicer.mrmlScene.RemoveNode(outline)
        self.assertIn("no longer in the scene", scene_remark(row.source, LABELLED, self.recipe)[0])
        slicer.mrmlScene.RemoveNode(volume)
        self.assertIn("volume is no longer", scene_remark(row.source, UNLABELLED, self.recipe)[0])


class ExportTest(unittest.TestCase):
    def setUp(self):
        start_afresh()
        self.recipe = load_recipe("la")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_scan_and_label_files_equal_the_nodes_voxels_and_grid(self):
        image, label = ellipsoid(4)
        for kind in (np.float32, np.int16, np.uint8, np.float64):
            close_scene()
            volume = add_volume("Jane Doe", image.astype(kind), turned=True)
            outline = add_outline(volume, label)
            before = slicer.util.arrayFromVolume(volume).copy()
            nodes = slicer.mrmlScene.GetNumberOfNodes()
            case = run_to_end(export_case(row_of(volume, outline, self.recipe), self.folder, 7))
            self.assertNotIn("Jane", str(case.image) + str(case.label))
            written, outlined = read_scan(case.image), read_labelmap(case.label)
            self.assertEqual(written.voxels.dtype, kind)
            np.testing.assert_array_equal(written.voxels[0].transpose(2, 1, 0), image.astype(kind))
            np.testing.assert_array_equal(outlined.voxels.transpose(2, 1, 0), label)
            matrix = vtk.vtkMatrix4x4()
            volume.GetIJKToRASMatrix(matrix)
            affine = slicer.util.arrayFromVTKMatrix(matrix)
            np.testing.assert_allclose(written.grid.affine, affine, atol=1e-9)
            self.assertTrue(outlined.grid.matches(written.grid))
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), before)
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
            self.assertIsNone(volume.GetStorageNode())

    def test_a_common_transform_does_not_move_the_label_against_the_scan(self):
        image, label = ellipsoid(5)
        volume = add_volume("scan", image)
        outline = add_outline(volume, label)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        turn = vtk.vtkTransform()
        turn.RotateZ(30)
        turn.Translate(10, 20, 30)
        transform.SetMatrixTransformToParent(turn.GetMatrix())
        for node in (volume, outline):
            node.SetAndObserveTransformNodeID(transform.GetID())
        segments = segments_of(outline, self.recipe)
        np.testing.assert_array_equal(run_to_end(label_array(outline, segments, volume)), label)
        # The segmentation alone: it then lies elsewhere, and so must its label.
        volume.SetAndObserveTransformNodeID(None)
        moved = run_to_end(label_array(outline, segments, volume))
        self.assertTrue((moved != label).any())

    def test_a_segmentation_on_a_finer_grid_and_one_with_a_surface_only(self):
        image, label = ellipsoid(6)
        volume = add_volume("scan", image)
        fine = add_volume("fine", np.kron(image, np.ones((2, 2, 2), np.float32)), spacing=1.0)
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        shift = [matrix.GetElement(row, 3) - 0.5 for row in range(3)]
        fine.SetOrigin(*shift)
        outline = add_outline(fine, np.kron(label, np.ones((2, 2, 2), np.uint8)))
        segments = segments_of(outline, self.recipe)
        found = run_to_end(label_array(outline, segments, volume))
        self.assertGreater(2 * (found & label).sum() / (found.sum() + label.sum()), 0.9)
        surface = add_outline(volume, label)
        self.assertTrue(surface.CreateClosedSurfaceRepresentation())
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        surface.GetSegmentation().SetSourceRepresentationName(name)
        surface.GetSegmentation().RemoveRepresentation("Binary labelmap")
        found = run_to_end(label_array(surface, segments_of(surface, self.recipe), volume))
        self.assertGreater(2 * (found & label).sum() / (found.sum() + label.sum()), 0.85)
        self.assertFalse(surface.GetSegmentation().ContainsRepresentation("Binary labelmap"))

    def test_overlapping_and_missing_segments(self):
        image, label = ellipsoid(7)
        volume = add_volume("scan", image)
        outline = add_outline(volume, label, ("Left atrium",))
        inner = outline.GetSegmentation().AddEmptySegment("", "inner")
        mask = np.zeros_like(label)
        mask[8:12, 8:12, 8:12] = label[8:12, 8:12, 8:12]
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, outline, inner, volume)
        first = outline.GetSegmentation().GetNthSegmentID(0)
        found = run_to_end(label_array(outline, ((first, 1), (inner, 2), ("gone", 3)), volume))
        np.testing.assert_array_equal(found == 2, mask > 0)
        np.testing.assert_array_equal(found > 0, label > 0)

    def test_export_goes_in_short_steps(self):
        rng = np.random.default_rng(0)
        voxels = rng.integers(0, 1000, (160, 320, 320), dtype=np.int16)
        volume = add_volume("large", voxels)
        label = np.zeros(voxels.shape, np.uint8)
        label[60:100, 100:200, 100:200] = 1
        outline = add_outline(volume, label)
        row = row_of(volume, outline, self.recipe)
        assert_no_pause(longest_step(lambda: export_case(row, self.folder, 1), tries=1))
        np.testing.assert_array_equal(read_scan(self.folder / "00001.nrrd").voxels[0].transpose(2, 1, 0), voxels)
        np.testing.assert_array_equal(read_labelmap(self.folder / "00001-label.nrrd").voxels.transpose(2, 1, 0), label)


class SavedWithTheSceneTest(unittest.TestCase):
    def test_rows_and_their_nodes_are_restored_from_a_saved_scene(self):
        close_scene()
        recipe = load_recipe("la")
        volume, _outline = add_case("scan")
        plain = add_volume("plain", ellipsoid(1)[0])
        rows = [*scene_rows(recipe), CaseRow('quoted "name" %3A;', FileScan("/a b/c;d.nrrd", "/l.nrrd"), VALIDATION)]
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "keeper of cases")
        save_rows(node, rows)
        self.assertEqual(load_rows(node), rows)
        with tempfile.TemporaryDirectory() as folder:
            slicer.util.saveScene(os.path.join(folder, "scene.mrb"))
            close_scene()
            # Nodes that are there already take the IDs that the saved ones had.
            add_case("already here", 3)
            add_volume("another", ellipsoid(4)[0])
            slicer.util.loadScene(os.path.join(folder, "scene.mrb"))
        node = slicer.util.getFirstNodeByName("keeper of cases")
        loaded = load_rows(node)
        self.assertEqual([row.name for row in loaded], [row.name for row in rows])
        self.assertEqual(loaded[2], rows[2])
        names = [slicer.mrmlScene.GetNodeByID(row.source.volume).GetName() for row in loaded[:2]]
        self.assertEqual(names, ["scan", "plain"])
        outline = slicer.mrmlScene.GetNodeByID(loaded[0].source.segmentation)
        self.assertEqual(outline.GetName(), "scan outline")
        self.assertEqual(loaded[1].source.segmentation, "")
        self.assertIsNotNone(plain)
        self.assertIsNotNone(volume)

    def test_damaged_text_gives_no_rows(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "any")
        self.assertEqual(load_rows(node), [])
        for text in ("x", "[1]", '[{"source": 1}]'):
            node.SetParameter("cases", text)
            self.assertEqual(load_rows(node), [])


class CaseCheckTest(unittest.TestCase):
    def setUp(self):
        start_afresh()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ended = []

    def check(self, table, recipe="la"):
        found = CaseCheck(table, load_recipe(recipe), self.ended.append).start()
        process_events_until(lambda: self.ended, timeout=60)
        return found

    def test_headers_labels_and_nodes_are_checked_in_the_background(self):
        image, label = ellipsoid()
        for name, voxels in (("a", image), ("a_label", label), ("small_label", label[:18])):
            for _ in write_nrrd_in_slabs(voxels, np.diag((2.0, 2.0, 2.0, 1.0)), self.folder / f"{name}.nrrd"):
                pass
        volume, outline = add_case("in the scene")
        table = CaseTable()
        a = str(self.folder / "a.nrrd")
        table.add([row_of(volume, outline, load_recipe("la"))])
        table.add([CaseRow("a", FileScan(a, str(self.folder / "a_label.nrrd")), LABELLED)])
        table.add([CaseRow("gone", FileScan(str(self.folder / "gone.nrrd")), UNLABELLED)])
        with LoopMonitor() as monitor:
            found = self.check(table)
        assert_no_pause(monitor.longest_work)
        self.assertEqual(self.ended, [""])
        self.assertEqual([bool(row.remark) for row in table.rows], [False, False, True])
        self.assertEqual((table.rows[1].size, table.rows[1].spacing), ((24, 22, 20), (2.0, 2.0, 2.0)))
        self.assertIn("does not exist", table.rows[2].remark)
        self.assertEqual(found.label_values, {0: (1,), 1: (1,)})
        table.replace_row(1, CaseRow("a", FileScan(a, str(self.folder / "small_label.nrrd")), LABELLED))
        self.ended.clear()
        self.check(table)
        self.assertIn("another grid", table.rows[1].remark)

    def test_a_node_and_its_file_in_training_and_validation_are_reported(self):
        volume, outline = add_case("scan")
        path = str(self.folder / "scan.nrrd")
        self.assertTrue(slicer.util.saveNode(volume, path))
        table = CaseTable()
        row = row_of(volume, outline, load_recipe("la"))
        table.add([CaseRow(row.name, row.source, VALIDATION, row.size, row.spacing)])
        table.add([CaseRow("file", FileScan(path), UNLABELLED)])
        self.check(table)
        self.assertIn("used for training and for validation", table.rows[0].remark)

    def test_after_cancelling_on_end_is_not_called(self):
        table = CaseTable()
        table.add([file_row(f"c{n}") for n in range(50)])
        found = CaseCheck(table, load_recipe("la"), self.ended.append).start()
        found.cancel()
        self.assertFalse(found.running)
        began = time.monotonic()
        process_events_until(lambda: time.monotonic() - began > 1)
        self.assertEqual(self.ended, [])


if __name__ == "__main__":
    unittest.main()
