"""The section Wall: measurement by the worker, thresholds, openings, report, and saving with the scene."""

from __future__ import annotations

import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.geometry import Grid
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall
from dcamt.wall.burden import BORDER, OPENING
from dcamt.wall.colors import COLOR_STOPS, OPENING_COLOR
from dcamt.wall.files import write_wall, write_wall_csv
from dcamt.worker.protocol import OutlineMethod, PageRequest, PageWritten, WallMeasured
from dcamt_testing import warm_python
from DCAMTSegmentationLib import review, wall_nodes
from DCAMTSegmentationLib.worker_process import WorkerProcess
from DCAMTSlicerLib.result_segments import fingerprint_of, segment_mask
from fake_worker import FakePanel, FakeWorker, ViewCase
from segmentation_case import (
    PATIENCE_S,
    Person,
    SegmentationCase,
    add_scan,
    choose,
    click,
    close_scene,
    process_events_until,
    scene_state,
)
from slicer_harness import in_real_slicer
from vtk.util.numpy_support import vtk_to_numpy

AFFINE = np.diag([-1.25, -1.25, 1.25, 1.0])
SHAPE = (56, 56, 56)
RADIUS_MM, SHELL_MM = 22.0, 4.0
POOL, SHELL, PATCH, LUNG = 200.0, 160.0, 320.0, 20.0


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """Return a scan and a label (K, J, I): a ball of blood in a dark wall with a bright anterior patch."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)[..., ::-1]
    points = (index - (np.array(SHAPE) - 1) / 2) @ AFFINE[:3, :3].T
    away = np.linalg.norm(points, axis=-1)
    anterior = points[..., 1] > 0.5 * away  # a cap with a half angle of 60 degrees, a quarter of the sphere
    draw = np.random.default_rng(0)
    scan = np.where(away <= RADIUS_MM, POOL, LUNG)
    shell = (away > RADIUS_MM) & (away <= RADIUS_MM + SHELL_MM)
    scan = np.where(shell, np.where(anterior, PATCH, SHELL), scan) + draw.normal(0, 3, SHAPE)
    return scan.astype(np.float32), (away <= RADIUS_MM).astype(np.uint8)


def add_phantom(segment: str = "blood") -> tuple[Any, Any]:
    """Add a volume node and a segmentation node that counts as drawn by a person; return both."""
    scan, label = phantom()
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ball")
    slicer.util.updateVolumeFromArray(volume, scan)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(AFFINE))
    volume.CreateDefaultDisplayNodes()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    identifier = segmentation.GetSegmentation().AddEmptySegment(segment, segment)
    slicer.util.updateSegmentBinaryLabelmapFromArray(label, segmentation, identifier, volume)
    return volume, segmentation


def expected_wall() -> WallResult:
    """Return the phantom's wall as measured by the engine in this process."""
    scan, label = phantom()
    grid = Grid(SHAPE[::-1], AFFINE)
    return analyse_wall(
        Volume(scan.transpose(2, 1, 0)[None], grid, Path("ball.nrrd")), Labelmap(label.transpose(2, 1, 0), grid)
    )


def scalars(segmentation: Any, name: str) -> np.ndarray:
    surface = review.get_referenced_node(segmentation, review.WALL).GetPolyData()
    return np.array(vtk_to_numpy(surface.GetPointData().GetArray(name)))


def burden_cell(segmentation: Any, column: str = "burden_percent", row: int = 0) -> str:
    table = review.get_referenced_node(segmentation, review.WALL_TABLE).GetTable()
    return str(table.GetValueByName(row, column).ToString())


