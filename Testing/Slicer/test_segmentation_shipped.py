"""Perform the first tutorial with the sample scan and the shipped model, and run the module's self-test."""

from __future__ import annotations

import math
import unittest

import numpy as np
import slicer
from dcamt_testing.analytic_scans import dice
from DCAMTSegmentationLib.result_nodes import DOUBT_MAP, get_referenced_node
from DCAMTSegmentationLib.sample_scan import sample_path
from DCAMTSegmentationLib.training_cases import scene_cases
from DCAMTSlicerLib.node_types import SegmentationNode
from DCAMTSlicerLib.terms_of_use import record_acceptance
from made_results import mass_properties
from scene_nodes import draw_segment, segment_mask
from slicer_harness import (
    LoopMonitor,
    Pause,
    assert_stays_responsive,
    click,
    open_module,
    process_events_until,
    start_afresh,
)


class TutorialTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()
        self.module = open_module("DCAMTSegmentation")
        self.addCleanup(self.module.close)
        self.ui, self.logic = self.module.ui, self.module.logic
        record_acceptance("left-atrium")

    def apply(self) -> Pause:
        with LoopMonitor() as monitor:
            self.ui.applyButton.click()
            process_events_until(lambda: not self.logic.isRunning(), "the segmentation's end")
        return monitor.pause

    def test_sample_scan_is_segmented_and_added_as_a_training_case(self) -> None:
        volume = slicer.util.loadVolume(str(sample_path()))
        self.ui.inputSelector.setCurrentNode(volume)
        self.assertEqual(self.ui.modelComboBox.currentText, "Left atrium in LGE-MRI")
        pause = self.apply()
        segmentation = self.ui.outputSelector.currentNode()
        self.assertIsNotNone(segmentation, self.ui.statusLabel.text)
        assert_stays_responsive(pause)

        file = str(sample_path()).replace(".nrrd", "_label.nrrd")
        label = slicer.util.arrayFromVolume(slicer.util.loadLabelVolume(file))
        mask = segment_mask(segmentation, volume)
        self.assertGreater(dice(mask == 1, label == 1), 0.85)
        self.assertAlmostEqual(mask.sum() / label.sum(), 1, delta=0.2)

        # The table rounds to two decimals; a diameter may differ by one voxel.
        spacing_i, spacing_j, spacing_k = volume.GetSpacing()
        volume_ml = int(mask.sum()) * math.prod(volume.GetSpacing()) / 1000
        row = self.logic.measurements(segmentation)[0]
        self.assertAlmostEqual(float(row["volume_ml"]), volume_ml, delta=0.01)
        k, j, i = np.nonzero(mask)
        across, deep = float(row["transverse_diameter_mm"]), float(row["anteroposterior_diameter_mm"])
        self.assertAlmostEqual(across, spacing_i * (np.ptp(i) + 1), delta=1.1 * spacing_i)
        self.assertAlmostEqual(deep, spacing_j * (np.ptp(j) + 1), delta=1.1 * spacing_j)
        self.assertGreater(float(row["long_diameter_mm"]), spacing_k * np.ptp(k))
        self.assertLess(float(row["sphericity"]), 1)
        self.assert_surface(segmentation, float(row["volume_ml"]), float(row["surface_cm2"]))

        self.assertGreater(self.logic.trust(segmentation), 0.5)
        self.ui.doubtCheckBox.click()
        map_node = get_referenced_node(segmentation, DOUBT_MAP)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertEqual(composite.GetForegroundVolumeID(), map_node.GetID())
        places = self.logic.doubtfulPlaces(segmentation)
        if places:  # a better model may find none
            click(self.ui.nextPlaceButton)
            self.assertIn(f"1 of {len(places)}", self.ui.placeLabel.text)

        click(self.ui.correctButton)
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        self.assertEqual(editor.segmentationNode(), segmentation)
        draw_segment(segmentation, volume, label)
        self.module.enter()
        click(self.ui.trainingCaseButton)
        (case,) = scene_cases()
        self.assertEqual((case.volume, case.segmentation), (volume, segmentation))
        np.testing.assert_array_equal(segment_mask(case.segmentation, volume), label)

    def assert_surface(self, segmentation: SegmentationNode, volume_ml: float, surface_cm2: float) -> None:
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        mass = mass_properties(segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(name))
        # The surface is smoothed, which changes the area more than the volume.
        self.assertAlmostEqual(mass.GetVolume() / 1000 / volume_ml, 1, delta=0.03)
        self.assertAlmostEqual(mass.GetSurfaceArea() / 100 / surface_cm2, 1, delta=0.1)
        self.assertTrue(segmentation.GetDisplayNode().GetVisibility3D())


class SelfTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()
        self.addCleanup(open_module("DCAMTSegmentation").close)

    def test_self_test_of_the_module_passes(self) -> None:
        slicer.selfTests["DCAMTSegmentation"]()
