"""Segments that DCAMT writes: classes of one code, identifiers, fingerprints, and the restoration after an error."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from dcamt.metrics.measurements import Measurements
from dcamt.volume import Code, SegmentInfo
from dcamt.worker.protocol import SegmentResult
from DCAMTSegmentationLib import result_insertion, review
from DCAMTSegmentationLib.measurements_table import rows_of
from DCAMTSegmentationLib.result_insertion import LoadedResult, SegmentationOptions, insert_result
from DCAMTSlicerLib.fingerprints import fingerprint, is_same_fingerprint
from DCAMTSlicerLib.result_segments import build_segment, find_dcamt_segments, write_segments
from DCAMTSlicerLib.segment_voxels import read_segment
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from segmentation_case import add_scan, start_afresh

TISSUE = Code("SCT", "85756007", "Tissue")
SHAPE = (16, 20, 24)


def block(start: int, size: int = 4) -> np.ndarray:
    """Return labels (K, J, I) of one cube."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[start : start + size, start : start + size, start : start + size] = 1
    return labels


def built(name: str, labels: np.ndarray, affine: np.ndarray | None = None, code: Code = TISSUE) -> Any:
    """Return a built segment of the labels, on an affine (4, 4) that is the identity by default."""
    box = tuple((low, high + 1) for low, high in ((v.min(), v.max()) for v in np.nonzero(labels)[::-1]))
    item = SegmentResult(SegmentInfo(1, name, (1.0, 0.0, 0.0), code), box)
    return build_segment(labels, np.eye(4) if affine is None else affine, item)


