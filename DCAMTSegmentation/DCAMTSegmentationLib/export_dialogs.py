"""Ask the user before values or a report are exported."""

from __future__ import annotations

from pathlib import Path

from dcamt.io.formats import REPORT_ENDINGS
from DCAMTSlicerLib.file_dialogs import choose_file
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.plain_text import confirm
from slicer.i18n import tr as _


def confirm_outdated_export(warning: str, title: str) -> bool:
    """Show a warning about outdated values; return whether to export them. If `warning` is empty, return True."""
    question = f"{warning} {_('Export the earlier values?')}"
    return not warning or confirm(question, title)


def choose_report_file(volume: VolumeNode) -> Path | None:
    """Ask for the HTML file of a volume's report; return None if the user cancels."""
    title, name = _("Write the report"), _("{volume} report").format(volume=volume.GetName())
    path = choose_file(title, f"{name}.html", "HTML (*.html)", REPORT_ENDINGS)
    return Path(path) if path else None
