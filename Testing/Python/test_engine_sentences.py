"""Test `engine_sentences`, which searches source code for the messages of errors and notes."""

from __future__ import annotations

import ast

import pytest
from dcamt_testing.engine_sentences import engine_sentences

SAMPLE_MODULE = """
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
"""Messages that reach an error or a note in different ways, and a text that reaches neither."""


class LocalRenamer(ast.NodeTransformer):
    """Renames all local variables of functions, but no parameters."""

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


def sentences_of(code: str) -> set[str]:
    return engine_sentences([ast.parse(code)])


def test_renaming_local_variables_loses_no_sentence() -> None:
    renamed = LocalRenamer().visit(ast.parse(SAMPLE_MODULE))
    assert "renamed_cause" in ast.unparse(renamed)
    assert engine_sentences([renamed]) == sentences_of(SAMPLE_MODULE)


def test_search_follows_messages_through_variables_and_lists_and_functions() -> None:
    assert sentences_of(SAMPLE_MODULE) == {
        "direct text {}",
        "by a variable",
        "by a helper's parameter",
        "in a list",
        "by a function's result",
        "a clause that is inserted {}",
        "starts {}",
    }


@pytest.mark.parametrize(
    ("link", "lost"),
    [
        ("InputError(reason)", {"by a variable", "by a helper's parameter"}),
        ("notes.append(item)", {"in a list"}),
        ("chosen\n", {"by a function's result"}),
    ],
)
def test_message_is_not_found_without_the_code_that_hands_it_on(link: str, lost: set[str]) -> None:
    assert sentences_of(SAMPLE_MODULE) - sentences_of(SAMPLE_MODULE.replace(link, "None\n")) == lost


def test_search_ends_if_functions_call_each_other() -> None:
    code = (
        "class Volume:\n    notes: tuple = ()\n"
        "def load():\n    found = []\n    visit(found)\n    return Volume(None, notes=found)\n"
        "def visit(notes):\n    notes.append('of the first function')\n    descend(notes)\n"
        "def descend(more):\n    more.append('of the second function')\n    visit(more)\n"
    )
    assert sentences_of(code) == {"of the first function", "of the second function"}


def test_search_finds_messages_of_two_functions_in_one_loop() -> None:
    code = (
        "class Volume:\n    notes: tuple = ()\n"
        "def load():\n    for number, text in (*first(), *second()):\n        Volume(None, notes=(text,))\n"
        "def first():\n    yield 1, 'of the first function'\n"
        "def second():\n    yield 2, 'of the second function'\n"
    )
    assert sentences_of(code) == {"of the first function", "of the second function"}
