"""Responsiveness: the event loop has no long pause while DCAMT segments or writes a scan, or inserts a result."""

from __future__ import annotations

import numpy as np
import slicer
from made_results import make_result
from scene_nodes import add_scan
from segmentation_case import SegmentationCase
from slicer_harness import (
    LoopMonitor,
    Pause,
    assert_stays_responsive,
    longest_step,
    process_events_until,
    shortest_pause,
)

TRIES = 4


class PaceTest(SegmentationCase):
    def test_window_has_no_long_pause_from_apply_to_the_result(self) -> None:
        volume = add_scan(shape=(36, 60, 60))
        self.prepare(volume)
        self.settings.showDisagreement = True

        def segment() -> Pause:
            with LoopMonitor() as monitor:
                self.ui.applyButton.click()
                process_events_until(lambda: not self.logic.isRunning(), "the end")
                process_events_until(lambda: self.ui.applyButton.text == "Apply")
            self.assertIsNotNone(self.settings.outputSegmentation, self.ui.statusLabel.text)
            self.assertGreater(monitor.turns, 20)
            return monitor.pause

        assert_stays_responsive(shortest_pause(segment, TRIES))

    def test_writing_a_large_scan_and_inserting_its_result_do_not_block_the_window(self) -> None:
        from dcamt.io.slabs import write_npy_in_slabs
        from DCAMTSegmentationLib.result_insertion import insert_result
        from DCAMTSegmentationLib.segmentation_options import SegmentationOptions
        from DCAMTSlicerLib.volume_bridge import voxels_of

        shape = (88, 576, 576)  # 29 million voxels, the size of an uncropped LGE scan
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "large")
        slicer.util.updateVolumeFromArray(volume, np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
        k, j, i = np.ogrid[[slice(-1, 1, complex(n)) for n in shape]]
        labels = ((k / 0.6) ** 2 + (j / 0.15) ** 2 + (i / 0.15) ** 2 <= 1).astype(np.uint8)
        result = make_result(labels)
        path = self.home / "volume.npy"
        for name, steps in (
            ("writing the scan", lambda: write_npy_in_slabs(voxels_of(volume), path)),
            ("inserting the result", lambda: insert_result(result, SegmentationOptions(volume))),
        ):
            assert_stays_responsive(longest_step(steps, TRIES), name)
        np.testing.assert_array_equal(np.load(path), slicer.util.arrayFromVolume(volume))