class WholeWorkflowTest(SegmentationCase):
    def test_worker_measures_the_same_wall_as_the_command(self) -> None:
        volume, segmentation = add_phantom()
        choose(self.ui.inputSelector, volume)
        choose(self.ui.outputSelector, segmentation)
        self.assertFalse(self.ui.wallExportButton.enabled)
        choose(self.ui.wallSegmentComboBox, "blood")
        click(self.ui.wallMeasureButton)
        process_events_until(lambda: not self.logic.isRunning(), 120, "the wall")
        expected = expected_wall()
        self.assertEqual(self.ui.statusLabel.text, "The wall of ball was measured.")
        for note in expected.notes:
            self.assertIn(note, self.ui.wallLabel.text)
        self.assertFalse(self.ui.show3DCheckBox.checked)  # the segment's surface would hide the wall
        self.assertEqual(burden_cell(segmentation), f"{expected.burden.percent:.1f}")
        # The patch is a cap of 60 degrees, which covers (1 - cos 60°) / 2 = 25 % of a sphere.
        self.assertAlmostEqual(float(burden_cell(segmentation)), 25, delta=3)
        self.assertIn("IIR > 1.2", self.ui.wallLabel.text)
        self.assertIn("research use only", self.ui.wallLabel.text)
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            ours, theirs = Path(folder, "panel.csv"), Path(folder, "shell.csv")
            person.expects("Export the wall", str(ours))
            click(self.ui.wallExportButton)
            write_wall_csv([expected], theirs)
            self.assertEqual(ours.read_text(encoding="utf-8"), theirs.read_text(encoding="utf-8"))


class LastingWorker(WorkerProcess):
    """A worker process that is shared by all tests of a test case."""

    def shutdown(self) -> None:
        """Do nothing; `end` ends the process."""

    def end(self) -> None:
        super().shutdown()


