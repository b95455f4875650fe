"""Test the check of the scene's cases."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.cases.case_list import LABELLED, LEFT_OUT, UNLABELLED, VALIDATION, Case
from dcamt.cases.checks import check_cases
from dcamt.errors import InputError
from dcamt.volume import TISSUE
from dcamt_testing.dicom_series import write_mr_series
from DCAMTSegmentationLib import review
from DCAMTSegmentationLib.result_nodes import VOLUME
from DCAMTSlicerLib.result_segments import CLASS_TAG
from DCAMTTrainingLib.cases import voxel_check
from DCAMTTrainingLib.cases.check import CaseCheck, scene_facts, scene_remark
from DCAMTTrainingLib.cases.rows import CaseRow, CaseTable, FileScan, SceneScan
from DCAMTTrainingLib.cases.scene_export import export_case, read_label
from DCAMTTrainingLib.cases.scene_source import accept_results, row_of, scene_rows
from DCAMTTrainingLib.runs.preflight import case_problems
from scene_nodes import add_case, add_outline, add_shared_outline, add_volume, draw_segment, ellipsoid, run_to_end
from slicer_harness import assert_stays_responsive, longest_step, process_events_until
from training_case import SceneCase


class SceneCheckCase(SceneCase):
    def add_case(self):
        image, label = ellipsoid()
        volume = add_volume("scan", image)
        return volume, self.add_outline(volume, label)

    def check(self, rows):
        """Check rows as the panel does; return the table and the check."""
        table, ended = CaseTable(), []
        table.add(rows)
        check = CaseCheck(table, self.recipe, ended.append).start()
        process_events_until(lambda: ended)
        self.assertEqual(ended, [""])
        return table, check


class VoxelsTest(SceneCheckCase):
    def test_scene_and_files_have_the_same_problems_warnings_and_values(self):
        image, label = ellipsoid()
        with_nan, with_infinity = image.copy(), image.copy()
        with_nan[0, 0, 0], with_infinity[3, 2, 1] = np.nan, np.inf
        sheet = np.zeros_like(label)
        sheet[10, 5:15, 5:15] = 1
        coarse = replace(self.recipe, spacing=(8.0, 8.0, 8.0))
        for name, voxels, outline, recipe in (
            ("as usual", image, label, self.recipe),
            ("integers", (100 * image).astype(np.int16), label, self.recipe),
            ("NaN", with_nan, label, self.recipe),
            ("infinity", with_infinity, label, self.recipe),
            ("blank", np.full_like(image, 7), label, self.recipe),
            ("scan of few values", label.astype(np.int16), label, self.recipe),
            ("inverted label", image, 1 - label, self.recipe),
            ("thin label on a coarse grid", image, sheet, coarse),
            ("larger than a body", image, label, coarse),
            ("smaller than a patient's organ", image, label, self.recipe),
        ):
            with self.subTest(name):
                spacing = {"larger than a body": 40.0, "smaller than a patient's organ": 0.5}.get(name, 2.0)
                volume = add_volume("scan", voxels, spacing=spacing)
                row = row_of(volume, self.add_outline(volume, outline), recipe)
                facts = run_to_end(scene_facts(row.source, LABELLED, recipe))
                labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
                slicer.util.updateVolumeFromArray(labelmap, outline)
                labelmap.CopyOrientation(volume)
                paths = [self.folder / f"{kind}.nrrd" for kind in ("scan", "label")]
                for node, path in zip((volume, labelmap), paths, strict=True):
                    self.assertTrue(slicer.util.saveNode(node, str(path)))
                *_, expected = check_cases([Case("scan", *paths, LABELLED)], recipe, with_checksums=True)
                self.assertEqual((facts.problems, facts.warnings), (expected.problems, expected.warnings))
                self.assertEqual((facts.labels, facts.checksum), (expected.labels, expected.checksum))
                self.assertEqual(bool(facts.problems or facts.warnings), name not in ("as usual", "integers"))

    def test_voxels_covered_by_a_later_segment_are_noted_and_count_as_its_class(self):
        names = ("Left atrium", "Appendage")
        classes = [replace(self.recipe.classes[0], label=n, name=name, type=TISSUE) for n, name in enumerate(names, 1)]
        self.recipe = replace(self.recipe, classes=tuple(classes))
        image, label = ellipsoid()
        volume = add_volume("scan", image)
        outline = self.add_outline(volume, label, names)
        segment = outline.GetSegmentation().GetNthSegmentID(1)
        for mask in (np.roll(label, 5, axis=0), label):
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, outline, segment, volume)
            table, check = self.check(scene_rows(self.recipe))
            covered, drawn = np.count_nonzero(mask & label), np.count_nonzero(label)
            text = f"Segments overlap: {covered} of the {drawn} voxels of “Left atrium” count as another class instead."
            self.assertIn(text, table.rows[0].note)
            self.assertNotIn("voxels of “Appendage”", table.rows[0].note)
            self.assertEqual(check.label_values, {0: (1, 2) if covered < drawn else (2,)})
        texts = [problem.text for problem in case_problems(table.rows, self.recipe, check.label_values)]
        self.assertTrue(any("No labelled case contains “Left atrium”" in text for text in texts), texts)

    def test_segment_between_the_slices_of_its_scan_is_an_empty_label(self):
        image = ellipsoid()[0]
        volume = add_volume("scan", image)
        fine = add_volume("fine", np.zeros((60, 22, 24), np.int16))
        fine.SetSpacing(2.0, 2.0, 2.0 / 3)
        sheet = np.zeros((60, 22, 24), np.uint8)
        sheet[31, 5:15, 5:15] = 1
        row = row_of(volume, self.add_outline(fine, sheet), self.recipe)
        self.assertIn("The label is empty", scene_remark(row.source, LABELLED, self.recipe)[0])

    def test_empty_segment_is_an_empty_label_even_if_another_segment_is_drawn(self):
        volume, outline = self.add_case()
        empty = outline.GetSegmentation().AddEmptySegment("", "empty")
        source = SceneScan(volume.GetID(), outline.GetID(), ((empty, 1),))
        self.assertIn("The label is empty", scene_remark(source, LABELLED, self.recipe)[0])

    def test_problem_of_a_volume_does_not_repeat_its_name(self):
        volume = add_volume("two\nlines", ellipsoid()[0])
        volume.GetImageData().AllocateScalars(vtk.VTK_FLOAT, 3)
        facts = run_to_end(voxel_check.check_voxels(SceneScan(volume.GetID()), UNLABELLED, self.recipe))
        self.assertEqual(facts.problems, ("The scan holds several channels. Choose a grey-scale volume.",))

    def test_voxels_are_checked_again_only_after_a_change(self):
        volume, outline = self.add_case()
        row = row_of(volume, outline, self.recipe)
        coarse = replace(self.recipe, spacing=(8.0, 8.0, 8.0))
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        moved = vtk.vtkMatrix4x4()
        moved.SetElement(0, 3, 500.0)

        def change_voxel():
            slicer.util.arrayFromVolume(volume)[0, 0, 0] = 3
            slicer.util.arrayFromVolumeModified(volume)

        with (
            mock.patch.object(voxel_check, "check_scan", wraps=voxel_check.check_scan) as scans,
            mock.patch.object(voxel_check, "read_label", wraps=voxel_check.read_label) as labels,
        ):
            for change, expected_scans, expected_labels in (
                (lambda: None, 1, 1),
                (lambda: None, 0, 0),
                (change_voxel, 1, 1),
                (lambda: draw_segment(outline, volume, ellipsoid(1)[1]), 0, 1),
                (lambda: outline.SetAndObserveTransformNodeID(transform.GetID()), 0, 1),
                (lambda: transform.SetMatrixTransformToParent(moved), 0, 1),
                (lambda: outline.SetAndObserveTransformNodeID(None), 0, 1),
            ):
                scans.reset_mock()
                labels.reset_mock()
                change()
                run_to_end(scene_facts(row.source, LABELLED, self.recipe))
                self.assertEqual((scans.call_count, labels.call_count), (expected_scans, expected_labels))
            run_to_end(scene_facts(row.source, LABELLED, coarse))
            self.assertEqual((scans.call_count, labels.call_count), (0, 2))
            run_to_end(scene_facts(row.source, UNLABELLED, coarse))
            run_to_end(scene_facts(row.source, LEFT_OUT, coarse))
            self.assertEqual((scans.call_count, labels.call_count), (0, 2))

    def test_large_case_is_checked_in_short_steps(self):
        draw = np.random.default_rng(0)
        volume = add_volume("large", draw.integers(0, 1000, (160, 320, 320), dtype=np.int16))
        label = np.zeros((160, 320, 320), np.uint8)
        label[60:100, 100:200, 100:200] = 1
        row = row_of(volume, self.add_outline(volume, label), self.recipe)

        def start():
            volume.GetImageData().Modified()  # Otherwise, only the first start would check the voxels.
            return scene_facts(row.source, LABELLED, self.recipe)

        assert_stays_responsive(longest_step(start))


class SharedLabelmapVoxelsTest(VoxelsTest):
    add_outline = staticmethod(add_shared_outline)


class PlaceTest(SceneCheckCase):
    def test_label_that_lies_partly_or_wholly_outside_its_scan_is_refused(self):
        image, label = ellipsoid()
        volume = add_volume("scan", image, turned=True)
        outline = self.add_outline(volume, label)
        row = row_of(volume, outline, self.recipe)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        outline.SetAndObserveTransformNodeID(transform.GetID())
        to_mm = np.array(slicer.util.arrayFromVTKMatrix(self.ijk_to_ras(volume)))
        indices = np.argwhere(label)[:, ::-1]
        answers = set()
        for axis, voxels in product(range(3), (-200, -12, -3, -0.4, 0, 0.4, 3, 5, 12)):
            shift = np.zeros(3)
            shift[axis] = voxels
            matrix = np.eye(4)
            matrix[:3, 3] = to_mm[:3, :3] @ shift
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
            nearest = np.rint(indices + shift)
            outside = ((nearest < 0) | (nearest >= np.array(image.shape)[::-1])).any(axis=1)
            expected = "" if not outside.any() else "The label lies" if outside.all() else "Part of the label lies"
            answers.add(expected)
            remark = scene_remark(row.source, LABELLED, self.recipe)[0]
            self.assertEqual(remark.split(" outside")[0], expected, shift)
            if expected:
                with self.assertRaisesRegex(InputError, f"scan: {expected} outside the scan. If scan or segmentation"):
                    run_to_end(export_case(row, self.folder, 1))
        self.assertEqual(len(answers), 3)

    def ijk_to_ras(self, volume):
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        return matrix

    def test_label_that_a_non_linear_transform_moves_out_of_its_scan_is_refused(self):
        volume, outline = self.add_case()
        row = row_of(volume, outline, self.recipe)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        for millimetres, is_cut_off in ((0.5, False), (30.0, True)):
            corners = vtk.vtkPoints()
            for corner in product((-100.0, 100.0), repeat=3):
                corners.InsertNextPoint(corner)
            bent = vtk.vtkPoints()
            for place in product((-100.0, 100.0), repeat=3):
                bent.InsertNextPoint(place[0] + millimetres, place[1], place[2] + (0.1 if place[0] > 0 else 0.0))
            spline = vtk.vtkThinPlateSplineTransform()
            spline.SetSourceLandmarks(corners)
            spline.SetTargetLandmarks(bent)
            spline.SetBasisToR()
            transform.SetAndObserveTransformToParent(spline)
            outline.SetAndObserveTransformNodeID(transform.GetID())
            self.assertEqual(run_to_end(read_label(outline, row.source.segments, volume)).is_cut_off, is_cut_off)

    def test_label_that_fills_its_scan_is_accepted_also_on_a_finer_grid(self):
        image, label = ellipsoid()
        volume = add_volume("scan", image)
        origin = volume.GetOrigin()
        whole = np.ones_like(label)
        whole[0, 0, 0] = 0
        fine = add_volume("fine", np.kron(image, np.ones((2, 2, 2), np.float32)), spacing=1.0)
        fine.SetOrigin(*(place - 0.5 for place in origin))
        for outline in (
            self.add_outline(volume, whole),
            self.add_outline(fine, np.kron(whole, np.ones((2, 2, 2), np.uint8))),
        ):
            row = row_of(volume, outline, self.recipe)
            self.assertEqual(scene_remark(row.source, LABELLED, self.recipe)[0], "")
        fine.SetOrigin(*(place - 1.5 for place in origin))  # half a voxel of the scan too far
        outline = self.add_outline(fine, np.kron(whole, np.ones((2, 2, 2), np.uint8)))
        row = row_of(volume, outline, self.recipe)
        self.assertIn("Part of the label", scene_remark(row.source, LABELLED, self.recipe)[0])

    def test_result_moved_relative_to_its_scan_is_refused_until_the_user_chooses_its_segments(self):
        volume, result = self.add_case()
        result.GetSegmentation().GetNthSegment(0).SetTag(CLASS_TAG, "SCT 82471001")
        result.SetNodeReferenceID(VOLUME, volume.GetID())
        review.store_review_data(result, None, [], np.eye(4))
        corrected = ellipsoid()[1]
        corrected[tuple(np.argwhere(corrected)[0])] = 0
        draw_segment(result, volume, corrected)
        (row,) = scene_rows(self.recipe)
        origin = volume.GetOrigin()
        for shift, is_moved in ((0.0, False), (2.0, True), (0.0, False)):
            volume.SetOrigin(origin[0] + shift, *origin[1:])
            remark = scene_remark(row.source, LABELLED, self.recipe)[0]
            self.assertEqual("no longer lies where DCAMT drew it" in remark, is_moved, remark)
        volume.SetOrigin(origin[0] + 2.0, *origin[1:])
        with self.assertRaisesRegex(InputError, "scan: The outline no longer lies where DCAMT drew it"):
            run_to_end(export_case(row, self.folder, 1))
        chosen = replace(row.source, chosen=True)
        accept_results(chosen)
        self.assertEqual(scene_remark(chosen, LABELLED, self.recipe)[0], "")
        run_to_end(export_case(replace(row, source=chosen), self.folder, 1))


class SharedLabelmapPlaceTest(PlaceTest):
    add_outline = staticmethod(add_shared_outline)


class EqualScansTest(SceneCheckCase):
    CONFLICT = "The scan is used for training and for validation: “{}” has the same {}. Remove one of the two cases."

    def scene_row(self, volume, role, label=None):
        outline = add_outline(volume, ellipsoid()[1] if label is None else label)
        return replace(row_of(volume, outline, self.recipe), role=role)

    def clone(self, volume, name):
        """Return a copy of a volume node. The copy has its own image, no file and another origin."""
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(copy, slicer.util.arrayFromVolume(volume).copy())
        copy.CopyOrientation(volume)
        copy.SetOrigin(1.0, 2.0, 3.0)
        return copy

    def test_scan_for_training_and_validation_is_found_by_its_voxels(self):
        first, other = add_volume("first", ellipsoid(1)[0]), add_volume("other", ellipsoid(2)[0])
        rows = [
            self.scene_row(first, LABELLED),
            self.scene_row(other, LABELLED),
            self.scene_row(self.clone(first, "copy"), VALIDATION),
        ]
        table, _check = self.check(rows)
        remarks = [row.remark for row in table.rows]
        self.assertEqual(remarks, [self.CONFLICT.format("copy", "voxels"), "", self.CONFLICT.format("first", "voxels")])
        table, _check = self.check([rows[0], rows[1], replace(rows[2], role=LEFT_OUT)])
        self.assertEqual([(row.remark, row.note) for row in table.rows], [("", "")] * 3)
        table, _check = self.check([rows[0], rows[1], replace(rows[2], role=UNLABELLED)])
        self.assertEqual([row.remark for row in table.rows], [""] * 3)
        self.assertIn("The case 'copy' has the same scan.", table.rows[0].note)
        self.assertIn("The case 'first' has the same scan.", table.rows[2].note)

    def test_copy_of_a_scan_in_a_file_is_found_whatever_the_format(self):
        volume = add_volume("first", (100 * ellipsoid(1)[0]).astype(np.int16), turned=True)
        for ending in (".nrrd", ".nii.gz", ".mha"):
            path = self.folder / f"file{ending}"
            self.assertTrue(slicer.util.saveNode(volume, str(path)))
            volume.SetAndObserveStorageNodeID(None)
            row = self.scene_row(volume, VALIDATION)
            table, _check = self.check([row, CaseRow("file", FileScan(str(path)), UNLABELLED)])
            self.assertEqual(table.rows[0].remark, self.CONFLICT.format("file", "voxels"))
            self.assertIn(self.CONFLICT.format("first", "voxels"), table.rows[1].remark)

    def test_file_of_a_left_out_scan_may_be_used_for_validation(self):
        volume, path = add_volume("first", ellipsoid(1)[0]), self.folder / "file.nrrd"
        self.assertTrue(slicer.util.saveNode(volume, str(path)))
        for role, conflict in ((LABELLED, True), (LEFT_OUT, False)):
            table, _check = self.check([self.scene_row(volume, role), CaseRow("file", FileScan(str(path)), VALIDATION)])
            self.assertEqual(table.rows[0].remark, self.CONFLICT.format("file", "file") if conflict else "")
            self.assertEqual(self.CONFLICT.format("first", "file") in table.rows[1].remark, conflict)

    def test_slices_of_a_dicom_series_are_found_in_the_folder_of_a_case(self):
        voxels = np.random.default_rng(0).integers(0, 500, (20, 18, 12))
        folder = self.folder / "patient" / "series"
        paths = write_mr_series(folder, voxels, np.diag((-1.5, -1.5, 2.0, 1.0)))
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(str(paths[0]))
        for path in paths:
            storage.AddFileName(str(path))
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "series")
        self.assertTrue(storage.ReadData(volume))
        volume.SetAndObserveStorageNodeID(storage.GetID())
        label = np.zeros((12, 18, 20), np.uint8)
        label[3:9, 4:12, 5:15] = 1
        row = self.scene_row(volume, VALIDATION, label)
        for case_folder in (folder, folder.parent):
            table, _check = self.check([row, CaseRow("files", FileScan(str(case_folder)), UNLABELLED)])
            self.assertEqual(table.rows[0].remark, self.CONFLICT.format("files", "file"))
        elsewhere = shutil.copytree(folder, self.folder / "copied")
        table, _check = self.check([row, CaseRow("files", FileScan(str(elsewhere)), UNLABELLED)])
        self.assertEqual(table.rows[0].remark, self.CONFLICT.format("files", "voxels"))

    def test_segmentation_that_is_the_label_of_two_scans_is_noted(self):
        first, outline = add_case("first", 1)
        second = add_volume("second", ellipsoid(2)[0])
        rows = [row_of(first, outline, self.recipe)]
        rows.append(replace(rows[0], name="second", source=replace(rows[0].source, volume=second.GetID())))
        table, _check = self.check(rows)
        self.assertEqual([row.remark for row in table.rows], ["", ""])
        self.assertIn("The label is also that of 'second'.", table.rows[0].note)
        self.assertIn("The label is also that of 'first'.", table.rows[1].note)
        self.assertIsInstance(table.rows[0].source, SceneScan)
