"""Define scans and labelmaps on their grids, and check whether they can be segmented or used as labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .errors import InputError, plain_number
from .geometry import Grid, bounding_box, reorientation_between
from .typed_names import comparable_name

MINIMUM_AXIS = 3  # voxels; fewer slices are not a volume
MAXIMUM_VOXELS = 2**30  # 1024 cubed, or 4 GiB as float32; a larger number usually means a damaged header
MAXIMUM_DISTANCE_MM = 1e6  # from the origin to the first voxel, along each axis
MAXIMUM_MM = 1000.0  # limit for the longest side of a scan
MINIMUM_MM = 5.0  # limit for the two longest sides of a scan; a whole heart is 150 mm long
MINIMUM_THICKNESS_MM = 1.0  # limit for the shortest side of a scan
LARGE_MM = 600.0  # if two sides of a scan are longer, the user is warned; a body is narrower
SMALL_ML = 20.0  # limit for a warning; crops around a hippocampus, about 35 x 50 x 35 mm, have 30 mL or more
FINE_MM = 0.1  # limit for a warning; clinical CT and MRI have larger voxels
MAXIMUM_LABEL_MM, MINIMUM_LABEL_MM = 2500.0, 1.0  # limits for the longest side of a label; a body is 2 m long
MINIMUM_LABEL_SPACING_MM = 0.01
GREY_SCALE_REMEDY = "A grey-scale scan is needed."
"""Remedy for colour images."""

_MINIMUM_RELATIVE_RANGE = 2.0**-16  # (maximum - minimum) / largest magnitude of a channel's intensities
GRID_TOLERANCE = 0.05
"""Two grids count as equal if they differ by at most this many voxels along each axis; files hold rounded geometry."""
MASK_VALUE = 255
"""Value that many programs write into a mask of one structure."""
# Tolerance for whole numbers. A file may store the voxel 255 and, as float32, the slope 1/255. Their product in float64
# is 1.00000006, not 1.
_LABEL_ROUNDING = 1e-4


class IdentifyingNote(str):
    """A note that names files, series or segments and may therefore name the patient; anonymous reports omit it."""

    __slots__ = ()


class OverlapNote(IdentifyingNote):
    """A note that voxels of the segment `label` went to other segments, which overlap it in the file."""

    __slots__ = ("label",)
    label: int

    def __new__(cls, text: str, label: int = 0) -> OverlapNote:
        # `label` has a default, because unpickling passes the text alone and sets `label` afterwards.
        note = super().__new__(cls, text)
        note.label = label
        return note


class ChannelNote(str):
    """A note that a scan's channels have another order or other names than those of the recipe."""

    __slots__ = ()


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: `voxels` (C, I, J, K) on `grid`. `check_scan` refuses voxels that are not real numbers.

    Attributes:
        path: the file or folder that the scan was read from, if any.
        notes: messages for the user on how the file was interpreted; those that name files are `IdentifyingNote`.
        frames: for each slice of a DICOM scan, its file and the index of its frame in that file; otherwise empty.
        channel_names: the names of the channels, in the order of `voxels`; empty if unknown.
        working_folder: the process's working folder when the scan was read. Relative paths in `path` and `frames`
            start there.
        modality: the modality that the scan's DICOM files state, such as "CT"; "" if unknown, or if channels differ.
    """

    voxels: np.ndarray
    grid: Grid
    path: Path | None = None
    notes: tuple[str, ...] = ()
    frames: tuple[tuple[Path, int], ...] = ()
    channel_names: tuple[str, ...] = ()
    working_folder: str = field(default_factory=_working_folder)
    modality: str = ""

    def __post_init__(self) -> None:
        check_array(self.voxels)
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.grid.shape:
            raise ValueError(f"voxels {self.voxels.shape} are not (C, I, J, K) on a grid of {self.grid.shape}")

    def current_path(self, file: Path) -> Path:
        """Return a file of this scan, as an absolute path if the working folder has changed since the scan was read."""
        return file if _working_folder() == self.working_folder else Path(self.working_folder, file)


@dataclass(frozen=True, eq=False)
class Labelmap:
    """Labels: `voxels` (I, J, K) of an unsigned integer type, 0 = background, on `grid`.

    Attributes:
        partial: whether the grid may be only a box around the segments, as in many `.seg.nrrd` files; everything
            outside the grid is then background.
        notes: as in `Volume`.
        finest_step_mm: the smallest possible distance between slices; 0 if the file cannot omit empty slices between
            the slices of the grid.
    """

    voxels: np.ndarray
    grid: Grid
    path: Path | None = None
    partial: bool = False
    notes: tuple[str, ...] = ()
    finest_step_mm: float = 0.0

    def __post_init__(self) -> None:
        check_array(self.voxels)
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"labels {self.voxels.shape} do not fit a grid of {self.grid.shape}")
        if self.voxels.dtype.kind != "u":
            raise ValueError(f"labels are unsigned integers, not {self.voxels.dtype}")

    def notes_about(self, labels: Collection[int]) -> tuple[str, ...]:
        """Return each `OverlapNote` whose label value is in `labels`, and all notes that are no `OverlapNote`."""
        return tuple(note for note in self.notes if not isinstance(note, OverlapNote) or note.label in labels)


@dataclass(frozen=True)
class Code:
    """A coded concept, as in DICOM: scheme ("SCT" is SNOMED CT), value and meaning."""

    scheme: str
    value: str
    meaning: str


ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
TISSUE = Code("SCT", "85756007", "Tissue")
"""Used if a segment's type is unknown."""


