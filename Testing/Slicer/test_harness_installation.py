"""Test the installation of the harness, and rules for source files."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run_python(arguments: list[str], *folders: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, str(HERE.parent)])}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=HERE,
        encoding="utf-8",
    )


# Installs the harness twice, opens both modules, loads the module tests without pytest, and prints results as JSON.
START = """
import json, sys, unittest
import slicer_harness as harness

def packages(before=()):
    return sorted({name.split(".")[0] for name in set(sys.modules) - set(before)})

seen = {"installed": [harness.install()]}
import slicer
app = slicer.app
seen["installed"] += [harness.install(), slicer.app is app, harness.in_real_slicer()]
seen["harness"] = packages()
for name in ("DCAMTSegmentation", "DCAMTTraining"):
    before = set(sys.modules)
    harness.open_module(name)
    seen[name] = packages(before)
sys.modules["pytest"] = None
loader = unittest.TestLoader()
files = [line.strip() for line in open("CMakeLists.txt", encoding="utf-8") if line.strip().startswith("test_")]
seen["tests"] = {name: loader.loadTestsFromName(name.removesuffix(".py")).countTestCases() for name in files}
seen["errors"] = loader.errors
from DCAMTSlicerLib import stepped_task
seen["double_click_s"] = stepped_task.DOUBLE_CLICK_S
print(json.dumps(seen))
"""


class StartTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        done = run_python(["-c", START], *(str(ROOT / name) for name in ("DCAMTSegmentation", "DCAMTTraining")))
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.seen = json.loads(done.stdout.splitlines()[-1])

    def test_second_installation_keeps_the_application(self) -> None:
        self.assertEqual(self.seen["installed"], [True, True, True, False])

    def test_harness_imports_no_heavy_package(self) -> None:
        self.assertIn("PySide6", self.seen["harness"])
        self.assertEqual(set(self.seen["harness"]) & {"torch", "monai", "SimpleITK", "pytest"}, set())

    def test_opening_a_panel_imports_no_heavy_package(self) -> None:
        heavy = {"torch", "monai", "SimpleITK", "scipy", "nibabel", "nrrd", "slicerio", "matplotlib"}
        for name, library in (("DCAMTSegmentation", "DCAMTSegmentationLib"), ("DCAMTTraining", "DCAMTTrainingLib")):
            with self.subTest(name):
                self.assertIn(library, self.seen[name])
                self.assertEqual(set(self.seen[name]) & heavy, set())

    def test_unittest_loads_the_tests_without_pytest(self) -> None:
        """The files also run inside Slicer, whose Python may lack pytest."""
        files = {path.name for path in HERE.glob("test_*.py") if not path.name.startswith("test_harness_")}
        self.assertEqual(self.seen["errors"], [])
        self.assertEqual(set(self.seen["tests"]), files)
        self.assertGreater(min(self.seen["tests"].values()), 0)

    def test_loading_the_tests_sets_the_double_click_time_to_zero(self) -> None:
        self.assertEqual(self.seen["double_click_s"], 0)


class InstallationTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_real_slicer_is_not_changed(self) -> None:
        (self.folder / "slicer.py").write_text("class app: pass\n", encoding="utf-8")
        code = (
            "import sys, slicer, slicer_harness as h; print(h.install(), h.in_real_slicer());"
            "print([n for n in ('qt', 'ctk', 'SampleData', 'PySide6') if n in sys.modules], dir(slicer)[-1])"
        )
        done = run_python(["-c", code], str(self.folder))
        self.assertEqual(done.stdout.split("\n")[:2], ["False True", "[] app"], done.stderr)

    def test_tests_are_skipped_with_a_reason_when_packages_are_missing(self) -> None:
        (self.folder / "slicer.py").write_text("raise ImportError('no wheel for this machine')\n", encoding="utf-8")
        done = run_python(
            ["-m", "pytest", "-rs", "-p", "no:cacheprovider", "test_harness_packaging.py"], str(self.folder)
        )
        self.assertIn("skipped", done.stdout)
        self.assertIn("need the wheels of slicer-core and PySide6-Essentials: no wheel for this machine", done.stdout)
        self.assertNotIn("error", done.stdout.lower())


class SourceTest(unittest.TestCase):
    def test_waiting_calls_use_the_default_time_limit(self) -> None:
        """A test's own limit may be too short on slow computers."""
        calls, limits = 0, []
        for path in sorted(HERE.glob("*.py")):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = ast.unparse(call.func).rpartition(".")[2] if isinstance(call, ast.Call) else ""
                if not name.startswith(("process_events_until", "wait")):
                    continue
                calls += 1
                given = [word.value for word in call.keywords if word.arg == "timeout"] + call.args[1:2]
                limits += [
                    (path.name, call.lineno)
                    for one in given
                    if isinstance(one, ast.Constant) and not isinstance(one.value, str)
                ]
        self.assertGreater(calls, 20)
        self.assertEqual(limits, [])

    def test_sources_of_the_modules_do_not_mention_the_harness(self) -> None:
        sources = [path for folder in ("DCAMTSegmentation", "DCAMTTraining") for path in (ROOT / folder).rglob("*.py")]
        self.assertGreater(len(sources), 10)
        self.assertEqual([path.name for path in sources if "harness" in path.read_text(encoding="utf-8").lower()], [])
