"""Install the packages that the engine needs, after the user has confirmed."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from subprocess import CalledProcessError
from threading import Lock
from typing import Any

import qt
import slicer
from dcamt.errors import DCAMTError
from slicer.i18n import tr as _

from .engine_messages import error_text
from .plain_text import confirm, display_error

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
TORCH = ">=2.4"
REASON_LENGTH = 300
"""Largest length of the reason in an error message, in characters."""
OUTPUT_LENGTH = 1 << 14
"""Number of characters that are kept from the end of the installation's output."""
# pip must not replace Slicer's own builds of these packages, nor torch, which the PyTorch extension installs.
NEVER_REPLACED = ["numpy", "scipy", "SimpleITK", "vtk", "pydicom", "requests", "torch"]
_installing = Lock()


class NotInstalledError(DCAMTError):
    """Raised when the engine's packages cannot be used or installed; the message states what the user can do.

    `detail` is the output of the installation that failed, if any.
    """


class InstallationDeclined(NotInstalledError):
    """Raised when the user declined the installation; no error dialog is needed."""


def missing_packages() -> list[str]:
    """Return the requirements that are not met, without importing the packages.

    A PyTorch that is too old is not listed; `ensure_packages` refuses it.

    Raises:
        NotInstalledError: Slicer is too old to install packages.
    """
    _refuse_old_slicer()
    from slicer.packaging import pip_check

    importlib.invalidate_caches()  # Finds packages that were just installed.
    missing = [str(requirement) for requirement in _requirements() if not pip_check(requirement)]
    return missing if _torch_version() is not None else [f"torch{TORCH}", *missing]


def ensure_packages() -> None:
    """Ask the user for confirmation and install the missing packages; do nothing if none is missing.

    Raises:
        InstallationDeclined: the user declined.
        NotInstalledError: the PyTorch extension is missing, PyTorch or Slicer is too old, the installation failed,
            another call has not ended, or Slicer must be restarted first.
    """
    if not _installing.acquire(blocking=False):
        text = _("DCAMT is installing packages. Wait until the installation has ended, and try again.")
        raise NotInstalledError(text)
    try:
        _install_missing()
    finally:
        _installing.release()


def _install_missing() -> None:
    _refuse_old_torch()
    missing = missing_packages()
    if not missing:
        return
    pytorch = _pytorch_extension() if _torch_version() is None else None
    question = _(
        "DCAMT needs Python packages that are not installed yet: {packages}.\n\nDownload and install them now?"
        " This takes some minutes and, with PyTorch, up to 3 GB of disk space."
    ).format(packages=", ".join(missing))
    if not confirm(question, _("DCAMT: install packages")):
        raise InstallationDeclined(
            _("Nothing was installed, so nothing can be computed. To install the packages, try again.")
        )
    from slicer.packaging import pip_ensure

    output = _KeptOutput(sys.stdout)
    try:
        with redirect_stdout(output):  # type: ignore[type-var]
            if pytorch is not None:
                with _pytorch_window():
                    pytorch.installTorch(askConfirmation=False, torchVersionRequirement=TORCH)
            # The window of `pip_ensure` blocks all other windows. Afterwards, `pip_ensure` may restart Slicer.
            pip_ensure(_requirements(), skip_packages=NEVER_REPLACED, prompt_install=False, requester="DCAMT")
    except ImportError as error:  # An installed package conflicts with a package that is already loaded.
        text = _("An installed package cannot be loaded ({reason}). Restart Slicer, and try again.")
        raise NotInstalledError(text.format(reason=" ".join(str(error).split()))) from error
    except (CalledProcessError, RuntimeError, OSError) as error:
        raise _failed_installation(error, output.text()) from error
    still_missing = missing_packages()
    if still_missing:
        text = _("Still missing: {packages}. Restart Slicer, and try again.")
        raise NotInstalledError(text.format(packages=", ".join(still_missing)))


def show_error(error: DCAMTError, title: str) -> None:
    """Show an error, with the output of a failed installation; show nothing if the user declined to install."""
    if not isinstance(error, InstallationDeclined):
        display_error(error_text(error), title, detailedText=error.detail)


class _WindowWithoutEscape(qt.QProgressDialog):
    def reject(self) -> None:
        """Ignore the Escape key."""


@contextmanager
def _pytorch_window() -> Iterator[None]:
    """Show a window that blocks all other windows, since Slicer handles clicks while PyTorch is installed."""
    window = _WindowWithoutEscape(slicer.util.mainWindow())
    window.windowTitle = _("DCAMT: install packages")
    window.labelText = _("Installing PyTorch. This takes some minutes.")
    window.setCancelButton(None)
    window.setWindowFlags(window.windowFlags() & ~qt.Qt.WindowCloseButtonHint)
    window.setRange(0, 0)
    window.setModal(True)
    window.show()
    try:
        slicer.app.processEvents()
        yield
    finally:
        slicer.app.processEvents()  # Clicks that came at the end of the installation are blocked, too.
        window.reset()  # Hides the window. After `hide`, a timer of Qt could show the window again.
        window.deleteLater()


class _KeptOutput:
    """A text stream that writes to another stream and keeps the end of the text."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._kept = stream, ""

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._kept = (self._kept + text)[-OUTPUT_LENGTH:]

    def flush(self) -> None:
        self._stream.flush()

    def text(self) -> str:
        return self._kept.strip()


def _failed_installation(error: Exception, output: str) -> NotInstalledError:
    error_lines = [line.strip() for line in output.splitlines() if line.strip().lower().startswith("error")]
    reason = error_lines[-1] if error_lines else " ".join(str(error).split())
    text = _(
        "The packages could not be installed ({reason}). Check the network and the free disk space, and try again."
    )
    failure = NotInstalledError(text.format(reason=reason[:REASON_LENGTH]))
    failure.detail = output
    return failure


def _requirements() -> list[Any]:
    """Return the requirements (`packaging.requirements.Requirement`) of the engine, without PyTorch."""
    from slicer.packaging import load_requirements

    return list(load_requirements(REQUIREMENTS))


def _torch_version() -> str | None:
    # The version is read without importing torch: the import takes seconds, and only child processes need torch.
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _refuse_old_slicer() -> None:
    try:
        import slicer.packaging  # noqa: F401
    except ImportError:
        text = _("This version of Slicer cannot install what DCAMT needs. Update to Slicer 5.12 or later.")
        raise NotInstalledError(text) from None


def _refuse_old_torch() -> None:
    # Only the user may replace PyTorch, since other extensions may need the installed version.
    from packaging.specifiers import SpecifierSet

    version = _torch_version()
    if version is not None and not SpecifierSet(TORCH).contains(version, prereleases=True):
        text = _(
            "PyTorch {version} is too old: DCAMT needs {wanted}. Uninstall PyTorch in the module PyTorch Util,"
            " restart Slicer, and try again."
        )
        raise NotInstalledError(text.format(version=version, wanted=TORCH))


def _pytorch_extension() -> Any:
    """Return the logic of the PyTorch extension, which chooses PyTorch's build for the machine's GPU."""
    try:
        import PyTorchUtils
    except ModuleNotFoundError:
        text = _(
            "The PyTorch extension is missing. Install this extension in the Extensions Manager, and restart Slicer."
        )
        raise NotInstalledError(text) from None
    return PyTorchUtils.PyTorchUtilsLogic()
