"""The preview of a validation case in the scene."""

from __future__ import annotations

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import slicer
from dcamt.runs.preview import Preview
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from DCAMTTrainingLib.cases.derived_nodes import scan_of
from DCAMTTrainingLib.runs import preview as preview_module
from DCAMTTrainingLib.runs.array_nodes import box_of
from DCAMTTrainingLib.runs.preview import remove_preview, show_preview
from scene_nodes import ellipsoid, run_to_end, segment_mask
from slicer_harness import (
    assert_stays_responsive,
    close_scene,
    longest_step,
    process_events,
    start_afresh,
)
from unchanged_scene import changed_content, fail_after, scene_content


class PreviewTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()

    def test_preview_with_its_scan_is_updated_in_place_and_can_be_removed(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        image, label = ellipsoid(1)
        affine = np.array([[0, -2.0, 0, 5], [2.0, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
        scan, labels = str(Path(folder.name, "scan.npy")), str(Path(folder.name, "labels.npy"))
        np.save(scan, image)
        np.save(labels, label)
        preview = Preview("case", 10, affine.tolist(), scan, labels)
        for _ in range(2):  # the second call updates the same nodes
            for _step in show_preview(preview, tiny_recipe(), "run"):
                process_events()
            volume = slicer.util.getFirstNodeByName("run: case")
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), image)
            np.testing.assert_allclose(ijk_to_ras(volume), affine)
            segmentation = slicer.util.getFirstNodeByName("run: preview, iteration 10")
            drawn = segment_mask(segmentation, volume)
            np.testing.assert_array_equal(drawn, label)
            self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
            self.assertFalse(volume.GetSaveWithScene() or segmentation.GetSaveWithScene())
            for kind in ("Segmentation", "ScalarVolume"):
                self.assertEqual(len(slicer.util.getNodesByClass(f"vtkMRML{kind}Node")), 1)
        remove_preview("run")
        for kind in ("Segmentation", "ScalarVolume"):
            for part in ("Node", "DisplayNode"):
                self.assertEqual(slicer.util.getNodesByClass(f"vtkMRML{kind}{part}"), [])

    def make_preview(self, seed: int, step: int) -> Preview:
        """Write the files of a preview whose scan and segmentation depend on the seed."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = [str(Path(folder.name, name)) for name in ("scan.npy", "labels.npy")]
        for file, voxels in zip(files, ellipsoid(seed), strict=True):
            np.save(file, voxels)
        return Preview("case", step, np.diag([2.0, 2.0, 3.0, 1.0]).tolist(), *files)

    def test_scan_that_replaces_another_scan_in_the_same_file_is_shown(self) -> None:
        preview = self.make_preview(1, 10)
        run_to_end(show_preview(preview, tiny_recipe(), "run"))
        image = ellipsoid(2)[0]
        np.save(preview.scan, image)
        run_to_end(show_preview(replace(preview, case="other"), tiny_recipe(), "run"))
        volume = slicer.util.getFirstNodeByName("run: other")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), image)

    def test_volume_of_the_scene_with_other_voxels_is_not_used(self) -> None:
        preview = self.make_preview(1, 10)
        image, other = np.load(preview.scan), ellipsoid(2)[0]
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "case")
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.array(preview.affine)))
        # The scans of several patients of a data set may have one name and one grid.
        for voxels, is_used in ((other, False), (image, True)):
            slicer.util.updateVolumeFromArray(volume, voxels)
            run_to_end(show_preview(preview, tiny_recipe(), "run", volume))
            shown = scan_of(slicer.util.getFirstNodeByName("run: preview, iteration 10"))
            self.assertEqual(shown is volume, is_used)
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(shown), image)

    def test_scan_is_read_again_if_its_file_changed_during_reading(self) -> None:
        preview = self.make_preview(1, 10)
        count = len(list(show_preview(preview, tiny_recipe(), "other")))
        running = show_preview(preview, tiny_recipe(), "run")
        for _step in range(count):
            next(running)
        image = ellipsoid(2)[0]
        Path(preview.scan).rename(f"{preview.scan}.before")
        np.save(preview.scan, image)
        run_to_end(running)
        run_to_end(show_preview(preview, tiny_recipe(), "run"))
        volume = slicer.util.getFirstNodeByName("run: case")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), image)

    def test_failed_or_cancelled_preview_leaves_the_scene_unchanged(self) -> None:
        for seed in (1, 2):
            preview = self.make_preview(seed, 10 * seed)
            nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            before, segments = scene_content(), [fingerprint(node) for node in nodes]
            for name in ("read_image", "build_segments", "set_image", "write_segments"):
                with self.subTest(seed=seed, step=name):
                    with fail_after(preview_module, name), self.assertRaises(MemoryError):
                        run_to_end(show_preview(preview, tiny_recipe(), "run"))
                    self.assertEqual(changed_content(before), [])
                    self.assertEqual([fingerprint(node) for node in nodes], segments)
            count = len(list(show_preview(preview, tiny_recipe(), "other")))
            remove_preview("other")
            before = scene_content()
            for index in range(count):
                with self.subTest(seed=seed, cancelled_after=index):
                    running = show_preview(preview, tiny_recipe(), "run")
                    for _step in range(index + 1):
                        next(running)
                    running.close()
                    self.assertEqual(changed_content(before), [])
                    self.assertEqual([fingerprint(node) for node in nodes], segments)
            run_to_end(show_preview(preview, tiny_recipe(), "run"))
            self.assertNotEqual(changed_content(before), [])

    def test_preview_removed_during_its_update_is_not_shown_again(self) -> None:
        preview = self.make_preview(1, 10)
        run_to_end(show_preview(preview, tiny_recipe(), "run"))
        count = len(list(show_preview(preview, tiny_recipe(), "run")))
        running = show_preview(preview, tiny_recipe(), "run")
        for _step in range(count):
            next(running)
        remove_preview("run")
        before = scene_content()
        run_to_end(running)
        self.assertEqual(changed_content(before), [])

    def test_box_of_a_label_is_its_bounding_box_in_ijk_order(self) -> None:
        labels = np.zeros((4, 5, 6), np.uint8)
        self.assertIsNone(box_of(labels, 1))
        labels[1:3, 2, 3:6] = 1
        self.assertEqual(box_of(labels, 1), ((3, 6), (2, 3), (1, 3)))

    def test_preview_is_shown_in_short_steps(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        draw = np.random.default_rng(0)
        scan, labels = str(Path(folder.name, "scan.npy")), str(Path(folder.name, "labels.npy"))
        np.save(scan, draw.integers(0, 500, (160, 320, 320), dtype=np.int16))
        label = np.zeros((160, 320, 320), np.uint8)
        label[40:110, 100:220, 100:220] = 1
        np.save(labels, label)
        preview = Preview("case", 1, np.eye(4).tolist(), scan, labels)

        def show():
            close_scene()
            return show_preview(preview, tiny_recipe(), "run")

        assert_stays_responsive(longest_step(show))
