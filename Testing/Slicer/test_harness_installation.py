"""Installing the harness: nothing changes in a real Slicer, and tests are skipped if packages are missing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_python(code: list[str], *folders: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, str(HERE.parent)])}
    return subprocess.run(
        [sys.executable, *code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=HERE,
        encoding="utf-8",
    )


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

    def test_harness_installs_once_and_imports_no_heavy_package(self) -> None:
        code = (
            "import sys, slicer_harness as h; print(h.install()); import slicer, qt; app = slicer.app;"
            "print(h.install(), slicer.app is app, h.in_real_slicer());"
            "print([n for n in ('torch', 'monai', 'SimpleITK', 'pytest') if n in sys.modules])"
        )
        done = run_python(["-c", code])
        self.assertEqual(done.stdout.split("\n")[:3], ["True", "True True False", "[]"], done.stderr)

    def test_tests_are_skipped_with_a_reason_when_packages_are_missing(self) -> None:
        (self.folder / "PySide6.py").write_text("raise ImportError('no wheel for this machine')\n", encoding="utf-8")
        done = run_python(
            ["-m", "pytest", "-rs", "-p", "no:cacheprovider", "test_harness_packaging.py"], str(self.folder)
        )
        self.assertIn("skipped", done.stdout)
        self.assertIn("need the wheels of slicer-core and PySide6-Essentials: no wheel for this machine", done.stdout)
        self.assertNotIn("error", done.stdout.lower())

    def test_unittest_loads_the_tests_without_pytest(self) -> None:
        """Slicer runs each file by `slicer.testing.runUnitTest`; its Python lacks pytest."""
        code = (
            "import sys, unittest; sys.modules['pytest'] = None; sys.path[:0] = sys.argv[1:];"
            "import slicer_harness; slicer_harness.install(); loader = unittest.TestLoader();"
            "files = [line.strip() for line in open('CMakeLists.txt') if line.strip().startswith('test_')];"
            "counts = [loader.loadTestsFromName(name.removesuffix('.py')).countTestCases() for name in files];"
            "print(len(files), min(counts), loader.errors)"
        )
        root = HERE.parents[1]
        done = run_python(["-c", code, *(str(root / name) for name in ("DCAMTSegmentation", "DCAMTTraining"))])
        tests = [path for path in HERE.glob("test_*.py") if not path.name.startswith("test_harness_")]
        count, fewest, *errors = done.stdout.splitlines()[-1].split(" ", 2)
        self.assertEqual((int(count), errors), (len(tests), ["[]"]), done.stderr)
        self.assertGreater(int(fewest), 0)

    def test_no_test_has_a_time_limit_of_its_own(self) -> None:
        """The only limit is that of `process_events_until`, after which a test counts as hanging."""
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

    def test_modules_do_not_import_the_harness(self) -> None:
        root = HERE.parents[1]
        sources = [path for folder in ("DCAMTSegmentation", "DCAMTTraining") for path in (root / folder).rglob("*.py")]
        self.assertGreater(len(sources), 10)
        self.assertEqual([path.name for path in sources if "harness" in path.read_text(encoding="utf-8").lower()], [])
