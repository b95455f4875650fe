"""The person in front of the screen: answers what is asked, as the test says beforehand, and sees what is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import slicer


@dataclass(frozen=True)
class Question:
    """What a window asks or says. `kind`: "question", "information", "warning", "error", "open", "open several",
    "save", "directory", "text" or "dialog"."""

    kind: str
    title: str
    text: str
    detail: str
    buttons: tuple[str, ...]


class UnexpectedQuestion(AssertionError):
    """A window came up that the test did not foresee."""


@dataclass
class Person:
    """Use it in a `with`: what it expects must come, in any order, and nothing else may.

        with Person() as person:
            person.expects("need to be installed", "Cancel")
            click(ui.applyButton)
        assert person.seen[0].kind == "question"

    It works in a real Slicer too, for the message boxes of `slicer.util`.
    """

    seen: list[Question] = field(default_factory=list)
    _expected: list[tuple[str, Any]] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def expects(self, text: str, answer: Any = "Ok") -> Person:
        """A window whose title or text contains `text` (case aside) will come; `answer`: a button's name, a path or
        text, or for a dialog a function that gets the dialog."""
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
        """The texts of the error messages that were shown."""
        return [question.text for question in self.seen if question.kind == "error"]

    def __enter__(self) -> Person:
        _present.append(self)
        if not _is_harness():
            self._stack.enter_context(_in_real_slicer(self))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        _present.remove(self)
        self._stack.close()
        if error is None and self._expected:
            raise AssertionError(f"never asked: {[text for text, _answer in self._expected]}")


_present: list[Person] = []


def answer(question: Question) -> Any:
    """The answer of the person who is there."""
    if not _present:
        _unanswered.append(question)
        raise UnexpectedQuestion(str(question))
    try:
        return _present[-1].answer(question)
    except UnexpectedQuestion:
        _unanswered.append(question)
        raise


_unanswered: list[Question] = []


def take_unanswered() -> list[Question]:
    """Questions since the last call that nobody was there to answer."""
    taken = list(_unanswered)
    _unanswered.clear()
    return taken


_shown: list[str] = []


def take_shown() -> list[str]:
    """The texts since the last call that a person was shown."""
    taken = list(_shown)
    _shown.clear()
    return taken


def _is_harness() -> bool:
    return getattr(slicer, "_harness", False)


def _in_real_slicer(person: Person) -> Any:
    """Message boxes go to the person; in testing mode Slicer shows none and answers for itself."""
    stack = ExitStack()

    def show(kind: str, answers: Callable[[str], Any]) -> Callable[..., Any]:
        def display(text: str, windowTitle: str | None = None, **rest: Any) -> Any:
            buttons = {"question": ("Ok", "Cancel", "Yes", "No", "Retry", "Close")}.get(kind, ("Ok",))
            given = person.answer(Question(kind, windowTitle or "", text, rest.get("detailedText", ""), buttons))
            return answers(given)

        return display

    agreed = ("Ok", "Yes", "Retry")
    for name, kind in (
        ("confirmOkCancelDisplay", "question"),
        ("confirmYesNoDisplay", "question"),
        ("confirmRetryCloseDisplay", "question"),
        ("infoDisplay", "information"),
        ("warningDisplay", "warning"),
        ("errorDisplay", "error"),
    ):
        display = show(kind, lambda given: given in agreed)
        stack.enter_context(mock.patch.object(slicer.util, name, display))
    stack.enter_context(mock.patch.object(slicer, "app", _NotTesting(slicer.app)))
    return stack


class _NotTesting:
    """The application, which does not say that it is being tested."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def testingEnabled(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)
