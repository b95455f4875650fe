"""The walls between engine and modules, and the one direction in which the engine's imports run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE_HOME = ROOT / "DCAMTSegmentation"
ENGINE = ENGINE_HOME / "dcamt"
APPLICATION = {"slicer", "slicer_core", "qt", "ctk", "vtk", "vtkmodules", "PythonQt", "SampleData"}
MAKES_SURFACES = ("dcamt/io/surfaces.py", "dcamt/wall/")
"""Where the engine may use vtk, inside functions: nothing else waits for it to load."""
MODULES = {"DCAMTSegmentation", "DCAMTSegmentationLib", "DCAMTSlicerLib", "DCAMTTraining", "DCAMTTrainingLib"}
HEAVY = {"torch", "SimpleITK", "scipy", "slicerio", "matplotlib", "nibabel"}

# Lowest floor first: a module imports from its own floor and those before it, never from a later one.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset(
        {"__init__", "errors", "geometry", "volume", "recipe", "machine"}
        | {"io", "cases", "runs", "models", "metrics", "worker", "wall"}
    ),
    frozenset({"devices", "distributed", "preprocessing", "networks", "losses", "training", "inference"}),
    frozenset({"report", "api", "commands", "cli", "__main__"}),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


@dataclass(frozen=True)
class Import:
    """One import in a file: the dotted module, and whether importing the file runs it."""

    target: str
    line: int
    at_import_time: bool


def module_name(path: Path, home: Path) -> str:
    """`home/dcamt/losses/mmd.py` is dcamt.losses.mmd; an `__init__.py` is its package."""
    parts = path.relative_to(home).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, home: Path) -> Iterator[Import]:
    """Every import in a file: relative ones made absolute, `import_module("...")` included."""
    package = module_name(path, home).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST, at_import_time: bool) -> Iterator[Import]:
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        unrun = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        at_import_time = at_import_time and not deferred and not unrun
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, line, at_import_time)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from . import mmd` names a module, `from .mmd import mmd2` what lies in one.
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
            yield from visit(child, at_import_time)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def forbidden(paths: Iterator[Path] | list[Path], home: Path, names: set[str]) -> list[str]:
    """Where a file imports one of the top-level packages in `names`, at any depth of its code."""
    return [
        f"{path.relative_to(home)}:{found.line} imports {found.target}"
        for path in paths
        for found in imports_of(path, home)
        if found.target.split(".")[0] in names
    ]


def floor_of(module: str) -> int | None:
    """Return the floor of an engine module; None for a module that no floor names."""
    parts = module.split(".")
    return FLOOR_OF.get(parts[1] if len(parts) > 1 else "__init__")


def upward(home: Path) -> list[str]:
    """Return the imports within home/dcamt that run to a higher floor."""
    faults = []
    for path in sorted((home / "dcamt").rglob("*.py")):
        own = floor_of(module_name(path, home))
        for found in imports_of(path, home):
            if found.target.split(".")[0] != "dcamt":
                continue
            theirs = floor_of(found.target)
            if own is not None and theirs is not None and theirs > own:
                faults.append(f"{path.relative_to(home)}:{found.line} imports {found.target}")
    return faults


def import_time_graph(home: Path) -> dict[str, set[str]]:
    """Return the modules and outside packages that each engine module imports directly."""
    return {
        module_name(path, home): {found.target for found in imports_of(path, home) if found.at_import_time}
        for path in (home / "dcamt").rglob("*.py")
    }


def reached(graph: dict[str, set[str]], start: str, *, packages: bool = True) -> set[str]:
    """All that importing `start` imports; with `packages`, also what the packages on the way import."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [module.rpartition(".")[0]] if packages and "." in module else []
            waiting += graph.get(module, ())
    return seen


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Return the engine modules whose own import statements lead back to them."""
    return [
        module
        for module, targets in graph.items()
        if any(module in reached(graph, target, packages=False) for target in targets)
    ]


def import_graph(home: Path) -> dict[str, set[str]]:
    """Return each engine module's imports of other engine modules, those inside functions included."""
    return {
        module: {found.target for found in imports_of(path, home) if found.target.split(".")[0] == "dcamt"} - {module}
        for path in (home / "dcamt").rglob("*.py")
        for module in [module_name(path, home)]
    }


def package_graph(home: Path) -> dict[str, set[str]]:
    """Return the same between the packages and top-level modules of the engine: `io`, `losses`, `volume`, ..."""
    packages: dict[str, set[str]] = {}
    for module, targets in import_graph(home).items():
        if module != "dcamt":
            own = ".".join(module.split(".")[:2])
            theirs = {".".join(target.split(".")[:2]) for target in targets if target != "dcamt"}
            packages.setdefault(own, set()).update(theirs - {own})
    return packages


def module_files() -> list[Path]:
    """Every Python file that runs inside Slicer."""
    return [
        path
        for folder in (ENGINE_HOME, ROOT / "DCAMTTraining")
        for path in sorted(folder.rglob("*.py"))
        if ENGINE not in path.parents
    ]


