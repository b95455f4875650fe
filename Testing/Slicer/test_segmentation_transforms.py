"""Test transforms of scans, segmentations and regions of interest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.errors import InputError
from DCAMTSegmentationLib import correction_marks, stored_places
from DCAMTSegmentationLib.result_nodes import VOLUME, get_referenced_node
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.segment_voxels import labelmap_name, read_segment
from DCAMTSlicerLib.terms_of_use import record_acceptance
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, world_positions
from fake_worker import FakeWorker, PanelCase
from made_results import oblique
from scene_nodes import add_scan, draw_segment, segment_mask
from slicer_harness import Person, choose, click, process_events, reload_scene, scene_saved_and_closed


def add_bend(push_mm: float = 6.0) -> Any:
    """Add a thin-plate spline that moves the scan's centre to the right; the corners of a box around the scan stay."""
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
    """Add a linear transform: a quarter turn about the S axis, and a shift."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "turn")
    matrix = np.array([[0, -1, 0, 7.0], [1, 0, 0, -3.0], [0, 0, 1, 11.0], [0, 0, 0, 1]])
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def resample_first_segment(segmentation: Any) -> Any:
    """Halve the spacing of the first segment, as in Segment Editor's “Specify geometry”; return its image."""
    image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(labelmap_name())
    finer, resampled = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    finer.DeepCopy(image)
    slicer.vtkCalculateOversamplingFactor.ApplyOversamplingOnImageGeometry(finer, 2.0)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, finer, resampled)
    image.DeepCopy(resampled)
    return image


