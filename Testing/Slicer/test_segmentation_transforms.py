"""Volumes, regions and segmentations under non-linear transforms; doubtful places under hardened ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from DCAMTSegmentationLib import review
from DCAMTSlicerLib.node_types import SegmentationNode
from DCAMTSlicerLib.terms_of_use import record_acceptance
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, world_positions
from fake_worker import ViewCase
from segmentation_case import Person, add_scan, choose, click, segment_mask


def add_bend(push_mm: float = 6.0) -> Any:
    """Add a thin-plate spline that moves the centre of `add_scan` to the right and keeps the corners fixed."""
    corners = [(x, y, z) for x in (-40.0, 5.0) for y in (-35.0, 5.0) for z in (-5.0, 30.0)]
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in (*corners, (-17.0, -14.0, 11.0)):
        source.InsertNextPoint(point)
        target.InsertNextPoint(point if point in corners else (point[0] + push_mm, *point[1:]))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "bend")
    node.SetAndObserveTransformToParent(spline)
    return node


def add_turn() -> Any:
    """Add a linear transform: a quarter turn about S, and a shift."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "turn")
    matrix = np.array([[0, -1, 0, 7.0], [1, 0, 0, -3.0], [0, 0, 1, 11.0], [0, 0, 0, 1]])
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


class HardenedTransformTest(ViewCase):
    def assert_doubtful(self, segmentation: SegmentationNode, expected: np.ndarray) -> None:
        """Check the doubtful places, in the world."""
        places = np.empty((2, 3))
        for world, place in zip(places, self.logic.doubtfulPlaces(segmentation), strict=True):
            segmentation.TransformPointToWorld(place.position, world)
        np.testing.assert_allclose(places, [expected, expected], atol=1e-9)

    def test_doubtful_places_follow_a_hardened_linear_transform(self) -> None:
        volume = add_scan()
        volume.SetAndObserveTransformNodeID(add_turn().GetID())
        segmentation = self.segment(volume)
        # The places of the fake worker are at the centre of its labels.
        k, j, i = np.argwhere(self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))).mean(axis=0)
        x, y, z = (ijk_to_ras(volume) @ [i, j, k, 1])[:3]
        expected = np.array([-y + 7.0, x - 3.0, z + 11.0])
        self.assert_doubtful(segmentation, expected)
        segmentation.HardenTransform()
        self.assert_doubtful(segmentation, expected)
        volume.HardenTransform()
        self.assert_doubtful(segmentation, expected)

    def test_doubtful_places_stay_in_the_segmentation_if_the_scan_gets_another_image(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        before = self.logic.doubtfulPlaces(segmentation)
        slicer.util.updateVolumeFromArray(volume, np.zeros((3, 4, 5), np.int16))
        volume.SetOrigin(50.0, 60.0, 70.0)
        self.assertEqual(self.logic.doubtfulPlaces(segmentation), before)


class NonLinearTransformTest(ViewCase):
    def test_segmentation_under_another_non_linear_transform_is_refused_at_once(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        before = np.array(segment_mask(segmentation, volume))
        requests = len(self.module.worker.requests)
        segmentation.SetAndObserveTransformNodeID(add_bend().GetID())
        with Person() as person:
            person.expects("is related to LGE by a non-linear transform. Harden the transform", "Ok")
            click(self.ui.applyButton)
        self.assertEqual(person.seen[0].detail, "")
        self.assertEqual((self.logic.isRunning(), len(self.module.worker.requests)), (False, requests))
        segmentation.SetAndObserveTransformNodeID(None)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), before)

    def test_remedy_for_a_non_linear_transform_of_the_wall_does_not_name_apply(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        segmentation.SetAndObserveTransformNodeID(add_bend().GetID())
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        with self.assertRaisesRegex(InputError, r"by a non-linear transform\. Harden the transform\.$"):
            self.logic.measureWall(volume, segmentation, identifier)

    def test_segmentation_transformed_during_the_computation_is_left_unchanged(self) -> None:
        volume = add_scan()
        segmentation, bend = self.segment(volume), add_bend()
        before = np.array(segment_mask(segmentation, volume))
        self.module.worker.before_answer = lambda: segmentation.SetAndObserveTransformNodeID(bend.GetID())
        self.module.worker.labels_of = np.zeros_like
        with Person() as person:
            person.expects("LGE segmentation: is related to LGE by a non-linear transform", "Ok")
            self.segment(volume)
        self.assertEqual(person.seen[0].detail, "")
        segmentation.SetAndObserveTransformNodeID(None)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), before)

    def test_volume_and_result_may_share_a_non_linear_transform(self) -> None:
        volume, bend = add_scan(), add_bend()
        volume.SetAndObserveTransformNodeID(bend.GetID())
        for _time in range(2):  # first into a new segmentation, then into the same one
            segmentation = self.segment(volume)
            self.assertEqual(segmentation.GetTransformNodeID(), bend.GetID())
            self.assertNotIn("during the computation", self.ui.statusLabel.text)
        expected = self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))
        segmentation.SetAndObserveTransformNodeID(None)
        volume.SetAndObserveTransformNodeID(None)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), expected)
        self.assertIs(review.get_referenced_node(segmentation, review.VOLUME), volume)

    def test_non_linear_transform_changed_during_the_computation_is_noted(self) -> None:
        volume, bend = add_scan(), add_bend()
        volume.SetAndObserveTransformNodeID(bend.GetID())
        other = add_bend(push_mm=9.0)
        self.module.worker.before_answer = lambda: volume.SetAndObserveTransformNodeID(other.GetID())
        self.segment(volume)
        self.assertIn("The transform of LGE was changed during the computation", self.ui.statusLabel.text)

    def test_world_positions_follow_a_non_linear_transform(self) -> None:
        volume = add_scan()
        straight = world_positions(volume)
        self.assertEqual(straight.shape, (125, 3))
        np.testing.assert_allclose(straight[[0, -1]], [(0, 0, 0), (-1.5 * 23, -1.5 * 19, 1.5 * 15)], atol=1e-9)
        volume.SetAndObserveTransformNodeID(add_bend().GetID())
        moved = world_positions(volume) - straight
        np.testing.assert_allclose(moved[62], (6, 0, 0), atol=0.5)  # the centre
        self.assertLess(np.abs(moved[:, 1:]).max(), 1e-6)

    def test_region_under_another_non_linear_transform_is_refused(self) -> None:
        volume = add_scan()
        choose(self.ui.inputSelector, volume)
        click(self.ui.placeRegionButton)
        self.ui.regionSelector.currentNode().SetName("box")
        volume.SetAndObserveTransformNodeID(add_bend().GetID())
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        record_acceptance("left-atrium")
        with Person() as person:
            person.expects("box: is related to LGE by a non-linear transform. Harden the transforms of both, or", "Ok")
            click(self.ui.applyButton)
        self.assertEqual((person.seen[0].detail, self.module.worker.requests), ("", []))
