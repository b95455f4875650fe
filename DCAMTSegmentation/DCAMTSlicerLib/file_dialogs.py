"""Ask the user for a file to write."""

from __future__ import annotations

import os
from collections.abc import Sequence

import qt
import slicer
from dcamt.io.file_names import as_file_name
from slicer.i18n import tr as _

from .plain_text import confirm

TABLE_ENDINGS = (".csv", ".txt")


def choose_file(title: str, name: str, kinds: str, endings: Sequence[str] = ()) -> str:
    """Ask the user for a file to write; return its path, or "" if the user cancelled or keeps an existing file.

    Args:
        name: the proposed name, which `as_file_name` corrects.
        kinds: Qt's filters, such as "CSV (*.csv)".
        endings: if the user types a name with none of these endings, the first is added.
    """
    path: str = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, as_file_name(name), kinds)
    if not path or not endings or path.lower().endswith(tuple(endings)):
        return path  # The dialog itself has asked whether to replace an existing file.
    path += endings[0]
    question = _("“{file}” exists. Replace the file?").format(file=path)
    if os.path.lexists(path) and not confirm(question, title):
        return ""
    return path
