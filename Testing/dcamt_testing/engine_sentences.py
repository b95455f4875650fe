"""Collect the sentences of the engine's errors, warnings and notes from its source code.

`PYTHONPATH=Testing python -m dcamt_testing.engine_sentences` rewrites the table of sentences that Slicer translates.

A sentence is a text that reaches the constructor of an error or a note, or one of the `FIELDS` of a dataclass. Such a
text may pass through local variables, lists, parameters, module constants and the results of functions.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dcamt.recipe_files import load_recipe, shipped_recipes

ENGINE = Path(__file__).resolve().parents[2] / "DCAMTSegmentation" / "dcamt"
COMMAND_LINE = ("api", "cli.py", "commands", "report")
"""Parts of the engine whose messages are not translated."""
CONSTRUCTORS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("InputError", "MemoryShortage", "MissingPackage", "InternalError"), ("what", "remedy")),
    "OutputError": ("what",),
    "IdentifyingNote": ("text",),
    "OverlapNote": ("text",),
    "ChannelNote": ("text",),
    "MappingOption": ("hint",),
    "UnplacedError": ("what",),
    "Preset": ("threshold", "source"),
}
"""For each class, the parameters of its constructor that are searched for messages."""
FIELDS = ("notes", "message", "problems", "warnings", "remedy", "text")
"""Fields of dataclasses that hold messages."""
CLASSES = ("CaseFacts", "ModelPackage", "Prediction", "StoredImage", "Violation", "Volume", "WallResult", "WorkerNote")
"""The dataclasses whose `FIELDS` are shown to the user in Slicer."""
CONSTANTS = ("METHODS_DISAGREE", "NOT_UTF8")
"""Constants of the engine that Slicer shows."""
FEWEST_LETTERS = 6
"""The fewest letters, outside placeholders, of a table entry. A shorter entry would match parts of other messages."""
TABLE = ENGINE.parent / "DCAMTSlicerLib" / "engine_sentences.py"
HEAD = '''"""The engine's sentences, for translation.

`PYTHONPATH=Testing python -m dcamt_testing.engine_sentences` writes this file. An entry may be a part of a longer
message: an entry in lower case follows a file name, for example "scan.nii.gz: is empty".
"""

from __future__ import annotations

from collections.abc import Callable


def sentences(_: Callable[[str], str]) -> tuple[str, ...]:
    """Return each sentence, translated by `_`; {0}, {1}, … are placeholders for values."""
    return (
'''
LINE_LENGTH = 96


def engine_modules() -> list[ast.Module]:
    """Return the syntax trees of the engine's modules whose messages Slicer shows."""
    return [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(ENGINE.rglob("*.py"))
        if path.relative_to(ENGINE).parts[0] not in COMMAND_LINE
    ]


