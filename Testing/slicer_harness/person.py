"""Answer the application's questions as a test specifies, and record its questions and messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import slicer

from . import slot_errors


@dataclass(frozen=True)
class Question:
    """A question or message of the application.

    Attributes:
        kind: "question", "information", "warning", "error", "open", "open several", "save", "directory", "text", "link"
            or "dialog".
    """

    kind: str
    title: str
    text: str
    detail: str
    buttons: tuple[str, ...]


class UnexpectedQuestion(AssertionError):
    """A window opened that the test does not expect, or that lacks the expected button."""


@dataclass
class Person:
    """A simulated person, used in a `with` block: each expected window must open, in any order, and no other may open.

        with Person() as person:
            person.expects("need to be installed", "Cancel")
            click(ui.applyButton)
        assert person.seen[0].kind == "question"

    If the tests run in a real Slicer, this class answers message boxes of `slicer.util`, file dialogs and text inputs
    without opening them. Other modal dialogs open, and `DialogWatcher` answers them.
    """

    seen: list[Question] = field(default_factory=list)
    _expected: list[tuple[str, Any]] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def expects(self, text: str, answer: Any = "Ok") -> Person:
        """Expect a window whose title, text or details contain `text`; case is ignored.

        Args:
            answer: the name of a button, a path, a text or, for a dialog, a function that is called with the dialog.
                For a question of the kind "open several" (a dialog to open several files), a sequence of paths.
        """
        self._expected.append((text, answer))
        return self

    def answer(self, question: Question) -> Any:
        self.seen.append(question)
        _shown.append(question.text)
        for expected in self._expected:
            if expected[0].lower() in f"{question.title}\n{question.text}\n{question.detail}".lower():
                self._expected.remove(expected)
                given = expected[1]
                if question.buttons and given not in question.buttons:
                    raise UnexpectedQuestion(f"no button {given} in {question}")
                return given
        raise UnexpectedQuestion(str(question))

    def errors(self) -> list[str]:
        return [question.text for question in self.seen if question.kind == "error"]

    def __enter__(self) -> Person:
        _present.append(self)
        if not _is_harness():
            watch_dialogs()
            self._stack.enter_context(_replace_windows(self))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        _present.remove(self)
        self._stack.close()
        if error is None and self._expected:
            raise AssertionError(f"never asked: {[text for text, _answer in self._expected]}")


_present: list[Person] = []


def answer(question: Question) -> Any:
    """Return the latest `Person`'s answer; raise UnexpectedQuestion if there is no person or no fitting answer."""
    if not _present:
        _unanswered.append(question)
        raise UnexpectedQuestion(str(question))
    try:
        return _present[-1].answer(question)
    except UnexpectedQuestion:
        _unanswered.append(question)
        raise


_unanswered: list[Question] = []


def pop_unanswered() -> list[Question]:
    """Return the unanswered questions since the last call."""
    taken = list(_unanswered)
    _unanswered.clear()
    return taken


_shown: list[str] = []


def pop_shown_texts() -> list[str]:
    """Return the texts that were shown since the last call."""
    taken = list(_shown)
    _shown.clear()
    return taken


def _is_harness() -> bool:
    return getattr(slicer, "_harness", False)


class DialogWatcher:
    """Lets the person answer each modal dialog except progress dialogs; closes unexpected dialogs.

    Without the watcher, a dialog's `exec_()` would never return in a real Slicer.
    """

    def __init__(self) -> None:
        import qt

        self._timer = qt.QTimer()
        self._timer.setInterval(20)
        self._timer.timeout.connect(self._look)

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _look(self) -> None:
        import qt

        dialog = qt.QApplication.activeModalWidget()
        asks = dialog is not None and hasattr(dialog, "reject") and not dialog.inherits("QProgressDialog")
        if not asks or dialog.property(_ANSWERED):
            return
        dialog.setProperty(_ANSWERED, True)
        try:
            if dialog.inherits("QMessageBox"):
                self._press(dialog)
            else:
                work_on(dialog, answer(Question("dialog", dialog.windowTitle, dialog.windowTitle, "", ())))
        except UnexpectedQuestion:
            dialog.reject()

    @staticmethod
    def _press(box: Any) -> None:
        import qt

        kinds = {qt.QMessageBox.Information: "information", qt.QMessageBox.Warning: "warning"}
        kinds[qt.QMessageBox.Critical] = "error"
        names = ("Ok", "Cancel", "Yes", "No", "Retry", "Close", "Save", "Discard")
        offered = tuple(name for name in names if box.button(getattr(qt.QMessageBox, name)) is not None)
        question = Question(kinds.get(box.icon, "question"), box.windowTitle, box.text, box.detailedText, offered)
        box.button(getattr(qt.QMessageBox, answer(question))).click()


def work_on(dialog: Any, work: Callable[[Any], None]) -> None:
    """Call `work` with an open dialog; if the dialog stays open, close it and keep an AssertionError for the test."""
    with slot_errors.keep_errors():
        try:
            work(dialog)
            if dialog.visible:
                raise AssertionError(f"the dialog {dialog.windowTitle} was left open")
        finally:
            if dialog.visible:
                dialog.reject()


_ANSWERED = "_harness_answered"
"""The property that marks an answered dialog; a list of answered dialogs would keep the dialogs alive."""
_watchers: list[DialogWatcher] = []


def watch_dialogs() -> None:
    """Start a `DialogWatcher` that runs until the application ends."""
    if not _watchers:
        _watchers.append(DialogWatcher())
        _watchers[0].start()


def _replace_windows(person: Person) -> ExitStack:
    """Return a context in which `person` answers a real Slicer's message boxes, file dialogs and text inputs.

    The context also turns off Slicer's testing mode, in which Slicer asks no questions.
    """
    import qt

    def ask(kind: str, title: str | None, text: str, detail: str = "", buttons: tuple[str, ...] = ()) -> Any:
        return person.answer(Question(kind, title or "", text, detail, buttons))

    def message(kind: str, buttons: tuple[str, ...]) -> Callable[..., bool]:
        def display(text: str, windowTitle: str | None = None, **rest: Any) -> bool:
            return ask(kind, windowTitle, text, rest.get("detailedText") or "", buttons) == buttons[0]

        return display

    def path(kind: str) -> Callable[..., Any]:
        return lambda parent=None, title="", *_: ask(kind, title, title)

    stack = ExitStack()
    for name, kind, buttons in (
        ("confirmOkCancelDisplay", "question", ("Ok", "Cancel")),
        ("confirmYesNoDisplay", "question", ("Yes", "No")),
        ("confirmRetryCloseDisplay", "question", ("Retry", "Close")),
        ("infoDisplay", "information", ("Ok",)),
        ("warningDisplay", "warning", ("Ok",)),
        ("errorDisplay", "error", ("Ok",)),
    ):
        stack.enter_context(mock.patch.object(slicer.util, name, message(kind, buttons)))
    app = _Proxy(slicer.app, testingEnabled=lambda: False)
    files = _Proxy(
        qt.QFileDialog,
        getOpenFileName=path("open"),
        getOpenFileNames=path("open several"),
        getSaveFileName=path("save"),
        getExistingDirectory=path("directory"),
    )
    texts = _Proxy(qt.QInputDialog, getText=lambda parent, title, label, *_: ask("text", title, label))
    for place, name, changed in ((slicer, "app", app), (qt, "QFileDialog", files), (qt, "QInputDialog", texts)):
        stack.enter_context(mock.patch.object(place, name, changed))
    return stack


class _Proxy:
    def __init__(self, original: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _original=original)

    def __call__(self, *args: Any) -> Any:
        return self._original(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
