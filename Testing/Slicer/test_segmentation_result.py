"""A result in the scene: voxels, geometry, name, terminology and folder; replacement by a new result; saving."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from DCAMTSegmentationLib import correction_marks, result_scan, review, training_cases
from DCAMTSegmentationLib.doubt_map import is_map
from DCAMTSegmentationLib.result_nodes import DOUBT_MAP
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.segment_surfaces import surface_name
from engine_case import ROOT
from fake_worker import FakeWorker, PanelCase
from made_results import oblique
from scene_nodes import ORIGIN_MM, add_case, add_outline, add_scan, add_volume, ellipsoid, segment_mask
from segmentation_case import SegmentationCase, model_folder
from slicer_harness import Person, choose, click, process_events, reload_scene, scene_saved_and_closed
from unchanged_scene import changed_content, fail_after, scene_content


def segment_by_command(volumes: Sequence[VolumeNode]) -> list[np.ndarray]:
    """Export volumes, run `dcamt segment` on the files, and return the resulting masks (K, J, I)."""
    with tempfile.TemporaryDirectory() as folder:
        scans = [Path(folder, f"{number}.nrrd") for number in range(len(volumes))]
        for volume, scan in zip(volumes, scans, strict=True):
            slicer.util.exportNode(volume, str(scan), {})
        python = shutil.which("PythonSlicer") or sys.executable
        arguments = ["segment", *map(str, scans), "-o", folder, "--model", str(model_folder() / "tiny.dcamt")]
        subprocess.run(
            [python, "-m", "dcamt", *arguments, "--device", "cpu"],
            cwd=ROOT / "DCAMTSegmentation",
            check=True,
            capture_output=True,
        )
        results = [slicer.util.loadSegmentation(str(Path(folder, f"{scan.stem}.seg.nrrd"))) for scan in scans]
        return [np.array(segment_mask(result, volume)) for result, volume in zip(results, volumes, strict=True)]


def segment_tag(segment: Any, name: str) -> str:
    text = vtk.reference("")
    segment.GetTag(name, text)
    return str(text.get())


class CommandTest(SegmentationCase):
    def test_one_process_segments_three_orientations_like_the_command(self) -> None:
        axial = np.diag([-1.5, -1.5, 1.5, 1.0])
        sagittal = np.array([[0, 0, 2.0, 5], [1.4, 0, 0, -7], [0, -1.4, 0, 9], [0, 0, 0, 1]])
        affines = {"axial": axial, "sagittal": sagittal, "oblique": oblique()}
        volumes = [add_scan(name, affine=affine, seed=len(name)) for name, affine in affines.items()]
        masks, processes = [], set()
        for volume in volumes:
            masks.append(np.array(segment_mask(self.segment(volume), volume)))
            processes.add(self.logic._worker._process._process.processId())
        self.assertEqual(len(processes), 1)
        self.assertEqual(self.logic.log().count("Loading the model"), 1)
        for name, mask, expected in zip(affines, masks, segment_by_command(volumes), strict=True):
            with self.subTest(name):
                self.assertGreater(int(mask.sum()), 50)
                # Threads may sum numbers in another order, which can change voxels at the segment's boundary.
                self.assertLessEqual(int((mask != expected).sum()), 2)


class PlacementTest(PanelCase):
    def test_result_lies_on_the_grid_of_the_volume(self) -> None:
        volume = add_scan(affine=oblique())
        segmentation = self.segment(volume)
        image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), oblique(), atol=1e-9)
        geometry = segmentation.GetSegmentation().GetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        )
        reference = slicer.vtkOrientedImageData()
        slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, reference, False)
        reference.GetImageToWorldMatrix(matrix)
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), oblique(), atol=1e-5)
        self.assertEqual(reference.GetExtent(), (0, 23, 0, 19, 0, 15))
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertEqual(segmentation.GetNodeReference(role), volume)

    def test_result_lies_on_a_volume_whose_image_does_not_begin_at_voxel_0(self) -> None:
        volume = add_scan()
        voxels = slicer.util.arrayFromVolume(volume).copy()
        crop = vtk.vtkExtractVOI()
        crop.SetInputData(volume.GetImageData())
        crop.SetVOI(5, 23, 3, 19, 2, 15)
        crop.Update()
        volume.SetAndObserveImageData(crop.GetOutput())
        segmentation = self.segment(volume)
        np.testing.assert_array_equal(segment_mask(segmentation, volume), voxels[2:, 3:, 5:] > 175)

    def test_result_moves_with_the_volume_under_a_linear_transform(self) -> None:
        volume = add_scan(affine=oblique())
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "to atlas")
        moved = vtk.vtkTransform()
        moved.RotateZ(30)
        moved.Translate(5, -20, 40)
        transform.SetMatrixTransformToParent(moved.GetMatrix())
        volume.SetAndObserveTransformNodeID(transform.GetID())
        segmentation = self.segment(volume)
        self.assertEqual(segmentation.GetParentTransformNode(), transform)
        expected = self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))
        np.testing.assert_array_equal(segment_mask(segmentation, volume), expected)
        map_node = slicer.util.getNode("LGE doubt")
        self.assertEqual(map_node.GetParentTransformNode(), transform)

    def test_new_result_lies_on_the_scan_although_the_chosen_segmentation_has_a_transform(self) -> None:
        volume = add_scan()
        alone = self.segment(volume)
        expected, places = np.array(segment_mask(alone, volume)), self.logic.doubtfulPlaces(alone)
        self.assertGreater(len(places), 0)
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        target.CreateDefaultDisplayNodes()
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        foreign = target.GetSegmentation().AddEmptySegment("Mine")
        drawn = np.zeros_like(expected)
        drawn[2:4, 2:4, 2:4] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, target, foreign, volume)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        moved = vtk.vtkTransform()
        moved.Translate(1.5, 3.0, -1.5)  # whole voxels, so that resampling is exact
        transform.SetMatrixTransformToParent(moved.GetMatrix())
        target.SetAndObserveTransformNodeID(transform.GetID())
        choose(self.ui.outputSelector, target)
        self.segment(volume)
        identifier = next(name for name in target.GetSegmentation().GetSegmentIDs() if name != foreign)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(target, identifier, volume)
        np.testing.assert_array_equal(mask, expected)
        for place, own in zip(places, self.logic.doubtfulPlaces(target), strict=True):
            world = [0.0, 0.0, 0.0]
            target.TransformPointToWorld(own.position, world)
            np.testing.assert_allclose(world, place.position, atol=1e-6)

    def test_result_and_its_helper_nodes_lie_in_a_folder_beside_the_volume(self) -> None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Somebody")
        study = hierarchy.CreateStudyItem(subject, "MR 2026")
        volume = add_scan()
        hierarchy.CreateItem(study, volume)  # puts the volume into the study
        segmentation = self.segment(volume)
        result = hierarchy.GetItemByDataNode(segmentation)
        folder = hierarchy.GetItemParent(result)
        self.assertEqual(hierarchy.GetItemName(folder), "LGE – DCAMT")
        self.assertEqual(hierarchy.GetItemParent(folder), study)
        for name in ("LGE doubt", "LGE measurements"):
            item = hierarchy.GetItemByDataNode(slicer.util.getNode(name))
            self.assertEqual(hierarchy.GetItemParent(item), result, name)


class NameTest(PanelCase):
    def test_segment_has_name_colour_and_code(self) -> None:
        segmentation = self.segment(add_scan())
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
        segment = segmentation.GetSegmentation().GetNthSegment(0)
        self.assertEqual(segment.GetName(), "Left atrium")
        red, green, blue = segment.GetColor()
        self.assertGreater(red, max(green, blue))
        entry = slicer.vtkSlicerTerminologyEntry()
        logic = slicer.vtkSlicerTerminologiesModuleLogic()
        logic.DeserializeTerminologyEntry(segment_tag(segment, segment.GetTerminologyEntryTagName()), entry)
        for code, expected in (
            (entry.GetCategoryObject(), ("SCT", "123037004", "Anatomical Structure")),
            (entry.GetTypeObject(), ("SCT", "82471001", "Left atrium")),
        ):
            code_texts = (code.GetCodingSchemeDesignator(), code.GetCodeValue(), code.GetCodeMeaning())
            self.assertEqual(code_texts, expected)


class ExistingSegmentationTest(PanelCase):
    def test_only_segments_made_by_dcamt_are_replaced(self) -> None:
        volume = add_scan()
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        target.CreateDefaultDisplayNodes()
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        foreign = target.GetSegmentation().AddEmptySegment("scar", "Left atrium", [0.1, 0.9, 0.2])
        drawn = np.zeros((16, 20, 24), np.uint8)
        drawn[1:5, 2:8, 3:9] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, target, foreign, volume)
        choose(self.ui.outputSelector, target)
        segmentation = self.segment(volume)
        self.assertEqual(segmentation, target)
        self.assertEqual(target.GetName(), "mine")
        first = list(target.GetSegmentation().GetSegmentIDs())
        self.assertEqual(len(first), 2)

        self.module.worker.labels_of = lambda voxels: drawn[::-1]
        choose(self.ui.qualityComboBox, "Fast: one branch")
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.segment(volume)
        self.assertEqual(list(target.GetSegmentation().GetSegmentIDs()), first)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes - 2)  # the map and its display node are removed
        np.testing.assert_array_equal(segment_mask(target, volume, 1), drawn[::-1])
        np.testing.assert_array_equal(segment_mask(target, volume, 0), drawn)
        segment = target.GetSegmentation().GetSegment(foreign)
        self.assertEqual((segment.GetName(), segment.GetColor()), ("Left atrium", (0.1, 0.9, 0.2)))

    def test_segmentation_drawn_on_another_scan_must_be_chosen_again_and_confirmed(self) -> None:
        (anna, drawn), bernd = add_case("Anna"), add_scan("Bernd", seed=5)
        self.prepare(anna)
        choose(self.ui.outputSelector, drawn)
        choose(self.ui.inputSelector, bernd)
        self.assertIsNone(self.settings.outputSegmentation)
        choose(self.ui.outputSelector, drawn)
        self.assertEqual(self.settings.inputVolume, bernd)
        with Person() as person:
            person.expects("“Anna outline” was drawn on another scan than “Bernd”. Add DCAMT's segments?", "Cancel")
            click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])
        with Person() as person:
            person.expects("was drawn on another scan", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertIs(self.settings.outputSegmentation, drawn)
        self.assertEqual(drawn.GetSegmentation().GetNumberOfSegments(), 2)

    def test_segmentation_whose_scan_was_removed_must_be_chosen_again_and_confirmed(self) -> None:
        (anna, drawn), bernd = add_case("Anna"), add_scan("Bernd", seed=5)
        self.prepare(anna)
        choose(self.ui.outputSelector, drawn)
        self.module.leave()
        slicer.mrmlScene.RemoveNode(anna)
        self.module.enter()
        choose(self.ui.inputSelector, bernd)
        self.assertIsNone(self.settings.outputSegmentation)
        choose(self.ui.outputSelector, drawn)
        with Person() as person:
            person.expects("“Anna outline” was drawn on another scan than “Bernd”. Add DCAMT's segments?", "Cancel")
            click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])

    def test_segmentation_whose_scan_was_removed_and_added_again_stays_the_output(self) -> None:
        anna, drawn = add_case("Anna")
        self.prepare(anna)
        slicer.mrmlScene.RemoveNode(anna)
        again, other = add_case("Anna")
        slicer.mrmlScene.RemoveNode(other)
        choose(self.ui.outputSelector, drawn)
        choose(self.ui.inputSelector, again)
        self.assertIs(self.settings.outputSegmentation, drawn)
        with Person():
            click(self.ui.applyButton)
            self.wait()
        self.assertEqual(drawn.GetSegmentation().GetNumberOfSegments(), 2)

    def test_segmentation_whose_scan_was_added_again_on_another_grid_must_be_chosen_again_and_confirmed(self) -> None:
        anna, drawn = add_case("Anna")
        self.prepare(anna)
        slicer.mrmlScene.RemoveNode(anna)
        moved, finer = (add_volume(name, ellipsoid()[0]) for name in ("moved", "finer"))
        moved.SetOrigin(*np.add(ORIGIN_MM, (5, 0, 0)))
        finer.SetSpacing(2.0, 2.0, 1.9)
        for volume in (moved, finer):
            choose(self.ui.inputSelector, volume)
            self.assertIsNone(self.settings.outputSegmentation)
            choose(self.ui.outputSelector, drawn)
            with Person() as person:
                person.expects(f"was drawn on another scan than “{volume.GetName()}”", "Cancel")
                click(self.ui.applyButton)
        drawn.SetAttribute("DCAMT.removedScanAffine", None)  # as in a scene of an older version
        for volume in (moved, finer):
            choose(self.ui.inputSelector, volume)
            self.assertIs(self.settings.outputSegmentation, drawn)

    def test_question_warns_that_the_segmentation_will_no_longer_be_a_training_case(self) -> None:
        volume, drawn = add_case("Anna")
        training_cases.add_case(volume, drawn)
        self.prepare(volume)
        choose(self.ui.outputSelector, drawn)
        with Person() as person:
            person.expects("Add DCAMT's segments to “Anna outline”? The segmentation will no longer be", "Cancel")
            click(self.ui.applyButton)

    def test_segmentation_stays_chosen_for_a_suitable_scan(self) -> None:
        (anna, drawn), bernd = add_case("Anna"), add_scan("Bernd", seed=5)
        clone = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Anna Copy")
        clone.CopyContent(anna)
        empty, unknown = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode") for _ in range(2))
        empty.SetReferenceImageGeometryParameterFromVolumeNode(anna)
        unknown.GetSegmentation().AddEmptySegment("mine")
        self.prepare(bernd)
        choose(self.ui.outputSelector, None)
        mra, on_mra = add_case("MRA", seed=3)
        result_scan.store_channels(self.segment(bernd), [mra])
        for output, volume in (
            (drawn, clone),
            (empty, bernd),
            (unknown, bernd),
            (on_mra, bernd),  # the MRA is a further channel of Bernd's result
        ):
            choose(self.ui.inputSelector, anna)
            choose(self.ui.outputSelector, output)
            choose(self.ui.inputSelector, volume)
            self.assertIs(self.settings.outputSegmentation, output)

    def test_drawn_segmentation_stays_chosen_if_no_scan_is_chosen(self) -> None:
        volume, drawn = add_case("Anna")
        self.prepare(volume)
        choose(self.ui.outputSelector, drawn)
        choose(self.ui.inputSelector, None)
        self.assertIs(self.settings.outputSegmentation, drawn)

    def test_segmentation_imported_from_a_labelmap_stays_chosen_and_needs_no_question(self) -> None:
        anna, bernd = add_scan("Anna"), add_scan("Bernd", seed=5)
        labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Anna label")
        voxels = (slicer.util.arrayFromVolume(anna) > 175).astype(np.uint8)
        slicer.util.updateVolumeFromArray(labelmap, voxels)
        labelmap.CopyOrientation(anna)
        # Slicer's import of a labelmap makes the labelmap the reference of the segmentation's geometry.
        imported = add_outline(labelmap, voxels)
        self.prepare(bernd)
        choose(self.ui.outputSelector, imported)
        choose(self.ui.inputSelector, anna)
        self.assertIs(self.settings.outputSegmentation, imported)
        slicer.mrmlScene.RemoveNode(labelmap)
        with Person():
            click(self.ui.applyButton)
            self.wait()
        self.assertEqual(imported.GetSegmentation().GetNumberOfSegments(), 2)

    def test_segmentation_whose_segments_are_surfaces_is_refused_at_once(self) -> None:
        volume = add_scan()
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "from STL")
        target.CreateDefaultDisplayNodes()
        target.GetSegmentation().SetSourceRepresentationName(surface_name())
        ball = vtk.vtkSphereSource()
        ball.Update()
        target.AddSegmentFromClosedSurfaceRepresentation(ball.GetOutput(), "ball", [1, 0, 0])
        self.prepare(volume)
        choose(self.ui.outputSelector, target)
        with Person() as person:
            person.expects("from STL: stores its segments as “Closed surface”, not as voxels", "Ok")
            click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])
        self.assertEqual(target.GetSegmentation().GetNumberOfSegments(), 1)

    def test_result_converted_to_surfaces_is_replaced_by_voxels(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        held = segmentation.GetSegmentation()
        held.SetSourceRepresentationName(surface_name())
        held.RemoveRepresentation("Binary labelmap")
        before = scene_content()
        with fail_after(review, "store_review_data"), Person() as person:
            person.expects("was edited", "Ok")
            person.expects("memory", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertEqual(changed_content(before), [])
        self.assertEqual(held.GetSourceRepresentationName(), surface_name())
        with Person() as person:
            person.expects("was edited", "Ok")
            self.assertIs(self.segment(volume), segmentation)
        self.assertEqual(held.GetSourceRepresentationName(), "Binary labelmap")

    def test_new_result_of_fast_quality_removes_the_earlier_doubt_map(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assertIsNotNone(self.logic.trust(segmentation))
        choose(self.ui.qualityComboBox, "Fast: one branch")
        self.segment(volume)
        self.assertIsNone(self.logic.trust(segmentation))
        self.assertEqual(self.logic.doubtfulPlaces(segmentation), [])
        self.assertFalse(self.ui.doubtCheckBox.enabled)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [volume])
        choose(self.ui.qualityComboBox, "Accurate: both branches")
        self.segment(volume)
        _volume, map_ = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        segmentation.SetNodeReferenceID(DOUBT_MAP, None)
        self.assertTrue(is_map(map_))  # still recognised as a map, although no result refers to it
        self.assertIs(self.logic.firstVolume(), volume)

    def test_results_of_two_volumes_are_kept_apart(self) -> None:
        volumes = [add_scan("one", affine=oblique()), add_scan("two", shape=(14, 22, 18), seed=7)]
        results = [self.segment(volume) for volume in volumes]
        self.assertIsNot(*results)
        for volume, result in reversed([*zip(volumes, results, strict=True)]):
            self.assertEqual(self.segment(volume), result)
        for volume, result in zip(volumes, results, strict=True):
            expected = self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))
            np.testing.assert_array_equal(segment_mask(result, volume), expected)
            self.assertEqual(self.logic.measurements(result)[0]["scan"], volume.GetName())


class OtherGridTest(PanelCase):
    def draw(self, drawn_on: VolumeNode) -> SegmentationNode:
        """Draw an outline on a volume, and choose the outline as the output; return the outline's node."""
        segmentation = add_outline(drawn_on, slicer.util.arrayFromVolume(drawn_on) > 175, ("mine",))
        choose(self.ui.outputSelector, segmentation)
        return segmentation

    def apply(self, question: str, answer: str) -> str:
        """Click Apply and answer the question; return the whole question."""
        with Person() as person:
            person.expects(question, answer)
            click(self.ui.applyButton)
            self.wait()
        return str(person.seen[0].text)

    def test_question_warns_that_added_segments_will_be_resampled(self) -> None:
        finer, flipped, cropped = (np.diag([-1.5, -1.5, 1.5, 1.0]) for _ in range(3))
        finer[2, 2] = 1.4
        flipped[0] = 1.5, 0, 0, -1.5 * 23
        cropped[:3, 3] = 1.5, -3.0, 4.5
        self.prepare(add_scan())
        for affine, is_resampled in ((finer, True), (flipped, False), (cropped, False)):
            self.draw(add_scan("other", affine=affine, seed=5))
            question = self.apply("was drawn on another scan than “LGE”. Add DCAMT's segments?", "Cancel")
            self.assertEqual("3D Slicer resamples DCAMT's segments to the grid of the other" in question, is_resampled)

    def test_question_warns_that_replaced_segments_will_be_resampled_if_the_scan_has_moved(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        segmentation = self.draw(volume)
        with Person():
            self.segment(volume)
        scaling = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "scaling")
        scaling.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.1, 1.0, 1.0, 1.0])))
        volume.SetAndObserveTransformNodeID(scaling.GetID())
        question = "Replace DCAMT's segments in “LGE outline”? When the segmentation is saved, 3D Slicer resamples"
        self.apply(question, "Cancel")
        segmentation.SetAndObserveTransformNodeID(scaling.GetID())
        with Person():
            self.segment(volume)

    def add_result_to_coarse_outline(self) -> SegmentationNode:
        """Add a result to an outline that was drawn on a coarse grid; return its node."""
        self.prepare(add_scan())
        segmentation = self.draw(add_scan("coarse", shape=(8, 10, 12), affine=np.diag([-3.2, -3.2, 3.2, 1.0])))
        self.apply("To keep DCAMT's segments exact, choose to create a new segmentation under Output.", "Ok")
        self.assertIs(self.settings.outputSegmentation, segmentation)
        return segmentation

    def reload(self) -> tuple[SegmentationNode, VolumeNode]:
        """Save and reload the scene; return the nodes of the chosen output and input."""
        reload_scene()
        process_events()
        return self.settings.outputSegmentation, self.settings.inputVolume

    def test_result_that_was_resampled_on_saving_is_not_marked_as_corrected_or_moved(self) -> None:
        places = self.logic.doubtfulPlaces(self.add_result_to_coarse_outline())
        segmentation, volume = self.reload()
        written = self.module.worker.labels_of(slicer.util.arrayFromVolume(volume))
        self.assertTrue((segment_mask(segmentation, volume, 1) != written).any())
        self.assertFalse(correction_marks.is_corrected(segmentation))
        self.assertFalse(correction_marks.is_moved(segmentation))
        self.assertNotIn("correction", self.ui.trustLabel.text)
        self.assertIn("measure again", self.ui.trustLabel.text)
        self.assertEqual(self.logic.doubtfulPlaces(segmentation), places)
        self.apply("“coarse outline” may have been edited. Replace DCAMT's segments", "Cancel")

    def test_correction_of_a_result_that_was_resampled_on_saving_is_noticed(self) -> None:
        for is_edited_first in (True, False):
            self.open(FakeWorker())
            self.add_result_to_coarse_outline()
            if is_edited_first:
                self.erase_half_of_the_result()
            segmentation, _volume = self.reload()
            if not is_edited_first:
                self.erase_half_of_the_result()
            self.module.leave()
            self.module.enter()
            self.assertTrue(correction_marks.is_corrected(segmentation))

    def erase_half_of_the_result(self) -> None:
        segmentation, volume = self.settings.outputSegmentation, self.settings.inputVolume
        mask = segment_mask(segmentation, volume, 1).copy()
        mask[:8] = 0
        identifier = segmentation.GetSegmentation().GetNthSegmentID(1)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)

    def test_outline_of_an_unknown_scan_stays_the_same_in_a_saved_scene(self) -> None:
        affine = np.diag([-1.4, -1.7, 1.9, 1.0])
        volume, other = add_scan(), add_scan("other", affine=affine)
        outline = self.draw(other)
        before = segment_mask(outline, other).copy()
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "outline.seg.nrrd"))
            self.assertTrue(slicer.util.saveNode(outline, path))
            for node in (outline, other):
                slicer.mrmlScene.RemoveNode(node)
            loaded = slicer.util.loadSegmentation(path)
        self.prepare(volume)
        choose(self.ui.outputSelector, loaded)
        self.apply("Add DCAMT's segments to “outline”? When the segmentation is saved, 3D Slicer resamples", "Ok")
        reload_scene()
        grid = add_scan("grid", affine=affine)
        np.testing.assert_array_equal(segment_mask(slicer.util.getNode("outline"), grid), before)


