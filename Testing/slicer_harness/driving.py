"""Operate the application as a person does: open a module, click, choose, wait."""

from __future__ import annotations

import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from dcamt_testing.processes import HANGING_S

from . import slot_errors
from .installation import in_real_slicer
from .person import pop_shown_texts, pop_unanswered, watch_dialogs

ROOT = Path(__file__).resolve().parents[2]
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.015
"""Shortest and longest pause between two turns of the event loop."""
IDLE_TURN_S = 0.0005
"""A turn of the event loop that is shorter than this counts as idle."""


@dataclass
class OpenModule:
    name: str

    @property
    def widget(self) -> Any:
        return getattr(slicer.modules, f"{self.name}Widget")

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def logic(self) -> Any:
        return self.widget.logic

    @property
    def panel(self) -> Any:
        return self.widget.parent

    def leave(self) -> None:
        slicer.util.selectModule("Data")

    def enter(self) -> None:
        slicer.util.selectModule(self.name)

    def close(self) -> None:
        """Leave the module and close its panel, so that the next test starts with a new panel and logic."""
        if not hasattr(slicer.modules, self.name.lower()):
            return
        self.leave()
        if in_real_slicer():
            if hasattr(slicer.modules, f"{self.name}Widget"):
                slicer.util.reloadScriptedModule(self.name)
        else:
            getattr(slicer.modules, self.name.lower()).unload()
        process_events()


def open_module(name: str) -> OpenModule:
    """Select a module of this repository; load it first if it is not loaded."""
    if in_real_slicer():
        watch_dialogs()
    elif not hasattr(slicer.modules, name.lower()):
        from .modules import ScriptedModule

        module = ScriptedModule(name, str(ROOT / name / f"{name}.py"))
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.modules, f"{name}Instance", module.self())
    slicer.util.selectModule(name)
    process_events()
    return OpenModule(name)


def announce_quitting() -> None:
    """Send `aboutToQuit`; the harness then unloads all scripted modules, as Slicer does.

    Raises SkipTest in a real Slicer.
    """
    if in_real_slicer():
        raise unittest.SkipTest("later tests could not open the modules again")
    slicer.app.aboutToQuit.emit()


def process_events() -> None:
    slicer.app.processEvents()


def process_events_until(condition: Callable[[], Any], what: str = "", *, timeout: float = HANGING_S) -> None:
    """Process events until `condition()` holds; raise AssertionError after `timeout` seconds.

    Args:
        what: names the condition in the error's message.
    """
    end = time.monotonic() + timeout
    pause = SHORTEST_PAUSE_S
    while not condition():
        began = time.monotonic()
        if began > end:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        slicer.app.processEvents()
        # Longer pauses leave the processor to the process that the test waits for.
        idle = time.monotonic() - began < IDLE_TURN_S
        pause = min(LONGEST_PAUSE_S, 1.5 * pause) if idle else SHORTEST_PAUSE_S
        time.sleep(pause)


def click(button: Any) -> None:
    """Click a button; raise AssertionError if the button is disabled or blocked by a modal window."""
    import qt

    if not button.enabled:
        raise AssertionError(f"{button.name or button.text} cannot be clicked: it is disabled")
    modal = qt.QApplication.activeModalWidget()
    if modal is not None and button.window() != modal:
        raise AssertionError(f"{button.name or button.text} cannot be clicked: {modal.windowTitle} blocks it")
    button.click()
    process_events()


def choose(combo: Any, choice: Any) -> None:
    """Choose a node (or None) in a node selector, or a text in any other combo box.

    Raises AssertionError if the box is disabled or does not offer the choice.
    """
    if not combo.enabled:
        raise AssertionError(f"nothing can be chosen in {combo.name}: it is disabled")
    if combo.className() == "qMRMLNodeComboBox":
        is_offered = choice is not None or combo.noneEnabled
        combo.setCurrentNode(choice)
        if not is_offered or combo.currentNode() is not choice:
            raise AssertionError(f"{combo.name} does not offer {choice.GetName() if choice else choice}")
    else:
        index = combo.findText(choice)
        if index < 0:
            texts = [combo.itemText(place) for place in range(combo.count)]
            raise AssertionError(f"{combo.name} does not offer {choice}, but {texts}")
        combo.currentIndex = index
    process_events()


def type_keys(edit: Any, text: str) -> None:
    """Type a text at the cursor of a line edit, key by key; a line feed is the Enter key.

    Raises AssertionError if the line edit is disabled.
    """
    import qt

    if not edit.enabled:
        raise AssertionError(f"nothing can be typed in {edit.name}: it is disabled")
    for character in text:
        key = qt.Qt.Key_Return if character == "\n" else qt.Qt.Key_unknown
        qt.QApplication.sendEvent(edit, qt.QKeyEvent(qt.QEvent.KeyPress, key, qt.Qt.NoModifier, character))
        process_events()


def close_scene() -> None:
    """Close the scene as "File, Close scene" does."""
    slicer.mrmlScene.Clear(0)
    process_events()


@contextmanager
def scene_saved_and_closed() -> Iterator[None]:
    """Save the scene to a file and close the scene; load the file at the end of the `with` block."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "scene.mrb"))
        assert slicer.util.saveScene(path)
        close_scene()
        yield
        slicer.util.loadScene(path)


def reload_scene() -> None:
    """Save the scene to a file, close the scene and load the file."""
    with scene_saved_and_closed():
        pass


_settings_of_the_user: dict[str, Any] | None = None


def _keep_settings() -> None:
    """Remember the user's layout and the extension's settings, and restore them when Slicer ends."""
    global _settings_of_the_user
    settings = slicer.app.settings()
    if _settings_of_the_user is not None:
        return
    kept = [key for key in settings.allKeys() if key.startswith("DCAMT") or key == "MainWindow/layout"]
    _settings_of_the_user = found = {key: settings.value(key) for key in kept}

    def restore() -> None:
        for key, value in found.items():
            settings.setValue(key, value)

    slicer.app.connect("aboutToQuit()", restore)


def start_afresh() -> None:
    """Close the scene, and reset the layout, the selected module and the extension's settings."""
    if in_real_slicer():
        _keep_settings()
    slicer.util.selectModule("Data")
    close_scene()
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    for key in ("DCAMT", "MainWindow/layout"):
        slicer.app.settings().remove(key)
    process_events()


def delete_pending() -> None:
    """Delete the objects for which deleteLater() was called; in a real Slicer, leave the deletion to Qt."""
    if not in_real_slicer():
        from . import deletion

        deletion.delete_pending()


def expect_no_hidden_errors() -> None:
    """Raise AssertionError if a slot or observer had an error that no message showed, or if a question had no answer.

    Slicer only prints such an error, so a test could pass in spite of the error.
    """
    delete_pending()
    shown = pop_shown_texts()
    silent = [error for error in slot_errors.pop_errors() if not any(str(error) in text for text in shown)]
    unanswered = pop_unanswered()
    if silent or unanswered:
        raise AssertionError(f"errors that were not shown: {silent}; questions without an answer: {unanswered}")