def engine_sentences(modules: list[ast.Module] | None = None) -> set[str]:
    """Return the texts that form the messages of errors and notes, and the titles of the shipped recipes.

    `{}` is a placeholder for a value.

    Args:
        modules: syntax trees to use instead of the engine's modules and recipes.
    """
    texts = MessageSources(modules if modules is not None else engine_modules()).texts()
    if modules is None:
        texts |= {load_recipe(name).title for name in shipped_recipes()}
    return {text for text in texts if sum(letter.isalpha() for letter in text.replace("{}", "")) >= FEWEST_LETTERS}


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its module and the functions around it, the innermost last."""

    module: ast.Module
    functions: tuple[ast.FunctionDef, ...] = ()


@dataclass
class Names:
    """The values that a module or function binds to names."""

    values: dict[str, list[tuple[ast.expr, Scope]]] = field(default_factory=dict)

    def bind(self, target: ast.expr, value: ast.expr, scope: Scope) -> None:
        """Bind a target to a value; if the target is a tuple, unpack the value where possible."""
        if isinstance(target, ast.Name):
            self.values.setdefault(target.id, []).append((value, scope))
        elif isinstance(target, ast.Tuple):
            for index, part in enumerate(target.elts):
                for element in _tuples_in(value) or [value]:
                    parts = element.elts if isinstance(element, ast.Tuple) else []
                    same = len(parts) == len(target.elts) and not any(isinstance(one, ast.Starred) for one in parts)
                    self.bind(part, parts[index] if same else element, scope)


class MessageSources:
    """Finds the texts of the messages in a set of modules, starting from the constructors that take the messages."""

    def __init__(self, modules: list[ast.Module]) -> None:
        self._fields = dict(CONSTRUCTORS)
        self._functions: dict[str, list[tuple[ast.FunctionDef, Scope]]] = {}
        self._calls: dict[str, list[tuple[ast.Call, Scope]]] = {}
        self._calls_in: dict[ast.FunctionDef, list[ast.Call]] = {}
        self._names_in: dict[ast.FunctionDef, list[Names]] = {}
        self._names: dict[ast.AST, Names] = {}
        self._globals: dict[str, list[tuple[ast.expr, Scope]]] = {}
        self._visited: set[tuple[ast.AST, bool]] = set()
        for module in modules:
            self._index(module, Scope(module))

    def texts(self) -> set[str]:
        collected: set[str] = set()
        for name in (*self._fields, "replace"):
            for call, scope in self._calls.get(name, ()):
                for parameter in self._fields.get(name, FIELDS):
                    for value in self._arguments(call, name, parameter):
                        collected |= self._follow(value, scope)
        return collected | self._follow_all((one for name in CONSTANTS for one in self._globals.get(name, ())), False)

    def _index(self, node: ast.AST, scope: Scope) -> None:
        """Record the functions, calls, bindings and dataclasses below a node."""
        names = self._names.setdefault(scope.functions[-1] if scope.functions else scope.module, Names())
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                self._functions.setdefault(child.name, []).append((child, scope))
                self._names[child] = Names()
                for function in (*scope.functions, child):
                    self._names_in.setdefault(function, []).append(self._names[child])
                self._index(child, Scope(scope.module, (*scope.functions, child)))
                continue
            if isinstance(child, ast.ClassDef) and child.name in CLASSES:
                targets = [item.target for item in child.body if isinstance(item, ast.AnnAssign)]
                self._fields[child.name] = tuple(target.id for target in targets if isinstance(target, ast.Name))
            for target, value in _bindings(child):
                names.bind(target, value, scope)
                if not scope.functions:
                    self._globals.setdefault(getattr(target, "id", ""), []).append((value, scope))
            if isinstance(child, ast.Call):
                self._calls.setdefault(_called(child), []).append((child, scope))
                for function in scope.functions:
                    self._calls_in.setdefault(function, []).append(child)
            self._index(child, scope)

    def _arguments(self, call: ast.Call, name: str, parameter: str) -> Iterator[ast.expr]:
        if name in CLASSES and parameter not in FIELDS:
            return
        order = self._fields.get(name, ())
        yield from (word.value for word in call.keywords if word.arg == parameter)
        if parameter in order and order.index(parameter) < len(call.args):
            yield call.args[order.index(parameter)]

    def _follow(self, node: ast.expr, scope: Scope, inserted: bool = False) -> set[str]:
        """Return the texts to which an expression can evaluate; none if it was followed before.

        Args:
            inserted: whether the expression is inserted into another text. If so, constants of one word do not count.
        """
        if (node, inserted) in self._visited:
            return set()
        self._visited.add((node, inserted))
        if isinstance(node, ast.Constant):
            text = node.value.strip() if isinstance(node.value, str) else ""
            return {text} if text and (" " in text or not inserted) else set()
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            collected = {"".join(map(str, parts)).strip()}
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    collected |= self._follow(part.value, scope, inserted=True)
            return collected
        if isinstance(node, ast.Name):
            return self._follow_all(self._values_of(node.id, scope), inserted)
        if isinstance(node, ast.Call):
            return self._follow_call(node, scope, inserted)
        return self._follow_all(((part, scope) for part in _parts(node)), inserted)

    def _follow_all(self, nodes: Iterator[tuple[ast.expr, Scope]], inserted: bool) -> set[str]:
        return {text for node, scope in nodes for text in self._follow(node, scope, inserted)}

    def _follow_call(self, call: ast.Call, scope: Scope, inserted: bool) -> set[str]:
        name = _called(call)
        given = [*call.args, *(word.value for word in call.keywords)]
        if isinstance(call.func, ast.Attribute) and name in ("join", "get", "values"):
            return self._follow_all(((part, scope) for part in (call.func.value, *given)), inserted)
        if isinstance(call.func, ast.Attribute) and name in ("format", "removesuffix", "strip", "capitalize"):
            return self._follow(call.func.value, scope, inserted)
        if name in ("str", "tuple", "list", "sorted", "IdentifyingNote", "next", "filter", "fromkeys", "enumerate"):
            return self._follow_all(((part, scope) for part in given), inserted)
        results = []
        for function, outer in self._functions.get(name, ()):
            inner = Scope(outer.module, (*outer.functions, function))
            for node in ast.walk(function):
                if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) and node.value is not None:
                    results.append((node.value, inner))
        return self._follow_all(iter(results), inserted)

    def _values_of(self, name: str, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
        """Yield the values that a name can hold: local values, arguments of calls, or a module's constant."""
        for depth in range(len(scope.functions), 0, -1):
            function = scope.functions[depth - 1]
            local = [value for names in self._names_in[function] for value in names.values.get(name, ())]
            parameters = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
            if not local and name not in parameters:
                continue
            yield from local
            yield from self._appended_by_calls(name, function)
            if name in parameters:
                yield from self._given_to(function, name, [one for one in parameters if one not in ("self", "cls")])
            return
        local = self._names[scope.module].values.get(name, [])
        yield from local or self._globals.get(name, [])

    def _given_to(
        self, function: ast.FunctionDef, parameter: str, order: list[str]
    ) -> Iterator[tuple[ast.expr, Scope]]:
        for call, scope in self._calls.get(function.name, ()):
            yield from ((word.value, scope) for word in call.keywords if word.arg == parameter)
            if parameter in order and order.index(parameter) < len(call.args):
                yield call.args[order.index(parameter)], scope

    def _appended_by_calls(
        self, name: str, function: ast.FunctionDef, followed: frozenset[tuple[str, ast.FunctionDef]] = frozenset()
    ) -> Iterator[tuple[ast.expr, Scope]]:
        """Yield the values that other functions append to a list.

        Args:
            name: the variable that holds the list.
            function: the function that has this variable and passes the list to the other functions.
            followed: variables, each with its function, that are not searched again.
        """
        followed |= {(name, function)}
        for call in self._calls_in.get(function, ()):
            for position, argument in enumerate(call.args):
                if not (isinstance(argument, ast.Name) and argument.id == name):
                    continue
                for other, _scope in self._functions.get(_called(call), ()):
                    order = [one.arg for one in other.args.args if one.arg not in ("self", "cls")]
                    if position < len(order):
                        yield from self._names[other].values.get(order[position], [])
                        if (order[position], other) not in followed:
                            yield from self._appended_by_calls(order[position], other, followed)


