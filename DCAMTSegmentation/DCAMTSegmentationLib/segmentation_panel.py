"""Run the panel of the segmentation module: pass the user's choices to the logic, and show its results."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from dcamt.errors import DCAMTError
from DCAMTSlicerLib.installation import InstallationDeclined
from DCAMTSlicerLib.parameter_widgets import parameter_widgets
from DCAMTSlicerLib.result_segments import own_segments
from DCAMTSlicerLib.stepped_task import error_text
from DCAMTSlicerLib.terms_of_use import TermsDeclinedError, confirm_terms
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from . import review, views
from .channel_selectors import ChannelSelectors
from .model_list import ModelList
from .region_of_interest import style_region
from .review_panel import ReviewPanel
from .run_panel import ProgressPanel
from .segmentation_job import SegmentationProgress
from .segmentation_logic import DCAMTSegmentationLogic
from .wall_panel import WallPanel
from .worker_job import JobOutcome


class SegmentationPanel(VTKObservationMixin):
    """Connects the widgets of `DCAMTSegmentation.ui` to a logic in `start`, and disconnects them in `close`."""

    def __init__(self, ui: Any, logic: DCAMTSegmentationLogic) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._logic = ui, logic
        self._settings: Any = None
        self._gui_tag: Any = None
        self._shown_volume: Any = None
        self._shown_output: Any = None
        self._shown_3d = True
        self._observed: Any = None
        self._observer = 0
        self._entered = False
        self._closed = False
        self._is_first = False

    def start(self) -> None:
        """Connect the widgets, and observe the scene."""
        ui = self._ui
        self._run = ProgressPanel(ui, self._logic.log)
        self._review = ReviewPanel(ui)
        self._models = ModelList(ui.modelComboBox, ui.importModelButton, ui.removeModelButton, self._on_model_chosen)
        self._channels = ChannelSelectors(ui, self._on_channel_chosen)
        self._wall = WallPanel(ui, self._on_measure_wall)
        self._overlay = views.MapOverlay()
        ui.applyButton.connect("clicked(bool)", self._on_apply)
        ui.placeRegionButton.connect("clicked(bool)", self._on_place_region)
        ui.measureButton.connect("clicked(bool)", self._on_measure)
        ui.reportButton.connect("clicked(bool)", self._on_write_page)
        ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", style_region)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_start_close)
        self.addObserver(scene, scene.EndCloseEvent, self._on_scene_replaced)
        self.addObserver(scene, scene.StartImportEvent, self._on_start_import)
        self.addObserver(scene, scene.EndImportEvent, self._on_scene_replaced)
        self.addObserver(scene, scene.NodeAddedEvent, self._on_node_added)
        self.addObserver(scene, scene.NodeRemovedEvent, self._on_node_removed)
        self._connect()

    def close(self) -> None:
        """Disconnect everything; the end of a running segmentation is still reported."""
        self._closed = True
        self._disconnect()
        self._observe(None)
        self.removeObservers()
        self._overlay.show(None)

    def enter(self) -> None:
        """Observe the scene again when the module is selected."""
        self._entered = True
        self._connect()

    def exit(self) -> None:
        """Stop observing the scene when another module is selected."""
        self._entered = False
        self._disconnect()

    def _on_start_close(self, caller: Any, event: Any) -> None:
        self._logic.cancel()
        self._overlay.show(None)
        self._observe(None)
        self._disconnect()
        self._run.clear()

    def _on_start_import(self, caller: Any, event: Any) -> None:
        # Parameter nodes report changes in the midst of an import, when their node references cannot be resolved yet.
        self._disconnect()

    def _on_scene_replaced(self, caller: Any, event: Any) -> None:
        if self._entered:
            self._connect()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_added(self, caller: Any, event: Any, node: Any) -> None:
        if self._settings is None or not node.IsA("vtkMRMLScalarVolumeNode") or slicer.mrmlScene.IsBatchProcessing():
            return
        # Its image, and the mark of a map, are set only afterwards.
        qt.QTimer.singleShot(0, lambda: self._take_new_volume(node))

    def _take_new_volume(self, node: Any) -> None:
        """Select a loaded volume if none is selected."""
        if self._settings is None or not slicer.mrmlScene.IsNodePresent(node):
            return
        self._hide_maps()
        if self._settings.inputVolume is None and review.is_scalar_image(node) and node.GetImageData() is not None:
            self._settings.inputVolume = node

    def _on_node_removed(self, caller: Any, event: Any) -> None:
        # A result's map or table may have been removed.
        if self._settings is not None and not slicer.mrmlScene.IsBatchProcessing():
            self._update()

    def _on_segment_edited(self, caller: Any, event: Any) -> None:
        self._wall.show_edit(caller)
        if own_segments(caller):
            review.mark_corrected(caller)
            if self._settings is not None:
                self._update()

    def _observe(self, segmentation: Any) -> None:
        """Observe whether a result is edited, in Segment Editor or elsewhere."""
        if segmentation is self._observed:
            return
        # Without the mixin, which would keep every node that it has observed.
        if self._observed is not None:
            self._observed.RemoveObserver(self._observer)
        self._observed = segmentation
        if segmentation is not None:
            edited = slicer.vtkSegmentation.SourceRepresentationModified
            self._observer = segmentation.AddObserver(edited, self._on_segment_edited)
            review.update_correction_marks(segmentation)

    def _connect(self) -> None:
        self._disconnect()
        self._settings = self._logic.getParameterNode()
        self._hide_maps()
        if self._settings.inputVolume is None:
            self._settings.inputVolume = self._logic.firstVolume()
        self._shown_volume, self._shown_3d = self._settings.inputVolume, self._settings.show3D
        self._shown_output = self._settings.outputSegmentation
        self._gui_tag = self._settings.connectParametersToGui(parameter_widgets(self._ui))
        self.addObserver(self._settings, vtk.vtkCommand.ModifiedEvent, self._on_settings_modified)
        self._models.show(self._settings.model)
        if self._observed is not None and self._observed is self._settings.outputSegmentation:
            # Undo and redo in Segment Editor send no event.
            review.update_correction_marks(self._observed)
        self._update()
        self._wall.compare_outline()

    def _disconnect(self) -> None:
        if self._settings is not None:
            self._settings.disconnectGui(self._gui_tag)
            self.removeObserver(self._settings, vtk.vtkCommand.ModifiedEvent, self._on_settings_modified)
            self._settings = None

    def _hide_maps(self) -> None:
        """Hide maps from the list of volumes, since a map would become the input when its scan is deleted."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        hidden = [node.GetID() for node in volumes if review.is_map(node)]
        self._ui.inputSelector.sortFilterProxyModel().hiddenNodeIDs = hidden
        self._channels.hide_nodes(hidden)

    def _on_settings_modified(self, caller: Any = None, event: Any = None) -> None:
        settings = self._settings
        if settings.outputSegmentation is not self._shown_output:
            self._shown_output = settings.outputSegmentation
            self._follow_output(settings)
        if settings.inputVolume is not self._shown_volume:
            self._shown_volume = settings.inputVolume
            self._follow_volume(settings)
        if settings.show3D != self._shown_3d:
            self._shown_3d = settings.show3D
            if settings.outputSegmentation is not None:
                review.show_in_3d(settings.outputSegmentation, settings.show3D)
        self._update()

    def _follow_volume(self, settings: Any) -> None:
        """Show the selected volume with its own result, and no values of another volume."""
        if not self._logic.isRunning():
            self._run.clear()
        if settings.inputVolume is not None:
            views.show_scan(settings.inputVolume)
        # A result must not replace that of another volume; a segmentation that the user drew stays selected.
        if not review.can_hold_result_of(settings.outputSegmentation, settings.inputVolume):
            settings.outputSegmentation = review.result_of(settings.inputVolume)
            self._shown_output = settings.outputSegmentation

    def _follow_output(self, settings: Any) -> None:
        """Show the scan of a selected result, and make it the input."""
        volume = review.referenced(settings.outputSegmentation, review.VOLUME)
        if not self._logic.isRunning():
            self._run.clear()
        if volume is None:
            return
        if own_segments(settings.outputSegmentation):
            settings.inputVolume = self._shown_volume = volume
        views.show_scan(volume)

    def _update(self) -> None:
        settings = self._settings
        segmentation = settings.outputSegmentation
        running = self._logic.isRunning()
        self._observe(segmentation)
        self._channels.show(self._models.channels, settings.channelVolumes)
        missing = "" if self._channels.are_chosen else _("Choose a volume for each channel first.")
        self._run.show_running(running, missing if settings.inputVolume is not None else _("Choose a volume first."))
        self._review.show(segmentation)
        self._wall.show(segmentation, settings.inputVolume is not None and not running)
        self._ui.measureButton.enabled = self._ui.exportButton.enabled and not running
        self._ui.reportButton.enabled = self._ui.wallMeasureButton.enabled
        self._ui.placeRegionButton.enabled = settings.inputVolume is not None
        map_ = review.referenced(segmentation, review.DISAGREEMENT)
        self._overlay.show(map_ if settings.showDisagreement else None, segmentation)

    def _on_model_chosen(self, name: str) -> None:
        self._settings.model = name
        if not self._logic.isRunning():
            self._run.clear()

    def _on_channel_chosen(self, volumes: list[Any]) -> None:
        if self._settings is not None:
            self._settings.channelVolumes = volumes

    def _on_place_region(self, checked: bool = False) -> None:
        settings = self._settings
        settings.region = self._logic.placeRegion(settings.inputVolume, settings.outputSegmentation, settings.region)

    def _on_apply(self, checked: bool = False) -> None:
        if self._logic.isRunning():
            self._logic.cancel()
            return
        settings = self._settings
        if settings.outputSegmentation is not None:
            review.update_correction_marks(settings.outputSegmentation)
        if review.is_corrected(settings.outputSegmentation):
            question = _("“{name}” may hold corrections. Replace DCAMT's segments in it?")
            name = settings.outputSegmentation.GetName()
            if not slicer.util.confirmOkCancelDisplay(question.format(name=name), _("Replace a corrected result")):
                return
        self._attempt(self._start_segmentation, _("Starting"))

    def _start_segmentation(self) -> None:
        confirm_terms(self._settings.model)
        self._logic.ensurePackages()
        self._is_first = not review.results()
        self._logic.apply(self._settings, self._on_progress, self._on_finished)

    def _on_measure(self, checked: bool = False) -> None:
        segmentation = self._settings.outputSegmentation

        def start() -> None:
            self._logic.ensurePackages()
            self._logic.measure(segmentation, self._on_finished)

        self._attempt(start, _("Measuring"))

    def _on_measure_wall(self, segment: str) -> None:
        settings = self._settings
        volume, segmentation = settings.inputVolume, settings.outputSegmentation

        def start() -> None:
            self._logic.ensurePackages()
            self._logic.measureWall(volume, segmentation, segment, self._on_wall_measured)

        self._attempt(start, _("Measuring the wall"))

    def _on_write_page(self, checked: bool = False) -> None:
        """Write the one-page report of the segmentation to a file chosen by the user."""
        settings, title = self._settings, _("Write the report")
        volume, segmentation = settings.inputVolume, settings.outputSegmentation
        name = _("{volume} report").format(volume=volume.GetName())
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, f"{name}.html", "HTML (*.html)")
        if not path:
            return
        page = Path(path if path.lower().endswith((".html", ".htm")) else f"{path}.html")
        question = _("“{file}” exists. Replace it?").format(file=page)
        # The file dialog does not ask about a file whose name it was not given.
        if page != Path(path) and page.exists() and not slicer.util.confirmOkCancelDisplay(question, title):
            return
        segment = self._wall.chosen_segment()

        def start() -> None:
            self._logic.ensurePackages()
            self._logic.writePage(volume, segmentation, segment, page, self._on_page_written)

        self._attempt(start, _("Writing the report"))

    def _on_page_written(self, outcome: JobOutcome) -> None:
        if self._closed:
            return
        if self._settings is not None:
            self._update()
        self._run.show_outcome(outcome)
        if outcome.segmentation is None and not outcome.cancelled:
            self._show_error(outcome.message, outcome.detail)

    def _on_wall_measured(self, outcome: JobOutcome) -> None:
        if self._closed:
            return
        if self._settings is not None:
            if outcome.segmentation is not None:
                # The segment's own surface would cover the wall.
                self._settings.show3D = False
            self._update()
            self._wall.reload()
        self._run.show_outcome(outcome)
        if outcome.segmentation is None and not outcome.cancelled:
            self._show_error(outcome.message, outcome.detail)

    def _attempt(self, start: Any, stage: str) -> None:
        """Start a job and show its first stage; if it cannot start, show the reason."""
        try:
            start()
        except (InstallationDeclined, TermsDeclinedError) as error:
            self._run.show_message(error_text(error))
        except DCAMTError as error:
            self._show_error(error_text(error), getattr(error, "detail", ""))
        except Exception as error:
            self._show_error(str(error), traceback.format_exc())
        else:
            self._on_progress(SegmentationProgress(stage, 0.0))
        self._update()

    def _on_progress(self, progress: SegmentationProgress) -> None:
        if not self._closed:
            self._run.show_progress(progress)

    def _on_finished(self, outcome: JobOutcome) -> None:
        if self._closed:
            return
        if self._settings is not None:
            self._update()
            if outcome.segmentation is self._settings.outputSegmentation and outcome.segmentation is not None:
                self._show_result(outcome.segmentation)
        self._run.show_outcome(outcome)
        if outcome.segmentation is None and not outcome.cancelled:
            self._show_error(outcome.message, outcome.detail)

    def _show_result(self, segmentation: Any) -> None:
        """Show a new result in the views, and make room for it in the panel."""
        volume = review.referenced(segmentation, review.VOLUME)
        if volume is not None:
            views.show_scan(volume)
        if self._is_first and self._settings.show3D:
            views.centre_3d_views()
        for name in ("inputsCollapsibleButton", "outputCollapsibleButton", "optionsCollapsibleButton"):
            getattr(self._ui, name).collapsed = True
        self._ui.reviewCollapsibleButton.collapsed = False

    def _show_error(self, message: str, detail: str) -> None:
        self._run.show_message(message)
        slicer.util.errorDisplay(message, windowTitle=_("DCAMT Segmentation"), detailedText=detail)