@dataclass(frozen=True)
class SegmentInfo:
    """Name, colour and codes of a label value; `color` is (red, green, blue), each 0 to 1."""

    label: int
    name: str
    color: tuple[float, float, float]
    type: Code
    category: Code = ANATOMICAL_STRUCTURE


def check_array(voxels: object) -> None:
    """Check the type of voxels that a caller gives.

    Raises:
        TypeError: `voxels` is not a NumPy array.
        ValueError: `voxels` is a masked array with masked voxels, whose values are not defined.
    """
    if not isinstance(voxels, np.ndarray):
        raise TypeError(f"voxels must be a NumPy array, not {type(voxels).__name__}")
    if np.ma.is_masked(voxels):  # type: ignore[no-untyped-call]
        raise ValueError("the array has masked voxels: replace them, for instance by array.filled(0)")


def check_scan(volume: Volume) -> None:
    """Raise InputError if a scan cannot be segmented."""
    check_scan_grid(volume.grid, volume.path)
    voxels, path = volume.voxels, volume.path
    if voxels.dtype.kind == "c":
        raise InputError("holds complex numbers", path=path, remedy="Export the magnitude image.")
    if voxels.dtype.kind not in "biuf":
        raise InputError(
            f"holds voxels of the type {voxels.dtype}, not intensities", path=path, remedy=GREY_SCALE_REMEDY
        )
    if voxels.dtype.kind == "f":
        bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if bad:
            raise InputError(
                f"holds NaN or infinite values in {bad} of {voxels.size} voxels",
                path=path,
                remedy="Replace these values, for instance with the value of the background, and save the scan again.",
            )
    for channel, values in enumerate(voxels):
        low, high = values.min(), values.max()
        if low == high:
            which = f" of channel {channel + 1}" if len(voxels) > 1 else ""
            raise InputError(f"is blank: every voxel{which} is {low:g}", path=path, remedy="Choose another scan.")
        magnitude = max(abs(float(low)), abs(float(high)))
        if magnitude > float(np.finfo(np.float32).max):
            raise InputError("holds intensities beyond 3e38", path=path, remedy="Rescale the intensities.")
        if np.float32(low) == np.float32(high) or float(high) - float(low) < _MINIMUM_RELATIVE_RANGE * magnitude:
            what = f"holds intensities from {low:.17g} to {high:.17g}, whose differences are lost in 32-bit numbers"
            raise InputError(what, path=path, remedy="Subtract the smallest intensity from all voxels.")