def _bindings(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield (target, value) for each assignment in a node, and (list, value) for each value appended to a list."""
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.comprehension):
        yield node.target, node.iter
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("append", "extend"):
        yield from ((node.func.value, value) for value in node.args)


def _tuples_in(node: ast.expr) -> list[ast.expr]:
    elements = node.elts if isinstance(node, ast.Tuple | ast.List) else []
    only_tuples = all(isinstance(element, ast.Tuple) for element in elements)
    return elements if only_tuples else []


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the expressions from which an expression takes its text."""
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        yield from (node.left, node.right)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        yield from node.elts
    elif isinstance(node, ast.Dict):
        yield from node.values
    elif isinstance(node, ast.Starred | ast.Subscript | ast.NamedExpr):
        yield node.value
    elif isinstance(node, ast.GeneratorExp | ast.ListComp):
        yield node.elt


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def table() -> str:
    """Return the source code of the module with the table of sentences, formatted by ruff."""
    lines = [HEAD]
    for sentence in sorted(engine_sentences()):
        first, *others = sentence.split("{}")
        numbered = first + "".join(f"{{{number}}}{part}" for number, part in enumerate(others))
        parts = [_quoted(part) for part in _lines(numbered)]
        if len(parts) == 1:
            lines.append(f"        _({parts[0]}),\n")
        else:
            lines += ["        _(\n", *(f"            {part}\n" for part in parts), "        ),\n"]
    source = "".join([*lines, "    )\n"])
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TABLE)]
    return subprocess.run(command, input=source, capture_output=True, check=True, encoding="utf-8").stdout


def _lines(text: str) -> list[str]:
    """Split a text into parts of at most `LINE_LENGTH` characters, at spaces; a space begins the next part."""
    lines = [""]
    for number, word in enumerate(text.split(" ")):
        piece = word if number == 0 else f" {word}"
        if len(lines[-1]) + len(piece) > LINE_LENGTH:
            lines.append("")
        lines[-1] += piece
    return lines


def _quoted(text: str) -> str:
    return repr(text) if '"' in text and "'" not in text else '"' + text.replace('"', '\\"') + '"'


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(TABLE)