class DoubtfulPlaceTest(PanelCase):
    def assert_doubtful(self, segmentation: SegmentationNode, expected: np.ndarray) -> None:
        """Fail unless both doubtful places lie at `expected`, in world coordinates (mm)."""
        places = np.empty((2, 3))
        for world, place in zip(places, self.logic.doubtfulPlaces(segmentation), strict=True):
            segmentation.TransformPointToWorld(place.position, world)
        np.testing.assert_allclose(places, [expected, expected], atol=1e-9)

    def test_doubtful_places_follow_a_hardened_linear_transform(self) -> None:
        volume = add_scan()
        volume.SetAndObserveTransformNodeID(add_turn().GetID())
        segmentation = self.segment(volume)
        # The fake worker puts both places at the centre of its labels.
        k, j, i = np.argwhere(self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))).mean(axis=0)
        x, y, z = (ijk_to_ras(volume) @ [i, j, k, 1])[:3]
        expected = np.array([-y + 7.0, x - 3.0, z + 11.0])
        self.assert_doubtful(segmentation, expected)
        segmentation.HardenTransform()
        self.assert_doubtful(segmentation, expected)
        volume.HardenTransform()
        self.assert_doubtful(segmentation, expected)

    def segment_turned_scan(self) -> tuple[VolumeNode, SegmentationNode]:
        volume = add_scan()
        volume.SetAndObserveTransformNodeID(add_turn().GetID())
        return volume, self.segment(volume)

    def centre_of_segment(self, segmentation: SegmentationNode) -> np.ndarray:
        voxels = read_segment(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0))
        k, j, i = np.argwhere(voxels.mask).mean(axis=0)
        world = np.empty(3)
        segmentation.TransformPointToWorld((voxels.affine @ [i, j, k, 1])[:3], world)
        return world

    def test_doubtful_places_follow_a_segmentation_that_is_moved_alone(self) -> None:
        _volume, segmentation = self.segment_turned_scan()
        before = self.centre_of_segment(segmentation)
        segmentation.SetAndObserveTransformNodeID(None)
        self.assertGreater(np.linalg.norm(self.centre_of_segment(segmentation) - before), 5)
        self.assert_doubtful(segmentation, self.centre_of_segment(segmentation))
        segmentation.SetAndObserveTransformNodeID(add_turn().GetID())
        segmentation.HardenTransform()
        segmentation.SetAndObserveTransformNodeID(add_turn().GetID())
        segmentation.HardenTransform()
        self.assert_doubtful(segmentation, self.centre_of_segment(segmentation))

    def test_doubtful_places_do_not_follow_a_scan_that_is_moved_alone(self) -> None:
        volume, segmentation = self.segment_turned_scan()
        before = self.centre_of_segment(segmentation)
        volume.SetOrigin(100.0, 0.0, 0.0)
        self.assert_doubtful(segmentation, before)
        volume.SetAndObserveTransformNodeID(None)
        self.assert_doubtful(segmentation, before)

    def test_doubtful_places_stay_if_the_voxels_of_the_scan_are_reordered(self) -> None:
        volume = add_scan()
        # The doubtful places lie near a corner, so that their voxel indices change when the voxels are reordered.
        self.module.worker.labels_of = lambda voxels: np.indices(voxels.shape).max(axis=0) < 5
        segmentation = self.segment(volume)
        before = self.centre_of_segment(segmentation)
        matrix, voxels = ijk_to_ras(volume), slicer.util.arrayFromVolume(volume)[:, :, ::-1].copy()
        matrix[:3, 3] += matrix[:3, 0] * (voxels.shape[2] - 1)
        matrix[:3, 0] *= -1
        slicer.util.updateVolumeFromArray(volume, voxels)
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        self.assert_doubtful(segmentation, before)

    def test_doubtful_places_stay_if_the_scan_changes_or_is_removed_after_hardening(self) -> None:
        volume, segmentation = self.segment_turned_scan()
        expected = self.centre_of_segment(segmentation)
        segmentation.HardenTransform()
        volume.HardenTransform()
        slicer.util.updateVolumeFromArray(volume, np.zeros((3, 4, 5), np.int16))
        self.assert_doubtful(segmentation, expected)
        slicer.mrmlScene.RemoveNode(volume)
        self.assert_doubtful(segmentation, expected)

    def test_doubtful_places_keep_their_position_if_the_segments_are_resampled(self) -> None:
        volume, segmentation = self.segment_turned_scan()
        expected = self.centre_of_segment(segmentation)
        image = resample_first_segment(segmentation)
        self.assertNotEqual(image.GetSpacing()[0], volume.GetSpacing()[0])
        self.assert_doubtful(segmentation, expected)

    def test_doubtful_places_follow_a_hardened_scaling(self) -> None:
        segmentation = self.segment(add_scan())
        scaling = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        scaling.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.2, 0.8, 1.1, 1.0])))
        segmentation.SetAndObserveTransformNodeID(scaling.GetID())
        expected = self.centre_of_segment(segmentation)
        segmentation.HardenTransform()
        click(self.ui.nextPlaceButton)
        self.assert_doubtful(segmentation, expected)

    def test_doubtful_places_keep_their_position_if_the_segments_are_resampled_on_a_cropped_grid(self) -> None:
        # The cropped grid has the spacing of the scan, so the panel cannot recognise the resampling by the spacing.
        segmentation = self.segment(add_scan())
        expected = self.centre_of_segment(segmentation)
        image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(labelmap_name())
        cropped, resampled = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
        cropped.DeepCopy(image)
        affine = np.diag([-1.5, -1.5, 1.5, 1.0])
        affine[:3, 3] = affine[:3, :3] @ [4, 2, 3]
        cropped.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(affine))
        cropped.SetExtent(0, 19, 0, 17, 0, 12)
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, cropped, resampled)
        image.DeepCopy(resampled)
        np.testing.assert_allclose(self.centre_of_segment(segmentation), expected)
        self.assert_doubtful(segmentation, expected)

    def test_doubtful_places_follow_a_transform_that_was_hardened_after_a_correction(self) -> None:
        scaling, motion = np.diag([1.2, 0.8, 1.1, 1.0]), np.eye(4)
        motion[:3, 3] = 3.0, 0.0, 0.0
        narrowing = np.diag([0.8, 0.97, 0.97, 1.0])
        for matrix in (scaling, motion, narrowing):
            volume = add_scan()
            segmentation = self.segment(volume)
            (place, _other) = self.logic.doubtfulPlaces(segmentation)
            mask = np.array(segment_mask(segmentation, volume))
            k, j, i = max(np.argwhere(mask).tolist(), key=lambda index: index[2])
            mask[k, j, i:] = 1
            draw_segment(segmentation, volume, mask)
            self.module.enter()
            self.assertTrue(correction_marks.is_corrected(segmentation))
            transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
            segmentation.SetAndObserveTransformNodeID(transform.GetID())
            segmentation.HardenTransform()
            self.assert_doubtful(segmentation, (matrix @ [*place.position, 1.0])[:3])

    def test_doubtful_places_of_an_older_scene_are_at_their_stored_positions(self) -> None:
        segmentation = self.segment(add_scan())
        attribute = "DCAMT.doubtfulPlaces"
        old = [{"position": [1.0, 2.0, 3.0], "volume_ml": 4.0}]
        segmentation.SetAttribute(attribute, json.dumps(old))
        segmentation.SetAttribute("DCAMT.doubtfulPlacesAffine", None)
        segmentation.SetAndObserveTransformNodeID(add_turn().GetID())
        segmentation.HardenTransform()
        (place,) = self.logic.doubtfulPlaces(segmentation)
        self.assertEqual(place, stored_places.StoredDoubtfulPlace((1.0, 2.0, 3.0), 4.0))

    def test_doubtful_places_stay_if_all_segments_are_removed(self) -> None:
        segmentation = self.segment(add_scan())
        before = self.logic.doubtfulPlaces(segmentation)
        segmentation.GetSegmentation().RemoveAllSegments()
        self.assertEqual(self.logic.doubtfulPlaces(segmentation), before)


