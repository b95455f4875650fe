"""Name the losses in the charts of the panel and of the report."""

from __future__ import annotations

from collections.abc import Callable


def loss_title(name: str, _: Callable[[str], str] = str) -> str:
    """Return the name of a loss in a chart, translated by `_`.

    >>> loss_title("intra_class")
    'contrast within classes'
    """
    return {
        "total": _("total"),
        "supervised": _("supervised"),
        "distillation": _("distillation"),
        "mmd": _("MMD"),
        "intra_class": _("contrast within classes"),
        "inter_class": _("contrast between classes"),
        "copy_paste": _("mixed patches"),
    }.get(name, name)
