"""Slicer module: outline the left atrium in an MRI volume, and say where to doubt. A process of its own computes."""
# Slicer calls methods by their Qt-style names, and this file keeps to them throughout.
# ruff: noqa: N802

from __future__ import annotations

import traceback
from typing import Any

import slicer
import vtk
from dcamt.errors import DCAMTError
from DCAMTSegmentationLib import review
from DCAMTSegmentationLib.disagreement_map import Overlay
from DCAMTSegmentationLib.model_list import ModelList
from DCAMTSegmentationLib.review_panel import ReviewPanel
from DCAMTSegmentationLib.run_panel import RunPanel
from DCAMTSegmentationLib.sample_scan import register_sample_scan, sample_path
from DCAMTSegmentationLib.segmentation_job import SegmentationProgress
from DCAMTSegmentationLib.segmentation_logic import DCAMTSegmentationLogic
from DCAMTSegmentationLib.worker_job import JobResult
from DCAMTSlicerLib.parameter_widgets import parameter_widgets
from DCAMTSlicerLib.result_segments import own_segments
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class DCAMTSegmentation(ScriptedLoadableModule):
    """What the module list shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DCAMT Segmentation")
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = []
        self.parent.contributors = ["DCAMT contributors"]
        self.parent.helpText = _(
            "Outlines the left atrium in late gadolinium-enhanced MRI of the heart, measures it, and shows where not to"
            " trust the outline. Choose a volume and press Apply; Slicer stays usable meanwhile. Then look at the"
            " doubtful places, correct what is wrong in Segment Editor and, if you like, add the case to those that the"
            " DCAMT Training module learns from. Nothing leaves this computer. For research use only, not for diagnosis"
            ' or treatment. See the <a href="https://github.com/DCAMT/SlicerDCAMT">tutorial</a>.'
        )
        self.parent.acknowledgementText = _(
            "The method is dual cross-attentive mutual teaching (Ma, PLoS ONE 21(6): e0352358, 2026). The"
            " shipped model learnt from the 2018 Left Atrial Segmentation Challenge's scans, University of"
            " Utah (Xiong et al., Medical Image Analysis 67: 101832, 2021), as processed by Yu et al."
            " (MICCAI 2019)."
        )
        slicer.app.connect("startupCompleted()", register_sample_scan)


class DCAMTSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: hands what the person does to the logic, and shows what comes of it."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.ui: Any = None
        self._settings: Any = None
        self._guiTag: Any = None
        self._shownVolume: Any = None
        self._shown3D = True
        self._observed: Any = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/DCAMTSegmentation.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = DCAMTSegmentationLogic()
        self._run = RunPanel(self.ui, self.logic.log)
        self._review = ReviewPanel(self.ui)
        self._models = ModelList(
            self.ui.modelComboBox, self.ui.importModelButton, self.ui.removeModelButton, self.onModelChosen
        )
        self._overlay = Overlay()
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.placeRegionButton.connect("clicked(bool)", self.onPlaceRegion)
        self.ui.measureButton.connect("clicked(bool)", self.onMeasure)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)
        self._connectSettings()

    def cleanup(self) -> None:
        self._disconnectSettings()
        self.removeObservers()
        self._overlay.show(None)
        # The cancelled segmentation still reports its end, when the panel is gone.
        self.ui = None
        self.logic.shutdown()

    def enter(self) -> None:
        self._connectSettings()

    def exit(self) -> None:
        self._disconnectSettings()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.logic.cancel()
        self._overlay.show(None)
        self._observe(None)
        self._disconnectSettings()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self._connectSettings()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self._connectSettings()

    def onNodeRemoved(self, caller: Any, event: Any) -> None:
        # A result's map or table may be gone.
        if self._settings is not None and not slicer.mrmlScene.IsBatchProcessing():
            self._update()

    def onSegmentEdited(self, caller: Any, event: Any) -> None:
        if own_segments(caller):
            review.mark_corrected(caller)
            if self._settings is not None:
                self._update()

    def _observe(self, segmentation: Any) -> None:
        """Notice when a result is corrected, in Segment Editor or elsewhere."""
        if segmentation is self._observed:
            return
        edited = slicer.vtkSegmentation.SourceRepresentationModified
        if self._observed is not None:
            self.removeObserver(self._observed, edited, self.onSegmentEdited)
        self._observed = segmentation
        if segmentation is not None:
            self.addObserver(segmentation, edited, self.onSegmentEdited)
            review.notice_correction(segmentation)

    def _connectSettings(self) -> None:
        self._disconnectSettings()
        self._settings = self.logic.getParameterNode()
        if self._settings.inputVolume is None:
            self._settings.inputVolume = self.logic.firstVolume()
        self._shownVolume, self._shown3D = self._settings.inputVolume, self._settings.show3D
        self._guiTag = self._settings.connectParametersToGui(parameter_widgets(self.ui))
        self.addObserver(self._settings, vtk.vtkCommand.ModifiedEvent, self.onSettingsModified)
        self._models.show(self._settings.model)
        self._update()

    def _disconnectSettings(self) -> None:
        if self._settings is not None:
            self._settings.disconnectGui(self._guiTag)
            self.removeObserver(self._settings, vtk.vtkCommand.ModifiedEvent, self.onSettingsModified)
            self._settings = None

    def onSettingsModified(self, caller: Any = None, event: Any = None) -> None:
        settings = self._settings
        if settings.inputVolume is not self._shownVolume:
            self._shownVolume = settings.inputVolume
            # One volume's result must not be written over another's; what the person drew stays chosen.
            if not review.is_open_to(settings.outputSegmentation, settings.inputVolume):
                settings.outputSegmentation = review.result_of(settings.inputVolume)
        if settings.show3D != self._shown3D:
            self._shown3D = settings.show3D
            if settings.outputSegmentation is not None:
                review.show_in_3d(settings.outputSegmentation, settings.show3D)
        self._update()

    def _update(self) -> None:
        settings = self._settings
        segmentation = settings.outputSegmentation
        self._observe(segmentation)
        self._run.showRunning(self.logic.isRunning(), settings.inputVolume is not None)
        self._review.show(segmentation)
        self.ui.measureButton.enabled = self.ui.exportButton.enabled and not self.logic.isRunning()
        self.ui.placeRegionButton.enabled = settings.inputVolume is not None
        map_ = review.referenced(segmentation, review.DISAGREEMENT)
        self._overlay.show(map_ if settings.showDisagreement else None)

    def onModelChosen(self, name: str) -> None:
        self._settings.model = name

    def onPlaceRegion(self, checked: bool = False) -> None:
        settings = self._settings
        settings.region = self.logic.placeRegion(settings.inputVolume, settings.outputSegmentation, settings.region)

    def onApply(self, checked: bool = False) -> None:
        if self.logic.isRunning():
            self.logic.cancel()
            return
        settings = self._settings
        if review.is_corrected(settings.outputSegmentation):
            question = _("“{name}” may hold corrections. Replace DCAMT's segments in it?")
            name = settings.outputSegmentation.GetName()
            if not slicer.util.confirmOkCancelDisplay(question.format(name=name), _("Replace a corrected result")):
                return
        try:
            self.logic.ensurePackages()
            self.logic.apply(settings, self.onProgress, self.onFinished)
        except Exception as error:
            self._showError(str(error), "" if isinstance(error, DCAMTError) else traceback.format_exc())
        else:
            self.onProgress(SegmentationProgress(_("Starting"), 0.0))
        self._update()

    def onMeasure(self, checked: bool = False) -> None:
        try:
            self.logic.measure(self._settings.outputSegmentation, self.onFinished)
        except Exception as error:
            self._showError(str(error), "" if isinstance(error, DCAMTError) else traceback.format_exc())
        else:
            self.onProgress(SegmentationProgress(_("Measuring"), 0.0))
        self._update()

    def onProgress(self, progress: SegmentationProgress) -> None:
        if self.ui is not None:
            self._run.showProgress(progress)

    def onFinished(self, result: JobResult) -> None:
        if self.ui is None:
            return
        self._run.showResult(result)
        if self._settings is not None:
            self._update()
        if result.segmentation is None and not result.cancelled:
            self._showError(result.message, result.detail)

    def _showError(self, message: str, detail: str) -> None:
        self._run.showMessage(message)
        slicer.util.errorDisplay(message, windowTitle=_("DCAMT Segmentation"), detailedText=detail)


class DCAMTSegmentationTest(ScriptedLoadableModuleTest):
    """The self-test behind "Reload and Test": the sample scan, the shipped model, the whole way."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_sample_scan()

    def test_sample_scan(self) -> None:
        self.delayDisplay("Segmenting the sample scan")
        volume = slicer.util.loadVolume(str(sample_path()))
        logic = DCAMTSegmentationLogic()
        try:
            logic.ensurePackages()
            segmentation = logic.process(volume, quality="fast")
        finally:
            logic.shutdown()
        (row,) = logic.measurements(segmentation)
        # The left atrium that the sample was drawn with holds 50.9 mL.
        assert abs(float(row["volume_ml"]) / 50.9 - 1) < 0.2
        self.delayDisplay("Test passed")
