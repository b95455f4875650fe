"""Calls of the Python API with arguments of the types that programs pass. Only mypy reads this file."""

from __future__ import annotations

import dcamt
import numpy as np


def call_with_accepted_types(scan: dcamt.Volume, masks: list[np.ndarray], region: np.ndarray) -> None:
    by_name, by_value = {"left atrium": 1}, {420: 1}
    for mapping in (by_name, by_value):
        dcamt.read_labelmap("label.seg.nrrd", mapping)
    dcamt.read_labelmap("label.seg.nrrd", {420: 1, "wall": 2})
    dcamt.evaluate(masks, masks, spacing=scan.grid.spacing)
    dcamt.segment(scan, region=region)
    dcamt.Segmenter.load().segment(scan, region=region)
