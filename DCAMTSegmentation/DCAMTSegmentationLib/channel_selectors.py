"""Show a volume selector for the second and each further input channel of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import qt
import slicer
from dcamt.errors import InputError
from dcamt.volume import differ_in_order
from DCAMTSlicerLib import channel_names
from DCAMTSlicerLib.model_choices import recipe_channel_names
from DCAMTSlicerLib.node_types import Node, VolumeNode
from slicer.i18n import tr as _

from . import result_scan
from .result_nodes import VOLUME, get_referenced_node, result_of

FIRST_ROW = 3
"""Position of the first added row (the second channel) in the form, below the model and its buttons."""


class ChannelSelectors:
    """Adds rows to the panel's input form when a model needs them.

    The panel's own selector is for the first channel. `on_chosen` receives the volumes of the further channels only,
    with None for a channel without a volume.
    """

    def __init__(self, ui: Any, on_chosen: Callable[[list[VolumeNode | None]], None]) -> None:
        self._ui, self._on_chosen = ui, on_chosen
        self._labels: list[Any] = []
        self._selectors: list[Any] = []
        self._hidden: list[str] = []
        self._further_count = 0
        self._filling = False

    @property
    def are_chosen(self) -> bool:
        """Whether each further channel of the model has a volume."""
        return None not in self._chosen()

    def show(self, names: Sequence[str], volumes: Sequence[VolumeNode | None]) -> None:
        """Show a row for each channel after the first, and name the first channel beside the panel's own selector.

        Args:
            names: the names of all channels.
            volumes: the volumes of the further channels; None for a channel without a volume.
        """
        self._further_count = len(names) - 1
        self._ui.inputLabel.text = _("{channel}:").format(channel=names[0]) if self._further_count else _("Volume:")
        while len(self._selectors) < self._further_count:
            self._add_row()
        self._filling = True
        for index, (label, selector) in enumerate(zip(self._labels, self._selectors, strict=True)):
            label.visible = selector.visible = index < self._further_count
            if index < self._further_count:
                label.text = _("{channel}:").format(channel=names[index + 1])
            selector.setCurrentNode(volumes[index] if index < len(volumes) else None)
        self._filling = False

    def hide_nodes(self, node_ids: list[str]) -> None:
        """Exclude the nodes with these identifiers from the selectors."""
        self._hidden = node_ids
        for selector in self._selectors:
            selector.sortFilterProxyModel().hiddenNodeIDs = node_ids

    def _chosen(self) -> list[VolumeNode | None]:
        return [selector.currentNode() for selector in self._selectors[: self._further_count]]

    def _add_row(self) -> None:
        row = len(self._selectors)
        label, selector = qt.QLabel(), slicer.qMRMLNodeComboBox()
        label.textFormat = qt.Qt.PlainText
        selector.objectName = f"channelSelector{row + 2}"
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.noneDisplay = _("Choose a volume")
        selector.addEnabled = selector.removeEnabled = selector.renameEnabled = False
        selector.toolTip = _("A further volume of the same scan, on the same grid as the first.")
        selector.sortFilterProxyModel().hiddenNodeIDs = self._hidden
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_changed)
        self._ui.inputsCollapsibleButton.layout().insertRow(FIRST_ROW + row, label, selector)
        self._labels.append(label)
        self._selectors.append(selector)

    def _on_changed(self, node: Node) -> None:
        if not self._filling:
            self._on_chosen(self._chosen())


def choose_model(settings: Any, name: str) -> None:
    """Select a model, and put the volumes that are selected now into the order of its channels.

    Each channel of the new model gets the volume with this channel's name (`channel_names.name_of`). If a channel's
    name belongs to no volume or to several volumes, the order of the volumes stays. The order also stays for a model
    with one channel or with unnamed channels.
    """
    volumes = (settings.inputVolume, *settings.channelVolumes)
    names_before, names = recipe_channel_names(settings.model), recipe_channel_names(name)
    used = volumes[: len(names_before)]
    if len(used) == len(names_before) > 1 and None not in used:
        channel_names.store_names(used, names_before)
    present = [volume for volume in volumes if volume is not None]
    ordered = channel_names.find_by_names(present, names) if len(names) > 1 else None
    # Without `NodeModify`, the panel would handle each change before the next one is made.
    with slicer.util.NodeModify(settings.parameterNode):
        settings.model = name
        if ordered is not None:
            first, *others = ordered
            settings.inputVolume = first
            settings.channelVolumes = [*others, *(volume for volume in present if volume not in ordered)]


def replace_channels(settings: Any) -> None:
    """Select the further channels that are stored with the result of the input volume.

    Clear the selection if the volume has no result, if one of the stored channels is no longer in the scene, or if the
    selected model has the result's channels in another order.
    """
    volume, selected_channels = settings.inputVolume, tuple(settings.channelVolumes)
    if volume is None or volume in selected_channels:
        return
    channels: tuple[VolumeNode, ...] = ()
    output = settings.outputSegmentation
    is_result = get_referenced_node(output, VOLUME) is volume
    result = output if is_result else result_of(volume)
    if result is not None:
        with suppress(InputError):
            channels = result_scan.channels_of(result)
            names = result_scan.channel_names_of(result)
            if differ_in_order(names, recipe_channel_names(settings.model)):
                channels = ()
            elif len(names) == len(channels) + 1:
                channel_names.store_names((volume, *channels), names)
    settings.channelVolumes = list(channels)
