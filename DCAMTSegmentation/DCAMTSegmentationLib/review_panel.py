"""The part of the panel about a result: measurements, trust, doubtful places, correction, the way to training."""
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.errors import DCAMTError
from DCAMTSlicerLib import segment_editor
from slicer.i18n import tr as _

from . import measurements_table, review, training_cases


class ReviewPanel:
    """Shows one segmentation node at a time; without a result in it, nothing can be clicked."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._node: Any = None
        ui.copyButton.connect("clicked(bool)", self.onCopy)
        ui.exportButton.connect("clicked(bool)", self.onExport)
        ui.nextPlaceButton.connect("clicked(bool)", self.onNextPlace)
        ui.correctButton.connect("clicked(bool)", self.onCorrect)
        ui.teachButton.connect("clicked(bool)", self.onTeach)

    def show(self, segmentation: Any) -> None:
        """Show this node's result; None, or a node without one, shows nothing."""
        ui, changed = self._ui, segmentation is not self._node
        self._node = segmentation
        table = review.referenced(segmentation, review.MEASUREMENTS)
        if ui.measurementsTable.mrmlTableNode() is not table:
            ui.measurementsTable.setMRMLTableNode(table)
            if table is not None:
                # Slicer turns no table that is not there yet: the panel's file cannot ask for it.
                ui.measurementsTable.transposed = True
                ui.measurementsTable.resizeColumnsToContents()
        ui.measurementsTable.visible = table is not None
        ui.copyButton.enabled = ui.exportButton.enabled = table is not None
        ui.trustLabel.text = self._trustText()
        ui.disagreementCheckBox.enabled = review.referenced(segmentation, review.DISAGREEMENT) is not None
        ui.nextPlaceButton.enabled = bool(review.doubtful_places(segmentation))
        volume = review.referenced(segmentation, review.VOLUME)
        ui.correctButton.enabled = segmentation is not None and volume is not None
        ui.teachButton.enabled = ui.correctButton.enabled
        if changed:
            ui.placeLabel.text = ""
        ui.teachLabel.text = _("This is a training case.") if training_cases.is_case(segmentation) else ""

    def _trustText(self) -> str:
        if review.referenced(self._node, review.VOLUME) is None:
            return str(_("No result yet: choose a volume and press Apply."))
        trust, count = review.trust(self._node), len(review.doubtful_places(self._node))
        if trust is None:
            text = _("Fast quality runs one branch: it does not say where to doubt.")
        else:
            places = _("one doubtful place") if count == 1 else _("{count} doubtful places").format(count=count)
            text = _("The two branches agree to {share}; {places}.").format(share=f"{trust:.0%}", places=places)
        if review.is_outdated(self._node):
            text += " " + _("The measurements may be from before the correction: measure again.")
        return str(text)

    def onCopy(self, checked: bool = False) -> None:
        table = review.referenced(self._node, review.MEASUREMENTS)
        slicer.app.clipboard().setText(measurements_table.as_text(table))

    def onExport(self, checked: bool = False) -> None:
        table, title = review.referenced(self._node, review.MEASUREMENTS), _("Export measurements")
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, f"{table.GetName()}.csv", "CSV (*.csv)")
        if not path:
            return
        try:
            measurements_table.export_csv(table, Path(path))
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=title)

    def onNextPlace(self, checked: bool = False) -> None:
        number, place = review.next_place(self._node)
        self._ui.placeLabel.text = _("{number} of {count}: {volume} mL in doubt").format(
            number=number, count=len(review.doubtful_places(self._node)), volume=f"{place.volume_ml:.2f}"
        )

    def onCorrect(self, checked: bool = False) -> None:
        volume = review.referenced(self._node, review.VOLUME)
        review.mark_corrected(self._node)
        segment_editor.correct(self._node, volume)

    def onTeach(self, checked: bool = False) -> None:
        volume = review.referenced(self._node, review.VOLUME)
        training_cases.add_case(volume, self._node)
        self._ui.teachLabel.text = _(
            "{volume} with this segmentation is a training case now: the DCAMT Training module lists it."
        ).format(volume=volume.GetName())
