"""A finished run: preview, scores, report, use and export of its models, and the ranking of unlabelled cases."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED
from dcamt.models.calibration import Calibration, OverlapFunction
from dcamt.models.package import ModelPackage, calibration_path, open_model, write_package
from dcamt.models.store import model_path, stored_models
from dcamt.runs.folder import RunFolder
from dcamt.runs.preview import read_preview
from dcamt.runs.state import FINISHED, run_state
from DCAMTSegmentationLib import training_cases
from DCAMTTrainingLib.panels import results as results_panel
from DCAMTTrainingLib.runs.model_store import current_model, store_model, stored_copy_of, use_model
from scene_nodes import add_case, add_volume, draw_segment, ellipsoid, segment_mask
from slicer_harness import LoopMonitor, Person, assert_stays_responsive, choose, click
from training_case import FINISHED as FINISHED_EVENT
from training_case import STARTED, TrainingCase, tiny_model

PATIENT = "Nachtigall^Hildegard_19470311"


class AfterARunTest(TrainingCase):
    """One test checks all results of one run, because training takes long."""

    def test_results_of_a_finished_run_are_shown_and_can_be_used(self) -> None:
        volume, outline = add_case(f"{PATIENT} baseline", 1)
        follow_up, _ = add_case(f"{PATIENT} follow-up", 2)
        for seed in (3, 4):
            add_volume(f"{PATIENT} plain {seed}", ellipsoid(seed)[0])
        click(self.ui.addSceneButton)
        self.session.table.set_role([1], "validation")
        self.choose_tiny_model_and_settings(iterations="60")
        self.measure()
        run = RunFolder(self.runs / "run-1")
        click(self.ui.startButton)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the run's validation cases")
        choose(self.ui.previewSelector, f"{PATIENT} follow-up")
        self.wait_for(lambda: run_state(run).state == FINISHED, "the end of the run")
        self.wait_for(lambda: self.ui.useModelButton.enabled, "the run's results")
        self.check_preview(run, follow_up)
        self.check_results(run)
        self.check_that_no_patient_is_named(run)
        self.check_use_and_export(run)
        self.check_ranking(run)
        self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(outline.GetID()))
        self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(volume.GetID()))

    def check_preview(self, run: RunFolder, volume) -> None:
        preview = read_preview(run)
        self.assertEqual(preview.step, 60)
        self.wait_for(lambda: "iteration 60" in self.ui.previewStatusLabel.text, "the last preview")
        shown = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if "preview" in n.GetName()]
        self.assertEqual(len(shown), 1)
        # A case from the scene is shown on its own volume, not on a loaded copy.
        self.assertIs(shown[0].GetNodeReference("referenceImageGeometryRef"), volume)
        drawn = segment_mask(shown[0], volume)
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
        before, day = {model.name for model in stored_models()}, date.today()
        click(self.ui.useModelButton)
        self.wait_for(lambda: "is in the list" in self.ui.resultsStatusLabel.text, "the model in the list")
        (name,) = {model.name for model in stored_models()} - before
        # Midnight may pass during the test.
        self.assertIn(name, [f"run-1_{possible.isoformat()}" for possible in (day, date.today())])
        self.assertEqual(open_model(model_path(name)).card.trained_on["iterations"], 60)
        texts = [self.ui.startFromSelector.itemText(index) for index in range(self.ui.startFromSelector.count)]
        (text,) = (text for text in texts if name in text)
        self.assertRegex(text, rf" \({name}, Dice \d\.\d{{3}}, 60 iterations\)$")
        # Using the same model again adds no second entry.
        click(self.ui.useModelButton)
        self.assertIn(f"“{name}” is in the list of", self.ui.resultsStatusLabel.text)
        self.assertEqual({model.name for model in stored_models()} - before, {name})

    def check_ranking(self, run: RunFolder) -> None:
        # A proposal that a person corrected and saved in Slicer is not replaced.
        saved = run.path / "ranking" / "corrected.seg.nrrd"
        saved.parent.mkdir(exist_ok=True)
        saved.write_bytes(b"NRRD0004\n")
        click(self.ui.rankButton)
        self.assertNotEqual(self.ui.rankButton.text, "Cancel")
        self.assertIn(f"{saved} may contain a saved correction", self.ui.rankStatusLabel.text)
        saved.unlink()
        # A cancelled ranking may leave a temporary file.
        saved.with_name(f".0123abcd-{saved.name}").touch()
        with LoopMonitor() as monitor:
            click(self.ui.rankButton)
            self.assertEqual(self.ui.rankButton.text, "Cancel")
            self.wait_for(lambda: self.ui.rankButton.text != "Cancel", "the ranking")
        assert_stays_responsive(monitor.pause)
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
        draw_segment(proposal, editor.sourceVolumeNode(), label)
        self.module.enter()
        click(self.ui.addCaseButton)
        self.assertIn("is a labelled case now", self.ui.rankStatusLabel.text)
        row = next(row for row in self.session.table.rows if row.name == name)
        self.assertEqual((row.role, row.source.segmentation), (LABELLED, proposal.GetID()))
        self.assertTrue(training_cases.is_case(proposal))
        self.assertEqual(len(self.session.table), 4)
        # When the run is selected again, its saved ranking is shown.
        self.module.widget.outlining.set_run(self.module.widget.runs.watch)
        self.assertEqual(model.rowCount(), 2)


class ModelInUseTest(TrainingCase):
    def test_model_cannot_be_chosen_before_the_segmentation_module_was_opened(self) -> None:
        settings = slicer.mrmlScene.GetSingletonNode("DCAMTSegmentation", "vtkMRMLScriptedModuleNode")
        slicer.mrmlScene.RemoveNode(settings)
        self.assertFalse(use_model("run-1"))
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

    def test_model_is_exported_with_the_calibration_beside_it(self) -> None:
        run, package = self.make_run("run-1", STARTED, FINISHED_EVENT), open_model(tiny_model())
        write_package(run.model, package)
        beside = calibration_path(run.model)
        beside.write_text(calibration_of(package, "beside").to_json(), encoding="utf-8")
        self.module.widget.runs.show(run)
        self.wait_for(lambda: self.ui.exportModelButton.enabled, "the model")
        target = self.folder / "given.dcamt"
        foreign = calibration_path(target)
        foreign.write_text("of another program", encoding="utf-8")
        with Person() as person:
            person.expects("Export the model", str(target))
            person.expects(f"{foreign}: exists already", "Ok")
            click(self.ui.exportModelButton)
        self.assertEqual(foreign.read_text(encoding="utf-8"), "of another program")
        self.assertFalse(target.exists())
        foreign.unlink()
        with Person() as person:
            person.expects("Export the model", str(target))
            click(self.ui.exportModelButton)
        self.assertEqual(open_model(target).calibration.notes, "beside")
        written = target.read_bytes()
        target.write_bytes(b"of a person")
        for answer, content in (("Cancel", b"of a person"), ("Ok", written)):
            with Person() as person:
                person.expects("Export the model", str(target.with_suffix("")))
                person.expects(f"“{target}” exists. Replace the file?", answer)
                click(self.ui.exportModelButton)
            self.assertEqual(target.read_bytes(), content)
        # The export accepts an existing calibration file with the same content.
        with Person() as person:
            person.expects("Export the model", str(target))
            click(self.ui.exportModelButton)
        self.assertEqual(open_model(target).calibration.notes, "beside")


def calibration_of(package: ModelPackage, notes: str) -> Calibration:
    model = OverlapFunction(("entropy",), (0.0,), (1.0,), (0.0,), 2.0, (0.5,), (-0.1,), (0.1,))
    return Calibration(package.card.checksum, {"accurate": model}, 8, 40, notes)
