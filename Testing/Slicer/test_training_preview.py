"""The preview of a validation case in the scene."""

from __future__ import annotations

import errno
import tempfile
import unittest
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.errors import OutputError
from dcamt.runs.folder import RunFolder
from dcamt.runs.preview import Preview, choose_preview, write_preview
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.segment_voxels import scan_of
from DCAMTSlicerLib.volume_bridge import ijk_to_ras
from DCAMTTrainingLib.panels import runs as runs_panel
from DCAMTTrainingLib.panels import watch as watch_panel
from DCAMTTrainingLib.runs import preview as preview_module
from DCAMTTrainingLib.runs.array_nodes import box_of
from DCAMTTrainingLib.runs.preview import remove_preview, save_used_nodes, show_preview
from scene_nodes import add_outline, add_volume, copy_node, draw_segment, ellipsoid, run_to_end, segment_mask
from slicer_harness import (
    LoopMonitor,
    Person,
    assert_stays_responsive,
    choose,
    click,
    close_scene,
    longest_step,
    process_events,
    reload_scene,
    start_afresh,
)
from training_case import FINISHED, PAUSED, STARTED, TrainingCase
from unchanged_scene import changed_content, fail_after, scene_content


class PreviewCase(unittest.TestCase):
    """A test case with an empty scene, to which previews are added without the panel."""

    def setUp(self) -> None:
        start_afresh()

    def make_preview(self, seed: int, step: int) -> Preview:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = [str(Path(folder.name, name)) for name in ("scan.npy", "labels.npy")]
        for file, voxels in zip(files, ellipsoid(seed), strict=True):
            np.save(file, voxels)
        return Preview("case", step, np.diag([2.0, 2.0, 3.0, 1.0]).tolist(), *files)


class PreviewTest(PreviewCase):
    def test_preview_with_its_scan_is_updated_in_place_and_can_be_removed(self) -> None:
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
            np.testing.assert_allclose(ijk_to_ras(volume), affine)
            segmentation = slicer.util.getFirstNodeByName("run: preview, iteration 10")
            drawn = segment_mask(segmentation, volume)
            np.testing.assert_array_equal(drawn, label)
            self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
            self.assertFalse(volume.GetSaveWithScene() or segmentation.GetSaveWithScene())
            for kind in ("Segmentation", "ScalarVolume"):
                self.assertEqual(len(slicer.util.getNodesByClass(f"vtkMRML{kind}Node")), 1)
        remove_preview("run")
        for kind in ("Segmentation", "ScalarVolume"):
            for part in ("Node", "DisplayNode"):
                self.assertEqual(slicer.util.getNodesByClass(f"vtkMRML{kind}{part}"), [])

    def test_scan_that_replaces_another_scan_in_the_same_file_is_shown(self) -> None:
        preview = self.make_preview(1, 10)
        run_to_end(show_preview(preview, tiny_recipe(), "run"))
        image = ellipsoid(2)[0]
        np.save(preview.scan, image)
        run_to_end(show_preview(replace(preview, case="other"), tiny_recipe(), "run"))
        volume = slicer.util.getFirstNodeByName("run: other")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), image)

    def test_scene_volume_is_used_only_if_its_voxels_equal_those_of_the_scan(self) -> None:
        preview = self.make_preview(1, 10)
        image, other = np.load(preview.scan), ellipsoid(2)[0]
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "case")
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.array(preview.affine)))
        for voxels, is_used in ((other, False), (image, True)):
            slicer.util.updateVolumeFromArray(volume, voxels)
            run_to_end(show_preview(preview, tiny_recipe(), "run", volume))
            shown = scan_of(slicer.util.getFirstNodeByName("run: preview, iteration 10"))
            self.assertEqual(shown is volume, is_used)
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(shown), image)

    def test_scan_replaced_during_a_preview_is_shown_by_the_next_preview(self) -> None:
        preview = self.make_preview(1, 10)
        count = len(list(show_preview(preview, tiny_recipe(), "other")))
        running = show_preview(preview, tiny_recipe(), "run")
        for _step in range(count):
            next(running)
        image = ellipsoid(2)[0]
        Path(preview.scan).rename(f"{preview.scan}.before")
        np.save(preview.scan, image)
        run_to_end(running)
        run_to_end(show_preview(preview, tiny_recipe(), "run"))
        volume = slicer.util.getFirstNodeByName("run: case")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), image)

    def test_failed_or_cancelled_preview_leaves_the_scene_unchanged(self) -> None:
        for seed in (1, 2):
            preview = self.make_preview(seed, 10 * seed)
            nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            before, segments = scene_content(), [fingerprint(node) for node in nodes]
            for name in ("read_image", "build_segments", "set_image", "write_segments"):
                with self.subTest(seed=seed, step=name):
                    with fail_after(preview_module, name), self.assertRaises(MemoryError):
                        run_to_end(show_preview(preview, tiny_recipe(), "run"))
                    self.assertEqual(changed_content(before), [])
                    self.assertEqual([fingerprint(node) for node in nodes], segments)
            count = len(list(show_preview(preview, tiny_recipe(), "other")))
            remove_preview("other")
            before = scene_content()
            for index in range(count):
                with self.subTest(seed=seed, cancelled_after=index):
                    running = show_preview(preview, tiny_recipe(), "run")
                    for _step in range(index + 1):
                        next(running)
                    running.close()
                    self.assertEqual(changed_content(before), [])
                    self.assertEqual([fingerprint(node) for node in nodes], segments)
            run_to_end(show_preview(preview, tiny_recipe(), "run"))
            self.assertNotEqual(changed_content(before), [])
            for kind in ("Segmentation", "ScalarVolume"):
                self.assertEqual(len(nodes_of(kind)), 1)

    def test_preview_removed_during_its_update_is_not_shown_again(self) -> None:
        preview = self.make_preview(1, 10)
        run_to_end(show_preview(preview, tiny_recipe(), "run"))
        count = len(list(show_preview(preview, tiny_recipe(), "run")))
        running = show_preview(preview, tiny_recipe(), "run")
        for _step in range(count):
            next(running)
        remove_preview("run")
        before = scene_content()
        run_to_end(running)
        self.assertEqual(changed_content(before), [])

    def test_box_of_a_label_is_its_bounding_box_in_ijk_order(self) -> None:
        labels = np.zeros((4, 5, 6), np.uint8)
        self.assertIsNone(box_of(labels, 1))
        labels[1:3, 2, 3:6] = 1
        self.assertEqual(box_of(labels, 1), ((3, 6), (2, 3), (1, 3)))

    def test_preview_is_shown_in_short_steps(self) -> None:
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


