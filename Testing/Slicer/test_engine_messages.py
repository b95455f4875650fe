"""The engine's messages are translated into the application's language."""

from __future__ import annotations

import unittest
from unittest import mock

from dcamt.errors import InputError, MemoryShortage
from dcamt.wall.settings import METHODS_DISAGREE
from dcamt_testing.engine_sentences import engine_sentences
from DCAMTSlicerLib import engine_messages
from DCAMTSlicerLib.engine_messages import translated
from DCAMTSlicerLib.engine_sentences import sentences
from DCAMTSlicerLib.stepped_task import error_text
from slicer_harness import in_real_slicer


def translate_to_capitals(text: str) -> str:
    """Return a text in capitals, which stands in for a translation."""
    return text.upper()


class EngineMessagesTest(unittest.TestCase):
    @unittest.skipIf(in_real_slicer(), "the tests may be installed without the engine's source")
    def test_table_of_messages_is_complete(self) -> None:
        listed = {engine_messages._FILLED_IN.sub("{}", sentence) for sentence in sentences(lambda text: text)}
        remedy = "run: PYTHONPATH=Testing python -m dcamt_testing.engine_sentences"
        self.assertEqual(listed, engine_sentences(), remedy)

    def test_sentence_is_translated_and_inserted_names_are_kept(self) -> None:
        error = InputError(
            "the region of interest lies outside the scan", path="/a/Scan 1.nrrd", remedy="Give it in RAS millimetres."
        )
        with mock.patch.object(engine_messages, "tr", translate_to_capitals):
            self.assertEqual(
                error_text(error),
                "/a/Scan 1.nrrd: THE REGION OF INTEREST LIES OUTSIDE THE SCAN. GIVE IT IN RAS MILLIMETRES.",
            )
            self.assertEqual(translated(METHODS_DISAGREE), METHODS_DISAGREE.upper())
            self.assertEqual(
                translated("scan.nrrd: holds one channel, but 2 are needed."),
                "scan.nrrd: HOLDS ONE CHANNEL, BUT 2 ARE NEEDED.",
            )
            shortage = MemoryShortage("there is not enough memory", remedy="Close other programs, or crop it.")
            self.assertEqual(error_text(shortage), str(shortage).upper())

    def test_sentence_contained_in_another_is_not_translated_separately(self) -> None:
        def translate(text: str) -> str:
            return {"is empty": "ist leer", "is empty: no voxel is labelled": "ist leer: kein Voxel"}.get(text, text)

        with mock.patch.object(engine_messages, "tr", translate):
            self.assertEqual(translated("a.nrrd: is empty: no voxel is labelled."), "a.nrrd: ist leer: kein Voxel.")
            self.assertEqual(translated("Is empty."), "Ist leer.")
            self.assertEqual(translated("this emptyness"), "this emptyness")

    def test_message_is_unchanged_in_english(self) -> None:
        message = "x: cannot be read (no such file). Try again."
        self.assertEqual(translated(message), message)
