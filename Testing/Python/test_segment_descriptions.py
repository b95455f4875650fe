"""Names and colours of segments are read from a segmentation file; missing and invalid ones get defaults."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
import slicerio
from dcamt.geometry import Grid
from dcamt.io.readers import read_labelmap, read_segments
from dcamt.io.writers import write_labelmap
from dcamt.report.picture import describe_segments
from dcamt.segment_colors import SEGMENT_COLORS
from dcamt.volume import Labelmap
from dcamt_testing.scan_files import refused

SHAPE = (70, 44, 26)


@pytest.mark.parametrize("values", [(1, 2, 1), (3, 2, 9)])
def test_segments_in_layers_keep_their_names_and_colors(tmp_path: Path, values: tuple[int, int, int]) -> None:
    """If segments in different layers have the same value, `read_labelmap` renumbers all segments 1, 2, 3."""
    boxes = [np.zeros(SHAPE, bool) for _ in values]
    for box, start in zip(boxes, (5, 25, 45), strict=True):
        box[start : start + 10, 10:30, 5:20] = True
    first, second = boxes[0] * values[0] + boxes[1] * values[1], boxes[2] * values[2]
    colors = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    segments = [
        {"id": name, "name": name, "color": list(color), "labelValue": value, "layer": layer}
        for name, color, value, layer in zip(("atrium", "aorta", "vein"), colors, values, (0, 0, 1), strict=True)
    ]
    path = tmp_path / "x.seg.nrrd"
    voxels = np.stack([first, second]).astype(np.uint8)
    slicerio.write_segmentation(str(path), {"voxels": voxels, "ijkToLPS": np.eye(4), "segments": segments})
    labelmap = read_labelmap(path)
    described = {segment.name: segment for segment in describe_segments(path, labelmap)}
    assert set(described) == {"atrium", "aorta", "vein"}
    for name, box, color in zip(("atrium", "aorta", "vein"), boxes, colors, strict=True):
        assert np.array_equal(labelmap.voxels == described[name].label, box), name
        assert described[name].color == color


def test_backslashes_in_names_of_segments_are_read_by_the_rules_of_nrrd(tmp_path: Path) -> None:
    path = tmp_path / "x.seg.nrrd"
    header = {"space": "LPS", "space directions": np.eye(3), "kinds": ["domain"] * 3}
    header |= {"Segment0_LabelValue": "1", "Segment0_Name": "new NAME"}
    nrrd.write(str(path), np.ones(SHAPE, np.uint8), header)
    for stored, name in ((rb"C:\\new", r"C:\new"), (rb"a\nb", "a\nb"), (rb"a\tb", r"a\tb"), (rb"\\\\n", r"\\n")):
        path.write_bytes(path.read_bytes().replace(b"new NAME", stored))
        assert [segment.name for segment in read_segments(path)] == [name]
        path.write_bytes(path.read_bytes().replace(stored, b"new NAME"))


def test_missing_or_invalid_names_and_colors_get_defaults(tmp_path: Path) -> None:
    path = tmp_path / "x.seg.nrrd"
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[2:5], voxels[6:9] = 1, 2
    header = {"space": "LPS", "space directions": np.eye(3), "kinds": ["domain"] * 3}
    header |= {"Segment0_LabelValue": "1", "Segment0_Name": "", "Segment0_Color": "red"}
    header |= {"Segment1_LabelValue": "2", "Segment1_Name": "wall", "Segment1_Color": "0 0.5 7"}
    nrrd.write(str(path), voxels, header)
    assert [(s.label, s.name, s.color) for s in read_segments(path)] == [(1, None, None), (2, "wall", None)]
    described = describe_segments(path, read_labelmap(path))
    assert [(s.name, s.color) for s in described] == [("Segment 1", SEGMENT_COLORS[0]), ("wall", SEGMENT_COLORS[1])]
    write_labelmap(Labelmap(voxels, Grid(SHAPE, np.eye(4))), tmp_path / "x.nii.gz")
    assert read_segments(tmp_path / "x.nii.gz") == ()


@pytest.mark.parametrize("mapping", [None, {"atrium": 1}])
@pytest.mark.parametrize(("kind", "value"), [("u1", 3), ("i2", 300), ("i2", -1), ("f4", 1.5)])
def test_segmentation_with_voxels_of_no_segment_is_refused(
    tmp_path: Path, kind: str, value: float, mapping: dict[str, int] | None
) -> None:
    path, voxels = tmp_path / "x.seg.nrrd", np.zeros(SHAPE, kind)
    voxels[2:5] = 1
    header = {"space": "LPS", "space directions": np.eye(3), "kinds": ["domain"] * 3}
    header |= {"Segment0_LabelValue": "1", "Segment0_Name": "atrium"}
    nrrd.write(str(path), voxels, header)
    np.testing.assert_array_equal(read_labelmap(path, mapping).voxels, voxels)
    voxels[6:9] = value
    nrrd.write(str(path), voxels, header)
    refused(lambda: read_labelmap(path, mapping), path, f"does not describe its segment {value}.")


def test_segmentation_with_voxels_in_a_layer_without_segments_is_refused(tmp_path: Path) -> None:
    voxels = np.zeros((2, *SHAPE), np.uint8)
    voxels[:, 2:5] = 1
    segment = {"id": "atrium", "name": "atrium", "color": [1, 0, 0], "labelValue": 1, "layer": 0}
    path = tmp_path / "x.seg.nrrd"
    slicerio.write_segmentation(str(path), {"voxels": voxels, "ijkToLPS": np.eye(4), "segments": [segment]})
    refused(lambda: read_labelmap(path), path, "does not describe its segment 1")
