"""Connect the panel of the segmentation module to its logic: pass on the user's choices, and show the results."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qt
import slicer
import vtk
from dcamt.errors import DCAMTError, InputError
from DCAMTSlicerLib.engine_messages import error_text
from DCAMTSlicerLib.installation import InstallationDeclined
from DCAMTSlicerLib.node_types import Node, SegmentationNode, VolumeNode
from DCAMTSlicerLib.parameter_widgets import parameter_widgets
from DCAMTSlicerLib.plain_text import display_error
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_display import show_hidden_segments
from DCAMTSlicerLib.stepped_task import DoubleClickGuard
from DCAMTSlicerLib.terms_of_use import TermsDeclinedError, confirm_terms
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from . import correction_marks, result_scan, views
from .channel_selectors import ChannelSelectors, choose_model, replace_channels
from .doubt_map import doubt_map_of, is_map
from .edit_observer import EditObserver
from .export_dialogs import choose_report_file
from .model_list import ModelList
from .output_choice import confirm_replacing, replace_unfit_output
from .progress_panel import ProgressPanel
from .region_of_interest import MoveObserver, note_about_scan, remember_scan, store_scan, style_region
from .result_nodes import VOLUME, find_results, get_referenced_node
from .review_panel import ReviewPanel
from .segmentation_job import SegmentationProgress
from .segmentation_logic import DCAMTSegmentationLogic
from .wall_panel import WallPanel
from .worker_job import JobOutcome


@dataclass
class HandledSettings:
    """The values that the panel last read from the parameter node."""

    volume: VolumeNode | None = None
    channels: tuple[VolumeNode | None, ...] = ()
    output: SegmentationNode | None = None
    show_3d: bool = True


class SegmentationPanel(VTKObservationMixin):
    """Connects the widgets of `DCAMTSegmentation.ui` to a logic, from `start` to `close`.

    Between `exit` and `enter`, and while a scene is closed or imported, the panel is not connected to the parameter
    node: then it shows messages, but reads and changes no settings.
    """

    def __init__(self, ui: Any, logic: DCAMTSegmentationLogic) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._logic = ui, logic
        self._settings: Any = None  # The parameter node while the panel is connected to it.
        self._gui_tag: Any = None
        self._handled = HandledSettings()
        self._entered = False
        self._closed = False
        self._scene_had_no_result = False
        self._click_guard = DoubleClickGuard()
        # The result that arrived while another module was selected, and the function that shows it.
        self._arrived: tuple[SegmentationNode, Callable[[SegmentationNode], None]] | None = None
        self._progress = ProgressPanel(ui, logic.log)
        self._review = ReviewPanel(ui)
        self._models = ModelList(ui.modelComboBox, ui.importModelButton, ui.removeModelButton, self._on_model_chosen)
        self._channels = ChannelSelectors(ui, self._on_channel_chosen)
        self._wall = WallPanel(ui, self._on_measure_wall)
        self._overlay = views.MapOverlay()
        self._edits = EditObserver(self._on_segments_edited, self._compare_segments)
        self._moves = MoveObserver(self._on_region_moved)
        self._signals = [
            (ui.applyButton, "clicked(bool)", self._on_apply),
            (ui.placeRegionButton, "clicked(bool)", self._on_place_region),
            (ui.measureButton, "clicked(bool)", self._on_measure),
            (ui.reportButton, "clicked(bool)", self._on_write_report),
            (ui.regionSelector, "nodeAddedByUser(vtkMRMLNode*)", style_region),
        ]

    def start(self) -> None:
        """Connect the buttons and the parameter node, and observe the scene."""
        for widget, signal, slot in self._signals:
            widget.connect(signal, slot)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_start_close)
        self.addObserver(scene, scene.EndCloseEvent, self._on_scene_replaced)
        self.addObserver(scene, scene.StartImportEvent, self._on_start_import)
        self.addObserver(scene, scene.EndImportEvent, self._on_scene_replaced)
        self.addObserver(scene, scene.NodeAddedEvent, self._on_node_added)
        self.addObserver(scene, scene.NodeRemovedEvent, self._on_node_removed)
        self.addObserver(scene, scene.EndBatchProcessEvent, self._on_batch_ended)
        views.observe_hidden()
        self._connect()

    def close(self) -> None:
        """Disconnect the buttons and the parameter node, remove all observers, and ignore jobs that end later."""
        self._closed = True
        for widget, signal, slot in self._signals:
            widget.disconnect(signal, slot)
        self._signals = []
        self._disconnect()
        self._observe_edits(None)
        self.removeObservers()
        self._overlay.show(None)

    def enter(self) -> None:
        """Connect the parameter node when the module is selected."""
        self._entered = True
        self._connect()

    def exit(self) -> None:
        """Disconnect the parameter node when another module is selected."""
        self._entered = False
        self._disconnect()

    @property
    def _is_connected(self) -> bool:
        return self._settings is not None

    def _on_start_close(self, caller: Any, event: Any) -> None:
        self._logic.cancel()
        self._overlay.show(None)
        self._observe_edits(None)
        self._arrived = None
        self._disconnect()
        self._progress.clear()

    def _on_start_import(self, caller: Any, event: Any) -> None:
        # The parameter node may change during an import, before the nodes to which it refers are in the scene.
        self._disconnect()

    def _on_scene_replaced(self, caller: Any, event: Any) -> None:
        views.observe_hidden()
        if self._entered:
            self._connect()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_added(self, caller: Any, event: Any, node: Node) -> None:
        if not self._is_connected or not node.IsA("vtkMRMLScalarVolumeNode") or slicer.mrmlScene.IsBatchProcessing():
            return
        # The node's image, and the attribute that `is_map` reads, are set only after this event.
        qt.QTimer.singleShot(0, lambda: self._select_new_volume(node))

    def _select_new_volume(self, node: VolumeNode) -> None:
        if not self._is_connected or not slicer.mrmlScene.IsNodePresent(node):
            return
        self._hide_maps()
        if self._settings.inputVolume is None and result_scan.is_listed_scan(node) and node.GetImageData() is not None:
            self._settings.inputVolume = node

    def _on_node_removed(self, caller: Any, event: Any) -> None:
        # A result's map or table may have been removed.
        if not slicer.mrmlScene.IsBatchProcessing():
            self._update()

    def _on_batch_ended(self, caller: Any, event: Any) -> None:
        self._update()

    def _on_segments_edited(self, segmentation_node: SegmentationNode) -> None:
        """Mark the result as corrected and its wall as outdated at once; voxels are compared later."""
        self._wall.show_edit(segmentation_node)
        if find_dcamt_segments(segmentation_node):
            correction_marks.mark_corrected(segmentation_node)
            self._update()

    def _compare_segments(self) -> None:
        segmentation_node = self._edits.node
        if self._closed or self._settings is None or segmentation_node is None:
            return
        correction_marks.update_correction_marks(segmentation_node)
        self._update()
        self._wall.compare_outline()

    def _observe_edits(self, segmentation_node: SegmentationNode | None) -> None:
        if segmentation_node is not self._edits.node:
            self._edits.observe(segmentation_node)
            if segmentation_node is not None:
                correction_marks.update_correction_marks(segmentation_node)

    def _connect(self) -> None:
        self._disconnect()
        self._settings = settings = self._logic.getParameterNode()
        self._hide_maps()
        if settings.inputVolume is None:
            settings.inputVolume = self._logic.firstVolume()
            replace_channels(settings)
            replace_unfit_output(settings)
        self._handled = HandledSettings(
            settings.inputVolume, tuple(settings.channelVolumes), settings.outputSegmentation, settings.show3D
        )
        self._gui_tag = settings.connectParametersToGui(parameter_widgets(self._ui))
        self.addObserver(settings, vtk.vtkCommand.ModifiedEvent, self._on_settings_modified)
        self._models.show(settings.model)
        if self._edits.node is not None and self._edits.node is settings.outputSegmentation:
            correction_marks.update_correction_marks(self._edits.node)
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            segmentation_node, show_result = arrived
            if segmentation_node is settings.outputSegmentation:
                show_result(segmentation_node)
        self._update()
        self._wall.compare_outline()

    def _disconnect(self) -> None:
        if self._is_connected:
            self._settings.disconnectGui(self._gui_tag)
            self.removeObserver(self._settings, vtk.vtkCommand.ModifiedEvent, self._on_settings_modified)
            self._settings = None
            self._moves.observe(None)

    def _hide_maps(self) -> None:
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        hidden = [node.GetID() for node in volumes if is_map(node)]
        self._ui.inputSelector.sortFilterProxyModel().hiddenNodeIDs = hidden
        self._channels.hide_nodes(hidden)

    def _on_settings_modified(self, caller: Any = None, event: Any = None) -> None:
        settings, handled = self._settings, self._handled
        volume_before, channels_before = handled.volume, handled.channels
        if settings.outputSegmentation is not handled.output:
            handled.output = settings.outputSegmentation
            self._on_output_changed(settings)
        if settings.inputVolume is not handled.volume:
            handled.volume = settings.inputVolume
            self._on_input_changed(settings)
        if settings.model != self._models.name:  # A script changed the model.
            self._models.show(settings.model)
        handled.channels = tuple(settings.channelVolumes)
        # Channels that a script set together with the input volume are kept.
        if settings.inputVolume is not volume_before and handled.channels == channels_before:
            replace_channels(settings)
        if settings.show3D != handled.show_3d:
            handled.show_3d = settings.show3D
            if settings.outputSegmentation is not None:
                views.show_in_3d(settings.outputSegmentation, settings.show3D)
        self._update()

    def _on_input_changed(self, settings: Any) -> None:
        if not self._logic.isRunning():
            self._progress.clear()
        if settings.inputVolume is not None:
            views.show_scan(settings.inputVolume)
        replace_unfit_output(settings)
        self._handled.output = settings.outputSegmentation

    def _on_output_changed(self, settings: Any) -> None:
        volume = get_referenced_node(settings.outputSegmentation, VOLUME)
        if not self._logic.isRunning():
            self._progress.clear()
        if volume is None:
            if settings.outputSegmentation is not None:
                views.show_without_scan(settings.outputSegmentation)
            return
        if find_dcamt_segments(settings.outputSegmentation):
            settings.inputVolume = self._handled.volume = volume
        views.show_scan(volume)

    def _update(self) -> None:
        if not self._is_connected:
            return
        settings = self._settings
        segmentation_node = settings.outputSegmentation
        running = self._logic.isRunning()
        self._observe_edits(segmentation_node)
        self._channels.show(self._models.channels, settings.channelVolumes)
        missing = ""
        if settings.inputVolume is None:
            missing = _("Choose a volume first.")
        elif not settings.model:
            missing = _("Choose a model first.")
        elif not self._channels.are_chosen:
            missing = _("Choose a volume for each channel first.")
        self._progress.show_running(running, missing)
        self._review.show(segmentation_node)
        self._wall.show(segmentation_node, settings.inputVolume is not None and not running)
        self._ui.measureButton.enabled = self._review.has_measurements and not running
        # A report can be written whenever a wall can be measured.
        self._ui.reportButton.enabled = self._wall.can_measure
        self._ui.placeRegionButton.enabled = settings.inputVolume is not None
        self._moves.observe(settings.region)
        remember_scan(settings.region, settings.inputVolume)
        self._show_region_note()
        doubt_map = doubt_map_of(segmentation_node)
        self._overlay.show(doubt_map if settings.showDisagreement else None, segmentation_node)

    def _show_region_note(self) -> None:
        self._ui.regionNoteLabel.text = note_about_scan(self._settings.region, self._settings.inputVolume)
        self._ui.regionNoteLabel.visible = bool(self._ui.regionNoteLabel.text)

    def _on_region_moved(self) -> None:
        # The user placed the region on the input volume, which the slice views show.
        if self._settings.inputVolume is not None:
            store_scan(self._moves.region, self._settings.inputVolume)
            self._show_region_note()

    def _on_model_chosen(self, name: str) -> None:
        if self._is_connected:
            choose_model(self._settings, name)
        if not self._logic.isRunning():
            self._progress.clear()

    def _on_channel_chosen(self, volumes: list[VolumeNode | None]) -> None:
        if self._is_connected:
            self._settings.channelVolumes = volumes

    def _on_place_region(self, checked: bool = False) -> None:
        settings = self._settings
        try:
            region = self._logic.placeRegion(settings.inputVolume, settings.outputSegmentation, settings.region)
        except DCAMTError as error:
            self._show_error(error_text(error), error.detail)
        else:
            settings.region = region
            # Hide the note about another scan, if any.
            self._update()

    def _on_apply(self, checked: bool = False) -> None:
        if self._click_guard.is_repeated():
            return
        if self._logic.isRunning():
            self._logic.cancel()
        else:
            self._apply()
        self._click_guard.record()

    def _apply(self) -> None:
        settings = self._settings
        output = settings.outputSegmentation
        if output is not None and not confirm_replacing(output, settings.inputVolume):
            return
        self._scene_had_no_result = not find_results()
        self._start_job(
            lambda: self._logic.apply(settings, self._on_progress, self._on_segmented), _("Starting"), settings.model
        )

    def _on_measure(self, checked: bool = False) -> None:
        segmentation_node = self._settings.outputSegmentation
        self._start_job(lambda: self._logic.measure(segmentation_node, self._end_job), _("Measuring"))

    def _on_measure_wall(self, segment: str) -> None:
        settings = self._settings
        volume, segmentation_node, threshold = settings.inputVolume, settings.outputSegmentation, self._wall.threshold()
        self._start_job(
            lambda: self._logic.measureWall(volume, segmentation_node, segment, self._on_wall_measured, threshold),
            _("Measuring the wall"),
        )

    def _on_write_report(self, checked: bool = False) -> None:
        volume, segmentation_node = self._settings.inputVolume, self._settings.outputSegmentation
        report = choose_report_file(volume)
        if report is None:
            return
        segment = self._wall.chosen_segment()
        self._start_job(
            lambda: self._logic.writeReport(volume, segmentation_node, segment, report, self._end_job),
            _("Writing the report"),
        )

    def _start_job(self, start: Callable[[], None], stage: str, model: str | None = None) -> None:
        # The user first accepts the terms of use of `model`, if it has any.
        settings = self._settings
        try:
            if model is not None:
                confirm_terms(model)
            chosen = settings.inputVolume, settings.outputSegmentation
            self._logic.ensurePackages()
            if (settings.inputVolume, settings.outputSegmentation) != chosen:
                what = _("During the installation, the volume or the segmentation was removed or exchanged")
                raise InputError(what, remedy=_("Choose the volume and the segmentation, and try again."))
            start()
        except (InstallationDeclined, TermsDeclinedError) as error:
            self._progress.show_message(error_text(error))
        except DCAMTError as error:
            self._show_error(error_text(error), error.detail)
        except Exception as error:
            self._show_error(error_text(error), traceback.format_exc())
        else:
            self._on_progress(SegmentationProgress(stage, 0.0))
        self._update()

    def _on_progress(self, progress: SegmentationProgress) -> None:
        if not self._closed:
            self._progress.show_progress(progress)

    def _on_segmented(self, outcome: JobOutcome) -> None:
        self._end_job(outcome, self._show_result)
        if outcome.segmentation is not None and not self._closed:
            # Meanwhile, the user may have selected another scan, or another module.
            views.hide_over_other_scan(outcome.segmentation)

    def _on_wall_measured(self, outcome: JobOutcome) -> None:
        self._end_job(outcome, self._show_measured_wall)
        if outcome.segmentation is not None and not self._closed:
            views.hide_wall_over_other_scan(outcome.segmentation)

    def _end_job(self, outcome: JobOutcome, show_result: Callable[[SegmentationNode], None] | None = None) -> None:
        if self._closed:
            return
        self._click_guard.record()
        self._update()
        segmentation_node = outcome.segmentation
        if segmentation_node is not None and show_result is not None:
            if not self._is_connected:
                self._arrived = segmentation_node, show_result
            elif segmentation_node is self._settings.outputSegmentation:
                show_result(segmentation_node)
        self._progress.show_outcome(outcome)
        if outcome.failed:
            self._show_error(outcome.message, outcome.detail)

    def _show_measured_wall(self, segmentation_node: SegmentationNode) -> None:
        # The segment's own surface would cover the wall.
        self._settings.show3D = False
        self._wall.reload()

    def _show_result(self, segmentation_node: SegmentationNode) -> None:
        volume = get_referenced_node(segmentation_node, VOLUME)
        if volume is not None:
            views.show_scan(volume)
        # The user may have hidden the earlier result in this node, and a script may have removed its display node.
        segmentation_node.CreateDefaultDisplayNodes()
        segmentation_node.GetDisplayNode().SetVisibility(True)
        show_hidden_segments(segmentation_node, find_dcamt_segments(segmentation_node))
        if self._scene_had_no_result and self._settings.show3D:
            views.centre_3d_views()
        for name in ("inputsCollapsibleButton", "outputCollapsibleButton", "optionsCollapsibleButton"):
            getattr(self._ui, name).collapsed = True
        self._ui.reviewCollapsibleButton.collapsed = False

    def _show_error(self, message: str, detail: str) -> None:
        self._progress.show_message(message)
        display_error(message, _("DCAMT Segmentation"), detailedText=detail)
