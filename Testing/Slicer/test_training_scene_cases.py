"""Cases of the scene: which volumes are scans, and which segmentation is the label of a scan."""

from __future__ import annotations

import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from dcamt.cases.case_list import LABELLED, UNLABELLED
from dcamt.errors import InputError
from dcamt.recipe_files import load_recipe
from dcamt.runs.preview import Preview
from dcamt.volume import TISSUE, Code, SegmentInfo
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import review, training_cases
from DCAMTSegmentationLib.doubt_map import mark_map
from DCAMTSegmentationLib.result_nodes import VOLUME
from DCAMTSlicerLib.result_segments import CLASS_TAG
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from DCAMTTrainingLib.cases import scene_source, voxel_check
from DCAMTTrainingLib.cases.check import scene_facts, scene_remark
from DCAMTTrainingLib.cases.rows import CaseTable, SceneScan
from DCAMTTrainingLib.cases.scene_export import export_case, label_array
from DCAMTTrainingLib.cases.scene_source import (
    accept_results,
    choice_note,
    competing_segments,
    rematch_segments,
    row_of,
    scene_rows,
    segments_of,
    training_case_rows,
)
from DCAMTTrainingLib.cases.table_model import REMARK, CaseTableModel
from DCAMTTrainingLib.runs.preview import show_preview
from scene_nodes import add_case, add_outline, add_volume, copy_node, draw_segment, ellipsoid, run_to_end
from slicer_harness import close_scene, scene_saved_and_closed, start_afresh


def give_code_of_left_atrium(segment):
    entry = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
        "any", "123037004", "SCT", "Anatomical Structure", "82471001", "SCT", "Left atrium", *[""] * 10
    )
    segment.SetTag(segment.GetTerminologyEntryTagName(), entry)


