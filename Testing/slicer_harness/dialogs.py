"""Let the test's `Person` answer Qt's dialogs; an unexpected dialog fails the test."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from .conversion import unwrap
from .enums import EnumValue
from .members import BoundMethod, QtMethod
from .person import Question, answer, work_on
from .wrapping import wrapper_class

_Buttons = QtWidgets.QMessageBox.StandardButton


def run_message_box(box: QtWidgets.QMessageBox) -> int:
    """Return the button that the person presses in a message box."""
    kind = {
        QtWidgets.QMessageBox.Icon.Question: "question",
        QtWidgets.QMessageBox.Icon.Information: "information",
        QtWidgets.QMessageBox.Icon.Warning: "warning",
        QtWidgets.QMessageBox.Icon.Critical: "error",
    }.get(box.icon(), "question")
    # If a box has details, Slicer appends spaces to its title to make the box wider.
    title, buttons = box.windowTitle().strip(), _names(box.standardButtons())
    question = Question(kind, title, _shown_text(box), box.detailedText(), buttons)
    return int(_Buttons[answer(question)].value)


def _shown_text(box: QtWidgets.QMessageBox) -> str:
    is_plain = box.textFormat() == QtCore.Qt.TextFormat.PlainText
    if is_plain or not QtGui.Qt.mightBeRichText(box.text()):
        return box.text()
    document = QtGui.QTextDocument()
    document.setHtml(box.text())
    return document.toPlainText()


def choose_path(kind: str, title: str) -> Any:
    """Return the path that the person chooses in a file dialog; the paths if `kind` is "open several".

    Args:
        kind: "open", "open several", "save" or "directory".
    """
    return answer(Question(kind, title, title, "", ()))


def install() -> None:
    """Send Qt's dialogs and links to the person."""
    box = wrapper_class(QtWidgets.QMessageBox)
    for name, kind in (("question", "question"), ("information", "information"), ("warning", "warning")):
        setattr(box, name, _static_box(kind))
    box.critical = _static_box("error")
    box.exec = box.exec_ = _Exec()
    files = wrapper_class(QtWidgets.QFileDialog)
    files.getOpenFileName = staticmethod(lambda parent=None, title="", *_: choose_path("open", title))
    files.getSaveFileName = staticmethod(lambda parent=None, title="", *_: choose_path("save", title))
    files.getExistingDirectory = staticmethod(lambda parent=None, title="", *_: choose_path("directory", title))
    files.getOpenFileNames = staticmethod(lambda parent=None, title="", *_: tuple(choose_path("open several", title)))
    texts = wrapper_class(QtWidgets.QInputDialog)
    texts.getText = staticmethod(lambda parent, title, label, *_: answer(Question("text", title, label, "", ())))
    dialog = wrapper_class(QtWidgets.QDialog)
    dialog.exec = dialog.exec_ = _DialogExec()
    links = wrapper_class(QtGui.QDesktopServices)
    links.openUrl = staticmethod(lambda url: answer(Question("link", "", url.toString(), "", ())) is not False)


def _static_box(kind: str) -> Any:
    def show(parent: Any, title: str, text: str, buttons: Any = None, default: Any = None) -> EnumValue:
        offered = _names(unwrap(buttons)) if buttons is not None else ("Yes", "No") if kind == "question" else ("Ok",)
        chosen = answer(Question(kind, title, text, "", offered))
        return getattr(wrapper_class(QtWidgets.QMessageBox), chosen)

    return staticmethod(show)


def _names(buttons: Any) -> tuple[str, ...]:
    """Return the names of the standard buttons in a combination of flags."""
    value = int(getattr(buttons, "value", buttons))
    names: dict[int, str] = {}
    for name, button in _Buttons.__members__.items():
        code = int(button.value)
        # Some members of the enumeration are masks of several buttons. If a button has two names, `setdefault` keeps
        # the first name.
        is_one_button = code.bit_count() == 1
        if is_one_button and code & value:
            names.setdefault(code, name)
    return tuple(names.values()) or ("Ok",)


class _Exec(QtMethod):
    def __init__(self) -> None:
        super().__init__("exec", QtWidgets.QMessageBox)

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return lambda: run_message_box(wrapper._object)


class _DialogExec(QtMethod):
    """Opens the dialog and passes it to the function given to `Person.expects`."""

    def __init__(self) -> None:
        super().__init__("exec", QtWidgets.QDialog)

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return lambda: self._run(wrapper)

    def _run(self, wrapper: Any) -> Any:
        work = answer(Question("dialog", wrapper.windowTitle, wrapper.windowTitle, "", ()))
        QtCore.QTimer.singleShot(0, lambda: work_on(wrapper, work))
        return BoundMethod(self, wrapper)()