class MovedResultTest(PanelCase):
    def panel_warns(self) -> bool:
        self.module.enter()
        return "no longer lies on its scan" in self.ui.trustLabel.text

    def test_panel_warns_while_a_result_does_not_lie_on_its_scan(self) -> None:
        for quality in ("Accurate: both branches", "Fast: one branch"):
            volume = add_scan(affine=oblique())
            choose(self.ui.qualityComboBox, quality)
            segmentation = self.segment(volume)
            turn = add_turn()
            for moved, told in (([segmentation], True), ([segmentation, volume], False), ([volume], True), ([], False)):
                for node in (segmentation, volume):
                    node.SetAndObserveTransformNodeID(turn.GetID() if node in moved else None)
                self.assertEqual(self.panel_warns(), told, (quality, len(moved)))
            segmentation.SetAndObserveTransformNodeID(turn.GetID())
            segmentation.HardenTransform()
            self.assertTrue(self.panel_warns())
            volume.SetAndObserveTransformNodeID(turn.GetID())
            self.assertFalse(self.panel_warns())
            volume.HardenTransform()
            self.assertFalse(self.panel_warns())
            volume.SetOrigin(0.0, 0.0, 0.0)
            self.assertTrue(self.panel_warns())
            self.segment(volume)
            self.assertFalse(self.panel_warns())

    def test_corrected_resampled_or_reloaded_result_does_not_count_as_moved(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        resample_first_segment(segmentation)
        self.assertFalse(self.panel_warns())
        mask = segment_mask(segmentation, volume).copy()
        mask[:8] = 0
        draw_segment(segmentation, volume, mask)
        self.assertFalse(self.panel_warns())
        with scene_saved_and_closed():
            pass
        process_events()
        self.assertFalse(self.panel_warns())
        self.settings.outputSegmentation.SetAndObserveTransformNodeID(add_turn().GetID())
        self.assertTrue(self.panel_warns())

    def test_result_that_was_replaced_after_a_motion_is_the_same_in_a_saved_scene(self) -> None:
        shift, one_voxel, turn = np.eye(4), np.eye(4), np.eye(4)
        shift[:3, 3] = 5.25, 2.2, -3.7
        one_voxel[0, 3] = 1.5
        turn[:2, :2] = [[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]]
        scaling = np.diag([1.1, 1.0, 1.0, 1.0])
        for matrix in (shift, one_voxel, turn, scaling):
            for moved in ("scan", "segmentation"):
                with self.subTest(moved, matrix=matrix.tolist()):
                    self.open(FakeWorker())
                    self.check_saved_result_after_motion(matrix, moved)

    def check_saved_result_after_motion(self, matrix: np.ndarray, moved: str) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        motion = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "motion")
        motion.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        node = volume if moved == "scan" else segmentation
        node.SetAndObserveTransformNodeID(motion.GetID())
        self.assertTrue(self.panel_warns())
        self.assertIs(self.segment(volume), segmentation)
        shown = self.ui.trustLabel.text
        self.assertNotIn("correction", shown)
        reload_scene()
        process_events()
        volume, segmentation = self.settings.inputVolume, self.settings.outputSegmentation
        expected = self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))
        np.testing.assert_array_equal(segment_mask(segmentation, volume), expected)
        self.assertEqual(self.ui.trustLabel.text, shown)
        with Person():  # DCAMT asks no question, because the result is unchanged.
            self.segment(volume)

    def test_panel_asks_to_check_the_outline_if_the_scan_changed_or_the_outline_moved(self) -> None:
        note = "check that the outline still fits"
        volume = add_scan()
        segmentation = self.segment(volume)
        click(self.ui.trainingCaseButton)
        self.assertNotIn(note, self.ui.trainingCaseLabel.text)
        segmentation.SetAndObserveTransformNodeID(add_turn().GetID())
        self.module.enter()
        click(self.ui.trainingCaseButton)
        self.assertIn(note, self.ui.trainingCaseLabel.text)
        segmentation.SetAndObserveTransformNodeID(None)
        slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume)[::-1].copy())
        self.module.enter()
        click(self.ui.trainingCaseButton)
        self.assertIn(note, self.ui.trainingCaseLabel.text)


class NonLinearTransformTest(PanelCase):
    def test_segmentation_related_to_the_volume_by_a_non_linear_transform_is_refused_at_once(self) -> None:
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

    def test_measuring_a_wall_under_a_non_linear_transform_is_refused(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        segmentation.SetAndObserveTransformNodeID(add_bend().GetID())
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        with self.assertRaisesRegex(InputError, r"by a non-linear transform\. Harden the transform\.$"):
            self.logic.measureWall(volume, segmentation, identifier)

    def test_segment_keeps_its_voxels_if_the_segmentation_is_transformed_during_the_computation(self) -> None:
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
        for _result in ("new", "replaced"):
            segmentation = self.segment(volume)
            self.assertEqual(segmentation.GetTransformNodeID(), bend.GetID())
            self.assertNotIn("during the computation", self.ui.statusLabel.text)
        expected = self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))
        segmentation.SetAndObserveTransformNodeID(None)
        volume.SetAndObserveTransformNodeID(None)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), expected)
        self.assertIs(get_referenced_node(segmentation, VOLUME), volume)

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

    def test_region_related_to_the_volume_by_a_non_linear_transform_is_refused(self) -> None:
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