def nodes_of(kind: str) -> list[Any]:
    return slicer.util.getNodesByClass(f"vtkMRML{kind}Node")


def backgrounds() -> set[str]:
    return {node.GetBackgroundVolumeID() for node in nodes_of("SliceComposite")}


class UsedPreviewTest(PreviewCase):
    def setUp(self) -> None:
        super().setUp()
        self.mask = np.zeros_like(ellipsoid()[1])
        self.mask[5:15, 5:15, 5:15] = 1
        self.preview = self.make_preview(1, 10)
        self.show_first_preview()

    def show_first_preview(self) -> None:
        self.show(self.preview)
        (self.segmentation,), (self.volume,) = nodes_of("Segmentation"), nodes_of("ScalarVolume")

    def show(self, preview: Preview) -> None:
        run_to_end(show_preview(preview, tiny_recipe(), "run"))

    def show_other_case(self) -> None:
        self.show(replace(self.make_preview(2, 20), case="other"))

    def save_and_reload(self) -> None:
        names = self.segmentation.GetName(), self.volume.GetName()
        reload_scene()
        self.segmentation, self.volume = map(slicer.util.getFirstNodeByName, names)

    def edit(self, kind: str) -> None:
        segmentation = self.segmentation.GetSegmentation()
        if kind == "drawn":
            draw_segment(self.segmentation, self.volume, self.mask)
        elif kind == "added":
            identifier = segmentation.AddEmptySegment("", "vein")
            slicer.util.updateSegmentBinaryLabelmapFromArray(self.mask, self.segmentation, identifier, self.volume)
        else:
            segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))

    def test_edited_preview_is_neither_changed_nor_removed(self) -> None:
        for kind in ("drawn", "added", "removed"):
            with self.subTest(kind):
                start_afresh()
                self.show_first_preview()
                self.edit(kind)
                edited = self.segmentation
                self.assertTrue(edited.GetSaveWithScene() and self.volume.GetSaveWithScene())
                before = fingerprint(edited, edited.GetSegmentation().GetSegmentIDs())
                self.show(replace(self.preview, step=20))
                names = [node.GetName() for node in nodes_of("Segmentation")]
                self.assertEqual(names, ["run: preview, iteration 10", "run: preview, iteration 20"])
                shown = nodes_of("Segmentation")[1]
                np.testing.assert_array_equal(segment_mask(shown, self.volume), ellipsoid(1)[1])
                self.show_other_case()
                self.assertEqual(nodes_of("Segmentation"), [edited, shown])
                remove_preview("run")
                self.assertEqual((nodes_of("Segmentation"), nodes_of("ScalarVolume")), ([edited], [self.volume]))
                self.assertIs(scan_of(edited), self.volume)
                self.assertEqual(fingerprint(edited, edited.GetSegmentation().GetSegmentIDs()), before)
                np.testing.assert_array_equal(slicer.util.arrayFromVolume(self.volume), ellipsoid(1)[0])

    def test_edited_preview_is_saved_with_its_scan(self) -> None:
        self.edit("drawn")
        self.save_and_reload()
        np.testing.assert_array_equal(segment_mask(self.segmentation, self.volume), self.mask)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(self.volume), ellipsoid(1)[0])
        self.show(replace(self.preview, step=20))
        self.assertIs(scan_of(nodes_of("Segmentation")[-1]), self.volume)
        remove_preview("run")
        np.testing.assert_array_equal(segment_mask(self.segmentation, self.volume), self.mask)

    def test_preview_whose_edits_were_undone_is_updated(self) -> None:
        self.edit("drawn")
        draw_segment(self.segmentation, self.volume, ellipsoid(1)[1])
        self.show_other_case()
        self.assertEqual(nodes_of("Segmentation"), [self.segmentation])
        np.testing.assert_array_equal(segment_mask(self.segmentation, self.volume), ellipsoid(2)[1])

    def test_preview_that_is_a_training_case_stays_and_is_saved(self) -> None:
        training_cases.add_case(self.volume, self.segmentation)
        save_used_nodes()
        self.assertTrue(self.segmentation.GetSaveWithScene() and self.volume.GetSaveWithScene())
        self.show_other_case()
        remove_preview("run")
        self.save_and_reload()
        self.assertTrue(training_cases.is_case(self.segmentation))
        np.testing.assert_array_equal(segment_mask(self.segmentation, self.volume), ellipsoid(1)[1])
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(self.volume), ellipsoid(1)[0])

    def test_clone_of_a_segmentation_is_neither_changed_nor_removed(self) -> None:
        copy_node(self.segmentation).SetName("clone")
        save_used_nodes()
        for _ in range(2):
            self.show_other_case()
            remove_preview("run")
        self.assertEqual([node.GetName() for node in nodes_of("Segmentation")], ["clone"])
        self.assertEqual(nodes_of("ScalarVolume"), [self.volume])  # The clone outlines this volume.
        reload_scene()
        clone = slicer.util.getNode("clone")
        np.testing.assert_array_equal(segment_mask(clone, scan_of(clone)), ellipsoid(1)[1])

    def test_clone_of_a_scan_is_neither_changed_nor_removed(self) -> None:
        copy_node(self.volume).SetName("clone")
        for _ in range(2):
            self.show_other_case()
            remove_preview("run")
        self.assertEqual([node.GetName() for node in nodes_of("ScalarVolume")], ["clone"])
        self.assertEqual(nodes_of("Segmentation"), [])
        reload_scene()
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(slicer.util.getNode("clone")), ellipsoid(1)[0])

    def test_scan_of_a_preview_stays_with_an_outline_that_was_drawn_on_it(self) -> None:
        outline = add_outline(self.volume, self.mask)
        save_used_nodes()
        self.show_other_case()
        self.assertEqual([node.GetName() for node in nodes_of("ScalarVolume")], ["run: case", "run: other"])
        self.assertEqual(backgrounds(), {nodes_of("ScalarVolume")[-1].GetID()})
        remove_preview("run")
        self.assertEqual((nodes_of("Segmentation"), nodes_of("ScalarVolume")), ([outline], [self.volume]))
        self.segmentation = outline
        self.save_and_reload()
        self.assertIs(scan_of(self.segmentation), self.volume)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(self.volume), ellipsoid(1)[0])

    def test_edited_scan_of_a_preview_stays_and_is_saved(self) -> None:
        edited = ellipsoid(3)[0]
        slicer.util.updateVolumeFromArray(self.volume, edited)
        save_used_nodes()
        self.assertTrue(self.volume.GetSaveWithScene())
        self.show(replace(self.preview, step=20))
        shown = scan_of(self.segmentation)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(shown), ellipsoid(1)[0])
        remove_preview("run")
        self.assertEqual(nodes_of("ScalarVolume"), [self.volume])
        self.save_and_reload()
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(self.volume), edited)

    def test_update_of_an_edited_preview_does_not_change_the_views(self) -> None:
        other = add_volume("other", ellipsoid(4)[0])
        slicer.util.setSliceViewerLayers(background=other)
        self.edit("drawn")
        self.show(replace(self.preview, step=20))
        self.assertEqual(backgrounds(), {other.GetID()})


