"""Format durations for the panels."""

from __future__ import annotations

from slicer.i18n import tr as _


def duration_text(seconds: float) -> str:
    """Return a rough duration: `40 s`, `12 min`, `5 h`, `3 days`."""
    if seconds < 90:
        return str(_("{count} s").format(count=max(1, round(seconds))))
    if seconds < 90 * 60:
        return str(_("{count} min").format(count=round(seconds / 60)))
    if seconds < 36 * 3600:
        return str(_("{count} h").format(count=round(seconds / 3600)))
    return str(_("{count} days").format(count=round(seconds / 86400)))