def check_channels(channels: int, needed: int, path: Path | None) -> None:
    """Raise InputError if a scan's number of `channels` differs from the `needed` number."""
    if channels == needed:
        return
    if needed == 1:
        what, remedy = f"holds {channels} volumes (4D), but one is needed", "Save one volume as a file of its own."
    elif channels == 1:
        what = f"holds one channel, but {needed} are needed"
        remedy = (
            "Choose another model, or give each channel as a file (x_0000, x_0001, ...) or, in 3D Slicer, as a volume."
        )
    else:
        what = f"holds {channels} volumes (4D), but {needed} are needed"
        remedy = f"Give a scan of {needed} volumes, one for each channel."
    raise InputError(what, path=path, remedy=remedy)


def order_channels(volume: Volume, names: Sequence[str]) -> Volume:
    """Return a scan with its channels in the order of `names`.

    If the scan's channels are unnamed or have other names than `names`, their order stays. A `ChannelNote` is added if
    the channels were reordered or have other names. Names are compared as in `have_same_names`.

    Args:
        names: the names of the recipe's channels; empty if unknown.
    """
    note = channel_note(volume.channel_names, names)
    if note is None:
        return volume
    notes = volume.notes if note in volume.notes else (*volume.notes, note)
    order = channel_order(volume.channel_names, names)
    if order is None:
        return replace(volume, notes=notes)
    return replace(volume, voxels=volume.voxels[order], channel_names=tuple(names), notes=notes)


def channel_note(own: Sequence[str], names: Sequence[str]) -> ChannelNote | None:
    """Return the note that `order_channels` adds; None if `own` or `names` is empty, or if `have_same_names` is true.

    Args:
        own: the names of the scan's channels; empty if unknown.
        names: the names of the recipe's channels; empty if the recipe does not name them.
    """
    if not own or not names or have_same_names(own, names):
        return None
    listed, wanted = ", ".join(own), ", ".join(names)
    if channel_order(own, names) is None:
        return ChannelNote(
            f"The channels are named {listed} in the scan, but {wanted} in the recipe. Check that the scan suits the"
            " recipe."
        )
    return ChannelNote(
        f"The order of the channels is {listed} in the scan, but {wanted} in the recipe. The channels were put into the"
        " recipe's order."
    )


