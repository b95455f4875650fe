"""Segment a scan: compute its labelmap, measurements and doubtful places."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cases.checks import scan_notes
from ..devices import choose_device
from ..distributed import local_device
from ..geometry import Grid, Region
from ..inference.predictor import Predictor, Progress
from ..io.formats import AnyPath, scan_name
from ..io.readers import read_scan
from ..metrics.doubtful_places import MOST_PLACES, DoubtfulPlace, doubtful_places
from ..metrics.measurements import Measurements, measure
from ..models.calibration import ExpectedOverlap
from ..models.package import Card, ModelPackage
from ..models.store import DEFAULT_MODEL
from ..networks.packaging import verify_model
from ..process_settings import default_numpy_settings
from ..recipe import ACCURATE
from ..volume import Labelmap, SegmentInfo, Volume, check_scan, order_channels

Scan = AnyPath | Volume | np.ndarray
"""A file, a DICOM folder, a `Volume`, or an array (I, J, K) or (C, I, J, K)."""


@dataclass(frozen=True, eq=False)
class SegmentedScan:
    """A segmented scan; all arrays lie on the scan's own grid.

    Attributes:
        scan: voxels (C, I, J, K). They are not copied: they share the memory of an array or volume that was segmented.
        labelmap: the class of each voxel (I, J, K): 0 for background, n for the n-th of `segments`.
        measurements: one row for each class: volume (mL), surface area (cm²), diameters (mm), sphericity, and
            `expected_overlap`.
        disagreement: float32 (I, J, K), from 0 (the network's two branches agree on the probabilities of a voxel's
            classes) to 1 (the branches are certain of different classes); 0 outside the region, if one was given; None
            in quality `fast`.
        doubt_map: float32 (I, J, K), from 0 to 1: the higher, the more probable it is that a voxel's label is wrong.
            If `is_doubt_calibrated`, the value estimates this probability; otherwise it serves only to rank voxels. The
            value is 0 outside the region, if one was given. `doubt_map` is None in quality `fast`.
        trust: Dice (0 to 1) between the branches' own segmentations, within the region if one was given; None in
            quality `fast`.
        probabilities: float32 (1 + classes, I, J, K), background first; outside the region, if one was given,
            background has the probability 1. `probabilities` is None without `keep_probabilities`.
        notes: messages for the user, such as how the file was interpreted or that the GPU had too little memory.
        quality: `fast` or `accurate`.
        expected_overlap: expected Dice with an expert's outline, and its 80% interval; None if the model is not
            calibrated for this `quality`. Also None, with a note, if the region cuts the segmentation.
        is_doubt_calibrated: whether the model's calibration scaled `doubt_map`.
        seconds: time to segment and measure the scan, without reading and checking it.
    """

    scan: Volume
    labelmap: Labelmap
    segments: tuple[SegmentInfo, ...]
    measurements: tuple[Measurements, ...]
    disagreement: np.ndarray | None
    doubt_map: np.ndarray | None
    trust: float | None
    probabilities: np.ndarray | None
    notes: tuple[str, ...]
    model: Card
    quality: str
    seconds: float
    expected_overlap: ExpectedOverlap | None = None
    is_doubt_calibrated: bool = False

    @default_numpy_settings()
    def doubtful_places(self, max_places: int = MOST_PLACES) -> list[DoubtfulPlace]:
        """Return at most `max_places` doubtful places, the worst first; an empty list in quality `fast`."""
        if self.doubt_map is None:
            return []
        return doubtful_places(self.doubt_map, self.labelmap.grid, max_places)


class Segmenter:
    """A model loaded on a device, to segment several scans.

    >>> import dcamt
    >>> segmenter = dcamt.Segmenter.load("left-atrium", device="cpu")
    >>> [info.name for info in segmenter.segments]
    ['Left atrium']
    """

    def __init__(self, package: ModelPackage, predictor: Predictor) -> None:
        self.model = package.card
        self.predictor = predictor

    @classmethod
    @default_numpy_settings()
    def load(cls, model: AnyPath = DEFAULT_MODEL, device: str = "auto") -> Segmenter:
        """Load a model and return its segmenter.

        Args:
            model: name or file of the model.
            device: `auto`, `cpu`, `cuda` or `mps`.

        Raises:
            InputError: the model or the device does not exist or cannot be used.
        """
        package = verify_model(model)
        return cls(package, Predictor(package, local_device(choose_device(device))))

    @property
    def segments(self) -> tuple[SegmentInfo, ...]:
        """Name, colour and codes of each class."""
        return self.predictor.recipe.classes

    @property
    def channels(self) -> int:
        """Number of channels that the model needs in a scan."""
        return self.predictor.recipe.input_channels

    @default_numpy_settings()
    def segment(
        self,
        scan: Scan,
        *,
        affine: np.ndarray | None = None,
        quality: str = ACCURATE,
        region: Region | Sequence[float] | np.ndarray | None = None,
        keep_probabilities: bool = False,
        progress: Progress | None = None,
    ) -> SegmentedScan:
        """Return the segmented scan; the arguments and errors are those of `dcamt.segment`."""
        volume = order_channels(to_volume(scan, affine, self.channels), self.predictor.recipe.channel_names)
        start = time.monotonic()
        box = to_region(region)
        result = self.predictor.segment(volume, quality, box, keep_probabilities, progress)
        limits = [box.note] if box is not None and not box.covers(volume.grid) else []
        name = scan_name(volume.path) if volume.path is not None else ""
        return SegmentedScan(
            scan=volume,
            labelmap=result.labelmap,
            segments=self.segments,
            measurements=with_expected_overlap(measure(result.labelmap, self.segments, name), result.expected_overlap),
            disagreement=None if result.agreement is None else 1 - result.agreement,
            doubt_map=result.doubt_map,
            trust=result.trust,
            probabilities=result.probabilities,
            notes=(*limits, *scan_notes(volume), *result.notes),
            model=self.model,
            quality=quality,
            seconds=time.monotonic() - start,
            expected_overlap=result.expected_overlap,
            is_doubt_calibrated=result.is_doubt_calibrated,
        )


def with_expected_overlap(rows: Sequence[Measurements], expected: ExpectedOverlap | None) -> tuple[Measurements, ...]:
    """Return a scan's measurements with the expected overlap in each row; unchanged if `expected` is None."""
    if expected is None:
        return tuple(rows)
    value, low, high = expected.value, expected.low, expected.high
    return tuple(
        replace(row, expected_overlap=value, expected_overlap_low=low, expected_overlap_high=high) for row in rows
    )


