"""The one-page report that the panel requests: its content, and the absence of the patient's name."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.geometry import CUT_BY_REGION
from dcamt.models.calibration import ExpectedOverlap
from dcamt.worker.events import ReportWritten
from dcamt.worker.requests import OutlineMethod, ReportRequest
from DCAMTSegmentationLib import report_job, review, stored_places, wall_nodes
from DCAMTSegmentationLib.result_nodes import DOUBT_MAP, WALL_MODEL, get_referenced_node
from DCAMTSegmentationLib.volume_snapshot import voxel_checksum
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.segment_voxels import read_segment
from fake_worker import FakePanel, FakeWorker, PanelCase
from made_results import block
from scene_nodes import add_scan, draw_segment, segment_mask
from segmentation_case import SegmentationCase
from slicer_harness import Person, choose, click, expect_no_hidden_errors, process_events_until
from wall_case import InsertedWallCase, WorkerWallCase, add_phantom, burden_cell, phantom

EXPECTED = ExpectedOverlap(0.92, 0.88, 0.95)


class DrawnReportTest(WorkerWallCase):
    def test_report_of_a_drawn_segment_has_the_numbers_of_the_panel_and_no_patient_name(self) -> None:
        volume, segmentation = self.volume, self.segmentation
        volume.SetName("Mueller^Anna")
        segmentation.GetSegmentation().GetSegment("blood").SetName("Mueller")
        self.measure()
        choose(self.ui.wallPresetComboBox, self.ui.wallPresetComboBox.itemText(0))
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            page = Path(folder, "report of Mueller.html")
            person.expects("Write the report", str(page))
            click(self.ui.reportButton)
            self.wait()
            text = page.read_text(encoding="utf-8")
        self.assertIn("The report was written", self.ui.statusLabel.text)
        self.assertIn(f">{burden_cell(segmentation)}<", text)
        for shown in ("IIR &gt; 0.97", "Research use only", "Outline: of unknown origin"):
            self.assertIn(shown, text)
        words = re.sub(r"base64,[^\"]*", "", text)  # A picture's base64 code may contain "Anna" by chance.
        for trace in ("Mueller", "Anna", folder):
            self.assertNotIn(trace, words)
        volume_ml = float(np.count_nonzero(phantom()[1])) * 1.25**3 / 1000
        self.assertIn(f">{volume_ml:.1f}<", text)


class SegmentedReportTest(SegmentationCase):
    def test_report_of_a_corrected_result_names_the_model_and_the_correction(self) -> None:
        volume = add_scan("Mueller^Anna")
        segmentation = self.segment(volume)
        array = segment_mask(segmentation, volume)
        array[4:8, 4:8, 4:8] = 1 - array[4:8, 4:8, 4:8]
        draw_segment(segmentation, volume, array)
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            page = Path(folder, "page.html")
            person.expects("Write the report", str(page))
            click(self.ui.reportButton)
            process_events_until(lambda: not self.logic.isRunning(), "the report")
            text = page.read_text(encoding="utf-8")
        trust = review.trust(segmentation)
        assert trust is not None
        self.assertIn(f">{100 * trust:.0f}<", text)
        for shown in ("Outline: model tiny", "quality accurate", "then corrected by hand"):
            self.assertIn(shown, text)
        self.assertNotIn("Mueller", text)


class FakeReportWorker(FakeWorker):
    first_mask: np.ndarray

    def _answer(self, request: Any, on_event: Any) -> None:
        if not isinstance(request, ReportRequest):
            super()._answer(request, on_event)
            return
        self.first_mask = np.load(request.segments[0].outline.mask)
        on_event(ReportWritten(request.id, request.report))


def send_report_requests(module: FakePanel, path: str, replace: str = "") -> list[ReportRequest]:
    """Click *Report…* and return the requests that this sends to the worker.

    Args:
        replace: the answer to the question whether to replace a file; "" if this question must not appear.
    """
    earlier = len(module.worker.requests)
    with Person() as person:
        person.expects("Write the report", path)
        if replace:
            person.expects("Replace the file?", replace)
        click(module.ui.reportButton)
        process_events_until(lambda: not module.logic.isRunning(), "the report")
    return module.worker.requests[earlier:]


def request_report(module: FakePanel) -> ReportRequest:
    (request,) = send_report_requests(module, "/nowhere/page.html")
    return request


def move_and_harden(*nodes: Any) -> None:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    matrix = np.eye(4)
    matrix[0, 3] = 20.0
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
        node.HardenTransform()


@contextmanager
def changed_after_snapshot(volume: VolumeNode, voxels: np.ndarray) -> Iterator[None]:
    """Replace the volume's voxels after the report copied the old voxels."""

    def change_and_read(*arguments: Any) -> Any:
        slicer.util.updateVolumeFromArray(volume, voxels)
        return read_segment(*arguments)

    with mock.patch.object(report_job, "read_segment", change_and_read):
        yield


