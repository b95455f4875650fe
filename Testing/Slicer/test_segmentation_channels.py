"""Test the panel with models of several channels."""

from __future__ import annotations

import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.cases.case_list import LABELLED, LEFT_OUT, VALIDATION
from dcamt.cases.case_scans import read_case_scan, refuse_mixed_orders
from dcamt.errors import InputError
from dcamt.io.channels import write_channel_names
from dcamt.io.readers import read_scan
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt.models.package import Card, ModelPackage, write_package
from dcamt.recipe import Recipe
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTSegmentationLib import correction_marks, result_scan, training_cases, views
from DCAMTSegmentationLib.segmentation_options import SegmentationOptions
from DCAMTSlicerLib.model_choices import channel_names_of
from DCAMTTrainingLib.cases.check import CaseCheck, channels_note, scene_remark
from DCAMTTrainingLib.cases.derived_nodes import SCAN_FILE, SEVERAL_CHANNELS
from DCAMTTrainingLib.cases.rows import CaseRow, CaseTable, FileScan
from DCAMTTrainingLib.cases.scene_export import export_case
from DCAMTTrainingLib.cases.scene_source import row_of, training_case_rows
from DCAMTTrainingLib.estimation import _used_channels
from DCAMTTrainingLib.suggestion import RecipeSuggestion
from fake_worker import FakePanel, FakeWorker, slice_composites
from scene_nodes import add_scan, run_to_end, write_scan
from slicer_harness import Person, choose, click, process_events_until, reload_scene

LGE, T2, T1 = "LGE MRI", "T2 map", "T1 map"


def write_model(folder: Path, name: str, channels: tuple[str, ...], count: int) -> None:
    """Write a model file with weights that are never loaded."""
    recipe = replace(tiny_recipe(), input_channels=count, channel_names=channels)
    card = Card(name, name, ("Left atrium",), "MRI", "0", "none", "2000-01-01")
    package = ModelPackage(card, recipe, {"weights": np.zeros(1, np.float32)})
    write_package(folder / f"{name}.dcamt", package)