class WorkerWallTest(unittest.TestCase):
    """The section Wall, operated by clicks, with a real worker process."""

    worker: LastingWorker

    @classmethod
    def setUpClass(cls) -> None:
        if not in_real_slicer():
            warm_python.start()
        cls.worker = LastingWorker(temporary_folder=slicer.app.temporaryPath)
        cls.addClassCleanup(cls.worker.end)

    def setUp(self) -> None:
        self.module = FakePanel(self.worker)
        self.addCleanup(self.module.close)
        self.ui = self.module.ui
        self.volume, self.segmentation = add_phantom()
        choose(self.ui.inputSelector, self.volume)
        choose(self.ui.outputSelector, self.segmentation)

    def wait(self) -> None:
        process_events_until(lambda: not self.module.logic.isRunning(), PATIENCE_S, "the worker")

    def measure(self) -> None:
        click(self.ui.wallMeasureButton)
        self.wait()

    def test_changed_outline_is_noticed_and_measured_again(self) -> None:
        volume, segmentation = self.volume, self.segmentation
        warning = "The outline was changed since"

        self.measure()
        before = burden_cell(segmentation, "wall_cm2")
        self.assertNotIn(warning, self.ui.wallLabel.text)
        smaller = phantom()[1]
        smaller[:20] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, segmentation, "blood", volume)
        self.assertIn(warning, self.ui.wallLabel.text)
        self.assertEqual(burden_cell(segmentation, "wall_cm2"), before)  # the value of the earlier outline
        self.measure()
        self.assertLess(float(burden_cell(segmentation, "wall_cm2")), float(before) - 2)
        self.assertNotIn(warning, self.ui.wallLabel.text)

    def test_changed_outline_of_a_saved_wall_is_noticed(self) -> None:
        warning = "The outline was changed since"
        self.measure()
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "scene.mrb"))
            self.assertTrue(slicer.util.saveScene(path))
            close_scene()
            slicer.util.loadScene(path)
        slicer.app.processEvents()
        self.assertIn("of the wall is enhanced", self.ui.wallLabel.text)
        self.assertNotIn(warning, self.ui.wallLabel.text)
        volume, segmentation = slicer.util.getNode("ball"), slicer.util.getNode("drawn")
        self.assertIs(wall_nodes.measured_volume(segmentation), volume)
        smaller = phantom()[1]
        smaller[:20] = 0
        identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
        self.module.panel.exit()  # Segment Editor's edits of a loaded segment send no event
        slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, segmentation, identifier, volume)
        self.module.panel.enter()
        self.assertIn(warning, self.ui.wallLabel.text)

    def test_wall_follows_a_transformed_scan_and_keeps_its_values(self) -> None:
        volume, segmentation = add_phantom()
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], (40.0, -20.0, 7.0)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "moved")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        for node in (volume, segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
        choose(self.ui.inputSelector, volume)
        choose(self.ui.outputSelector, segmentation)
        self.measure()
        self.assertEqual(burden_cell(segmentation), f"{expected_wall().burden.percent:.1f}")
        bounds = [0.0] * 6
        review.get_referenced_node(segmentation, review.WALL).GetRASBounds(bounds)
        centre = matrix[:3, :3] @ (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3] + matrix[:3, 3]
        np.testing.assert_allclose((np.array(bounds[::2]) + bounds[1::2]) / 2, centre, atol=1.0)

    def test_refused_input_is_reported_and_leaves_the_scene_unchanged(self) -> None:
        """The engine's four reasons to refuse a wall, each reported by the worker."""
        volume, segmentation = self.volume, self.segmentation
        scan, label = phantom()
        tiny = np.zeros_like(label)
        tiny[26:32, 26:32, 26:32] = 1
        for voxels, mask, message in (
            (POOL + PATCH - scan, label, "Choose the late-enhancement scan"),
            (
                np.where(label != 0, np.float32(POOL), scan),
                label,
                "Choose the late-enhancement scan, not a mask",
            ),
            (scan, tiny, "Choose the segment of the whole left atrium's blood"),
            (scan - 100, label, "Use the scanner's original magnitude image"),
        ):
            slicer.util.updateVolumeFromArray(volume, voxels.astype(np.float32))
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "blood", volume)
            before = scene_state()
            with Person() as person:
                person.expects(message, "Ok")
                self.measure()
            self.assertIn(message, self.ui.statusLabel.text)
            self.assertEqual(scene_state(), before)
            self.assertIsNone(review.get_referenced_node(segmentation, review.WALL))

    def test_wall_at_the_scan_s_border_is_excluded_and_reported(self) -> None:
        volume, segmentation = add_phantom()
        scan, label = phantom()
        slicer.util.updateVolumeFromArray(volume, scan[20:])  # the scan does not contain the lowest 10 mm of the ball
        origin = (AFFINE @ [0, 0, 20, 1])[:3]
        volume.SetOrigin(*origin)
        slicer.util.updateSegmentBinaryLabelmapFromArray(label[20:], segmentation, "blood", volume)
        choose(self.ui.inputSelector, volume)
        choose(self.ui.outputSelector, segmentation)
        self.measure()
        self.assertIn("at the scan's border", self.ui.wallLabel.text)
        self.assertTrue((scalars(segmentation, "opening") == BORDER).any())

    def test_report_of_a_drawn_segment_has_the_panel_s_numbers_and_no_patient_name(self) -> None:
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
        for shown in ("IIR &gt; 0.97", "Research use only", "drawn by hand or by another program"):
            self.assertIn(shown, text)
        for trace in ("Mueller", "Anna", folder):
            self.assertNotIn(trace, text)
        volume_ml = float(np.count_nonzero(phantom()[1])) * 1.25**3 / 1000
        self.assertIn(f">{volume_ml:.1f}<", text)


class SegmentedReportTest(SegmentationCase):
    def test_report_of_a_result_names_the_model_and_its_correction(self) -> None:
        volume = add_scan("Mueller^Anna")
        segmentation = self.segment(volume)
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.html")

            def write() -> str:
                with Person() as person:
                    person.expects("Write the report", str(page))
                    click(self.ui.reportButton)
                    process_events_until(lambda: not self.logic.isRunning(), 120, "the report")
                return page.read_text(encoding="utf-8")

            text = write()
            trust = review.trust(segmentation)
            assert trust is not None
            self.assertIn(f">{100 * trust:.0f}<", text)
            self.assertIn("Outline: model tiny", text)
            self.assertIn("quality accurate", text)
            self.assertNotIn("corrected by hand", text)
            self.assertNotIn("Mueller", text)
            identifier = segmentation.GetSegmentation().GetNthSegmentID(0)
            array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)
            array[4:8, 4:8, 4:8] = 1 - array[4:8, 4:8, 4:8]
            slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, identifier, volume)
            self.assertIn("then corrected by hand", write())