def add_segmentation() -> Any:
    """Add an empty segmentation node."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outline")


def named_masks(node: Any) -> dict[str, int]:
    """Return the number of voxels of each segment, by name."""
    segmentation = node.GetSegmentation()
    return {
        segmentation.GetSegment(identifier).GetName(): int(read_segment(node, identifier).mask.sum())
        for identifier in segmentation.GetSegmentIDs()
    }


class SceneCase(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()


class SameCodeTest(SceneCase):
    def test_classes_of_one_code_are_all_replaced_and_keep_their_identifiers(self) -> None:
        node = add_segmentation()
        write_segments(node, [built("aorta", block(2)), built("spleen", block(8))])
        first = list(node.GetSegmentation().GetSegmentIDs())
        self.assertEqual(list(find_dcamt_segments(node)), first)
        write_segments(node, [built("spleen", block(8, 3)), built("aorta", block(2, 5))])
        self.assertEqual(named_masks(node), {"spleen": 27, "aorta": 125})
        self.assertEqual(sorted(node.GetSegmentation().GetSegmentIDs()), sorted(first))
        for identifier in first:
            self.assertEqual(node.GetSegmentation().GetSegment(identifier).GetName(), identifier)

    def test_class_without_an_earlier_segment_does_not_take_an_identifier_of_its_code(self) -> None:
        node = add_segmentation()
        write_segments(node, [built("aorta", block(2)), built("spleen", block(8))])
        write_segments(node, [built("kidney", block(2)), built("spleen", block(8, 3))])
        self.assertEqual(named_masks(node), {"kidney": 64, "spleen": 27})
        self.assertEqual(node.GetSegmentation().GetSegment("spleen").GetName(), "spleen")
        self.assertIsNone(node.GetSegmentation().GetSegment("aorta"))

    def test_new_segment_gets_no_identifier_that_an_earlier_one_keeps(self) -> None:
        node = add_segmentation()
        write_segments(node, [built("aorta", block(2)), built("spleen", block(8))])
        node.GetSegmentation().GetSegment("aorta").SetName("vessel")
        write_segments(node, [built("aorta", block(2, 3)), built("vessel", block(2, 5)), built("spleen", block(8, 2))])
        self.assertEqual(named_masks(node), {"aorta": 27, "vessel": 125, "spleen": 8})
        self.assertEqual(node.GetSegmentation().GetSegment("aorta").GetName(), "vessel")

    def test_renamed_segment_of_a_single_class_keeps_its_identifier(self) -> None:
        node = add_segmentation()
        write_segments(node, [built("aorta", block(2))])
        node.GetSegmentation().GetSegment("aorta").SetName("my aorta")
        write_segments(node, [built("aorta", block(2, 3))])
        self.assertEqual(list(node.GetSegmentation().GetSegmentIDs()), ["aorta"])
        self.assertEqual(named_masks(node), {"aorta": 27})

    def test_fingerprint_notices_an_edit_of_each_segment_of_one_code(self) -> None:
        node = add_segmentation()
        write_segments(node, [built("aorta", block(2)), built("spleen", block(8))])
        before = fingerprint(node)
        write_segments(node, [built("aorta", block(2, 3)), built("spleen", block(8))])
        self.assertNotEqual(fingerprint(node), before)


class FingerprintTest(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.volume, self.node = add_scan(), add_segmentation()
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        write_segments(self.node, [built("aorta", block(2), ijk_to_ras(self.volume))])
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


class RestorationTest(SceneCase):
    def result(self, labels: np.ndarray, volume_ml: float) -> LoadedResult:
        info = SegmentInfo(1, "aorta", (1.0, 0.0, 0.0), TISSUE)
        box = tuple((low, high + 1) for low, high in ((v.min(), v.max()) for v in np.nonzero(labels)[::-1]))
        row = Measurements("LGE", "aorta", volume_ml, *[float("nan")] * 5)
        return LoadedResult(labels, labels * 255, 0.9, [], [row], [SegmentResult(info, box)])

    def insert(self, result: LoadedResult, volume: Any, target: Any = None) -> Any:
        steps = insert_result(result, SegmentationOptions(volume, target=target, show_3d=False))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def test_error_in_the_last_step_restores_the_earlier_result(self) -> None:
        volume = add_scan()
        node = self.insert(self.result(block(2), 1.0), volume)
        table, map_node = (review.get_referenced_node(node, role) for role in (review.MEASUREMENTS, review.DOUBT_MAP))

        def state() -> Any:
            attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
            levels = slicer.util.arrayFromVolume(map_node).tobytes()
            return attributes, named_masks(node), fingerprint(node), rows_of(table), levels, map_node.GetName()

        nodes, before = slicer.mrmlScene.GetNumberOfNodes(), state()
        for function in ("_write", "_set_map", "_outline_method", "place_below"):
            for result in (self.result(block(8, 3), 2.0), replace(self.result(block(8, 3), 2.0), doubt_map=None)):
                if result.doubt_map is None and function == "_set_map":
                    continue
                real = getattr(result_insertion, function)

                def fail(*arguments: Any, real: Any = real) -> None:
                    real(*arguments)
                    raise MemoryError

                with self.subTest(function), mock.patch.object(result_insertion, function, fail):
                    self.assertRaises(MemoryError, self.insert, result, volume, node)
                    self.assertEqual(state(), before)
                    self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
                    self.assertIs(review.get_referenced_node(node, review.DOUBT_MAP), map_node)
        self.assertIs(self.insert(self.result(block(8, 3), 2.0), volume, node), node)
        self.assertEqual(named_masks(node), {"aorta": 27})

    def test_unreadable_surface_names_the_scan_and_leaves_the_scene_unchanged(self) -> None:
        volume = add_scan()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        with TemporaryDirectory() as folder:
            result = self.result(block(2), 1.0)
            for content in (None, b"", b"not an archive"):
                file = Path(folder, "surface.npz")
                if content is not None:
                    file.write_bytes(content)
                item = replace(result.classes[0], surface=file)
                steps = insert_result(replace(result, classes=[item]), SegmentationOptions(volume))
                with self.assertRaisesRegex(InputError, r"^LGE: the files of its result .* Segment it again\.$"):
                    list(steps)
                self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
