"""After training: preview, scores, report, use and export of models, and the ranking of unlabelled cases."""

from __future__ import annotations

import json
import re
import unittest
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import qt
import slicer
from dcamt.cases.case_list import LABELLED, Case
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt.models.calibration import Calibration, OverlapModel
from dcamt.models.package import ModelPackage, calibration_path, open_model, write_package
from dcamt.models.store import model_path, stored_models
from dcamt.runs.folder import RunFolder
from dcamt.runs.preview import Preview, read_preview
from dcamt.runs.state import FINISHED, run_state
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.segment_editor import BACK_BUTTON
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, voxels_of
from DCAMTTrainingLib.cases.derived_nodes import scan_of
from DCAMTTrainingLib.cases.lists import row_of_case
from DCAMTTrainingLib.cases.rows import CaseRow
from DCAMTTrainingLib.cases.scene_source import scene_rows
from DCAMTTrainingLib.panels import outline as outline_panel
from DCAMTTrainingLib.panels import results as results_panel
from DCAMTTrainingLib.runs.array_nodes import box_of
from DCAMTTrainingLib.runs.model_store import current_model, store_model, stored_copy_of, use_model
from DCAMTTrainingLib.runs.preview import remove_preview, show_preview
from DCAMTTrainingLib.runs.proposal import scene_volume
from DCAMTTrainingLib.runs.proposal_opening import ProposalOpening
from slicer_harness import (
    LoopMonitor,
    Person,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
    longest_step,
    process_events,
    process_events_until,
    start_afresh,
)
from training_case import TrainingCase, tiny_model
from training_scenes import add_case, add_outline, add_volume, ellipsoid

PATIENT = "Nachtigall^Hildegard_19470311"


