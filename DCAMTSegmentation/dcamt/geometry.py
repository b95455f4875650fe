"""Define grids, orientations, boxes and regions: where voxels lie in the patient.

Every affine maps voxel indices (i, j, k) to RAS millimetres (patient right, anterior, superior).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from .errors import InputError

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""(4, 4): converts RAS mm to LPS mm, the convention of DICOM and ITK, and back."""

SAME_PLACE_MM = 1e-3
"""Two voxel centres at most this far apart count as equal."""
AXIS_TOLERANCE = 0.02
"""Two axes count as equal if their steps differ by at most this fraction of a voxel."""
MISSING_DIRECTIONS = (
    "The file does not state the directions of its axes, so left, posterior and superior were assumed: check the"
    " orientation, or use the original DICOM or NIfTI file."
)
"""The note if a file gives no directions of the axes; ITK assumes the same directions."""

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]
"""Part of a grid; indexes an array (I, J, K)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels in the patient: `shape` (I, J, K) and `affine` (4, 4), voxel index -> RAS mm.

    The affine is copied to float64 and made read-only. Axes may be oblique, flipped or sheared.

    Raises:
        ValueError: `shape` is not three whole numbers of 0 or more, or `affine` is not (4, 4).
    """

    shape: Shape
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        are_counts = all(isinstance(size, int | np.integer) and size >= 0 for size in shape)
        if len(shape) != 3 or not are_counts or affine.shape != (4, 4):
            raise ValueError(f"a grid needs 3 whole numbers of voxels and a 4x4 affine, not {shape} and {affine.shape}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(map(int, shape)))
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> np.ndarray:
        """(3,) mm: distance between neighbouring voxel centres along i, j and k."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3, also for sheared grids."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def position(self, voxel: Sequence[int]) -> tuple[float, float, float]:
        """Return the centre of a voxel (i, j, k) in RAS mm."""
        r, a, s = (self.affine[:3, :3] @ np.asarray(voxel) + self.affine[:3, 3]).tolist()
        return r, a, s

    def corners(self) -> np.ndarray:
        """Return the centres of the eight corner voxels, (8, 3) RAS mm; k varies fastest."""
        last = np.array(self.shape) - 1
        index = np.stack(np.meshgrid(*[(0, size) for size in last], indexing="ij"), axis=-1).reshape(8, 3)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def matches(self, other: Grid) -> bool:
        """Return whether both grids have equal shapes, and corresponding voxel centres at most `SAME_PLACE_MM` apart.

        Only corners are compared, since the distance between two affine maps is largest at a corner.
        """
        if self.shape != other.shape:
            return False
        return bool(np.linalg.norm(self.corners() - other.corners(), axis=1).max() <= SAME_PLACE_MM)

    def crop(self, box: Box) -> Grid:
        """Return the grid of `voxels[box]`, an array on this grid indexed with three slices.

        Raises:
            ValueError: a slice has a step.
        """
        if any(side.step not in (None, 1) for side in box):
            raise ValueError(f"a box has no step: {box}")
        ends = [side.indices(size)[:2] for side, size in zip(box, self.shape, strict=True)]
        i, j, k = (slice(start, max(start, stop)) for start, stop in ends)
        return self.on_lattice((i, j, k))

    def on_lattice(self, box: Box) -> Grid:
        """Return the grid of a box that may reach beyond this grid, at negative indices too."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
        return Grid(box_shape(box), affine)


@dataclass(frozen=True)
class Reorientation:
    """A permutation and reversal of a grid's axes; nothing is interpolated.

    Attributes:
        order: for each new axis, the index of the stored axis that becomes this new axis.
        flipped: for each new axis, whether the new axis runs opposite to its stored axis.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return a view of `array` (..., I, J, K) with its last three axes in the new order and direction."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return np.flip(turned, tuple(lead + axis for axis in range(3) if self.flipped[axis]))

    def invert(self, array: np.ndarray) -> np.ndarray:
        """Return a view of `array` (..., X, Y, Z) with its last three axes in the stored order and direction."""
        lead = array.ndim - 3
        unflipped = np.flip(array, tuple(lead + axis for axis in range(3) if self.flipped[axis]))
        return np.transpose(unflipped, (*range(lead), *(lead + int(axis) for axis in np.argsort(self.order))))

    def invert_box(self, box: Sequence[slice], shape: Shape) -> Box:
        """Return the box (I, J, K) of the same voxels in the stored order and direction.

        Args:
            box: a box of an array (X, Y, Z) in the new order and direction.
            shape: the array's shape.
        """
        i, j, k = (reverse_slice(box[axis], shape[axis], self.flipped[axis]) for axis in np.argsort(self.order))
        return i, j, k

    def apply_to_grid(self, grid: Grid) -> Grid:
        """Return the grid of the same voxels with its axes in the new order and direction."""
        step, start = np.zeros((3, 3)), np.zeros(3)
        for axis, (stored, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            step[stored, axis] = -1 if flip else 1
            start[stored] = grid.shape[stored] - 1 if flip else 0
        to_stored = np.vstack([np.column_stack([step, start]), [0, 0, 0, 1]])
        i, j, k = (grid.shape[stored] for stored in self.order)
        return Grid((i, j, k), grid.affine @ to_stored)


def canonical_orientation(grid: Grid) -> Reorientation:
    """Return the reorientation that brings a grid's axes into canonical order.

    Of the six orders of the axes, the order with the largest |cos a| + |cos b| + |cos c| is chosen. Here, a, b and c
    are the angles of the first axis to patient right, the second to anterior and the third to superior. An axis is
    flipped if its cosine is negative.
    """
    directions = grid.affine[:3, :3] / grid.spacing

    def nearness(axes: tuple[int, ...]) -> tuple[float, tuple[float, ...]]:
        columns = directions[:, axes] * np.where(np.diag(directions[:, axes]) < 0, -1, 1)
        # If two orders are equally near, for example at 45 degrees, the axes' directions decide. So the result does not
        # depend on which axis is stored first.
        return round(float(np.trace(columns)), 6), tuple(np.round(columns, 6).ravel().tolist())

    first, second, third = max(permutations(range(3)), key=nearness)
    x, y, z = (bool(directions[patient, stored] < 0) for patient, stored in enumerate((first, second, third)))
    return Reorientation((first, second, third), (x, y, z))


def reorientation_between(source: Grid, target: Grid) -> Reorientation | None:
    """Return the reorientation that gives `source` the axes of `target`.

    Axes count as equal if their steps from voxel to voxel differ by at most `AXIS_TOLERANCE` voxels along each axis of
    `target`. Returns None if no reorientation makes the axes equal. Origins are not compared.
    """
    # Each column is one step along an axis of the source, in voxel indices of the target.
    steps = np.linalg.solve(target.affine[:3, :3], source.affine[:3, :3])
    turn = np.rint(steps).astype(int)
    if not np.allclose(steps, turn, rtol=0, atol=AXIS_TOLERANCE):
        return None
    if not ((np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()):
        return None
    i, j, k = (int(axis) for axis in np.abs(turn).argmax(axis=1))
    x, y, z = (bool(row.sum() < 0) for row in turn)
    return Reorientation((i, j, k), (x, y, z))


@dataclass(frozen=True)
class NetworkGrid:
    """A scan's grid resampled for the network: canonical axes, a spacing, and the scan's own centre.

    Attributes:
        source: the scan's grid.
        orientation: from the scan's axes to canonical axes.
        spacing: mm along R, A, S.
        shape: voxels along R, A, S.
    """

    source: Grid
    orientation: Reorientation
    spacing: tuple[float, float, float]
    shape: Shape

    @property
    def order(self) -> tuple[int, int, int]:
        """The scan's axes that lie nearest to patient R-L, A-P and S-I."""
        return self.orientation.order

    @property
    def flipped(self) -> tuple[bool, bool, bool]:
        """Whether each axis of `order` runs opposite to patient right, anterior, superior."""
        return self.orientation.flipped

    @property
    def canonical_shape(self) -> Shape:
        """The number of the scan's own voxels along R, A, S."""
        x, y, z = (self.source.shape[stored] for stored in self.order)
        return x, y, z

    @property
    def canonical_spacing(self) -> tuple[float, float, float]:
        """The scan's own spacing, mm along R, A, S."""
        x, y, z = (float(self.source.spacing[stored]) for stored in self.order)
        return x, y, z

    @property
    def affine(self) -> np.ndarray:
        """(4, 4): voxel of the network grid -> RAS mm."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1
        for axis, (stored, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            step = self.spacing[axis] / self.canonical_spacing[axis]
            # Both grids have the same centre.
            start = (self.canonical_shape[axis] - 1) / 2 - step * (self.shape[axis] - 1) / 2
            to_source[stored, axis] = -step if flip else step
            to_source[stored, 3] = self.source.shape[stored] - 1 - start if flip else start
        return np.asarray(self.source.affine @ to_source)

    def source_box(self, box: Sequence[slice]) -> Box:
        """Return the box (I, J, K) of the scan's voxels that a box of the network grid covers, even partly.

        If `box` reaches a border of the network grid, the returned box reaches the same border of the scan. These two
        borders may lie up to half a voxel of the network grid apart.
        """
        covered = []
        for axis, (side, cells, length) in enumerate(zip(box, self.shape, self.canonical_shape, strict=True)):
            step = self.spacing[axis] / self.canonical_spacing[axis]
            # `low` and `high` are the positions of the box's two faces, in voxels of the scan from the lower end of the
            # canonical axis. Both are rounded before floor and ceil, so that floating-point errors do not change the
            # result.
            low, high = (round((face - cells / 2) * step + length / 2, 6) for face in (side.start, side.stop))
            start = max(0, math.floor(low)) if side.start > 0 else 0
            stop = min(length, math.ceil(high)) if side.stop < cells else length
            covered.append(slice(start, stop))
        return self.orientation.invert_box(covered, self.canonical_shape)


def network_grid(source: Grid, spacing: tuple[float, float, float]) -> NetworkGrid:
    """Return the network grid for a scan's grid and a spacing (mm along R-L, A-P, S-I)."""
    orientation = canonical_orientation(source)
    extent = [source.shape[stored] * float(source.spacing[stored]) for stored in orientation.order]
    without_float_errors = [round(mm / step, 3) for mm, step in zip(extent, spacing, strict=True)]
    x, y, z = (max(1, round(length)) for length in without_float_errors)
    return NetworkGrid(source, orientation, spacing, (x, y, z))


def axis_weights(grid: NetworkGrid, axis: int, *, backward: bool = False) -> np.ndarray | None:
    """Return the interpolation matrix along a canonical axis, from scan to network grid or, if `backward`, back.

    The matrix is (outputs, inputs) float64; None if both grids have the same voxels along the axis.
    """
    inputs, outputs = grid.canonical_shape[axis], grid.shape[axis]
    step_in, step_out = grid.canonical_spacing[axis], grid.spacing[axis]
    if backward:
        inputs, outputs, step_in, step_out = outputs, inputs, step_out, step_in
    if inputs == outputs and abs(step_in - step_out) < 1e-6 * step_in:
        return None
    return interpolation_matrix(inputs, step_in, outputs, step_out)


def interpolation_matrix(inputs: int, step_in: float, outputs: int, step_out: float) -> np.ndarray:
    """Return the matrix (outputs, inputs) of linear interpolation along an axis; both grids have the same centre.

    The weights of an output form a triangular kernel: they fall linearly to 0 on both sides of the output's position.
    Each side of the kernel is as long as the larger of `step_in` and `step_out`, so that a coarser output averages fine
    detail instead of aliasing it. If an output lies beyond the first or last input, its kernel is centred on that
    input. Each row of the matrix sums to 1.

    Args:
        inputs, outputs: numbers of voxels.
        step_in, step_out: mm from voxel to voxel.
    """
    at = (np.arange(outputs) - (outputs - 1) / 2) * (step_out / step_in) + (inputs - 1) / 2
    width = max(1.0, step_out / step_in)
    distance = np.abs(np.clip(at, 0, inputs - 1)[:, None] - np.arange(inputs))
    weights = np.maximum(1 - distance / width, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def whole_box(shape: Sequence[int]) -> Box:
    """Return the box of all voxels of a grid of `shape`."""
    i, j, k = (slice(0, size) for size in shape)
    return i, j, k


def box_shape(box: Box) -> Shape:
    """Return the number of voxels of a box along each axis."""
    i, j, k = (side.stop - side.start for side in box)
    return i, j, k


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the smallest box that contains every True voxel of `mask` (any shape); None if no voxel is True."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return an array of the mask's shape (I, J, K) with the components numbered from 1, and their number.

    Voxels are connected through faces, edges and corners (26 neighbours), so that thin oblique veins stay connected.
    """
    from scipy import ndimage

    components, number = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return components, number


def enclosing_box(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that contains all of `boxes`."""
    i, j, k = (slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
    return i, j, k


def pad_box(box: Sequence[slice], margin: Sequence[int], within: Sequence[slice]) -> Box:
    """Return `box` enlarged by `margin` voxels at both ends of each axis, but not beyond `within`."""
    i, j, k = (
        slice(max(limit.start, side.start - more), min(limit.stop, side.stop + more))
        for side, more, limit in zip(box, margin, within, strict=True)
    )
    return i, j, k


def box_in_parent(box: Sequence[slice], part: Sequence[slice]) -> Box:
    """Convert `box` from indices of `part` to indices of a grid; `part` is a box of the grid."""
    i, j, k = (slice(b.start + p.start, b.stop + p.start) for b, p in zip(box, part, strict=True))
    return i, j, k


def box_in_part(box: Sequence[slice], part: Sequence[slice]) -> Box:
    """Convert `box` from indices of a grid to indices of `part`; `part` is a box of the grid and contains `box`."""
    i, j, k = (slice(b.start - p.start, b.stop - p.start) for b, p in zip(box, part, strict=True))
    return i, j, k


def reverse_slice(side: slice, length: int, flipped: bool) -> slice:
    """Return `side` or, if `flipped`, the slice of the same voxels on the reversed axis of `length` voxels."""
    return slice(length - side.stop, length - side.start) if flipped else side


CUT_BY_REGION = (
    "The segmentation touches a face of the region of interest, so part of the organ is probably missing. Enlarge the"
    " region."
)
"""The note if a segmented voxel shares a face with a voxel of the scan that lies outside the region."""


@dataclass(frozen=True)
class Region:
    """A cuboid in the patient: from `low` to `high` (mm) along R, A, S, or a rotated cuboid within these limits.

    Attributes:
        to_unit: for a rotated cuboid, the affine (4, 4): RAS mm -> coordinates from -1 to 1 inside the cuboid.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    to_unit: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Region:
        """Parse `x0,x1,y0,y1,z0,z1` in RAS mm; the two ends of an axis may be in either order.

        Raises:
            InputError: the text is not six finite numbers that enclose a volume.
        """
        try:
            values = np.array([float(part) for part in text.split(",")])
            pairs = np.sort(values.reshape(3, 2), axis=1)
        except ValueError:
            pairs = np.full((3, 2), np.nan)
        volume_mm3 = math.prod(high - low for low, high in pairs.tolist())
        if not (np.isfinite(pairs).all() and volume_mm3 > 0):
            raise InputError(f"'{text}' is not a region", remedy="Give x0,x1,y0,y1,z0,z1 in millimetres (RAS).")
        low, high = (tuple(float(v) for v in column) for column in pairs.T)
        return cls(low, high)  # type: ignore[arg-type]

    @property
    def edges_mm(self) -> tuple[float, float, float]:
        """The lengths of the cuboid's edges in mm."""
        edges = np.diag(np.subtract(self.high, self.low))
        if self.to_unit is not None:
            edges = 2 * np.linalg.inv(np.array(self.to_unit)[:3, :3])
        first, second, third = np.linalg.norm(edges, axis=0).tolist()
        return first, second, third

    @property
    def note(self) -> str:
        """The note that only this region of a scan was segmented."""
        return (
            f"Only a region of the scan was segmented: a box of {' × '.join(f'{mm:.0f}' for mm in self.edges_mm)} mm."
        )

    def box(self, grid: Grid | NetworkGrid, margin: int, path: Path | None = None) -> Box:
        """Return the box of `grid` around the region, enlarged by `margin` voxels but not beyond the grid.

        Raises:
            InputError: the region lies outside the grid along one of its axes; the error names `path`.
        """
        ends = list(zip(self.low, self.high, strict=True))
        corners = np.array([[x, y, z, 1.0] for x in ends[0] for y in ends[1] for z in ends[2]])
        voxels = (corners @ np.linalg.inv(grid.affine).T)[:, :3]
        # Clipped, since the coordinates of a region may be too large for an integer; the result is the same.
        voxels = voxels.clip(-1 - margin, np.array(grid.shape) + margin)
        low, high = np.floor(voxels.min(axis=0)).astype(int), np.ceil(voxels.max(axis=0)).astype(int)
        if (high < 0).any() or (low >= np.array(grid.shape)).any():
            remedy = "Move the region onto the scan; the region's coordinates are RAS millimetres."
            raise InputError("the region of interest lies outside the scan", path=path, remedy=remedy)
        inner = [slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True)]
        return pad_box(inner, (margin,) * 3, whole_box(grid.shape))

    def mask(self, grid: Grid) -> np.ndarray:
        """Return the mask (I, J, K) bool of the voxels whose centre lies inside the region."""
        limits: list[tuple[np.ndarray, Sequence[float], Sequence[float]]] = [(np.eye(4), self.low, self.high)]
        if self.to_unit is not None:
            limits.append((np.array(self.to_unit), (-1.0,) * 3, (1.0,) * 3))
        inside = np.ones(grid.shape, bool)
        i, j, k = np.indices(grid.shape, sparse=True)
        for to_limits, low, high in limits:
            for row, least, most in zip(to_limits[:3] @ grid.affine, low, high, strict=True):
                position = row[0] * i + row[1] * j + row[2] * k + row[3]
                inside &= (position >= least) & (position <= most)
        return inside

    def covers(self, grid: Grid) -> bool:
        """Return whether the centres of all voxels lie inside the region.

        Testing the corner voxels suffices, because the region is convex.
        """
        first, second, third = (min(n, 2) for n in grid.shape)
        steps = np.diag([*(max(n - 1, 1) for n in grid.shape), 1])
        return bool(self.mask(Grid((first, second, third), grid.affine @ steps)).all())
