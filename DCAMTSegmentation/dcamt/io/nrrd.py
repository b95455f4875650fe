"""Read NRRD files and Slicer's segmentations (`.nrrd`, `.nhdr`, `.seg.nrrd`) with the same geometry as ITK."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError, plain_number
from ..geometry import MISSING_DIRECTIONS, Grid
from ..volume import GREY_SCALE_REMEDY
from .nrrd_data import NrrdData
from .nrrd_header import OPEN_IN_SLICER, NrrdHeader, array_sizes, read_nrrd_header
from .stored_image import DAMAGED, StoredImage, StoredSegment, damaged_field_error, library_errors, refuse_other_unit

# Signs that convert a space's axes to RAS. Other spaces are refused: "scanner-xyz" and "3D-left-handed" have no known
# relation to the patient.
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
    "lps": (-1, -1, 1),
    "left-posterior-superior-time": (-1, -1, 1),
    "lpst": (-1, -1, 1),
}
# ITK reads these spaces as "left-posterior-superior-time".
_MIRRORED_BY_ITK = ("right-anterior-superior-time", "rast", "left-anterior-superior-time", "last")
_STATE_SPACE = 'Write the correct space into its header, such as "space: left-posterior-superior", or export it again.'
_SPACING_TOLERANCE = 0.01  # Spacings that differ by a larger fraction contradict each other.
_NOT_STATED = ("none", "???", "nan")  # words in place of the direction or spacing of an axis
_SPATIAL_KINDS = ("domain", "space")
_COLOR_KINDS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color")


def open_nrrd(path: Path) -> StoredImage:
    """Open a NRRD file; its data follow the header or lie in other files.

    Axes with a direction are spatial. If the header has spacings instead of directions, the axes of the kind "domain"
    or "space" are spatial; if no axis has such a kind, all axes are spatial. The axes that are not spatial become
    channels. If all spatial axes after the third have one voxel, these axes become channels, too. Without an origin,
    the first voxel lies at 0. Bytes after the data are ignored if they are fewer than a slice, or if the header skips
    lines or bytes.

    A header without `space` is accepted if it has no `space directions`, or if its `space dimension` is 4. The
    coordinates are then LPS, with a note.

    Raises:
        InputError: the file is damaged; a data file is missing; the image has colours or complex numbers, or does not
            have three spatial axes; the space, spacing, type of numbers, encoding or byte order is unknown; lengths are
            not in millimetres; or the header has `axis mins` or `axis maxs`, but neither `space` nor `space origin`.
    """
    with library_errors(path, "a NRRD image"):
        header = read_nrrd_header(path)
        sizes = array_sizes(path, header)
        kinds = header.fields.get("kinds", "").lower().split()
        if any(kind in _COLOR_KINDS for kind in kinds):
            raise InputError("is a colour (RGB) image", path=path, remedy=GREY_SCALE_REMEDY)
        if "complex" in kinds:
            raise InputError("holds complex numbers", path=path, remedy="Export the magnitude image.")
        directions, spatial = _directions(path, header, sizes, kinds)
        _refuse_other_units(path, header, spatial)
        affine = np.eye(4)
        affine[:3, :3] = directions.T  # The steps are rows of `directions`, but columns of the affine.
        affine[:3, 3] = _origin(path, header)
        affine = np.diag([*_space_signs(path, header), 1.0]) @ affine
        data = NrrdData(path, header, sizes)
    channel_axes = [axis for axis in range(len(sizes)) if axis not in spatial]
    channels = math.prod(sizes[axis] for axis in channel_axes)
    i, j, k = (sizes[axis] for axis in spatial)

    def load() -> np.ndarray:
        with library_errors(path, "a NRRD image"):
            voxels = data.read().reshape(sizes, order="F").transpose(*channel_axes, *spatial)
            return np.ascontiguousarray(voxels.reshape(channels, i, j, k))

    return StoredImage(
        channels=channels,
        grid=Grid((i, j, k), affine),
        load=load,
        verify=data.verify,
        notes=() if "space" in header.fields else (MISSING_DIRECTIONS,),
        segments=_stored_segments(path, header.pairs, channels),
    )


def _vectors(path: Path, header: NrrdHeader, name: str) -> list[np.ndarray | None]:
    """Return the vectors of a field such as "(1,0,0) none (0, 0, 1)"; "none" gives None."""
    rows: list[np.ndarray | None] = []
    for word in re.findall(r"\([^)]*\)|[^\s()]+", header.fields[name]):
        try:
            if word.startswith("("):
                rows.append(np.array([float(number) for number in word[1:-1].split(",")]))
            elif word.lower() in _NOT_STATED:
                rows.append(None)
            else:
                raise ValueError(f"{word} is not a vector")
        except ValueError as error:
            raise damaged_field_error(path, name) from error
    return rows


def _directions(path: Path, header: NrrdHeader, sizes: list[int], kinds: list[str]) -> tuple[np.ndarray, list[int]]:
    """Return the steps along the three spatial axes in the file's space, (3, 3), and the indices of these axes."""
    axes = len(sizes)
    if "space directions" in header.fields:
        rows = [np.full(3, np.nan) if row is None else row for row in _vectors(path, header, "space directions")]
        if len(rows) != axes:
            what = "the number of space directions differs from the number of axes"
            raise InputError(what, path=path, remedy=DAMAGED)
        # An axis whose direction is "none" or all NaN is not spatial; `check_grid` refuses an axis with some NaN.
        spatial = _without_single_voxels([axis for axis, row in enumerate(rows) if not np.isnan(row).all()], sizes)
        _require_three_axes(path, spatial, axes)
        steps = [_in_three_dimensions(rows[axis]) for axis in spatial]
        if any(step.shape != (3,) for step in steps):
            raise InputError("has directions that are not three-dimensional", path=path, remedy=OPEN_IN_SLICER)
        directions = np.stack(steps)
        _refuse_other_spacings(path, _spacings(header, axes)[spatial], directions)
        return directions, spatial
    spatial = [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS] or list(range(axes))
    spatial = _without_single_voxels(spatial, sizes)
    _require_three_axes(path, spatial, axes)
    spacings = _spacings(header, axes)[spatial]
    if np.isnan(spacings).any():
        remedy = "Write the spacing into its header, or export it again."
        raise InputError("lacks the spacing of its voxels (no space directions)", path=path, remedy=remedy)
    return np.diag(spacings), spatial


