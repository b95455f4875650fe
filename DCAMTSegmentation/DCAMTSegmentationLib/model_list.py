"""The panel's list of models, with import and removal."""
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.errors import DCAMTError
from dcamt.models.store import ENDING
from DCAMTSlicerLib.model_choices import import_choice, model_choices, remove_choice
from slicer.i18n import tr as _


class ModelList:
    """Fills a combo box with titles, each with its card as tooltip; `onChosen` hears the name that the person chose."""

    def __init__(self, comboBox: Any, importButton: Any, removeButton: Any, onChosen: Callable[[str], None]) -> None:
        self._comboBox, self._removeButton, self._onChosen = comboBox, removeButton, onChosen
        self._choices = model_choices()
        self._filling = False
        comboBox.connect("currentIndexChanged(int)", self._onIndex)
        importButton.connect("clicked(bool)", self._onImport)
        removeButton.connect("clicked(bool)", self._onRemove)

    def show(self, name: str) -> None:
        """List what is at hand, and select `name`; a model that is not there any more is shown as missing."""
        self._choices = model_choices()
        names = [choice.name for choice in self._choices]
        self._filling = True
        self._comboBox.clear()
        for choice in self._choices:
            self._comboBox.addItem(choice.title)
        if name not in names:
            self._comboBox.addItem(_("{name} (missing)").format(name=name))
        self._comboBox.setCurrentIndex(names.index(name) if name in names else len(names))
        self._filling = False
        self._showCard()

    def _showCard(self) -> None:
        index = self._comboBox.currentIndex
        choice = self._choices[index] if 0 <= index < len(self._choices) else None
        missing = _("This model is not on this computer: import it, or choose another.")
        self._comboBox.toolTip = choice.tooltip if choice else missing
        self._removeButton.enabled = choice is not None and choice.removable

    def _onIndex(self, index: int) -> None:
        if not self._filling:
            self._showCard()
            if index < len(self._choices):
                self._onChosen(self._choices[index].name)

    def _onImport(self, checked: bool = False) -> None:
        title, kinds = _("Import a model"), _("DCAMT models") + f" (*{ENDING})"
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds)
        if not path:
            return
        try:
            name = import_choice(Path(path))
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)
            return
        self.show(name)
        self._onChosen(name)

    def _onRemove(self, checked: bool = False) -> None:
        choice, title = self._choices[self._comboBox.currentIndex], _("Remove a model")
        question = _("Delete the model “{title}” from this computer?").format(title=choice.title)
        if not slicer.util.confirmOkCancelDisplay(question, title):
            return
        try:
            remove_choice(choice.name)
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)
        remaining = model_choices()
        name = remaining[0].name if remaining else ""
        self.show(name)
        self._onChosen(name)