class WallAnswers(FakeWorker):
    """Answers each request for a wall with that of the phantom, after `before_answer`."""

    def __init__(self, wall: WallResult) -> None:
        super().__init__()
        self.wall = wall

    def _answer(self, request: Any, on_event: Any) -> None:
        self.before_answer()
        path = request.output / "wall.npz"
        write_wall(self.wall, path)
        on_event(WallMeasured(request.id, path))


class ChangedMeanwhileTest(unittest.TestCase):
    """The volume or the segmentation is changed or removed while the worker measures the wall."""

    wall: WallResult

    @classmethod
    def setUpClass(cls) -> None:
        cls.wall = expected_wall()

    def setUp(self) -> None:
        self.module = FakePanel(WallAnswers(self.wall))
        self.addCleanup(self.module.close)
        self.ui = self.module.ui
        self.volume, self.segmentation = add_phantom()
        choose(self.ui.inputSelector, self.volume)
        choose(self.ui.outputSelector, self.segmentation)

    def measure(self, before_answer: Callable[[], object]) -> None:
        self.module.worker.before_answer = before_answer
        click(self.ui.wallMeasureButton)
        process_events_until(lambda: not self.module.logic.isRunning(), PATIENCE_S, "the wall")

    def test_an_unchanged_volume_is_noted_as_such(self) -> None:
        self.measure(lambda: None)
        self.assertEqual(self.ui.statusLabel.text, "The wall of ball was measured.")

    def test_edited_voxels_and_a_changed_transform_are_noted(self) -> None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "moved")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0])))

        def change() -> None:
            slicer.util.arrayFromVolume(self.volume)[0, 0, 0] += 1
            self.volume.SetAndObserveTransformNodeID(transform.GetID())

        self.measure(change)
        for text in (
            "The voxels of ball were changed during the computation",
            "The transform of ball was changed during the computation",
        ):
            self.assertIn(text, self.ui.statusLabel.text)

    def test_another_output_chosen_meanwhile_keeps_its_surface(self) -> None:
        other = add_phantom()[1]
        choose(self.ui.outputSelector, self.segmentation)
        self.assertTrue(self.ui.show3DCheckBox.checked)
        self.measure(lambda: choose(self.ui.outputSelector, other))
        self.assertIs(self.module.settings.outputSegmentation, other)
        self.assertTrue(self.ui.show3DCheckBox.checked)
        choose(self.ui.outputSelector, self.segmentation)
        self.assertIn("of the wall is enhanced", self.ui.wallLabel.text)

    def test_a_removed_node_drops_the_wall(self) -> None:
        for node, message in (
            (self.segmentation, "segmentation drawn was removed during the measurement; the wall was discarded"),
            (self.volume, "ball: was removed or changed during the computation, so the result was discarded"),
        ):
            with self.subTest(message), Person() as person:
                person.expects(message, "Ok")
                self.measure(lambda node=node: slicer.mrmlScene.RemoveNode(node))
            self.assertEqual(person.seen[0].detail, "")
            self.assertEqual(list(slicer.util.getNodes("*wall*")), [])
            slicer.mrmlScene.AddNode(node)
            choose(self.ui.inputSelector, self.volume)
            choose(self.ui.outputSelector, self.segmentation)


class PageAnswers(FakeWorker):
    """Reads the mask of a page's first segment, and answers as if the page had been written."""

    first_mask: np.ndarray

    def _answer(self, request: Any, on_event: Any) -> None:
        if not isinstance(request, PageRequest):
            super()._answer(request, on_event)
            return
        self.first_mask = np.load(request.segments[0].outline.mask)
        on_event(PageWritten(request.id, request.page))


def request_report(module: FakePanel, path: str = "/nowhere/page.html", replace: str = "") -> PageRequest | None:
    """Click *Report…* and return the request.

    Args:
        replace: the answer when asked whether to replace a file.
    """
    earlier = len(module.worker.requests)
    with Person() as person:
        person.expects("Write the report", path)
        if replace:
            person.expects("Replace it?", replace)
        click(module.ui.reportButton)
        process_events_until(lambda: not module.logic.isRunning(), PATIENCE_S, "the report")
    requests: list[PageRequest] = module.worker.requests[earlier:]
    return requests[0] if requests else None


