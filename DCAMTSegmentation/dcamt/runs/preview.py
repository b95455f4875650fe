"""Write and read the preview of a run: the current segmentation of one validation case.

Another process writes the name of the case to `preview/case.txt`. After each later validation, the run writes `.npy`
files (K, J, I), which can be mapped into memory. `preview/preview.json` names these files. It is written last, so that
no reader sees half a preview.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..io.atomic import atomic_path, write_text
from ..io.in_use import remove_file
from ..io.slabs import write_voxels
from ..io.typed_json import parse_json
from .folder import RunFolder


@dataclass(frozen=True)
class Preview:
    """A case's segmentation at one iteration.

    Attributes:
        step: iterations trained.
        affine: voxel (i, j, k) -> RAS mm, four rows.
        scan: `.npy` file of the first channel of the scan's voxels, (K, J, I).
        labels: `.npy` file of the labels, uint8, with the scan's shape.
    """

    case: str
    step: int
    affine: list[list[float]]
    scan: str
    labels: str


def choose_preview(run: RunFolder, case: str | None) -> None:
    """Request previews of the validation case with this name. If `case` is None, remove the request.

    Raises:
        OSError, OutputError: the file of the request cannot be written or removed.
    """
    request = run.preview / "case.txt"
    if case is None:
        remove_file(request)
    else:
        write_text(request, case)


def chosen_preview(run: RunFolder) -> str | None:
    """Return the name of the case whose preview is requested; None if no preview is requested."""
    try:
        return (run.preview / "case.txt").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def read_preview(run: RunFolder) -> Preview | None:
    """Return the last preview; None if there is none, or it cannot be read.

    Its files are looked for in the run's present folder, since the run may have been moved.
    """
    with suppress(OSError, ValueError, TypeError, OverflowError):
        preview = Preview(**parse_json((run.preview / "preview.json").read_text(encoding="utf-8")))
        if np.array(preview.affine, float).shape != (4, 4):
            return None
        scan, labels = (str(run.preview / Path(file).name) for file in (preview.scan, preview.labels))
        return replace(preview, scan=scan, labels=labels)
    return None


def write_preview(
    run: RunFolder, case: str, step: int, labels: np.ndarray, affine: np.ndarray, scan: np.ndarray | None
) -> None:
    """Write a preview and remove the files of earlier previews.

    Args:
        labels: uint8 (I, J, K).
        affine: (4, 4), voxel -> RAS mm.
        scan: (I, J, K). If None, the last preview must show the same case, and that preview's scan file is used again.

    Raises:
        OSError, OutputError: a file cannot be written.
    """
    if scan is None:
        before = read_preview(run)
        assert before is not None
        scan_file = before.scan
    else:
        scan_file = str(run.preview / f"scan-{step}.npy")
        with atomic_path(scan_file) as partial:
            write_voxels(scan, partial)
    label_file = str(run.preview / f"labels-{step}.npy")
    with atomic_path(label_file) as partial:
        write_voxels(labels, partial)
    preview = Preview(case, step, affine.tolist(), scan_file, label_file)
    write_text(run.preview / "preview.json", json.dumps(asdict(preview)))
    for file in run.preview.glob("*.npy"):
        if str(file) not in (scan_file, label_file):
            with suppress(OSError):  # On Windows, a reader may still have the file open.
                file.unlink()


def shows_case(run: RunFolder, case: str) -> bool:
    """Return whether the last preview shows this case and the preview's scan file exists."""
    preview = read_preview(run)
    return preview is not None and preview.case == case and Path(preview.scan).exists()
