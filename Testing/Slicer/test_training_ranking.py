"""The ranking of unlabelled cases: enabled buttons, and the opening of proposals."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_arrays import CaseArrays
from dcamt.errors import InputError, OutputError
from dcamt.runs.folder import RunFolder
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSlicerLib import stepped_task
from DCAMTTrainingLib.cases.derived_nodes import PROPOSAL_FILE
from DCAMTTrainingLib.panels import outline as outline_panel
from DCAMTTrainingLib.runs import proposal_opening
from DCAMTTrainingLib.runs.proposal_opening import ProposalOpening
from DCAMTTrainingLib.runs.ranking import read_ranking
from scene_nodes import add_volume, segment_mask
from slicer_harness import (
    Person,
    announce_quitting,
    assert_stays_responsive,
    click,
    close_scene,
    longest_step,
    process_events,
)
from training_case import TrainingCase


class FakeCommand:
    """Replaces the ranking command; tests call its `on_event` and `on_end`."""

    def __init__(self, arguments, on_event, on_end) -> None:
        self.arguments = arguments
        self.on_event, self.on_end, self.running = on_event, on_end, False

    def start(self):
        self.running = True
        return self

    def cancel(self) -> None:
        self.running = False


class RankingTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        self.commands: list[FakeCommand] = []
        self.case = {"event": "scored", "image": "", "place": [0, 0, 0], "segmentation": ""}

    def make_command(self, *arguments) -> FakeCommand:
        self.commands.append(FakeCommand(*arguments))
        return self.commands[-1]

    def select_run_with_a_model(self) -> None:
        run = self.write_run()
        run.model.write_bytes(b"a model")
        self.module.widget.runs.refresh()
        process_events()

    def test_end_of_a_ranking_states_the_number_of_cases(self) -> None:
        self.select_run_with_a_model()
        for count, text in ((1, "One case was ranked."), (2, "2 cases, the largest disagreement first.")):
            with (
                mock.patch.object(outline_panel, "EngineCommand", self.make_command),
                mock.patch.object(stepped_task, "DOUBLE_CLICK_S", 0.0),
            ):
                click(self.ui.rankButton)
            command = self.commands[-1]
            for number in range(count):
                command.on_event({**self.case, "name": f"case {number}", "score": 0.1})
            command.running = False
            command.on_end("")
            self.assertEqual(self.ui.rankStatusLabel.text, text)

    def test_buttons_are_enabled_from_the_first_ranked_case_until_the_run_is_deselected(self) -> None:
        self.select_run_with_a_model()
        commands = self.commands
        with mock.patch.object(outline_panel, "EngineCommand", self.make_command):
            click(self.ui.rankButton)
            with mock.patch.object(stepped_task, "DOUBLE_CLICK_S", 3600.0):
                click(self.ui.rankButton)  # the second click of a double click
            self.assertEqual(self.ui.rankButton.text, "Cancel")
        self.assertFalse(self.ui.addCaseButton.enabled)
        self.assertIn("--overwrite", commands[0].arguments)
        for number, score in enumerate((0.1, 0.3), start=1):
            commands[0].on_event({**self.case, "name": f"case {number}", "score": score})
            self.assertTrue(self.ui.addCaseButton.enabled and self.ui.openCaseButton.enabled)
            # An update during the ranking neither ends the ranking nor removes its cases.
            self.module.widget.outlining.update()
            self.assertEqual(self.ui.rankButton.text, "Cancel")
            self.assertEqual(self.ui.rankTable.model().rowCount(), number)
        commands[0].running = False
        commands[0].on_end("")
        self.assertEqual(self.ui.rankButton.text, "Rank the unlabelled cases")
        for change in (self.module.leave, self.module.enter, self.module.widget.runs.refresh, process_events):
            change()
            self.assertTrue(self.ui.addCaseButton.enabled, change)
        self.module.widget.outlining.set_run(None)
        self.assertFalse(self.ui.addCaseButton.enabled)

    def rank_again(self) -> FakeCommand:
        """Start to rank the cases a and b again; return the running command, which has ranked only b so far."""
        earlier = [{**self.case, "name": name, "score": score} for name, score in (("a", 0.1), ("b", 0.2))]
        self.write_ranking(earlier)
        run = RunFolder(self.runs / "earlier")
        run.model.write_bytes(b"a model")
        self.module.widget.runs.refresh()
        process_events()
        with mock.patch.object(outline_panel, "EngineCommand", self.make_command):
            click(self.ui.rankButton)
        self.commands[-1].on_event({**self.case, "name": "b", "score": 0.9})
        return self.commands[-1]

    def saved_scores(self) -> dict[str, float]:
        return {case["name"]: case["score"] for case in read_ranking(RunFolder(self.runs / "earlier"))}

    def test_cancelled_ranking_keeps_the_cases_that_were_not_ranked_again(self) -> None:
        self.rank_again()
        with mock.patch.object(stepped_task, "DOUBLE_CLICK_S", 0.0):
            click(self.ui.rankButton)
        self.assertIn("Cancelled. The cases that were not ranked again", self.ui.rankStatusLabel.text)
        self.assertEqual(self.saved_scores(), {"a": 0.1, "b": 0.9})
        self.assertEqual(self.ui.rankTable.model().rowCount(), 2)

    def test_failed_ranking_keeps_the_cases_that_were_not_ranked_again(self) -> None:
        command = self.rank_again()
        command.running = False
        command.on_end("a.nrrd: damaged")
        self.assertEqual(self.ui.rankStatusLabel.text, "a.nrrd: damaged")
        self.assertEqual(self.saved_scores(), {"a": 0.1, "b": 0.9})

    def test_complete_ranking_replaces_the_earlier_one(self) -> None:
        command = self.rank_again()
        self.assertIn("--keep-corrected", command.arguments)
        command.running = False
        command.on_end("")
        self.assertEqual(self.saved_scores(), {"b": 0.9})

    def test_ranking_in_a_folder_that_is_not_writable_is_refused(self) -> None:
        self.select_run_with_a_model()
        folder = self.runs / "earlier"
        with (
            mock.patch.object(os, "access", lambda path, mode: Path(path) != folder),
            mock.patch.object(outline_panel, "EngineCommand", self.make_command),
        ):
            click(self.ui.rankButton)
        self.assertEqual(self.commands, [])
        self.assertIn(f"{folder / 'ranking'} is not writable", self.ui.rankStatusLabel.text)
        self.assertIn("choose that folder as the folder of runs", self.ui.rankStatusLabel.text)
        self.assertEqual(self.ui.rankButton.text, "Rank the unlabelled cases")

    def test_if_saving_fails_the_ranking_is_cancelled_and_the_reason_is_shown(self) -> None:
        command = self.rank_again()
        with mock.patch.object(outline_panel, "save_ranking", side_effect=OutputError("disk full")):
            command.on_event({**self.case, "name": "a", "score": 0.8})
        self.assertFalse(command.running)
        self.assertIn("disk full", self.ui.rankStatusLabel.text)
        self.assertEqual(self.saved_scores(), {"a": 0.1, "b": 0.9})


class OpeningTest(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        self.saved = self.save_proposal_of_earlier_run()
        self.module.widget.runs.refresh()

    def temporary_folders(self) -> list[Path]:
        return list(Path(slicer.app.temporaryPath).glob("dcamt-case-*"))

    def test_files_are_read_by_another_process(self) -> None:
        with mock.patch.multiple(slicer.util, loadVolume=mock.DEFAULT, loadSegmentation=mock.DEFAULT) as loaders:
            click(self.ui.openCaseButton)
            self.assertIn("Loading “plain”", self.ui.rankStatusLabel.text)
            self.open_case()
        for loader in loaders.values():
            loader.assert_not_called()
        self.assertIn("Correct “plain”", self.ui.rankStatusLabel.text)
        self.assertEqual(self.temporary_folders(), [])

    def test_unreadable_file_is_reported_and_nothing_is_added(self) -> None:
        self.saved.scan_path.write_bytes(b"not a scan")
        before = slicer.mrmlScene.GetNumberOfNodes()
        with Person() as person:
            person.expects("plain.nrrd", "Ok")
            click(self.ui.openCaseButton)
            self.wait_for(lambda: bool(person.seen), "the message")
        self.assertEqual(self.ui.rankStatusLabel.text, "")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(self.temporary_folders(), [])

    def test_missing_temporary_folder_is_reported(self) -> None:
        before, slicer.app.temporaryPath = slicer.app.temporaryPath, "/nowhere/at/all"
        self.addCleanup(setattr, slicer.app, "temporaryPath", before)
        with Person() as person:
            person.expects("/nowhere/at/all: could not be written", "Ok")
            click(self.ui.openCaseButton)
        self.assertIn("You can choose another temporary folder", person.errors()[0])
        self.assertEqual(self.ui.rankStatusLabel.text, "")
        slicer.app.temporaryPath = before
        self.open_case()

    def test_closing_the_panel_cancels_the_opening_of_a_case(self) -> None:
        click(self.ui.openCaseButton)
        self.assertEqual(len(self.temporary_folders()), 1)
        self.close_module()
        self.assertEqual(self.temporary_folders(), [])

    def test_closing_or_importing_a_scene_cancels_the_opening_of_a_case(self) -> None:
        for event in (slicer.mrmlScene.StartCloseEvent, slicer.mrmlScene.StartImportEvent):
            with self.subTest(event), mock.patch.object(proposal_opening, "EngineProcess") as process:
                click(self.ui.openCaseButton)
                opening = self.module.widget.outlining._opening
                slicer.mrmlScene.InvokeEvent(event)
                self.assertFalse(opening.running)
                process().start().kill.assert_called_once_with()
                self.assertEqual(self.temporary_folders(), [])
                self.assertEqual(self.ui.rankStatusLabel.text, "")
                self.module.enter()

    def test_opening_a_case_fails_if_one_of_its_nodes_is_removed_meanwhile(self) -> None:
        case = {"name": "plain", "image": "plain.nrrd", "segmentation": "plain.seg.nrrd"}
        for removed in ("volume", "segmentation"):
            with self.subTest(removed):
                close_scene()
                volume = add_volume("volume", np.zeros((2, 2, 2)))
                segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
                segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
                segmentation.SetAttribute(PROPOSAL_FILE, case["segmentation"])
                opening = ProposalOpening(case, [], tiny_recipe(), mock.Mock())
                self.assertFalse(opening.reads_files)
                steps = opening.insert(None)
                next(steps)
                slicer.mrmlScene.RemoveNode(slicer.util.getNode(removed))
                with self.assertRaisesRegex(InputError, f"{removed}: was removed from the scene while"):
                    next(steps)

    def test_folder_that_cannot_be_removed_at_once_is_removed_later(self) -> None:
        with (
            mock.patch.object(proposal_opening, "EngineProcess"),
            mock.patch.object(proposal_opening, "REMOVAL_INTERVAL_MS", 0),
            mock.patch.object(proposal_opening.shutil, "rmtree", wraps=shutil.rmtree) as rmtree,
        ):
            click(self.ui.openCaseButton)
            # The first attempt removes nothing, as on Windows while a file of the folder is open.
            rmtree.side_effect = [None, mock.DEFAULT]
            self.module.widget.outlining._opening.cancel()
            self.assertEqual(len(self.temporary_folders()), 1)
            self.wait_for(lambda: not self.temporary_folders(), "the folder's removal")
        self.assertEqual(rmtree.call_count, 2)

    def test_folder_that_cannot_be_removed_at_once_is_removed_when_slicer_ends(self) -> None:
        with (
            mock.patch.object(proposal_opening, "EngineProcess"),
            mock.patch.object(proposal_opening, "REMOVAL_INTERVAL_MS", 10**6),
            mock.patch.object(proposal_opening.shutil, "rmtree", wraps=shutil.rmtree) as rmtree,
        ):
            click(self.ui.openCaseButton)
            rmtree.side_effect = itertools.chain([None], itertools.repeat(mock.DEFAULT))
            announce_quitting()
            self.assertEqual(self.temporary_folders(), [])

    def test_large_case_is_inserted_in_short_steps(self) -> None:
        shape = (88, 384, 384)
        labels = np.zeros(shape, np.uint8)
        labels[20:60, 100:260, 100:260] = 1
        scan, label_file = str(self.folder / "scan.npy"), str(self.folder / "labels.npy")
        np.save(scan, np.random.default_rng(0).integers(0, 500, shape, dtype=np.int16))
        np.save(label_file, labels)
        arrays = CaseArrays(np.diag([0.6, 0.6, 1.0, 1.0]).tolist(), label_file, scan)
        case = {"name": "large", "image": scan, "segmentation": "large.seg.nrrd", "place": [0, 0, 0]}

        def insert():
            close_scene()
            return ProposalOpening(case, [], tiny_recipe(), mock.Mock()).insert(arrays)

        assert_stays_responsive(longest_step(insert))
        (volume,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        voxels = segment_mask(segmentation, volume)
        np.testing.assert_array_equal(voxels, labels)
