"""Test the import rules of the Slicer modules and of the engine."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from dcamt_testing.processes import HANGING_S

ROOT = Path(__file__).resolve().parents[2]
ENGINE_HOME = ROOT / "DCAMTSegmentation"
ENGINE = ENGINE_HOME / "dcamt"
APPLICATION = {"slicer", "slicer_core", "qt", "ctk", "vtk", "vtkmodules", "PythonQt", "SampleData"}
SURFACE_MAKERS = ("dcamt/io/surfaces.py", "dcamt/wall/")
"""These parts of the engine may import vtk, but only inside functions, because vtk loads slowly."""
MODULES = {"DCAMTSegmentation", "DCAMTSegmentationLib", "DCAMTSlicerLib", "DCAMTTraining", "DCAMTTrainingLib"}
HEAVY = {"torch", "SimpleITK", "scipy", "slicerio", "matplotlib", "nibabel"}

# The lowest layer is first. A module imports only from its own layer and from lower layers.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {"__init__", "case_memory", "errors", "geometry", "volume", "label_resampling"}
        | {"hounsfield", "machine", "process_settings", "segment_colors", "typed_names"}
        | {"recipe", "recipe_checks", "recipe_files"}
        | {"io", "cases", "runs", "models", "metrics", "worker", "wall"}
    ),
    frozenset({"devices", "distributed", "preprocessing", "networks", "losses", "training", "inference"}),
    frozenset({"report", "api", "commands", "cli", "__main__"}),
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}


@dataclass(frozen=True)
class Import:
    """An import in a file; `at_import_time` is False inside functions and `if TYPE_CHECKING`."""

    target: str
    line: int
    at_import_time: bool


def module_name(path: Path, home: Path) -> str:
    """Return a file's dotted name: dcamt.losses.mmd for losses/mmd.py, dcamt.losses for losses/__init__.py."""
    parts = path.relative_to(home).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path, home: Path) -> tuple[Import, ...]:
    """Return all imports in a file, with absolute names, including `import_module("...")`."""
    package = module_name(path, home).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit_node(node: ast.AST, at_import_time: bool) -> Iterator[Import]:
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        type_checking_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        at_import_time = at_import_time and not deferred and not type_checking_only
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, line, at_import_time)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from . import mmd` imports a module; `from .mmd import mmd2` imports an attribute of that module.
                inner = home.joinpath(*target.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield Import(f"{target}.{alias.name}" if is_module else target, line, at_import_time)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield Import(str(node.args[0].value), line, at_import_time)
        for child in ast.iter_child_nodes(node):
            yield from visit_node(child, at_import_time)

    return tuple(visit_node(ast.parse(path.read_text(encoding="utf-8")), True))


def forbidden_imports(paths: Iterator[Path] | list[Path], home: Path, names: set[str]) -> list[str]:
    """Return each import of one of the top-level packages `names`, inside functions too."""
    return [
        f"{path.relative_to(home)}:{one_import.line} imports {one_import.target}"
        for path in paths
        for one_import in imports_of(path, home)
        if one_import.target.split(".")[0] in names
    ]


def layer_of(module: str) -> int | None:
    parts = module.split(".")
    return LAYER_OF.get(parts[1] if len(parts) > 1 else "__init__")


def upward_imports(home: Path) -> list[str]:
    """Return each import in home/dcamt from a higher layer."""
    faults = []
    for path in sorted((home / "dcamt").rglob("*.py")):
        own = layer_of(module_name(path, home))
        for one_import in imports_of(path, home):
            if one_import.target.split(".")[0] != "dcamt":
                continue
            theirs = layer_of(one_import.target)
            if own is not None and theirs is not None and theirs > own:
                faults.append(f"{path.relative_to(home)}:{one_import.line} imports {one_import.target}")
    return faults


def import_time_graph(home: Path) -> dict[str, set[str]]:
    """Map each engine module to the modules and external packages that it imports at import time."""
    return {
        module_name(path, home): {
            one_import.target for one_import in imports_of(path, home) if one_import.at_import_time
        }
        for path in (home / "dcamt").rglob("*.py")
    }


def reached_modules(graph: dict[str, set[str]], start: str, *, packages: bool = True) -> set[str]:
    """Return `start` and all modules that it imports, directly or indirectly.

    Args:
        packages: include the parent packages of each module, and their imports.
    """
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [module.rpartition(".")[0]] if packages and "." in module else []
            waiting += graph.get(module, ())
    return seen


def modules_in_cycles(graph: dict[str, set[str]]) -> list[str]:
    return [
        module
        for module, targets in graph.items()
        if any(module in reached_modules(graph, target, packages=False) for target in targets)
    ]


def import_graph(home: Path) -> dict[str, set[str]]:
    """Map each engine module to the engine modules that it imports, inside functions too."""
    return {
        module: {
            one_import.target for one_import in imports_of(path, home) if one_import.target.split(".")[0] == "dcamt"
        }
        - {module}
        for path in (home / "dcamt").rglob("*.py")
        for module in [module_name(path, home)]
    }


def package_graph(home: Path) -> dict[str, set[str]]:
    """Return the import graph of the engine's packages and top-level modules: `io`, `losses`, `volume`, …"""
    packages: dict[str, set[str]] = {}
    for module, targets in import_graph(home).items():
        if module != "dcamt":
            own = ".".join(module.split(".")[:2])
            theirs = {".".join(target.split(".")[:2]) for target in targets if target != "dcamt"}
            packages.setdefault(own, set()).update(theirs - {own})
    return packages


def module_files() -> list[Path]:
    """Return the Python files of both Slicer modules, without the engine."""
    return [
        path
        for folder in (ENGINE_HOME, ROOT / "DCAMTTraining")
        for path in sorted(folder.rglob("*.py"))
        if ENGINE not in path.parents
    ]


def test_engine_does_not_import_slicer_or_qt() -> None:
    files = sorted(ENGINE.rglob("*.py"))
    assert len(files) > 5
    surface_makers = [path for path in files if path.relative_to(ENGINE_HOME).as_posix().startswith(SURFACE_MAKERS)]
    others = [path for path in files if path not in surface_makers]
    assert forbidden_imports(others, ENGINE_HOME, APPLICATION | MODULES) == []
    assert forbidden_imports(surface_makers, ENGINE_HOME, (APPLICATION | MODULES) - {"vtk", "vtkmodules"}) == []
    at_once = [
        f"{path.relative_to(ENGINE_HOME)}:{one_import.line} imports {one_import.target}"
        for path in surface_makers
        for one_import in imports_of(path, ENGINE_HOME)
        if one_import.at_import_time and one_import.target.split(".")[0] in {"vtk", "vtkmodules"}
    ]
    assert at_once == []


def test_slicer_modules_import_no_torch() -> None:
    files = module_files()
    assert ENGINE_HOME / "DCAMTSegmentation.py" in files
    assert {ROOT / "DCAMTTraining" / name for name in ("DCAMTTraining.py", "DCAMTTrainingLib/session.py")} <= set(files)
    assert forbidden_imports(files, ROOT, {"torch"}) == []


def test_slicer_modules_use_only_engine_files_that_import_no_torch() -> None:
    graph = import_time_graph(ENGINE_HOME)
    # Imports inside functions of the Slicer modules are checked, too: when the function runs, Slicer loads the
    # engine file and all that the engine file imports at import time.
    costly = [
        f"{path.relative_to(ROOT)}:{one_import.line} imports {one_import.target}"
        for path in module_files()
        for one_import in imports_of(path, ENGINE_HOME if ENGINE_HOME in path.parents else ROOT)
        if one_import.target.startswith("dcamt")
        and any(name.split(".")[0] == "torch" for name in reached_modules(graph, one_import.target))
    ]
    assert costly == []


def test_every_engine_file_is_in_a_layer() -> None:
    unplaced = {
        name
        for path in ENGINE.rglob("*.py")
        if (name := path.relative_to(ENGINE).with_suffix("").parts[0]) not in LAYER_OF
    }
    assert unplaced == set(), "add these names to LAYERS"


def test_no_engine_module_imports_from_a_higher_layer() -> None:
    assert upward_imports(ENGINE_HOME) == []


def test_engine_modules_have_no_circular_imports() -> None:
    assert modules_in_cycles(import_graph(ENGINE_HOME)) == []


def test_engine_packages_have_no_circular_imports() -> None:
    assert modules_in_cycles(package_graph(ENGINE_HOME)) == []


def run_python(program: str, *arguments: str) -> str:
    """Run a program that can import the engine, in a new process; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ENGINE_HOME)},
        capture_output=True,
        text=True,
        timeout=HANGING_S,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lowest_layer_can_be_imported_without_torch() -> None:
    program = """if True:
        import importlib, sys
        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "torch":
                    raise ImportError("torch is blocked")
        sys.meta_path.insert(0, NoTorch())
        for name in sys.argv[1:]:
            importlib.import_module(name)
        """
    modules = [
        module_name(path, ENGINE_HOME)
        for path in sorted(ENGINE.rglob("*.py"))
        if layer_of(module_name(path, ENGINE_HOME)) == 0
    ]
    assert len(modules) > 20
    run_python(program, *modules)


def test_basic_modules_import_no_heavy_package() -> None:
    modules = "dcamt.errors, dcamt.volume, dcamt.recipe_files"
    program = f"import sys, {modules}; print(*sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    assert run_python(program).split() == []


# The following tests check that the functions above detect deliberate violations.


def write_engine(home: Path, **files: str) -> Path:
    """Write a small package dcamt, one file per argument; the argument `losses__mmd` becomes losses/mmd.py."""
    for name, text in {"__init__": "", **files}.items():
        path = home / "dcamt" / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return home


@pytest.mark.parametrize(
    "fault",
    [
        "import slicer",
        "from slicer.util import loadVolume",
        "import vtk as v",
        "def show():\n    import qt",
        "class A:\n    def f(self):\n        from ctk import ctkSliderWidget",
        "import importlib\nimportlib.import_module('slicer.util')",
        "__import__('vtk')",
        "try:\n    import slicer\nexcept ImportError:\n    pass",
    ],
)
def test_import_of_the_application_is_detected(tmp_path: Path, fault: str) -> None:
    home = write_engine(tmp_path, volume=fault)
    assert len(forbidden_imports([home / "dcamt/volume.py"], home, APPLICATION)) == 1


def test_packages_with_similar_names_are_allowed(tmp_path: Path) -> None:
    home = write_engine(tmp_path, volume="import slicerio\nfrom .slicer import x\nimport qtpy\n'import slicer'")
    assert forbidden_imports([home / "dcamt/volume.py"], home, APPLICATION) == []


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("volume", "from .preprocessing import to_network"),
        ("volume", "def f():\n    from dcamt.training import trainer"),
        ("runs__events", "def f():\n    from ..training import trainer"),
        ("networks__vnet", "from .. import cli"),
        ("training__learner", "import dcamt.report.run_report_html"),
    ],
)
def test_import_from_a_higher_layer_is_detected(tmp_path: Path, file: str, fault: str) -> None:
    home = write_engine(tmp_path, **{"cli": "", "training__trainer": "", file: fault})
    assert len(upward_imports(home)) == 1


def test_imports_from_lower_layers_are_allowed(tmp_path: Path) -> None:
    home = write_engine(
        tmp_path, volume="", cli="from .training import trainer", training__trainer="from ..volume import a"
    )
    assert upward_imports(home) == []


@pytest.mark.parametrize("back", ["from . import volume", "def f():\n    from .volume import b"])
def test_circular_import_of_modules_is_detected(tmp_path: Path, back: str) -> None:
    home = write_engine(tmp_path, volume="from .recipe import a", recipe=back)
    assert sorted(modules_in_cycles(import_graph(home))) == ["dcamt.recipe", "dcamt.volume"]


def test_circular_import_of_packages_is_detected(tmp_path: Path) -> None:
    home = write_engine(tmp_path, io__nifti="from ..runs.lock import a", runs__state="from ..io.atomic import b")
    assert modules_in_cycles(import_graph(home)) == []
    assert sorted(modules_in_cycles(package_graph(home))) == ["dcamt.io", "dcamt.runs"]


def test_indirect_import_of_torch_is_detected(tmp_path: Path) -> None:
    home = write_engine(
        tmp_path,
        volume="from .recipe import a",
        recipe="import torch.nn",
        errors="def f():\n    import torch",
    )
    graph = import_time_graph(home)
    assert "torch.nn" in reached_modules(graph, "dcamt.volume")
    assert not any(name.startswith("torch") for name in reached_modules(graph, "dcamt.errors"))
