"""Provide a `slicer.packaging` that installs nothing; a test sets the missing packages and pip's exit status."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any
from unittest import mock

import qt
import slicer
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass
class PipRecorder:
    """Records the requests to pip.

    Attributes:
        missing: packages that count as not installed.
        returncode: pip's exit status.
        output: the lines that pip writes. As in Slicer, the lines are printed, and the exception of a failed
            installation does not contain them.
        updates_imported: already imported packages that an installation would change.
        requested: for each request, the requirements that were not skipped.
        skipped: the packages that each request skips.
        restarts: number of restarts requested while `replace_pip_of_slicer` is active.
    """

    missing: set[str] = field(default_factory=set)
    returncode: int = 0
    output: tuple[str, ...] = ()
    updates_imported: set[str] = field(default_factory=set)
    requested: list[list[str]] = field(default_factory=list)
    skipped: list[list[str]] = field(default_factory=list)
    restarts: int = 0

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]

    @contextmanager
    def replace_pip_of_slicer(self) -> Iterator[None]:
        """Replace `slicer.packaging`, so that tests in a real Slicer install no packages."""
        self.reset()
        made = make_module()
        with ExitStack() as stack:
            stack.enter_context(mock.patch.dict(sys.modules, {"slicer.packaging": made}))
            stack.enter_context(mock.patch.object(slicer, "packaging", made, create=True))
            stack.enter_context(mock.patch.object(slicer.util, "restart", self._restart))
            yield
        self.reset()

    def _restart(self) -> None:
        self.restarts += 1

    def install(self, requirements: list[str], skip: list[str]) -> None:
        """Record a request to install requirements, except the packages in `skip`.

        As in Slicer, a modal window is open meanwhile, and events are processed.

        Raises CalledProcessError if `returncode` is not 0.
        """
        skipped = {canonicalize_name(name) for name in skip}
        requirements = [text for text in requirements if canonicalize_name(Requirement(text).name) not in skipped]
        self.requested.append(requirements)
        self.skipped.append(skip)
        for line in self.output:
            print(line)
        window = qt.QProgressDialog(slicer.util.mainWindow())
        window.windowTitle = "DCAMT - Installing Python Packages"
        window.setModal(True)
        window.show()
        slicer.app.processEvents()
        window.reset()
        window.deleteLater()
        if self.returncode != 0:
            raise CalledProcessError(self.returncode, "pip install")
        names = {canonicalize_name(Requirement(text).name) for text in requirements}
        self.missing = {name for name in self.missing if canonicalize_name(name) not in names}

    def version(self, name: str) -> str | None:
        if canonicalize_name(name) in {canonicalize_name(missing) for missing in self.missing}:
            return None
        return _installed_version(name)


@cache
def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


pip = PipRecorder()


def load_requirements(path: str | Path) -> list[Requirement]:
    """Return the requirements in a file, without comments or options."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_check(req: Requirement | list[Requirement], _seen: set[Any] | None = None) -> bool:
    """Return whether all given requirements, and the requirements of their extras, are met."""
    seen = set() if _seen is None else _seen
    if isinstance(req, list):
        return all(pip_check(one, seen) for one in req)
    if not isinstance(req, Requirement):
        raise AttributeError(f"pip_check takes a packaging.requirements.Requirement, not {type(req).__name__}")
    key = (req.name.lower(), frozenset(req.extras))
    if (req.marker is not None and not req.marker.evaluate()) or key in seen:
        return True
    seen.add(key)
    version = pip.version(req.name)
    if version is None or version not in req.specifier:
        return False
    for text in importlib.metadata.requires(req.name) or [] if req.extras else []:
        needed = Requirement(text)
        if needed.marker is None:
            continue
        if any(needed.marker.evaluate({**default_environment(), "extra": extra}) for extra in req.extras):
            needed.marker = None
            if not pip_check(needed, seen):
                return False
    return True


def pip_ensure(
    requirements: list[Requirement], *, skip_packages: list[str], prompt_install: bool = True, requester: str
) -> None:
    """Install the missing packages; if `prompt_install` is true, ask the user first.

    Raises RuntimeError if the user declines, CalledProcessError if pip fails.
    """
    missing = [req for req in requirements if not pip_check(req)]
    if not missing:
        return
    if prompt_install:
        message = f"{len(missing)} Python packages need to be installed.\n\nThis will modify Slicer's environment."
        detail = "\n".join(str(req) for req in missing)
        if not slicer.util.confirmOkCancelDisplay(
            message, f"{requester} - Install Python Packages", detailedText=detail
        ):
            raise RuntimeError("User declined package installation")
    pip.install([str(req) for req in missing], skip_packages)
    if pip.updates_imported:
        message = "Updated packages were already loaded in memory. Would you like to restart now?"
        if slicer.util.confirmYesNoDisplay(message, f"{requester} - Restart Recommended"):
            slicer.util.restart()


def make_module() -> types.ModuleType:
    made = types.ModuleType("slicer.packaging")
    for function in (load_requirements, pip_check, pip_ensure):
        setattr(made, function.__name__, function)
    return made
