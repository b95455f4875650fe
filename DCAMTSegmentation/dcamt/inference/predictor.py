"""From a scan and a model to labels on the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..devices import fast_bfloat16
from ..errors import InputError
from ..geometry import Box, Grid, Region, box_in_part, whole_box
from ..models.package import ModelPackage
from ..networks.dual_vnet import DualVNet
from ..networks.packaging import build_network
from ..preprocessing import scan_to_network, to_source
from ..recipe import ACCURATE, FAST, Recipe
from ..volume import Labelmap, Volume
from .cropping import crop, grown, paste
from .finding import Found, find_organ, is_large, margin
from .folded import fold, move
from .labelling import labels_on_scan, most_likely
from .memory import DEFAULT_MEMORY, Size
from .middle import Middle
from .postprocessing import Expected, keep_largest_components
from .tiling import OutOfMemory, predict_bounded

Progress = Callable[[str, float], None]
"""Called with the stage's name and the share of the work that is done, 0 to 1."""

FOUND = 0.3
"""Share of the work that is done once the organ is found in a large scan."""
ROUNDS = 3
"""How often the box around a found organ is segmented, larger each time, before the whole scan is."""
JOINED = 1.5
"""How much larger than in the first box what is found may become: beyond that it was joined to something else."""


@dataclass(frozen=True)
class Segmentation:
    """A scan's result, on the scan's own grid.

    labelmap: 0 background, 1, 2, ... the recipe's classes.
    probabilities: float32 (K, I, J, K'), mean of the branches; None unless asked for.
    agreement: float32 (I, J, K) from 0 (the branches contradict) to 1 (they agree); None if one branch ran.
    trust: Dice (0 to 1) between what each branch alone would have outlined, within the region if one was given; None
        if one branch ran.
    notes: what the person should know, such as that the memory did not suffice.
    """

    labelmap: Labelmap
    probabilities: np.ndarray | None
    agreement: np.ndarray | None
    trust: float | None
    notes: tuple[str, ...] = field(default=())


