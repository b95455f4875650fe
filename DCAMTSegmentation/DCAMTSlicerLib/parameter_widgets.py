"""Which widget of a panel shows which parameter of its parameter node."""

from __future__ import annotations

from typing import Any

from slicer.parameterNodeWrapper import SlicerParameterNamePropertyName


def parameter_widgets(ui: Any) -> dict[str, Any]:
    """A panel's widgets by the name of the parameter that their `.ui` file gives them; for `connectParametersToGui`.

    That, unlike `connectGui`, says what `disconnectGui` takes. What stays connected is written over when the panel
    connects again: combo boxes are filled anew then, and choices would fall back to the first.
    """
    named = {widget.property(SlicerParameterNamePropertyName): widget for widget in vars(ui).values()}
    return {name: widget for name, widget in named.items() if name}