class SceneSourceTest(unittest.TestCase):
    def setUp(self):
        start_afresh()
        self.recipe = load_recipe("la")

    def test_volume_is_paired_with_the_segmentation_drawn_on_it(self):
        first, outline = add_case("one", 1)
        second = add_volume("two", ellipsoid(2)[0])
        rows = scene_rows(self.recipe)
        self.assertEqual([row.name for row in rows], ["one", "two"])
        self.assertEqual([row.role for row in rows], [LABELLED, UNLABELLED])
        segment = outline.GetSegmentation().GetNthSegmentID(0)
        self.assertEqual(rows[0].source, SceneScan(first.GetID(), outline.GetID(), ((segment, 1),)))
        self.assertEqual(rows[1].source, SceneScan(second.GetID()))
        self.assertEqual((rows[0].size, rows[0].spacing), ((24, 22, 20), (2.0, 2.0, 2.0)))

    def test_labelmaps_and_empty_volumes_and_maps_of_doubt_are_not_scans(self):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labelmap")
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing in it")
        add_case("scan")
        mark_map(add_volume("map", ellipsoid(3)[0]))
        self.assertEqual([row.name for row in scene_rows(self.recipe)], ["scan"])

    def test_automatic_outline_becomes_a_label_only_if_edited_or_added_as_a_training_case(self):
        volume, _outline = add_case("outlined", 1)
        plain = add_volume("plain", ellipsoid(2)[0])

        def outlines():
            return [row.source.segmentation for row in scene_rows(self.recipe)]

        before = outlines()
        for scan in (volume, plain):
            result = add_outline(scan, ellipsoid(2)[1])
            result.SetNodeReferenceID(VOLUME, scan.GetID())
            result.GetSegmentation().GetNthSegment(0).SetTag(CLASS_TAG, "SCT 82471001")
            review.store_review_data(result, None, [], np.eye(4))
        proposal = add_outline(plain, ellipsoid(2)[1])
        proposal.SetAttribute("DCAMT.proposal", "/runs/run-1/ranking/plain.seg.nrrd")
        for scan in (volume, plain):
            self.show_preview_on(scan)
        self.assertEqual(outlines(), before)
        added = result.GetSegmentation().AddEmptySegment("", "Left atrium")
        self.assertEqual(outlines(), [before[0], result.GetID()])
        self.assertEqual(segments_of(result, self.recipe), ((added, 1),))
        result.GetSegmentation().RemoveSegment(added)
        self.assertEqual(outlines(), before)
        corrected = ellipsoid(2)[1]
        corrected[tuple(np.argwhere(corrected)[0])] = 0
        draw_segment(result, plain, corrected)
        self.assertEqual(outlines(), [before[0], result.GetID()])
        training_cases.add_case(plain, proposal)
        self.assertEqual(outlines(), [before[0], proposal.GetID()])

    def add_result(self, volume, label, names=("Left atrium",)):
        """Add a DCAMT result that nobody corrected."""
        result = add_outline(volume, label, names)
        segments = result.GetSegmentation()
        for index in range(len(names)):
            segments.GetNthSegment(index).SetTag(CLASS_TAG, f"SCT 8247100{index}")
        result.SetNodeReferenceID(VOLUME, volume.GetID())
        review.store_review_data(result, None, [], np.eye(4))
        return result

    def add_segment(self, segmentation, volume, mask, name="Left atrium"):
        identifier = segmentation.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
        return identifier

    def copy_segment(self, segmentation, name):
        """Add a copy of the first segment, as the module Segmentations does; return the copy's identifier."""
        copy, segments = slicer.vtkSegment(), segmentation.GetSegmentation()
        copy.DeepCopy(segments.GetNthSegment(0))
        copy.SetName(name)
        identifier = segments.GenerateUniqueSegmentID(name)
        self.assertTrue(segments.AddSegment(copy, identifier))
        return identifier

    def test_segment_that_the_user_added_to_a_result_is_the_label(self):
        image, label = ellipsoid(1)
        for name in ("left atrium", "Left_Atrium"):  # Both fit the class: capitals and punctuation are ignored.
            close_scene()
            volume = add_volume("scan", image)
            result = self.add_result(volume, label)
            own = self.add_segment(result, volume, np.roll(label, 2, axis=0), name)
            for register in (lambda: None, lambda result=result: training_cases.add_result(result)):
                register()
                (row,) = scene_rows(self.recipe)
                self.assertEqual(row.source.segments, ((own, 1),))
                self.assertEqual(scene_remark(row.source, LABELLED, self.recipe), ("", (1,)))
                exported = run_to_end(label_array(result, row.source.segments, volume))
                np.testing.assert_array_equal(exported, np.roll(label, 2, axis=0))

    def test_corrected_copy_of_a_result_is_preferred_to_the_original(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        result = self.add_result(volume, label)
        give_code_of_left_atrium(result.GetSegmentation().GetNthSegment(0))
        original = result.GetSegmentation().GetNthSegmentID(0)
        copied = self.copy_segment(result, "corrected")
        (row,) = scene_rows(self.recipe)
        self.assertEqual((row.role, row.source.segments), (UNLABELLED, ()))  # The copy was not edited.
        edited = [label.copy() for _segment in range(2)]
        for number, mask in enumerate(edited):
            mask[tuple(np.argwhere(mask)[number])] = 0
        for mask, identifier, expected in (
            (edited[0], copied, copied),
            (label, copied, ()),
            (edited[1], original, original),
        ):
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, result, identifier, volume)
            (row,) = scene_rows(self.recipe)
            self.assertEqual(row.source.segments, ((expected, 1),) if expected else ())
            self.assertEqual(competing_segments(row.source, self.recipe), {})
        slicer.util.updateSegmentBinaryLabelmapFromArray(edited[0], result, copied, volume)
        (row,) = scene_rows(self.recipe)
        self.assertIn(
            "It is not clear which segment is “Left atrium”: “Left atrium”, “corrected”."
            " Choose one of them with Segments….",
            scene_remark(row.source, LABELLED, self.recipe)[0],
        )

    def test_user_need_not_choose_between_an_accepted_result_and_its_unedited_copy(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        result = self.add_result(volume, label)
        give_code_of_left_atrium(result.GetSegmentation().GetNthSegment(0))
        self.copy_segment(result, "backup")
        training_cases.add_result(result)
        (row,) = training_case_rows(self.recipe)
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe), ("", (1,)))

    def test_note_says_that_a_training_case_is_an_uncorrected_result(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        result = self.add_result(volume, label)
        training_cases.add_result(result)
        (row,) = training_case_rows(self.recipe)
        note = "The label is a result of DCAMT that was not corrected. Check it before training on it."
        self.assertEqual(self.warnings_about(row.source), (note,))
        own = self.add_segment(result, volume, np.roll(label, 2, axis=0), "LA")
        self.assertEqual(self.warnings_about(replace(row.source, segments=((own, 1),))), ())
        self.assertEqual(self.warnings_about(row.source), (note,))
        draw_segment(result, volume, np.roll(label, 1, axis=0))
        self.assertEqual(self.warnings_about(row.source), ())

    def test_edit_of_another_class_makes_a_result_corrected(self):
        image, label = ellipsoid(1)
        label[:3, :3, :3] = 2
        volume = add_volume("scan", image)
        result = self.add_result(volume, label, ("Left atrium", "other"))
        training_cases.add_result(result)
        (row,) = training_case_rows(self.recipe)
        self.assertEqual(len(self.warnings_about(row.source)), 1)
        other = result.GetSegmentation().GetNthSegmentID(1)
        slicer.util.updateSegmentBinaryLabelmapFromArray(np.uint8(label == 0), result, other, volume)
        self.assertEqual(self.warnings_about(row.source), ())

    def test_segments_of_a_result_are_read_one_per_step_and_only_once(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        result = self.add_result(volume, label)
        for name in ("first", "second"):
            self.copy_segment(result, name)
        training_cases.add_result(result)
        (row,) = training_case_rows(self.recipe)
        with mock.patch.object(voxel_check, "read_segment", wraps=voxel_check.read_segment) as reads:
            counts = [reads.call_count for _step in scene_facts(row.source, LABELLED, self.recipe)]
            self.assertEqual(sorted(set(counts)), [0, 1, 2, 3])
            self.assertEqual(len(self.warnings_about(row.source)), 1)
            self.assertEqual(reads.call_count, 3)

    def warnings_about(self, source):
        return run_to_end(scene_facts(source, LABELLED, self.recipe)).warnings

    def test_all_classes_of_a_result_are_in_the_label_if_one_was_corrected(self):
        classes = [replace(self.recipe.classes[0], label=n, name=name) for n, name in ((1, "LA"), (2, "LV"))]
        recipe = replace(self.recipe, classes=tuple(replace(one, type=TISSUE) for one in classes))
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        halves = label * (1 + np.arange(label.shape[2]) // (label.shape[2] // 2))
        result = self.add_result(volume, halves.astype(np.uint8), ("LA", "LV"))
        first, second = result.GetSegmentation().GetSegmentIDs()
        corrected = (halves == 2).astype(np.uint8)
        corrected[tuple(np.argwhere(corrected)[0])] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, result, second, volume)
        (row,) = scene_rows(recipe)
        self.assertEqual(row.source.segments, ((first, 1), (second, 2)))
        # A segment that the user added replaces the model's uncorrected segment.
        own = self.add_segment(result, volume, (halves == 1).astype(np.uint8), "LA")
        (row,) = scene_rows(recipe)
        self.assertEqual(row.source.segments, ((own, 1), (second, 2)))

    def test_remark_names_the_segments_among_which_the_user_must_choose(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        outline = add_outline(volume, label)
        self.add_segment(outline, volume, np.zeros_like(label))  # An empty segment is no choice.
        # The user need not choose between segments with the same voxels.
        self.add_segment(outline, volume, label, "left-atrium")
        (row,) = scene_rows(self.recipe)
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe)[0], "")
        self.add_segment(outline, volume, np.roll(label, 2, axis=0), "left atrium")
        self.add_segment(outline, volume, label, "aorta")
        text = (
            "It is not clear which segment is “Left atrium”: “Left atrium”, “left atrium”."
            " Choose one of them with Segments…."
        )
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe)[0], text)
        self.assertEqual(scene_remark(row.source, UNLABELLED, self.recipe)[0], "")
        self.assertEqual(scene_remark(replace(row.source, chosen=True), LABELLED, self.recipe)[0], "")

    def add_corrected_result_of_second_scan(self, segmentation):
        """Write DCAMT's result of a second scan into a segmentation, and correct it; return scan and segment ID."""
        second = add_volume("second", ellipsoid(2)[0])
        written = segmentation.GetSegmentation().AddEmptySegment("written", "Left atrium")
        segmentation.GetSegmentation().GetSegment(written).SetTag(CLASS_TAG, "SCT 82471001")
        mask = ellipsoid(2)[1]
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, written, second)
        segmentation.SetNodeReferenceID(VOLUME, second.GetID())
        review.store_review_data(segmentation, None, [], np.eye(4))
        mask[tuple(np.argwhere(mask)[0])] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, written, second)
        return second, written

    def test_segmentation_of_two_scans_gives_each_scan_only_its_own_segment_as_label(self):
        first, segmentation = add_case("first", 1)
        drawn = segmentation.GetSegmentation().GetNthSegmentID(0)
        second, written = self.add_corrected_result_of_second_scan(segmentation)
        expected = {first.GetID(): ((drawn, 1),), second.GetID(): ((written, 1),)}
        for register in (lambda: None, lambda: training_cases.add_result(segmentation)):
            register()
            rows = scene_rows(self.recipe)
            self.assertEqual({row.source.volume: row.source.segments for row in rows}, expected)
            # A second matching of segments to classes changes nothing.
            matched = rematch_segments(rows, self.recipe, keeps_unmatched=False)
            self.assertEqual([row.source for row in matched], [row.source for row in rows])
        # The segment that remains was drawn on the first scan.
        segmentation.GetSegmentation().RemoveSegment(written)
        self.assertEqual([row.source.segments for row in scene_rows(self.recipe)], [((drawn, 1),), ()])

    def test_corrected_segment_of_a_removed_scan_is_no_label_of_the_scan_that_remains(self):
        _first, segmentation = add_case("first", 1)
        drawn = segmentation.GetSegmentation().GetNthSegmentID(0)
        segmentation.GetSegmentation().GetSegment(drawn).SetName("vein")
        second, _written = self.add_corrected_result_of_second_scan(segmentation)
        slicer.mrmlScene.RemoveNode(second)
        self.assertEqual([row.source.segments for row in scene_rows(self.recipe)], [((drawn, 1),)])
        segmentation.GetSegmentation().RemoveSegment(drawn)
        (row,) = scene_rows(self.recipe)
        self.assertEqual((row.role, row.source.segments), (UNLABELLED, ()))
        self.assertIn("was made from a scan that is no longer in the scene", row.note)

    def test_result_may_become_a_training_case_of_a_different_scan(self):
        first, segmentation = add_case("first", 1)
        segmentation.GetSegmentation().GetNthSegment(0).SetName("vein")
        second, written = self.add_corrected_result_of_second_scan(segmentation)
        training_cases.add_case(first, segmentation)
        for _scan_is_in_scene in (True, False):
            self.assertEqual([row.source.segments for row in training_case_rows(self.recipe)], [((written, 1),)])
            slicer.mrmlScene.RemoveNode(second)

    def test_corrected_result_of_a_removed_scan_is_no_label_of_another_scan(self):
        volume, result = add_case("first", 1)
        identifier = result.GetSegmentation().GetNthSegmentID(0)
        result.GetSegmentation().GetSegment(identifier).SetTag(CLASS_TAG, "SCT 82471001")
        result.SetNodeReferenceID(VOLUME, volume.GetID())
        review.store_review_data(result, None, [], np.eye(4))
        corrected = ellipsoid(1)[1]
        corrected[tuple(np.argwhere(corrected)[0])] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, result, identifier, volume)
        slicer.mrmlScene.RemoveNode(volume)
        add_volume("second", ellipsoid(2)[0])
        (row,) = scene_rows(self.recipe)
        self.assertEqual((row.role, row.source.segmentation), (UNLABELLED, ""))
        self.assertIn("was made from a scan that is no longer in the scene", row.note)

    def test_model_result_removed_from_the_cases_is_no_label_until_accepted(self):
        volume, result = add_case("scan", 1)
        result.GetSegmentation().GetNthSegment(0).SetTag(CLASS_TAG, "SCT 82471001")
        result.SetNodeReferenceID(VOLUME, volume.GetID())
        review.store_review_data(result, None, [], np.eye(4))
        training_cases.add_case(volume, result)
        (row,) = training_case_rows(self.recipe)
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe), ("", (1,)))
        training_cases.remove_case(result)
        self.assertIn("The label is a model's result", scene_remark(row.source, LABELLED, self.recipe)[0])
        self.assertEqual(scene_remark(row.source, UNLABELLED, self.recipe)[0], "")
        with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(InputError, "scan: has a model's result"):
            run_to_end(export_case(row, Path(folder), 1))
        accept_results(row.source)
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe)[0], "")
        self.assertEqual(training_cases.unlisted_cases(), [])

    def test_scan_of_a_preview_is_not_a_case(self):
        add_case("outlined", 1)
        self.show_preview_on(None)
        self.assertEqual([row.name for row in scene_rows(self.recipe)], ["outlined"])

    def show_preview_on(self, volume):
        image, label = ellipsoid(3)
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder, name)) for name in ("scan.npy", "labels.npy")]
            np.save(paths[0], image if volume is None else slicer.util.arrayFromVolume(volume))
            np.save(paths[1], label)
            affine = np.eye(4) if volume is None else ijk_to_ras(volume)
            run = "run of " + ("files" if volume is None else volume.GetName())
            for _step in show_preview(Preview("case", 10, affine.tolist(), *paths), self.recipe, run, volume):
                pass
        shown = slicer.util.getFirstNodeByName(f"{run}: preview, iteration 10")
        if volume is not None:
            self.assertIs(shown.GetNodeReference("referenceImageGeometryRef"), volume)

    def test_segments_are_matched_to_classes_by_code_before_name(self):
        other = SegmentInfo(2, "Aorta", (1, 0, 0), Code("SCT", "15825003", "Aorta"))
        pair = replace(tiny_recipe(), classes=(*tiny_recipe().classes, other))
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        outline = add_outline(volume, label, ("something", "aorta", "left_atrium"))
        ids = outline.GetSegmentation().GetSegmentIDs()
        self.assertEqual(segments_of(outline, pair), ((ids[2], 1), (ids[1], 2)))
        give_code_of_left_atrium(outline.GetSegmentation().GetSegment(ids[0]))
        self.assertEqual(segments_of(outline, pair), ((ids[0], 1), (ids[1], 2)))
        # If there is one segment and one class, the names do not matter.
        only = add_outline(volume, label, ("Segment_1",))
        self.assertEqual(len(segments_of(only, self.recipe)), 1)
        self.assertEqual(segments_of(only, pair), ())

    def test_segment_with_exactly_the_name_of_a_class_is_preferred(self):
        classes = tuple(replace(self.recipe.classes[0], label=n, name=name) for n, name in ((1, "A+"), (2, "A-")))
        recipe = replace(self.recipe, classes=tuple(replace(one, type=TISSUE) for one in classes))
        image, label = ellipsoid(1)
        outline = add_outline(add_volume("scan", image), label, ("A-", "a+"))
        first, second = outline.GetSegmentation().GetSegmentIDs()
        self.assertEqual(segments_of(outline, recipe), ((second, 1), (first, 2)))

    def test_added_training_case_has_priority_over_other_segmentations(self):
        volume, added = add_case("scan", 1)
        add_outline(volume, ellipsoid(2)[1])
        self.assertNotEqual(scene_rows(self.recipe)[0].source.segmentation, added.GetID())
        self.assertEqual(training_case_rows(self.recipe), [])
        training_cases.add_case(volume, added)
        self.assertEqual([row.source.segmentation for row in training_case_rows(self.recipe)], [added.GetID()])
        self.assertEqual([row.source.segmentation for row in scene_rows(self.recipe)], [added.GetID()])

    def test_clone_of_a_training_case_becomes_a_case_when_the_original_is_removed(self):
        volume, case = add_case("scan", 1)
        training_cases.add_case(volume, case)
        clone = copy_node(case)
        for list_rows in (scene_rows, training_case_rows):
            self.assertEqual([row.source.segmentation for row in list_rows(self.recipe)], [case.GetID()])
        self.assertFalse(training_cases.is_case(clone))
        with scene_saved_and_closed():
            pass
        case, clone = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.assertEqual([training_cases.is_case(node) for node in (case, clone)], [True, False])
        slicer.mrmlScene.RemoveNode(case)
        self.assertTrue(training_cases.is_case(clone))
        again = copy_node(clone)
        training_cases.add_case(slicer.util.getNode("scan"), again)
        self.assertTrue(training_cases.is_case(clone))
        self.assertTrue(training_cases.is_case(again))

    def test_clone_of_a_former_case_is_no_case(self):
        volume, case = add_case("scan", 1)
        training_cases.add_case(volume, case)
        copy_node(case).SetName("clone")
        training_cases.remove_case(case)
        self.assertEqual(training_cases.scene_cases(), [])
        with scene_saved_and_closed():
            pass
        self.assertEqual(training_cases.scene_cases(), [])
        clone = slicer.util.getNode("clone")
        training_cases.add_case(slicer.util.getNode("scan"), clone)
        self.assertEqual([case.segmentation for case in training_cases.scene_cases()], [clone])

    def test_last_changed_training_case_of_a_scan_is_the_label(self):
        volume, original = add_case("scan", 1)
        training_cases.add_case(volume, original)
        first, second, third = copies = [copy_node(original) for _ in range(3)]
        for number, node in enumerate(copies):
            node.SetName(f"copy {number}")
        slicer.mrmlScene.RemoveNode(original)
        edited = ellipsoid(1)[1]
        edited[tuple(np.argwhere(edited)[0])] = 0
        for drawn_on, taken in ((None, first), (second, second)):
            if drawn_on is not None:
                draw_segment(drawn_on, volume, edited)
            for list_rows in (scene_rows, training_case_rows):
                (row,) = list_rows(self.recipe)
                self.assertEqual(row.source.segmentation, taken.GetID())
                names = ", ".join(f"“{node.GetName()}”" for node in copies if node is not taken)
                self.assertIn(f"The label is “{taken.GetName()}”. Other outlines of this scan: {names}.", row.note)
                self.assertEqual(choice_note(row.source, self.recipe), row.note)
        self.assertEqual(training_cases.unlisted_cases(), [])
        draw_segment(third, volume, edited)
        third.GetSegmentation().GetNthSegment(0).SetName("aorta")
        third.GetSegmentation().AddEmptySegment("", "liver")
        # `third` was changed last, but now has no segment for the class.
        for list_rows in (scene_rows, training_case_rows):
            self.assertEqual([row.source.segmentation for row in list_rows(self.recipe)], [second.GetID()])

    def test_note_names_another_training_case_whose_segmentation_references_no_scan(self):
        volume, original = add_case("scan", 1)
        loaded = copy_node(original)
        loaded.SetName("loaded")
        loaded.SetNodeReferenceID(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), None)
        for segmentation in (original, loaded):
            training_cases.add_case(volume, segmentation)
        (row,) = scene_rows(self.recipe)
        self.assertIn("“loaded”", row.note)
        self.assertEqual(choice_note(row.source, self.recipe), row.note)

    def test_clone_is_the_label_only_if_it_was_edited_after_the_original(self):
        volume, original = add_case("scan", 1)
        original.SetName("mine")
        clone = copy_node(original)
        clone.SetName("mine Copy")
        edited = ellipsoid(1)[1]
        for drawn_on, taken in ((None, original), (original, original), (clone, clone), (original, original)):
            if drawn_on is not None:
                edited[tuple(np.argwhere(edited)[0])] = 0
                draw_segment(drawn_on, volume, edited)
            (row,) = scene_rows(self.recipe)
            self.assertEqual(row.source.segmentation, taken.GetID())
            other = clone if taken is original else original
            self.assertIn(
                f"The label is “{taken.GetName()}”. Other outlines of this scan: “{other.GetName()}”.", row.note
            )
            self.assertEqual(choice_note(row.source, self.recipe), row.note)
        self.assertEqual(choice_note(replace(row.source, chosen=True), self.recipe), "")
        slicer.mrmlScene.RemoveNode(clone)
        self.assertEqual((scene_rows(self.recipe)[0].note, choice_note(row.source, self.recipe)), ("", ""))

    def test_moved_clone_is_preferred_to_its_original(self):
        _volume, original = add_case("scan", 1)
        clone = copy_node(original)
        move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
        move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.0, 1.0, 1.1, 1.0])))
        clone.SetAndObserveTransformNodeID(move.GetID())
        clone.HardenTransform()
        self.assertEqual(scene_rows(self.recipe)[0].source.segmentation, clone.GetID())

    def test_note_names_the_label_among_several_loaded_segmentations(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        first = self.load_from_file(add_outline(volume, label))
        first.SetName("first")
        edited = label.copy()
        edited[tuple(np.argwhere(edited)[0])] = 0
        second = self.load_from_file(add_outline(volume, edited))
        second.SetName("second")
        (row,) = scene_rows(self.recipe)
        self.assertEqual(row.source.segmentation, second.GetID())
        self.assertIn("The label is “second”. Other outlines of this scan: “first”.", row.note)
        self.assertEqual(choice_note(row.source, self.recipe), row.note)

    def load_from_file(self, segmentation, crop: bool = False):
        """Save a segmentation (if `crop`, only the box of its segments), remove its node, and load the file."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, f"{segmentation.GetName()}.seg.nrrd")
            if crop:
                segmentation.AddDefaultStorageNode()
                segmentation.GetStorageNode().SetCropToMinimumExtent(True)
            self.assertTrue(slicer.util.saveNode(segmentation, path))
            slicer.mrmlScene.RemoveNode(segmentation)
            loaded = slicer.util.loadSegmentation(path)
        self.assertIsNone(loaded.GetNodeReference("referenceImageGeometryRef"))
        return loaded

    def test_segmentation_loaded_from_a_file_is_the_label_of_the_scan_on_the_same_grid(self):
        for crop in (False, True):
            close_scene()
            image, label = ellipsoid(1)
            volume = add_volume("scan", image, turned=True)
            add_volume("elsewhere", ellipsoid(2)[0])
            loaded = self.load_from_file(add_outline(volume, label), crop)
            rows = scene_rows(self.recipe)
            self.assertEqual([(row.name, row.role) for row in rows], [("scan", LABELLED), ("elsewhere", UNLABELLED)])
            self.assertEqual(rows[0].source.segmentation, loaded.GetID())
            exported = run_to_end(label_array(loaded, rows[0].source.segments, volume))
            np.testing.assert_array_equal(exported, label)

    def test_segmentation_on_a_different_grid_with_the_same_corners_is_no_label(self):
        image = np.random.default_rng(0).normal(100, 10, (8, 8, 82))
        other = add_volume("other", image[:, :, :81])
        other.SetSpacing(2.025, 2.0, 2.0)  # 80 steps of 2.025 mm are 81 steps of 2 mm.
        label = np.zeros((8, 8, 81), np.uint8)
        label[2:6, 2:6, 20:60] = 1
        self.load_from_file(add_outline(other, label))
        slicer.mrmlScene.RemoveNode(other)
        add_volume("scan", image)
        (row,) = scene_rows(self.recipe)
        self.assertEqual(row.role, UNLABELLED)
        self.assertIn("lies on a different grid", row.note)

    def test_scene_rows_look_up_grids_and_scans_in_linear_time(self):
        for number in range(6):
            add_case(f"drawn {number}", number)
            image, label = ellipsoid(10 + number)
            self.load_from_file(add_outline(add_volume(f"loaded {number}", image, 2.0 + 0.1 * number), label))
        with (
            mock.patch.object(scene_source, "grid_of", wraps=scene_source.grid_of) as grids,
            mock.patch.object(scene_source, "scan_of", wraps=scene_source.scan_of) as scans,
        ):
            rows = scene_rows(self.recipe)
        self.assertEqual(sum(row.role == LABELLED for row in rows), 11)
        self.assertLessEqual(grids.call_count, 12)
        self.assertLessEqual(scans.call_count, 2 * 12)

    def test_note_says_why_a_segmentation_from_a_file_is_not_a_label(self):
        image, label = ellipsoid(1)
        volume = add_volume("scan", image)
        self.load_from_file(add_outline(volume, label, ("first", "second")))
        (row,) = scene_rows(self.recipe)
        self.assertEqual((row.role, row.remark), (UNLABELLED, ""))
        self.assertIn("no segment is named like a class", row.note)
        volume.SetSpacing(2.0, 2.0, 2.5)
        self.assertIn("lies on a different grid", scene_rows(self.recipe)[0].note)
        volume.SetSpacing(2.0, 2.0, 2.0)
        twin = add_volume("twin", image)
        self.assertIn("fits several scans", scene_rows(self.recipe)[1].note)
        twin.SetIJKToRASDirections(1, 0, 0, 1, 0, 0, 0, 0, 1)  # a damaged geometry
        self.assertEqual(len(scene_rows(self.recipe)), 2)
        twin.SetIJKToRASDirections(1, 0, 0, 0, 1, 0, 0, 0, 1)
        table = CaseTable()
        model = CaseTableModel(table)
        table.add(scene_rows(self.recipe))
        self.assertIn("fits several scans", model.data(model.index(0, REMARK), qt.Qt.DisplayRole))
        self.assertIsNone(model.data(model.index(0, REMARK), qt.Qt.ForegroundRole))

    def test_remarks_state_the_problems_of_scene_cases(self):
        volume, outline = add_case("scan")
        row = row_of(volume, outline, self.recipe)
        self.assertEqual(scene_remark(row.source, LABELLED, self.recipe), ("", (1,)))
        empty = add_outline(volume, np.zeros_like(ellipsoid()[1]))
        text, values = scene_remark(row_of(volume, empty, self.recipe).source, LABELLED, self.recipe)
        self.assertIn("empty", text)
        self.assertEqual(values, ())
        self.assertEqual(scene_remark(row_of(volume, empty, self.recipe).source, UNLABELLED, self.recipe)[0], "")
        slicer.mrmlScene.RemoveNode(outline)
        self.assertIn("no longer in the scene", scene_remark(row.source, LABELLED, self.recipe)[0])
        slicer.mrmlScene.RemoveNode(volume)
        self.assertIn("volume is no longer", scene_remark(row.source, UNLABELLED, self.recipe)[0])

    def test_remark_says_that_a_segment_was_removed(self):
        image, label = ellipsoid()
        classes = tuple(replace(self.recipe.classes[0], label=n, name=name) for n, name in ((1, "LV"), (2, "RV")))
        recipe = replace(self.recipe, classes=classes)
        volume = add_volume("scan", image)
        halves = label * (1 + np.arange(label.shape[2]) // (label.shape[2] // 2))
        outline = add_outline(volume, halves, ("LV", "RV"))
        row = row_of(volume, outline, recipe)
        self.assertEqual(scene_remark(row.source, LABELLED, recipe), ("", (1, 2)))
        segments = outline.GetSegmentation()
        segments.RemoveSegment(row.source.segments[1][0])
        segments.AddEmptySegment("", "RV")  # another segment, which the case does not use
        text, values = scene_remark(row.source, LABELLED, recipe)
        self.assertIn("segment of “RV” is no longer in the segmentation", text)
        self.assertEqual(values, (1,))
        self.assertEqual(scene_remark(row.source, UNLABELLED, recipe)[0], "")
        segments.RemoveSegment(row.source.segments[0][0])
        text, values = scene_remark(row.source, LABELLED, recipe)
        self.assertIn("segment of “LV”, “RV” is no longer in the segmentation", text)
        self.assertEqual(values, ())

    def test_remark_states_why_a_volume_is_not_a_usable_scan(self):
        image = ellipsoid()[0]
        far = add_volume("far", image)
        far.SetOrigin(1e7, 0, 0)
        for volume, problem in (
            (add_volume("localizer", image[:1]), "The scan holds one slice only (24 x 22 x 1 voxels)"),
            (add_volume("in metres", image, spacing=0.002), "The scan has an implausible size: 0.048"),
            (far, "The scan lies too far from the origin of its coordinate system: 10000 m"),
        ):
            self.assertIn(problem, scene_remark(SceneScan(volume.GetID()), UNLABELLED, self.recipe)[0])
