"""The table of measurements: its numbers, and their export to the clipboard and to a file."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import slicer
from dcamt.geometry import Grid
from dcamt.io import in_use
from DCAMTSegmentationLib import correction_marks, measuring_job
from DCAMTSegmentationLib.measurements_table import rows_of
from DCAMTSegmentationLib.result_nodes import MEASUREMENTS, get_referenced_node
from fake_worker import PanelCase, slice_composites
from made_results import oblique
from scene_nodes import add_scan, draw_segment, segment_mask
from slicer_harness import (
    Person,
    choose,
    click,
    expect_no_hidden_errors,
    process_events,
    process_events_until,
    start_afresh,
)
from unchanged_scene import changed_content, fail_after, scene_content


class AnalyticMeasurementTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()

    def test_table_shows_the_size_of_ellipsoids_on_an_oblique_anisotropic_grid(self) -> None:
        from dcamt.metrics.measurements import measure
        from dcamt.recipe_files import load_recipe
        from dcamt.volume import Labelmap
        from DCAMTSegmentationLib.measurements_table import fill_table

        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
        affine = oblique() @ np.diag([0.5, 0.5, 0.6, 1])
        shape = (130, 130, 110)
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
        points = (index - (np.array(shape) - 1) / 2) @ affine[:3, :3].T
        for radii in ((30.0, 30.0, 30.0), (38.0, 22.0, 30.0)):
            with self.subTest(radii):
                inside = ((points / radii) ** 2).sum(axis=-1) <= 1
                rows = measure(Labelmap(inside.astype(np.uint8), Grid(shape, affine)), load_recipe("la").classes, "x")
                fill_table(table, rows)
                (row,) = rows_of(table, None)
                a, b, c = radii
                volume_ml = 4 / 3 * np.pi * a * b * c / 1000
                p = 1.6075  # K. Thomsen's formula of an ellipsoid's area, whose error is at most 1.1 %
                mean = ((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3
                surface_cm2 = 4 * np.pi * mean ** (1 / p) / 100
                self.assertAlmostEqual(float(row["volume_ml"]) / volume_ml, 1, delta=0.02)
                self.assertAlmostEqual(float(row["surface_cm2"]) / surface_cm2, 1, delta=0.02)
                self.assertAlmostEqual(float(row["long_diameter_mm"]) / (2 * max(radii)), 1, delta=0.02)
                self.assertAlmostEqual(float(row["transverse_diameter_mm"]) / (2 * a), 1, delta=0.02)
                self.assertAlmostEqual(float(row["anteroposterior_diameter_mm"]) / (2 * b), 1, delta=0.02)

    def test_volume_of_a_single_voxel_is_not_rounded_to_zero(self) -> None:
        from dcamt.metrics.measurements import measure
        from dcamt.recipe_files import load_recipe
        from dcamt.volume import Labelmap
        from DCAMTSegmentationLib.measurements_table import fill_table

        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
        voxels = np.zeros((8, 8, 8), np.uint8)
        voxels[4, 4, 4] = 1
        grid = Grid(voxels.shape, np.diag([1.2, 1.2, 1.25, 1.0]))
        fill_table(table, measure(Labelmap(voxels, grid), load_recipe("la").classes, "x"))
        self.assertEqual(rows_of(table, None)[0]["volume_ml"], "0.002")  # 0.0018 mL


class MeasurementsTest(PanelCase):
    def test_measurements_are_copied_in_a_format_for_spreadsheets(self) -> None:
        segmentation = self.segment(add_scan())
        click(self.ui.copyButton)
        head, row = slicer.app.clipboard().text().splitlines()
        self.assertEqual(head.split("\t")[:3], ["Scan", "Segment", "Volume (mL)"])
        values = row.split("\t")
        self.assertEqual(values[:2], ["LGE", "Left atrium"])
        self.assertEqual(values[2], self.logic.measurements(segmentation)[0]["volume_ml"])
        self.assertEqual(len(values), len(head.split("\t")))

    def test_measurements_are_exported(self) -> None:
        segmentation = self.segment(add_scan())
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            path = Path(folder, "atrium.csv")
            person.expects("Export measurements", str(path))
            click(self.ui.exportButton)
            lines = path.read_text(encoding="utf-8").splitlines()
        self.assertTrue(lines[0].startswith("scan,segment,volume_ml,surface_cm2,long_diameter_mm"))
        self.assertEqual(lines[1].split(","), list(self.logic.measurements(segmentation)[0].values()))

    def test_exports_have_the_present_name_of_the_scan_unless_another_name_was_typed(self) -> None:
        volume = add_scan("Mueller^Anna")
        segmentation = self.segment(volume)
        volume.SetName("P01")
        slicer.util.getNode("Mueller^Anna measurements").SetName("table")

        def exported() -> list[str]:
            click(self.ui.copyButton)
            copied = slicer.app.clipboard().text().splitlines()[1].split("\t")[0]
            with tempfile.TemporaryDirectory() as folder, Person() as person:
                path = Path(folder, "atrium.csv")
                person.expects("Export measurements", str(path))
                click(self.ui.exportButton)
                written = path.read_text(encoding="utf-8").splitlines()[1].split(",")[0]
            return [copied, written, self.logic.measurements(segmentation)[0]["scan"]]

        self.assertEqual(exported(), ["P01"] * 3)
        table = get_referenced_node(segmentation, MEASUREMENTS)
        table.GetTable().SetValueByName(0, "scan", "typed")
        self.assertEqual(exported(), ["typed"] * 3)
        click(self.ui.measureButton)
        self.wait()
        volume.SetName("P02")
        self.assertEqual(exported(), ["P02"] * 3)

    def test_exports_have_the_new_name_of_a_scan_that_was_renamed_and_removed(self) -> None:
        volume = add_scan("Mueller^Anna")
        segmentation = self.segment(volume)
        volume.SetName("P01")
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(self.logic.measurements(segmentation)[0]["scan"], "P01")
        self.settings.outputSegmentation = segmentation
        click(self.ui.copyButton)
        self.assertNotIn("Mueller", slicer.app.clipboard().text())

    def test_outdated_measurements_of_a_removed_scan_are_marked_until_the_result_is_measured_again(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        smaller = segment_mask(segmentation, volume).copy()
        smaller[:8] = 0
        scan_on_the_same_grid = add_scan("other")
        slicer.mrmlScene.RemoveNode(volume)
        choose(self.ui.outputSelector, segmentation)
        lost, outdated = "The scan of this result is not in the scene.", "changed since the measurement: measure again"
        self.assertEqual(self.ui.trustLabel.text, lost)
        draw_segment(segmentation, scan_on_the_same_grid, smaller)
        self.module.enter()
        self.assertIn(lost, self.ui.trustLabel.text)
        self.assertIn(outdated, self.ui.trustLabel.text)
        click(self.ui.measureButton)
        self.wait()
        self.assertEqual(self.ui.trustLabel.text, lost)
        volume_ml = np.count_nonzero(smaller) * 1.5**3 / 1000
        self.assertEqual(self.logic.measurements(segmentation)[0]["volume_ml"], f"{volume_ml:.2f}")

    def test_measurements_are_outdated_if_the_only_measured_segment_is_removed(self) -> None:
        segmentation = self.segment(add_scan())
        segments = segmentation.GetSegmentation()
        identifier = segments.GetNthSegmentID(0)
        removed = segments.GetSegment(identifier)
        segments.RemoveSegment(identifier)
        process_events()
        self.assertIn("The segmentation may have changed since the measurement", self.ui.trustLabel.text)
        segments.AddSegment(removed, identifier)  # as Undo in Segment Editor does
        process_events()
        self.assertNotIn("The segmentation may have changed since the measurement", self.ui.trustLabel.text)
        segments.RemoveSegment(identifier)
        # Apply opens no dialog, because no segment is left that the new result would replace.
        click(self.ui.applyButton)
        self.wait()
        self.assertEqual(segments.GetNumberOfSegments(), 1)
        self.assertNotIn("The segmentation may have changed since the measurement", self.ui.trustLabel.text)

    def test_outdated_measurements_are_exported_and_copied_only_after_a_question(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        smaller = segment_mask(segmentation, volume)
        smaller[:8] = 0
        draw_segment(segmentation, volume, smaller)
        question = "The segmentation may have changed since the measurement"
        slicer.app.clipboard().setText("earlier")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "atrium.csv")
            with Person() as person:
                for button in (self.ui.exportButton, self.ui.copyButton):
                    person.expects(question, "Cancel")
                    click(button)
            self.assertFalse(path.exists())
            self.assertEqual(slicer.app.clipboard().text(), "earlier")
            with Person() as person:
                person.expects(question, "Ok")
                person.expects("Export measurements", str(path))
                click(self.ui.exportButton)
                person.expects(question, "Ok")
                click(self.ui.copyButton)
            self.assertTrue(path.exists())
            self.assertIn("Left atrium", slicer.app.clipboard().text())

    def test_failed_export_is_reported_with_the_reason(self) -> None:
        self.segment(add_scan())
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            table = Path(folder, "table.csv")
            table.mkdir()
            person.expects("Export measurements", str(table))
            person.expects("is a folder", "Ok")
            click(self.ui.exportButton)
        self.assertEqual(len(person.errors()), 1)

    def test_export_to_a_table_open_in_another_program_fails_soon_on_windows(self) -> None:
        self.segment(add_scan())
        waits: list[float] = []
        clock = SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append)
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(in_use, "sys", SimpleNamespace(platform="win32")),
            mock.patch.object(in_use, "time", clock),
            mock.patch.object(os, "replace", side_effect=PermissionError(errno.EACCES, "Access is denied")),
            Person() as person,
        ):
            person.expects("Export measurements", str(Path(folder, "table.csv")))
            person.expects("Close programs that use the file", "Ok")
            click(self.ui.exportButton)
            self.assertEqual(os.listdir(folder), [])
        self.assertLess(0, sum(waits))
        self.assertLess(sum(waits), 0.5)

    def test_buttons_are_disabled_after_the_table_is_deleted(self) -> None:
        self.segment(add_scan())
        self.assertTrue(self.ui.exportButton.enabled)
        slicer.mrmlScene.RemoveNode(slicer.util.getNode("LGE measurements"))
        self.assertFalse(self.ui.exportButton.enabled)
        self.assertFalse(self.ui.copyButton.enabled)
        self.assertFalse(self.ui.measureButton.enabled)

    def test_export_appends_csv_to_a_name_with_an_unknown_ending(self) -> None:
        self.segment(add_scan())
        with tempfile.TemporaryDirectory() as folder, Person() as person:
            typed, table = Path(folder, "table 1.2"), Path(folder, "table 1.2.csv")
            for answer in ("", "Cancel", "Ok"):
                person.expects("Export measurements", str(typed))
                if answer:
                    table.write_text("of a person", encoding="utf-8")
                    person.expects(f"“{table}” exists. Replace the file?", answer)
                click(self.ui.exportButton)
                self.assertEqual(table.read_text(encoding="utf-8") == "of a person", answer == "Cancel")
            self.assertEqual([path.name for path in table.parent.iterdir()], [table.name])

    def test_export_without_a_chosen_file_shows_no_error(self) -> None:
        self.segment(add_scan())
        with Person() as person:
            person.expects("Export measurements", "")
            click(self.ui.exportButton)
        self.assertEqual(person.errors(), [])

    def test_volume_has_two_decimals(self) -> None:
        self.segment(add_scan())
        table = self.ui.measurementsTable.mrmlTableNode().GetTable()
        text = table.GetValueByName(0, "volume_ml").ToString()
        self.assertRegex(text, r"^\d+\.\d\d$")

    def test_measurement_leaves_the_views_unchanged(self) -> None:
        segmentation = self.segment(add_scan())
        segmentation.GetDisplayNode().SetVisibility(False)
        slicer.util.setSliceViewerLayers(background=add_scan("other"))
        self.ui.inputsCollapsibleButton.collapsed = False
        views = [view.GetBackgroundVolumeID() for view in slice_composites()]
        click(self.ui.measureButton)
        self.wait()
        self.assertIn("were measured", self.ui.statusLabel.text)
        self.assertFalse(segmentation.GetDisplayNode().GetVisibility())
        self.assertEqual([view.GetBackgroundVolumeID() for view in slice_composites()], views)
        self.assertFalse(self.ui.inputsCollapsibleButton.collapsed)

    def test_failed_measurement_leaves_the_scene_unchanged(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        smaller = segment_mask(segmentation, volume)
        smaller[:8] = 0
        draw_segment(segmentation, volume, smaller)
        process_events_until(lambda: self.ui.measureButton.enabled, "the button")
        correction_marks.update_correction_marks(segmentation)
        before = scene_content()
        for module, name in (
            (measuring_job, "fill_table"),
            (correction_marks, "mark_measured"),
            (correction_marks, "fingerprint"),
        ):
            with self.subTest(name), fail_after(module, name), Person() as person:
                person.expects("memory", "Ok")
                click(self.ui.measureButton)
                self.wait()
            self.assertEqual(changed_content(before), [])
        click(self.ui.measureButton)
        self.wait()
        self.assertNotEqual(changed_content(before), [])

    def test_result_without_a_labelmap_or_a_segment_cannot_be_measured(self) -> None:
        segmentation = self.segment(add_scan())
        rows = self.logic.measurements(segmentation)
        segmentation.CreateClosedSurfaceRepresentation()
        held = segmentation.GetSegmentation()
        held.SetSourceRepresentationName("Closed surface")
        held.RemoveRepresentation("Binary labelmap")
        with Person() as person:
            person.expects("the segment Left atrium has no binary labelmap", "Ok")
            click(self.ui.measureButton)
            self.wait()
        held.RemoveAllSegments()
        with Person() as person:
            person.expects("has no segment that DCAMT wrote", "Ok")
            click(self.ui.measureButton)
            self.wait()
        self.assertEqual(self.logic.measurements(segmentation), rows)

    def test_column_that_was_removed_from_the_table_is_empty_and_not_0(self) -> None:
        segmentation = self.segment(add_scan())
        table = get_referenced_node(segmentation, MEASUREMENTS)
        assert table is not None
        for column in ("volume_ml", "surface_cm2"):
            table.RemoveColumn(table.GetTable().GetColumnIndex(column))
        (row,) = self.logic.measurements(segmentation)
        self.assertEqual((row["volume_ml"], row["surface_cm2"], row["sphericity"]), ("", "", "0.900"))
        self.module.leave()
        self.module.enter()
        self.assertEqual(self.ui.resultLabel.text, "LGE: Left atrium")

    def test_result_without_a_display_node_is_measured_and_replaced(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        slicer.mrmlScene.RemoveNode(segmentation.GetDisplayNode())
        click(self.ui.measureButton)
        self.wait()
        self.assertIn("were measured", self.ui.statusLabel.text)
        self.assertIs(self.segment(volume), segmentation)
        self.assertTrue(segmentation.GetDisplayNode().GetVisibility())

    def test_scan_name_stays_hidden_and_segment_names_are_shown_only_for_several_segments(self) -> None:
        held = self.segment(add_scan()).GetSegmentation()
        table = self.ui.measurementsTable
        self.assertEqual([table.isRowHidden(row) for row in range(3)], [True, True, False])
        click(self.ui.measureButton)
        self.wait()
        self.assertEqual([table.isRowHidden(row) for row in range(3)], [True, True, False])
        second = slicer.vtkSegment()
        second.DeepCopy(held.GetNthSegment(0))
        second.SetName("second")
        held.AddSegment(second)
        click(self.ui.measureButton)
        self.wait()
        self.assertEqual([table.isRowHidden(row) for row in range(3)], [True, False, False])

    def test_proposed_file_name_has_no_slash_and_no_colon(self) -> None:
        self.segment(add_scan("LGE 1/2: a"))
        with mock.patch("qt.QFileDialog.getSaveFileName", return_value="") as dialog:
            click(self.ui.exportButton)
        self.assertEqual(dialog.call_args.args[2], "LGE 1_2_ a measurements.csv")

    def test_panel_shows_an_edited_measurement(self) -> None:
        table = self.segment(add_scan()).GetNodeReference(MEASUREMENTS)
        for typed, shown in (("2,4", "2,4"), ("about 5", "about 5"), ("54.35", "54.35")):
            table.SetCellText(0, 2, typed)
            self.module.leave()
            self.module.enter()
            self.assertIn(f"{shown} mL", self.ui.resultLabel.text)
        table.RemoveAllColumns()
        self.module.enter()
        self.assertGreaterEqual(self.ui.measurementsTable.height, 0)
        expect_no_hidden_errors()

    def test_error_contains_the_name_of_a_segmentation_removed_during_its_measurement(self) -> None:
        segmentation = self.segment(add_scan())
        click(self.ui.measureButton)
        slicer.mrmlScene.RemoveNode(segmentation)
        with Person() as person:
            person.expects("LGE segmentation: was removed during the measurement", "Ok")
            self.wait()
