"""The section Wall: measurement by the worker, refusals, and changes of the scene during a measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
import vtk
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import BORDER, OPENING
from dcamt.wall.files import write_wall, write_wall_csv
from dcamt.wall.settings import IIR, Threshold
from dcamt.worker.events import WallMeasured
from DCAMTSegmentationLib import wall_job, wall_nodes
from DCAMTSegmentationLib.result_nodes import WALL_COLORS, WALL_MODEL, WALL_TABLE, get_referenced_node
from fake_worker import FakeWorker
from scene_nodes import draw_segment
from slicer_harness import Person, choose, click, close_scene, reload_scene
from unchanged_scene import changed_content, fail_after, scene_content, scene_state
from wall_case import (
    AFFINE,
    ENHANCED,
    POOL,
    SHAPE,
    ChosenPhantomCase,
    WorkerWallCase,
    add_closed_curve,
    add_phantom,
    burden_cell,
    expected_wall,
    phantom,
    scalars,
)


class WorkerWallTest(WorkerWallCase):
    def test_worker_measures_the_same_wall_as_the_engine_in_this_process(self) -> None:
        self.assertFalse(self.ui.wallExportButton.enabled)
        choose(self.ui.wallSegmentComboBox, "blood")
        self.measure()
        expected = expected_wall()
        self.assertEqual(self.ui.statusLabel.text, "The wall of ball was measured.")
        for note in expected.notes:
            self.assertIn(note, self.ui.wallLabel.text)
        self.assertFalse(self.ui.show3DCheckBox.checked)  # the segment's surface would hide the wall
        self.assertEqual(burden_cell(self.segmentation), f"{expected.burden.percent:.1f}")
        # The enhanced wall is a cap with a half angle of 60 degrees, which covers (1 - cos 60°) / 2 = 25 % of a sphere.
        self.assertAlmostEqual(float(burden_cell(self.segmentation)), 25, delta=3)
        self.assertIn("IIR > 1.2", self.ui.wallLabel.text)
        self.assertIn("research use only", self.ui.wallLabel.text)
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            exported, written = Path(folder, "panel.csv"), Path(folder, "engine.csv")
            person.expects("Export the wall", str(exported))
            click(self.ui.wallExportButton)
            write_wall_csv([expected], written)
            self.assertEqual(exported.read_text(encoding="utf-8"), written.read_text(encoding="utf-8"))

    def test_changed_outline_is_noticed_and_measured_again(self) -> None:
        volume, segmentation = self.volume, self.segmentation
        warning = "The outline was changed after"

        self.measure()
        before = burden_cell(segmentation, "wall_cm2")
        self.assertNotIn(warning, self.ui.wallLabel.text)
        smaller = phantom()[1]
        smaller[:20] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, segmentation, "blood", volume)
        self.assertIn(warning, self.ui.wallLabel.text)
        self.assertEqual(burden_cell(segmentation, "wall_cm2"), before)
        self.measure()
        self.assertLess(float(burden_cell(segmentation, "wall_cm2")), float(before) - 2)
        self.assertNotIn(warning, self.ui.wallLabel.text)

    def test_new_measurement_keeps_the_chosen_threshold(self) -> None:
        self.measure()
        choose(self.ui.wallKindComboBox, "Blood pool mean + SD")
        burden = burden_cell(self.segmentation)
        self.measure()
        self.assertIn("blood pool mean + 2 SD", self.ui.wallLabel.text)
        self.assertEqual(burden_cell(self.segmentation), burden)

    def test_new_measurement_replaces_an_unreadable_surface(self) -> None:
        quads, no_triangle = vtk.vtkCellArray(), vtk.vtkCellArray()
        for first in range(2):
            quads.InsertNextCell(4, [first, first + 1, first + 2, first + 3])
        self.measure()
        surface = get_referenced_node(self.segmentation, WALL_MODEL).GetPolyData()
        for cells in (quads, no_triangle):
            surface.SetPolys(cells)
            self.assertIsNone(wall_nodes.wall_in_scene(self.segmentation))
        surface.SetPolys(quads)
        self.measure()
        self.assertEqual(self.ui.statusLabel.text, "The wall of ball was measured.")
        surface = get_referenced_node(self.segmentation, WALL_MODEL).GetPolyData()
        surface.SetPoints(None)
        self.measure()
        self.assertEqual(self.ui.statusLabel.text, "The wall of ball was measured.")

    def test_first_measurement_uses_the_threshold_that_was_chosen_before_it(self) -> None:
        self.ui.wallThresholdSlider.value = 1.4
        click(self.ui.wallMeasureButton)
        self.assertFalse(self.ui.wallThresholdSlider.enabled)
        self.wait()
        self.assertTrue(self.ui.wallThresholdSlider.enabled)
        self.assertIn("by IIR > 1.4 ", self.ui.wallLabel.text)
        self.assertEqual(self.ui.wallThresholdSlider.value, 1.4)
        burden = expected_wall().burdens(Threshold(IIR, 1.4))[0]
        self.assertEqual(burden_cell(self.segmentation), f"{burden.percent:.1f}")

    def test_changed_outline_of_a_saved_wall_is_noticed(self) -> None:
        warning = "The outline was changed after"
        self.measure()
        reload_scene()
        slicer.app.processEvents()
        self.assertIn("of the wall is enhanced", self.ui.wallLabel.text)
        self.assertNotIn(warning, self.ui.wallLabel.text)
        volume, segmentation = slicer.util.getNode("ball"), slicer.util.getNode("drawn")
        self.assertIs(wall_nodes.measured_volume(segmentation), volume)
        smaller = phantom()[1]
        smaller[:20] = 0
        self.module.panel.exit()  # the edit must be noticed when the panel is entered again
        draw_segment(segmentation, volume, smaller)
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
        get_referenced_node(segmentation, WALL_MODEL).GetRASBounds(bounds)
        centre = matrix[:3, :3] @ (AFFINE @ [*((np.array(SHAPE) - 1) / 2), 1.0])[:3] + matrix[:3, 3]
        np.testing.assert_allclose((np.array(bounds[::2]) + bounds[1::2]) / 2, centre, atol=1.0)

    def test_refused_input_is_reported_and_leaves_the_scene_unchanged(self) -> None:
        volume, segmentation = self.volume, self.segmentation
        scan, label = phantom()
        tiny = np.zeros_like(label)
        tiny[26:32, 26:32, 26:32] = 1
        for voxels, mask, message in (
            (POOL + ENHANCED - scan, label, "Choose the late-enhancement scan"),
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
            self.assertIsNone(get_referenced_node(segmentation, WALL_MODEL))

    def test_worker_gets_the_chosen_segment_and_not_the_first(self) -> None:
        # The first segment is the atrium; the chosen second segment is refused, because it is tiny.
        tiny = np.zeros(SHAPE, np.uint8)
        tiny[26:32, 26:32, 26:32] = 1
        self.segmentation.GetSegmentation().AddEmptySegment("tiny", "tiny")
        slicer.util.updateSegmentBinaryLabelmapFromArray(tiny, self.segmentation, "tiny", self.volume)
        choose(self.ui.wallSegmentComboBox, "tiny")
        with Person() as person:
            person.expects("Choose the segment of the whole left atrium's blood", "Ok")
            self.measure()
        self.assertIsNone(get_referenced_node(self.segmentation, WALL_MODEL))

    def test_wall_at_the_border_of_the_scan_is_excluded_and_reported(self) -> None:
        volume, segmentation = add_phantom()
        scan, label = phantom()
        slicer.util.updateVolumeFromArray(volume, scan[20:])  # the scan does not contain the lowest 12 mm of the ball
        origin = (AFFINE @ [0, 0, 20, 1])[:3]
        volume.SetOrigin(*origin)
        slicer.util.updateSegmentBinaryLabelmapFromArray(label[20:], segmentation, "blood", volume)
        choose(self.ui.inputSelector, volume)
        choose(self.ui.outputSelector, segmentation)
        self.measure()
        self.assertIn("at the scan's border", self.ui.wallLabel.text)
        self.assertTrue((scalars(segmentation, "opening") == BORDER).any())

    def test_closing_the_scene_ends_the_measurement_and_the_next_scene_can_be_measured(self) -> None:
        def request_and_close(*arguments: Any) -> None:
            type(self.worker).request(self.worker, *arguments)
            close_scene()

        with mock.patch.object(self.worker, "request", side_effect=request_and_close) as request:
            self.measure()
        request.assert_called_once()
        self.assertEqual(list(slicer.util.getNodes("*wall*")), [])
        self.assertIn("No wall yet", self.ui.wallLabel.text)
        self.choose_phantom()
        self.measure()
        self.assertEqual(burden_cell(self.segmentation), f"{expected_wall().burden.percent:.1f}")


class FakeWallWorker(FakeWorker):
    def __init__(self, wall: WallResult) -> None:
        super().__init__()
        self.wall = wall

    def _answer(self, request: Any, on_event: Any) -> None:
        self.before_answer()
        path = request.output / "wall.npz"
        write_wall(self.wall, path)
        on_event(WallMeasured(request.id, path))


class FakeWallCase(ChosenPhantomCase):
    def make_worker(self) -> FakeWallWorker:
        return FakeWallWorker(expected_wall())


class ChangedWhileMeasuredTest(FakeWallCase):
    def measure_while(self, change: Callable[[], object]) -> None:
        self.module.worker.before_answer = change
        self.measure()

    def test_unchanged_volume_causes_no_note(self) -> None:
        self.measure()
        self.assertEqual(self.ui.statusLabel.text, "The wall of ball was measured.")

    def test_changes_during_a_measurement_are_noted_and_do_not_reach_the_worker(self) -> None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "moved")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0])))
        scan, label = phantom()
        smaller = label.copy()
        smaller[:20] = 0

        def change() -> None:
            slicer.util.updateVolumeFromArray(self.volume, 2 * scan + 7)
            slicer.util.updateSegmentBinaryLabelmapFromArray(smaller, self.segmentation, "blood", self.volume)
            self.volume.SetAndObserveTransformNodeID(transform.GetID())
            (request,) = self.module.worker.requests
            np.testing.assert_array_equal(np.load(request.volume), scan)
            np.testing.assert_array_equal(np.load(request.segment.mask), label)

        self.measure_while(change)
        for text in (
            "The voxels of ball were changed during the computation",
            "The transform of ball was changed during the computation",
        ):
            self.assertIn(text, self.ui.statusLabel.text)
        self.assertIn("The outline was changed after", self.ui.wallLabel.text)
        self.assertEqual(burden_cell(self.segmentation), f"{expected_wall().burden.percent:.1f}")

    def test_openings_corrected_during_a_measurement_are_kept(self) -> None:
        self.measure()
        choose(self.ui.wallCurveSelector, add_closed_curve(np.array([-1.0, 0.2, -0.3])))
        with Person() as person:
            person.expects("The openings of the wall were corrected during the measurement", "Ok")
            self.measure_while(lambda: click(self.ui.wallOpenButton))
        self.assertTrue((scalars(self.segmentation, "opening") == OPENING).any())
        self.assertIn("Corrected openings:", self.ui.wallLabel.text)
        with Person() as person:
            person.expects("The openings of this wall were corrected", "Ok")
            self.measure_while(lambda: None)
        self.assertFalse((scalars(self.segmentation, "opening") == OPENING).any())

    def test_wall_of_a_removed_segment_is_discarded(self) -> None:
        self.segmentation.GetSegmentation().AddEmptySegment("other", "other")
        with Person() as person:
            person.expects("segment blood was removed during the measurement; the wall was discarded", "Ok")
            self.measure_while(lambda: self.segmentation.GetSegmentation().RemoveSegment("blood"))
        self.assertIsNone(get_referenced_node(self.segmentation, WALL_MODEL))

    def test_output_chosen_during_a_measurement_stays_visible_in_3d(self) -> None:
        other = add_phantom()[1]
        choose(self.ui.outputSelector, self.segmentation)
        self.assertTrue(self.ui.show3DCheckBox.checked)
        self.measure_while(lambda: choose(self.ui.outputSelector, other))
        self.assertIs(self.module.settings.outputSegmentation, other)
        self.assertTrue(self.ui.show3DCheckBox.checked)
        choose(self.ui.outputSelector, self.segmentation)
        self.assertIn("of the wall is enhanced", self.ui.wallLabel.text)

    def test_return_to_the_module_shows_a_wall_that_was_measured_meanwhile(self) -> None:
        self.measure_while(self.module.leave)
        self.module.enter()
        self.assertFalse(self.ui.show3DCheckBox.checked)  # the segment's surface would hide the wall
        self.assertIn("of the wall is enhanced", self.ui.wallLabel.text)
        self.ui.show3DCheckBox.click()
        self.module.leave()
        self.module.enter()
        self.assertTrue(self.ui.show3DCheckBox.checked)

    def test_wall_is_discarded_if_the_segmentation_or_the_volume_was_removed(self) -> None:
        for node, message in (
            (self.segmentation, "segmentation drawn was removed during the measurement; the wall was discarded"),
            (self.volume, "ball: was removed or changed during the computation, so the result was discarded"),
        ):
            with self.subTest(message), Person() as person:
                person.expects(message, "Ok")
                self.measure_while(lambda node=node: slicer.mrmlScene.RemoveNode(node))
            self.assertEqual(person.seen[0].detail, "")
            self.assertEqual(list(slicer.util.getNodes("*wall*")), [])
            slicer.mrmlScene.AddNode(node)
            choose(self.ui.inputSelector, self.volume)
            choose(self.ui.outputSelector, self.segmentation)


INSERTION_STEPS = {
    wall_nodes: {
        "place_below": 2,
        "build_poly_data": 1,
        "_set_scalars": 5,
        "show_wall": 1,
        "wall_facts": 1,
        "_set_colors": 1,
        "fill_burden": 1,
        "_show": 1,
    },
    wall_job: {"insert_wall": 1, "store_measured_outline": 1, "update_outdated_mark": 1},
}
"""The functions that insert a wall, by module, with the number of their calls."""
PLACED_BELOW_SEGMENTATION = (WALL_MODEL, WALL_TABLE)


class InterruptedInsertionTest(FakeWallCase):
    def fail_after_each_step(self) -> None:
        """Check that the scene is unchanged after a failed measurement, whichever step of the insertion failed."""
        before = scene_content()
        for module, steps in INSERTION_STEPS.items():
            for name, calls in steps.items():
                for call in range(calls):
                    nodes = [get_referenced_node(self.segmentation, role) for role in PLACED_BELOW_SEGMENTATION]
                    missing_nodes = nodes.count(None)
                    if name == "place_below" and call >= missing_nodes:
                        continue  # `place_below` is called only for missing nodes
                    with self.subTest(step=name, call=call), fail_after(module, name, call), Person() as person:
                        person.expects("memory", "Ok")
                        self.measure()
                        self.assertEqual(changed_content(before), [])

    def test_failed_insertion_leaves_the_scene_without_a_wall(self) -> None:
        self.fail_after_each_step()
        self.measure()
        self.assertEqual(burden_cell(self.segmentation), f"{expected_wall().burden.percent:.1f}")

    def insert_earlier_wall(self) -> None:
        wall = expected_wall()
        self.module.worker.wall = replace(wall, ratio=wall.ratio * np.float32(0.9))
        self.measure()
        self.module.worker.wall = wall
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        self.segmentation.SetAttribute("DCAMT.wallOutdated", "1")
        model.GetDisplayNode().SetVisibility(False)
        slicer.modules.colors.logic().GetColorLegendDisplayNode(model).SetTitleText("mine")

    def test_failed_insertion_restores_the_earlier_wall(self) -> None:
        self.insert_earlier_wall()
        self.fail_after_each_step()

    def test_failed_insertion_removes_the_legend_that_it_added(self) -> None:
        self.insert_earlier_wall()
        model = get_referenced_node(self.segmentation, WALL_MODEL)
        slicer.mrmlScene.RemoveNode(slicer.modules.colors.logic().GetColorLegendDisplayNode(model))
        self.fail_after_each_step()

    def test_failed_insertion_restores_what_is_left_of_the_earlier_wall(self) -> None:
        self.insert_earlier_wall()
        slicer.mrmlScene.RemoveNode(get_referenced_node(self.segmentation, WALL_MODEL))
        self.fail_after_each_step()

    def test_failed_insertion_restores_an_earlier_wall_that_had_lost_its_table_and_colours(self) -> None:
        self.insert_earlier_wall()
        for role in (WALL_TABLE, WALL_COLORS):
            slicer.mrmlScene.RemoveNode(get_referenced_node(self.segmentation, role))
        self.fail_after_each_step()

    def test_cancelling_in_each_step_before_the_insertion_leaves_the_scene_unchanged(self) -> None:
        for has_wall in (False, True):
            if has_wall:
                self.insert_earlier_wall()
            before, step = scene_content(), 0
            while self.measure_and_cancel_in_step(step):
                self.assertEqual(changed_content(before), [])
                step += 1
            self.assertGreater(step, 1)

    def measure_and_cancel_in_step(self, step: int) -> bool:
        """Measure the wall and cancel in a step; return whether the measurement was cancelled.

        Args:
            step: the index of a step of `WallJob.take_answer`.
        """
        take_answer, is_cancelled = wall_job.WallJob.take_answer, False

        def take_answer_and_cancel(job: Any, event: WallMeasured) -> Any:
            nonlocal is_cancelled
            for number, outcome in enumerate(take_answer(job, event)):
                is_wall_inserted = outcome is not None
                if number == step and not is_wall_inserted:
                    self.module.logic.cancel()
                    is_cancelled = True
                yield outcome

        with mock.patch.object(wall_job.WallJob, "take_answer", take_answer_and_cancel):
            self.measure()
        return is_cancelled