class PersistenceTest(SegmentationCase):
    def test_choices_and_result_are_restored_with_a_saved_scene(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        choose(self.ui.qualityComboBox, "Fast: one branch")
        choose(self.ui.deviceComboBox, "CPU")
        self.ui.doubtCheckBox.click()
        click(self.ui.placeRegionButton)
        click(self.ui.trainingCaseButton)
        mask, rows = np.array(segment_mask(segmentation, volume)), self.logic.measurements(segmentation)
        places, trust = self.logic.doubtfulPlaces(segmentation), self.logic.trust(segmentation)
        with scene_saved_and_closed():
            self.assertIsNone(self.ui.inputSelector.currentNode())
            self.assertEqual(self.ui.qualityComboBox.currentText, "Accurate: both branches")
        slicer.app.processEvents()
        self.assertEqual(self.ui.inputSelector.currentNode().GetName(), "LGE")
        self.assertEqual(self.ui.outputSelector.currentNode().GetName(), "LGE segmentation")
        self.assertEqual(self.ui.regionSelector.currentNode().GetName(), "Heart region")
        self.assertEqual(self.ui.modelComboBox.currentText, "Tiny")
        self.assertEqual(self.ui.qualityComboBox.currentText, "Fast: one branch")
        self.assertEqual(self.ui.deviceComboBox.currentText, "CPU")
        self.assertTrue(self.ui.doubtCheckBox.checked)
        loaded, volume = self.settings.outputSegmentation, self.settings.inputVolume
        np.testing.assert_array_equal(segment_mask(loaded, volume), mask)
        self.assertEqual(self.logic.measurements(loaded), rows)
        self.assertEqual(self.logic.doubtfulPlaces(loaded), places)
        self.assertEqual(self.logic.trust(loaded), trust)
        self.assertFalse(correction_marks.is_corrected(loaded))
        self.assertFalse(correction_marks.is_outdated(loaded))
        self.assertTrue(self.ui.nextPlaceButton.enabled)
        self.assertIn("training case", self.ui.trainingCaseLabel.text)
        # The map, which was visible when the scene was saved, can be hidden.
        self.ui.doubtCheckBox.click()
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertNotEqual(composite.GetForegroundVolumeID(), slicer.util.getNode("LGE doubt").GetID())
        # The segments are still recognised as made by DCAMT.
        choose(self.ui.qualityComboBox, "Accurate: both branches")
        with Person() as person:
            person.expects("no longer be a training case", "Ok")
            self.segment(volume)
        self.assertEqual(loaded.GetSegmentation().GetNumberOfSegments(), 1)
