"""Cancel a segmentation, or change the scene during a segmentation: the scene stays consistent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt_testing.processes import is_alive
from DCAMTSegmentationLib import segmentation_job, worker_process
from DCAMTSlicerLib.node_types import VolumeNode
from fake_worker import PanelCase
from fault_case import FaultCase
from scene_nodes import add_scan, segment_mask
from slicer_harness import Person, assert_stays_responsive, choose, click, close_scene, pause_of, process_events_until
from unchanged_scene import scene_state

IGNORES_CANCELLING = """
from dcamt.worker import protocol
from dcamt.worker.requests import CancelRequest
parse = protocol.parse_control
protocol.parse_control = lambda line: None if isinstance(parse(line), CancelRequest) else parse(line)
"""


class CancelTest(FaultCase):
    def test_cancelled_segmentation_ends_at_once_and_leaves_the_scene_unchanged(self) -> None:
        pid = self.begin(add_scan())
        self.assertEqual(self.ui.applyButton.text, "Cancel")
        folders = self.worker._root
        assert_stays_responsive(pause_of(lambda: click(self.ui.applyButton), tries=1))
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")
        self.assertEqual(os.listdir(folders), [])
        self.assertEqual(scene_state(), self.state)
        self.assert_the_next_apply_works()
        self.assertEqual(self.pid(), pid)
        self.assertEqual(self.logic.log().count("Loading the model"), 1)

    def test_worker_that_does_not_stop_is_replaced_and_the_next_request_is_served(self) -> None:
        with mock.patch.object(worker_process, "CANCEL_GRACE_MS", 100):
            self.use_worker_script(IGNORES_CANCELLING + self.gate_script())
            pid = self.begin(add_scan())
            click(self.ui.applyButton)
            self.use_working_worker()
            volume = add_scan("next")
            self.prepare(volume)
            click(self.ui.applyButton)
            process_events_until(lambda: not is_alive(pid), "the process's end")
        self.wait()
        self.assertGreater(int(segment_mask(self.settings.outputSegmentation, volume).sum()), 0)

    def test_cancelling_right_after_apply_leaves_the_scene_unchanged(self) -> None:
        self.prepare(add_scan())
        state = scene_state()
        click(self.ui.applyButton)
        click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")
        for _turn in range(20):
            slicer.app.processEvents()
        self.assertEqual(scene_state(), state)
        self.assertIsNone(self.settings.outputSegmentation)
        self.assert_the_next_apply_works()

    def test_apply_works_after_six_segmentations_that_end_or_are_cancelled_at_different_times(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        for turn in range(6):
            click(self.ui.applyButton)
            until = time.monotonic() + 0.15 * turn
            process_events_until(lambda until=until: time.monotonic() >= until)
            if self.logic.isRunning():
                click(self.ui.applyButton)
        self.assert_the_next_apply_works(volume)

    def test_closing_the_scene_cancels_the_segmentation(self) -> None:
        pid = self.begin(add_scan())
        close_scene()
        self.assertFalse(self.logic.isRunning())
        self.assertFalse(self.worker.is_busy)
        self.assertEqual(self.pid(), pid)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assert_the_next_apply_works()


class ChangedMidwayTest(PanelCase):
    def test_closing_the_scene_while_the_volume_is_written_cancels_the_segmentation(self) -> None:
        self.prepare(add_scan())
        click(self.ui.applyButton)
        close_scene()
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])
        self.assertEqual(self.module.worker.requests, [])
        self.segment(add_scan("next"))

    def test_cancelling_while_the_result_is_inserted_keeps_the_earlier_result(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        mask, rows = segment_mask(segmentation, volume), self.logic.measurements(segmentation)
        state = scene_state()
        steps, real = [], segmentation_job.insert_result

        def cancel_after_two_steps(*arguments: Any) -> Any:
            inner = real(*arguments)
            while True:
                try:
                    next(inner)
                except StopIteration as end:
                    return end.value
                steps.append(1)
                if len(steps) == 2:
                    self.logic.cancel()
                yield

        segmentation_job.insert_result = cancel_after_two_steps
        self.addCleanup(setattr, segmentation_job, "insert_result", real)
        choose(self.ui.qualityComboBox, "Fast: one branch")
        click(self.ui.applyButton)
        self.wait()
        self.assertGreaterEqual(len(steps), 2)
        self.assertEqual(scene_state(), state)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), mask)
        self.assertEqual(self.logic.measurements(segmentation), rows)
        self.assertIsNotNone(self.logic.trust(segmentation))

    def apply_while(self, volume: VolumeNode, change: Callable[[], object]) -> None:
        self.module.worker.before_answer = change
        self.prepare(volume)
        click(self.ui.applyButton)
        self.wait()

    def test_result_is_discarded_if_its_volume_was_moved_or_resized_or_removed(self) -> None:
        smaller = np.zeros((5, 6, 7), np.int16)
        for message, change in (
            ("removed or changed during the computation", slicer.mrmlScene.RemoveNode),
            ("was moved during the computation", lambda volume: volume.SetOrigin(5.0, 6.0, 7.0)),
            (
                "removed or changed during the computation",
                lambda volume: slicer.util.updateVolumeFromArray(volume, smaller),
            ),
        ):
            with self.subTest(message), Person() as person:
                person.expects(message, "Ok")
                volume = add_scan()
                self.apply_while(volume, lambda change=change, volume=volume: change(volume))
            for kind in ("Segmentation", "Table"):
                self.assertEqual(slicer.util.getNodesByClass(f"vtkMRML{kind}Node"), [])
        self.module.worker.before_answer = lambda: None
        self.segment(add_scan("next"))

    def test_new_segmentation_is_created_if_the_chosen_one_was_deleted_meanwhile(self) -> None:
        volume = add_scan()
        first = self.segment(volume)
        self.apply_while(volume, lambda: slicer.mrmlScene.RemoveNode(first))
        (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.assertGreater(int(segment_mask(segmentation, volume).sum()), 0)
        self.assertEqual(self.settings.outputSegmentation, segmentation)

    def test_edited_voxels_and_a_changed_transform_are_noted(self) -> None:
        volume = add_scan()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
        shift = np.eye(4)
        shift[0, 3] = 20

        def change() -> None:
            slicer.util.arrayFromVolume(volume)[8, 10, 12] += 1
            slicer.util.arrayFromVolumeModified(volume)
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shift))
            volume.SetAndObserveTransformNodeID(transform.GetID())

        self.apply_while(volume, change)
        for text in (
            "The voxels of LGE were changed during the computation",
            "The transform of LGE was changed during the computation",
        ):
            self.assertIn(text, self.ui.statusLabel.text)
        self.assertEqual(self.settings.outputSegmentation.GetTransformNodeID(), transform.GetID())
