"""The engine's messages are translated into the application's language."""

from __future__ import annotations

import re
import unittest
from unittest import mock

from dcamt.errors import InputError, MemoryShortage
from dcamt.recipe_files import load_recipe
from dcamt.wall.settings import METHODS_DISAGREE, PRESETS
from dcamt_testing.engine_sentences import (
    COMMAND_LINE,
    CONSTRUCTORS,
    ENGINE,
    FEWEST_LETTERS,
    TABLE,
    engine_sentences,
    table,
)
from DCAMTSlicerLib import engine_messages
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.engine_sentences import sentences
from slicer_harness import in_real_slicer


def translate_to_capitals(text: str) -> str:
    return text.upper()


class EngineMessagesTest(unittest.TestCase):
    @unittest.skipIf(in_real_slicer(), "the engine's source is not beside the tests")
    def test_table_of_messages_is_complete(self) -> None:
        listed = {engine_messages._FILLED_IN.sub("{}", sentence) for sentence in sentences(lambda text: text)}
        remedy = "run: PYTHONPATH=Testing python -m dcamt_testing.engine_sentences"
        self.assertEqual(listed, engine_sentences(), remedy)

    @unittest.skipIf(in_real_slicer(), "the engine's source is not beside the tests")
    def test_file_of_the_table_is_exactly_what_its_command_writes(self) -> None:
        self.assertEqual(table(), TABLE.read_text(encoding="utf-8"))

    @unittest.skipIf(in_real_slicer(), "the engine's source is not beside the tests")
    def test_table_contains_each_message_that_is_written_as_a_literal(self) -> None:
        # The table is generated from syntax trees. This regular expression is an independent check.
        written = re.compile(rf'\b(?:{"|".join(CONSTRUCTORS)})\(\s*"([^"{{]+)"')
        listed = set(sentences(lambda text: text))
        texts = {
            text
            for path in ENGINE.rglob("*.py")
            if path.relative_to(ENGINE).parts[0] not in COMMAND_LINE
            for text in written.findall(path.read_text(encoding="utf-8"))
        }
        self.assertGreater(len(texts), 50)
        self.assertEqual({text for text in texts if sum(map(str.isalpha, text)) >= FEWEST_LETTERS} - listed, set())

    def test_sentence_is_translated_and_inserted_names_are_kept(self) -> None:
        error = InputError(
            "the region of interest lies outside the scan",
            path="/a/Scan 1.nrrd",
            remedy="Move the region onto the scan; the region's coordinates are RAS millimetres.",
        )
        with mock.patch.object(engine_messages, "tr", translate_to_capitals):
            self.assertEqual(
                error_text(error),
                "/a/Scan 1.nrrd: THE REGION OF INTEREST LIES OUTSIDE THE SCAN."
                " MOVE THE REGION ONTO THE SCAN; THE REGION'S COORDINATES ARE RAS MILLIMETRES.",
            )
            for text in (METHODS_DISAGREE, load_recipe("la").title, PRESETS[0].source):
                self.assertEqual(translated(text), text.upper())
            self.assertEqual(
                translated("scan.nrrd: holds one channel, but 2 are needed."),
                "scan.nrrd: HOLDS ONE CHANNEL, BUT 2 ARE NEEDED.",
            )
            shortage = MemoryShortage("not enough memory", remedy="Close other programs, or crop the image.")
            self.assertEqual(error_text(shortage), str(shortage).upper())

    def test_sentence_contained_in_another_is_not_translated_separately(self) -> None:
        def translate(text: str) -> str:
            return {"is empty": "ist leer", "is empty: no voxel is labelled": "ist leer: kein Voxel"}.get(text, text)

        with mock.patch.object(engine_messages, "tr", translate):
            self.assertEqual(translated("a.nrrd: is empty: no voxel is labelled."), "a.nrrd: ist leer: kein Voxel.")
            self.assertEqual(translated("Is empty."), "Ist leer.")
            self.assertEqual(translated("this emptyness"), "this emptyness")

    def test_name_at_the_beginning_of_a_translation_is_not_capitalised(self) -> None:
        def translate(text: str) -> str:
            return {"The calibration of {0} is not used": "{0} wird nicht verwendet"}.get(text, text)

        originals = ("The calibration of {0} is not used",)
        with (
            mock.patch.object(engine_messages, "tr", translate),
            mock.patch.object(engine_messages, "sentences", lambda tr: tuple(map(tr, originals))),
        ):
            self.assertEqual(translated("The calibration of la.dcamt is not used."), "la.dcamt wird nicht verwendet.")

    def test_error_text_names_the_file_of_an_input_error_and_the_type_of_an_unexpected_error(self) -> None:
        self.assertEqual(error_text(InputError("is empty", path="scan.nrrd")), "scan.nrrd: is empty.")
        self.assertIn("ValueError: odd", error_text(ValueError("odd")))
        self.assertEqual(error_text(None), "")

    def test_sentences_are_translated_once_and_not_for_each_message(self) -> None:
        with mock.patch.object(engine_messages, "tr", mock.Mock(side_effect=translate_to_capitals)) as tr:
            translated("is empty")
            first = tr.call_count
            self.assertEqual(translated("is empty"), "IS EMPTY")
        self.assertEqual(first, len(sentences(lambda text: text)))
        self.assertEqual(tr.call_count, first)

    def test_message_is_unchanged_in_english(self) -> None:
        message = "x: cannot be read (no such file). Try again."
        self.assertEqual(translated(message), message)
