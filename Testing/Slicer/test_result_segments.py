"""Segments that DCAMT writes: identifiers, fingerprints, classes with the same code, and removal during a job."""

from __future__ import annotations

import json
import unittest
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.volume import Code, SegmentInfo
from dcamt.wall.settings import DEFAULT_THRESHOLD
from DCAMTSegmentationLib import measuring_job, report_job, wall_job
from DCAMTSegmentationLib.measuring_job import MeasuringJob
from DCAMTSegmentationLib.region_of_interest import place_region
from DCAMTSegmentationLib.report_job import ReportJob
from DCAMTSegmentationLib.wall_job import WallJob
from DCAMTSegmentationLib.worker_job import JobOutcome, WorkerJob
from DCAMTSlicerLib.fingerprints import (
    differ_only_by_copies,
    fingerprint,
    fingerprint_of,
    is_same_fingerprint,
    unchanged_segments,
)
from DCAMTSlicerLib.result_segments import build_segment, find_dcamt_segments, write_segments
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.segment_voxels import labelmap_affine, read_segment
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from made_results import block, segment_result, voxel_counts
from scene_nodes import add_scan, share_labelmap
from slicer_harness import process_events_until, start_afresh

TISSUE = Code("SCT", "85756007", "Tissue")


def make_segment(name: str, labels: np.ndarray, affine: np.ndarray | None = None, code: Code = TISSUE) -> Any:
    item = segment_result(labels, SegmentInfo(1, name, (1.0, 0.0, 0.0), code))
    return build_segment(labels, np.eye(4) if affine is None else affine, item)


def add_segmentation() -> Any:
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")


