"""Collect the sentences of the engine's errors, remarks and notes from its source code.

`PYTHONPATH=Testing python -m dcamt_testing.engine_sentences` rewrites the table of sentences that Slicer translates.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[2] / "DCAMTSegmentation" / "dcamt"
COMMAND_LINE = ("api", "cli.py", "commands", "report")
"""Parts of the engine whose messages appear only in a terminal. They are not translated."""
CALLS = (
    *("InputError", "OutputError", "MemoryShortage", "MissingPackage", "InternalError"),
    *("WorkerNote", "Violation", "_note", "_with_problem"),
)
"""Functions whose arguments are messages or parts of messages."""
ARGUMENTS = ("remedy", "message", "what", "text")
VARIABLES = ("what", "remedy", "text", "found", "note", "notes", "METHODS_DISAGREE")
"""Variables that hold messages or parts of messages."""
REMARKS = "checks.py"
"""The name of a module whose functions return messages."""
FEWEST_LETTERS = 6
"""The fewest letters of a fixed text in the table: a shorter text would match parts of other messages."""
TABLE = ENGINE.parent / "DCAMTSlicerLib" / "engine_sentences.py"
HEAD = '''"""The engine's sentences, for translation; `python -m dcamt_testing.engine_sentences` writes this file."""

from __future__ import annotations

from collections.abc import Callable


def sentences(_: Callable[[str], str]) -> tuple[str, ...]:
    """Return each sentence, translated by `_`; {0}, {1}, … are placeholders for values."""
    return (
'''
LINE_LENGTH = 96


def engine_sentences() -> set[str]:
    """Return all messages of errors and notes, or their parts; `{}` is a placeholder for a value."""
    return {
        sentence
        for path in sorted(ENGINE.rglob("*.py"))
        if path.relative_to(ENGINE).parts[0] not in COMMAND_LINE
        for sentence in _sentences_of(ast.parse(path.read_text(encoding="utf-8")), path.name == REMARKS)
        if sum(letter.isalpha() for letter in sentence.replace("{}", "")) >= FEWEST_LETTERS
    }


def table() -> str:
    """Return the source code of the module with the table of sentences."""
    lines = [HEAD]
    for sentence in sorted(engine_sentences()):
        first, *others = sentence.split("{}")
        numbered = first + "".join(f"{{{number}}}{part}" for number, part in enumerate(others))
        parts = [_quoted(part) for part in _lines(numbered)]
        if len(parts) == 1:
            lines.append(f"        _({parts[0]}),\n")
        else:
            lines += ["        _(\n", *(f"            {part}\n" for part in parts), "        ),\n"]
    return "".join([*lines, "    )\n"])


def _lines(text: str) -> list[str]:
    """Split a text into parts of at most `LINE_LENGTH` letters; a part begins with the space before its first word."""
    found = [""]
    for number, word in enumerate(text.split(" ")):
        piece = word if number == 0 else f" {word}"
        if len(found[-1]) + len(piece) > LINE_LENGTH:
            found.append("")
        found[-1] += piece
    return found


def _quoted(text: str) -> str:
    return repr(text) if '"' in text and "'" not in text else '"' + text.replace('"', '\\"') + '"'


def _sentences_of(tree: ast.Module, returned: bool) -> Iterator[str]:
    """Yield the sentences of a module. returned: include the texts that its functions return."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _assigned(target, node.value)
        elif isinstance(node, ast.AugAssign):
            yield from _assigned(node.target, node.value)
        elif isinstance(node, ast.Return | ast.Yield) and returned and node.value is not None:
            yield from _texts(node.value)
        elif isinstance(node, ast.Call):
            owner = _name(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if _name(node.func) in CALLS or owner in VARIABLES:
                for argument in (*node.args, *(word.value for word in node.keywords if word.arg in ARGUMENTS)):
                    yield from _texts(argument)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[str]:
    """Yield the texts that are assigned to one of `VARIABLES`."""
    if isinstance(target, ast.Name) and target.id in VARIABLES:
        yield from _texts(value)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for place, part in zip(target.elts, value.elts, strict=True):
            yield from _assigned(place, part)


def _texts(node: ast.expr) -> Iterator[str]:
    """Yield each text to which an expression can evaluate."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.strip()
    elif isinstance(node, ast.JoinedStr):
        parts = [value.value if isinstance(value, ast.Constant) else "{}" for value in node.values]
        yield "".join(map(str, parts)).strip()
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.Tuple | ast.List):
        for element in node.elts:
            yield from _texts(element)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _texts(node.left)
        yield from _texts(node.right)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(TABLE)