class ReportRequestTest(InsertedWallCase):
    def make_worker(self) -> FakeReportWorker:
        return FakeReportWorker()

    def setUp(self) -> None:
        super().setUp()
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))

    def add_segment(self) -> np.ndarray:
        """Add the segment "other", half of the phantom's ball; return its voxels."""
        label = phantom()[1]
        label[:28] = 0
        self.segmentation.GetSegmentation().AddEmptySegment("other", "other")
        slicer.util.updateSegmentBinaryLabelmapFromArray(label, self.segmentation, "other", self.volume)
        return label

    def report(self) -> ReportRequest:
        request = request_report(self.module)
        self.assertIn("The report was written", self.ui.statusLabel.text)
        return request

    def test_panel_asks_to_replace_a_file_only_if_the_chosen_name_has_no_html_ending(self) -> None:
        # The file dialog itself asks before it accepts the name of an existing file. If the chosen name has no ending,
        # the panel adds `.html` afterwards. The dialog has not checked this longer name, so the panel asks.
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.html")
            page.touch()
            without_ending = page.with_suffix("")
            for path, answer, reports in (
                (without_ending, "Cancel", []),
                (without_ending, "Ok", [page]),
                (page, "", [page]),
            ):
                requests = send_report_requests(self.module, str(path), answer)
                self.assertEqual([request.report for request in requests], reports)

    def test_wall_of_the_chosen_scan_and_segment_is_in_the_report(self) -> None:
        request = self.report()
        self.assertIsNotNone(request.wall)
        self.assertEqual(request.notes, ())

    def test_wall_measured_before_the_scan_was_changed_is_left_out_with_a_note(self) -> None:
        measured, checksum = fingerprint(self.segmentation, ["blood"]), voxel_checksum(self.volume)
        wall_nodes.store_measured_outline(self.segmentation, "blood", measured, checksum=checksum)
        before = slicer.util.arrayFromVolume(self.volume).copy()
        for voxels, is_changed in ((before, False), (before * 2, True), (before, False)):
            slicer.util.updateVolumeFromArray(self.volume, voxels)
            self.module.enter()
            self.assertEqual("The voxels of the scan were changed" in self.ui.wallLabel.text, is_changed)
            request = self.report()
            self.assertEqual(request.wall is None, is_changed)
            notes = ("The wall was measured in an earlier version of the scan and was left out.",)
            self.assertEqual(request.notes, notes if is_changed else ())

    def test_change_of_the_scan_after_its_snapshot_does_not_affect_the_reported_wall(self) -> None:
        measured, checksum = fingerprint(self.segmentation, ["blood"]), voxel_checksum(self.volume)
        wall_nodes.store_measured_outline(self.segmentation, "blood", measured, checksum=checksum)
        voxels = slicer.util.arrayFromVolume(self.volume).copy()
        for reported, later, has_wall in ((voxels, voxels * 2, True), (voxels * 2, voxels, False)):
            slicer.util.updateVolumeFromArray(self.volume, reported)
            with changed_after_snapshot(self.volume, later):
                self.assertEqual(self.report().wall is not None, has_wall)

    def test_wall_of_another_scan_is_left_out_with_a_note(self) -> None:
        choose(self.ui.inputSelector, add_phantom()[0])
        self.assertIs(self.module.settings.outputSegmentation, self.segmentation)
        request = self.report()
        self.assertIsNone(request.wall)
        self.assertEqual(request.notes, ("The wall was measured in another scan and was left out.",))

    def test_report_has_the_chosen_segment_and_leaves_out_the_wall_of_another_segment(self) -> None:
        label = self.add_segment()
        choose(self.ui.wallSegmentComboBox, "other")
        request = self.report()
        np.testing.assert_array_equal(self.module.worker.first_mask, label)
        self.assertIsNone(request.wall)
        self.assertEqual(request.notes, ("The wall was measured on another segment and was left out.",))

    def test_wall_with_a_damaged_attribute_is_shown(self) -> None:
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        huge = json.dumps([[10**400] * 4] * 4)
        for name in ("wallSurfacePlace", "wallPlacement", "wallOutline"):
            stored = model.GetAttribute(f"DCAMT.{name}")
            for text in ("x", "[1]", "7", "{}", huge, "[" * 100_000):
                model.SetAttribute(f"DCAMT.{name}", text)
                self.module.leave()
                self.module.enter()
                self.report()
                self.assertIn("% of the wall is enhanced", self.ui.wallLabel.text)
            model.SetAttribute(f"DCAMT.{name}", stored)
        expect_no_hidden_errors()

    def test_wall_is_left_out_while_it_does_not_lie_on_the_outline(self) -> None:
        warning = "The wall's surface no longer lies on the outline"

        def assert_left_out(is_left_out: bool) -> None:
            self.module.enter()
            self.assertEqual(warning in self.ui.wallLabel.text, is_left_out)
            request = self.report()
            self.assertEqual(request.wall is None, is_left_out)
            notes = ("The measured wall does not lie on the outline and was left out.",)
            self.assertEqual(request.notes, notes if is_left_out else ())

        assert_left_out(False)
        move_and_harden(self.volume, self.segmentation)
        assert_left_out(True)
        move_and_harden(get_referenced_node(self.segmentation, WALL_MODEL))
        assert_left_out(False)
        move_and_harden(self.volume, self.segmentation)
        self.insert_wall(self.segmentation)
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint(self.segmentation, ["blood"]))
        assert_left_out(False)

    def test_wall_stays_in_the_report_after_an_edit_of_another_segment(self) -> None:
        self.add_segment()
        # Any edit marks the wall as outdated. The report removes the mark, because the wall's segment is unchanged.
        self.assertTrue(wall_nodes.is_wall_outdated(self.segmentation))
        request = self.report()
        self.assertIsNotNone(request.wall)
        self.assertEqual(request.notes, ())


