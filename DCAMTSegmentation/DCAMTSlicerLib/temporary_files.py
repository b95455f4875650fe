"""Create folders for temporary files, and tell the user how to choose another place for them."""

from __future__ import annotations

import tempfile

import slicer
from dcamt.errors import OutputError, write_error
from slicer.i18n import tr as _


def make_temporary_folder(prefix: str) -> str:
    """Create a folder in Slicer's temporary folder; return its path.

    Raises:
        OutputError: the folder cannot be created.
    """
    parent = slicer.app.temporaryPath
    try:
        return tempfile.mkdtemp(prefix=prefix, dir=parent)
    except OSError as error:
        raise with_folder_hint(write_error(error, parent)) from error


def with_folder_hint(error: OutputError) -> OutputError:
    """Return an error about a temporary file, with a hint to choose another temporary folder."""
    return OutputError(f"{error} {_('You can choose another temporary folder in the application settings.')}")
