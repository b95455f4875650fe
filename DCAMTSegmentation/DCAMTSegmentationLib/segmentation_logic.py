"""The logic of the segmentation module, for its panel and for scripts."""
# Slicer and scripts call a logic's methods by Qt-style names.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from dcamt.wall.settings import DEFAULT_THRESHOLD, Threshold
from DCAMTSlicerLib import installation
from DCAMTSlicerLib.model_choices import channel_names_of
from DCAMTSlicerLib.node_types import Node, RegionNode, SegmentationNode, VolumeNode
from DCAMTSlicerLib.scene_changes import SceneChanges, remove_with_display
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings
from DCAMTSlicerLib.subject_hierarchy import remove_stale_items
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.util import VTKObservationMixin

from . import (
    measurements_table,
    output_choice,
    region_of_interest,
    result_scan,
    review,
    stored_places,
    training_cases,
    views,
    wall_nodes,
)
from .measuring_job import MeasuringJob
from .report_job import ReportJob
from .result_nodes import HELPERS, MEASUREMENTS, VOLUME, get_referenced_node, own_helper, results_of
from .segmentation_job import SegmentationJob, SegmentationProgress
from .segmentation_log import SegmentationLog
from .segmentation_options import SegmentationOptions
from .wall_job import WallJob
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker, WorkerProcess

OnProgress = Callable[[SegmentationProgress], None]
OnFinished = Callable[[JobOutcome], None]
POLL_MS = 5