def segment(
    scan: Scan,
    model: AnyPath = DEFAULT_MODEL,
    *,
    affine: np.ndarray | None = None,
    quality: str = ACCURATE,
    device: str = "auto",
    region: Region | Sequence[float] | np.ndarray | None = None,
    keep_probabilities: bool = False,
    progress: Progress | None = None,
) -> SegmentedScan:
    """Segment a scan with a model. For several scans, load the model once with `dcamt.Segmenter.load`.

    Args:
        scan: a file, a DICOM folder, a `dcamt.Volume`, or an array (I, J, K) or (C, I, J, K). If a file or volume
            has the model's channel names in another order, the channels are reordered, with a note.
        model: name or file of the model.
        affine: (4, 4), voxel index (i, j, k) -> RAS mm; required with an array, otherwise not allowed.
        quality: `fast` (one branch) or `accurate` (both).
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `mps`.
        region: segment only inside this region of the patient; a `Region`, or (x0, x1, y0, y1, z0, z1) in RAS mm.
        keep_probabilities: whether the result has `probabilities`, which take 4 bytes for each class and voxel.
        progress: called with the stage and the fraction (0 to 1) of the work done.

    Raises:
        InputError: scan, model, quality, region or device cannot be used, or the memory is too small.
        TypeError: `scan` is not a path, a volume or an array. Convert a tensor with `numpy.asarray`.
        ValueError: `affine` is missing or not allowed, an array or volume has the wrong number of axes or channels, or
            an array has masked voxels.

    In the top folder of a clone of DCAMT:

    >>> import dcamt
    >>> sample = "Resources/SampleData/LGEHeartPhantom.nrrd"
    >>> result = dcamt.segment(sample, quality="fast", device="cpu")
    >>> result.labelmap.voxels.shape == result.scan.grid.shape
    True
    >>> 40 < result.measurements[0].volume_ml < 65
    True

    An array with its affine gives the same labelmap:

    >>> from_array = dcamt.segment(
    ...     result.scan.voxels, affine=result.scan.grid.affine, quality="fast", device="cpu"
    ... )
    >>> bool((from_array.labelmap.voxels == result.labelmap.voxels).all())
    True
    """
    return Segmenter.load(model, device).segment(
        scan,
        affine=affine,
        quality=quality,
        region=region,
        keep_probabilities=keep_probabilities,
        progress=progress,
    )


def to_volume(scan: Scan, affine: np.ndarray | None, channels: int) -> Volume:
    """Return a checked volume of `channels` channels from a file, a volume or an array.

    Raises:
        InputError: the scan cannot be read or segmented.
        TypeError: the scan is not a file, a volume or an array.
        ValueError: `affine` is missing for an array, or given for a file or volume; an array has masked voxels, or
            neither 3 nor 4 axes; or an array or volume has another number of channels.
    """
    if not isinstance(scan, str | os.PathLike | Volume | np.ndarray):
        raise TypeError(f"a scan is a file, a dcamt.Volume or a NumPy array, not {type(scan).__name__}")
    if isinstance(scan, np.ndarray):
        if affine is None:
            raise ValueError("an array needs its affine (4, 4): voxel index -> RAS mm")
        voxels = scan[np.newaxis] if scan.ndim == 3 else scan
        if voxels.ndim != 4:
            raise ValueError(f"the array {scan.shape} is not (I, J, K) or (C, I, J, K)")
        grid = Grid(voxels.shape[1:], affine)
        volume = Volume(voxels, grid)
    elif affine is not None:
        raise ValueError("affine belongs to an array; files and volumes have their own")
    elif isinstance(scan, Volume):
        volume = scan
    else:
        return read_scan(scan, channels=channels)
    if len(volume.voxels) != channels:
        shape = f"the shape {volume.voxels.shape} is read as (C, I, J, K)"
        raise ValueError(f"the number of channels must be {channels}, not {len(volume.voxels)}: {shape}")
    check_scan(volume)
    return volume


def to_region(region: Region | Sequence[float] | np.ndarray | None) -> Region | None:
    """Return a region as it is, or build it from (x0, x1, y0, y1, z0, z1) in RAS mm; None stays None.

    Raises InputError if the values are not six finite numbers that enclose a volume.

    >>> region = to_region((10, -10, 0, 5, 0, 5))
    >>> region.low, region.high
    ((-10.0, 0.0, 0.0), (10.0, 5.0, 5.0))
    """
    if region is None or isinstance(region, Region):
        return region
    try:
        text = ",".join(repr(float(value)) for value in region)
    except (TypeError, ValueError):
        text = str(region)
    return Region.parse(text)
