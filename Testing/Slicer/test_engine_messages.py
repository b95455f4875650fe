"""The engine's messages are translated into the application's language."""

from __future__ import annotations

import ast
import re
import unittest
from unittest import mock

from dcamt.errors import InputError, MemoryShortage
from dcamt.wall.settings import METHODS_DISAGREE
from dcamt_testing.engine_sentences import COMMAND_LINE, ENGINE, FEWEST_LETTERS, engine_sentences
from DCAMTSlicerLib import engine_messages
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.engine_sentences import sentences
from slicer_harness import in_real_slicer

CONSTRUCTORS = "InputError|OutputError|MemoryShortage|InternalError|IdentifyingNote|_UnplacedError"
"""A regular expression of the classes whose first argument is shown to the user."""
FOLLOWED = """
class Volume:
    voxels: object
    notes: tuple = ()

def read(path, number):
    if number:
        raise InputError(f"direct text {number}", path=path)
    cause = "by a variable"
    refuse(path, cause)
    raise refuse(path, "by a helper's parameter")

def refuse(path, reason):
    unused = "a text that reaches no message"
    return InputError(reason)

def load(path):
    found = []
    collect(found)
    where = f"a clause that is inserted {path}"
    return Volume(None, notes=(*found, choose(), f"starts {where}"))

def collect(notes):
    item = "in a list"
    notes.append(item)

def choose():
    chosen = "by a function's result"
    return chosen
"""


class RenamedLocals(ast.NodeTransformer):
    """Renames all local variables of functions, but neither parameters nor names of modules."""

    def __init__(self) -> None:
        self._names: list[set[str]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        parameters = {argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg)}
        stored = {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        self._names.append(stored - parameters)
        self.generic_visit(node)
        self._names.pop()
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if any(node.id in names for names in self._names):
            return ast.Name(f"renamed_{node.id}", node.ctx)
        return node


def translate_to_capitals(text: str) -> str:
    """Return a text in capitals, as a translation."""
    return text.upper()


class EngineMessagesTest(unittest.TestCase):
    @unittest.skipIf(in_real_slicer(), "the tests may be installed without the engine's source")
    def test_table_of_messages_is_complete(self) -> None:
        listed = {engine_messages._FILLED_IN.sub("{}", sentence) for sentence in sentences(lambda text: text)}
        remedy = "run: PYTHONPATH=Testing python -m dcamt_testing.engine_sentences"
        self.assertEqual(listed, engine_sentences(), remedy)

    @unittest.skipIf(in_real_slicer(), "the tests may be installed without the engine's source")
    def test_each_text_written_in_an_error_is_in_the_table(self) -> None:
        # Read with a regular expression, and so independently of the syntax trees from which the table is made.
        written = re.compile(rf'\b(?:{CONSTRUCTORS})\(\s*"([^"{{]+)"')
        listed = set(sentences(lambda text: text))
        texts = {
            text
            for path in ENGINE.rglob("*.py")
            if path.relative_to(ENGINE).parts[0] not in COMMAND_LINE
            for text in written.findall(path.read_text(encoding="utf-8"))
        }
        self.assertGreater(len(texts), 50)
        self.assertEqual({text for text in texts if sum(map(str.isalpha, text)) >= FEWEST_LETTERS} - listed, set())

    def test_renaming_local_variables_loses_no_sentence(self) -> None:
        renamed = RenamedLocals().visit(ast.parse(FOLLOWED))
        self.assertIn("renamed_cause", ast.unparse(renamed))
        self.assertEqual(engine_sentences([renamed]), engine_sentences([ast.parse(FOLLOWED)]))

    def test_messages_are_followed_through_variables_lists_parameters_and_functions(self) -> None:
        module = ast.parse(FOLLOWED)
        expected = {"direct text {}", "by a variable", "by a helper's parameter", "in a list", "by a function's result"}
        self.assertEqual(engine_sentences([module]), expected | {"a clause that is inserted {}", "starts {}"})
        for fault in ("InputError(reason)", "notes.append(item)", "chosen\n"):
            with self.subTest(fault):
                self.assertLess(
                    engine_sentences([ast.parse(FOLLOWED.replace(fault, "None"))]), engine_sentences([module])
                )

    def test_functions_that_call_each_other_with_a_list_are_followed_once(self) -> None:
        code = (
            "class Volume:\n    notes: tuple = ()\n"
            "def load():\n    found = []\n    visit(found)\n    return Volume(None, notes=found)\n"
            "def visit(notes):\n    notes.append('of the first function')\n    descend(notes)\n"
            "def descend(more):\n    more.append('of the second function')\n    visit(more)\n"
        )
        self.assertEqual(engine_sentences([ast.parse(code)]), {"of the first function", "of the second function"})

    def test_sentence_is_translated_and_inserted_names_are_kept(self) -> None:
        error = InputError(
            "the region of interest lies outside the scan",
            path="/a/Scan 1.nrrd",
            remedy="Give the region in RAS millimetres.",
        )
        with mock.patch.object(engine_messages, "tr", translate_to_capitals):
            self.assertEqual(
                error_text(error),
                "/a/Scan 1.nrrd: THE REGION OF INTEREST LIES OUTSIDE THE SCAN. GIVE THE REGION IN RAS MILLIMETRES.",
            )
            self.assertEqual(translated(METHODS_DISAGREE), METHODS_DISAGREE.upper())
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

    def test_message_is_unchanged_in_english(self) -> None:
        message = "x: cannot be read (no such file). Try again."
        self.assertEqual(translated(message), message)
