"""Translate the messages that the engine, which knows no Slicer, writes in English."""

from __future__ import annotations

from slicer.i18n import tr as _


def translated(message: str) -> str:
    """Return an engine's message in the application's language, as far as its sentences are known here.

    A message has the form "path: what happened. What to do."; the path stays as it is.
    """
    path, colon, rest = message.partition(": ")
    known = _sentences()
    if message in known:
        return known[message]
    head, text = (f"{path}: ", rest) if colon else ("", message)
    for sentence, translation in known.items():
        text = text.replace(sentence, translation)
    return f"{head}{text}"


def _sentences() -> dict[str, str]:
    return {
        "The GPU's memory did not suffice; the CPU was used.": _("The GPU's memory did not suffice; the CPU was used."),
        "The computer's memory did not suffice for this scan.": _(
            "The computer's memory did not suffice for this scan."
        ),
        "Close other programs, or give a region of interest.": _("Close other programs, or give a region of interest."),
        "the region of interest lies outside the scan": _("the region of interest lies outside the scan"),
        "the region of interest holds no voxel of the scan": _("the region of interest holds no voxel of the scan"),
        "The disk is full, the result could not be written": _("The disk is full, the result could not be written"),
        "Free some space and try again.": _("Free some space and try again."),
        "no such model file": _("no such model file"),
        "Try again.": _("Try again."),
    }
