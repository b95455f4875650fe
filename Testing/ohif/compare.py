"""Compare the labels that OHIF's package and DCAMT read from a DICOM segmentation.

    python Testing/ohif/compare.py SERIES_FOLDER SEGMENTATION.dcm PACKAGES

PACKAGES: a folder in which the npm packages named in `read_segmentation.mjs` are installed. The exit status is 1 if a
voxel differs or no voxel is labelled.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
from dcamt.io.readers import read_labelmap


def count_differences(series: Path, segmentation: Path, packages: Path) -> tuple[int, int]:
    """Return the number of voxels that OHIF's package labels, and the number of voxels whose label in DCAMT differs."""
    program = Path(shutil.copy(Path(__file__).with_name("read_segmentation.mjs"), packages))
    images = {pydicom.dcmread(file).SOPInstanceUID: file for file in sorted(series.iterdir()) if is_dicom(file)}
    arguments = ["node", program, segmentation, *images.values()]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, encoding="utf-8", check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    ours = read_labelmap(segmentation)
    to_index = np.linalg.inv(ours.grid.affine)
    labelled = differing = 0
    for uid, labels in answer["labels"].items():
        image = pydicom.dcmread(images[uid])
        theirs = np.array(labels).reshape(image.Rows, image.Columns)
        rows, columns = (axis[..., None] for axis in np.mgrid[: image.Rows, : image.Columns])
        along_row, along_column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        between_rows, between_columns = map(float, image.PixelSpacing)
        lps = np.array(image.ImagePositionPatient, float) + columns * along_row * between_columns
        ras = (lps + rows * along_column * between_rows) * [-1, -1, 1]
        index = np.rint(ras @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
        labelled += int(np.count_nonzero(theirs))
        differing += int((theirs != ours.voxels[tuple(np.moveaxis(index, -1, 0))]).sum())
    return labelled, differing


def is_dicom(file: Path) -> bool:
    return file.is_file() and file.read_bytes()[128:132] == b"DICM"


if __name__ == "__main__":
    labelled, differing = count_differences(*map(Path, sys.argv[1:]))
    print(f"{labelled} voxels labelled by OHIF's package, {differing} voxels with different labels in DCAMT")
    sys.exit(bool(differing or not labelled))
