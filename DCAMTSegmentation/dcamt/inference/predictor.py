"""Segment scans with a loaded model: locate the organs, predict, and clean up the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..devices import default_torch_settings, fast_bfloat16
from ..errors import InputError, MemoryShortage, memory_for_scan
from ..geometry import CUT_BY_REGION, Box, Grid, NetworkGrid, Region, Shape, box_in_part, network_grid, whole_box
from ..models.calibration import ExpectedOverlap
from ..models.package import Card, ModelPackage
from ..networks.dual_vnet import DualVNet
from ..networks.packaging import build_network
from ..preprocessing import nearest_labels, scan_to_network, to_source
from ..recipe import ACCURATE, FAST, QUALITIES, Recipe
from ..volume import Labelmap, Volume
from .agreement import agreement_map, branch_dice
from .components import CentrePrior, ExpectedOrgans, keep_organs
from .doubt import doubt_features, doubt_map, outline_voxels
from .folded import fold, move
from .labelling import labels_on_scan
from .localisation import OrganLocation, crop_scan, grow_box, is_large, locate_organs, organ_margin, paste
from .tiling import OutOfMemory, Tick, predict_bounded

Progress = Callable[[str, float], None]
"""Called with the stage's name and the fraction (0 to 1) of the work done."""

LOCATED = 0.3
"""Fraction of the work that is done once the organs of a large scan are located."""
BOXES_BEFORE_WHOLE_SCAN = 3
LARGEST_GROWTH = 1.5
"""Largest factor by which the segmentation may grow from the first box to a larger box.

A larger growth usually means that the organ has merged with a neighbour."""


@dataclass(frozen=True)
class Prediction:
    """A scan's segmentation, on the scan's own grid.

    Attributes:
        labelmap: 0 for background; 1, 2, ... for the recipe's classes.
        probabilities: float32 (1 + classes, I, J, K), background first, mean of the branches; outside the `region` of
            `Predictor.segment`, background has the probability 1; None without `keep_probabilities`.
        agreement: float32 (I, J, K) from 0 (the branches disagree) to 1 (they agree); 1 outside the `region`; None in
            fast quality.
        doubt_map: float32 (I, J, K), probability that a voxel's label is wrong; 0 outside the `region`; None in fast
            quality.
        trust: Dice (0 to 1) between the branches' own segmentations, within the region if one was given; None in fast
            quality.
        notes: messages for the user.
        expected_overlap: expected Dice with an expert's outline; None if the model is not calibrated for the requested
            quality (fast or accurate), or if the region cuts the segmentation (`CUT_BY_REGION`).
        is_doubt_calibrated: whether the model's calibration scaled `doubt_map`.
        doubt: the features of doubt from which the expected overlap is computed (`doubt.doubt_features`).
    """

    labelmap: Labelmap
    probabilities: np.ndarray | None
    agreement: np.ndarray | None
    doubt_map: np.ndarray | None
    trust: float | None
    notes: tuple[str, ...] = ()
    expected_overlap: ExpectedOverlap | None = None
    is_doubt_calibrated: bool = False
    doubt: Mapping[str, float] = field(default_factory=dict)