class DCAMTSegmentationLogic(ScriptedLoadableModuleLogic, VTKObservationMixin):
    """Segments volumes one after another in a child process, measures results and writes reports; needs no widget.

    In a script, `process` returns when the result is ready; Slicer stays usable meanwhile:

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

    `segment` returns at once and calls a function at the end; `cancel` stops the running job. `measureWall` and
    `writeReport` take any segmentation node. The other methods take only segmentation nodes into which `segment` or
    `process` wrote a result. The logic does not ask for consent to a model's terms of use: whoever writes a script must
    read the terms (`DCAMTSlicerLib.terms_of_use.read_terms`).

    Args:
        worker: the worker; by default a process of Slicer's Python.
    """

    def __init__(self, worker: SegmentationWorker | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        VTKObservationMixin.__init__(self)
        self._worker: SegmentationWorker = worker or WorkerProcess(_temporary_folder)
        self._job: WorkerJob | None = None
        self._log = SegmentationLog()
        # The segmentation nodes that the scene is removing, each with its helper nodes.
        self._removed: list[tuple[SegmentationNode, list[Node]]] = []
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._on_node_about_to_be_removed)
        self.addObserver(scene, scene.NodeRemovedEvent, self._on_node_removed)
        self.addObserver(scene, scene.EndBatchProcessEvent, self._on_batch_ended)
        slicer.app.connect("aboutToQuit()", self.shutdown)

    def getParameterNode(self) -> Any:
        # `parameterNodeWrapper` gives `SegmentationSettings` a constructor that takes a node.
        return SegmentationSettings(super().getParameterNode())  # type: ignore[call-arg]

    def firstVolume(self) -> VolumeNode | None:
        """Return the scan in the slice views, otherwise the scene's first scan; None in a scene without scans."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return views.background_scan() or next((node for node in volumes if result_scan.is_listed_scan(node)), None)

    def ensurePackages(self) -> None:
        """Install missing packages after confirmation.

        Raises:
            InstallationDeclined: the user declined.
            NotInstalledError: packages cannot be used or installed; `installation.ensure_packages` lists the causes.
        """
        installation.ensure_packages()

    def isRunning(self) -> bool:
        """Return whether a segmentation, a measurement or a report is being computed."""
        return self._job is not None and self._job.running

    def log(self) -> str:
        """Return the log, the newest entry last, followed by the worker's stderr."""
        return "\n\n".join(text for text in (self._log.text(), self._worker.log()) if text)

    def segment(
        self,
        volume: VolumeNode,
        onProgress: OnProgress | None = None,
        onFinished: OnFinished | None = None,
        **choices: Any,
    ) -> None:
        """Start segmenting a volume node, and return at once.

        `onFinished` is called once, with a `JobOutcome` that contains the segmentation node. After a failure or
        `cancel`, the outcome contains the reason instead, and the scene is unchanged.

        Args:
            choices: the other fields of `SegmentationOptions`.

        Raises:
            RuntimeError: a job of this logic is running.
            InputError: a volume, the target or the region cannot be used.
            OutputError: the folder for the request's files cannot be created.
        """
        options = SegmentationOptions(volume, **choices)

        def report(progress: SegmentationProgress) -> None:
            self._log.add_stage(progress.stage)
            if onProgress:
                onProgress(progress)

        started = _("{volume}, model {model}, {quality}").format(
            volume=volume.GetName(), model=options.model, quality=options.quality
        )
        self._start(SegmentationJob(self._worker, options, report, self._finisher(onFinished)), started)

    def apply(self, settings: Any, onProgress: OnProgress | None = None, onFinished: OnFinished | None = None) -> None:
        """Call `segment` with the settings of the parameter node.

        The result becomes the output in the settings, unless another input volume was chosen meanwhile.
        """
        volume, show_3d = settings.inputVolume, settings.show3D
        further_count = len(channel_names_of(settings.model)) - 1

        def finish(outcome: JobOutcome) -> None:
            if outcome.segmentation is not None:
                if settings.show3D != show_3d:  # changed during the computation
                    views.show_in_3d(outcome.segmentation, settings.show3D)
                if settings.inputVolume is volume:
                    settings.outputSegmentation = outcome.segmentation
            if onFinished:
                onFinished(outcome)

        self.segment(
            volume,
            onProgress,
            finish,
            channels=(*settings.channelVolumes, *[None] * further_count)[:further_count],
            target=settings.outputSegmentation,
            region=settings.region,
            show_3d=show_3d,
            model=settings.model,
            quality=settings.quality.value,
            device=settings.device.value,
        )

    def process(self, volume: VolumeNode, **choices: Any) -> SegmentationNode:
        """Segment a volume node and return the segmentation node; `choices` are those of `segment`.

        Raises:
            RuntimeError: a job of this logic is running, or there is no result; the message states the reason.
            InputError, OutputError: as for `segment`.
        """
        outcomes: list[JobOutcome] = []
        self.segment(volume, onFinished=outcomes.append, **choices)
        while not outcomes:
            slicer.app.processEvents()
            qt.QThread.msleep(POLL_MS)
        if outcomes[0].segmentation is None:
            raise RuntimeError(outcomes[0].message)
        return outcomes[0].segmentation

    def measure(self, segmentation: SegmentationNode, onFinished: OnFinished | None = None) -> None:
        """Start measuring a result's DCAMT segments as they are now; `onFinished` is called once.

        Raises:
            RuntimeError: a job of this logic is running.
            OutputError: the folder for the request's files cannot be created.
        """
        self._start(MeasuringJob(self._worker, segmentation, self._finisher(onFinished)))

    def measureWall(
        self,
        volume: VolumeNode,
        segmentation: SegmentationNode,
        segment: str,
        onFinished: OnFinished | None = None,
        threshold: Threshold = DEFAULT_THRESHOLD,
    ) -> None:
        """Start measuring late enhancement on the surface of a segment; `onFinished` is called once.

        Args:
            segment: the identifier of any segment of the segmentation node.
            threshold: used if the segmentation has no wall yet. A new wall, even of another segment, keeps the
                threshold of the wall that it replaces.

        Raises:
            RuntimeError: a job of this logic is running.
            InputError: the volume cannot be used, or is related to the segmentation by a non-linear transform.
            OutputError: the folder for the request's files cannot be created.
        """
        self._start(WallJob(self._worker, volume, segmentation, segment, threshold, self._finisher(onFinished)))

    def writeReport(
        self,
        volume: VolumeNode,
        segmentation: SegmentationNode,
        segment: str,
        path: Path,
        onFinished: OnFinished | None = None,
    ) -> None:
        """Start writing the one-page report of a segment to an `.html` file; `onFinished` is called once.

        Raises:
            RuntimeError: a job of this logic is running.
            InputError: the volume cannot be used, or is related to the segmentation by a non-linear transform.
            OutputError: the folder for the request's files cannot be created.
        """
        self._start(ReportJob(self._worker, volume, segmentation, segment, path, self._finisher(onFinished)))

    def cancel(self) -> None:
        """Stop the running job at once, if there is one; its `onFinished` is called."""
        if self._job is not None:
            self._job.cancel()

    def shutdown(self) -> None:
        """Cancel the running job, end the worker and remove its files; Slicer calls this method when Slicer ends."""
        slicer.app.disconnect("aboutToQuit()", self.shutdown)
        self.removeObservers()
        self.cancel()
        self._worker.shutdown()

    def placeRegion(
        self, volume: VolumeNode, segmentation: SegmentationNode | None = None, region: RegionNode | None = None
    ) -> RegionNode:
        """Place `region`, or a new Markups ROI, around the result; without a result, around the volume's centre.

        Raises:
            InputError: the volume holds no image, or an image with several channels.
        """
        with SceneChanges() as changes:
            if region is None:
                region = changes.add("vtkMRMLMarkupsROINode", _("Heart region"))
                region_of_interest.style_region(region)
            region_of_interest.place_region(region, volume, segmentation)
        return region

    def measurements(self, segmentation: SegmentationNode) -> list[dict[str, str]]:
        """Return each segment's measurements as text, by column; [] if the result has no table of measurements."""
        table = get_referenced_node(segmentation, MEASUREMENTS)
        volume = get_referenced_node(segmentation, VOLUME)
        return measurements_table.rows_of(table, volume) if table is not None else []

    def exportMeasurements(self, segmentation: SegmentationNode, path: str | Path) -> None:
        """Write a result's measurements to a CSV file; the result must have a table of measurements.

        Raises:
            OutputError: the file cannot be written.
        """
        table, volume = (get_referenced_node(segmentation, role) for role in (MEASUREMENTS, VOLUME))
        measurements_table.export_csv(table, volume, Path(path))

    def trust(self, segmentation: SegmentationNode) -> float | None:
        """Return the Dice, 0 to 1, between the segmentations of the model's two branches; None in quality `fast`."""
        return review.trust(segmentation)

    def doubtfulPlaces(self, segmentation: SegmentationNode) -> list[stored_places.StoredDoubtfulPlace]:
        """Return the doubtful places, the worst first."""
        return stored_places.doubtful_places(segmentation)

    def nextDoubtfulPlace(self, segmentation: SegmentationNode) -> tuple[int, stored_places.StoredDoubtfulPlace]:
        """Move the slice views to the next doubtful place; return the place's number, from 1, and the place.

        Raises:
            ValueError: the result has no doubtful places.
        """
        return stored_places.next_place(segmentation)

    def addTrainingCase(self, segmentation: SegmentationNode) -> training_cases.SceneCase:
        """Add a result with its scan to the training cases; the nodes are read when a training starts."""
        return training_cases.add_result(segmentation)

    def _start(self, job: WorkerJob, log_entry: str = "") -> None:
        if self.isRunning():
            raise RuntimeError(_("A computation is running. Wait until the computation has ended, or cancel it."))
        if log_entry:
            self._log.add(log_entry)
        job.start()
        self._job = job

    def _finisher(self, on_finished: OnFinished | None) -> OnFinished:
        def finish(outcome: JobOutcome) -> None:
            # Release the job, since it refers to the volume's voxels.
            self._job = None
            for line in (outcome.message, *outcome.notes, outcome.detail):
                if line:
                    self._log.add(line)
            if on_finished:
                on_finished(outcome)

        return finish

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_about_to_be_removed(self, caller: Any, event: Any, node: Any) -> None:
        if node.IsA("vtkMRMLSegmentationNode"):
            helpers = [own_helper(node, role) for role in HELPERS]
            self._removed.append((node, [helper for helper in helpers if helper is not None]))
        elif node.IsA("vtkMRMLScalarVolumeNode"):
            for result in results_of(node):
                table = get_referenced_node(result, MEASUREMENTS)
                if table is not None:
                    measurements_table.store_scan_name(table, node.GetName())
            wall_nodes.store_scan_name(node)
            output_choice.store_removed_scan(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, caller: Any, event: Any, node: Any) -> None:
        if node.IsA("vtkMRMLSegmentationNode") and not slicer.mrmlScene.IsBatchProcessing():
            self._remove_orphans()

    def _on_batch_ended(self, caller: Any, event: Any) -> None:
        if self._removed:
            self._remove_orphans()

    def _remove_orphans(self) -> None:
        is_present = slicer.mrmlScene.IsNodePresent
        # Batch processing may have removed a segmentation and added it again.
        results = [(node, helpers) for node, helpers in self._removed if not is_present(node)]
        self._removed = []
        removed = [node for node, _helpers in results]
        orphans = [helper for _node, helpers in results for helper in helpers]
        for helper in orphans:
            if is_present(helper):
                remove_with_display(helper)
        # While the scene sends its event, the subject hierarchy still has the removed nodes' items.
        qt.QTimer.singleShot(0, lambda: remove_stale_items(slicer.mrmlScene, [*orphans, *removed]))


def _temporary_folder() -> str:
    # The user may change this folder in the application's settings.
    return str(slicer.app.temporaryPath)