def test_engine_knows_nothing_of_slicer() -> None:
    files = sorted(ENGINE.rglob("*.py"))
    assert len(files) > 5
    makes_surfaces = [path for path in files if path.relative_to(ENGINE_HOME).as_posix().startswith(MAKES_SURFACES)]
    others = [path for path in files if path not in makes_surfaces]
    assert forbidden(others, ENGINE_HOME, APPLICATION | MODULES) == []
    assert forbidden(makes_surfaces, ENGINE_HOME, (APPLICATION | MODULES) - {"vtk", "vtkmodules"}) == []
    at_once = [
        f"{path.relative_to(ENGINE_HOME)}:{found.line} imports {found.target}"
        for path in makes_surfaces
        for found in imports_of(path, ENGINE_HOME)
        if found.at_import_time and found.target.split(".")[0] in {"vtk", "vtkmodules"}
    ]
    assert at_once == []


def test_modules_import_no_torch() -> None:
    files = module_files()
    assert ENGINE_HOME / "DCAMTSegmentation.py" in files
    assert {ROOT / "DCAMTTraining" / name for name in ("DCAMTTraining.py", "DCAMTTrainingLib/session.py")} <= set(files)
    assert forbidden(files, ROOT, {"torch"}) == []


def test_modules_use_only_engine_files_that_import_no_torch() -> None:
    graph = import_time_graph(ENGINE_HOME)
    # A lazy import counts too: it would still load torch in the application.
    costly = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.target}"
        for path in module_files()
        for found in imports_of(path, ENGINE_HOME if ENGINE_HOME in path.parents else ROOT)
        if found.target.startswith("dcamt")
        and any(name.split(".")[0] == "torch" for name in reached(graph, found.target))
    ]
    assert costly == []


def test_every_engine_file_has_a_floor() -> None:
    unplaced = {
        name
        for path in ENGINE.rglob("*.py")
        if (name := path.relative_to(ENGINE).with_suffix("").parts[0]) not in FLOOR_OF
    }
    assert unplaced == set(), "name the floor of these in FLOORS"


def test_imports_run_one_way() -> None:
    assert upward(ENGINE_HOME) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert cycles(import_graph(ENGINE_HOME)) == []


def test_no_package_imports_itself_by_way_of_others() -> None:
    assert cycles(package_graph(ENGINE_HOME)) == []


def test_lowest_floor_imports_where_torch_is_blocked() -> None:
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
        if floor_of(module_name(path, ENGINE_HOME)) == 0
    ]
    assert len(modules) > 20
    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        env={**os.environ, "PYTHONPATH": str(ENGINE_HOME)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["errors", "volume", "recipe"])
def test_bottom_of_the_engine_costs_nothing_heavy(module: str) -> None:
    if not (ENGINE / f"{module}.py").exists():
        pytest.skip(f"dcamt.{module} does not exist")
    program = f"import sys, dcamt.{module}; print(*sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ENGINE_HOME)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# The rules themselves, against faults placed on purpose.


def tree(home: Path, **files: str) -> Path:
    """A small dcamt; `losses__mmd` is losses/mmd.py."""
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
def test_an_application_import_is_found(tmp_path: Path, fault: str) -> None:
    home = tree(tmp_path, volume=fault)
    assert len(forbidden([home / "dcamt/volume.py"], home, APPLICATION)) == 1


def test_names_that_only_begin_alike_are_left_alone(tmp_path: Path) -> None:
    home = tree(tmp_path, volume="import slicerio\nfrom .slicer import x\nimport qtpy\n'import slicer'")
    assert forbidden([home / "dcamt/volume.py"], home, APPLICATION) == []


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("volume", "from .preprocessing import to_network"),
        ("volume", "def f():\n    from dcamt.training import trainer"),
        ("runs__events", "def f():\n    from ..training import trainer"),
        ("networks__vnet", "from .. import cli"),
        ("training__learner", "import dcamt.report.run_page"),
    ],
)
def test_an_import_that_runs_up_is_found(tmp_path: Path, file: str, fault: str) -> None:
    home = tree(tmp_path, **{"cli": "", "training__trainer": "", file: fault})
    assert len(upward(home)) == 1


def test_imports_that_run_down_are_left_alone(tmp_path: Path) -> None:
    home = tree(tmp_path, volume="", cli="from .training import trainer", training__trainer="from ..volume import a")
    assert upward(home) == []


@pytest.mark.parametrize("back", ["from . import volume", "def f():\n    from .volume import b"])
def test_a_circle_of_modules_is_found(tmp_path: Path, back: str) -> None:
    home = tree(tmp_path, volume="from .recipe import a", recipe=back)
    assert sorted(cycles(import_graph(home))) == ["dcamt.recipe", "dcamt.volume"]


def test_a_circle_of_packages_is_found(tmp_path: Path) -> None:
    home = tree(tmp_path, io__nifti="from ..runs.lock import a", runs__state="from ..io.atomic import b")
    assert cycles(import_graph(home)) == []
    assert sorted(cycles(package_graph(home))) == ["dcamt.io", "dcamt.runs"]


def test_torch_is_seen_through_other_modules(tmp_path: Path) -> None:
    home = tree(
        tmp_path,
        volume="from .recipe import a",
        recipe="import torch.nn",
        errors="def f():\n    import torch",
    )
    graph = import_time_graph(home)
    assert "torch.nn" in reached(graph, "dcamt.volume")
    assert not any(name.startswith("torch") for name in reached(graph, "dcamt.errors"))
