"""Write synthetic abdominal CT scans with labels of four organs, to try training.

    python make_phantoms.py FOLDER [--labelled 4] [--unlabelled 0] [--validation 1] [--new 1] [--spacing 3 3 7.5]

The program writes scans, labels and the case list `cases.csv` into FOLDER. For testing a model, it writes further
scans, which are not in the list, into FOLDER/new and their labels into FOLDER/new_labels. Intensities are in HU. By
default, voxels are longer along the body than across it. The axes run to the patient's left, posterior and superior,
as in many CT scans.

Needs NumPy, SciPy and nibabel, which are installed with DCAMT.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

FIELD_MM = (320.0, 250.0, 170.0)
"""Field of view along R-L, A-P and S-I."""
LIVER, SPLEEN, KIDNEYS, AORTA = 1, 2, 3, 4
BRIGHTNESS_HU = {LIVER: (95, 125), SPLEEN: (115, 145), KIDNEYS: (170, 220), AORTA: (230, 300)}
"""Range of each organ's intensity with contrast agent."""


def ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray, tilt_degrees: float = 0.0) -> np.ndarray:
    """Return whether each point lies inside an ellipsoid that is tilted about the A-P axis, as bool (I, J, K).

    Args:
        points: positions (I, J, K, 3) in RAS mm.
    """
    angle = np.radians(tilt_degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return (((points - centre) @ turn / radii) ** 2).sum(axis=-1) <= 1


def phantom(spacing: Sequence[float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the arrays (I, J, K) of a scan in HU (int16) and its label (uint8), and the affine (4, 4) to RAS mm."""
    draw = np.random.default_rng(seed)
    shape = [round(mm / step) for mm, step in zip(FIELD_MM, spacing, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [-axes[0][0], -axes[1][0], axes[2][0]]
    # Positions in RAS mm; the first two voxel axes run to the left and to posterior, hence the signs.
    points = np.stack(np.meshgrid(-axes[0], -axes[1], axes[2], indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(points, -1, 0)

    size = draw.uniform(0.9, 1.1)

    def random_position(*mm: float) -> np.ndarray:
        return size * np.array(mm) + draw.uniform(-7, 7, 3)

    def random_radii(*mm: float) -> np.ndarray:
        return size * np.array(mm) * draw.uniform(0.9, 1.1, 3)

    def random_hu(low: float, high: float) -> float:
        return float(draw.uniform(low, high))

    body = (x / (145 * size)) ** 2 + (y / (105 * size)) ** 2 <= 1
    wall = body & ((x / (128 * size)) ** 2 + (y / (90 * size)) ** 2 > 1)
    texture = ndimage.gaussian_filter(draw.normal(size=shape), [12 / step for step in spacing])
    hu = np.where(body, np.where(texture > 0.2 * texture.std(), 30.0, -95.0), -1000.0)  # bowel in fat
    hu[wall] = random_hu(45, 60)
    spine = ((x - 2) / (22 * size)) ** 2 + ((y + 68 * size) / (20 * size)) ** 2 <= 1
    hu[spine] = np.where(np.sin(z / 6) > -0.7, random_hu(250, 450), 90)[spine]  # vertebrae and discs

    labels = np.zeros(shape, dtype=np.uint8)
    labels[ellipsoid(points, random_position(58, 15, 22), random_radii(60, 55, 50), draw.uniform(-15, 15))] = LIVER
    labels[ellipsoid(points, random_position(-88, -22, 30), random_radii(24, 36, 36), draw.uniform(-15, 15))] = SPLEEN
    for side in (-1, 1):
        tilt = -side * draw.uniform(5, 20)
        labels[ellipsoid(points, random_position(side * 55, -50, -25), random_radii(20, 20, 42), tilt)] = KIDNEYS
    bend, centre = draw.uniform(-6, 6), random_position(-14, -34, 0)
    tube = (x - centre[0] - bend * np.sin(z / 40)) ** 2 + (y - centre[1]) ** 2 <= (12 * size) ** 2
    labels[tube] = AORTA
    labels[~body | spine] = 0
    for label, (low, high) in BRIGHTNESS_HU.items():
        hu[labels == label] = random_hu(low, high)
    hu = ndimage.gaussian_filter(hu, [1.5 / step for step in spacing]) + draw.normal(0, 18, shape)
    return np.clip(hu.round(), -1024, 3071).astype(np.int16), labels, affine


def write_case(folder: Path, name: str, spacing: Sequence[float], seed: int, label_folder: Path | None) -> None:
    """Write a scan, and its label unless `label_folder` is None."""
    voxels, labels, affine = phantom(spacing, seed)
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / f"{name}.nii.gz")
    if label_folder is not None:
        label_folder.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(labels, affine), label_folder / f"{name}_label.nii.gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labelled", type=int, default=4)
    parser.add_argument("--unlabelled", type=int, default=0)
    parser.add_argument("--validation", type=int, default=1)
    parser.add_argument("--new", type=int, default=1, help="number of scans that are not in the case list")
    parser.add_argument("--spacing", type=float, nargs=3, default=[3.0, 3.0, 7.5], metavar="MM")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed = 1000 * options.seed
    rows = []
    for role in ("labelled", "unlabelled", "validation"):
        for _ in range(getattr(options, role)):
            name, seed = f"ct{len(rows) + 1:02d}", seed + 1
            outlined = role != "unlabelled"
            write_case(options.folder, name, options.spacing, seed, options.folder if outlined else None)
            rows.append([name, f"{name}.nii.gz", f"{name}_label.nii.gz" if outlined else "", role])
    for number in range(options.new):
        seed += 1
        write_case(options.folder / "new", f"new{number + 1}", options.spacing, seed, options.folder / "new_labels")
    with (options.folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["name", "image", "label", "role"], *rows])
    print(f"cases in {options.folder / 'cases.csv'}: {len(rows)}, new scans in {options.folder / 'new'}: {options.new}")


if __name__ == "__main__":
    main()