def _without_single_voxels(spatial: list[int], sizes: list[int]) -> list[int]:
    return spatial[:3] if all(sizes[axis] == 1 for axis in spatial[3:]) else spatial


def _in_three_dimensions(vector: np.ndarray) -> np.ndarray:
    return vector[:3] if vector.shape == (4,) and vector[3] == 0 else vector


def _spacings(header: NrrdHeader, axes: int) -> np.ndarray:
    """Return the header's spacings, (axes,); NaN where not stated, all NaN if the field is damaged."""
    words = header.fields.get("spacings", "").lower().split()
    try:
        spacings = [math.nan if word in _NOT_STATED else float(word) for word in words]
    except ValueError:
        spacings = []
    return np.array(spacings if len(spacings) == axes else [math.nan] * axes)


def _refuse_other_spacings(path: Path, spacings: np.ndarray, directions: np.ndarray) -> None:
    """Raise InputError if the spacings contradict the directions. ITK refuses every header that states both.

    Args:
        spacings: (3,) mm; NaN where not stated.
        directions: the steps along the spatial axes, (3, 3).
    """
    lengths = np.linalg.norm(directions, axis=1)
    differs = np.abs(np.abs(spacings) - lengths) > _SPACING_TOLERANCE * lengths  # False for NaN
    if differs.any():
        stated, stepped = (" x ".join(plain_number(mm, 4) for mm in numbers) for numbers in (spacings, lengths))
        what = f"states two spacings of its voxels: {stated} mm (spacings) and {stepped} mm (space directions)"
        raise InputError(what, path=path, remedy="Correct the header, or export the image again.")


def _require_three_axes(path: Path, spatial: list[int], axes: int) -> None:
    if axes < 3 or len(spatial) < 3:
        what = f"is a {axes}D image" if axes < 3 else f"has {axes} axes, but only {len(spatial)} of them are spatial"
        raise InputError(what, path=path, remedy="A three-dimensional scan is needed.")
    if len(spatial) > 3:
        raise InputError(f"is a {axes}D image", path=path, remedy="Extract one three-dimensional volume.")