class ReportRequestTest(unittest.TestCase):
    """What a report requests from the worker."""

    wall: WallResult

    @classmethod
    def setUpClass(cls) -> None:
        cls.wall = expected_wall()

    def setUp(self) -> None:
        self.module = FakePanel(PageAnswers())
        self.addCleanup(self.module.close)
        self.ui = self.module.ui
        self.volume, self.segmentation = add_phantom()
        choose(self.ui.inputSelector, self.volume)
        choose(self.ui.outputSelector, self.segmentation)
        wall_nodes.insert_wall(self.wall, self.volume, self.segmentation)
        mask = segment_mask(self.segmentation, "blood")[0]
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint_of({"blood": mask}))

    def add_segment(self) -> np.ndarray:
        """Add the segment "other", half of the ball, and return its voxels."""
        label = phantom()[1]
        label[:28] = 0
        self.segmentation.GetSegmentation().AddEmptySegment("other", "other")
        slicer.util.updateSegmentBinaryLabelmapFromArray(label, self.segmentation, "other", self.volume)
        slicer.app.processEvents()
        return label

    def report(self) -> PageRequest:
        request = request_report(self.module)
        assert request is not None
        self.assertIn("The report was written", self.ui.statusLabel.text)
        return request

    def test_file_to_whose_name_the_ending_was_added_is_replaced_only_if_the_person_agrees(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.html")
            page.touch()
            self.assertIsNone(request_report(self.module, str(page.with_suffix("")), "Cancel"))
            for path, answer in ((page.with_suffix(""), "Ok"), (page, "")):
                request = request_report(self.module, str(path), answer)
                assert request is not None
                self.assertEqual(request.page, page)

    def test_wall_of_the_chosen_scan_and_segment_is_in_the_report(self) -> None:
        request = self.report()
        self.assertIsNotNone(request.wall)
        self.assertEqual(request.notes, ())

    def test_wall_of_another_scan_is_left_out_with_a_note(self) -> None:
        choose(self.ui.inputSelector, add_phantom()[0])
        self.assertIs(self.module.settings.outputSegmentation, self.segmentation)
        request = self.report()
        self.assertIsNone(request.wall)
        self.assertEqual(request.notes, ("The wall was measured in another scan and was left out.",))

    def test_report_is_of_the_chosen_segment_and_leaves_out_another_segment_s_wall(self) -> None:
        label = self.add_segment()
        choose(self.ui.wallSegmentComboBox, "other")
        request = self.report()
        np.testing.assert_array_equal(self.module.worker.first_mask, label)
        self.assertIsNone(request.wall)
        self.assertEqual(request.notes, ("The wall was measured of another segment and was left out.",))

    def test_wall_stays_in_the_report_after_an_edit_of_another_segment(self) -> None:
        self.add_segment()
        self.assertTrue(wall_nodes.is_outdated(self.segmentation))
        request = self.report()
        self.assertIsNotNone(request.wall)
        self.assertEqual(request.notes, ())


class OlderResultReportTest(ViewCase):
    def test_result_without_stored_method_is_reported_as_a_model_s(self) -> None:
        self.open(PageAnswers())
        segmentation = self.segment(add_scan())
        segmentation.SetAttribute("DCAMT.outlineMethod", None)
        request = request_report(self.module)
        assert request is not None
        self.assertEqual(request.method, OutlineMethod("", "Left atrium in LGE-MRI", "", "", "accurate"))
        self.assertEqual((request.trust, len(request.doubts)), (0.93, 2))


class InsertedWallCase(unittest.TestCase):
    def setUp(self) -> None:
        self.module = FakePanel(FakeWorker())
        self.addCleanup(self.module.close)
        self.ui = self.module.ui
        self.volume, self.segmentation = add_phantom()
        choose(self.ui.inputSelector, self.volume)
        choose(self.ui.outputSelector, self.segmentation)
        self.wall = expected_wall()
        wall_nodes.insert_wall(self.wall, self.volume, self.segmentation)
        self.module.panel.enter()


class OutlineTest(InsertedWallCase):
    def test_changed_outline_is_noticed_until_the_change_is_undone(self) -> None:
        mask = segment_mask(self.segmentation, "blood")[0]
        wall_nodes.store_measured_outline(self.segmentation, "blood", fingerprint_of({"blood": mask}))
        warning, label = "The outline was changed since", phantom()[1]
        self.module.panel.enter()
        self.assertNotIn(warning, self.ui.wallLabel.text)
        smaller = label.copy()
        smaller[:20] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, self.segmentation, "blood", self.volume)
        self.assertIn(warning, self.ui.wallLabel.text)
        self.module.panel.enter()
        self.assertIn(warning, self.ui.wallLabel.text)
        slicer.util.updateSegmentBinaryLabelmapFromArray(label, self.segmentation, "blood", self.volume)
        again = segment_mask(self.segmentation, "blood")[0]
        np.testing.assert_array_equal(again, mask)
        self.module.panel.enter()
        self.assertNotIn(warning, self.ui.wallLabel.text)


