"""Slicer module: outline the left atrium in an MRI volume, and say where to doubt. A process of its own computes."""
# Slicer calls methods by their Qt-style names, and this file keeps to them throughout.
# ruff: noqa: N802, N803

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from DCAMTLib.errors import DCAMTError
from DCAMTSlicerLib import installation, measurements_table, region_of_interest, review, training_cases
from DCAMTSlicerLib.disagreement_map import Overlay
from DCAMTSlicerLib.measuring_job import MeasuringJob
from DCAMTSlicerLib.model_list import ModelList
from DCAMTSlicerLib.review_panel import ReviewPanel
from DCAMTSlicerLib.run_panel import RunPanel
from DCAMTSlicerLib.sample_scan import register_sample_scan, sample_path
from DCAMTSlicerLib.segmentation_job import Progress, Request, SegmentationJob
from DCAMTSlicerLib.segmentation_log import SegmentationLog
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings
from DCAMTSlicerLib.worker_job import Outcome, WorkerJob
from DCAMTSlicerLib.worker_process import WorkerProcess
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

OnProgress = Callable[[Progress], None]
OnFinished = Callable[[Outcome], None]


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
        self._disconnectSettings()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self._connectSettings()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self._connectSettings()

    def _connectSettings(self) -> None:
        self._disconnectSettings()
        self._settings = self.logic.getParameterNode()
        if self._settings.inputVolume is None:
            self._settings.inputVolume = self.logic.firstVolume()
        self._shownVolume, self._shown3D = self._settings.inputVolume, self._settings.show3D
        self._guiTag = self._settings.connectGui(self.ui)
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
            self.onProgress(Progress(_("Starting"), 0.0))
        self._update()

    def onMeasure(self, checked: bool = False) -> None:
        try:
            self.logic.measure(self._settings.outputSegmentation, self.onFinished)
        except Exception as error:
            self._showError(str(error), "" if isinstance(error, DCAMTError) else traceback.format_exc())
        else:
            self.onProgress(Progress(_("Measuring"), 0.0))
        self._update()

    def onProgress(self, progress: Progress) -> None:
        if self.ui is not None:
            self._run.showProgress(progress)

    def onFinished(self, outcome: Outcome) -> None:
        if self.ui is None:
            return
        self._run.showOutcome(outcome)
        if self._settings is not None:
            self._update()
        if outcome.segmentation is None and not outcome.cancelled:
            self._showError(outcome.message, outcome.detail)

    def _showError(self, message: str, detail: str) -> None:
        self._run.showMessage(message)
        slicer.util.errorDisplay(message, windowTitle=_("DCAMT Segmentation"), detailedText=detail)