class AfterARunTest(TrainingCase):
    """Tests on one finished run, because training takes long."""

    def test_finished_run_offers_preview_scores_models_and_ranking(self) -> None:
        volume, outline = add_case(f"{PATIENT} baseline", 1)
        held_out, _ = add_case(f"{PATIENT} follow-up", 2)
        for seed in (3, 4):
            add_volume(f"{PATIENT} plain {seed}", ellipsoid(seed)[0])
        click(self.ui.addSceneButton)
        self.session.table.set_role([1], "validation")
        self.choose_tiny_model_and_settings(iterations="60")
        self.set_estimate()
        run = RunFolder(self.runs / "run-1")
        click(self.ui.startButton)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the run's validation cases")
        choose(self.ui.previewSelector, f"{PATIENT} follow-up")
        self.wait_for(lambda: run_state(run).state == FINISHED, "the end of the run")
        self.wait_for(lambda: self.ui.useModelButton.enabled, "its results")
        self.check_preview(run, held_out)
        self.check_results(run)
        self.check_that_no_patient_is_named(run)
        self.check_use_and_export(run)
        self.check_ranking(run)
        self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(outline.GetID()))
        self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(volume.GetID()))

    def check_preview(self, run: RunFolder, held_out) -> None:
        preview = read_preview(run)
        self.assertEqual(preview.step, 60)
        self.wait_for(lambda: "iteration 60" in self.ui.previewStatusLabel.text, "the last preview")
        shown = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if "preview" in n.GetName()]
        self.assertEqual(len(shown), 1)
        # The case comes from the scene, so its own volume is shown.
        self.assertIs(shown[0].GetNodeReference("referenceImageGeometryRef"), held_out)
        segment = shown[0].GetSegmentation().GetNthSegmentID(0)
        drawn = slicer.util.arrayFromSegmentBinaryLabelmap(shown[0], segment, held_out)
        np.testing.assert_array_equal(drawn, np.load(preview.labels))
        choose(self.ui.previewSelector, "none")
        self.assertEqual(
            [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if "preview" in n.GetName()], []
        )

    def check_results(self, run: RunFolder) -> None:
        model = self.ui.resultsTable.model()
        rows = [[model.data(model.index(row, column)) for column in range(6)] for row in range(model.rowCount())]
        # There is no standard deviation of a single case.
        self.assertEqual([row[0] for row in rows], [f"{PATIENT} follow-up", "mean"])
        self.assertEqual([row[1] for row in rows], ["Left atrium"] * 2)
        written = run.validation.read_text(encoding="utf-8").splitlines()[1].split(",")
        self.assertEqual(rows[0][2], f"{float(written[2]):.3f}")
        opened = []
        with mock.patch.object(results_panel, "open_in_browser", opened.append):
            click(self.ui.reportButton)
        self.assertEqual(opened, [run.report])
        html = run.report.read_text(encoding="utf-8")
        self.assertNotIn("http://", re.sub(r"http://www\.w3\.org/\S+", "", html))
        self.assertNotIn("https://", html)

    def check_that_no_patient_is_named(self, run: RunFolder) -> None:
        """Fail if the model or the report contains a patient's name or the path of a scan."""
        with zipfile.ZipFile(run.model) as archive:
            parts = b"".join(archive.read(name) for name in archive.namelist())
        for data in (run.model.read_bytes(), parts, run.report.read_bytes()):
            for word in (*PATIENT.split("^"), "Hildegard", "19470311", "follow-up", str(self.folder), str(Path.home())):
                self.assertEqual(data.count(word.encode()), 0, word)

    def check_use_and_export(self, run: RunFolder) -> None:
        target = self.folder / "given.dcamt"
        with Person() as person:
            person.expects("Export the model", str(target))
            click(self.ui.exportModelButton)
        self.assertEqual(target.read_bytes(), run.model.read_bytes())
        before = {model.name for model in stored_models()}
        click(self.ui.useModelButton)
        self.wait_for(lambda: "is in the list" in self.ui.resultsStatusLabel.text, "the model in the list")
        (name,) = {model.name for model in stored_models()} - before
        self.assertEqual(name, f"run-1_{date.today().isoformat()}")
        self.assertEqual(open_model(model_path(name)).card.trained_on["iterations"], 60)
        # The next run can start from it.
        texts = [self.ui.startFromSelector.itemText(index) for index in range(self.ui.startFromSelector.count)]
        (text,) = (text for text in texts if name in text)
        self.assertRegex(text, rf" \({name}, Dice \d\.\d{{3}}, 60 iterations\)$")
        # Using the same model again adds no second entry.
        click(self.ui.useModelButton)
        self.assertIn(f"“{name}” is in the list of", self.ui.resultsStatusLabel.text)
        self.assertEqual({model.name for model in stored_models()} - before, {name})

    def check_ranking(self, run: RunFolder) -> None:
        with LoopMonitor() as monitor:
            click(self.ui.rankButton)
            self.assertEqual(self.ui.rankButton.text, "Cancel")
            self.wait_for(lambda: self.ui.rankButton.text != "Cancel", "the ranking")
        assert_stays_responsive(monitor.longest_work)
        model = self.ui.rankTable.model()
        self.assertEqual(model.rowCount(), 2)
        scores = [float(model.data(model.index(row, 1)).rstrip("%")) for row in range(2)]
        self.assertEqual(scores, sorted(scores, reverse=True))
        name = model.data(model.index(0, 0))
        click(self.ui.addCaseButton)
        self.assertIn(f"Open “{name}” first", self.ui.rankStatusLabel.text)
        volumes = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
        self.open_case()
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        self.assertEqual(editor.sourceVolumeNode().GetName(), name)
        proposal = editor.segmentationNode()
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), volumes)
        seed = int(name.split()[-1])
        label = ellipsoid(seed)[1]
        identifier = proposal.GetSegmentation().GetNthSegmentID(0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(label, proposal, identifier, editor.sourceVolumeNode())
        self.module.enter()
        click(self.ui.addCaseButton)
        self.assertIn("is a labelled case now", self.ui.rankStatusLabel.text)
        row = next(row for row in self.session.table.rows if row.name == name)
        self.assertEqual((row.role, row.source.segmentation), (LABELLED, proposal.GetID()))
        self.assertTrue(training_cases.is_case(proposal))
        self.assertEqual(len(self.session.table), 4)
        # A second time, the ranking is shown at once.
        self.module.widget.outlining.set_run(self.module.widget.runs.watch)
        self.assertEqual(model.rowCount(), 2)


class OutlineFilesTest(TrainingCase):
    """A ranking of cases in files, made by an earlier session of Slicer."""

    def test_case_from_files_is_opened_with_its_proposal(self) -> None:
        place = (1.2, 2, -0.3)
        saved = self.save_proposal_of_earlier_run(place)
        self.session.table.add([row_of_case(Case("plain", saved.scan_path, None, "unlabelled"))])
        self.module.widget.runs.refresh()
        self.assertEqual(self.ui.rankTable.model().rowCount(), 1)
        cells = self.ui.rankTable.model()
        texts = [str(cells.data(cells.index(0, column))) for column in range(cells.columnCount())]
        self.assertEqual(texts, ["plain", "40.0%", "1, 2, 0"])
        self.open_case()
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        loaded, proposal = editor.sourceVolumeNode(), editor.segmentationNode()
        self.assertEqual((loaded.GetName(), proposal.GetName()), ("plain", "plain (proposed)"))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), saved.image)
        identifier = proposal.GetSegmentation().GetNthSegmentID(0)
        labels = slicer.util.arrayFromSegmentBinaryLabelmap(proposal, identifier, loaded)
        np.testing.assert_array_equal(labels, saved.proposed)
        # The proposal is not a label, because nobody has corrected it.
        click(self.ui.addSceneButton)
        self.assertEqual([row.role for row in self.session.table.rows], ["unlabelled"] * 2)
        self.session.table.remove([1])
        # Saving the proposal later must not write into the run's folder.
        self.assertIsNone(proposal.GetStorageNode())
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            matrix = view.GetSliceToRAS()
            np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], place, atol=1e-6)
        # Opening it again keeps the person's correction.
        slicer.util.updateSegmentBinaryLabelmapFromArray(saved.label, proposal, identifier, loaded)
        self.open_case()
        self.assertIs(editor.segmentationNode(), proposal)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 1)
        self.module.enter()
        click(self.ui.addCaseButton)
        (row,) = self.session.table.rows
        self.assertEqual((row.name, row.role, row.source.volume), ("plain", LABELLED, loaded.GetID()))
        labels = slicer.util.arrayFromSegmentBinaryLabelmap(proposal, row.source.segments[0][0], loaded)
        np.testing.assert_array_equal(labels, saved.label)


