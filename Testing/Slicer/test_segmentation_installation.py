"""Installation of missing packages before a job: the question to the person, and failures."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
import unittest
from collections.abc import Callable
from contextlib import ExitStack
from subprocess import CalledProcessError
from typing import Any
from unittest import mock

import qt
import slicer
from fake_worker import PanelCase
from scene_nodes import add_scan, segment_mask
from slicer_harness import Person, click, close_scene, pip, process_events

QUESTION = "packages that are not installed yet"


class FakePyTorch:
    """Replaces the PyTorch extension and the version number of the installed torch.

    Args:
        outcome: the value that `installTorch` returns, or the exception that it raises.
        version: the version of torch that counts as installed before `installTorch`; None if torch is missing.
    """

    def __init__(self, test: unittest.TestCase, outcome: Any = "installed", version: str | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.version, self._outcome = version, outcome
        module = types.ModuleType("PyTorchUtils")
        module.PyTorchUtilsLogic = lambda: self  # type: ignore[attr-defined]
        patches = [
            mock.patch.dict(sys.modules, {"PyTorchUtils": module}),
            mock.patch.object(importlib.metadata, "version", self._version_of(importlib.metadata.version)),
        ]
        for patch in patches:
            patch.start()
            test.addCleanup(patch.stop)

    def _version_of(self, real: Any) -> Any:
        def version(name: str) -> str:
            if name != "torch":
                return real(name)
            if self.version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return self.version

        return version

    def installTorch(self, **settings: Any) -> Any:  # noqa: N802
        self.asked.append(settings)
        slicer.app.processEvents()  # Slicer does this at each line that pip prints.
        if isinstance(self._outcome, Exception):
            raise self._outcome
        if self._outcome is not None:
            self.version = "2.13.0"
        return self._outcome


class InstallationTest(PanelCase):
    def setUp(self) -> None:
        super().setUp()
        stack = ExitStack()
        stack.enter_context(pip.replace_pip_of_slicer())
        self.addCleanup(stack.close)
        self.volume = add_scan()
        self.prepare(self.volume)

    def apply_and_expect_failure(self, *windows: tuple[str, str]) -> Person:
        with Person() as person:
            for text, answer in windows:
                person.expects(text, answer)
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertEqual(self.ui.statusLabel.text, person.errors()[-1])
        self.assertEqual(self.module.worker.requests, [])
        return person

    def assert_apply_works(self) -> None:
        segmentation = self.segment(self.volume)
        self.assertGreater(int(segment_mask(segmentation, self.volume).sum()), 0)

    def apply_and_install(self) -> str:
        with Person() as person:
            person.expects(QUESTION, "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertEqual(len(person.seen), 1)
        self.assertIsNotNone(self.settings.outputSegmentation)
        return person.seen[0].text

    def test_no_question_is_asked_when_all_packages_are_installed(self) -> None:
        with Person() as person:
            self.segment(self.volume)
        self.assertEqual(person.seen, [])
        self.assertEqual(pip.requested, [])

    def test_packages_are_installed_after_one_question_and_the_segmentation_continues(self) -> None:
        pip.missing = {"slicerio", "pynrrd"}
        question = self.apply_and_install()
        for name in ("slicerio", "pynrrd"):
            self.assertIn(name, question)
        self.assertEqual([[text.split(">")[0] for text in texts] for texts in pip.requested], [["pynrrd", "slicerio"]])

    def test_packages_of_slicer_are_skipped(self) -> None:
        pip.missing = {"slicerio"}
        self.apply_and_install()
        (skipped,) = pip.skipped
        self.assertLessEqual({"numpy", "scipy", "SimpleITK", "vtk", "torch", "requests", "pydicom"}, set(skipped))

    def test_declining_the_installation_starts_nothing(self) -> None:
        pip.missing = {"slicerio"}
        with Person() as person:
            person.expects(QUESTION, "Cancel")
            click(self.ui.applyButton)
        self.assertEqual(person.errors(), [])
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(pip.requested, [])
        self.assertIn("To install the packages, try again.", self.ui.statusLabel.text)
        pip.reset()
        self.assert_apply_works()

    def test_measuring_also_asks_to_install_a_missing_package(self) -> None:
        self.segment(self.volume)
        pip.missing = {"slicerio"}
        with Person() as person:
            person.expects(QUESTION, "Cancel")
            click(self.ui.measureButton)
        self.assertEqual(person.errors(), [])
        self.assertFalse(self.logic.isRunning())

    def test_reason_why_pip_failed_is_shown(self) -> None:
        # The reason is in pip's printed output, not in the exception.
        reason = "ERROR: No matching distribution found for slicerio>=1.1"
        pip.missing, pip.returncode = {"slicerio"}, 1
        pip.output = ("Collecting slicerio", "  warning: something", reason, "[notice] A new release of pip is there")
        person = self.apply_and_expect_failure((QUESTION, "Ok"), (reason, "Ok"))
        self.assertIn(reason, self.ui.statusLabel.text)
        self.assertIn("Collecting slicerio", person.seen[-1].detail)

    def test_failed_installation_is_reported_with_the_advice_to_check_the_network(self) -> None:
        pip.missing, pip.returncode = {"slicerio"}, 1
        person = self.apply_and_expect_failure((QUESTION, "Ok"), ("Check the network", "Ok"))
        self.assertIn("Check the network", person.errors()[-1])
        pip.reset()
        self.assert_apply_works()

    def test_restart_is_offered_when_needed(self) -> None:
        for answer, restarts in (("No", 0), ("Yes", 1)):
            pip.missing, pip.updates_imported = {"slicerio"}, {"packaging"}
            before = pip.restarts
            with self.subTest(answer), Person() as person:
                person.expects(QUESTION, "Ok")
                person.expects("restart", answer)
                click(self.ui.applyButton)
                # The harness does not restart Slicer, so the job continues after both answers.
                self.wait()
            self.assertEqual(pip.restarts - before, restarts)
            self.assertIsNotNone(self.settings.outputSegmentation)

    def test_torch_is_installed_by_the_pytorch_extension_after_one_question(self) -> None:
        pytorch = FakePyTorch(self)
        self.assertIn("torch>=2.4", self.apply_and_install())
        self.assertEqual(pytorch.asked, [{"askConfirmation": False, "torchVersionRequirement": ">=2.4"}])
        self.assertEqual(pip.requested, [])

    def test_window_blocks_clicks_until_pytorch_is_installed(self) -> None:
        seen: list[str] = []

        def look_and_click() -> None:
            window = qt.QApplication.activeModalWidget()
            seen.append(window.labelText)
            self.assertFalse(window.windowFlags() & qt.Qt.WindowCloseButtonHint)
            window.reject()  # The Escape key does this.
            self.assertEqual(qt.QApplication.activeModalWidget(), window)
            with self.assertRaisesRegex(AssertionError, "blocks it"):
                click(self.ui.applyButton)

        FakePyTorch(self)
        qt.QTimer.singleShot(0, look_and_click)
        self.apply_and_install()
        self.assertEqual(len(seen), 1)
        self.assertIn("PyTorch", seen[0])
        self.assertIsNone(qt.QApplication.activeModalWidget())

    def test_slicer_can_close_the_window_that_blocks_clicks(self) -> None:
        closed: list[bool] = []
        FakePyTorch(self)
        qt.QTimer.singleShot(0, lambda: closed.append(qt.QApplication.activeModalWidget().close()))
        self.apply_and_install()
        self.assertEqual(closed, [True])

    def test_window_that_blocks_clicks_is_closed_before_slicer_installs_and_restarts(self) -> None:
        titles: list[str] = []

        def note_title() -> None:
            window = qt.QApplication.activeModalWidget()
            titles.append("no window" if window is None else window.windowTitle)

        pip.missing, pip.updates_imported = {"slicerio"}, {"packaging"}
        qt.QTimer.singleShot(0, note_title)
        with mock.patch.object(slicer.util, "restart", note_title), Person() as person:
            person.expects(QUESTION, "Ok")
            person.expects("restart", "Yes")
            click(self.ui.applyButton)
            self.wait()
        # `pip_ensure` of Slicer shows the window during the installation.
        self.assertEqual(titles, ["DCAMT - Installing Python Packages", "no window"])

    def test_second_installation_is_refused_until_the_first_has_ended(self) -> None:
        pytorch = FakePyTorch(self)
        qt.QTimer.singleShot(0, self.ui.applyButton.click)  # A script can click in spite of the window.
        with Person() as person:
            person.expects(QUESTION, "Ok")
            person.expects("DCAMT is installing packages", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertEqual(len(pytorch.asked), 1)
        self.assertIsNotNone(self.settings.outputSegmentation)
        self.assert_apply_works()

    def test_no_job_starts_if_its_nodes_were_removed_or_exchanged_during_the_installation(self) -> None:
        def remove_volume() -> None:
            slicer.mrmlScene.RemoveNode(self.volume)

        def choose_other_volume() -> None:
            self.settings.inputVolume = add_scan()

        for change in (remove_volume, choose_other_volume, close_scene):
            for button in (self.ui.applyButton, self.ui.measureButton):
                with self.subTest(change.__name__, button=button.name):
                    pip.reset()
                    close_scene()
                    self.volume = add_scan()
                    self.segment(self.volume)
                    self.module.worker.requests.clear()
                    pip.missing = {"slicerio"}
                    self.click_and_expect_changed_scene(button, change)

    def click_and_expect_changed_scene(self, button: Any, change: Callable[[], None]) -> None:
        qt.QTimer.singleShot(0, change)
        with Person() as person:
            person.expects(QUESTION, "Ok")
            person.expects("During the installation, the volume or the segmentation was removed", "Ok")
            click(button)
        self.assertEqual(len(pip.requested), 1)
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.module.worker.requests, [])
        process_events()

    def test_missing_pytorch_extension_is_reported(self) -> None:
        FakePyTorch(self)
        with mock.patch.dict(sys.modules, {"PyTorchUtils": None}):
            self.apply_and_expect_failure(("PyTorch extension is missing", "Ok"))

    def test_failed_download_of_torch_is_reported(self) -> None:
        FakePyTorch(self, CalledProcessError(1, "pip install"))
        self.apply_and_expect_failure((QUESTION, "Ok"), ("Check the network", "Ok"))

    def test_torch_that_needs_a_restart_is_reported(self) -> None:
        FakePyTorch(self, ImportError("DLL load failed while importing _C"))
        self.apply_and_expect_failure((QUESTION, "Ok"), ("Restart Slicer", "Ok"))

    def test_extension_that_installs_nothing_is_reported(self) -> None:
        FakePyTorch(self, None)
        self.apply_and_expect_failure((QUESTION, "Ok"), ("Still missing: torch>=2.4. Restart Slicer", "Ok"))

    def test_outdated_torch_is_reported_and_not_replaced(self) -> None:
        pytorch = FakePyTorch(self, version="1.13.1")
        person = self.apply_and_expect_failure(("PyTorch 1.13.1 is too old", "Ok"))
        self.assertIn("PyTorch Util", person.errors()[0])
        self.assertEqual(pytorch.asked, [])

    def test_outdated_slicer_is_reported(self) -> None:
        with mock.patch.dict(sys.modules, {"slicer.packaging": None}):
            self.apply_and_expect_failure(("Update to Slicer 5.12", "Ok"))

    def test_check_for_packages_imports_no_package(self) -> None:
        from DCAMTSlicerLib.installation import missing_packages

        packages = {"torch", "nibabel", "slicerio", "scipy", "nrrd"}
        with mock.patch.dict(sys.modules):
            # Other tests of this process may have imported the packages.
            for name in [name for name in sys.modules if name.split(".")[0] in packages]:
                del sys.modules[name]
            self.assertEqual(missing_packages(), [])
            self.assertFalse(packages & set(sys.modules))
