"""What the segmentation module does, for its panel and for scripts."""
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from DCAMTSlicerLib import installation
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from . import measurements_table, region_of_interest, review, training_cases
from .measuring_job import MeasuringJob
from .segmentation_job import Request, SegmentationJob, SegmentationProgress
from .segmentation_log import SegmentationLog
from .worker_job import JobResult, WorkerJob
from .worker_process import WorkerProcess

OnProgress = Callable[[SegmentationProgress], None]
OnFinished = Callable[[JobResult], None]


class DCAMTSegmentationLogic(ScriptedLoadableModuleLogic):
    """Segments one volume after the other in a process of its own; needs no widget.

    In a script, `process` waits for each result, and Slicer stays usable meanwhile:

    >>> from pathlib import Path
    >>> from DCAMTSegmentation import DCAMTSegmentationLogic
    >>> scans, results = Path("/data/scans"), Path("/data/results")
    >>> volumes = [slicer.util.loadVolume(str(path)) for path in sorted(scans.glob("*.nrrd"))]
    >>> logic = DCAMTSegmentationLogic()
    >>> logic.ensurePackages()
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

        def progressed(progress: SegmentationProgress) -> None:
            self._log.stage(progress.stage)
            if onProgress:
                onProgress(progress)

        def finished(result: JobResult) -> None:
            for line in (result.message, *result.notes, result.detail):
                if line:
                    self._log.add(line)
            if onFinished:
                onFinished(result)

        started = _("{volume}, model {model}, {quality}").format(
            volume=volume.GetName(), model=request.model, quality=request.quality
        )
        self._log.add(started)
        self._job = SegmentationJob(self._worker, request, progressed, finished)

    def apply(self, settings: Any, onProgress: OnProgress | None = None, onFinished: OnFinished | None = None) -> None:
        """Segment as the parameter node says; the result becomes its output, if its volume is still the input."""
        volume = settings.inputVolume

        def finished(result: JobResult) -> None:
            if result.segmentation is not None and settings.inputVolume is volume:
                settings.outputSegmentation = result.segmentation
            if onFinished:
                onFinished(result)

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
        results: list[JobResult] = []
        self.segment(volume, onFinished=results.append, **choices)
        while not results:
            slicer.app.processEvents()
            qt.QThread.msleep(5)
        if results[0].segmentation is None:
            raise RuntimeError(results[0].message)
        return results[0].segmentation

    def measure(self, segmentation: Any, onFinished: OnFinished | None = None) -> None:
        """Start measuring a result's segments as they are now, after a correction; `onFinished` is called once.

        Raises:
            RuntimeError: a segmentation is under way.
            OutputError: there is no room to hand the segments over.
        """
        if self.isRunning():
            raise RuntimeError(_("A segmentation is under way."))
        self._job = MeasuringJob(self._worker, segmentation, onFinished or (lambda result: None))

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