def differ_in_order(own: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether two lists of channels or classes have the same names in different orders."""
    return channel_order(own, names) is not None and not have_same_names(own, names)


def have_same_names(own: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether two lists of channels have the same names in the same order.

    Capitals do not matter, and names are compared by `comparable_name`.
    """
    return _comparable(own) == _comparable(names)


def channel_order(own: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return the index in `own` of each of `names`; None if the names are not the same, or if a name occurs twice."""
    held, wanted = _comparable(own), _comparable(names)
    if len(set(held)) < len(held) or sorted(held) != sorted(wanted):
        return None
    return [held.index(name) for name in wanted]


def _comparable(names: Sequence[str]) -> list[str]:
    return [comparable_name(name).casefold() for name in names]


def check_scan_grid(grid: Grid, path: Path | None) -> None:
    """Raise InputError if a scan cannot have this grid."""
    check_size(grid.shape, path)
    sizes = _sizes(grid.shape)
    if min(grid.shape) == 1:
        what = "holds a single voxel" if max(grid.shape) == 1 else f"holds one slice only ({sizes} voxels)"
        raise InputError(what, path=path, remedy="A three-dimensional scan is needed.")
    if min(grid.shape) < MINIMUM_AXIS:
        raise InputError(
            f"is too small: {sizes} voxels",
            path=path,
            remedy=f"Every axis needs at least {MINIMUM_AXIS} voxels.",
        )
    check_grid(grid, path)
    if (distance := float(np.abs(grid.affine[:3, 3]).max())) > MAXIMUM_DISTANCE_MM:
        what = f"lies too far from the origin of its coordinate system: {plain_number(distance / 1000, 3)} m"
        raise InputError(what, path=path, remedy="Correct the scan's origin, or export the scan again.")
    sides = grid.spacing * grid.shape
    if sides.max() > MAXIMUM_MM:
        raise _size_error(grid, path, ", or crop the scan around the organ")
    if np.sort(sides)[1] < MINIMUM_MM or sides.min() < MINIMUM_THICKNESS_MM:
        raise _size_error(grid, path)


def check_label_grid(grid: Grid, path: str | Path | None, partial: bool) -> None:
    """Raise InputError if a label cannot have this grid; `partial` as in `Labelmap`."""
    check_grid(grid, path)
    longest = float((grid.spacing * grid.shape).max())
    is_small = (longest < MINIMUM_LABEL_MM and not partial) or grid.spacing.min() < MINIMUM_LABEL_SPACING_MM
    if longest > MAXIMUM_LABEL_MM or is_small:
        raise _size_error(grid, path)


def size_warning(grid: Grid) -> str:
    """Return the warning about a scan whose size is implausible for a patient; empty for other scans.

    A scan is too large if two sides are longer than `LARGE_MM`. It is too small if it has less than `SMALL_ML`, or if
    its smallest voxel spacing is below `FINE_MM` or a quarter of the other two, as after a change of unit (cm) along
    one axis.
    """
    sides = grid.spacing * grid.shape
    size = f"{' x '.join(plain_number(side, 3) for side in sides)} mm"
    if np.count_nonzero(sides > LARGE_MM) >= 2:
        return (
            f"The scan is larger than a body: {size}. Correct its voxel spacing ({_millimetres(grid)} mm) or, if the"
            " spacing is right, crop the scan around the organ. Otherwise a segmentation may take hours."
        )
    if np.prod(sides) < 1000 * SMALL_ML or grid.spacing.min() < max(FINE_MM, np.median(grid.spacing) / 4):
        return (
            f"The scan or its voxels are unusually small for a patient: {size}, with a voxel spacing of"
            f" {_millimetres(grid)} mm. Correct the spacing if its unit is not the millimetre."
        )
    return ""


def _size_error(grid: Grid, path: str | Path | None, other_remedy: str = "") -> InputError:
    sides = grid.spacing * grid.shape
    metres = sides.max() > MAXIMUM_MM
    size = _metres(sides) if metres else " x ".join(plain_number(side, 2) for side in sides)
    return InputError(
        f"has an implausible size: {size} {'m' if metres else 'mm'} with a voxel spacing of {_millimetres(grid)} mm",
        path=path,
        remedy=f"Correct the spacing, which may be in a unit other than millimetres{other_remedy}.",
    )


def check_grid(grid: Grid, path: str | Path | None) -> None:
    """Raise InputError if an image cannot have this grid."""
    check_size(grid.shape, path)
    remedy = "Repair the image's geometry, for instance by exporting it again from DICOM."
    if not np.isfinite(grid.affine).all():
        raise InputError("has NaN or infinite numbers in its geometry (affine)", path=path, remedy=remedy)
    if (grid.spacing <= 0).any():
        raise InputError("has a voxel spacing of zero", path=path, remedy=remedy)
    if not np.allclose(grid.affine[3], (0, 0, 0, 1)):
        row = ", ".join(f"{value:g}" for value in grid.affine[3])
        raise InputError(f"has an invalid affine, whose last row is ({row})", path=path, remedy=remedy)
    # The voxel's volume divided by the product of its edge lengths is 1 for orthogonal axes and 0 for coplanar axes.
    if grid.voxel_volume_mm3 < 1e-4 * float(np.prod(grid.spacing)):
        raise InputError("has a singular geometry: its axes lie in one plane", path=path, remedy=remedy)


def check_size(shape: Sequence[int], path: str | Path | None) -> None:
    """Raise InputError if an image has no voxels or more than `MAXIMUM_VOXELS`.

    Readers call this before they allocate memory. `shape` may have any number of axes; below three axes, there is no
    upper limit.
    """
    if min(shape) < 1:
        raise InputError(
            f"holds no voxels ({_sizes(shape)})", path=path, remedy="The file may be damaged; copy it again."
        )
    if len(shape) >= 3 and np.prod([float(size) for size in shape]) > MAXIMUM_VOXELS:
        raise InputError(
            f"claims {_sizes(shape)} voxels in its header, more than DCAMT reads",
            path=path,
            remedy="Crop or resample the image, or copy the file again if it is damaged.",
        )


def as_labels(voxels: np.ndarray, path: str | Path | None) -> np.ndarray:
    """Convert `voxels` to the smallest unsigned integer type that can hold them.

    Raises:
        InputError: the voxels are no real numbers, or a value is NaN, negative, larger than 2^32 - 1, or fractional
            (beyond `_LABEL_ROUNDING`).
    """
    remedy = "Choose a labelmap rather than a scan."
    if voxels.dtype.kind not in "biuf":
        raise InputError(f"holds voxels of the type {voxels.dtype}, not labels", path=path, remedy=remedy)
    if voxels.dtype.kind == "f":
        if not np.isfinite(voxels).all():
            raise InputError("holds NaN or infinite values, not labels", path=path, remedy="Replace these values by 0.")
        whole = np.rint(voxels)
        if (np.abs(voxels - whole) > _LABEL_ROUNDING).any():
            raise InputError("holds fractional values, not labels", path=path, remedy=remedy)
        voxels = whole
    if voxels.min() < 0:
        raise InputError(f"holds the negative label {voxels.min():g}", path=path, remedy="Labels start at 0.")
    if float(voxels.max()) > np.iinfo(np.uint32).max:
        raise InputError(f"holds the label value {voxels.max():g}, which is too large", path=path, remedy=remedy)
    return voxels.astype(np.min_scalar_type(int(voxels.max())), copy=False)


def is_mask_of_255(labelmap: Labelmap) -> bool:
    """Return whether a labelmap contains only the values 0 and 255, and 255 at least once."""
    if labelmap.voxels.max() != MASK_VALUE:  # Much faster than finding all values.
        return False
    return set(np.unique(labelmap.voxels).tolist()) - {0} == {MASK_VALUE}


def relabel_255(labelmap: Labelmap, value: int) -> Labelmap:
    """Replace 255 by `value`, which is at most 255, in a labelmap of 0 and 255."""
    return replace(labelmap, voxels=np.where(labelmap.voxels == MASK_VALUE, value, labelmap.voxels).astype(np.uint8))


def grid_difference(grid: Grid, other: Grid) -> tuple[float, float]:
    """Compare the corresponding corners of two grids of the same shape.

    Returns:
        The largest distance in mm, and the largest difference along an axis of `other`, in voxels of `other`.
    """
    differences = grid.corners() - other.corners()
    voxels = np.abs(differences @ np.linalg.inv(other.affine[:3, :3]).T)
    return float(np.linalg.norm(differences, axis=1).max()), float(voxels.max())


def same_grid(grid: Grid, other: Grid) -> bool:
    """Return whether two grids have the same shape and differ by at most `GRID_TOLERANCE` voxels along each axis."""
    return grid.shape == other.shape and grid_difference(grid, other)[1] <= GRID_TOLERANCE


def check_channel_grid(grid: Grid, path: str | Path, first: Grid, first_name: str) -> None:
    """Raise InputError if a further channel of a scan is not on the grid of its first channel."""
    if same_grid(grid, first):
        return
    distance = (
        f"; the grids' corners are up to {plain_number(grid_difference(grid, first)[0], 3)} mm apart"
        if grid.shape == first.shape
        else ""
    )
    what = f"lies on a different grid from {first_name}, the first channel of its scan{distance}"
    raise InputError(what, path=path, remedy="Resample the channel to the first channel's grid.")


def fit_labelmap(labelmap: Labelmap, grid: Grid, scan: str | Path) -> Labelmap:
    """Return a labelmap on the grid of its scan, without interpolation.

    The labelmap's grid may be the scan's grid, or differ only in the order or direction of the axes. A `partial`
    labelmap may also have:

    - another size and position on the scan's lattice, if all labelled voxels lie inside the scan;
    - another slice thickness, if the labelmap has only one slice;
    - slices farther apart, if the file may omit empty slices (`insert_omitted_slices`);
    - thinner slices (1.5 mm, 1 mm, 0.75 mm, … for a scan with slices of 3 mm), if the labelmap is not empty and every
      labelled slice lies at the position of a slice of the scan.

    Voxel positions may deviate by `GRID_TOLERANCE` voxels.

    Args:
        scan: the name of the scan in messages.

    Raises:
        InputError: the labelmap does not fit.
    """
    if same_grid(labelmap.grid, grid):
        return replace(labelmap, grid=grid)
    spaced = labelmap
    turn = reorientation_between(spaced.grid, grid)
    if turn is None and labelmap.partial:
        spaced = _space_slices_as(grid, labelmap)
        turn = reorientation_between(spaced.grid, grid)
    if turn is None:
        raise _grid_mismatch(labelmap, grid, scan)
    turned, voxels = turn.apply_to_grid(spaced.grid), turn.apply(spaced.voxels)
    start = _start_on_lattice(turned, grid)
    if not labelmap.partial and (turned.shape != grid.shape or start.any()):
        raise _grid_mismatch(labelmap, grid, scan)
    mm, fraction = grid_difference(turned, _shift_grid(grid, start, turned.shape))
    if fraction > GRID_TOLERANCE:
        raise _grid_mismatch(
            labelmap,
            grid,
            scan,
            f": corresponding voxels lie up to {plain_number(mm, 2)} mm ({plain_number(fraction, 2)} voxels) apart",
        )
    fitted = np.zeros(grid.shape, voxels.dtype)
    labelled = bounding_box(voxels != 0)
    if labelled is not None:
        place = [slice(side.start + int(n), side.stop + int(n)) for side, n in zip(labelled, start, strict=True)]
        if any(side.start < 0 or side.stop > size for side, size in zip(place, grid.shape, strict=True)):
            raise _grid_mismatch(labelmap, grid, scan, ": some of its labelled voxels lie outside that grid")
        fitted[tuple(place)] = voxels[labelled]
    return Labelmap(fitted, grid, labelmap.path, notes=labelmap.notes)


def _space_slices_as(grid: Grid, labelmap: Labelmap) -> Labelmap:
    """Return a labelmap with the slice spacing of `grid`, if possible without interpolation; otherwise unchanged."""
    affine, step = labelmap.grid.affine.copy(), labelmap.grid.affine[:3, 2]
    target = _nearest_step(grid, step)
    has_one_slice = labelmap.grid.shape[2] == 1
    if has_one_slice:
        affine[:3, 2] = target
        return replace(labelmap, grid=Grid(labelmap.grid.shape, affine))
    every = round(float(np.linalg.norm(target) / np.linalg.norm(step)))
    labelled = np.flatnonzero(labelmap.voxels.any(axis=(0, 1)))
    if every < 2 or not len(labelled):
        return insert_omitted_slices(labelmap, grid)
    would_lose_labels = ((labelled - labelled[0]) % every).any()
    if would_lose_labels:
        return labelmap
    first = int(labelled[0]) % every
    affine[:3, 3] += first * step
    affine[:3, 2] *= every
    voxels = labelmap.voxels[:, :, first::every]
    return replace(labelmap, voxels=voxels, grid=Grid(voxels.shape, affine))


def insert_omitted_slices(labelmap: Labelmap, grid: Grid) -> Labelmap:
    """Return the labelmap with empty slices inserted to fit `grid`; unchanged if its file cannot omit such slices."""
    affine, finest = labelmap.grid.affine.copy(), labelmap.finest_step_mm
    distance, target = (float(np.linalg.norm(step)) for step in (affine[:3, 2], _nearest_step(grid, affine[:3, 2])))
    each = round(distance / target)
    if each < 2 or not finest or not is_multiple(target, finest):
        return labelmap
    columns, rows, slices = labelmap.grid.shape
    voxels = np.zeros((columns, rows, (slices - 1) * each + 1), labelmap.voxels.dtype)
    voxels[:, :, ::each] = labelmap.voxels
    affine[:3, 2] /= each
    return replace(labelmap, voxels=voxels, grid=Grid(voxels.shape, affine))


def is_multiple(mm: float, of: float) -> bool:
    """Return whether `mm` is 1, 2, 3, … times `of`; the quotient may deviate by 0.02, since distances are rounded."""
    return round(mm / of) > 0 and abs(mm / of - round(mm / of)) < 0.02


def _nearest_step(grid: Grid, direction: np.ndarray) -> np.ndarray:
    """Return the step (3,), in mm, with the smallest angle to `direction`.

    A step leads from a voxel of `grid` to the next voxel, forwards or backwards along one of the three axes.
    """
    along = grid.affine[:3, :3].T @ direction / grid.spacing
    nearest = int(np.abs(along).argmax())
    return np.asarray(grid.affine[:3, nearest] * np.sign(along[nearest]))


def enclosing_grid(grid: Grid, other: Grid) -> Grid:
    """Return the smallest grid on the lattice of `other` that contains both grids.

    `grid` is first shifted by up to half a voxel along each axis, so that its voxels lie on this lattice. `other` is
    returned if the axes are not parallel, if the spacings differ, or if the result would exceed `MAXIMUM_VOXELS`.
    """
    turn = reorientation_between(grid, other)
    if turn is None:
        return other
    turned = turn.apply_to_grid(grid)
    start = _start_on_lattice(turned, other)
    first = np.minimum(0, start)
    size = np.maximum(other.shape, start + turned.shape) - first
    if float(size.prod()) > MAXIMUM_VOXELS:
        return other
    i, j, k = (int(voxels) for voxels in size)
    return _shift_grid(other, first, (i, j, k))


def _start_on_lattice(grid: Grid, other: Grid) -> np.ndarray:
    """Return the position of `grid`'s first voxel as a rounded voxel index of `other`."""
    return np.asarray(np.rint(np.linalg.solve(other.affine[:3, :3], grid.affine[:3, 3] - other.affine[:3, 3])))


def _shift_grid(grid: Grid, offset: np.ndarray, shape: tuple[int, int, int]) -> Grid:
    """Return `grid`, moved by `offset` voxels along its own axes, with a new `shape`."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ offset
    return Grid(shape, affine)


def _position_difference(grid: Grid, other: Grid) -> str:
    centres = [each.affine[:3, :3] @ (np.array(each.shape) - 1) / 2 + each.affine[:3, 3] for each in (grid, other)]
    axes = [each.affine[:3, :3] / each.spacing for each in (grid, other)]
    cosines = np.abs(axes[0].T @ axes[1])
    # The largest angle between an axis of `other` and its nearest axis of `grid`.
    angle = float(np.degrees(np.arccos(np.clip(cosines.max(axis=0).min(), 0, 1))))
    turn = f"their axes are turned by {angle:.2g} degrees"
    distance = float(np.linalg.norm(centres[0] - centres[1]))
    if distance > GRID_TOLERANCE * min(other.spacing):
        rotation = f", and {turn}" if angle > 0.05 else ""
        return f": the centres of the two grids lie {plain_number(distance, 3)} mm apart{rotation}"
    nearest_axes = cosines.argmax(axis=0)
    what = turn
    if angle <= 0.05 and not np.allclose(np.array(grid.spacing)[nearest_axes], other.spacing, rtol=1e-3):
        what = "different spacings"
    elif angle <= 0.05 and tuple(np.array(grid.shape)[nearest_axes]) != other.shape:
        what = "different numbers of voxels"
    return f": the two grids have the same centre, but {what}"


def _grid_mismatch(labelmap: Labelmap, grid: Grid, scan: str | Path, detail: str = "") -> InputError:
    detail = detail or _position_difference(labelmap.grid, grid)
    sizes, spacings = zip(*((_sizes(g.shape), _millimetres(g)) for g in (labelmap.grid, grid)), strict=True)
    return InputError(
        f"lies on a different grid ({sizes[0]} voxels of {spacings[0]} mm) from {scan} "
        f"({sizes[1]} voxels of {spacings[1]} mm){detail}",
        path=labelmap.path,
        remedy="Choose the scan on which these labels were drawn, or resample them to this scan's grid.",
    )


def _metres(sides: np.ndarray) -> str:
    return " x ".join(plain_number(mm / 1000, 2) for mm in sides)


def _millimetres(grid: Grid) -> str:
    return " x ".join(plain_number(mm, 4) for mm in grid.spacing)


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(str(int(size)) for size in shape)
