"""Define grids, orientations, boxes and regions: where voxels lie in the patient. Imports no torch.

Every affine maps voxel indices (i, j, k) to RAS millimetres (patient right, anterior, superior), whatever the
convention of the file it came from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .errors import InputError

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""(4, 4): converts RAS mm to LPS mm, the convention of DICOM and ITK, and back."""

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]
"""Part of a grid: the voxels from `start` to before `stop` along each axis; a box indexes an array (I, J, K)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel lattice in the patient: `shape` (I, J, K) and `affine` (4, 4), voxel index -> RAS mm.

    The affine is copied to float64 and made read-only. Axes may be oblique, flipped and sheared.
    """

    shape: Shape
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or affine.shape != (4, 4):
            raise ValueError(f"a grid needs 3 axes and a 4x4 affine, not {shape} and {affine.shape}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> np.ndarray:
        """(3,) mm: distance between neighbouring voxel centres along i, j and k."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3: |det| of the affine, right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def position(self, voxel: Sequence[int]) -> tuple[float, float, float]:
        """Return the centre of a voxel (i, j, k) in RAS mm."""
        r, a, s = (self.affine[:3, :3] @ np.asarray(voxel) + self.affine[:3, 3]).tolist()
        return r, a, s

    def corners(self) -> np.ndarray:
        """Return (8, 3) RAS mm: centres of the eight corner voxels, k running fastest."""
        last = np.array(self.shape) - 1
        index = np.stack(np.meshgrid(*[(0, size) for size in last], indexing="ij"), axis=-1).reshape(8, 3)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Return whether both have the same shape and every voxel centre within `tolerance_mm` of its counterpart.

        The distance between two affine maps is largest at a corner, so the corners decide.
        """
        if self.shape != other.shape:
            return False
        return bool(np.linalg.norm(self.corners() - other.corners(), axis=1).max() <= tolerance_mm)

    def crop(self, box: Box) -> Grid:
        """Return the grid of the voxels within `box`, each at its place in the patient."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
        return Grid(box_shape(box), affine)


@dataclass(frozen=True)
class Reorientation:
    """A permutation and reversal of a grid's axes; nothing is interpolated.

    order: which stored axis becomes each new axis. flipped: whether the new axis runs the other way than the stored.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return a view of (..., I, J, K) with its last three axes in the new order and direction."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return np.flip(turned, tuple(lead + axis for axis in range(3) if self.flipped[axis]))

    def invert(self, array: np.ndarray) -> np.ndarray:
        """Return a view of (..., X, Y, Z), in the new order, with its last three axes as stored."""
        lead = array.ndim - 3
        unflipped = np.flip(array, tuple(lead + axis for axis in range(3) if self.flipped[axis]))
        return np.transpose(unflipped, (*range(lead), *(lead + int(axis) for axis in np.argsort(self.order))))

    def apply_to_grid(self, grid: Grid) -> Grid:
        """Return the same lattice with its axes in the new order and direction."""
        step, start = np.zeros((3, 3)), np.zeros(3)
        for axis, (stored, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            step[stored, axis] = -1 if flip else 1
            start[stored] = grid.shape[stored] - 1 if flip else 0
        to_stored = np.vstack([np.column_stack([step, start]), [0, 0, 0, 1]])
        i, j, k = (grid.shape[stored] for stored in self.order)
        return Grid((i, j, k), grid.affine @ to_stored)


def canonical_orientation(grid: Grid) -> Reorientation:
    """Return the reorientation of a grid after which its axes lie nearest patient right, anterior and superior.

    Of all orders of the axes it has the largest sum of cosines between axes and patient directions.
    """
    directions = grid.affine[:3, :3] / grid.spacing

    def nearness(axes: tuple[int, ...]) -> tuple[float, tuple[float, ...]]:
        columns = directions[:, axes] * np.where(np.diag(directions[:, axes]) < 0, -1, 1)
        # Of two orders that lie equally near (axes at 45 degrees), where they point decides, not how they are stored.
        return round(float(np.trace(columns)), 6), tuple(np.round(columns, 6).ravel().tolist())

    first, second, third = max(permutations(range(3)), key=nearness)
    x, y, z = (bool(directions[patient, stored] < 0) for patient, stored in enumerate((first, second, third)))
    return Reorientation((first, second, third), (x, y, z))


def reorientation_between(source: Grid, target: Grid) -> Reorientation | None:
    """Return how the axes of `source` turn into those of `target`; None if their steps differ in more than order."""
    # Column a says along which axis of the target, and in which direction, the source's axis a runs.
    steps = np.linalg.solve(target.affine[:3, :3], source.affine[:3, :3])
    turn = np.rint(steps).astype(int)
    if not np.allclose(steps, turn, atol=0.02):
        return None
    if not ((np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()):
        return None
    i, j, k = (int(axis) for axis in np.abs(turn).argmax(axis=1))
    x, y, z = (bool(row.sum() < 0) for row in turn)
    return Reorientation((i, j, k), (x, y, z))


@dataclass(frozen=True)
class NetworkGrid:
    """A scan's grid resampled for the network: canonical axes, the recipe's spacing, the scan's own centre.

    orientation: from the scan's axes to canonical ones. spacing: of the network's grid, mm along R, A, S. shape: its
    voxels along R, A, S.
    """

    source: Grid
    orientation: Reorientation
    spacing: tuple[float, float, float]
    shape: Shape

    @property
    def order(self) -> tuple[int, int, int]:
        """Which of the scan's axes lies nearest patient R-L, A-P, S-I."""
        return self.orientation.order

    @property
    def flipped(self) -> tuple[bool, bool, bool]:
        """Whether that axis runs the other way than patient right, anterior, superior."""
        return self.orientation.flipped

    @property
    def canonical_shape(self) -> Shape:
        """The scan's own voxels along R, A, S."""
        x, y, z = (self.source.shape[stored] for stored in self.order)
        return x, y, z

    @property
    def canonical_spacing(self) -> tuple[float, float, float]:
        """The scan's own spacing, mm along R, A, S."""
        x, y, z = (float(self.source.spacing[stored]) for stored in self.order)
        return x, y, z

    @property
    def affine(self) -> np.ndarray:
        """(4, 4): voxel of the network's grid -> RAS mm."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1
        for axis, (stored, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            step = self.spacing[axis] / self.canonical_spacing[axis]
            # Both grids share their centre.
            start = (self.canonical_shape[axis] - 1) / 2 - step * (self.shape[axis] - 1) / 2
            to_source[stored, axis] = -step if flip else step
            to_source[stored, 3] = self.source.shape[stored] - 1 - start if flip else start
        return np.asarray(self.source.affine @ to_source)

    def source_box(self, box: Sequence[slice]) -> Box:
        """Return the scan's voxels (I, J, K) that a box of the network's grid covers, if only in part.

        A box that reaches the end of the network's grid reaches that of the scan, whose extent is rounded to whole
        voxels of the network.
        """
        covered = [slice(0)] * 3
        for axis, (stored, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            side, cells, length = box[axis], self.shape[axis], self.canonical_shape[axis]
            step = self.spacing[axis] / self.canonical_spacing[axis]
            # Faces of voxels rather than centres, from the centre that both grids share; and rounded first, so that
            # rounding errors of a flip decide nothing.
            low, high = (round((face - cells / 2) * step + length / 2, 6) for face in (side.start, side.stop))
            start = max(0, math.floor(low)) if side.start > 0 else 0
            stop = min(length, math.ceil(high)) if side.stop < cells else length
            covered[stored] = reverse_slice(slice(start, stop), length, flip)
        return covered[0], covered[1], covered[2]


def network_grid(source: Grid, spacing: tuple[float, float, float]) -> NetworkGrid:
    """Return the network's grid of a scan, of the given spacing (mm along R-L, A-P, S-I)."""
    orientation = canonical_orientation(source)
    extent = [source.shape[stored] * float(source.spacing[stored]) for stored in orientation.order]
    # Rounded twice, so that half a voxel is rounded to the same side despite a rotation's errors in the last digits.
    x, y, z = (max(1, round(round(mm / step, 3))) for mm, step in zip(extent, spacing, strict=True))
    return NetworkGrid(source, orientation, spacing, (x, y, z))


def axis_weights(grid: NetworkGrid, axis: int, *, backward: bool = False) -> np.ndarray | None:
    """Return the interpolation from scan to network along a canonical axis, or backward; None if the voxels coincide.

    See `interpolation_matrix`: (outputs, inputs), float64.
    """
    near, far = grid.canonical_shape[axis], grid.shape[axis]
    step_near, step_far = grid.canonical_spacing[axis], grid.spacing[axis]
    if backward:
        near, far, step_near, step_far = far, near, step_far, step_near
    if near == far and abs(step_near - step_far) < 1e-6 * step_near:
        return None
    return interpolation_matrix(near, step_near, far, step_far)


def interpolation_matrix(inputs: int, step_in: float, outputs: int, step_out: float) -> np.ndarray:
    """Return linear interpolation along an axis as a matrix (outputs, inputs) of two grids that share their centre.

    Where the output is coarser, the linear kernel is widened to its spacing, so that fine detail is averaged rather
    than aliased. Beyond the border the nearest voxel is repeated.
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
    """Return how many voxels a box has along each axis."""
    i, j, k = (side.stop - side.start for side in box)
    return i, j, k


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the smallest box that holds every True voxel of `mask` (any shape); None without one."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the components of a mask (I, J, K) bool, numbered from 1 in an array of its shape, and their number.

    Voxels are connected through faces, edges and corners (26 neighbours), as in the post-processing of the published
    left atrium results (L. Yu et al., UA-MT, MICCAI 2019: `skimage.measure.label` with its default), so that thin
    oblique veins stay connected.
    """
    from scipy import ndimage

    components, number = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return components, number


def enclosing_box(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds all of `boxes`."""
    i, j, k = (slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
    return i, j, k


def pad_box(box: Sequence[slice], margin: Sequence[int], within: Sequence[slice]) -> Box:
    """Return `box` enlarged by `margin` voxels on both sides of each axis, as far as `within` reaches."""
    i, j, k = (
        slice(max(limit.start, side.start - more), min(limit.stop, side.stop + more))
        for side, more, limit in zip(box, margin, within, strict=True)
    )
    return i, j, k


def box_in_parent(box: Sequence[slice], parent: Sequence[slice]) -> Box:
    """Return a box of the part `parent` of a grid as a box of the grid."""
    i, j, k = (slice(b.start + p.start, b.stop + p.start) for b, p in zip(box, parent, strict=True))
    return i, j, k


def box_in_part(box: Sequence[slice], part: Sequence[slice]) -> Box:
    """Return a box of a grid as a box of the grid's part `part`, which holds it; the reverse of `box_in_parent`."""
    i, j, k = (slice(b.start - p.start, b.stop - p.start) for b, p in zip(box, part, strict=True))
    return i, j, k


def reverse_slice(side: slice, length: int, flipped: bool) -> slice:
    """Return the same voxels of an axis of `length` voxels, numbered from the other end if `flipped`."""
    return slice(length - side.stop, length - side.start) if flipped else side


@dataclass(frozen=True)
class Region:
    """A box along the patient's axes: `low` and `high` corner, RAS mm.

    to_unit: for a region that is rotated in this box, (4, 4) as nested tuples: RAS mm -> coordinates that are within
    -1 to 1 along each axis inside the region.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    to_unit: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Region:
        """Return the region of `x0,x1,y0,y1,z0,z1` in RAS mm, either end first.

        Raises:
            InputError: the text is not six finite numbers that enclose a volume.
        """
        try:
            values = np.array([float(part) for part in text.split(",")])
            pairs = np.sort(values.reshape(3, 2), axis=1)
        except ValueError:
            pairs = np.full((3, 2), np.nan)
        if not (np.isfinite(pairs).all() and (pairs[:, 0] < pairs[:, 1]).all()):
            raise InputError(f"'{text}' is not a region", remedy="Give x0,x1,y0,y1,z0,z1 in millimetres (RAS).")
        low, high = (tuple(float(v) for v in column) for column in pairs.T)
        return cls(low, high)  # type: ignore[arg-type]

    def box(self, grid: Grid | NetworkGrid, margin: int) -> Box:
        """Return the voxels of `grid` that hold the region and, where there are any, `margin` voxels more on each side.

        Raises:
            InputError: the region lies outside the scan.
        """
        ends = list(zip(self.low, self.high, strict=True))
        corners = np.array([[x, y, z, 1.0] for x in ends[0] for y in ends[1] for z in ends[2]])
        voxels = (corners @ np.linalg.inv(grid.affine).T)[:, :3]
        # Bounded, since a region may reach far beyond what an integer holds.
        voxels = voxels.clip(-1 - margin, np.array(grid.shape) + margin)
        low, high = np.floor(voxels.min(axis=0)).astype(int), np.ceil(voxels.max(axis=0)).astype(int)
        if (high < 0).any() or (low >= np.array(grid.shape)).any():
            raise InputError("the region of interest lies outside the scan", remedy="Give it in RAS millimetres.")
        inner = [slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True)]
        return pad_box(inner, (margin,) * 3, whole_box(grid.shape))

    def mask(self, grid: Grid) -> np.ndarray:
        """Return which voxels of a scan's grid have their centre inside: bool (I, J, K)."""
        inside = np.ones(grid.shape, bool)
        steps = [np.arange(n).reshape([-1 if d == axis else 1 for d in range(3)]) for axis, n in enumerate(grid.shape)]
        for axes, low, high in self._limits():
            for row, least, most in zip(axes @ grid.affine, low, high, strict=True):
                position = row[0] * steps[0] + row[1] * steps[1] + row[2] * steps[2] + row[3]
                inside &= (position >= least) & (position <= most)
        return inside

    def _limits(self) -> list[tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]]:
        """Return maps (3, 4) of RAS mm to coordinates, each with the lowest and the highest inside the region."""
        limits: list[tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]] = [(np.eye(4)[:3], self.low, self.high)]
        if self.to_unit is not None:
            limits.append((np.array(self.to_unit)[:3], (-1.0,) * 3, (1.0,) * 3))
        return limits
