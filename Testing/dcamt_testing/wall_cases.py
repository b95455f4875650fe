"""Write cases for `dcamt wall` and run the command on them."""

from __future__ import annotations

from pathlib import Path

from dcamt.io.writers import write_labelmap, write_volume
from dcamt.volume import Labelmap, Volume

from dcamt_testing.processes import call_dcamt

SCAN, LABEL = "scans/a_image.nrrd", "labels/a_label.nii.gz"
"""The scan and the label of the case "a", relative to the folder of the cases."""


def add_case(folder: Path, phantom: tuple[Volume, Labelmap], name: str) -> None:
    write_volume(phantom[0], folder / "scans" / f"{name}_image.nrrd")
    write_labelmap(phantom[1], folder / "labels" / f"{name}_label.nii.gz")


def measure_scan(folder: Path, *options: str | Path) -> int:
    return call_dcamt(["wall", folder / SCAN, folder / LABEL, "-o", folder / "out", *options])


def measure_folder(folder: Path, *options: str | Path) -> int:
    return call_dcamt(["wall", folder / "scans", folder / "labels", "-o", folder / "out", *options])
