"""Find the widgets of a panel that show parameters of its parameter node."""

from __future__ import annotations

from typing import Any

from slicer.parameterNodeWrapper import SlicerParameterNamePropertyName
from slicer.parameterNodeWrapper.guiConnectors import QLineEditToStrConnector


class _LineEditConnector(QLineEditToStrConnector):
    def write(self, value: str) -> None:
        # Setting the same text would move the cursor to the end.
        if value != self.read():
            super().write(value)


def parameter_widgets(ui: Any) -> dict[str, Any]:
    """Return a dictionary for `connectParametersToGui`: name of a parameter -> the panel's widget, or its connector.

    The `.ui` file states the name of each widget's parameter.

    Disconnect a panel before connecting it again: otherwise each combo box is reset to its first item (Slicer's issue
    7545).
    """
    named = {widget.property(SlicerParameterNamePropertyName): widget for widget in vars(ui).values()}
    return {
        name: _LineEditConnector(widget) if widget.className() == "QLineEdit" else widget
        for name, widget in named.items()
        if name
    }
