"""Test the harness's substitute for `slicer.packaging`: it records the requests to pip and installs nothing."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from subprocess import CalledProcessError

import slicer
from packaging.requirements import Requirement
from slicer.packaging import load_requirements, pip_check, pip_ensure
from slicer_harness import Person, pip


class PackagingTest(unittest.TestCase):
    def setUp(self) -> None:
        pip.reset()
        self.addCleanup(pip.reset)

    def test_requirements_file_is_parsed(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "requirements.txt")
            path.write_text(
                "# what we need\n\n-r other.txt\nnumpy>=1.26\nscipy ; python_version < '3'\n", encoding="utf-8"
            )
            self.assertEqual([req.name for req in load_requirements(path)], ["numpy", "scipy"])

    def test_requirements_are_checked(self) -> None:
        self.assertTrue(pip_check(Requirement("numpy>=1.0")))
        self.assertFalse(pip_check(Requirement("numpy>=1000")))
        self.assertFalse(pip_check(Requirement("no-such-package")))
        self.assertTrue(pip_check(Requirement("no-such-package; python_version < '3'")))
        self.assertFalse(pip_check([Requirement("numpy"), Requirement("no-such-package")]))
        pip.missing = {"NumPy"}
        self.assertFalse(pip_check(Requirement("numpy")))

    def test_no_question_is_asked_when_nothing_is_missing(self) -> None:
        pip_ensure([Requirement("numpy")], skip_packages=[], requester="DCAMT")
        self.assertEqual(pip.requested, [])

    def test_person_is_asked_once_before_the_installation(self) -> None:
        pip.missing = {"scipy"}
        with Person() as person:
            person.expects("need to be installed")
            pip_ensure([Requirement("numpy"), Requirement("scipy>=1")], skip_packages=["torch"], requester="DCAMT")
        self.assertEqual(person.seen[0].title, "DCAMT - Install Python Packages")
        self.assertEqual((pip.requested, pip.skipped), ([["scipy>=1"]], [["torch"]]))
        self.assertTrue(pip_check(Requirement("scipy")))

    def test_declining_installs_nothing(self) -> None:
        pip.missing = {"scipy"}
        with Person() as person, self.assertRaisesRegex(RuntimeError, "declined"):
            person.expects("need to be installed", "Cancel")
            pip_ensure([Requirement("scipy")], skip_packages=[], requester="DCAMT")
        self.assertEqual(pip.requested, [])

    def test_failed_installation_raises(self) -> None:
        pip.missing, pip.returncode = {"scipy"}, 1
        with Person() as person, self.assertRaises(CalledProcessError):
            person.expects("need to be installed")
            pip_ensure([Requirement("scipy")], skip_packages=[], requester="DCAMT")
        self.assertFalse(pip_check(Requirement("scipy")))

    def test_restart_is_offered_when_imported_packages_change(self) -> None:
        pip.missing, pip.updates_imported = {"scipy"}, {"scipy"}
        before = slicer.app.restarts
        with Person() as person:
            person.expects("restart", "Yes")
            pip_ensure([Requirement("scipy")], skip_packages=[], prompt_install=False, requester="DCAMT")
        self.assertEqual(slicer.app.restarts, before + 1)
