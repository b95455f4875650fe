"""Readers, writers, folder searches and the command line agree with the table of formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcamt.commands.segmentation_options import SEGMENTATION_FORMATS
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.formats import (
    FORMATS,
    LABEL_ENDINGS,
    LABELMAP_OUTPUTS,
    SCAN_ENDINGS,
    VOLUME_OUTPUTS,
    Format,
    agreement_path,
    ending,
    scan_name,
    without_maps,
)
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.volume import Labelmap, Volume

GRID = Grid((9, 10, 11), np.diag([1.0, 2.0, 3.0, 1.0]))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.ending)
def test_ending_of_every_format_is_recognised_and_removed(form: Format) -> None:
    for name in ("x", "a.b", "X.Y"):
        for end in (form.ending, form.ending.upper()):
            assert ending(f"folder.d/{name}{end}") == form.ending
            assert scan_name(f"folder.d/{name}{end}") == name


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.ending)
def test_table_states_correctly_which_formats_can_be_written(tmp_path: Path, form: Format) -> None:
    values = np.arange(9 * 10 * 11, dtype=np.uint16).reshape(GRID.shape)
    labels = (values % 3).astype(np.uint8)
    path = tmp_path / f"x{form.ending}"
    if form.writes_volume:
        write_volume(Volume(values[None], GRID), path)
        np.testing.assert_array_equal(read_scan(path).voxels[0], values)
        path.unlink()
    else:
        with pytest.raises(InputError, match=r"Use \.nii\.gz or \.nrrd or \.nii\.$"):
            write_volume(Volume(values[None], GRID), path)
    if form.ending == ".seg.nrrd":  # needs segments; tested in test_volume.py
        assert form.writes_labels
    elif form.writes_labels:
        write_labelmap(Labelmap(labels, GRID), path)
        np.testing.assert_array_equal(read_labelmap(path).voxels, labels)
    else:
        with pytest.raises(InputError, match=r"Use \.seg\.nrrd or \.nii\.gz or \.nrrd or \.nii\.$"):
            write_labelmap(Labelmap(labels, GRID), path)


def test_every_format_that_is_written_is_also_searched_in_folders() -> None:
    assert set(LABELMAP_OUTPUTS) <= set(LABEL_ENDINGS)
    assert set(VOLUME_OUTPUTS) <= set(SCAN_ENDINGS)
    # A segmentation file in a folder of scans is not a scan.
    assert not any("seg" in end for end in SCAN_ENDINGS)


def test_formats_of_the_command_line_can_be_written() -> None:
    assert SEGMENTATION_FORMATS == ("seg.nrrd", "nii.gz", "nrrd", "dcm")  # users' scripts depend on these names
    endings = {f".{form}" for form in SEGMENTATION_FORMATS}
    assert endings - {".dcm"} <= set(LABELMAP_OUTPUTS)  # io.dicom_output, not io.writers, writes DICOM


def test_agreement_maps_are_omitted_if_their_segmentation_is_beside_them() -> None:
    names = ["x.seg.nrrd", "x_agreement.nrrd", "y_agreement.nrrd", "z.nii.gz", "z_agreement.nii", "z_agreement.nii.gz"]
    kept = without_maps(Path("out") / name for name in names)
    assert [path.name for path in kept] == ["x.seg.nrrd", "y_agreement.nrrd", "z.nii.gz"]
    for end in LABELMAP_OUTPUTS:
        assert ending(agreement_path(Path(f"x{end}"))) in VOLUME_OUTPUTS