class ModelInUseTest(TrainingCase):
    def test_no_model_is_current_before_the_segmentation_module_was_opened(self) -> None:
        settings = slicer.mrmlScene.GetSingletonNode("DCAMTSegmentation", "vtkMRMLScriptedModuleNode")
        slicer.mrmlScene.RemoveNode(settings)
        self.assertFalse(use_model("run-1"))  # the segmentation module was not opened in this scene
        self.assertEqual(current_model(), "")

    def test_recalibrated_model_of_a_run_is_stored_again(self) -> None:
        run = RunFolder(self.runs / "run-1")
        run.path.mkdir()
        package = open_model(tiny_model())

        def stored() -> str:
            return stored_copy_of(run.model) or store_model(run.model, "run-1", best=False)

        write_package(run.model, package)
        plain = stored()
        self.assertEqual(stored(), plain)
        write_package(run.model, replace(package, calibration=calibration_of(package, "within")))
        within = stored()
        self.assertEqual(stored(), within)
        write_package(run.model, package)
        beside = calibration_of(package, "beside")
        calibration_path(run.model).write_text(beside.to_json(), encoding="utf-8")
        with_beside = stored()
        self.assertEqual(stored(), with_beside)
        names = (plain, within, with_beside)
        self.assertEqual(len(set(names)), 3)
        calibrations = [open_model(model_path(name)).calibration for name in names]
        self.assertEqual(
            [calibration and calibration.notes for calibration in calibrations], [None, "within", "beside"]
        )


