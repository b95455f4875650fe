"""Show the panel's list of models, and import and remove models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.errors import DCAMTError
from dcamt.models.store import MODEL_ENDING
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.model_choices import ModelChoice, channel_names_of, import_choice, model_choices, remove_choice
from DCAMTSlicerLib.plain_text import confirm, display_error, tooltip
from slicer.i18n import tr as _


class ModelList:
    """Fills a combo box with the titles of models; the box's tooltip shows the card of the selected model.

    `on_chosen` is called with the name of the model that the user selects or imports. After a removal it is called with
    the name of the first model in the list, or "" if none is left.
    """

    def __init__(
        self, combo_box: Any, import_button: Any, remove_button: Any, on_chosen: Callable[[str], None]
    ) -> None:
        self._combo_box, self._remove_button, self._on_chosen = combo_box, remove_button, on_chosen
        self._choices = model_choices()
        self._unlisted = ""  # The name or file of the selected model if it is not in the store.
        self._filling = False
        combo_box.connect("currentIndexChanged(int)", self._on_index)
        import_button.connect("clicked(bool)", self._on_import)
        remove_button.connect("clicked(bool)", self._on_remove)

    @property
    def name(self) -> str:
        """The name or file of the selected model; "" if none is selected."""
        choice = self._selected()
        return choice.name if choice is not None else self._unlisted

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the selected model's channels; a single empty name if the model cannot be used."""
        choice = self._selected()
        return choice.channels if choice is not None else channel_names_of(self._unlisted)

    def show(self, name: str) -> None:
        """List the models and select `name`; if the model no longer exists, it is shown as missing.

        `name` may also be the path of a model's file. If `name` is empty, no model is selected.
        """
        self._choices = model_choices()
        names = [choice.name for choice in self._choices]
        self._filling = True
        self._combo_box.clear()
        for choice in self._choices:
            self._combo_box.addItem(choice.title)
        self._unlisted = name if name not in names else ""
        if self._unlisted:
            self._combo_box.addItem(name if _is_file(name) else _("{name} (missing)").format(name=name))
            names.append(name)
        self._combo_box.setCurrentIndex(names.index(name) if name else -1)
        self._filling = False
        self._show_card()

    def _selected(self) -> ModelChoice | None:
        index = self._combo_box.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else None

    def _show_card(self) -> None:
        choice = self._selected()
        if choice is not None:
            self._combo_box.toolTip = tooltip(choice.tooltip)
        elif _is_file(self._unlisted):
            self._combo_box.toolTip = _("This model is not imported, but usable: DCAMT reads the model from its file.")
        elif not self._unlisted:
            self._combo_box.toolTip = _("No model is chosen: choose one from the list, or import one.")
        else:
            self._combo_box.toolTip = _("This model is not on this computer: import it, or choose another.")
        self._remove_button.enabled = choice is not None and choice.removable

    def _on_index(self, index: int) -> None:
        if not self._filling:
            self._show_card()
            self._on_chosen(self.name)

    def _on_import(self, checked: bool = False) -> None:
        title, kinds = _("Import a model"), _("DCAMT models") + f" (*{MODEL_ENDING})"
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds)
        if not path:
            return
        try:
            name = import_choice(Path(path))
        except DCAMTError as error:
            display_error(error_text(error), title)
            return
        self.show(name)
        self._on_chosen(name)

    def _on_remove(self, checked: bool = False) -> None:
        choice, title = self._choices[self._combo_box.currentIndex], _("Remove a model")
        question = _("Delete the model “{title}” from this computer?").format(title=choice.title)
        if not confirm(question, title):
            return
        try:
            remove_choice(choice.name)
        except DCAMTError as error:
            display_error(error_text(error), title)
        names = [remaining.name for remaining in model_choices()]
        name = choice.name if choice.name in names else next(iter(names), "")
        self.show(name)
        self._on_chosen(name)


def _is_file(path: str) -> bool:
    return os.path.isfile(os.path.expanduser(path))
