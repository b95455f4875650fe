"""Ask the user for files to write."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from dcamt.io.file_names import as_file_name
from DCAMTSlicerLib.node_types import VolumeNode
from slicer.i18n import tr as _


def choose_file(title: str, name: str, kinds: str) -> str:
    """Ask the user for a file to write; return its path, or "" if the user cancelled.

    The dialog itself asks whether to replace an existing file.

    Args:
        name: the proposed name, which is changed if a file cannot have it.
        kinds: Qt's filters, such as "CSV (*.csv)".
    """
    path: str = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, as_file_name(name), kinds)
    return path


def confirm_outdated_export(warning: str, title: str) -> bool:
    """Return whether to export values in spite of a warning that they are outdated; without a warning, return True."""
    question = f"{warning} {_('Export the earlier values?')}"
    return not warning or bool(slicer.util.confirmOkCancelDisplay(question, title))


def choose_report_file(volume: VolumeNode) -> Path | None:
    """Ask for the HTML file of a volume's report; return None if the user cancels or keeps an existing file."""
    title, name = _("Write the report"), _("{volume} report").format(volume=volume.GetName())
    path = choose_file(title, f"{name}.html", "HTML (*.html)")
    if not path:
        return None
    if path.lower().endswith((".html", ".htm")):
        return Path(path)
    # The dialog asked only about `path`, but the file with the appended ending may already exist.
    report = Path(f"{path}.html")
    question = _("“{file}” exists. Replace the file?").format(file=report)
    if report.exists() and not slicer.util.confirmOkCancelDisplay(question, title):
        return None
    return report
