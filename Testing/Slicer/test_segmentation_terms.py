"""The terms of use of the shipped model, which a person accepts before the model's first use."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest import mock

import slicer
from dcamt.errors import InputError
from dcamt.models import store
from dcamt.models.store import model_path
from DCAMTSlicerLib.terms_of_use import SETTINGS_GROUP, read_terms
from fake_worker import PanelCase
from scene_nodes import add_scan
from slicer_harness import Person, choose, click, process_events_until


class TermsTest(PanelCase):
    def test_terms_of_the_shipped_model_are_shown_until_a_person_accepts_them(self) -> None:
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        choose(self.ui.inputSelector, add_scan())
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        for text in ("research", "not a medical device", "2018 Left Atrial Segmentation Challenge"):
            self.assertIn(text, read_terms("left-atrium"))
        with Person() as person:
            person.expects("terms of use", "Cancel")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.module.worker.requests, [])
        self.assertIn("not accepted", self.ui.statusLabel.text)
        with Person() as person:
            person.expects("terms of use", "Ok")
            click(self.ui.applyButton)
            process_events_until(lambda: not self.logic.isRunning(), "the result")
            click(self.ui.applyButton)  # not asked again
            process_events_until(lambda: not self.logic.isRunning(), "the result")
        self.assertEqual(len(self.module.worker.requests), 2)

    def test_dialog_states_that_ok_accepts_the_terms(self) -> None:
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        choose(self.ui.inputSelector, add_scan())
        choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
        with Person() as person:
            person.expects("OK means that you accept them", "Cancel")
            click(self.ui.applyButton)

    def test_shipped_model_given_by_its_file_has_the_same_terms(self) -> None:
        file = str(model_path("left-atrium"))
        self.assertEqual(read_terms(file), read_terms("left-atrium"))
        slicer.app.settings().remove(f"{SETTINGS_GROUP}/left-atrium")
        choose(self.ui.inputSelector, add_scan())
        self.settings.model = file
        with Person() as person:
            person.expects("terms of use", "Cancel")
            click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])

    def test_shipped_model_without_its_terms_is_not_used(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(model_path("left-atrium"), folder)
            with mock.patch.object(store, "shipped_folders", return_value=[Path(folder)]):
                choose(self.ui.inputSelector, add_scan())
                choose(self.ui.modelComboBox, "Left atrium in LGE-MRI")
                with Person() as person:
                    person.expects("left-atrium-terms.txt: the model's terms of use cannot be read", "Ok")
                    click(self.ui.applyButton)
        self.assertEqual(self.module.worker.requests, [])

    def test_terms_that_cannot_be_decoded_are_an_error(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(model_path("left-atrium"), folder)
            (Path(folder) / "left-atrium-terms.txt").write_bytes(b"\xff")
            with (
                mock.patch.object(store, "shipped_folders", return_value=[Path(folder)]),
                self.assertRaisesRegex(InputError, "terms of use cannot be read"),
            ):
                read_terms("left-atrium")
