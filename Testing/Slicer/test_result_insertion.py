"""A result is inserted into the scene completely, or the scene stays as it was."""

from __future__ import annotations

import unittest
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.metrics.measurements import Measurements
from dcamt.worker.events import ScanSegmented
from DCAMTSegmentationLib import result_insertion
from DCAMTSegmentationLib.loaded_result import LoadedResult
from DCAMTSegmentationLib.measurements_table import rows_of
from DCAMTSegmentationLib.result_insertion import insert_result
from DCAMTSegmentationLib.result_nodes import (
    DOUBT_MAP,
    MEASUREMENTS,
    PLACE_POINT,
    VOLUME,
    find_results,
    get_referenced_node,
)
from DCAMTSegmentationLib.segmentation_options import SegmentationOptions
from DCAMTSegmentationLib.views import show_point
from DCAMTSlicerLib.fingerprints import fingerprint
from made_results import SHAPE, block, insert_all, make_result, voxel_counts
from scene_nodes import add_scan, copy_node
from slicer_harness import start_afresh
from unchanged_scene import changed_content, scene_content, scene_state


class InsertionTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()

    def test_empty_result_adds_an_empty_segment(self) -> None:
        volume = add_scan()
        segmentation = insert_all(make_result(np.zeros(SHAPE, np.uint8)), volume)
        self.assertEqual(voxel_counts(segmentation), {"Left atrium": 0})

    def test_failed_insertion_leaves_the_scene_unchanged(self) -> None:
        volume = add_scan()
        before = scene_content()
        broken = replace(make_result(block(4)), measurements=[Measurements("LGE", "LA", *["no number"] * 6)])
        with self.assertRaises(TypeError):
            insert_all(broken, volume)
        self.assertEqual(changed_content(before), [])

    def test_failed_insertion_restores_the_earlier_result(self) -> None:
        volume = add_scan()
        node = insert_all(make_result(block(2)), volume, show_3d=False)
        table, map_node = (get_referenced_node(node, role) for role in (MEASUREMENTS, DOUBT_MAP))
        display = map_node.GetDisplayNode()
        # The display settings of older versions of DCAMT, whose maps have values from 0 to 255.
        display.SetWindowLevelMinMax(0, 255)
        display.SetThreshold(51, 255)
        display.ApplyThresholdOff()

        def state() -> Any:
            attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
            levels = slicer.util.arrayFromVolume(map_node).tobytes()
            window = display.GetWindowLevelMin(), display.GetWindowLevelMax()
            threshold = display.GetLowerThreshold(), display.GetUpperThreshold(), display.GetApplyThreshold()
            shown = map_node.GetName(), levels, window, threshold
            return attributes, voxel_counts(node), fingerprint(node), rows_of(table, None), shown

        content, before = scene_content(), state()
        later = make_result(block(8, 3), 2.0)
        for function in ("fill_table", "_write_segments", "_set_map", "place_below"):
            for result in (later, replace(later, doubt_map=None)):
                if result.doubt_map is None and function == "_set_map":
                    continue
                real = getattr(result_insertion, function)

                def fail(*arguments: Any, real: Any = real) -> None:
                    real(*arguments)
                    raise MemoryError

                with self.subTest(function), mock.patch.object(result_insertion, function, fail):
                    self.assertRaises(MemoryError, insert_all, result, volume, node, show_3d=False)
                    self.assertEqual(state(), before)
                    self.assertEqual(changed_content(content), [])
        self.assertIs(insert_all(later, volume, node, show_3d=False), node)
        self.assertEqual(voxel_counts(node), {"Left atrium": 27})

    def test_point_at_a_doubtful_place_is_removed_from_a_replaced_result_but_kept_in_a_copy(self) -> None:
        volume = add_scan()
        node = insert_all(make_result(block(2)), volume, show_3d=False)
        show_point(node, (0.0, 0.0, 0.0), "1 of 1")
        point = get_referenced_node(node, PLACE_POINT)
        copy = copy_node(node)
        with mock.patch.object(result_insertion, "place_below", side_effect=MemoryError):
            self.assertRaises(MemoryError, insert_all, make_result(block(8)), volume, node, show_3d=False)
        self.assertIs(get_referenced_node(node, PLACE_POINT), point)
        insert_all(make_result(block(8)), volume, node, show_3d=False)
        self.assertIsNone(get_referenced_node(node, PLACE_POINT))
        self.assertIs(get_referenced_node(copy, PLACE_POINT), point)

    def test_node_removed_during_the_insertion_is_replaced_or_named_in_an_error(self) -> None:
        for role in ("target", MEASUREMENTS, DOUBT_MAP, VOLUME):
            count = 1
            while self.remove_after_steps(role, count):
                count += 1
            self.assertGreater(count, 2, role)

    def remove_after_steps(self, role: str, count: int) -> bool:
        """Remove a node after `count` steps of an insertion and check the outcome.

        Return False if the insertion has fewer steps.
        """
        start_afresh()
        volume = add_scan()
        target = insert_all(make_result(block(2)), volume, show_3d=False)
        node = target if role == "target" else get_referenced_node(target, role)
        steps = insert_result(make_result(block(8)), SegmentationOptions(volume, target=target, show_3d=False))
        for _step in range(count):
            if next(steps, self) is self:
                return False
        name, others = node.GetName(), slicer.mrmlScene.GetNumberOfNodes() - 1
        slicer.mrmlScene.RemoveNode(node)
        with self.subTest(role, count=count):
            try:
                list(steps)
            except InputError as error:
                self.assertEqual(
                    str(error), f"{name}: was removed while the result was inserted. Segment the scan again."
                )
                self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), others)
            else:
                # If a table or map is removed before the insertion looks for it, the insertion adds a new one.
                self.assertIn(role, (MEASUREMENTS, DOUBT_MAP))
                present = get_referenced_node(target, role)
                self.assertTrue(slicer.mrmlScene.IsNodePresent(present))
                self.assertEqual(voxel_counts(target), {"Left atrium": 64})
        return True

    def test_insertion_into_an_earlier_result_has_fewer_steps(self) -> None:
        volume = add_scan()
        new = list(insert_result(make_result(block(2)), SegmentationOptions(volume, show_3d=False)))
        (target,) = find_results()
        again = list(insert_result(make_result(block(2)), SegmentationOptions(volume, target=target, show_3d=False)))
        # Only `new` has these four steps: add the map, set the map's image, add the table, add the segmentation.
        self.assertEqual(len(new) - len(again), 4)

    def test_error_about_unreadable_labels_names_the_scan(self) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder, "labels.npy")
            np.save(file, block(2))
            cut_header = bytearray(file.read_bytes())
            cut_header[8] = 5  # the length of the header
            for content in (b"", b"not an array", cut_header):
                file.write_bytes(content)
                event = ScanSegmented("1", file, None, None, (), (), (), 1.0, "cpu")
                with self.assertRaisesRegex(InputError, r"^LGE: the files of the result .* Segment the scan again\.$"):
                    LoadedResult.read(event, "LGE", "model")

    def test_error_about_an_unreadable_surface_names_the_scan_and_leaves_the_scene_unchanged(self) -> None:
        volume = add_scan()
        state = scene_state()
        with TemporaryDirectory() as folder:
            result = make_result(block(2))
            file = Path(folder, "surface.npz")
            np.savez(file, points=np.zeros((3, 3)), triangles=np.zeros((1, 3)))
            unknown_method = bytearray(file.read_bytes())
            unknown_method[unknown_method.index(b"PK\1\2") + 10] = 98
            file.unlink()
            for content in (None, b"", b"not an archive", unknown_method):
                if content is not None:
                    file.write_bytes(content)
                item = replace(result.classes[0], surface=file)
                steps = insert_result(replace(result, classes=[item]), SegmentationOptions(volume))
                with self.assertRaisesRegex(InputError, r"^LGE: the files of the result .* Segment the scan again\.$"):
                    list(steps)
                self.assertEqual(scene_state(), state)