class ResultReportRequestTest(PanelCase):
    def assert_reported(self, is_complete: bool) -> None:
        request = request_report(self.module)
        known = request.trust, request.expected_overlap, len(request.doubts or ()), request.doubt_map is not None
        self.assertEqual(known, (0.93, EXPECTED, 2, True) if is_complete else (None, None, 0, False))
        left_out = "Expected overlap, agreement of the branches and doubt were left out"
        self.assertEqual([left_out in note for note in request.notes], [True] * (not is_complete))
        self.assertEqual(request.method.title, "Left atrium in LGE-MRI")

    def test_trust_is_reported_only_if_the_scan_has_the_voxels_that_the_model_segmented(self) -> None:
        self.open(FakeReportWorker(expected=EXPECTED))
        volume = add_scan()
        segmentation = self.segment(volume)
        self.assert_reported(True)
        changed, before = "The voxels of the scan were changed", slicer.util.arrayFromVolume(volume).copy()
        for voxels, is_changed in ((before + 1, True), (before, False)):
            slicer.util.updateVolumeFromArray(volume, voxels)
            self.module.enter()
            self.assertEqual(changed in self.ui.trustLabel.text, is_changed)
            self.assert_reported(not is_changed)
        slicer.mrmlScene.RemoveNode(volume)
        other, loaded_again = add_scan("other", seed=1), add_scan()
        for chosen in (other, loaded_again):
            choose(self.ui.inputSelector, chosen)
            choose(self.ui.outputSelector, segmentation)
            self.assertIs(self.settings.inputVolume, chosen)
            self.assert_reported(chosen is loaded_again)

    def test_trust_is_not_reported_for_equal_voxels_on_another_grid(self) -> None:
        self.open(FakeReportWorker(expected=EXPECTED))
        volume = add_scan()
        segmentation = self.segment(volume)
        slicer.mrmlScene.RemoveNode(volume)
        for spacing, origin, is_same in ((1.5, 0.0, True), (1.5, 0.01, True), (1.6, 0.0, False), (1.5, 5.0, False)):
            affine = np.diag([-spacing, -spacing, spacing, 1.0])
            affine[2, 3] = origin
            choose(self.ui.inputSelector, add_scan(affine=affine))
            choose(self.ui.outputSelector, segmentation)
            self.assert_reported(is_same)

    def test_change_of_the_scan_after_its_snapshot_does_not_affect_the_reported_trust(self) -> None:
        self.open(FakeReportWorker(expected=EXPECTED))
        volume = add_scan()
        self.segment(volume)
        segmented = slicer.util.arrayFromVolume(volume).copy()
        for reported, later, is_complete in ((segmented, segmented + 1, True), (segmented + 1, segmented, False)):
            slicer.util.updateVolumeFromArray(volume, reported)
            with changed_after_snapshot(volume, later):
                self.assert_reported(is_complete)

    def test_trust_stored_by_an_older_dcamt_is_not_reported_after_the_scan_is_loaded_again(self) -> None:
        self.open(FakeReportWorker(expected=EXPECTED))
        volume = add_scan()
        segmentation = self.segment(volume)
        segmentation.SetAttribute("DCAMT.scanVoxels", None)
        self.assert_reported(True)
        slicer.mrmlScene.RemoveNode(volume)
        choose(self.ui.inputSelector, add_scan())
        choose(self.ui.outputSelector, segmentation)
        self.assert_reported(False)

    def test_report_of_a_result_without_a_stored_outline_method_names_the_model(self) -> None:
        self.open(FakeReportWorker())
        segmentation = self.segment(add_scan())
        # A later version of DCAMT may store other fields.
        for text in (None, '{"model": "x", "later": 1}', "damaged", "[" * 100_000):
            segmentation.SetAttribute("DCAMT.outlineMethod", text)
            request = request_report(self.module)
            self.assertEqual(request.method, OutlineMethod("", "Left atrium in LGE-MRI", "", "", "accurate"))
            self.assertEqual((request.trust, len(request.doubts)), (0.93, 2))

    def test_result_with_a_damaged_attribute_is_shown_and_reported(self) -> None:
        self.open(FakeReportWorker())
        segmentation = self.segment(add_scan())
        huge = json.dumps([{"position": [0, 0, 10**400], "volume_ml": 1}])
        names = "trust", "doubtfulPlaces", "doubtfulPlacesAffine", "measuredAxes", "writtenSegments", "measuredSegments"
        for name in names:
            stored = segmentation.GetAttribute(f"DCAMT.{name}")
            for text in ("x", "[1]", "7", "{", huge, "[" * 100_000):
                segmentation.SetAttribute(f"DCAMT.{name}", text)
                self.module.leave()
                self.module.enter()
                self.assertEqual(request_report(self.module).method.title, "Left atrium in LGE-MRI", (name, text))
            segmentation.SetAttribute(f"DCAMT.{name}", stored)
        expect_no_hidden_errors()

    def test_region_of_a_result_is_reported_with_its_size_and_without_its_name(self) -> None:
        self.open(FakeReportWorker())
        volume = add_scan()
        choose(self.ui.inputSelector, volume)
        click(self.ui.placeRegionButton)
        region = self.ui.regionSelector.currentNode()
        region.SetName("Mueller")
        region.SetSizeWorld(20.0, 16.0, 12.0)
        turn = np.eye(4)
        turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
        turn[:3, 3] = region.GetCenter()
        for is_turned in (False, True):
            if is_turned:
                region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn))
            segmentation = self.segment(volume)
            note = "Only a region of the scan was segmented: a box of 20 × 16 × 12 mm."
            self.assertEqual(request_report(self.module).notes, (note,))
        self.module.worker.notes = (CUT_BY_REGION,)
        segmentation = self.segment(volume)
        self.assertEqual(request_report(self.module).notes, (note, CUT_BY_REGION))
        self.module.worker.notes = ()
        segmentation = self.segment(volume)
        segmentation.SetAttribute("DCAMT.region", "damaged")
        self.assertEqual(request_report(self.module).notes, ("Only a region of the scan was segmented.",))
        choose(self.ui.regionSelector, None)
        self.segment(volume)
        self.assertEqual(request_report(self.module).notes, ())

    def test_map_of_doubt_that_does_not_lie_on_the_scan_is_noted(self) -> None:
        self.open(FakeReportWorker())
        volume = add_scan()
        segmentation = self.segment(volume)
        move_and_harden(volume, segmentation)
        self.module.enter()
        self.assertIn("The map of doubt no longer lies on the scan.", self.ui.trustLabel.text)
        self.assertEqual(
            request_report(self.module).notes, ("The map of doubt does not lie on the scan and was left out.",)
        )
        move_and_harden(get_referenced_node(segmentation, DOUBT_MAP))
        self.module.enter()
        self.assertNotIn("The map of doubt no longer", self.ui.trustLabel.text)
        self.assertEqual(request_report(self.module).notes, ())

    def test_moved_outline_is_noted(self) -> None:
        self.open(FakeReportWorker())
        move_and_harden(self.segment(add_scan()))
        notes = request_report(self.module).notes
        self.assertIn("Outline or scan was moved after the model made the outline.", notes)

    def test_result_is_not_reported_as_corrected_after_its_edit_is_undone(self) -> None:
        self.open(FakeReportWorker())
        volume = add_scan()
        segmentation = self.segment(volume)
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentation)
        if not hasattr(editor, "saveStateForUndo"):
            self.skipTest("this Segment Editor offers no method that stores a state for undo")
        editor.saveStateForUndo()
        draw_segment(segmentation, volume, block(4))
        for step, is_corrected in ((lambda: None, True), (editor.undo, False), (editor.redo, True)):
            step()  # undo and redo send no SourceRepresentationModified event
            request = request_report(self.module)
            self.assertEqual(request.is_corrected, is_corrected)

    def test_result_edited_while_the_report_copies_its_segments_is_reported_as_corrected(self) -> None:
        self.open(FakeReportWorker())
        volume = add_scan()
        segmentation = self.segment(volume)
        segments = segmentation.GetSegmentation()
        copy = slicer.vtkSegment()
        copy.DeepCopy(segments.GetNthSegment(0))
        segments.AddSegment(copy, "second")  # A copy of a DCAMT segment counts as a DCAMT segment.
        review.store_review_data(segmentation, 0.9, [], np.eye(4))
        self.assertFalse(request_report(self.module).is_corrected)
        write = report_job.write_npy_in_slabs

        def edit_and_write(mask: np.ndarray, file: Path) -> Any:
            if file.name == "segment-0.npy":
                slicer.util.updateSegmentBinaryLabelmapFromArray(block(4), segmentation, "second", volume)
            return write(mask, file)

        with mock.patch.object(report_job, "write_npy_in_slabs", edit_and_write):
            self.assertTrue(request_report(self.module).is_corrected)

    def test_request_for_a_report_states_whether_the_doubt_is_calibrated(self) -> None:
        worker = FakeReportWorker()
        self.open(worker)
        for is_calibrated in (True, False):
            worker.is_doubt_calibrated = is_calibrated
            self.segment(add_scan())
            request = request_report(self.module)
            self.assertEqual(request.is_doubt_calibrated, is_calibrated)

    def test_doubt_map_and_doubtful_places_stored_by_an_older_dcamt_are_left_out_of_the_report(self) -> None:
        self.open(FakeReportWorker())
        segmentation = self.segment(add_scan())
        request = request_report(self.module)
        self.assertIsNotNone(request.doubt_map)
        self.assertTrue(request.doubts)
        get_referenced_node(segmentation, DOUBT_MAP).SetAttribute("DCAMT.map", "1")
        segmentation.SetAttribute("DCAMT.doubtfulPlacesOf", None)
        request = request_report(self.module)
        self.assertIsNone(request.doubt_map)
        self.assertIsNone(request.doubt_map_affine)
        self.assertIsNone(request.doubts)
        self.assertTrue(stored_places.doubtful_places(segmentation))

    def test_result_whose_map_of_doubt_has_no_image_is_reported_without_the_map(self) -> None:
        self.open(FakeReportWorker())
        doubt_map = get_referenced_node(self.segment(add_scan()), DOUBT_MAP)
        assert doubt_map is not None
        # If the map's file is missing, Slicer loads the map without an image.
        doubt_map.SetAndObserveImageData(None)
        self.module.leave()
        self.module.enter()
        self.assertFalse(self.ui.doubtCheckBox.enabled)
        request = request_report(self.module)
        self.assertIsNone(request.doubt_map)

    def test_report_has_the_new_result_and_not_the_drawn_segment(self) -> None:
        self.open(FakeReportWorker())
        volume = add_scan()
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
        target.CreateDefaultDisplayNodes()
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        target.GetSegmentation().AddEmptySegment("aorta", "Aorta")
        draw_segment(target, volume, block(1, 2))
        choose(self.ui.outputSelector, target)
        self.assertEqual(self.ui.wallSegmentComboBox.currentText, "Aorta")
        self.segment(volume)
        self.assertEqual(self.ui.wallSegmentComboBox.currentText, "Left atrium")
        request = request_report(self.module)
        self.assertEqual([segment.outline.name for segment in request.segments], ["Left atrium"])
        choose(self.ui.wallSegmentComboBox, "Aorta")
        self.module.enter()
        self.assertEqual(self.ui.wallSegmentComboBox.currentText, "Aorta")
        target.GetSegmentation().RemoveSegment("aorta")
        target.GetSegmentation().AddEmptySegment("vein", "Vein")
        target.GetSegmentation().SetSegmentIndex("vein", 0)
        self.module.enter()
        self.assertEqual(self.ui.wallSegmentComboBox.currentText, "Left atrium")
