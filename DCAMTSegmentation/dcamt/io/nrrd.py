"""NRRD and Slicer's segmentations (`.seg.nrrd`) through pynrrd."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import check_size
from .library_errors import check_whole, library_errors

# Signs that take a space's axes to RAS. Other spaces ("scanner-xyz", ...) say nothing of the patient.
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
    "lps": (-1, -1, 1),
}
_SPATIAL_KINDS = ("domain", "space")
_COLOUR_KINDS = ("RGB-color", "RGBA-color", "HSV-color", "XYZ-color", "3-color", "4-color")
_BYTES = {
    name: size
    for size, names in (
        (1, "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t"),
        (2, "short,short int,signed short,int16,int16_t,ushort,unsigned short,uint16,uint16_t"),
        (4, "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float"),
        (8, "longlong,long long,int64,int64_t,ulonglong,unsigned long long,uint64,uint64_t,double"),
    )
    for name in names.split(",")
}
_ELSEWHERE = {"data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"}
"""Keys of headers whose voxels do not simply follow them."""
_REMEDY = "Open it in 3D Slicer and save it again."


@dataclass(frozen=True)
class StoredSegment:
    """A segment of a segmentation: the voxels of `value` in `layer`, which become `label` in one labelmap.

    name, color (red, green, blue: each 0 to 1): None where the file has none, or none that can be used.
    """

    layer: int
    value: int
    label: int
    name: str | None = None
    color: tuple[float, float, float] | None = None


def read_nrrd(path: Path, flatten_segments: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine (RAS mm) of a `.nrrd`, `.nhdr` or `.seg.nrrd` file.

    Axes without a direction (kind "list", "vector", ...) become channels. A header with spacings alone is
    taken as lying along LPS with its origin at 0, as ITK does. With `flatten_segments`, a segmentation's
    layers become one labelmap (C = 1). Raises InputError for a damaged file, colour voxels, fewer than three
    spatial axes, an unknown space or no spacing.
    """
    import nrrd

    with library_errors(path, "a NRRD image"), open(path, "rb") as file:
        header: dict[str, Any] = dict(nrrd.read_header(file))
        sizes, spatial, affine = _lattice(path, header)
        voxels = nrrd.read_data(header, file, str(path))
    voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    shape = [sizes[axis] for axis in spatial]
    voxels = np.ascontiguousarray(voxels.transpose(*others, *spatial).reshape(-1, *shape))
    if flatten_segments:
        voxels = _flatten_segments(path, voxels, header)
    return voxels, affine


def read_nrrd_header(path: Path, flatten_segments: bool = False) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (C, I, J, K) and affine (RAS mm) as `read_nrrd` gives them, without its voxels.

    Raises InputError as `read_nrrd` does, but for damage inside of the voxels.
    """
    import nrrd

    with library_errors(path, "a NRRD image"), open(path, "rb") as file:
        header: dict[str, Any] = dict(nrrd.read_header(file))
        start = file.tell()
        sizes, spatial, affine = _lattice(path, header)
    encoding, bytes_each = str(header.get("encoding", "")).lower(), _BYTES.get(str(header.get("type", "")).lower())
    if bytes_each and encoding in ("raw", "gzip", "gz") and not _ELSEWHERE & header.keys():
        check_whole(path, int(np.prod(sizes)) * bytes_each, start, packed=encoding != "raw")
    channels = int(np.prod([size for axis, size in enumerate(sizes) if axis not in spatial]))
    if flatten_segments and _stored_segments(path, header, channels):
        channels = 1
    return (channels, *(sizes[axis] for axis in spatial)), affine


def read_nrrd_segments(path: Path) -> tuple[StoredSegment, ...]:
    """The segments that a NRRD file's header names, with the labels that `read_nrrd` gives them; the first is lowest.

    Raises InputError as `read_nrrd` does for a damaged header.
    """
    import nrrd

    with library_errors(path, "a NRRD image"), open(path, "rb") as file:
        header: dict[str, Any] = dict(nrrd.read_header(file))
        sizes = [int(size) for size in header["sizes"]]
        _, spatial = _directions(path, header, len(sizes), [str(kind) for kind in header.get("kinds", [])])
        layers = int(np.prod([size for axis, size in enumerate(sizes) if axis not in spatial]))
    return _stored_segments(path, header, layers)


def _lattice(path: Path, header: dict[str, Any]) -> tuple[list[int], list[int], np.ndarray]:
    """The stored axes' sizes, which of them are spatial, and the affine (RAS mm)."""
    sizes = [int(size) for size in header["sizes"]]
    check_size(sizes, path)
    kinds = [str(kind) for kind in header.get("kinds", [])]
    if any(kind in _COLOUR_KINDS for kind in kinds):
        raise InputError("is a colour (RGB) image", path=path, remedy="A grey-scale scan is needed.")
    if "complex" in kinds:
        raise InputError("holds complex numbers", path=path, remedy="Export the magnitude image.")
    directions, spatial = _directions(path, header, len(sizes), kinds)
    affine = np.eye(4)
    affine[:3, :3] = directions.T  # a row is the step along one axis: a column of the affine
    affine[:3, 3] = _origin(header)
    return sizes, spatial, np.diag([*_space_signs(path, header), 1.0]) @ affine


