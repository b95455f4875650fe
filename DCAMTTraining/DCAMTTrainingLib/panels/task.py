"""Control the section *Task* of the panel: recipe, user-defined classes, suggested recipe, model to start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import qt
from dcamt.cases.case_list import LABELLED
from dcamt.errors import DCAMTError
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, shipped_recipes
from DCAMTSlicerLib.engine_messages import translated
from DCAMTSlicerLib.installation import show_error
from DCAMTSlicerLib.model_choices import model_choices
from slicer.i18n import tr as _

from ..session import TrainingSession
from ..suggestion import RecipeSuggestion
from ..task import (
    BASES,
    SUGGESTED,
    USER_CT,
    USER_MRI,
    UserClass,
    classes_from_json,
    classes_to_json,
    new_class,
    unread_classes,
)
from .plain_table import ROW_PIXELS, fit_height

NAME, COLOR, CODE = range(3)
"""Column numbers of the table of classes."""
ROWS = (2, 5)
"""Smallest and largest number of visible rows."""


class TaskPanel:
    """Controls the widgets of the section *Task*."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        self._tasks = [*shipped_recipes(), USER_MRI, USER_CT, SUGGESTED]
        self._models: list[str] = []
        self._suggestion: RecipeSuggestion | None = None
        self._filling = True
        titles = {
            USER_MRI: _("My own classes, in MRI"),
            USER_CT: _("My own classes, in CT"),
            SUGGESTED: _("Suggested from the cases"),
        }
        for task in self._tasks:
            ui.taskSelector.addItem(titles.get(task) or translated(load_recipe(task).title))
        ui.classesTable.setHorizontalHeaderLabels([_("Class"), _("Colour"), _("Code, e.g. SCT 39607008 Lung")])
        ui.classesTable.horizontalHeader().setStretchLastSection(True)
        ui.classesTable.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        self._filling = False
        ui.taskSelector.connect("currentIndexChanged(int)", self._on_task)
        ui.startFromSelector.connect("currentIndexChanged(int)", self._on_start_from)
        ui.classesTable.connect("cellChanged(int,int)", self._on_cell)
        ui.addClassButton.connect("clicked(bool)", self._on_add_class)
        ui.removeClassButton.connect("clicked(bool)", self._on_remove_class)
        ui.suggestButton.connect("clicked(bool)", self._on_suggest)
        session.on_news.append(self._show_news)

    def close(self) -> None:
        """Stop background work."""
        if self._suggestion is not None:
            self._suggestion.cancel()

    def on_scene_closing(self) -> None:
        """Cancel the suggestion, whose cases belong to the closing scene."""
        self.close()
        self._ui.suggestionLabel.text = ""
        self._show_suggestion()

    def refresh(self) -> None:
        """Show the scene's task and classes, and the models to start from."""
        settings = self._session.settings
        if settings is None:
            return
        self._filling = True
        if settings.task not in self._tasks:
            # The scene was saved by a version of DCAMT that has other tasks.
            self._tasks.append(settings.task)
            self._ui.taskSelector.addItem(_("{name} (not in the list of tasks)").format(name=settings.task))
        self._ui.taskSelector.setCurrentIndex(self._tasks.index(settings.task))
        self._ui.ownClassesWidget.visible = settings.task in BASES
        choices = model_choices()
        self._models = ["", *(choice.name for choice in choices)]
        self._ui.startFromSelector.clear()
        self._ui.startFromSelector.addItem(_("Scratch (random weights)"))
        for choice in choices:
            title = choice.title if choice.name in choice.title else f"{choice.title} ({choice.name})"
            self._ui.startFromSelector.addItem(title)
        if settings.startFrom not in self._models:
            # The model was removed, or the scene comes from another computer.
            self._models.append(settings.startFrom)
            self._ui.startFromSelector.addItem(_("{name} (not in the list of models)").format(name=settings.startFrom))
        self._ui.startFromSelector.setCurrentIndex(self._models.index(settings.startFrom))
        self._show_class_message(unread_text(unread_classes(settings.ownClasses)))
        self._show_classes(classes_from_json(settings.ownClasses))
        self._filling = False
        self._show_suggestion()

    def _show_news(self) -> None:
        self._show_choices()
        self._show_suggestion()

    def _show_suggestion(self) -> None:
        suggesting = self._suggestion is not None and self._suggestion.running
        self._ui.suggestButton.text = _("Cancel") if suggesting else _("Suggest from cases")
        self._ui.suggestionLabel.visible = bool(self._ui.suggestionLabel.text)
        self._ui.suggestButton.enabled = suggesting or self._session.table.count(LABELLED) > 0

    def _show_choices(self) -> None:
        """Show the task and the model to start from, which the session or a script may have changed."""
        settings = self._session.settings
        if settings is None or self._filling or not self._models:  # `_models` is empty before the first `refresh`.
            return
        task, model = self._ui.taskSelector.currentIndex, self._ui.startFromSelector.currentIndex
        if (self._tasks[task], self._models[model]) != (settings.task, settings.startFrom):
            self.refresh()

    def _show_classes(self, classes: list[UserClass]) -> None:
        table = self._ui.classesTable
        table.setRowCount(len(classes))
        fit_height(table, len(classes), *ROWS)
        for row, user_class in enumerate(classes):
            color = "#" + "".join(f"{round(255 * part):02x}" for part in user_class.color)
            for column, text in ((NAME, user_class.name), (COLOR, color), (CODE, " ".join(user_class.code))):
                item = qt.QTableWidgetItem(text)
                if column == COLOR:
                    item.setBackground(qt.QBrush(qt.QColor(color)))
                table.setItem(row, column, item)

    def _show_class_message(self, text: str) -> None:
        self._ui.classMessageLabel.text = text
        self._ui.classMessageLabel.visible = bool(text)

    def _classes(self) -> list[UserClass]:
        settings = self._session.settings
        return classes_from_json(settings.ownClasses) if settings is not None else []

    def _set_classes(self, classes: list[UserClass], message: str = "") -> None:
        self._show_class_message(message)
        if self._session.settings is not None:
            self._session.settings.ownClasses = classes_to_json(classes)
        self._filling = True
        self._show_classes(classes)
        self._filling = False
        self._session.apply_classes()

    def _on_task(self, index: int) -> None:
        if self._filling or self._session.settings is None:
            return
        task = self._tasks[index]
        self._session.settings.task = task
        self._ui.ownClassesWidget.visible = task in BASES
        if task in BASES and not self._classes():
            self._set_classes([new_class([])])
        self._session.apply_classes(keeps_unmatched=False)

    def _on_suggest(self, checked: bool = False) -> None:
        session, settings = self._session, self._session.settings
        if settings is None:
            return
        if self._suggestion is not None and self._suggestion.running:
            self._suggestion.cancel()
            self._ui.suggestionLabel.text = _("Cancelled.")
            self._show_suggestion()
            return
        try:
            session.ensure_packages()
            # Before the first suggestion, the task `SUGGESTED` has no recipe.
            recipe = session.recipe() if settings.task != SUGGESTED or settings.suggestedRecipe else load_recipe("la")
        except DCAMTError as error:
            show_error(error, _("Suggest a recipe"))
            return
        self._ui.suggestionLabel.text = _("Reading the labelled cases…")

        def on_end(suggested: Recipe | None, message: str) -> None:
            self._ui.suggestionLabel.text = message
            if suggested is not None and session.settings is settings:
                settings.suggestedRecipe, settings.task = suggested.to_json(), SUGGESTED
                # A model to start from would replace the suggested recipe's network with its own.
                settings.startFrom = ""
                self._ui.suggestionLabel.text = suggestion_text(suggested)
                self.refresh()
                session.apply_classes()
            self._show_suggestion()

        self._suggestion = RecipeSuggestion(session.table.rows, recipe, session.device(), on_end).start()
        self._show_suggestion()

    def _on_start_from(self, index: int) -> None:
        if not self._filling and self._session.settings is not None and 0 <= index < len(self._models):
            self._session.settings.startFrom = self._models[index]
            # The check may have failed because the model chosen before did not fit the task.
            if self._session.check_failure:
                self._session.check_cases()

    def _on_add_class(self, checked: bool = False) -> None:
        classes = self._classes()
        self._set_classes([*classes, new_class(classes)])

    def _on_remove_class(self, checked: bool = False) -> None:
        self._set_classes(self._classes()[:-1])

    def _on_cell(self, row: int, column: int) -> None:
        if self._filling:
            return
        classes, message = self._classes(), ""
        text = self._ui.classesTable.item(row, column).text().strip()
        if column == NAME:
            classes[row] = replace(classes[row], name=text)
        elif column == COLOR:
            color = qt.QColor(text)
            if color.isValid():
                parts = (color.red() / 255, color.green() / 255, color.blue() / 255)
                classes[row] = replace(classes[row], color=parts)
            else:
                message = _("“{text}” is not a colour. Enter a colour such as #ff0000 or red.").format(text=text)
        else:
            words = text.split(None, 2)
            if len(words) == 3:
                classes[row] = replace(classes[row], code=(words[0].rstrip(","), words[1].rstrip(","), words[2]))
            else:
                message = _("“{text}” is not a code. Enter scheme, value and meaning, such as {example}.")
                message = message.format(text=text, example=" ".join(new_class([]).code))
        self._set_classes(classes, message)


def unread_text(parts: list[str]) -> str:
    """Return a message about the parts of the scene's classes that cannot be read; "" if there are none."""
    text = _("The scene's classes are damaged: {parts}. Enter the damaged parts again.")
    return str(text.format(parts=", ".join(parts))) if parts else ""


def suggestion_text(recipe: Recipe) -> str:
    """Return a summary of a suggested recipe."""
    text = _("{title}: voxels of {spacing} mm; {batch} patches of {patch} voxels per iteration.")
    return str(
        text.format(
            title=translated(recipe.title),
            spacing="×".join(f"{mm:g}" for mm in recipe.spacing),
            patch="×".join(map(str, recipe.training.patch)),
            batch=recipe.training.batch,
        )
    )
