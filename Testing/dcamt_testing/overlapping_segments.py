"""Write Slicer segmentations whose segments may overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicerio
from dcamt.geometry import RAS_TO_LPS


def write_layers(path: Path, segments: Sequence[tuple[str, np.ndarray]], affine: np.ndarray | None = None) -> Path:
    """Write a segmentation with slicerio, each segment in a layer of its own; return the path.

    Each segment has the value 1 in its layer. Since the values are equal, DCAMT numbers the segments 1, 2, … in the
    order of `segments`.

    Args:
        segments: the name and the mask (I, J, K) of each segment.
        affine: voxel (i, j, k) -> RAS mm, (4, 4); by default, voxels of 1 mm.
    """
    content = {
        "voxels": np.stack([mask for _name, mask in segments]).astype(np.uint8),
        "ijkToLPS": RAS_TO_LPS @ (np.eye(4) if affine is None else affine),
        "segments": [
            {"id": f"Segment_{layer}", "name": name, "color": [1, 0, 0], "labelValue": 1, "layer": layer}
            for layer, (name, _mask) in enumerate(segments)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    slicerio.write_segmentation(str(path), content)
    return path