def _refuse_other_units(path: Path, header: NrrdHeader, spatial: list[int]) -> None:
    """Raise InputError if a spatial axis has another unit than millimetres; ITK would ignore the unit."""
    of_axes = re.findall(r'"([^"]*)"', header.fields.get("units", ""))
    units = [unit for axis, unit in enumerate(of_axes) if axis in spatial]
    if "space directions" in header.fields:
        units += re.findall(r'"([^"]*)"', header.fields.get("space units", ""))[:3]
    for unit in units:
        refuse_other_unit(path, unit)


def _origin(path: Path, header: NrrdHeader) -> np.ndarray:
    """Return the centre of the first voxel in the file's space, (3,); 0 if the header states no origin."""
    if "space origin" not in header.fields:
        names = ("axis mins", "axismins", "axis maxs", "axismaxs")
        stated = [name for name in names if set(header.fields.get(name, "").lower().split()) - {"nan"}]
        if stated and "space" not in header.fields:  # ITK computes the origin from these fields.
            what = f'states its position in the field "{stated[0]}", which DCAMT does not read'
            raise InputError(what, path=path, remedy=OPEN_IN_SLICER)
        return np.zeros(3)
    rows = _vectors(path, header, "space origin")
    if len(rows) != 1 or rows[0] is None or rows[0].shape not in ((3,), (4,)):
        raise damaged_field_error(path, "space origin")
    return rows[0][:3]


def _space_signs(path: Path, header: NrrdHeader) -> tuple[int, int, int]:
    space = header.fields.get("space")
    has_directions = "space directions" in header.fields
    is_4d = header.fields.get("space dimension") == "4"
    if space is None and (is_4d or not has_directions):
        return _TO_RAS["lps"]  # as in ITK
    signs = _TO_RAS.get(str(space).lower())
    if signs is None:
        what = "lacks the coordinate system (space) in its header, so left and right are unknown"
        remedy = _STATE_SPACE
        if str(space).lower() in _MIRRORED_BY_ITK:
            what = f'has the coordinate system (space) "{space}" in its header: 3D Slicer would mirror the image'
            remedy = 'Export it with the space "left-posterior-superior".'
        elif space:
            what = f'has the coordinate system (space) "{space}" in its header, so left and right are unknown'
        raise InputError(what, path=path, remedy=remedy)
    return signs


def _stored_segments(path: Path, pairs: dict[str, str], layers: int) -> tuple[StoredSegment, ...]:
    """Return the segments in the order of their numbers.

    A segment's value in the file (`LabelValue`) becomes the segment's label in the labelmap. But if two segments have
    the same value, or a value is below 1, all segments are numbered 1, 2, 3, ... instead. Files from before Slicer 4.11
    lack the fields `LabelValue` and `Layer`: all segments have the value 1, and segment n lies in channel n of the
    file.
    """
    numbers = {int(match[1]) for key in pairs if (match := re.match(r"Segment(\d+)_", key))}
    segments = [_stored_segment(path, pairs, layers, number) for number in sorted(numbers)]
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values) or min(values, default=1) < 1:
        segments = [replace(segment, label=place) for place, segment in enumerate(segments, start=1)]
    return tuple(segments)


def _stored_segment(path: Path, pairs: dict[str, str], layers: int, number: int) -> StoredSegment:
    try:
        value = int(pairs.get(f"Segment{number}_LabelValue", 1))
        layer = int(pairs.get(f"Segment{number}_Layer", number if layers > 1 else 0))
    except ValueError as error:
        raise InputError(f"has a damaged segment {number}", path=path, remedy=OPEN_IN_SLICER) from error
    if not 0 <= layer < layers:
        what = f"has a segment in layer {layer} (counted from 0), but the number of layers is {layers}"
        raise InputError(what, path=path, remedy=OPEN_IN_SLICER)
    name = pairs.get(f"Segment{number}_Name", "").strip() or None
    return StoredSegment(layer, value, value, name, _color(pairs.get(f"Segment{number}_Color", "")))


def _color(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (float(part) for part in text.split())
    except ValueError:
        return None
    color = (red, green, blue)
    return color if all(0 <= part <= 1 for part in color) else None