class ThresholdTest(InsertedWallCase):
    def test_presets_and_slider_change_colors_and_burden_without_the_worker(self) -> None:
        before = burden_cell(self.segmentation)
        preset = next(
            self.ui.wallPresetComboBox.itemText(index)
            for index in range(self.ui.wallPresetComboBox.count)
            if self.ui.wallPresetComboBox.itemText(index).startswith("IIR > 1.61")
        )
        choose(self.ui.wallPresetComboBox, preset)
        self.assertLess(float(burden_cell(self.segmentation)), float(before))
        self.assertIn("IIR > 1.61", self.ui.wallLabel.text)
        self.ui.wallThresholdSlider.value = 0.6
        self.assertEqual(self.ui.wallPresetComboBox.currentText, "Own threshold")
        ratio, kind = scalars(self.segmentation, "ratio"), scalars(self.segmentation, "opening")
        np.testing.assert_array_equal(scalars(self.segmentation, "enhanced"), (ratio > 0.6) & (kind == 0))
        self.assertEqual(self.module.worker.requests, [])

    def test_colors_change_at_the_threshold(self) -> None:
        colors = review.get_referenced_node(self.segmentation, review.WALL_COLORS)
        for threshold in (0.8, 1.2, 1.6):
            self.ui.wallThresholdSlider.value = threshold
            at = (threshold - wall_nodes.LOWEST) / (wall_nodes.HIGHEST - wall_nodes.LOWEST) * (wall_nodes.COLORS - 1)
            below, above = [0.0] * 4, [0.0] * 4
            colors.GetColor(int(at) - 2, below)
            colors.GetColor(int(at) + 2, above)
            self.assertGreater(below[2], below[0])  # bluish
            self.assertGreater(above[0], above[2] + 0.4)  # yellow to red
        # The end colours and the grey of openings equal those in the report's pictures.
        for index, color in ((1, COLOR_STOPS[0][1]), (wall_nodes.COLORS - 1, COLOR_STOPS[-1][1]), (0, OPENING_COLOR)):
            found = [0.0] * 4
            colors.GetColor(index, found)
            np.testing.assert_allclose(found[:3], color, atol=0.01)

    def test_burden_of_a_threshold_is_computed_within_50_ms(self) -> None:
        took = []
        for step in range(8):
            began = time.thread_time()
            self.ui.wallThresholdSlider.value = 1.0 + 0.05 * step
            took.append(time.thread_time() - began)
        self.assertLess(min(took), 0.05, took)

    def test_threshold_by_standard_deviations_is_another_method(self) -> None:
        choose(self.ui.wallKindComboBox, "Blood pool mean + SD")
        self.assertIn("blood pool mean + 2 SD", self.ui.wallLabel.text)
        self.assertEqual(self.ui.wallThresholdSlider.value, 2.0)


