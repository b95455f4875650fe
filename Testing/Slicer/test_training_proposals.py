"""Proposals for ranked cases are opened, corrected, and added as labelled cases."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import qt
import slicer
from dcamt.cases.case_list import LABELLED, UNLABELLED, Case, write_cases
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt.recipe import Recipe
from dcamt.runs.folder import RunFolder
from dcamt_testing.overlapping_segments import write_layers
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.segment_editor import BACK_BUTTON
from DCAMTSlicerLib.segment_voxels import scan_of
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, voxels_of
from DCAMTTrainingLib.cases.check import scene_remark
from DCAMTTrainingLib.cases.lists import row_of_case
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.cases.scene_source import row_of, scene_rows
from DCAMTTrainingLib.panels import outline as outline_panel
from DCAMTTrainingLib.runs import proposal as proposal_module
from DCAMTTrainingLib.runs import proposal_opening
from DCAMTTrainingLib.runs.proposal import is_unchanged, possible_scans
from DCAMTTrainingLib.runs.proposal_opening import ProposalOpening
from DCAMTTrainingLib.runs.ranking import read_ranking
from scene_nodes import add_outline, add_volume, draw_segment, ellipsoid, segment_mask
from slicer_harness import Person, click, process_events_until
from training_case import SavedProposal, TrainingCase
from unchanged_scene import changed_content, fail_after, scene_content


class CaseFilesTest(TrainingCase):
    """A ranked case whose scan and proposal are only in files, as after a restart of Slicer."""

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
        labels = segment_mask(proposal, loaded)
        np.testing.assert_array_equal(labels, saved.proposed)
        # The proposal is not a label, because nobody has corrected it.
        click(self.ui.addSceneButton)
        self.assertEqual([row.role for row in self.session.table.rows], ["unlabelled"] * 2)
        # Saving the proposal later must not write into the run's folder.
        self.assertIsNone(proposal.GetStorageNode())
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            matrix = view.GetSliceToRAS()
            np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], place, atol=1e-6)
        # A case that is opened again keeps the person's correction.
        draw_segment(proposal, loaded, saved.correct_label)
        self.open_case()
        self.assertIs(editor.segmentationNode(), proposal)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 1)
        self.module.enter()
        click(self.ui.addCaseButton)
        # The file and the volume that was read from it are one case.
        (row,) = self.session.table.rows
        self.assertEqual((row.name, row.role, row.source.volume), ("plain", LABELLED, loaded.GetID()))
        labels = slicer.util.arrayFromSegmentBinaryLabelmap(proposal, row.source.segments[0][0], loaded)
        np.testing.assert_array_equal(labels, saved.correct_label)

    def test_overlapping_segments_of_a_saved_proposal_are_named(self) -> None:
        saved = self.save_proposal_of_earlier_run()
        volume = slicer.util.loadVolume(str(saved.scan_path))
        affine, proposed = ijk_to_ras(volume), saved.proposed.transpose(2, 1, 0) > 0
        slicer.mrmlScene.RemoveNode(volume)
        scar = proposed & (np.arange(proposed.shape[0]) > proposed.shape[0] // 2)[:, None, None]
        path = self.folder / "plain.seg.nrrd"
        write_layers(path, [("Left atrium", proposed), ("Scar", scar)], affine)
        self.module.widget.runs.refresh()
        self.open_case()
        text = self.ui.rankStatusLabel.text
        note = f"{path}: Segments overlap: {scar.sum()} of the {proposed.sum()} voxels of"
        self.assertTrue(text.startswith(f'{note} "Left atrium" (value 1) are read as another segment instead'), text)
        self.assertIn("Correct “plain” in the Segment Editor", text)

    def test_proposal_of_a_moved_run_is_opened(self) -> None:
        saved = self.save_proposal_in_run()
        run = self.runs / "earlier"
        run.rename(self.runs / "renamed")
        # The former path of the run now has a different proposal.
        other = run / "ranking" / "plain.seg.nrrd"
        other.parent.mkdir(parents=True)
        shutil.copy(self.folder / "other.seg.nrrd", other)
        self.module.widget.runs.refresh()
        self.open_case()
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        volume, proposal = editor.sourceVolumeNode(), editor.segmentationNode()
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), saved.image)
        self.assertEqual(proposal.GetName(), "plain (proposed)")
        labels = segment_mask(proposal, volume)
        np.testing.assert_array_equal(labels, saved.proposed)

    def test_ranking_has_the_present_path_of_a_moved_scan(self) -> None:
        self.save_proposal_in_run()
        run = RunFolder((self.runs / "earlier").rename(self.runs / "renamed"))
        scan = (run.path / "scans").rename(self.folder / "moved data") / "00001.nrrd"
        write_cases([Case("plain", scan, None, UNLABELLED)], run.cases)
        (case,) = read_ranking(run)
        self.assertTrue(scan.samefile(case["image"]))

    def test_proposal_in_the_scene_is_used_after_its_run_was_moved(self) -> None:
        self.save_proposal_in_run()
        self.module.widget.runs.refresh()
        self.open_case()
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        proposal = editor.segmentationNode()
        draw_segment(proposal, editor.sourceVolumeNode(), ellipsoid(2)[1])
        (self.runs / "earlier").rename(self.runs / "renamed")
        self.module.enter()
        click(self.ui.addCaseButton)
        self.assertIn("“plain” is a labelled case now", self.ui.rankStatusLabel.text)
        self.open_case()
        self.assertIs(editor.segmentationNode(), proposal)

    def save_proposal_in_run(self) -> SavedProposal:
        """Write a run whose folder has a ranked case's scan and proposal; write another proposal, `other.seg.nrrd`."""
        saved = self.save_proposal_of_earlier_run()
        run = self.runs / "earlier"
        scan, proposal = run / "scans" / "00001.nrrd", run / "ranking" / "plain.seg.nrrd"
        scan.parent.mkdir()
        saved.scan_path.rename(scan)
        (self.folder / "plain.seg.nrrd").rename(proposal)
        case = {"name": "plain", "image": str(scan), "score": 0.4, "place": [0, 0, 0], "segmentation": str(proposal)}
        (run / "ranking" / "ranking.json").write_text(json.dumps([case]), encoding="utf-8")
        write_cases([Case("plain", scan, None, UNLABELLED)], RunFolder(run).cases)
        volume = add_volume("scan", saved.image)
        outline = add_outline(volume, saved.correct_label)
        self.assertTrue(slicer.util.saveNode(outline, str(self.folder / "other.seg.nrrd")))
        for node in (outline, volume):
            slicer.mrmlScene.RemoveNode(node)
        return saved