class ChannelsTest(unittest.TestCase):
    def setUp(self) -> None:
        home = tempfile.TemporaryDirectory(prefix="dcamt-home-")
        self.addCleanup(home.cleanup)
        models = Path(home.name) / "models"
        models.mkdir()
        write_model(models, "One", (), 1)
        write_model(models, "Three", (LGE, T2, T1), 3)
        write_model(models, "Unnamed", (), 2)
        write_model(models, "Reordered", (T1, LGE, T2), 3)
        write_model(models, "Two", (LGE, T2), 2)
        write_model(models, "Cine", (T1, LGE, "cine"), 3)
        patch = mock.patch.dict(os.environ, {"DCAMT_HOME": home.name})
        patch.start()
        self.addCleanup(patch.stop)
        self.worker = FakeWorker()
        self.worker.labels_of = lambda voxels: (voxels[..., 0] > 175).astype(np.uint8)
        self.module = FakePanel(self.worker)
        self.addCleanup(self.module.close)
        self.ui = self.module.ui
        self.volumes = [add_scan(name, seed=seed) for seed, name in enumerate(("a", "b", "c"))]

    def choose_model(self, start: str) -> None:
        choose(self.ui.modelComboBox, self.model_title(start))

    def model_title(self, start: str) -> str:
        titles = (self.ui.modelComboBox.itemText(index) for index in range(self.ui.modelComboBox.count))
        return next(title for title in titles if title.startswith(start))

    def channel_selector(self, channel: int) -> Any:
        return slicer.util.findChild(self.module.widget, f"channelSelector{channel}")

    def selector_captions(self) -> list[str]:
        names = [self.ui.inputLabel.text]
        layout = self.ui.inputsCollapsibleButton.layout()
        for channel in (2, 3):
            selectors = slicer.util.findChildren(self.module.widget, name=f"channelSelector{channel}")
            names += [layout.labelForField(selector).text for selector in selectors if not selector.isHidden()]
        return names

    def apply(self) -> None:
        click(self.ui.applyButton)
        process_events_until(lambda: self.ui.applyButton.text == "Apply", "the result")

    def test_model_of_one_channel_shows_one_selector(self) -> None:
        self.choose_model("One")
        self.assertEqual(self.selector_captions(), ["Volume:"])

    def test_each_channel_has_a_selector_with_its_name(self) -> None:
        self.choose_model("Three")
        self.assertEqual(self.selector_captions(), [f"{LGE}:", f"{T2}:", f"{T1}:"])
        self.assertIn(f"Needs 3 volumes, one for each channel: {LGE}, {T2}, {T1}", self.ui.modelComboBox.toolTip)
        self.choose_model("Unnamed")
        self.assertEqual(self.selector_captions(), ["Channel 1:", "Channel 2:"])
        self.choose_model("One")
        self.assertEqual(self.selector_captions(), ["Volume:"])

    def test_selectors_show_the_channels_of_a_model_file_that_a_script_chooses(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), "Elsewhere", (LGE, T2), 2)
            with mock.patch.dict(os.environ, {"HOME": folder, "USERPROFILE": folder}):
                for path in (str(Path(folder) / "Elsewhere.dcamt"), "~/Elsewhere.dcamt"):
                    self.choose_model("One")
                    self.module.settings.model = path
                    self.assertEqual(self.selector_captions(), [f"{LGE}:", f"{T2}:"])
                    self.assertIn("This model is not imported", self.ui.modelComboBox.toolTip)

    def test_model_at_an_impossible_path_is_missing(self) -> None:
        self.assertEqual(channel_names_of("a" * 300), ("",))
        self.module.settings.model = "a" * 300
        self.assertEqual(self.selector_captions(), ["Volume:"])
        self.assertIn("not on this computer", self.ui.modelComboBox.toolTip)

    def test_apply_needs_every_channel_and_sends_the_channels_in_order(self) -> None:
        first, second, third = self.volumes
        values = np.linspace(0.5, 7.25, slicer.util.arrayFromVolume(third).size, dtype=np.float32)
        slicer.util.updateVolumeFromArray(third, values.reshape(slicer.util.arrayFromVolume(third).shape))
        choose(self.ui.inputSelector, first)
        self.choose_model("Three")
        self.assertFalse(self.ui.applyButton.enabled)
        choose(self.channel_selector(2), second)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.applyButton.toolTip, "Choose a volume for each channel first.")
        choose(self.channel_selector(3), third)
        self.assertTrue(self.ui.applyButton.enabled)
        sent: list[np.ndarray] = []
        self.worker.before_answer = lambda: sent.append(np.load(self.worker.requests[-1].volume))
        self.apply()
        self.assertEqual(
            self.ui.statusLabel.text.split(". ")[0], f"a was segmented with the model {self.model_title('Three')}."
        )
        expected = np.stack([slicer.util.arrayFromVolume(volume) for volume in self.volumes], axis=-1)
        np.testing.assert_array_equal(sent[0], expected)
        self.assertEqual(self.module.settings.outputSegmentation.GetName(), "a segmentation")

    def choose_volumes(self, model: str, first: Any, *others: Any) -> None:
        self.choose_model(model)
        choose(self.ui.inputSelector, first)
        for channel, volume in enumerate(others, start=2):
            choose(self.channel_selector(channel), volume)

    def segment_all(self) -> Any:
        self.choose_volumes("Three", *self.volumes)
        self.apply()
        return self.module.settings.outputSegmentation

    def test_result_stays_visible_with_any_of_its_channels(self) -> None:
        segmentation, other = self.segment_all(), add_scan("other", seed=3)
        for volume, shown in (
            (self.volumes[1], True),
            (other, False),
            (self.volumes[0], True),
            (self.volumes[2], True),
        ):
            choose(self.ui.inputSelector, volume)
            self.assertEqual(bool(segmentation.GetDisplayNode().GetVisibility()), shown)

    def test_scan_is_changed_if_voxels_of_any_channel_change(self) -> None:
        segmentation, other = self.segment_all(), add_scan("other", seed=3)
        for volume in self.volumes:
            before = slicer.util.arrayFromVolume(volume).copy()
            for voxels, is_changed in ((before + 1, True), (before, False)):
                slicer.util.updateVolumeFromArray(volume, voxels)
                self.assertEqual(result_scan.is_scan_changed(segmentation), is_changed)
                for chosen in self.volumes:
                    self.assertEqual(result_scan.is_of_other_scan(segmentation, chosen), is_changed)
        self.assertTrue(result_scan.is_of_other_scan(segmentation, other))
        slicer.mrmlScene.RemoveNode(self.volumes[1])
        self.assertFalse(result_scan.is_scan_changed(segmentation))
        segmentation.SetAttribute("DCAMT.scanVoxels", None)  # as in a scene of an older version
        known = [result_scan.is_of_other_scan(segmentation, chosen) for chosen in (self.volumes[2], other)]
        self.assertEqual(known, [False, True])

    def test_scan_is_changed_if_a_channel_gets_the_voxels_of_another_channel(self) -> None:
        segmentation = self.segment_all()
        before = [slicer.util.arrayFromVolume(volume).copy() for volume in self.volumes]

        def is_changed(*order: int) -> bool:
            for volume, index in zip(self.volumes, order, strict=True):
                if slicer.mrmlScene.IsNodePresent(volume):
                    slicer.util.updateVolumeFromArray(volume, before[index])
            return bool(result_scan.is_scan_changed(segmentation))

        for order in (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 1, 2), (0, 0, 2):
            self.assertTrue(is_changed(*order), order)
            self.assertFalse(is_changed(0, 1, 2))
        slicer.mrmlScene.RemoveNode(self.volumes[1])
        self.assertFalse(is_changed(0, 1, 2))
        self.assertTrue(is_changed(2, 1, 0))
        self.assertTrue(is_changed(1, 1, 2))
        self.assertFalse(is_changed(0, 1, 2))
        # With the seeds 0 to 2, `add_scan` adds new volumes with the voxels of the channels a, b and c. Each new volume
        # stands for a channel that was loaded again.
        for seed in range(3):
            self.assertFalse(result_scan.is_of_other_scan(segmentation, add_scan(seed=seed)))

    def test_training_case_has_all_channels_of_the_scan(self) -> None:
        self.segment_all()
        click(self.ui.trainingCaseButton)
        self.assertTrue(self.ui.trainingCaseLabel.text.startswith("a, b, c with this segmentation is a training case"))
        recipe = replace(tiny_recipe(), input_channels=3)
        (row,) = training_case_rows(recipe)
        self.assertEqual(scene_remark(row.source, row.role, recipe)[0], "")
        self.assertEqual(channels_note(row.source, recipe), "")
        with tempfile.TemporaryDirectory() as folder:
            case = run_to_end(export_case(row, Path(folder), 1))
            np.testing.assert_array_equal(
                read_scan(case.image, channels=3).voxels.transpose(0, 3, 2, 1),
                [slicer.util.arrayFromVolume(volume) for volume in self.volumes],
            )
            self.assertIn("“a” is used, but not “b”, “c”", channels_note(row.source, tiny_recipe()))
            self.assertEqual(scene_remark(row.source, row.role, tiny_recipe())[0], "")
            case = run_to_end(export_case(row, Path(folder), 2, one_channel=True))
            first = slicer.util.arrayFromVolume(self.volumes[0])
            np.testing.assert_array_equal(read_scan(case.image).voxels[0].T, first)
            self.volumes[2].SetOrigin(50, 0, 0)
            with self.assertRaisesRegex(InputError, "c: lies on a different grid"):
                run_to_end(export_case(row, Path(folder), 3))
        two = replace(recipe, input_channels=2)
        self.assertEqual(_used_channels(row.source, two), tuple(self.volumes[:2]))
        self.assertIn("is 3 in the scan, but 2 in the recipe", scene_remark(row.source, row.role, two)[0])

    def test_training_case_that_lost_a_channel_suits_only_tasks_of_one_channel(self) -> None:
        segmentation = self.segment_all()
        row = row_of(self.volumes[0], segmentation, tiny_recipe())
        slicer.mrmlScene.RemoveNode(self.volumes[1])
        message = "a segmentation: was made from several channels, but the scene lacks one or more of them."
        click(self.ui.trainingCaseButton)
        self.assertTrue(training_cases.is_case(segmentation))
        texts = self.ui.trainingCaseLabel.text.split("\n")
        self.assertTrue(texts[0].startswith("a, c with this segmentation is a training case"), texts)
        self.assertEqual(texts[1], "A model of several channels cannot be trained with this case:")
        self.assertEqual(texts[2], f"{message} Load what is missing, and press Apply again.")
        one, three = tiny_recipe(), replace(tiny_recipe(), input_channels=3)
        self.assertIn(message, scene_remark(row.source, row.role, three)[0])
        self.assertEqual(_used_channels(row.source, three), ())
        self.assertEqual(scene_remark(row.source, row.role, one)[0], "")
        self.assertEqual(channels_note(row.source, one), "")
        self.assertEqual(_used_channels(row.source, one), (self.volumes[0],))
        # For a correction, the remark does not suggest Apply, which would replace the correction.
        correction_marks.mark_corrected(segmentation)
        remark = scene_remark(row.source, row.role, three)[0]
        self.assertIn("Choose a task of one channel", remark)
        self.assertNotIn("Apply", remark)
        self.assertEqual(self.module.logic.addTrainingCase(segmentation).segmentation, segmentation)
        slicer.mrmlScene.RemoveNode(segmentation)
        # A new result that was made from the first channel alone needs no other channel.
        self.choose_model("One")
        self.worker.labels_of = lambda voxels: (voxels > 175).astype(np.uint8)
        self.apply()
        click(self.ui.trainingCaseButton)
        self.assertTrue(self.ui.trainingCaseLabel.text.startswith("a with this segmentation"))

    def test_result_is_hidden_over_another_scan_but_not_over_its_own_channels(self) -> None:
        segmentation = self.segment_all()
        display = segmentation.GetDisplayNode()
        for view in slice_composites():
            view.SetBackgroundVolumeID(self.volumes[1].GetID())
        views.hide_over_other_scan(segmentation)
        self.assertTrue(display.GetVisibility())
        other = add_scan("other")
        slice_composites()[0].SetBackgroundVolumeID(other.GetID())  # one view with another scan is enough
        views.hide_over_other_scan(segmentation)
        self.assertFalse(display.GetVisibility())
        # A result is not hidden if the volume of the first channel was removed.
        slicer.mrmlScene.RemoveNode(self.volumes[0])
        display.SetVisibility(True)
        views.hide_over_other_scan(segmentation)
        self.assertTrue(display.GetVisibility())

    def test_model_of_one_channel_gets_only_the_first_of_the_chosen_volumes(self) -> None:
        choose(self.ui.inputSelector, self.volumes[0])
        self.choose_model("Unnamed")
        choose(self.channel_selector(2), self.volumes[1])
        self.choose_model("One")
        self.worker.labels_of = lambda voxels: (voxels > 175).astype(np.uint8)
        sent: list[np.ndarray] = []
        self.worker.before_answer = lambda: sent.append(np.load(self.worker.requests[-1].volume))
        self.apply()
        np.testing.assert_array_equal(sent[0], slicer.util.arrayFromVolume(self.volumes[0]))
        self.choose_model("Unnamed")
        self.assertEqual(self.channel_selector(2).currentNode(), self.volumes[1])

    def chosen_channels(self) -> list[str | None]:
        nodes = [self.channel_selector(channel).currentNode() for channel in (2, 3)]
        return [node.GetName() if node is not None else None for node in nodes]

    def chosen_volumes(self) -> dict[str, str | None]:
        """Return {caption of a selector: name of its volume}."""
        captions = [caption.removesuffix(":") for caption in self.selector_captions()]
        first = self.module.settings.inputVolume
        return dict(zip(captions, (first.GetName(), *self.chosen_channels()), strict=False))

    def test_volumes_stay_with_their_names_if_a_model_has_another_order_of_channels(self) -> None:
        self.choose_volumes("Three", *self.volumes)
        for models in (
            ("Reordered",),
            ("One", "Three"),
            ("One", "Reordered"),
            ("Two",),
            ("Reordered", "Two", "Three"),
            ("Unnamed", "Reordered"),
        ):
            for model in models:
                self.choose_model(model)
                reload_scene()
            names = {LGE: "a", T2: "b"} if models[-1] == "Two" else {LGE: "a", T2: "b", T1: "c"}
            self.assertEqual(self.chosen_volumes(), names)

    def test_volumes_keep_their_order_if_a_name_belongs_to_no_volume_or_to_several(self) -> None:
        first, second, third = self.volumes
        for chosen, model in (
            ((first, second, None), "Reordered"),
            ((first, first, third), "Reordered"),
            (self.volumes, "Cine"),
            (self.volumes, "Unnamed"),
            (self.volumes, "One"),
        ):
            self.choose_volumes("Three", *chosen)
            before = self.module.settings.inputVolume, self.module.settings.channelVolumes
            self.choose_model(model)
            self.assertEqual((self.module.settings.inputVolume, self.module.settings.channelVolumes), before)

    def test_script_that_chooses_a_model_keeps_the_order_of_the_volumes(self) -> None:
        self.choose_volumes("Three", *self.volumes)
        self.module.settings.model = "Reordered"
        self.assertEqual(self.chosen_volumes(), {T1: "a", LGE: "b", T2: "c"})

    def test_channels_of_a_result_are_not_selected_for_a_model_with_another_channel_order(self) -> None:
        self.segment_all()
        other = add_scan("other", seed=3)
        for model, channels in (("Three", ["b", "c"]), ("Reordered", [None, None])):
            choose(self.ui.inputSelector, other)
            self.choose_model(model)
            choose(self.ui.inputSelector, self.volumes[0])
            self.assertEqual(self.chosen_channels(), channels)

    def test_volumes_are_matched_by_channel_name_after_a_model_of_one_channel_was_chosen(self) -> None:
        self.segment_all()
        choose(self.ui.inputSelector, add_scan("other", seed=3))
        self.choose_model("One")
        choose(self.ui.inputSelector, self.volumes[0])
        self.choose_model("Reordered")
        self.assertEqual(self.chosen_volumes(), {LGE: "a", T2: "b", T1: "c"})

    def three_channels(self, *names: str) -> Recipe:
        return replace(tiny_recipe(), input_channels=3, channel_names=names)

    def test_training_reads_the_channels_of_a_case_in_the_order_of_the_recipe(self) -> None:
        self.segment_all()
        reload_scene()
        segmentation = self.module.settings.outputSegmentation
        volumes = [slicer.mrmlScene.GetFirstNodeByName(name) for name in ("a", "b", "c")]
        first, second, third = map(slicer.util.arrayFromVolume, volumes)
        for names, expected, note in (
            ((T1, LGE, T2), [third, first, second], f"is {LGE}, {T2}, {T1} in the scan, but {T1}, {LGE}, {T2}"),
            ((LGE, T2, T1), [first, second, third], ""),
            ((), [first, second, third], ""),
            ((T1, LGE, "cine"), [first, second, third], f"named {LGE}, {T2}, {T1} in the scan, but {T1}, {LGE}, cine"),
        ):
            recipe = self.three_channels(*names)
            row = row_of(volumes[0], segmentation, recipe)
            self.assertEqual(bool(channels_note(row.source, recipe)), bool(note))
            self.assertIn(note, channels_note(row.source, recipe))
            with tempfile.TemporaryDirectory() as folder:
                case = run_to_end(export_case(row, Path(folder), 1))
                scan = read_case_scan(case.image, recipe)
                np.testing.assert_array_equal(scan.voxels.transpose(0, 3, 2, 1), expected)
                one = run_to_end(export_case(row, Path(folder), 2, one_channel=True))
                np.testing.assert_array_equal(read_scan(one.image).voxels[0].T, first)
                self.assertEqual(read_scan(one.image).channel_names, ())

    def test_channel_names_of_a_proposal_come_from_the_folder_of_its_scan(self) -> None:
        row = self.corrected_row(self.segment_all())
        recipe = self.three_channels(T1, LGE, T2)
        with tempfile.TemporaryDirectory() as folder:
            image = run_to_end(export_case(row, Path(folder), 1)).image
            proposed = add_scan("proposed")
            proposed.SetAttribute(SCAN_FILE, str(image))
            proposed.SetAttribute(SEVERAL_CHANNELS, "1")
            note = channels_note(row_of(proposed, None, recipe).source, recipe)
        self.assertIn(f"The order of the channels is {LGE}, {T2}, {T1} in the scan", note)

    def corrected_row(self, segmentation: Any, role: str = LABELLED) -> CaseRow:
        case = training_cases.add_result(segmentation)
        return replace(row_of(case.volume, segmentation, self.three_channels()), role=role)

    def check(self, rows: list[CaseRow], recipe: Recipe) -> list[CaseRow]:
        table = CaseTable()
        table.add(rows)
        ends: list[str] = []
        CaseCheck(table, recipe, ends.append).start()
        process_events_until(lambda: bool(ends), "the check")
        self.assertEqual(ends, [""])
        return table.rows

    def test_cases_with_the_channels_in_different_orders_need_a_recipe_that_names_the_channels(self) -> None:
        # The order of the channels is LGE, T2, T1 in the first case, and T1, LGE, T2 in the second.
        first = self.corrected_row(self.segment_all())
        volumes = [add_scan(name, seed=seed) for seed, name in enumerate(("x", "y", "z"), start=5)]
        self.choose_volumes("Reordered", *volumes)
        self.apply()
        second = self.corrected_row(self.module.settings.outputSegmentation)
        unnamed, named = self.three_channels(), self.three_channels(LGE, T2, T1)
        with tempfile.TemporaryDirectory() as folder:
            cases = [run_to_end(export_case(row, Path(folder), n)) for n, row in enumerate((first, second), start=1)]
            with self.assertRaises(InputError) as caught:
                refuse_mixed_orders(cases, unnamed)
            refusal = str(caught.exception).replace(f"{cases[1].image}:", "The scan")
            file = CaseRow("file", FileScan(str(cases[1].image), str(cases[1].label)), LABELLED)
            other_file = replace(file, source=FileScan(str(cases[0].image), str(cases[0].label)))
            for rows, refused in (
                ([first, second], [False, True]),
                ([first, file], [False, True]),
                ([file, first], [False, True]),
                ([first, other_file], [False, False]),
                ([first, replace(second, role=LEFT_OUT)], [False, False]),
            ):
                checked = self.check(rows, unnamed)
                self.assertEqual([row.remark.count("Name the channels in the recipe") for row in checked], refused)
                self.assertFalse(any("Name the channels" in row.remark for row in self.check(rows, named)))
            self.assertEqual(self.check([first, second], unnamed)[1].remark, refusal)

    def test_copy_of_a_scan_is_found_although_its_channels_have_another_order(self) -> None:
        row, recipe = self.corrected_row(self.segment_all()), self.three_channels(T1, LGE, T2)
        with tempfile.TemporaryDirectory() as folder:
            case = run_to_end(export_case(row, Path(folder), 1))
            scan, copy = read_case_scan(case.image, recipe), Path(folder) / "copy"
            write_channel_names(copy, scan.channel_names)
            voxels, *others = scan.voxels.transpose(0, 3, 2, 1)
            for _step in write_nrrd_in_slabs(voxels, scan.grid.affine, copy / "scan.nrrd", others):
                pass
            file = CaseRow("copy", FileScan(str(copy / "scan.nrrd"), str(case.label)), VALIDATION)
            self.assertIn("“copy” has the same voxels", self.check([row, file], recipe)[0].remark)

    def test_suggested_recipe_has_the_names_of_the_channels(self) -> None:
        ends: list[tuple[Recipe | None, str]] = []
        row = self.corrected_row(self.segment_all())
        suggestion = RecipeSuggestion([row], tiny_recipe(), "cpu", lambda *end: ends.append(end)).start()
        self.addCleanup(suggestion.cancel)
        process_events_until(lambda: bool(ends), "the suggestion")
        recipe, message = ends[0]
        assert recipe is not None, message
        self.assertEqual((recipe.input_channels, recipe.channel_names), (3, (LGE, T2, T1)))

    def load_channel_files(self, *names: str) -> list[Any]:
        """Write a scan with a file for each channel, and a `dataset.json` with the channels' names; load the files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        write_channel_names(Path(folder.name), names)
        voxels = slicer.util.arrayFromVolume(self.volumes[0])
        files = [write_scan(Path(folder.name, f"p_{n:04d}.nrrd"), voxels + n) for n in range(len(names))]
        return [slicer.util.loadVolume(str(file)) for file in files]

    def test_volume_of_another_channel_is_refused(self) -> None:
        first, second = self.load_channel_files(T2, LGE)
        self.choose_volumes("Two", first, second)
        with Person() as person:
            person.expects(f"is the channel “{T2}” according to its dataset.json, but was chosen for “{LGE}”", "Ok")
            click(self.ui.applyButton)
        self.assertEqual(self.worker.requests, [])
        self.choose_volumes("Two", second, first)
        self.apply()
        self.assertEqual(len(self.worker.requests), 1)
        self.assertNotIn("dataset.json", self.ui.statusLabel.text)

    def test_note_appears_if_the_model_lacks_the_channel_of_a_volume(self) -> None:
        first, second = self.load_channel_files("cine", T2)
        for model, has_note in (("Two", True), ("Unnamed", False)):
            self.choose_volumes(model, first, second)
            self.apply()
            note = f"{first.GetName()} is the channel “cine” according to its dataset.json, and was used for “{LGE}”."
            self.assertEqual(note in self.ui.statusLabel.text, has_note)

    def test_result_has_channel_names_from_dataset_json_if_the_model_has_none(self) -> None:
        first, second = self.load_channel_files(T2, T1)
        self.choose_volumes("Unnamed", first, second)
        self.apply()
        segmentation = self.module.settings.outputSegmentation
        self.assertEqual(result_scan.channel_names_of(segmentation), (T2, T1))
        self.volumes[1].CopyOrientation(first)
        choose(self.channel_selector(2), self.volumes[1])
        self.apply()
        self.assertEqual(self.module.settings.outputSegmentation, segmentation)
        self.assertEqual(result_scan.channel_names_of(segmentation), ())

    def test_channels_of_a_scan_are_not_used_for_another_scan(self) -> None:
        segmentation, other = self.segment_all(), add_scan("other patient", seed=3)
        choose(self.ui.inputSelector, other)
        self.assertEqual(self.chosen_channels(), [None, None])
        self.assertFalse(self.ui.applyButton.enabled)
        choose(self.ui.inputSelector, self.volumes[0])
        self.assertEqual(self.chosen_channels(), ["b", "c"])
        choose(self.ui.inputSelector, other)
        choose(self.ui.outputSelector, segmentation)
        self.assertEqual(self.module.settings.inputVolume, self.volumes[0])
        self.assertEqual(self.chosen_channels(), ["b", "c"])

    def test_channels_of_an_earlier_result_come_back_with_this_result(self) -> None:
        earlier = self.segment_all()
        choose(self.ui.outputSelector, None)
        for channel, volume in ((2, self.volumes[2]), (3, self.volumes[1])):
            choose(self.channel_selector(channel), volume)
        self.apply()
        self.assertIsNot(self.module.settings.outputSegmentation, earlier)
        choose(self.ui.inputSelector, add_scan("other patient", seed=3))
        choose(self.ui.outputSelector, earlier)
        self.assertEqual(self.chosen_channels(), ["b", "c"])

    def test_channels_of_a_removed_scan_are_not_used_for_the_next_scan(self) -> None:
        self.segment_all()
        self.module.panel.exit()
        slicer.mrmlScene.RemoveNode(self.volumes[0])
        other = add_scan("other patient", seed=3)
        slicer.util.setSliceViewerLayers(background=other)
        self.module.panel.enter()
        self.assertEqual(self.module.settings.inputVolume, other)
        self.assertEqual(self.chosen_channels(), [None, None])

    def test_channels_stay_if_the_second_channel_is_chosen_as_input(self) -> None:
        self.segment_all()
        choose(self.ui.inputSelector, self.volumes[1])
        self.assertEqual(self.module.settings.inputVolume, self.volumes[1])
        self.assertEqual(self.chosen_channels(), ["b", "c"])

    def test_script_can_set_input_and_channels_together(self) -> None:
        self.segment_all()
        others, settings = [add_scan(name, seed=5) for name in ("x", "y", "z")], self.module.settings
        changing = settings.parameterNode.StartModify()
        settings.inputVolume, settings.channelVolumes = others[0], others[1:]
        settings.parameterNode.EndModify(changing)
        self.assertEqual(self.chosen_channels(), ["y", "z"])

    def test_removed_channel_disables_apply(self) -> None:
        choose(self.ui.inputSelector, self.volumes[0])
        self.choose_model("Unnamed")
        choose(self.channel_selector(2), self.volumes[1])
        slicer.mrmlScene.RemoveNode(self.volumes[1])
        self.assertIsNone(self.channel_selector(2).currentNode())
        self.assertFalse(self.ui.applyButton.enabled)

    def assert_refused(self, second: Any, message: str) -> None:
        choose(self.ui.inputSelector, self.volumes[0])
        self.choose_model("Unnamed")
        choose(self.channel_selector(2), second)
        with Person() as person:
            person.expects(message, "Ok")
            click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, message)
        self.assertEqual(self.worker.requests, [])

    def test_channel_on_another_grid_is_refused(self) -> None:
        moved = add_scan("moved", affine=np.array([[-1.5, 0, 0, 2], [0, -1.5, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1.0]]))
        self.assert_refused(
            moved,
            "moved: lies on a different grid from a, the first channel of its scan;"
            " the grids' corners are up to 2 mm apart. Resample the channel to the first channel's grid.",
        )

    def test_channel_of_another_size_is_refused(self) -> None:
        self.assert_refused(
            add_scan("larger", shape=(16, 20, 26)),
            "larger: lies on a different grid from a, the first channel of its scan."
            " Resample the channel to the first channel's grid.",
        )

    def test_channel_moved_by_a_transform_is_refused(self) -> None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = np.eye(4)
        matrix[2, 3] = 4
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        self.volumes[1].SetAndObserveTransformNodeID(transform.GetID())
        self.assert_refused(
            self.volumes[1],
            "b: lies on a different grid from a, the first channel of its scan;"
            " the grids' corners are up to 4 mm apart. Resample the channel to the first channel's grid.",
        )

    def test_volume_chosen_twice_is_refused(self) -> None:
        self.assert_refused(
            self.volumes[0], "a: is chosen for two channels. Choose a different volume for each channel."
        )

    def test_first_channel_without_an_image_is_refused(self) -> None:
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        with self.assertRaisesRegex(InputError, "empty: holds no image. Choose another volume."):
            self.module.logic.segment(empty, channels=(self.volumes[1],))

    def test_error_names_the_channel_that_lacks_a_volume(self) -> None:
        with self.assertRaisesRegex(InputError, "There is no volume for channel 2. Choose one for each channel."):
            self.module.logic.segment(self.volumes[0], channels=(None,))

    def test_segmentation_options_have_no_further_channels_by_default(self) -> None:
        self.assertEqual(SegmentationOptions(self.volumes[0]).channels, ())