class Predictor:
    """A loaded model, ready for one scan after another.

    `memory` bounds, in bytes, what a pass over the network may take: a volume for which it does not suffice is done
    part by part, with the same result but for rounding; with instance normalisation at several times the work. None:
    2 GB on a CPU, what is free on a GPU.

    `precision` is the convolutions' on a CPU. None: bfloat16 where the CPU computes in it itself (two to three times
    as fast; it moves probabilities by hundredths, see Testing/benchmarks), else float32, as on a GPU.
    """

    def __init__(
        self,
        package: ModelPackage,
        device: torch.device | str = "cpu",
        memory: int | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.recipe: Recipe = package.recipe
        self.device = torch.device(device)
        self._package = package
        self._memory = memory
        self._precision = precision
        self.network = self._network_on(self.device)

    def segment(
        self,
        volume: Volume,
        quality: str = ACCURATE,
        region: Region | None = None,
        keep_probabilities: bool = False,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segment a scan; `region` (patient mm) limits where, `quality` is `fast` or `accurate`.

        In a large scan the organ is found first, and segmented in a box around it, which grows while the result
        touches it, unless that joins the organ to something else. What lies outside of it is background for certain.
        Where two pieces are alike, the one nearer to the scan's middle is taken. Where nothing is found, the whole is
        segmented.

        Raises:
            InputError: the scan does not fit the model, the region lies outside the scan, or memory does not suffice.
        """

        report = progress or _silent
        if region is not None or not is_large(self.recipe, volume.grid):
            return self._segment_all(volume, quality, region, keep_probabilities, report)
        report("preparing", 0.0)
        found = find_organ(volume, self.recipe, lambda image: self._run(image, FAST, _uncounted)[0])
        done = FOUND
        if found:
            result, done = self._segment_found(volume, quality, found, keep_probabilities, report)
            if result:
                return result
        return self._segment_all(volume, quality, None, keep_probabilities, _between(done, 1.0, report))

    def _segment_found(
        self, volume: Volume, quality: str, found: Found, keep_probabilities: bool, report: Progress
    ) -> tuple[Segmentation | None, float]:
        """Segment the part of a scan where the organ was seen, and larger ones while the result touches their border.

        -> the result in its place, None if a closer look sees nothing; and the share of the work that is done.
        """
        box, done = found.box, FOUND
        kept: tuple[Box, Segmentation] | None = None
        first = 0
        for more in reversed(range(ROUNDS + 1)):
            # A second round is rare: most of the time that is left goes to the first.
            share, done = done, (done + 9) / 10
            result = self._segment_all(
                crop(volume, box),
                quality,
                None,
                keep_probabilities,
                _between(share, done, report),
                _expected(found, box),
            )
            size = int(np.count_nonzero(result.labelmap.voxels))
            if size == 0:
                return None, done
            first = first or size
            if kept and size > JOINED * first:
                break
            kept = box, result
            larger = grown(box, result.labelmap, margin(self.recipe, volume.grid), volume.grid.shape)
            if larger == box:
                break
            box = larger if more > 1 else whole_box(volume.grid.shape)
        assert kept is not None
        report("finishing", 1.0)
        return _put_back(kept[1], kept[0], volume), 1.0

    def _segment_all(
        self,
        volume: Volume,
        quality: str,
        region: Region | None,
        keep_probabilities: bool,
        report: Progress,
        expected: Expected | None = None,
    ) -> Segmentation:
        """Segment the whole of a scan, or the region's part of it; `expected`: where, if the organ was seen before."""
        report("preparing", 0.0)
        image, grid = scan_to_network(volume, self.recipe)
        box = region.box(grid, margin=2 * self.recipe.stride) if region else tuple(slice(0, n) for n in grid.shape)
        kept = region.mask(volume.grid) if region else None
        if kept is not None and not kept.any():
            raise InputError("the region of interest holds no voxel of the scan", path=volume.path)
        report("segmenting", 0.1)
        branches, notes = self._run(
            image[(slice(None), *box)], quality, lambda done, of: report("segmenting", 0.1 + 0.7 * done / of)
        )
        branches = _embed(branches, box, grid.shape)
        report("finishing", 0.8)
        shares = branches.mean(dim=0)
        labels = labels_on_scan(shares, grid)
        if kept is not None:
            labels[~kept] = 0
        if self.recipe.inference.largest_component:
            labels = keep_largest_components(labels, range(1, self.recipe.outputs), expected)
        probabilities = to_source(shares, grid) if keep_probabilities else None
        agreement = trust = None
        if len(branches) == 2:
            agreement = to_source(agreement_map(branches), grid)
            if region:
                branches = branches * torch.from_numpy(region.mask(Grid(grid.shape, grid.affine)))
            trust = branch_dice(branches)
        report("finishing", 1.0)
        return Segmentation(Labelmap(labels, volume.grid, volume.path), probabilities, agreement, trust, notes)

    def _run(self, image: Tensor, quality: str, tick: Callable[[int, int], None]) -> tuple[Tensor, tuple[str, ...]]:
        """Return the branches' probabilities and notes; predict on the CPU if the GPU's memory does not suffice."""
        notes: list[str] = []

        def predict(network: DualVNet, device: torch.device, memory: int | None) -> Tensor:
            memory_of = "computer" if device.type == "cpu" else "GPU"
            note = f"The {memory_of}'s memory did not suffice; smaller parts were used."
            return predict_bounded(
                network, image, self.recipe, quality, memory, tick, on_shortage=lambda: notes.append(note)
            ).cpu()

        try:
            try:
                branches = predict(self.network, self.device, self._memory)
            except OutOfMemory:
                if self.device.type == "cpu":
                    raise
                notes.append("The GPU's memory did not suffice; the CPU was used.")
                # A second network: that on the GPU stays there for the next scan.
                cpu = torch.device("cpu")
                branches = predict(self._network_on(cpu), cpu, DEFAULT_MEMORY)
        except OutOfMemory as error:
            raise InputError(
                "the computer's memory does not suffice for this scan",
                remedy="Close other programs, or give a region of interest.",
            ) from error
        return branches, tuple(dict.fromkeys(notes))

    def _network_on(self, device: torch.device) -> DualVNet:
        """The package's network, ready for inference there."""
        # Folded on the CPU, as Apple's GPUs have no double precision.
        return move(fold(build_network(self._package, "cpu")), device, self._precision_on(device))

    def _precision_on(self, device: torch.device) -> torch.dtype:
        if device.type != "cpu":
            return torch.float32
        return self._precision or (torch.bfloat16 if fast_bfloat16(device) else torch.float32)


def _silent(stage: str, share: float) -> None:
    """Progress that nobody watches."""


def _uncounted(done: int, of: int) -> None:
    """Parts that nobody counts."""


def _between(start: float, stop: float, report: Progress) -> Progress:
    """Progress of a part of the work as one of the whole, of which it is what lies between two shares."""
    return lambda stage, share: report(stage, min(stop, start + (stop - start) * share))


def _expected(found: Found, box: Box) -> Expected | None:
    """What was found, in voxels of a part of the scan; None where nothing was looked for."""
    if not found.organs:
        return None
    places = {label: box_in_part(organ, box) for label, organ in found.organs.items()}
    return Expected(places, Middle.of(found.anatomy).within(box))


def _put_back(part: Segmentation, box: Box, volume: Volume) -> Segmentation:
    """The result of a part of a scan as one of the whole; outside of it all is background."""
    shape = volume.grid.shape
    probabilities = part.probabilities
    if probabilities is not None:
        probabilities = paste(probabilities, box, shape, 0)
        background = np.ones(shape, probabilities.dtype)
        background[box] = probabilities[(0, *box)]
        probabilities[0] = background
    return replace(
        part,
        labelmap=Labelmap(paste(part.labelmap.voxels, box, shape, 0), volume.grid, volume.path),
        probabilities=probabilities,
        agreement=None if part.agreement is None else paste(part.agreement, box, shape, 1),
    )


def agreement_map(branches: Tensor) -> Tensor:
    """(2, K, X, Y, Z) -> (X, Y, Z): 1 - half the sum over classes of |p_A - p_B| (1 - total variation distance)."""
    return 1 - 0.5 * (branches[0] - branches[1]).abs().sum(dim=0)


def branch_dice(branches: Tensor) -> float:
    """Dice between the foregrounds of the two branches of (2, K, X, Y, Z); 1 if both are empty."""
    a, b = (most_likely(branch) for branch in branches)
    total = int(a.count_nonzero() + b.count_nonzero())
    return 2 * int(((a == b) & (a > 0)).count_nonzero()) / total if total else 1.0


def _embed(branches: Tensor, box: tuple[slice, ...], shape: Size) -> Tensor:
    """Put the box's probabilities into the whole; outside of it all is background."""
    if tuple(branches.shape[-3:]) == shape:
        return branches
    whole = torch.zeros((*branches.shape[:2], *shape))
    whole[:, 0] = 1
    whole[(slice(None), slice(None), *box)] = branches
    return whole