def _directions(path: Path, header: dict[str, Any], axes: int, kinds: list[str]) -> tuple[np.ndarray, list[int]]:
    """(3, 3) step in the file's own space along each spatial axis, and which axes those are."""
    stored = header.get("space directions")
    if stored is not None:
        rows = [np.full(3, np.nan) if row is None else np.asarray(row, dtype=np.float64) for row in stored]
        # An axis without direction ("none") is not spatial; one with some NaN is a fault for `check_grid`.
        spatial = [axis for axis, row in enumerate(rows) if not np.isnan(row).all()]
        _need_three(path, spatial, axes)
        if any(rows[axis].shape != (3,) for axis in spatial):
            raise InputError("has directions that are not three-dimensional", path=path, remedy=_REMEDY)
        return np.stack([rows[axis] for axis in spatial]), spatial
    spatial = [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS]
    if not spatial:
        spatial = list(range(axes))
    _need_three(path, spatial, axes)
    spacings = np.asarray(header.get("spacings", [np.nan] * axes), dtype=np.float64)[spatial]
    if np.isnan(spacings).any():
        raise InputError("does not say how far its voxels are apart (no space directions)", path=path, remedy=_REMEDY)
    return np.diag(spacings), spatial


def _need_three(path: Path, spatial: list[int], axes: int) -> None:
    if axes < 3 or len(spatial) < 3:
        found = f"is a {axes}D image" if axes < 3 else f"has {len(spatial)} spatial axes of {axes}"
        raise InputError(found, path=path, remedy="A three-dimensional scan is needed.")
    if len(spatial) > 3:
        raise InputError(f"is a {axes}D image", path=path, remedy="Extract one three-dimensional volume from it.")


def _origin(header: dict[str, Any]) -> np.ndarray:
    """(3,) centre of the first voxel in the file's own space; 0 where the header has none."""
    return np.asarray(header.get("space origin", np.zeros(3)), dtype=np.float64)


def _space_signs(path: Path, header: dict[str, Any]) -> tuple[int, int, int]:
    space = header.get("space")
    if space is None and "space directions" not in header:
        return _TO_RAS["lps"]
    signs = _TO_RAS.get(str(space).lower())
    if signs is None:
        what = "names no space" if space is None else f'lies in the space "{space}"'
        raise InputError(f"{what}, so left and right are unknown", path=path, remedy=_REMEDY)
    return signs


def _flatten_segments(path: Path, layers: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """(1, I, J, K) labels of the segments in `layers` (L, I, J, K); unchanged if the header names none."""
    segments = _stored_segments(path, header, len(layers))
    if not segments:
        return layers
    labels = np.zeros(layers.shape[1:], dtype=np.min_scalar_type(max(segment.label for segment in segments)))
    for segment in segments:
        labels[layers[segment.layer] == segment.value] = segment.label
    return labels[np.newaxis]


def _stored_segments(path: Path, header: dict[str, Any], layers: int) -> tuple[StoredSegment, ...]:
    """The segments in the file's order; their labels are their values, or 1, 2, ... where these are not unique.

    Files of before Slicer 4.11 have no label values or layers: there segment n is the voxels of 1 in layer n.
    """
    found = {int(match[1]) for key in header if (match := re.match(r"Segment(\d+)_", key))}
    places: list[tuple[int, int, int]] = []
    for number in sorted(found):
        try:
            value = int(header.get(f"Segment{number}_LabelValue", 1))
            layer = int(header.get(f"Segment{number}_Layer", number if layers > 1 else 0))
        except ValueError as error:
            raise InputError(f"has a damaged segment {number}", path=path, remedy=_REMEDY) from error
        if not 0 <= layer < layers:
            raise InputError(f"names layer {layer} of {layers} in a segment", path=path, remedy=_REMEDY)
        places.append((number, layer, value))
    values = [value for _, _, value in places]
    unique = len(set(values)) == len(values) and min(values, default=1) > 0
    return tuple(
        StoredSegment(
            layer,
            value,
            value if unique else place,
            str(header.get(f"Segment{number}_Name", "")) or None,
            _color(str(header.get(f"Segment{number}_Color", ""))),
        )
        for place, (number, layer, value) in enumerate(places, start=1)
    )


def _color(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (float(part) for part in text.split())
    except ValueError:
        return None
    color = (red, green, blue)
    return color if all(0 <= part <= 1 for part in color) else None
