"""Make folders of cases, and convert the cases found in them to plain dictionaries."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from dcamt.cases.found_cases import FoundCases
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap
from dcamt.volume import Labelmap

from dcamt_testing.scan_files import LEFT_ATRIUM

IMAGES, LABELS = (tuple(f"{part}/{name}.nii.gz" for name in "ab") for part in ("imagesTr", "labelsTr"))
PAIRS = tuple(zip(IMAGES, LABELS, strict=True))
PAIR_A = {"image": IMAGES[0], "label": LABELS[0]}
"""An entry of a `dataset.json` for the case named "a"."""


def make_files(home: Path, *files: str) -> Path:
    """Create empty files below a folder; return the folder."""
    for file in files:
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).touch()
    return home


def make_data_set(home: Path, description: object, *files: str) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return make_files(home, *files)


def write_image(path: Path, values: int) -> None:
    """Write an image with `values` different voxel values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = (np.arange(6**3) % values).reshape(6, 6, 6).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def write_images(home: Path, scans: Iterable[str], masks: Iterable[str]) -> None:
    """Write NIfTI files: scans with 200 different voxel values, masks with 2."""
    for names, values in ((scans, 200), (masks, 2)):
        for name in names:
            write_image(home / f"{name}.nii.gz", values)


def write_dcamt_result(path: Path) -> None:
    """Write a small labelmap with DCAMT's mark (`dcamt.io.writers.is_dcamt_result`)."""
    voxels = np.eye(6, dtype=np.uint8)[None].repeat(6, 0)
    write_labelmap(Labelmap(voxels, Grid(voxels.shape, np.eye(4))), path, [LEFT_ATRIUM], mark=True)


def scans_and_labels(found_cases: FoundCases, home: Path) -> dict[str, tuple[str, str | None]]:
    """Return {name: (image, label)} with paths relative to `home`.

    Fail if a role contradicts the label, or if two cases have the same name.
    """
    assert all(case.role == ("labelled" if case.label else "unlabelled") for case in found_cases.cases)
    by_name = {
        case.name: (
            case.image.relative_to(home).as_posix(),
            case.label.relative_to(home).as_posix() if case.label else None,
        )
        for case in found_cases.cases
    }
    assert len(by_name) == len(found_cases.cases)
    return by_name


def skip_reasons(found_cases: FoundCases) -> dict[str, str]:
    return {one.path.name: one.reason for one in found_cases.skipped}
