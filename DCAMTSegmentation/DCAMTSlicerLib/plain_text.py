"""Show texts as they are: by default, Qt interprets a text with tags, such as the file name `a<b>.nrrd`, as HTML."""

from __future__ import annotations

import html
from typing import Any

import qt
import slicer


def show_labels_as_plain_text(widget: Any) -> None:
    """Let all labels in a widget show their texts as they are."""
    for label in slicer.util.findChildren(widget, className="QLabel"):
        label.textFormat = qt.Qt.PlainText


def tooltip(text: str) -> str:
    """Return a tooltip in which Qt shows the characters of `text` unchanged."""
    if "<" not in text and "&" not in text:
        return text
    return f'<p style="white-space: pre-wrap">{html.escape(text)}</p>'


def confirm(question: str, title: str) -> bool:
    """Ask a question in a message box; return whether the user pressed OK."""
    return bool(slicer.util.confirmOkCancelDisplay(question, title, textFormat=qt.Qt.PlainText))


def display_error(text: str, title: str, **options: Any) -> None:
    """Show an error in a message box; `options` as in `slicer.util.errorDisplay`."""
    slicer.util.errorDisplay(text, windowTitle=title, textFormat=qt.Qt.PlainText, **options)


def display_message(text: str, title: str) -> None:
    """Show a message in a message box."""
    slicer.util.infoDisplay(text, windowTitle=title, textFormat=qt.Qt.PlainText)
