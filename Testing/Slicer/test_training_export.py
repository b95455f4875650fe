"""Test the export of cases from the scene."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.slabs import write_nrrd_in_slabs
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from DCAMTTrainingLib.cases.check import scene_remark
from DCAMTTrainingLib.cases.derived_nodes import SCAN_FILE, SCAN_STATE, SEVERAL_CHANNELS, file_state
from DCAMTTrainingLib.cases.scene_export import export_case, label_array
from DCAMTTrainingLib.cases.scene_source import row_of, segments_of
from scene_nodes import add_outline, add_shared_outline, add_volume, draw_segment, ellipsoid, run_to_end
from slicer_harness import assert_stays_responsive, close_scene, longest_step
from training_case import SceneCase


class ExportTest(SceneCase):
    def test_written_scan_and_label_equal_their_nodes(self):
        image, label = ellipsoid(4)
        for kind in (np.float32, np.int16, np.uint8, np.float64):
            close_scene()
            volume = add_volume("Jane Doe", image.astype(kind), turned=True)
            outline = self.add_outline(volume, label)
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

    def test_case_whose_segment_was_removed_after_the_check_is_refused(self):
        image, label = ellipsoid(4)
        volume = add_volume("scan", image)
        outline = self.add_outline(volume, label)
        row = row_of(volume, outline, self.recipe)
        self.assertEqual(scene_remark(row.source, row.role, self.recipe)[0], "")
        outline.GetSegmentation().RemoveSegment(row.source.segments[0][0])
        with self.assertRaisesRegex(InputError, "scan: a chosen segment is no longer in the segmentation"):
            run_to_end(export_case(row, self.folder, 1))

    def test_case_whose_segment_was_erased_after_the_check_is_refused(self):
        image, label = ellipsoid(4)
        volume = add_volume("scan", image)
        outline = self.add_outline(volume, label)
        row = row_of(volume, outline, self.recipe)
        self.assertEqual(scene_remark(row.source, row.role, self.recipe)[0], "")
        draw_segment(outline, volume, np.zeros_like(label))
        with self.assertRaisesRegex(InputError, "scan: has an empty label"):
            run_to_end(export_case(row, self.folder, 1))

    def test_case_with_several_channels_needs_a_scan_file_that_matches_its_volume(self):
        image, label = ellipsoid(4)
        path = self.folder / "two.nrrd"
        volume = add_volume("two", image)
        for _step in write_nrrd_in_slabs(image, ijk_to_ras(volume), path, [image + 1]):
            pass
        two = replace(self.recipe, input_channels=2)
        volume.SetAttribute(SCAN_FILE, str(path))
        volume.SetAttribute(SEVERAL_CHANNELS, "1")
        row = row_of(volume, self.add_outline(volume, label), two)
        self.assertEqual(scene_remark(row.source, row.role, two)[0], "")
        case = run_to_end(export_case(row, self.folder, 1))
        self.assertEqual(case.image, path)
        np.testing.assert_array_equal(read_labelmap(case.label).voxels.T, label)
        case = run_to_end(export_case(row, self.folder, 2, one_channel=True))
        np.testing.assert_array_equal(read_scan(case.image).voxels[0].T, image)
        volume.SetSpacing(2.0, 2.0, 2.5)
        self.assertIn("no longer have the same grid", scene_remark(row.source, row.role, two)[0])
        volume.SetSpacing(2.0, 2.0, 2.0)
        volume.SetAttribute(SCAN_STATE, file_state(str(path)))
        self.assertEqual(scene_remark(row.source, row.role, two)[0], "")
        os.utime(path, ns=(0, 0))
        self.assertIn("was changed since the volume was read", scene_remark(row.source, row.role, two)[0])
        # `scene_remark` does not check a DICOM folder: reading the series would block the event loop.
        volume.SetAttribute(SCAN_FILE, str(self.folder))
        self.assertEqual(scene_remark(row.source, row.role, two)[0], "")
        volume.SetAttribute(SCAN_FILE, str(path))
        path.unlink()
        self.assertIn("two.nrrd", scene_remark(row.source, row.role, two)[0])
        with patch("os.stat", side_effect=PermissionError(errno.EACCES, "Permission denied")):
            self.assertIn("cannot be read (no permission)", scene_remark(row.source, row.role, two)[0])

    def test_file_state_of_an_mhd_file_changes_with_the_raw_file(self):
        header = self.folder / "scan.mhd"
        header.touch()
        self.assertEqual(file_state(str(self.folder / "gone.mhd")), "")
        states = [file_state(str(header))]
        for content in (b"1", b"12"):
            header.with_suffix(".raw").write_bytes(content)
            states.append(file_state(str(header)))
        self.assertEqual(len(set(states)), 3)

    def test_label_of_a_volume_whose_image_does_not_begin_at_voxel_0_is_exported(self):
        image, label = ellipsoid(4)
        volume = add_volume("scan", image, turned=True)
        outline = self.add_outline(volume, label)
        crop = vtk.vtkExtractVOI()
        crop.SetInputData(volume.GetImageData())
        columns, rows, slices = volume.GetImageData().GetDimensions()
        crop.SetVOI(3, columns - 1, 2, rows - 1, 1, slices - 1)
        crop.Update()
        volume.SetAndObserveImageData(crop.GetOutput())
        exported = run_to_end(label_array(outline, segments_of(outline, self.recipe), volume))
        np.testing.assert_array_equal(exported, label[1:, 2:, 3:])

    def test_common_transform_keeps_scan_and_label_aligned(self):
        image, label = ellipsoid(5)
        volume = add_volume("scan", image)
        outline = self.add_outline(volume, label)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        turn = vtk.vtkTransform()
        turn.RotateZ(30)
        turn.Translate(10, 20, 30)
        transform.SetMatrixTransformToParent(turn.GetMatrix())
        for node in (volume, outline):
            node.SetAndObserveTransformNodeID(transform.GetID())
        segments = segments_of(outline, self.recipe)
        np.testing.assert_array_equal(run_to_end(label_array(outline, segments, volume)), label)
        # If only the segmentation is transformed, the label moves relative to the scan.
        volume.SetAndObserveTransformNodeID(None)
        moved = run_to_end(label_array(outline, segments, volume))
        self.assertTrue((moved != label).any())

    def test_segmentation_on_a_finer_grid_or_as_a_surface_is_exported(self):
        image, label = ellipsoid(6)
        volume = add_volume("scan", image)
        fine = add_volume("fine", np.kron(image, np.ones((2, 2, 2), np.float32)), spacing=1.0)
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        shift = [matrix.GetElement(row, 3) - 0.5 for row in range(3)]
        fine.SetOrigin(*shift)
        outline = self.add_outline(fine, np.kron(label, np.ones((2, 2, 2), np.uint8)))
        segments = segments_of(outline, self.recipe)
        exported = run_to_end(label_array(outline, segments, volume))
        self.assertGreater(2 * (exported & label).sum() / (exported.sum() + label.sum()), 0.9)
        surface = self.add_outline(volume, label)
        self.assertTrue(surface.CreateClosedSurfaceRepresentation())
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        surface.GetSegmentation().SetSourceRepresentationName(name)
        surface.GetSegmentation().RemoveRepresentation("Binary labelmap")
        exported = run_to_end(label_array(surface, segments_of(surface, self.recipe), volume))
        self.assertGreater(2 * (exported & label).sum() / (exported.sum() + label.sum()), 0.85)
        self.assertFalse(surface.GetSegmentation().ContainsRepresentation("Binary labelmap"))

    def test_overlap_belongs_to_the_later_segment(self):
        image, label = ellipsoid(7)
        volume = add_volume("scan", image)
        outline = self.add_outline(volume, label, ("Left atrium",))
        inner = outline.GetSegmentation().AddEmptySegment("", "inner")
        mask = np.zeros_like(label)
        mask[8:12, 8:12, 8:12] = label[8:12, 8:12, 8:12]
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, outline, inner, volume)
        first = outline.GetSegmentation().GetNthSegmentID(0)
        # The outline has no segment "gone".
        exported = run_to_end(label_array(outline, ((first, 1), (inner, 2), ("gone", 3)), volume))
        np.testing.assert_array_equal(exported == 2, mask > 0)
        np.testing.assert_array_equal(exported > 0, label > 0)

    def test_export_runs_in_short_steps(self):
        rng = np.random.default_rng(0)
        voxels = rng.integers(0, 1000, (160, 320, 320), dtype=np.int16)
        volume = add_volume("large", voxels)
        label = np.zeros(voxels.shape, np.uint8)
        label[60:100, 100:200, 100:200] = 1
        outline = self.add_outline(volume, label)
        row = row_of(volume, outline, self.recipe)
        # `longest_step` may export several times: number the exports, so that each writes its own files.
        numbers = itertools.count(1)
        assert_stays_responsive(longest_step(lambda: export_case(row, self.folder, next(numbers))))
        np.testing.assert_array_equal(read_scan(self.folder / "00001.nrrd").voxels[0].transpose(2, 1, 0), voxels)
        np.testing.assert_array_equal(read_labelmap(self.folder / "00001-label.nrrd").voxels.transpose(2, 1, 0), label)

    def test_label_is_the_chosen_segment_of_a_seg_nrrd_file_with_two_segments(self):
        image, label = ellipsoid(4)
        path = self.folder / "outline.seg.nrrd"
        volume = add_volume("scan", image, turned=True)
        shell = np.roll(label, 5, axis=0) * (1 - label)
        self.assertTrue(
            slicer.util.saveNode(add_outline(volume, label + 2 * shell, ("Left atrium", "Wall")), str(path))
        )
        stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(np.unique(stored), (0, 1, 2))
        outline = slicer.util.loadSegmentation(str(path))
        left_atrium, wall = outline.GetSegmentation().GetSegmentIDs()
        case = run_to_end(export_case(row_of(volume, outline, self.recipe), self.folder, 7))
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))
        np.testing.assert_array_equal(written, stored == 1)
        exported = run_to_end(label_array(outline, ((left_atrium, 2), (wall, 1)), volume))
        np.testing.assert_array_equal(exported, np.choose(stored, (0, 2, 1)))
        for identifier, value in ((left_atrium, 2), (wall, 1)):
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(outline, identifier, volume)
            np.testing.assert_array_equal(exported == value, mask)


class SharedLabelmapExportTest(ExportTest):
    add_outline = staticmethod(add_shared_outline)
