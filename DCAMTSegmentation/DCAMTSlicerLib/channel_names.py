"""Name the channels that volume nodes hold, and compare the names with those of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dcamt.errors import InputError
from dcamt.io.channels import names_of_channels
from dcamt.volume import channel_order, have_same_names
from slicer.i18n import tr as _

from .node_types import VolumeNode

_NAME = "DCAMT.channelName"
"""Attribute of a volume node: the name of the channel to which the user last assigned the volume."""


def store_names(volumes: Sequence[VolumeNode], names: Sequence[str]) -> None:
    """Store the name of each volume's channel with the volume."""
    for volume, name in zip(volumes, names, strict=True):
        volume.SetAttribute(_NAME, name)


def name_of(volume: VolumeNode) -> str:
    """Return the name of a volume's channel; "" if it is unknown.

    A name stored by `store_names` takes precedence over the `dataset.json` beside the volume's file.
    """
    return volume.GetAttribute(_NAME) or _name_in_data_set(volume)


def names_of(volumes: Sequence[VolumeNode]) -> tuple[str, ...]:
    """Return the name of each volume's channel; () if a name is unknown."""
    names = tuple(map(name_of, volumes))
    return names if all(names) else ()


def find_by_names(volumes: Sequence[VolumeNode], names: Sequence[str]) -> list[VolumeNode] | None:
    """Return the volume of each name, in the order of `names`; None if a name belongs to no volume or to several."""
    fitting = [volume for volume in volumes if _is_among(name_of(volume), names)]
    order = channel_order([name_of(volume) for volume in fitting], names)
    return [fitting[index] for index in order] if order is not None else None


def check_data_set_names(volumes: Sequence[VolumeNode], names: Sequence[str]) -> list[str]:
    """Compare the names in the `dataset.json` beside the volumes' files with the model's channels.

    Args:
        volumes: the volume that was chosen for each channel.
        names: the names of the model's channels; empty if the model does not name its channels.

    Returns:
        A note for each volume whose name in `dataset.json` is no channel of the model.

    Raises:
        InputError: `dataset.json` gives a volume the name of another channel of the model.
    """
    notes = []
    for volume, name in zip(volumes, names, strict=False):
        own = _name_in_data_set(volume)
        if not own or have_same_names([own], [name]):
            continue
        if _is_among(own, names):
            what = _("is the channel “{own}” according to its dataset.json, but was chosen for “{name}”")
            remedy = _("Choose each volume for the channel that its dataset.json states, or correct dataset.json.")
            raise InputError(what.format(own=own, name=name), path=volume.GetName(), remedy=remedy)
        text = _("{volume} is the channel “{own}” according to its dataset.json, and was used for “{name}”.")
        notes.append(str(text.format(volume=volume.GetName(), own=own, name=name)))
    return notes


def _is_among(name: str, names: Sequence[str]) -> bool:
    return any(have_same_names([name], [other]) for other in names)


def _name_in_data_set(volume: VolumeNode) -> str:
    storage = volume.GetStorageNode()
    if storage is None or not storage.GetFileName():
        return ""
    return next(iter(names_of_channels(Path(storage.GetFullNameFromFileName()), 1)), "")
