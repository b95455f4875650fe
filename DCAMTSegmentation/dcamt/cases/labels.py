"""A case's outline, by the recipe's own labels."""

from __future__ import annotations

from pathlib import Path

from ..io.readers import read_labelmap
from ..recipe import Recipe
from ..volume import Labelmap, is_mask_of_255, relabel_255


def read_outline(path: Path, recipe: Recipe) -> Labelmap:
    """The labelmap in a file; where the recipe knows one class, a mask of 255 is that class.

    With several classes it could be any of them, and stays as it is.

    Raises:
        InputError: as `read_labelmap` does.
    """
    labelmap = read_labelmap(path)
    first, *others = recipe.classes
    return labelmap if others or not is_mask_of_255(labelmap) else relabel_255(labelmap, first.label)
