"""Segments that DCAMT writes: classes of one code, identifiers, and fingerprints."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.volume import Code, SegmentInfo
from DCAMTSlicerLib.fingerprints import fingerprint, is_same_fingerprint
from DCAMTSlicerLib.result_segments import build_segment, find_dcamt_segments, write_segments
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from result_case import block, segment_result, voxel_counts
from segmentation_case import add_scan, start_afresh

TISSUE = Code("SCT", "85756007", "Tissue")


def make_segment(name: str, labels: np.ndarray, affine: np.ndarray | None = None, code: Code = TISSUE) -> Any:
    """Return a segment of a class with a name and a code. affine: (4, 4), by default the identity."""
    item = segment_result(labels, SegmentInfo(1, name, (1.0, 0.0, 0.0), code))
    return build_segment(labels, np.eye(4) if affine is None else affine, item)


def add_segmentation() -> Any:
    """Add an empty segmentation node."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")


class SceneCase(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()


class SameCodeTest(SceneCase):
    def test_classes_of_one_code_are_all_replaced_and_keep_their_identifiers(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        first = list(node.GetSegmentation().GetSegmentIDs())
        self.assertEqual(list(find_dcamt_segments(node)), first)
        write_segments(node, [make_segment("spleen", block(8, 3)), make_segment("aorta", block(2, 5))])
        self.assertEqual(voxel_counts(node), {"spleen": 27, "aorta": 125})
        self.assertEqual(sorted(node.GetSegmentation().GetSegmentIDs()), sorted(first))
        for identifier in first:
            self.assertEqual(node.GetSegmentation().GetSegment(identifier).GetName(), identifier)

    def test_class_without_an_earlier_segment_does_not_take_an_identifier_of_its_code(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        write_segments(node, [make_segment("kidney", block(2)), make_segment("spleen", block(8, 3))])
        self.assertEqual(voxel_counts(node), {"kidney": 64, "spleen": 27})
        self.assertEqual(node.GetSegmentation().GetSegment("spleen").GetName(), "spleen")
        self.assertIsNone(node.GetSegmentation().GetSegment("aorta"))

    def test_new_segment_gets_no_identifier_that_an_earlier_one_keeps(self) -> None:
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

    def test_renamed_segment_of_a_single_class_keeps_its_identifier(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2))])
        node.GetSegmentation().GetSegment("aorta").SetName("my aorta")
        write_segments(node, [make_segment("aorta", block(2, 3))])
        self.assertEqual(list(node.GetSegmentation().GetSegmentIDs()), ["aorta"])
        self.assertEqual(voxel_counts(node), {"aorta": 27})

    def test_fingerprint_notices_an_edit_of_each_segment_of_one_code(self) -> None:
        node = add_segmentation()
        write_segments(node, [make_segment("aorta", block(2)), make_segment("spleen", block(8))])
        before = fingerprint(node)
        write_segments(node, [make_segment("aorta", block(2, 3)), make_segment("spleen", block(8))])
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

    def test_fingerprint_of_an_older_version_is_recognised(self) -> None:
        (numbers,) = json.loads(self.before).values()
        older = json.dumps({"SCT 85756007": numbers[:4]})
        self.assertTrue(is_same_fingerprint(older, self.before))
        self.draw(block(2, 3))
        self.assertFalse(is_same_fingerprint(older, fingerprint(self.node)))
