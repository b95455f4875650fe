"""The list of models in the panel: import, removal, and refusals."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, replace
from typing import Any
from unittest import mock

from dcamt.errors import InputError
from dcamt.models import store
from dcamt.models.package import CARD, open_model, read_card, write_package
from dcamt.models.store import stored_models
from dcamt.worker.requests import OutlineMethod
from DCAMTSegmentationLib import model_list, review
from DCAMTSegmentationLib.loaded_result import LoadedResult
from DCAMTSlicerLib import model_choices
from DCAMTSlicerLib.model_choices import card_text
from scene_nodes import add_scan
from segmentation_case import SegmentationCase, model_folder
from slicer_harness import Person, choose, click


class ModelListTest(SegmentationCase):
    def titles(self) -> list[str]:
        return [self.ui.modelComboBox.itemText(index) for index in range(self.ui.modelComboBox.count)]

    def test_shipped_model_is_listed_first_and_described_by_its_tooltip(self) -> None:
        self.assertEqual(self.titles(), ["Left atrium in LGE-MRI", "Tiny"])
        self.assertEqual(self.ui.modelComboBox.currentText, "Left atrium in LGE-MRI")
        for text in ("Segments: Left atrium", "LGE-MRI", "Dice 0.92 (accurate)", "twin of this model"):
            self.assertIn(text, self.ui.modelComboBox.toolTip)
        self.assertFalse(self.ui.removeModelButton.enabled)  # the shipped model cannot be removed

    def test_card_without_dice_states_that_the_accuracy_was_not_measured(self) -> None:
        card = read_card(model_folder() / "other.dcamt")
        for measured in ((), ({"on": "five scans"},), ({"dice_mean": None},), ({"dice": {"A": {}}},)):
            text = card_text(replace(card, measured=measured))
            self.assertIn("The model's accuracy was not measured.", text)
            self.assertNotIn("None", text)

    def test_model_with_a_damaged_card_does_not_hide_the_other_models(self) -> None:
        card = read_card(model_folder() / "other.dcamt")
        damaged: tuple[dict[str, Any], ...] = (
            {"dice_mean": 10**400},
            {"dice": {"A": {"LA": 10**400}}},
            {"dice": {"mean": {"LA": 10**400, "RA": 1 - 10**400}}},
        )
        for entry in damaged:
            with zipfile.ZipFile(self.home / "models" / "odd.dcamt", "w") as archive:
                archive.writestr(CARD, json.dumps(asdict(replace(card, measured=(entry,)))))
            choices = model_choices.model_choices()
            self.assertEqual([choice.title for choice in choices], ["Left atrium in LGE-MRI", "odd", "Tiny"])
            self.assertIn("its model card cannot be read", choices[1].tooltip)

    def test_model_is_imported_chosen_and_removed(self) -> None:
        with Person() as person:
            person.expects("Import a model", str(model_folder() / "other.dcamt"))
            click(self.ui.importModelButton)
        self.assertIn("Other", self.titles())
        self.assertEqual(self.ui.modelComboBox.currentText, "Other")
        self.assertEqual(self.settings.model, "other")
        self.assertTrue((self.home / "models" / "other.dcamt").exists())
        with Person() as person:
            person.expects("Delete the model", "Cancel")
            click(self.ui.removeModelButton)
        self.assertIn("Other", self.titles())
        with Person() as person:
            person.expects("Delete the model", "Ok")
            click(self.ui.removeModelButton)
        self.assertNotIn("Other", self.titles())
        self.assertFalse((self.home / "models" / "other.dcamt").exists())
        self.assertEqual(self.settings.model, "left-atrium")

    def test_model_with_the_name_of_a_listed_model_is_refused(self) -> None:
        package = open_model(model_folder() / "other.dcamt")
        for name, remedy in (("left-atrium", "cannot be replaced"), ("tiny", "First remove that model")):
            path = self.home / f"copy of {name}.dcamt"
            write_package(path, replace(package, card=replace(package.card, name=name)))
            with Person() as person:
                person.expects("Import a model", str(path))
                person.expects(remedy, "Ok")
                click(self.ui.importModelButton)
            self.assertIn(f"a model in the list has the same name ({name})", person.errors()[0])

    def test_model_that_cannot_be_removed_stays_chosen(self) -> None:
        choose(self.ui.modelComboBox, "Tiny")
        refusal = mock.patch.object(model_list, "remove_choice", side_effect=InputError("the file is in use"))
        with refusal, Person() as person:
            person.expects("Delete the model", "Ok")
            person.expects("in use", "Ok")
            click(self.ui.removeModelButton)
        self.assertEqual(len(person.errors()), 1)
        self.assertEqual(self.ui.modelComboBox.currentText, "Tiny")
        self.assertEqual(self.settings.model, "tiny")

    def test_model_whose_file_is_gone_is_removed_from_the_list_without_an_error(self) -> None:
        choose(self.ui.modelComboBox, "Tiny")
        (self.home / "models" / "tiny.dcamt").unlink()
        with Person() as person:
            person.expects("Delete the model", "Ok")
            click(self.ui.removeModelButton)
        self.assertEqual(self.titles(), ["Left atrium in LGE-MRI"])
        self.assertEqual(self.settings.model, "left-atrium")

    def test_status_is_cleared_when_another_model_is_chosen(self) -> None:
        self.ui.statusLabel.text = "LGE was segmented with the model Left atrium in LGE-MRI."
        choose(self.ui.modelComboBox, "Tiny")
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_file_that_is_not_a_model_is_refused(self) -> None:
        bad = self.home / "bad.dcamt"
        bad.write_bytes(b"no model")
        with Person() as person:
            person.expects("Import a model", str(bad))
            person.expects("bad.dcamt", "Ok")
            click(self.ui.importModelButton)
        self.assertEqual(len(person.errors()), 1)
        self.assertEqual(len(self.titles()), 2)

    def test_unusable_folder_of_models_is_explained(self) -> None:
        (self.home / "no folder").touch()
        with mock.patch.dict("os.environ", {"DCAMT_HOME": str(self.home / "no folder")}), Person() as person:
            person.expects("Import a model", str(model_folder() / "other.dcamt"))
            person.expects("DCAMT_HOME", "Ok")
            click(self.ui.importModelButton)

    def test_model_whose_name_is_too_long_for_a_file_is_refused(self) -> None:
        package, file = open_model(self.home / "models" / "tiny.dcamt"), self.home / "download.dcamt"
        write_package(file, replace(package, card=replace(package.card, name="x" * 300)))
        with Person() as person:
            person.expects("Import a model", str(file))
            person.expects("cannot be a file name", "Ok")
            click(self.ui.importModelButton)

    def test_model_whose_name_differs_only_in_capitals_is_refused(self) -> None:
        stored = self.home / "models" / "tiny.dcamt"
        package, file, listed = open_model(stored), self.home / "download.dcamt", stored_models()
        write_package(file, replace(package, card=replace(package.card, name="Tiny")))
        stored.with_name("Tiny.dcamt").hardlink_to(stored)  # The link simulates a file system that ignores capitals.
        patches = [mock.patch.object(module, "stored_models", return_value=listed) for module in (store, model_choices)]
        with patches[0], patches[1], Person() as person:
            person.expects("Import a model", str(file))
            person.expects("First remove that model", "Ok")
            click(self.ui.importModelButton)

    def test_model_that_is_already_listed_is_refused(self) -> None:
        with Person() as person:
            person.expects("Import a model", str(model_folder() / "tiny.dcamt"))
            person.expects("in the list has the same name", "Ok")
            click(self.ui.importModelButton)
        self.assertEqual(len(person.errors()), 1)

    def test_model_list_works_without_any_model(self) -> None:
        with mock.patch.object(model_list, "model_choices", return_value=[]):
            models = model_list.ModelList(
                self.ui.modelComboBox, self.ui.importModelButton, self.ui.removeModelButton, lambda name: None
            )
            models.show("")
            self.assertEqual(models.channels, ("",))
            self.assertEqual(self.titles(), [])
            self.assertIn("No model is chosen", self.ui.modelComboBox.toolTip)
            models.show("gone")
            self.assertIn("This model is not on this computer", self.ui.modelComboBox.toolTip)
            self.assertFalse(self.ui.removeModelButton.enabled)

    def test_model_that_a_script_chooses_is_shown(self) -> None:
        for name, title in (("tiny", "Tiny"), ("gone", "gone (missing)"), ("left-atrium", "Left atrium in LGE-MRI")):
            self.settings.model = name
            self.assertEqual(self.ui.modelComboBox.currentText, title)
            self.assertEqual(self.settings.model, name)
        self.assertEqual(self.titles(), ["Left atrium in LGE-MRI", "Tiny"])

    def test_model_file_that_a_script_chooses_is_not_shown_as_missing(self) -> None:
        file = str(model_folder() / "other.dcamt")
        self.settings.model = file
        self.assertEqual(self.ui.modelComboBox.currentText, file)
        self.assertIn("This model is not imported", self.ui.modelComboBox.toolTip)
        choose(self.ui.inputSelector, add_scan())
        click(self.ui.applyButton)
        self.wait()
        self.assertEqual(self.ui.statusLabel.text, f"LGE was segmented with the model {file}.")

    def test_empty_model_setting_selects_no_model_and_disables_apply(self) -> None:
        choose(self.ui.inputSelector, add_scan())
        self.settings.model = ""
        self.module.leave()
        self.module.enter()
        self.assertEqual(self.titles(), ["Left atrium in LGE-MRI", "Tiny"])
        self.assertEqual(self.ui.modelComboBox.currentText, "")
        self.assertFalse(self.ui.removeModelButton.enabled)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.applyButton.toolTip, "Choose a model first.")
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        self.assertEqual(self.settings.model, "left-atrium")
        self.assertTrue(self.ui.applyButton.enabled)

    def test_result_refers_to_the_used_model_after_the_model_file_was_replaced(self) -> None:
        file = self.home / "models" / "tiny.dcamt"
        package, read = open_model(file), LoadedResult.read

        def replace_model(*arguments: Any) -> LoadedResult:
            write_package(file, replace(package, card=replace(package.card, title="Later", version="later")))
            return read(*arguments)

        with mock.patch.object(LoadedResult, "read", replace_model):
            segmentation = self.segment(add_scan())
        card, method = package.card, review.outline_method(segmentation)
        self.assertEqual(method, OutlineMethod(card.name, card.title, card.version, card.modality, "accurate"))
        self.assertEqual(review.model_title(segmentation), "Tiny")
        self.assertIn("with the model Tiny.", self.ui.statusLabel.text)

    def test_missing_model_is_shown_and_reported(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        (self.home / "models" / "tiny.dcamt").unlink()
        self.module.leave()
        self.module.enter()
        self.assertEqual(self.ui.modelComboBox.currentText, "tiny (missing)")
        with Person() as person:
            person.expects("no such model file", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertIsNone(self.settings.outputSegmentation)

    def test_missing_model_can_be_chosen_again(self) -> None:
        choose(self.ui.modelComboBox, "Tiny")
        (self.home / "models" / "tiny.dcamt").unlink()
        self.module.leave()
        self.module.enter()
        for title, name in (("Left atrium in LGE-MRI", "left-atrium"), ("tiny (missing)", "tiny")):
            choose(self.ui.modelComboBox, title)
            self.assertEqual(self.settings.model, name)