class ShownPreviewTest(TrainingCase):
    def show_run(self, name: str, *cases: str, last: dict[str, Any] = PAUSED, seed: int = 0) -> RunFolder:
        """Write a run with validation cases, and select the run.

        Args:
            seed: if not 0, the run has a preview from iteration 4, which shows `ellipsoid(seed)` as the case "one".
        """
        run = self.make_run(name, STARTED, last, cases=tuple(f"{case},a.nrrd,b.nrrd,validation" for case in cases))
        run.model.write_bytes(b"a model")
        if seed:
            run.preview.mkdir()
            scan, label = ellipsoid(seed)
            write_preview(run, "one", 4, label.T, np.eye(4), scan.T)
        self.module.widget.runs.show(run)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
        return run

    def choose_case(self, case: str, text: str) -> None:
        choose(self.ui.previewSelector, case)
        self.wait_for(lambda: text in self.ui.previewStatusLabel.text, text)

    def test_validation_cases_with_missing_files_are_listed_while_slicer_stays_responsive(self) -> None:
        lines = [f"case{n},/gone/{n}.nrrd,/gone/{n}_label.nrrd,labelled" for n in range(10_000)]
        self.make_run("long", STARTED, PAUSED, cases=(*lines, "last case,/gone/a.nrrd,/gone/b.nrrd,validation"))
        self.module.widget.runs.refresh()
        with LoopMonitor() as monitor:
            self.wait_for(lambda: self.ui.previewSelector.enabled, "the cases")
        assert_stays_responsive(monitor.pause)
        self.assertEqual([self.ui.previewSelector.itemText(index) for index in range(2)], ["none", "last case"])

    def test_corrected_preview_survives_the_choice_of_no_preview_and_the_deletion_of_its_run(self) -> None:
        self.show_run("paused", "one", seed=1)
        self.choose_case("one", "after iteration 4")
        (corrected,), (volume,) = nodes_of("Segmentation"), nodes_of("ScalarVolume")
        mask = np.roll(ellipsoid(1)[1], 3, axis=2)
        draw_segment(corrected, volume, mask)
        for _ in range(2):
            choose(self.ui.previewSelector, "none")
            self.assertEqual((nodes_of("Segmentation"), nodes_of("ScalarVolume")), ([corrected], [volume]))
            self.choose_case("one", "after iteration 4")
            self.assertEqual(len({node.GetName() for node in nodes_of("Segmentation")}), 2)
        with Person() as person:
            person.expects("Delete the run", "Ok")
            click(self.ui.discardButton)
        self.assertEqual((nodes_of("Segmentation"), nodes_of("ScalarVolume")), ([corrected], [volume]))
        np.testing.assert_array_equal(segment_mask(corrected, volume), mask)

    def test_scan_of_a_preview_is_saved_as_soon_as_another_segmentation_outlines_it(self) -> None:
        self.show_run("paused", "one", seed=1)
        self.choose_case("one", "after iteration 4")
        (volume,) = nodes_of("ScalarVolume")
        self.assertFalse(volume.GetSaveWithScene())
        add_outline(volume, ellipsoid(1)[1])
        self.wait_for(volume.GetSaveWithScene, "the scene saves the scan")

    def test_preview_cloned_after_a_change_of_the_runs_folder_is_saved_with_its_scan(self) -> None:
        self.show_run("paused", "one", seed=1)
        self.choose_case("one", "after iteration 4")
        (segmentation,), (volume,) = nodes_of("Segmentation"), nodes_of("ScalarVolume")
        (self.folder / "empty").mkdir()
        self.ui.runsFolderEdit.currentPath = str(self.folder / "empty")
        self.assertIsNone(self.module.widget.runs.watch)
        copy_node(segmentation).SetName("clone")
        self.wait_for(volume.GetSaveWithScene, "the scene saves the scan")
        reload_scene()
        (clone,), (scan,) = nodes_of("Segmentation"), nodes_of("ScalarVolume")
        self.assertEqual((clone.GetName(), scan_of(clone)), ("clone", scan))
        np.testing.assert_array_equal(segment_mask(clone, scan), ellipsoid(1)[1])
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(scan), ellipsoid(1)[0])

    def test_missing_preview_of_a_run_without_a_process_is_explained(self) -> None:
        for name, last, text in (
            ("paused", PAUSED, "If you resume the run, the preview of this case appears"),
            ("finished", FINISHED, "ended without a preview"),
        ):
            self.show_run(name, "last case", last=last)
            choose(self.ui.previewSelector, "last case")
            self.assertIn(text, self.ui.previewStatusLabel.text)

    def test_preview_text_is_shown_again_when_its_case_is_chosen_again(self) -> None:
        self.show_run("paused", "one", "two", seed=1)
        for case, text in (("one", "after iteration 4"), ("two", "If you resume"), ("one", "after iteration 4")):
            self.choose_case(case, text)

    def test_failed_request_for_a_preview_is_reported(self) -> None:
        self.show_run("paused", "last case")
        refused = PermissionError(errno.EACCES, "Permission denied", "case.txt")
        with mock.patch.object(watch_panel, "choose_preview", side_effect=refused), Person() as person:
            person.expects("case.txt: cannot be used (Permission denied)", "Ok")
            choose(self.ui.previewSelector, "last case")
        self.assertEqual(self.ui.previewSelector.currentText, "none")

    def test_failed_request_for_a_preview_leaves_the_earlier_preview(self) -> None:
        self.show_run("paused", "one", "two", seed=1)
        self.choose_case("one", "after iteration 4")
        for case in ("two", "none"):
            with mock.patch.object(watch_panel, "choose_preview", side_effect=OSError(28, "full")), Person() as person:
                person.expects("full", "Ok")
                choose(self.ui.previewSelector, case)
            self.assertEqual(self.ui.previewSelector.currentText, "one")
            self.assertIsNotNone(slicer.util.getFirstNodeByName("paused: one"))
            self.assertIn("after iteration 4", self.ui.previewStatusLabel.text)

    def test_chosen_preview_does_not_return_in_the_next_scene(self) -> None:
        self.show_run("paused", "one", seed=1)
        for _ in range(2):
            self.choose_case("one", "after iteration 4")
            close_scene()
            self.module.widget.watching.update()  # as after the next poll
            self.assertIsNone(self.module.widget.watching._loading)
            self.assertEqual((self.ui.previewSelector.currentText, self.ui.previewStatusLabel.text), ("none", ""))

    def test_no_preview_is_shown_if_the_scene_is_closed_while_the_cases_are_read(self) -> None:
        run = self.show_run("paused", "one", seed=1)
        choose_preview(run, "one")
        watching = self.module.widget.watching
        watching.set_run(self.module.widget.runs.watch)  # as if the run were selected now
        close_scene()
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
        watching.update()
        self.assertIsNone(watching._loading)
        self.assertEqual((self.ui.previewSelector.currentText, self.ui.previewStatusLabel.text), ("none", ""))
        watching.set_run(self.module.widget.runs.watch)
        self.wait_for(lambda: self.ui.previewSelector.currentText == "one", "the requested preview")

    def test_new_run_does_not_show_the_preview_of_a_discarded_run_with_the_same_name(self) -> None:
        for seed in (1, 2):
            self.show_run("run-1", "one", seed=seed)
            self.choose_case("one", "after iteration 4")
            volume = slicer.util.getFirstNodeByName("run-1: one")
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), ellipsoid(seed)[0])
            with Person() as person:
                person.expects("Delete the run", "Ok")
                click(self.ui.discardButton)
            for kind in ("ScalarVolume", "Segmentation"):
                self.assertEqual(slicer.util.getNodesByClass(f"vtkMRML{kind}Node"), [])

    @unittest.skipUnless(Path("/proc/self/maps").exists(), "reads the list of mapped files")
    def test_files_of_a_preview_are_closed_before_the_run_is_discarded(self) -> None:
        def mapped_files() -> list[str]:
            lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            return [line for line in lines if str(self.runs) in line]

        def never_build(*_: object) -> Generator[None, None, None]:
            while True:
                yield

        def refuse(run: RunFolder) -> None:
            seen.append(mapped_files())
            raise OutputError("run-1: could not be removed")

        run, seen = self.show_run("run-1", "one", seed=1), []
        self.show_run("newer", "one")
        self.module.widget.runs.show(run)
        self.wait_for(lambda: self.ui.previewSelector.enabled, "the validation cases")
        with (
            mock.patch.object(preview_module, "build_segments", never_build),
            mock.patch.object(runs_panel, "discard", refuse),
            Person() as person,
        ):
            choose(self.ui.previewSelector, "one")
            self.wait_for(lambda: bool(mapped_files()), "the files of the preview")
            person.expects("Delete the run", "Ok")
            person.expects("run-1: could not be removed", "Ok")
            click(self.ui.discardButton)
            self.assertEqual(seen, [[]])
            self.assertEqual(self.module.widget.runs.watch.run.path, run.path)
            self.close_module()