class Predictor:
    """A model loaded on a device, which segments scans.

    If the memory is too small for a scan (see `memory.usable_memory`), the scan is predicted in tiles, with the same
    result up to rounding. Exception: a network with instance normalisation predicts every scan in one pass.

    Args:
        precision: the precision of the convolutions on a CPU. By default bfloat16 if the CPU has hardware for it (up to
            twice as fast, see Testing/benchmarks/README.md; probabilities change by hundredths), otherwise float32.
            GPUs compute in float32.

    Example:
        predictor = Predictor(verify_model("left-atrium.dcamt"))
        labels = predictor.segment(read_scan("scan.nrrd")).labelmap.voxels  # uint8 (I, J, K)
    """

    @default_torch_settings()
    def __init__(
        self,
        package: ModelPackage,
        device: torch.device | str = "cpu",
        precision: torch.dtype | None = None,
    ) -> None:
        self.recipe: Recipe = package.recipe
        self.card: Card = package.card
        self.device = torch.device(device)
        self._package = package
        self._precision = precision
        self.network = self._network_on(self.device)

    @default_torch_settings()
    def segment(
        self,
        volume: Volume,
        quality: str = ACCURATE,
        region: Region | None = None,
        keep_probabilities: bool = False,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment a scan.

        In a large scan, if no region is given, the organs are located first and segmented in a box around them. The box
        grows while the segmentation touches the box's faces. If the segmentation in a larger box has grown too much
        (`LARGEST_GROWTH`), it is discarded, and the segmentation in the previous box is returned. If nothing is
        located, or nothing is segmented in a box, the whole scan is segmented.

        Args:
            volume: intensities (C, I, J, K) of any real type.
            quality: `accurate` (both branches) or `fast` (one).
            region: the region of the patient to segment; everything outside it becomes background.

        Raises:
            InputError: the scan does not fit the model, the quality is unknown, or the region holds no voxel of the
                scan.
            MemoryShortage: the memory is too small.
        """
        if quality not in QUALITIES:
            raise InputError(f"the quality '{quality}' is unknown", remedy=f"Choose one of: {', '.join(QUALITIES)}.")
        report = progress or (lambda stage, fraction: None)
        segment_all = partial(self._segment_all, quality=quality, keep_probabilities=keep_probabilities)
        grid = network_grid(volume.grid, self.recipe.spacing)
        with memory_for_scan(volume.path):
            if region is not None or not is_large(self.recipe, grid):
                return segment_all(volume, report, grid=grid, region=region)
            report("preparing", 0.0)
            location = locate_organs(volume, grid, self.recipe, lambda image: self._run(image, volume.path, FAST)[0])
            if location is None:
                return segment_all(volume, _scale_progress(LOCATED, 1.0, report), grid=grid)
            return _segment_around(location, volume, organ_margin(self.recipe, grid), segment_all, report)

    def _segment_all(
        self,
        volume: Volume,
        report: Progress,
        expected: ExpectedOrgans | None = None,
        *,
        quality: str,
        keep_probabilities: bool,
        grid: NetworkGrid | None = None,
        region: Region | None = None,
    ) -> Prediction:
        report("preparing", 0.0)
        image, grid = scan_to_network(volume, self.recipe, grid)
        margin = 2 * max(self.recipe.stride)
        box = region.box(grid, margin, volume.path) if region else whole_box(grid.shape)
        inside = region.mask(volume.grid) if region else None
        if inside is not None and not inside.any():
            raise InputError(
                "the region of interest holds no voxel of the scan", path=volume.path, remedy="Enlarge the region."
            )
        report("segmenting", 0.1)
        branches, notes = self._run(
            image[(slice(None), *box)],
            volume.path,
            quality,
            lambda done, of: report("segmenting", 0.1 + 0.7 * done / of),
        )
        branches = _embed(branches, box, grid.shape)
        report("finishing", 0.8)
        mean = branches.mean(dim=0)
        found = labels_on_scan(mean, grid)
        if inside is not None:
            found[~inside] = 0
        labels = keep_organs(found, self.recipe, expected)
        doubt = doubt_features(branches, nearest_labels(labels, grid), grid.spacing)
        calibration = self._package.calibration
        notes = (*self._package.notes, *notes)
        expected_overlap = None
        if inside is not None and labels[outline_voxels(inside)].any():
            notes = (*notes, CUT_BY_REGION)
        elif calibration is not None:
            expected_overlap = calibration.expect(quality, doubt)
        if expected_overlap is not None and expected_overlap.is_low:
            notes = (*notes, self._low_overlap_note(expected_overlap))
        probabilities = to_source(mean, grid) if keep_probabilities else None
        if probabilities is not None and inside is not None:
            probabilities[0, ~inside] = 1
            probabilities[1:, ~inside] = 0
        scaling = calibration.doubt if calibration else None
        agreement = doubtful = trust = None
        if len(branches) == 2:
            doubtful = doubt_map(mean, grid, found != labels, scaling)
            agreement = to_source(agreement_map(branches), grid)
            if inside is not None:
                doubtful[~inside] = 0
                agreement[~inside] = 1
            if region:
                branches = branches * torch.from_numpy(region.mask(Grid(grid.shape, grid.affine)))
            trust = branch_dice(branches)
        report("finishing", 1.0)
        return Prediction(
            labelmap=Labelmap(labels, volume.grid, volume.path),
            probabilities=probabilities,
            agreement=agreement,
            doubt_map=doubtful,
            trust=trust,
            notes=notes,
            expected_overlap=expected_overlap,
            is_doubt_calibrated=doubtful is not None and scaling is not None,
            doubt=doubt,
        )

    def _low_overlap_note(self, expected: ExpectedOverlap) -> str:
        card = self._package.card
        if expected.value == 0:
            what = "No organ was found."
        else:
            what = f"The segmentation is probably wrong: the expected overlap with an expert's outline is {expected}."
        *others, last = (name.lower() for name in card.segments)
        segments = f"{', '.join(others)} and {last}" if others else last
        return f"{what} Check that the scan shows the {segments} in {card.modality}, as the model expects."

    def _run(
        self, image: Tensor, path: Path | None, quality: str, tick: Tick | None = None
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Return a CPU tensor with the branches' probabilities (branches, 1 + classes, X, Y, Z), and notes."""
        network, notes = self.network, []
        if self.device.type != "cpu":
            with suppress(OutOfMemory):
                return self._predict(network, "GPU", image, quality, tick)
            # The network on the GPU stays there for the next scan.
            network, notes = self._network_on(torch.device("cpu")), ["Not enough GPU memory; the CPU was used."]
        try:
            branches, more_notes = self._predict(network, "computer", image, quality, tick)
        except OutOfMemory as error:
            remedy = "Close other programs, or give a region of interest."
            raise MemoryShortage("not enough memory for this scan", path=path, remedy=remedy) from error
        return branches, (*notes, *more_notes)

    def _predict(
        self, network: DualVNet, memory_of: str, image: Tensor, quality: str, tick: Tick | None
    ) -> tuple[Tensor, tuple[str, ...]]:
        notes: set[str] = set()
        note = f"Not enough {memory_of} memory; the scan was segmented in tiles."
        branches = predict_bounded(network, image, self.recipe, quality, tick=tick, on_shortage=lambda: notes.add(note))
        return branches.cpu(), tuple(notes)

    def _network_on(self, device: torch.device) -> DualVNet:
        precision = torch.float32
        if device.type == "cpu":
            precision = self._precision or (torch.bfloat16 if fast_bfloat16(device) else torch.float32)
        # `fold` needs double precision, which Apple's GPUs lack.
        return move(fold(build_network(self._package, "cpu")), device, precision)


def _segment_around(
    location: OrganLocation, volume: Volume, margin: Shape, segment_all: Callable[..., Prediction], report: Progress
) -> Prediction:
    """Segment a box around the located organs; enlarge the box while the segmentation touches the box's faces.

    Args:
        margin: how far the box grows in one round, in voxels.
        segment_all: called as segment_all(part of the scan, progress, expected organs).
    """
    box, done = location.box, LOCATED
    best: tuple[Prediction, Box] | None = None
    first_size = 0
    for rounds in range(BOXES_BEFORE_WHOLE_SCAN + 1):
        # Each round gets nine tenths of the remaining progress, since most scans need no further round.
        before, done = done, (done + 9) / 10
        part_report = _scale_progress(before, done, report)
        result = segment_all(crop_scan(volume, box), part_report, _expected_organs(location, box))
        size = int(np.count_nonzero(result.labelmap.voxels))
        if size == 0:
            return segment_all(volume, _scale_progress(done, 1.0, report))
        first_size = first_size or size
        if size > LARGEST_GROWTH * first_size:
            break
        best = result, box
        larger = grow_box(box, result.labelmap, margin, volume.grid.shape)
        if larger == box:
            break
        box = larger if rounds < BOXES_BEFORE_WHOLE_SCAN - 1 else whole_box(volume.grid.shape)
    assert best is not None
    report("finishing", 1.0)
    return _paste_prediction(*best, volume)


def _scale_progress(start: float, stop: float, report: Progress) -> Progress:
    return lambda stage, fraction: report(stage, min(stop, start + (stop - start) * fraction))


def _expected_organs(location: OrganLocation, box: Box) -> ExpectedOrgans | None:
    if not location.organs:
        return None
    boxes = {label: box_in_part(organ, box) for label, organ in location.organs.items()}
    return ExpectedOrgans(boxes, CentrePrior.from_box(location.anatomy).crop_to(box))


def _paste_prediction(part: Prediction, box: Box, volume: Volume) -> Prediction:
    """Extend a prediction from `box`, a part of the scan, to the whole scan; the rest is background."""
    shape = volume.grid.shape
    probabilities = None
    if part.probabilities is not None:
        probabilities = paste(part.probabilities, box, shape, 0)
        probabilities[0] = paste(part.probabilities[0], box, shape, 1)
    return replace(
        part,
        labelmap=Labelmap(paste(part.labelmap.voxels, box, shape, 0), volume.grid, volume.path),
        probabilities=probabilities,
        agreement=None if part.agreement is None else paste(part.agreement, box, shape, 1),
        doubt_map=None if part.doubt_map is None else paste(part.doubt_map, box, shape, 0),
    )


def _embed(branches: Tensor, box: Box, shape: Shape) -> Tensor:
    """Extend probabilities (branches, 1 + classes, x, y, z) from a box to the whole grid; the rest is background."""
    if tuple(branches.shape[-3:]) == shape:
        return branches
    whole = torch.zeros((*branches.shape[:2], *shape))
    whole[:, 0] = 1
    whole[(slice(None), slice(None), *box)] = branches
    return whole