def calibration_of(package: ModelPackage, notes: str) -> Calibration:
    """Return a calibration whose expected overlap is the same for every segmentation."""
    model = OverlapModel(("entropy",), (0.0,), (1.0,), (0.0,), 2.0, (0.5,), (-0.1,), (0.1,))
    return Calibration(package.card.checksum, {"accurate": model}, 8, 40, notes)


class ProposalTest(TrainingCase):
    def make_ranked_case(self, volume: VolumeNode, name: str = "LGE") -> dict[str, Any]:
        """Write files of the volume and of a proposal; return the ranked case."""
        scan, proposed = self.folder / "00001.nrrd", self.folder / f"{name}.seg.nrrd"
        for _step in write_nrrd_in_slabs(voxels_of(volume), ijk_to_ras(volume), scan):
            pass
        outline = add_outline(volume, ellipsoid(1)[1])
        self.assertTrue(slicer.util.saveNode(outline, str(proposed)))
        slicer.mrmlScene.RemoveNode(outline)
        return {"name": name, "image": str(scan), "segmentation": str(proposed), "place": [1.0, 2.0, 3.0]}

    def test_volume_of_the_same_name_on_another_grid_is_not_used(self) -> None:
        image = ellipsoid(1)[0]
        volume = add_volume("LGE", image)
        case = self.make_ranked_case(volume)
        rows = scene_rows(tiny_recipe())
        self.assertIs(scene_volume(case, rows), volume)
        for change in (lambda: volume.SetOrigin(1, 2, 3), lambda: slicer.util.updateVolumeFromArray(volume, image[1:])):
            change()
            self.assertIsNone(scene_volume(case, rows))
        loaded, proposal = open_nodes(case, rows)
        self.assertIsNot(loaded, volume)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), image)
        self.assertIs(scan_of(proposal), loaded)

    def test_unchanged_proposal_becomes_a_label_only_after_a_question(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        self.save_ranking([{**self.make_ranked_case(volume), "score": 0.4}])
        self.open_case()
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        proposal = editor.segmentationNode()
        panel = slicer.modules.segmenteditor.widgetRepresentation()
        (button,) = panel.findChildren(qt.QPushButton, BACK_BUTTON)
        click(button)
        self.assertEqual(slicer.util.selectedModule(), "DCAMTTraining")
        with Person() as person:
            person.expects("was not changed", "Cancel")
            click(self.ui.addCaseButton)
        self.assertEqual((len(self.session.table), training_cases.is_case(proposal)), (0, False))
        # Editing and undoing: voxels are compared, because Segment Editor's undo sends no event.
        identifier = proposal.GetSegmentation().GetNthSegmentID(0)
        label = ellipsoid(1)[1]
        for voxels in (np.roll(label, 1, axis=0), label):
            slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, proposal, identifier, volume)
        with Person() as person:
            person.expects("was not changed", "Ok")
            click(self.ui.addCaseButton)
        self.assertEqual([row.role for row in self.session.table.rows], [LABELLED])

    def test_ranked_case_can_be_opened_as_soon_as_it_is_listed(self) -> None:
        case = self.make_ranked_case(add_volume("LGE", ellipsoid(1)[0]))
        self.save_ranking([])
        self.assertFalse(self.ui.openCaseButton.enabled or self.ui.addCaseButton.enabled)
        run = self.module.widget.runs.watch.run
        run.model.touch()
        self.module.widget.outlining.update()
        with mock.patch.object(outline_panel, "EngineCommand") as command:
            command.return_value.running = True
            click(self.ui.rankButton)
            on_event = command.call_args.args[1]
            on_event({"event": "scored", **case, "score": 0.4})
        self.assertEqual(self.ui.rankTable.model().rowCount(), 1)
        self.assertTrue(self.ui.openCaseButton.enabled and self.ui.addCaseButton.enabled)

    def save_ranking(self, cases: list[dict[str, Any]]) -> None:
        """Write a run with a ranking of cases, and choose the run in the panel."""
        run = RunFolder(self.runs / "earlier")
        (run.path / "ranking").mkdir(parents=True)
        run.recipe.write_text(tiny_recipe().to_json(), encoding="utf-8")
        (run.path / "ranking" / "ranking.json").write_text(json.dumps(cases), encoding="utf-8")
        self.module.widget.runs.refresh()

    def test_two_runs_have_separate_proposals(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        later = {**case, "segmentation": str(Path(self.folder, "later.seg.nrrd"))}
        Path(later["segmentation"]).write_bytes(Path(case["segmentation"]).read_bytes())
        rows = scene_rows(tiny_recipe())
        first, second = open_nodes(case, rows)[1], open_nodes(later, rows)[1]
        self.assertIsNot(first, second)
        self.assertIs(open_nodes(case, rows)[1], first)

    def test_views_jump_to_the_place_of_a_transformed_volume(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        matrix = np.eye(4)
        matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        matrix[:3, 3] = [10, 20, 30]
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        volume.SetAndObserveTransformNodeID(transform.GetID())
        click(self.ui.addSceneButton)
        self.save_ranking([{**case, "score": 0.4}])
        self.open_case()
        expected = (matrix @ [*case["place"], 1.0])[:3]
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            position = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
            np.testing.assert_allclose(position, expected, atol=1e-6)


class PreviewTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()

    def test_scan_of_a_preview_is_added_to_the_scene(self) -> None:
        import tempfile

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        image, label = ellipsoid(1)
        affine = np.array([[0, -2.0, 0, 5], [2.0, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
        scan, labels = str(Path(folder.name, "scan.npy")), str(Path(folder.name, "labels.npy"))
        np.save(scan, image)
        np.save(labels, label)
        preview = Preview("case", 10, affine.tolist(), scan, labels)
        for _ in range(2):  # the second call updates the same nodes
            for _step in show_preview(preview, tiny_recipe(), "run"):
                process_events()
            volume = slicer.util.getFirstNodeByName("run: case")
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), image)
            matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(volume))
            np.testing.assert_allclose(matrix, affine)
            segmentation = slicer.util.getFirstNodeByName("run: preview, iteration 10")
            segment = segmentation.GetSegmentation().GetNthSegmentID(0)
            drawn = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
            np.testing.assert_array_equal(drawn, label)
            self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
            self.assertFalse(volume.GetSaveWithScene() or segmentation.GetSaveWithScene())
        remove_preview("run")
        for kind in ("Segmentation", "ScalarVolume"):
            for part in ("Node", "DisplayNode"):
                self.assertEqual(slicer.util.getNodesByClass(f"vtkMRML{kind}{part}"), [])

    def test_box_of_a_label_is_its_bounding_box(self) -> None:
        labels = np.zeros((4, 5, 6), np.uint8)
        self.assertIsNone(box_of(labels, 1))
        labels[1:3, 2, 3:6] = 1
        self.assertEqual(box_of(labels, 1), ((3, 6), (2, 3), (1, 3)))

    def test_preview_is_shown_in_short_steps(self) -> None:
        import tempfile

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        draw = np.random.default_rng(0)
        scan, labels = str(Path(folder.name, "scan.npy")), str(Path(folder.name, "labels.npy"))
        np.save(scan, draw.integers(0, 500, (160, 320, 320), dtype=np.int16))
        label = np.zeros((160, 320, 320), np.uint8)
        label[40:110, 100:220, 100:220] = 1
        np.save(labels, label)
        preview = Preview("case", 1, np.eye(4).tolist(), scan, labels)

        def show():
            close_scene()
            return show_preview(preview, tiny_recipe(), "run")

        assert_stays_responsive(longest_step(show))


def open_nodes(case: dict[str, Any], rows: list[CaseRow]) -> tuple[Any, Any]:
    """Open a proposal; return its volume node and its segmentation node."""
    ends: list[tuple[Any, ...]] = []
    ProposalOpening(case, rows, tiny_recipe(), lambda *end: ends.append(end)).start()
    process_events_until(lambda: bool(ends), "the case")
    message, volume, segmentation = ends[0]
    if message:
        raise AssertionError(message)
    return volume, segmentation


def _ijk_to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


if __name__ == "__main__":
    unittest.main()