class OpeningTest(InsertedWallCase):
    def curve(self, towards: np.ndarray, degrees: float = 35.0) -> Any:
        """Add a closed curve around a cap of the ball."""
        axis = towards / np.linalg.norm(towards)
        side = np.cross(axis, [0.3, 0.2, 1.0])
        side /= np.linalg.norm(side)
        other = np.cross(axis, side)
        centre = (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3]
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsClosedCurveNode", "valve")
        for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            way = np.cos(np.radians(degrees)) * axis
            way = way + np.sin(np.radians(degrees)) * (np.cos(turn) * side + np.sin(turn) * other)
            node.AddControlPoint(*(centre + RADIUS_MM * way))
        return node

    def test_surface_inside_a_curve_becomes_an_opening_and_wall_again(self) -> None:
        before = float(burden_cell(self.segmentation, "wall_cm2"))
        already = scalars(self.segmentation, "opening") == OPENING
        choose(self.ui.wallCurveSelector, self.curve(np.array([-1.0, 0.2, -0.3])))
        click(self.ui.wallOpenButton)
        opened = scalars(self.segmentation, "opening") == OPENING
        areas = self.wall.surface.point_areas
        # The area of a spherical cap with a half angle of 35 degrees.
        cap_cm2 = 2 * np.pi * RADIUS_MM**2 * (1 - np.cos(np.radians(35))) / 100
        self.assertAlmostEqual(areas[opened & ~already].sum() / 100, cap_cm2, delta=0.15 * cap_cm2)
        self.assertLess(float(burden_cell(self.segmentation, "wall_cm2")), before - 0.8 * cap_cm2)
        self.assertIn("corrected", self.ui.wallLabel.text)
        click(self.ui.wallCloseButton)
        self.assertAlmostEqual(float(burden_cell(self.segmentation, "wall_cm2")), before, delta=0.11)

    def test_all_of_a_wide_cap_inside_a_curve_becomes_an_opening(self) -> None:
        axis = np.array([-1.0, 0.2, -0.3])
        choose(self.ui.wallCurveSelector, self.curve(axis, degrees=60.0))
        click(self.ui.wallOpenButton)
        points = self.wall.surface.points - (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3]
        cosine = points @ axis / np.linalg.norm(axis) / np.linalg.norm(points, axis=1)
        inside = cosine > np.cos(np.radians(52))  # the outline is a polygon of twelve corners
        self.assertTrue((scalars(self.segmentation, "opening")[inside] == OPENING).all())

    def test_surface_without_any_wall_is_reported_without_a_burden(self) -> None:
        corners = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z])
        for axis in corners:  # curves around caps that together cover the ball
            choose(self.ui.wallCurveSelector, self.curve(axis.astype(float)))
            click(self.ui.wallOpenButton)
        self.assertTrue((scalars(self.segmentation, "opening") == OPENING).all())
        self.assertIn("No wall is left", self.ui.wallLabel.text)
        self.assertNotIn("nan", self.ui.wallLabel.text)
        self.assertEqual(burden_cell(self.segmentation), "")

    def test_missing_curve_is_reported(self) -> None:
        with Person() as person:
            person.expects("Draw a closed curve", "Ok")
            click(self.ui.wallOpenButton)


class WallSceneTest(InsertedWallCase):
    def test_wall_is_restored_with_a_saved_scene(self) -> None:
        self.ui.wallThresholdSlider.value = 1.4
        text, cells = self.ui.wallLabel.text, burden_cell(self.segmentation)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "scene.mrb"))
            self.assertTrue(slicer.util.saveScene(path))
            close_scene()
            self.assertIn("No wall yet", self.ui.wallLabel.text)
            slicer.util.loadScene(path)
        slicer.app.processEvents()
        self.assertEqual(self.ui.wallLabel.text, text)
        loaded = slicer.util.getNode("drawn")
        self.assertEqual(burden_cell(loaded), cells)
        self.ui.wallThresholdSlider.value = 0.6
        self.assertNotEqual(burden_cell(loaded), cells)
        model = review.get_referenced_node(loaded, review.WALL)
        self.assertEqual(model.GetDisplayNode().GetActiveScalarName(), wall_nodes.SHOWN)

    def test_wall_is_removed_with_its_segmentation(self) -> None:
        slicer.mrmlScene.RemoveNode(self.segmentation)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
        names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLModelNode")]
        self.assertNotIn("ball wall", names)

    def test_scalar_bar_explains_the_colors(self) -> None:
        (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        self.assertTrue(legend.GetVisibility())
        self.assertEqual(legend.GetTitleText(), "Intensity ratio")
