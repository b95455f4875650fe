"""Segment a volume node: send its voxels to the worker, and insert the result into the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dcamt.geometry import CUT_BY_REGION, Region
from dcamt.worker.events import ScanSegmented, WorkerProgress
from dcamt.worker.requests import SegmentRequest
from DCAMTSlicerLib import channel_names
from DCAMTSlicerLib.model_choices import recipe_channel_names, title_of
from DCAMTSlicerLib.volume_bridge import check_channel_nodes
from slicer.i18n import tr as _

from . import result_scan, review
from .loaded_result import LoadedResult
from .region_of_interest import region_of
from .result_insertion import TargetEditedError, check_source, insert_result, state_of_target, transform_to_target
from .segmentation_options import SegmentationOptions
from .volume_snapshot import VolumeSnapshot, write_snapshots
from .worker_job import JobOutcome, WorkerJob
from .worker_process import SegmentationWorker

READING_FRACTION = 0.01


@dataclass(frozen=True)
class SegmentationProgress:
    """The progress of a segmentation.

    Attributes:
        stage: the stage's name for the user.
        fraction: the fraction of the work that is done, 0 to 1; it never decreases.
        remaining_s: the remaining seconds; None if unknown.
    """

    stage: str
    fraction: float
    remaining_s: float | None = None


class SegmentationJob(WorkerJob):
    """Sends a scan to the worker and inserts the result into the scene."""

    # Set by `start`.
    _snapshots: list[VolumeSnapshot]
    _region: Region | None
    _region_name: str
    _target_state: str
    _model: str
    """The model's title; read at the start, since the model may be removed or replaced during the computation."""
    _channel_names: tuple[str, ...]
    """The names of the channels, read at the start; empty if they are unknown."""

    def __init__(
        self,
        worker: SegmentationWorker,
        options: SegmentationOptions,
        listener: Callable[[SegmentationProgress], None],
        on_finished: Callable[[JobOutcome], None],
    ) -> None:
        super().__init__(worker, on_finished)
        self._options, self._listener = options, listener
        self._fraction = 0.0

    def start(self) -> None:
        """Start the job in the next turn of the event loop.

        Raises:
            InputError: the volume, a channel, the region or the target cannot be used.
            OutputError: the folder for the request's files cannot be created.
        """
        options = self._options
        volumes = (options.volume, *options.channels)
        check_channel_nodes(volumes)
        model_names = recipe_channel_names(options.model)
        self._notes += channel_names.check_data_set_names(volumes, model_names)
        self._channel_names = model_names or channel_names.names_of(volumes)
        self._snapshots = [VolumeSnapshot(volume) for volume in volumes]
        transform_to_target(options.volume, options.target)  # refuses a non-linear transform
        check_source(options.target)
        self._region = region_of(options.region, options.volume) if options.region is not None else None
        self._region_name = options.region.GetName() if options.region is not None else ""
        self._target_state = state_of_target(options.target)
        self._model = title_of(options.model)
        super().start()

    def prepare(self) -> Iterator[SegmentRequest | None]:
        options, file = self._options, self.folder / "volume.npy"
        for fraction in write_snapshots(self._snapshots, file):
            self._report_progress(_("Reading the volume"), READING_FRACTION * fraction)
            yield None
        yield SegmentRequest(
            str(options.model),
            file,
            self._snapshots[0].affine,
            self.folder,
            name=options.volume.GetName(),
            quality=options.quality,
            device=options.device,
            region=self._region,
            surface=options.show_3d,
        )

    def handle_progress(self, event: WorkerProgress) -> None:
        self._report_progress(stage_name(event.stage), event.fraction, event.eta_s)

    def take_answer(self, event: ScanSegmented) -> Iterator[JobOutcome | None]:
        result = LoadedResult.read(event, self._options.volume.GetName(), self._model)
        yield None
        yield from self.compare_snapshots(self._snapshots)
        options = self._options
        try:
            segmentation = yield from insert_result(result, options, self._target_state)
        except TargetEditedError:
            assert options.target is not None
            segmentation = yield from insert_result(result, replace(options, target=None))
            what = _(
                "The result is in “{new}”, since “{edited}” was edited or became a training case during the"
                " computation."
            )
            self._notes.append(what.format(edited=options.target.GetName(), new=segmentation.GetName()))
        if self._region is not None:
            is_cut = CUT_BY_REGION in event.notes
            review.store_region(segmentation, self._region, self._region_name, is_cut)
            self._notes.append(_("Only the region “{region}” was segmented.").format(region=self._region_name))
        result_scan.store_scan_voxels(segmentation, [snapshot.checksum for snapshot in self._snapshots])
        result_scan.store_channel_names(segmentation, self._channel_names)
        yield JobOutcome(segmentation, result.summary(options.volume.GetName()))

    def _report_progress(self, stage: str, fraction: float, remaining_s: float | None = None) -> None:
        self._fraction = max(self._fraction, fraction)
        self._listener(SegmentationProgress(stage, self._fraction, remaining_s))


def stage_name(stage: str) -> str:
    """Return the text that the user sees for a stage of the worker; an unknown stage is returned unchanged."""
    return {
        "loading": _("Loading the model"),
        "preparing": _("Preparing the volume"),
        "segmenting": _("Segmenting"),
        "finishing": _("Finishing"),
        "measuring": _("Measuring"),
        "writing": _("Writing the result"),
    }.get(stage, stage)
