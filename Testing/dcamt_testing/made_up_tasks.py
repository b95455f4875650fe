"""Write the cases of made-up tasks, whose classes are bright or dark balls in noise."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from dcamt_testing.synthetic import write_table


def ball_mask(shape: tuple[int, int, int], spacing: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return the mask of a ball: `centre` in voxels, `spacing` and `radius` in mm."""
    index = np.indices(shape).transpose(1, 2, 3, 0)
    return np.asarray(np.linalg.norm((index - centre) * spacing, axis=-1) < radius)


def write_task(
    folder: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], radii: tuple[float, ...]
) -> Path:
    """Write six cases (three labelled, two unlabelled, one for validation); return the path of the case list.

    Every case has one ball for each class, bright if the class's label value is odd, else dark. A ball may hide parts
    of the balls of smaller label values. Unlabelled cases have a label file too, but the list does not name it.

    Args:
        spacing: mm.
        radii: the balls' radii in mm, for the label values 1, 2, …
    """
    sides = np.array(spacing)
    rows = []
    for number in range(6):
        draw = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        image = draw.normal(100, 10, shape)
        for value, radius in enumerate(radii, start=1):
            margin, middle = (radius + 4) / sides, np.array(shape) / 2
            centre = draw.uniform(np.minimum(margin, middle), np.maximum(shape - margin, middle))
            label[ball_mask(shape, sides, centre, radius)] = value
        for value in range(1, len(radii) + 1):
            image[label == value] += 60 if value % 2 else -60
        role = "labelled" if number < 3 else "unlabelled" if number < 5 else "validation"
        affine = np.diag([*spacing, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"c{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"c{number}_label.nii.gz")
        listed_label = "" if role == "unlabelled" else f"c{number}_label.nii.gz"
        rows.append([f"c{number}", f"c{number}.nii.gz", listed_label, role])
    return write_table(folder / "cases.csv", rows)
