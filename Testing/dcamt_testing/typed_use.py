"""Calls of the Python API with arguments of the types that programs pass. Only mypy reads this file."""

from __future__ import annotations

import os

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


def call_with_paths_of_any_class(path: os.PathLike[str]) -> None:
    dcamt.write_labelmap(dcamt.read_labelmap(path), path)
    result = dcamt.segment(dcamt.read_scan(path), path)
    result = dcamt.Segmenter.load(path).segment(path)
    dcamt.write_segmentation(result, path)
    dcamt.write_surface(result, path)
    dcamt.write_report(result, path)
    dcamt.evaluate([path], path).write_csv(path)
    dcamt.train(path, path, recipe=path, start_from=path)