class DCAMTSegmentationLogic(ScriptedLoadableModuleLogic):
    """Segments one volume after the other in a process of its own; needs no widget.

    In a script, `process` waits for each result, and Slicer stays usable meanwhile:

    >>> from pathlib import Path
    >>> from DCAMTSegmentation import DCAMTSegmentationLogic
    >>> scans, results = Path("/data/scans"), Path("/data/results")
    >>> volumes = [slicer.util.loadVolume(str(path)) for path in sorted(scans.glob("*.nrrd"))]
    >>> logic = DCAMTSegmentationLogic()
    >>> for volume in volumes:
    ...     segmentation = logic.process(volume, quality="accurate", show_3d=False)
    ...     saved = slicer.util.saveNode(segmentation, str(results / f"{volume.GetName()}.seg.nrrd"))
    ...     logic.exportMeasurements(segmentation, results / f"{volume.GetName()}.csv")
    >>> logic.shutdown()

    `segment` returns at once and calls back; `cancel` stops it. The rest is about a result: `segmentation` is the node
    that came out.
    """

    def __init__(self, worker: Any = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._worker = worker or WorkerProcess(temporaryFolder=slicer.app.temporaryPath)
        self._job: WorkerJob | None = None
        self._log = SegmentationLog()
        slicer.app.connect("aboutToQuit()", self.shutdown)

    def getParameterNode(self) -> Any:
        # The decorator gives the class its constructor.
        return SegmentationSettings(super().getParameterNode())  # type: ignore[call-arg]

    def firstVolume(self) -> Any | None:
        """The scene's first volume that is a scan rather than a result's map."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        scans = [node for node in volumes if node.GetClassName() == "vtkMRMLScalarVolumeNode"]
        return next((node for node in scans if not review.is_map(node)), None)

    def ensurePackages(self) -> None:
        """Install what is missing after one question; raises NotInstalledError if it cannot be or must not be."""
        installation.ensure_packages()

    def isRunning(self) -> bool:
        return self._job is not None and self._job.running

    def log(self) -> str:
        """What happened, the newest last, with what the process itself wrote."""
        return "\n\n".join(text for text in (self._log.text(), self._worker.log()) if text)

    def segment(
        self,
        volume: Any,
        onProgress: OnProgress | None = None,
        onFinished: OnFinished | None = None,
        **choices: Any,
    ) -> None:
        """Start segmenting a volume node, and return at once.

        `choices`: see `segmentation_job.Request` (target, region, show_3d, model, quality, device).
        `onProgress` hears how far it is; `onFinished` is called once, with the segmentation node or, after a failure or
        `cancel`, with the reason, and then the scene is as it was.

        Raises:
            RuntimeError: a segmentation is under way.
            DCAMTError: the volume or the region cannot be used, or there is no room to hand the volume over.
        """
        if self.isRunning():
            raise RuntimeError(_("A segmentation is under way."))
        request = Request(volume, **choices)

        def progressed(progress: Progress) -> None:
            self._log.stage(progress.stage)
            if onProgress:
                onProgress(progress)

        def finished(outcome: Outcome) -> None:
            for line in (outcome.message, *outcome.notes, outcome.detail):
                if line:
                    self._log.add(line)
            if onFinished:
                onFinished(outcome)

        started = _("{volume}, model {model}, {quality}").format(
            volume=volume.GetName(), model=request.model, quality=request.quality
        )
        self._log.add(started)
        self._job = SegmentationJob(self._worker, request, progressed, finished)

    def apply(self, settings: Any, onProgress: OnProgress | None = None, onFinished: OnFinished | None = None) -> None:
        """Segment as the parameter node says; the result becomes its output, if its volume is still the input."""
        volume = settings.inputVolume

        def finished(outcome: Outcome) -> None:
            if outcome.segmentation is not None and settings.inputVolume is volume:
                settings.outputSegmentation = outcome.segmentation
            if onFinished:
                onFinished(outcome)

        self.segment(
            volume,
            onProgress,
            finished,
            target=settings.outputSegmentation,
            region=settings.region,
            show_3d=settings.show3D,
            model=settings.model,
            quality=settings.quality.value,
            device=settings.device.value,
        )

    def process(self, volume: Any, **choices: Any) -> Any:
        """Segment a volume node and return the segmentation node; `choices` as for `segment`.

        Raises:
            RuntimeError: there is no result, and why.
        """
        outcomes: list[Outcome] = []
        self.segment(volume, onFinished=outcomes.append, **choices)
        while not outcomes:
            slicer.app.processEvents()
            qt.QThread.msleep(5)
        if outcomes[0].segmentation is None:
            raise RuntimeError(outcomes[0].message)
        return outcomes[0].segmentation

    def measure(self, segmentation: Any, onFinished: OnFinished | None = None) -> None:
        """Start measuring a result's segments as they are now, after a correction; `onFinished` is called once.

        Raises:
            RuntimeError: a segmentation is under way.
            OutputError: there is no room to hand the segments over.
        """
        if self.isRunning():
            raise RuntimeError(_("A segmentation is under way."))
        self._job = MeasuringJob(self._worker, segmentation, onFinished or (lambda outcome: None))

    def cancel(self) -> None:
        """Stop the segmentation, if there is one, at once; `onFinished` hears of it."""
        if self._job is not None:
            self._job.cancel()

    def shutdown(self) -> None:
        """Stop, end the process and remove its files; Slicer calls it as it ends."""
        slicer.app.disconnect("aboutToQuit()", self.shutdown)
        self.cancel()
        self._worker.shutdown()

    def placeRegion(self, volume: Any, segmentation: Any = None, region: Any = None) -> Any:
        """Put a Markups ROI, a new one without `region`, around the result or about the volume's middle."""
        if region is None:
            region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", _("Heart region"))
            region.CreateDefaultDisplayNodes()
        region_of_interest.place_region(region, volume, segmentation)
        return region

    def measurements(self, segmentation: Any) -> list[dict[str, str]]:
        """A result's measurements, one mapping of column to text a segment; empty without a result."""
        table = review.referenced(segmentation, review.MEASUREMENTS)
        return measurements_table.rows_of(table) if table is not None else []

    def exportMeasurements(self, segmentation: Any, path: str | Path) -> None:
        """Write a result's measurements to a CSV file; raises OutputError if it cannot be written."""
        measurements_table.export_csv(review.referenced(segmentation, review.MEASUREMENTS), Path(path))

    def trust(self, segmentation: Any) -> float | None:
        """Dice between what each branch alone would have outlined, 0 to 1; None in fast quality."""
        return review.trust(segmentation)

    def doubtfulPlaces(self, segmentation: Any) -> list[review.DoubtfulPlace]:
        """Where the branches disagree, the worst first."""
        return review.doubtful_places(segmentation)

    def nextDoubtfulPlace(self, segmentation: Any) -> tuple[int, review.DoubtfulPlace]:
        """Move the slice views to the next of them, and return its number and itself."""
        return review.next_place(segmentation)

    def addTrainingCase(self, segmentation: Any) -> training_cases.SceneCase:
        """Make a result, as it is when training starts, and its volume a case of the training module."""
        return training_cases.add_case(review.referenced(segmentation, review.VOLUME), segmentation)


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
            segmentation = logic.process(volume, quality="fast")
        finally:
            logic.shutdown()
        (row,) = logic.measurements(segmentation)
        # What the sample's own script counts in its exact label is 65 mL.
        assert 45 < float(row["volume_ml"]) < 85
        self.delayDisplay("Test passed")
