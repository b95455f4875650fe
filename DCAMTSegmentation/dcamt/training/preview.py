"""The current segmentation of a chosen validation case, on the scan's own grid, for whoever watches the run.

The watcher names the case in `preview/case.txt`. After each validation, the run then writes arrays that can be mapped
into memory, (K, J, I), and last `preview/preview.json`, which names them: a reader never sees half a preview.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cases.case_list import Case
from ..errors import DCAMTError
from ..io.atomic import atomic_path
from ..recipe import Recipe
from ..runs.folder import RunFolder

if TYPE_CHECKING:
    from ..networks.dual_vnet import DualVNet
    from .resident import ResidentCase


@dataclass(frozen=True)
class Preview:
    """scan: file of the scan's voxels, (K, J, I). labels: file of uint8 of that shape, 0 background.

    affine: voxel (i, j, k) -> RAS mm, four rows. step: the iteration after which it was made.
    """

    case: str
    step: int
    affine: list[list[float]]
    scan: str
    labels: str


def choose_preview(run: RunFolder, case: str | None) -> None:
    """Ask for previews of the validation case of that name; None: of no case any more."""
    wish = run.preview / "case.txt"
    if case is None:
        wish.unlink(missing_ok=True)
    else:
        with atomic_path(wish) as partial:
            partial.write_text(case, encoding="utf-8")


def chosen_preview(run: RunFolder) -> str | None:
    """The name of the case of which previews are asked for."""
    try:
        return (run.preview / "case.txt").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def read_preview(run: RunFolder) -> Preview | None:
    """The last preview; None if there is none."""
    with suppress(OSError, ValueError, TypeError):
        return Preview(**json.loads((run.preview / "preview.json").read_text(encoding="utf-8")))
    return None


def update_preview(
    run: RunFolder,
    step: int,
    network: DualVNet,
    cases: Sequence[tuple[Case, ResidentCase]],
    recipe: Recipe,
) -> None:
    """Write the preview of the chosen one of `cases`, if there is one; a fault in this does not disturb the run."""
    name = chosen_preview(run)
    for case, held in cases:
        if case.name == name:
            with suppress(OSError, DCAMTError):
                _write(run, step, case, _labels(network, case, held, recipe))


def _labels(network: DualVNet, case: Case, held: ResidentCase, recipe: Recipe) -> np.ndarray:
    """(I, J, K), uint8: the case's segmentation by both branches on the scan's own grid."""
    import torch

    from ..geometry import network_grid
    from ..inference.labelling import labels_on_scan
    from ..inference.memory import free_memory, part_limit, part_size
    from ..inference.one_pass import size_of
    from ..inference.tiles import bounded_probabilities
    from ..io.readers import read_header
    from ..recipe import ACCURATE
    from .resident import quantum

    scale, offset = quantum(recipe.intensity)
    image = held.image.float() * scale + offset
    network.eval()
    with torch.no_grad():
        limit = part_limit(recipe, size_of(image), free_memory(image.device))
        branches = bounded_probabilities(network, image, ACCURATE, part_size(recipe, size_of(image), limit))
    network.train()
    grid = network_grid(read_header(case.image).grid, recipe.spacing)
    return labels_on_scan(branches.mean(dim=0).cpu(), grid)


def _write(run: RunFolder, step: int, case: Case, labels: np.ndarray) -> None:
    from ..io.readers import read_header, read_scan

    before = read_preview(run)
    if before is not None and before.case == case.name and Path(before.scan).exists():
        scan, affine = before.scan, before.affine
    else:
        volume = read_scan(case.image, channels=read_header(case.image).channels)
        scan, affine = str(run.preview / f"scan-{step}.npy"), volume.grid.affine.tolist()
        _save(run.preview / f"scan-{step}.npy", volume.voxels[0])
    path = run.preview / f"labels-{step}.npy"
    _save(path, labels)
    with atomic_path(run.preview / "preview.json") as partial:
        partial.write_text(json.dumps(asdict(Preview(case.name, step, affine, scan, str(path)))), encoding="utf-8")
    for file in run.preview.glob("*.npy"):
        if str(file) not in (scan, str(path)):
            with suppress(OSError):  # on Windows, a reader may still have it open
                file.unlink()


def _save(path: Path, voxels: np.ndarray) -> None:
    """(I, J, K) as (K, J, I), the order of the application's own memory."""
    with atomic_path(path) as partial:
        np.save(partial, np.ascontiguousarray(voxels.transpose(2, 1, 0)))
