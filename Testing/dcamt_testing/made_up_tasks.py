"""Write case lists of made-up tasks, whose classes are bright or dark balls in noise."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from dcamt_testing.synthetic import write_table


def ball_mask(shape: tuple[int, int, int], spacing: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    places = np.indices(shape).transpose(1, 2, 3, 0)
    return np.asarray(np.linalg.norm((places - centre) * spacing, axis=-1) < radius)


def write_task(
    folder: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], radii: tuple[float, ...]
) -> Path:
    """Write six cases, two of them unlabelled, with one ball per class, bright or dark.

    Args:
        radii: mm.
    """
    sides = np.array(spacing)
    rows = []
    for number in range(6):
        draw = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        image = draw.normal(100, 10, shape)
        for value, radius in enumerate(radii, start=1):
            low = np.array([radius + 4] * 3) / sides
            centre = draw.uniform(np.minimum(low, np.array(shape) / 2), np.maximum(shape - low, np.array(shape) / 2))
            label[ball_mask(shape, sides, centre, radius)] = value
        for value in range(1, len(radii) + 1):
            image[label == value] += 60 if value % 2 else -60
        role = "labelled" if number < 3 else "unlabelled" if number < 5 else "validation"
        affine = np.diag([*spacing, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"c{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"c{number}_label.nii.gz")
        named = "" if role == "unlabelled" else f"c{number}_label.nii.gz"
        rows.append([f"c{number}", f"c{number}.nii.gz", named, role])
    return write_table(folder / "cases.csv", rows)
