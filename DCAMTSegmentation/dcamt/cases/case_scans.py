"""Read the scans of cases with the channels of a recipe, and compare the order of channels among cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..io.channels import channel_files, has_channel_files, names_of_channels
from ..io.file_identity import file_identity
from ..io.readers import read_header, read_scan
from ..recipe import Recipe
from ..volume import Labelmap, Volume, differ_in_order, fit_labelmap, order_channels
from .case_list import LEFT_OUT, Case
from .labels import parse_case_mapping


def read_case_scan(image: Path, recipe: Recipe) -> Volume:
    """Read the scan of a case, and put its channels into the recipe's order (`order_channels`).

    The order stays if the scan's channels are unnamed, if they have other names than the recipe's channels, or if the
    recipe names no channels.

    Raises:
        InputError: as in `read_scan`, or as in `check_case_channels`.
    """
    try:
        volume = read_scan(image, channels=recipe.input_channels)
    except InputError:
        check_case_channels(read_header(image, channels=recipe.input_channels).channels, recipe, image)
        raise
    return order_channels(volume, recipe.channel_names)


def check_case_channels(channels: int, recipe: Recipe, image: Path) -> None:
    """Raise InputError if the number of a scan's `channels` differs from the recipe's."""
    if channels != recipe.input_channels:
        what = f"the number of channels is {channels} in the scan, but {recipe.input_channels} in the recipe"
        raise InputError(what, path=image, remedy="Choose another file or recipe.")


def read_case_grid(case: Case, recipe: Recipe) -> Grid:
    """Return the grid of a case's scan.

    Raises:
        InputError: the label mapping or a header shows that training would refuse the case.
    """
    scan = read_header(case.image, channels=recipe.input_channels)
    check_case_channels(scan.channels, recipe, case.image)
    if case.label is not None:
        parse_case_mapping(case, recipe.classes)
        label = read_header(case.label, as_labelmap=True)
        if not label.partial:
            empty = np.broadcast_to(np.uint8(0), label.grid.shape)
            fit_labelmap(Labelmap(empty, label.grid, case.label), scan.grid, case.image)
    return scan.grid


def refuse_mixed_orders(cases: Sequence[Case], recipe: Recipe) -> None:
    """Raise InputError if a scan has the first scan's channels in another order (`mixed_orders`).

    If the recipe names its channels, nothing is refused: `read_case_scan` puts channels with these names into the
    recipe's order.
    """
    for _, error in mixed_orders(cases, recipe):
        raise error


def mixed_orders(
    cases: Sequence[Case], recipe: Recipe, names: Sequence[tuple[str, ...]] | None = None
) -> Iterator[tuple[int, InputError]]:
    """Yield the index and the error of each case whose channels have another order than the first case's channels.

    The first case is the first one that is not left out and whose channels have known names. A case is not yielded if
    its channels have other names than the first case's channels. Nothing is yielded if the recipe names its channels or
    has only one channel.

    Args:
        names: the names of each case's channels, empty if unknown. If `names` is None, the names are read from the
            `dataset.json` beside each scan's file.
    """
    if recipe.channel_names or recipe.input_channels == 1:
        return
    if names is None:
        names = [names_of_channels(case.image, recipe.input_channels) for case in cases]
    first: tuple[Case, tuple[str, ...]] | None = None
    for index, (case, own) in enumerate(zip(cases, names, strict=True)):
        if case.role == LEFT_OUT or not own:
            continue
        if first is None:
            first = case, own
        elif differ_in_order(own, first[1]):
            what = (
                f"has the channels in the order {', '.join(own)}, but the case '{first[0].name}' in the order"
                f" {', '.join(first[1])}"
            )
            remedy = "Name the channels in the recipe (channel_names), in the order in which all scans shall be read."
            yield index, InputError(what, path=case.image, remedy=remedy)


def unused_channel_files(cases: Sequence[Case], input_channels: int) -> Iterator[tuple[int, str]]:
    """Yield index and note of the first case beside whose scan `x_0000` lie files `x_0001`, ... that are not used.

    Nothing is yielded if the recipe has several channels. A case is ignored in two conditions:

    - The further files are known to be channels (`has_channel_files`): the scan itself then has a note.
    - The list names one of the further files, so the numbers mean patients.
    """
    if input_channels > 1:
        return
    listed = {file_identity(file) for case in cases for file in case.files}
    for index, case in enumerate(cases):
        first, *further = channel_files(case.image) or (case.image,)
        if case.role == LEFT_OUT or not further or has_channel_files(first):
            continue
        if listed.isdisjoint(map(file_identity, further)):
            note = (
                f"The recipe has one channel, so numbered files beside the scans are not used, such as"
                f" {further[0].name}. If they are channels, set input_channels to {1 + len(further)} in the recipe; or"
                " name the channels (channel_names) in a dataset.json beside the scans, and suggest the recipe again."
            )
            yield index, note
            return