class ProposalTest(TrainingCase):
    def make_ranked_case(self, volume: VolumeNode) -> dict[str, Any]:
        """Write the volume and a proposal; return the case's entry in a ranking, without the score."""
        scan, proposed = self.folder / "00001.nrrd", self.folder / "LGE.seg.nrrd"
        for _step in write_nrrd_in_slabs(voxels_of(volume), ijk_to_ras(volume), scan):
            pass
        outline = add_outline(volume, ellipsoid(1)[1])
        self.assertTrue(slicer.util.saveNode(outline, str(proposed)))
        slicer.mrmlScene.RemoveNode(outline)
        return {"name": "LGE", "image": str(scan), "segmentation": str(proposed), "place": [1.0, 2.0, 3.0]}

    def test_volume_of_the_same_name_on_another_grid_is_not_used(self) -> None:
        image = ellipsoid(1)[0]
        volume = add_volume("LGE", image)
        case = self.make_ranked_case(volume)
        rows = scene_rows(tiny_recipe())
        self.assertEqual(possible_scans(case, rows, 1), [volume])
        for change in (lambda: volume.SetOrigin(1, 2, 3), lambda: slicer.util.updateVolumeFromArray(volume, image[1:])):
            change()
            self.assertEqual(possible_scans(case, rows, 1), [])
        loaded, proposal = open_nodes(case, rows)
        self.assertIsNot(loaded, volume)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), image)
        self.assertIs(scan_of(proposal), loaded)

    def test_volume_of_the_same_name_and_grid_with_other_voxels_is_not_used(self) -> None:
        image, other = ellipsoid(1)[0], ellipsoid(2)[0]
        volume = add_volume("LGE", image)
        case = self.make_ranked_case(volume)
        rows = scene_rows(tiny_recipe())
        slicer.util.updateVolumeFromArray(volume, image * np.float32(1 + 1e-7))  # rounded differently
        first = open_nodes(case, rows)
        self.assertIs(first[0], volume)
        slicer.mrmlScene.RemoveNode(first[1])
        # Two patients' scans may have the same name and the same grid.
        slicer.util.updateVolumeFromArray(volume, other)
        loaded, proposal = open_nodes(case, rows)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), image)
        self.assertIs(scan_of(proposal), loaded)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), other)

    def test_scan_is_not_loaded_again_after_its_proposal_was_deleted(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        slicer.mrmlScene.RemoveNode(volume)
        loaded, proposal = open_nodes(case, [])
        slicer.mrmlScene.RemoveNode(proposal)
        again, proposal = open_nodes(case, [])
        self.assertIs(again, loaded)
        self.assertIs(scan_of(proposal), loaded)

    def test_corrected_proposal_is_not_used_while_the_scan_file_holds_another_scan(self) -> None:
        (image, label), (other, _label) = ellipsoid(1), ellipsoid(2)
        volume = add_volume("LGE", image)
        case = {**self.make_ranked_case(volume), "score": 0.4}
        slicer.mrmlScene.RemoveNode(volume)
        loaded, proposal = open_nodes(case, [])
        draw_segment(proposal, loaded, np.roll(label, 3, axis=1))
        affine, scan = ijk_to_ras(loaded), Path(case["image"])

        def write_scan_again(voxels: np.ndarray, seconds: int) -> None:
            for _step in write_nrrd_in_slabs(voxels, affine, scan):
                pass
            os.utime(scan, ns=(0, scan.stat().st_mtime_ns + seconds * 10**9))

        write_scan_again(image, 1)
        self.assertEqual(open_nodes(case, []), (loaded, proposal))
        write_scan_again(other, 2)
        self.save_ranking([case])
        click(self.ui.addCaseButton)
        self.assertIn("Open “LGE” first", self.ui.rankStatusLabel.text)
        self.assertEqual(len(self.session.table), 0)
        for _time in range(2):
            volume, later = open_nodes(case, [])
            self.assertIsNot(later, proposal)
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), other)
            np.testing.assert_array_equal(segment_mask(later, volume), label)
        self.assertIs(scan_of(proposal), loaded)
        with mock.patch.object(Path, "stat", side_effect=OSError):  # the disk was unplugged
            self.assertIsNotNone(proposal_module.proposal_of(case))
        write_scan_again(image, 3)
        self.assertEqual(open_nodes(case, []), (loaded, proposal))

    def test_unchanged_proposal_is_replaced_if_its_file_and_its_scan_were_rewritten(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        slicer.mrmlScene.RemoveNode(volume)
        loaded, first = open_nodes(case, [])
        for key in ("image", "segmentation"):
            os.utime(case[key], ns=(0, Path(case[key]).stat().st_mtime_ns + 10**9))
        again, second = open_nodes(case, [])
        self.assertIs(again, loaded)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [second])
        self.assertIsNot(second, first)

    def test_volume_is_compared_with_the_file_it_was_read_from(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case, two = self.make_ranked_case(volume), replace(tiny_recipe(), input_channels=2)
        for _step in write_nrrd_in_slabs(ellipsoid(1)[0], ijk_to_ras(volume), Path(case["image"]), [ellipsoid(2)[0]]):
            pass
        slicer.mrmlScene.RemoveNode(volume)
        loaded, proposal = open_nodes(case, [], two)
        row = replace(row_of(loaded, proposal, two), name="LGE")
        copies = {key: shutil.copy(case[key], self.folder / f"copy-{key}.nrrd") for key in ("image", "segmentation")}
        self.assertIs(open_nodes({**case, **{key: str(file) for key, file in copies.items()}}, [row], two)[0], loaded)
        self.assertEqual(scene_remark(row.source, UNLABELLED, two), ("", ()))
        os.utime(case["image"], ns=(0, 0))
        self.assertIn("was changed since the volume was read", scene_remark(row.source, UNLABELLED, two)[0])

    def test_later_ranking_replaces_only_a_proposal_that_nobody_changed(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        first = open_nodes(case, [])[1]
        self.assertIs(open_nodes(case, [])[1], first)
        file, later = Path(case["segmentation"]), np.roll(ellipsoid(1)[1], 2, axis=1)

        def write_proposal() -> None:
            for _step in write_nrrd_in_slabs(later, ijk_to_ras(volume), file):
                pass
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))

        write_proposal()
        loaded, second = open_nodes(case, [])
        self.assertFalse(slicer.mrmlScene.IsNodePresent(first))
        voxels = segment_mask(second, loaded)
        np.testing.assert_array_equal(voxels, later)
        draw_segment(second, loaded, np.roll(later, 1, axis=0))
        write_proposal()
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**10))
        self.assertIs(open_nodes(case, [])[1], second)

    def test_proposal_is_read_again_if_a_ranking_replaced_it_during_reading(self) -> None:
        case = self.make_ranked_case(add_volume("LGE", ellipsoid(1)[0]))
        build, file = proposal_opening.build_segments, Path(case["segmentation"])

        def build_later(*arguments: Any) -> Any:
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
            return build(*arguments)

        with mock.patch.object(proposal_opening, "build_segments", build_later):
            first = open_nodes(case, [])[1]
        self.assertIsNot(open_nodes(case, [])[1], first)

    def test_unchanged_proposal_becomes_a_label_only_if_the_user_confirms(self) -> None:
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
        # A proposal with edited and then restored voxels counts as unchanged.
        label = ellipsoid(1)[1]
        for voxels in (np.roll(label, 1, axis=0), label):
            draw_segment(proposal, volume, voxels)
        with Person() as person:
            person.expects("was not changed", "Ok")
            click(self.ui.addCaseButton)
        self.assertEqual([row.role for row in self.session.table.rows], [LABELLED])
        # A case that the user removes is not listed again when the module is opened.
        self.session.table.remove([0])
        self.module.leave()
        self.module.enter()
        self.assertEqual(len(self.session.table), 0)

    def test_proposal_becomes_a_case_only_if_a_segment_belongs_to_a_class(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = {**self.make_ranked_case(volume), "score": 0.4}
        self.save_ranking([case])
        _volume, proposal = open_nodes(case, [row_of(volume, None, tiny_recipe())])
        segments = proposal.GetSegmentation()
        segment = segments.GetNthSegment(0)
        segments.RemoveAllSegments()
        click(self.ui.addCaseButton)
        self.assertIn("No segment of “LGE” belongs to a class", self.ui.rankStatusLabel.text)
        self.assertEqual((len(self.session.table), training_cases.is_case(proposal)), (0, False))
        segments.AddSegment(segment, "drawn")
        click(self.ui.addCaseButton)
        self.assertEqual([row.role for row in self.session.table.rows], [LABELLED])
        self.assertEqual(training_cases.unlisted_cases(), [])
        segments.RemoveAllSegments()
        self.session.table.remove([0])
        click(self.ui.addCaseButton)
        self.assertTrue(training_cases.is_case(proposal))
        self.assertEqual(training_cases.unlisted_cases(), [])

    def test_fingerprint_stored_by_an_older_version_detects_a_changed_proposal(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        _volume, proposal = open_nodes(self.make_ranked_case(volume), scene_rows(tiny_recipe()))
        voxels = proposal.GetAttribute("DCAMT.proposalVoxels")
        proposal.SetAttribute("DCAMT.proposalVoxels", f'{voxels} {{"LGE": [1.0, 2.0, 3.0]}}')
        self.assertTrue(is_unchanged(proposal))
        moved = np.roll(ellipsoid(1)[1], 1, axis=0)
        draw_segment(proposal, volume, moved)
        self.assertFalse(is_unchanged(proposal))

    def test_added_proposal_replaces_only_the_row_of_its_scan(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = {**self.make_ranked_case(volume), "score": 0.4}
        self.save_ranking([case])
        other, own = (
            CaseRow("LGE", FileScan(str(self.folder / name)), UNLABELLED) for name in ("a.nrrd", "00001.nrrd")
        )
        of_volume = replace(row_of(volume, None, tiny_recipe()), name="LGE_2")
        for listed, names in (([other], ["LGE", "LGE_2"]), ([other, of_volume], ["LGE", "LGE_2"]), ([own], ["LGE"])):
            self.session.table.replace_all(listed)
            _volume, proposal = open_nodes(case, [row_of(volume, None, tiny_recipe())])
            with Person() as person:
                person.expects("was not changed", "Ok")
                click(self.ui.addCaseButton)
            rows = self.session.table.rows
            self.assertEqual([row.name for row in rows], names)
            self.assertEqual((rows[-1].role, rows[-1].source.segmentation), (LABELLED, proposal.GetID()))
            self.assertEqual(rows[0].source == listed[0].source, listed[0] is other)
            self.assertIn(f"“{names[-1]}” is a labelled case now", self.ui.rankStatusLabel.text)

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
        self.write_ranking(cases)
        self.module.widget.runs.refresh()

    def test_table_says_if_nothing_was_segmented(self) -> None:
        case = {**self.make_ranked_case(add_volume("LGE", ellipsoid(1)[0])), "score": 1.0}
        self.save_ranking([{**case, "empty": True}, case])
        model = self.ui.rankTable.model()
        shown = [[model.data(model.index(row, column)) for column in (1, 2)] for row in (0, 1)]
        self.assertEqual(shown, [["nothing segmented", ""], ["100.0%", "1, 2, 3"]])

    def test_damaged_cases_of_a_saved_ranking_are_not_listed(self) -> None:
        case = {**self.make_ranked_case(add_volume("LGE", ellipsoid(1)[0])), "score": 0.4}
        damaged = [{"score": "high"}, {"score": None}, {"place": [1, 2]}, {"place": 3}, {"image": 5}, {"name": None}]
        damaged += [{"score": 10**400}, {"place": [1, 2, -(10**400)]}]
        self.save_ranking([{**case, **change} for change in damaged] + [[], "case", {}, case])
        self.assertEqual(self.ui.rankTable.model().rowCount(), 1)

    def test_two_runs_have_separate_proposals(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        later = {**case, "segmentation": str(Path(self.folder, "later.seg.nrrd"))}
        Path(later["segmentation"]).write_bytes(Path(case["segmentation"]).read_bytes())
        rows = scene_rows(tiny_recipe())
        first, second = open_nodes(case, rows)[1], open_nodes(later, rows)[1]
        self.assertIsNot(first, second)
        self.assertIs(open_nodes(case, rows)[1], first)

    def test_views_jump_to_the_place_of_disagreement_in_a_transformed_volume(self) -> None:
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

    def test_failure_to_open_a_proposal_leaves_the_scene_unchanged(self) -> None:
        volume = add_volume("LGE", ellipsoid(1)[0])
        case = self.make_ranked_case(volume)
        slicer.mrmlScene.RemoveNode(volume)
        for is_first in (True, False):
            if not is_first:  # the proposal is in the scene, and the scan is read again
                loaded, proposal = open_nodes(case, [])
                slicer.mrmlScene.RemoveNode(loaded)
                transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
                proposal.SetAndObserveTransformNodeID(transform.GetID())
            before = scene_content()
            for module, name in (
                (proposal_module, "set_image"),
                (proposal_module, "use_grid_of"),
                (proposal_opening, "add_scan"),
                (proposal_module, "write_segments"),
                (proposal_module, "fingerprint"),
                (proposal_opening, "add_proposal" if is_first else "use_grid_of"),
            ):
                if not is_first and module is proposal_module and name != "set_image":
                    continue
                with self.subTest(is_first=is_first, step=name):
                    with fail_after(module, name), self.assertRaises(AssertionError):
                        open_nodes(case, [])
                    self.assertEqual(changed_content(before), [])
        self.assertIs(open_nodes(case, [])[1], proposal)


def open_nodes(case: dict[str, Any], rows: list[CaseRow], recipe: Recipe | None = None) -> tuple[Any, Any]:
    """Open a proposal; return its volume node and its segmentation node."""
    ends: list[tuple[Any, ...]] = []
    ProposalOpening(case, rows, recipe or tiny_recipe(), lambda *end: ends.append(end)).start()
    process_events_until(lambda: bool(ends), "the case")
    message, volume, segmentation = ends[0]
    if message:
        raise AssertionError(message)
    return volume, segmentation
