"""DCAMT: dual V-Nets that segment scans and learn from labelled and unlabelled scans.

    import dcamt

    result = dcamt.segment("scan.nrrd")          # labels, measurements
    scores = dcamt.evaluate("results", "labels")  # Dice, Jaccard, surface distances
    run = dcamt.train("cases.csv", run="runs/first")
    scan = dcamt.read_scan("scan.nrrd")           # voxels (C, I, J, K) on a grid in RAS mm

The engine does not depend on 3D Slicer; the command `dcamt` and the Slicer modules are built on it. `import dcamt`
imports no other module of the package: each name below imports its module on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

# `__init__.pyi` declares the types of these names.
_MODULE_OF = {
    "write_report": "api.outputs",
    "write_segmentation": "api.outputs",
    "write_surface": "api.outputs",
    "evaluate": "api.evaluation",
    "SegmentedScan": "api.segmentation",
    "Segmenter": "api.segmentation",
    "segment": "api.segmentation",
    "train": "api.training",
    "TrainedRun": "api.training",
    "Cancelled": "errors",
    "DCAMTError": "errors",
    "InputError": "errors",
    "OutputError": "errors",
    "Grid": "geometry",
    "Region": "geometry",
    "ScanChoice": "io.dicom_stacks",
    "read_labelmap": "io.readers",
    "read_scan": "io.readers",
    "write_labelmap": "io.writers",
    "Evaluation": "metrics.evaluation",
    "Labelmap": "volume",
    "Volume": "volume",
}
__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dcamt' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