class SceneCase(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()


class SameCodeTest(SceneCase):
    def test_classes_with_the_same_code_are_all_replaced_and_keep_their_identifiers(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        first = list(node.GetSegmentation().GetSegmentIDs())
        self.assertEqual(list(find_dcamt_segments(node)), first)
        write_segments(node, [make_segment("spleen", block(8, 3)), make_segment("aorta", block(2, 5))])
        self.assertEqual(voxel_counts(node), {"spleen": 27, "aorta": 125})
        self.assertEqual(sorted(node.GetSegmentation().GetSegmentIDs()), sorted(first))
        for identifier in first:
            self.assertEqual(node.GetSegmentation().GetSegment(identifier).GetName(), identifier)

    def test_new_class_does_not_take_the_identifier_of_a_removed_class_with_the_same_code(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        write_segments(node, [make_segment("kidney", block(2)), make_segment("spleen", block(8, 3))])
        self.assertEqual(voxel_counts(node), {"kidney": 64, "spleen": 27})
        self.assertEqual(node.GetSegmentation().GetSegment("spleen").GetName(), "spleen")
        self.assertIsNone(node.GetSegmentation().GetSegment("aorta"))

    def test_old_name_of_a_renamed_segment_can_be_used_again(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        node.GetSegmentation().GetSegment("aorta").SetName("vessel")
        write_segments(
            node,
            [
                make_segment("aorta", block(2, 3)),
                make_segment("vessel", block(2, 5)),
                make_segment("spleen", block(8, 2)),
            ],
        )
        self.assertEqual(voxel_counts(node), {"aorta": 27, "vessel": 125, "spleen": 8})
        self.assertEqual(node.GetSegmentation().GetSegment("aorta").GetName(), "vessel")

    def test_renamed_segment_keeps_its_identifier_if_its_code_occurs_once(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2))])
        node.GetSegmentation().GetSegment("aorta").SetName("my aorta")
        write_segments(node, [make_segment("aorta", block(2, 3))])
        self.assertEqual(list(node.GetSegmentation().GetSegmentIDs()), ["aorta"])
        self.assertEqual(voxel_counts(node), {"aorta": 27})

    def test_replaced_segment_keeps_the_visibility_and_opacity_that_a_person_chose(self) -> None:
        node = add_segmentation()
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        display.SetSegmentVisibility("aorta", False)
        display.SetSegmentOpacity3D("spleen", 0.3)
        for undone in (False, True):
            with suppress(InterruptedError), SceneChanges() as changes:
                changes.save(node)
                write_segments(node, [make_segment("spleen", block(8, 3)), make_segment("aorta", block(2, 5))])
                if undone:
                    raise InterruptedError
            self.assertFalse(display.GetSegmentVisibility("aorta"))
            self.assertEqual(display.GetSegmentOpacity3D("spleen"), 0.3)
            self.assertTrue(display.GetSegmentVisibility("spleen"))

    def test_replaced_segments_keep_their_places_in_the_list(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        node.GetSegmentation().AddEmptySegment("mine")
        replaced = [make_segment("spleen", block(8)), make_segment("kidney", block(4)), make_segment("aorta", block(2))]
        write_segments(node, replaced)
        self.assertEqual(list(node.GetSegmentation().GetSegmentIDs()), ["aorta", "spleen", "mine", "kidney"])

    def test_fingerprint_changes_when_one_of_two_segments_with_the_same_code_is_edited(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        before = fingerprint(node)
        for aorta, spleen in ((3, 4), (4, 3)):
            write_segments(node, [make_segment("aorta", block(2, aorta)), make_segment("spleen", block(8, spleen))])
            self.assertNotEqual(fingerprint(node), before)


class FingerprintTest(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.volume, self.node = add_scan(), add_segmentation()
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        write_segments(self.node, [make_segment("aorta", block(2), ijk_to_ras(self.volume))])
        self.before = fingerprint(self.node)

    def draw(self, labels: np.ndarray) -> None:
        slicer.util.updateSegmentBinaryLabelmapFromArray(labels, self.node, "aorta", self.volume)

    def test_shift_of_the_whole_segment_changes_the_fingerprint(self) -> None:
        self.draw(block(5))
        self.assertFalse(is_same_fingerprint(self.before, fingerprint(self.node)))
        self.draw(block(2))
        self.assertTrue(is_same_fingerprint(self.before, fingerprint(self.node)))

    def test_hardened_linear_transform_does_not_change_the_fingerprint(self) -> None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 7.3)
        transform.SetMatrixTransformToParent(matrix)
        self.node.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEqual(fingerprint(self.node), self.before)
        self.node.HardenTransform()
        self.assertEqual(fingerprint(self.node), self.before)

    def test_fingerprint_is_the_same_after_saving_and_loading(self) -> None:
        with TemporaryDirectory() as folder:
            path = str(Path(folder, "outline.seg.nrrd"))
            self.assertTrue(slicer.util.saveNode(self.node, path))
            loaded = slicer.util.loadSegmentation(path)
        self.assertEqual(list(find_dcamt_segments(loaded)), ["aorta"])
        self.assertEqual(fingerprint(loaded), self.before)

    def test_fingerprint_stored_by_an_older_dcamt_is_recognised(self) -> None:
        (numbers,) = json.loads(self.before).values()
        older = json.dumps({"SCT 85756007": numbers[:4]})
        self.assertTrue(is_same_fingerprint(older, self.before))
        self.draw(block(2, 3))
        self.assertFalse(is_same_fingerprint(older, fingerprint(self.node)))


class SharedLabelmapTest(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.volume, self.node = add_scan(), add_segmentation()
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.labels = {"aorta": block(2), "mine": block(9, 6)}
        write_segments(self.node, [make_segment("aorta", self.labels["aorta"], ijk_to_ras(self.volume))])
        self.node.GetSegmentation().AddEmptySegment("mine", "mine")
        slicer.util.updateSegmentBinaryLabelmapFromArray(self.labels["mine"], self.node, "mine", self.volume)

    def voxels_in_scan(self, identifier: str) -> np.ndarray:
        """Return the voxels (K, J, I) that `read_segment` reads, on the scan's grid."""
        voxels = read_segment(self.node, identifier)
        first = np.rint(np.linalg.inv(ijk_to_ras(self.volume)) @ voxels.affine[:, 3]).astype(int)[2::-1]
        labels = np.zeros_like(self.labels["aorta"])
        labels[tuple(map(slice, first, first + voxels.mask.shape))] = voxels.mask
        return labels

    def region_around_result(self) -> list[float]:
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        place_region(roi, self.volume, self.node)
        return [*roi.GetCenterWorld(), *roi.GetSize()]

    def test_segments_of_a_shared_labelmap_are_read_like_segments_of_separate_labelmaps(self) -> None:
        identifiers = list(self.labels)
        fingerprints = [fingerprint(self.node, [identifier]) for identifier in identifiers]
        affine, region = labelmap_affine(self.node, identifiers), self.region_around_result()
        share_labelmap(self.node)
        self.assertEqual([fingerprint(self.node, [identifier]) for identifier in identifiers], fingerprints)
        np.testing.assert_array_equal(labelmap_affine(self.node, identifiers), affine)
        self.assertEqual(self.region_around_result(), region)
        for identifier, labels in self.labels.items():
            np.testing.assert_array_equal(self.voxels_in_scan(identifier), labels)

    def test_jobs_send_only_the_voxels_of_their_segment(self) -> None:
        share_labelmap(self.node)
        counts: list[int] = []

        def count(voxels: np.ndarray, file: Path) -> Iterator[slice]:
            counts.append(np.count_nonzero(voxels))
            yield slice(0, len(voxels))

        with TemporaryDirectory() as folder:
            worker = mock.Mock(**{"make_folder.return_value": folder})
            scan, outcomes = (worker, self.volume, self.node, "aorta"), list[JobOutcome]()
            for module, job in (
                (measuring_job, MeasuringJob(worker, self.node, outcomes.append)),
                (wall_job, WallJob(*scan, DEFAULT_THRESHOLD, outcomes.append)),
                (report_job, ReportJob(*scan, Path("report.html"), outcomes.append)),
            ):
                with self.subTest(type(job).__name__), mock.patch.object(module, "write_npy_in_slabs", count):
                    worker.request.reset_mock()
                    job.start()
                    process_events_until(lambda: outcomes or worker.request.called, "the request")
                    self.assertEqual((outcomes, counts), ([], [np.count_nonzero(self.labels["aorta"])]))
                    job.cancel()
                    counts.clear()
                    outcomes.clear()

    def test_segment_of_the_user_stays_if_a_result_is_replaced_or_the_replacement_is_undone(self) -> None:
        for undone in (True, False):
            share_labelmap(self.node)
            with suppress(InterruptedError), SceneChanges() as changes:
                changes.save(self.node)
                write_segments(self.node, [make_segment("aorta", block(4), ijk_to_ras(self.volume))])
                if undone:
                    raise InterruptedError
            np.testing.assert_array_equal(self.voxels_in_scan("aorta"), self.labels["aorta"] if undone else block(4))
            np.testing.assert_array_equal(self.voxels_in_scan("mine"), self.labels["mine"])


class UnchangedSegmentsTest(unittest.TestCase):
    def test_copy_of_an_unchanged_segment_is_unchanged_and_an_erased_segment_is_not(self) -> None:
        first, second, empty = [2, 2, 2, 7, 1, 0, 0], [3, 3, 3, 8, 0, 0, 0], [1, 1, 1, 5, 0, 0, 0]
        edited = [2, 2, 2, 9, 1, 0, 0]
        written = fingerprint_of({"first": first, "second": second, "third": empty})
        now = {"first": empty, "second": second, "third": empty, "copy": first, "edited copy": edited}
        self.assertEqual(unchanged_segments(written, fingerprint_of(now)), {"second", "third", "copy"})
        # Older versions stored only four numbers for each segment; the keys were the codes of the classes, not
        # identifiers.
        older = fingerprint_of({"SCT 1": first[:4], "SCT 2": second[:4]})
        self.assertEqual(unchanged_segments(older, fingerprint_of({"first": first, "second": edited})), {"first"})

    def test_fingerprints_that_differ_only_by_copies_are_recognised(self) -> None:
        first, second = [2, 2, 2, 7, 1, 0, 0], [3, 3, 3, 8, 0, 0, 0]
        written = {"first": first, "second": second}
        for changes, expected in (
            ({}, True),
            ({"copy": first}, True),
            ({"first": second}, False),
            ({"copy": [2, 2, 2, 9, 1, 0, 0]}, False),
        ):
            now = fingerprint_of({**written, **changes})
            self.assertEqual(differ_only_by_copies(fingerprint_of(written), now), expected, changes)
        self.assertFalse(differ_only_by_copies(fingerprint_of(written), fingerprint_of({"first": first})))


class RemovedSegmentTest(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.volume, self.node = add_scan(), add_segmentation()
        self.affine = ijk_to_ras(self.volume)
        write_segments(self.node, [make_segment("aorta", block(2), self.affine)])
        self.worker = mock.Mock(**{"make_folder.return_value": folder.name})
        self.outcomes: list[JobOutcome] = []

    def remove_segments(self) -> None:
        self.node.GetSegmentation().RemoveAllSegments()

    def remove_instead_of_writing(self, voxels: np.ndarray, file: Path) -> Iterator[slice]:
        if voxels.dtype == np.uint8:  # a segment's mask
            self.remove_segments()
        yield slice(0, len(voxels))

    def wall_job(self) -> WallJob:
        return WallJob(self.worker, self.volume, self.node, "aorta", DEFAULT_THRESHOLD, self.outcomes.append)

    def report_job(self) -> ReportJob:
        return ReportJob(self.worker, self.volume, self.node, "aorta", Path("report.html"), self.outcomes.append)

    def assert_ended_with_a_message(self) -> None:
        process_events_until(lambda: self.outcomes, "the end of the job")
        outcome = self.outcomes.pop()
        self.assertEqual(outcome.message, "outline: a segment was removed before it was read. Try again.")
        self.assertEqual((outcome.segmentation, outcome.detail), (None, ""))
        self.worker.request.assert_not_called()

    def test_measurement_ends_with_a_message_if_an_unread_segment_is_removed(self) -> None:
        segments = [make_segment("aorta", block(2), self.affine), make_segment("spleen", block(8), self.affine)]
        write_segments(self.node, segments)
        job = MeasuringJob(self.worker, self.node, self.outcomes.append)
        with mock.patch.object(measuring_job, "write_npy_in_slabs", self.remove_instead_of_writing):
            job.start()
            self.assert_ended_with_a_message()

    def test_jobs_end_with_a_message_if_their_segment_is_removed_before_they_read_it(self) -> None:
        for job in (self.wall_job(), self.report_job()):
            with self.subTest(type(job).__name__):
                job.start()
                self.remove_segments()
                self.assert_ended_with_a_message()

    def assert_requested(self, job: WorkerJob) -> None:
        """Start the job and fail if the job does not send its request.

        The caller must patch `write_npy_in_slabs` in the job's module with `remove_instead_of_writing`.
        """
        job.start()
        process_events_until(lambda: self.outcomes or self.worker.request.called, "the request")
        self.assertEqual(self.outcomes, [])
        self.assertEqual(self.node.GetSegmentation().GetNumberOfSegments(), 0)
        job.cancel()

    def test_wall_job_sends_its_request_if_the_segment_was_removed_after_it_was_read(self) -> None:
        with mock.patch.object(wall_job, "write_npy_in_slabs", self.remove_instead_of_writing):
            self.assert_requested(self.wall_job())

    def test_report_job_sends_its_request_if_the_segment_was_removed_after_it_was_read(self) -> None:
        with mock.patch.object(report_job, "write_npy_in_slabs", self.remove_instead_of_writing):
            self.assert_requested(self.report_job())

    def test_jobs_send_their_request_even_if_the_image_is_removed_after_they_started(self) -> None:
        image = self.volume.GetImageData()
        for job in (self.wall_job(), self.report_job()):
            with self.subTest(type(job).__name__):
                self.worker.request.reset_mock()
                job.start()
                self.volume.SetAndObserveImageData(None)
                process_events_until(lambda: self.outcomes or self.worker.request.called, "the request")
                self.assertEqual(self.outcomes, [])
                job.cancel()
                self.outcomes.clear()
                self.volume.SetAndObserveImageData(image)
