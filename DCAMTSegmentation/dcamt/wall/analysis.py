"""Analyse the wall of a segment in a scan: surface, blood pool, ratio, openings, regions; refuse unusable input."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from threading import Thread

import numpy as np

from ..errors import InputError, fixed_number, plain_number
from ..geometry import Grid
from ..io.formats import scan_name
from ..process_settings import default_numpy_settings
from ..volume import Labelmap, Volume, fit_labelmap
from .burden import BORDER, OPENING, WALL, Burden, count_burden, decaaf_stage, regions_of
from .openings import PROFILE_FROM_MM, PROFILE_TO_MM, find_painted_openings, propose_openings
from .sampling import EROSION_MM, BloodPool, blood_pool, inside_scan, offsets, profiles, reaches_border
from .settings import MAXIMUM, Threshold, WallSettings
from .surface import Extraction, Surface, extract_surface

LEAST_POOL_VOXELS = 500
"""A blood pool of fewer voxels of the scan is too small as a reference."""
NEGATIVE_FRACTION = 0.05
"""Negative intensities up to this fraction of the blood pool's mean are accepted: interpolation can cause them."""
CONSTANT_FRACTION = 1e-4
"""If the blood pool's standard deviation is less than this fraction of its mean, the scan is refused as constant."""
SURROUNDINGS_FROM_MM = 3.0
"""Distance from the surface, along the outward normal, at which the surroundings begin; they end at `PROFILE_TO_MM`."""
LEAST_DARKER = 0.33
"""In a late-enhancement scan, at least this fraction of the surroundings (lung, muscle, ...) is darker than blood."""
LEAST_INSIDE = 0.5
"""If a smaller fraction of the surface lies in the scan, the wall is not measured (`_check_overlap`)."""

REPORTED_VOLUME_ML = 0.05
"""Separate parts or cavities of the segment get a note if their total volume is larger."""
THIN_WALL_ERRORS = ((1.75, 2), (2.0, 2), (2.5, 4), (3.0, 8), (4.0, 17), (5.0, 25), (8.0, 40))
"""Pairs of the scan's largest spacing in mm and the percentage points by which the burden may be too low.

`Testing/benchmarks/wall_resolution.py` measured the percentage points on phantoms with a wall of 2.4 mm and a scar 1.5
times as bright as blood.
"""

VTK_MODULES = ("vtkmodules.util.numpy_support", "vtkmodules.vtkFiltersCore", "vtkmodules.vtkIOXML")
"""Importing these modules loads every part of vtk that is needed to measure a wall and to write its surface."""
SCIPY_MODULES = ("scipy.ndimage", "scipy.sparse.csgraph")
"""Importing these modules loads every part of SciPy that measuring a wall needs."""


def import_in_background(names: Iterable[str]) -> None:
    """Import modules in a thread, for example while a scan is read.

    The thread ignores a failed import; other code that imports the module gets the error.
    """

    def import_all() -> None:
        for name in names:
            with suppress(Exception):  # An import runs the module's code, which can raise any error.
                import_module(name)

    Thread(target=import_all, name="imports of the wall", daemon=True).start()


@dataclass(frozen=True, eq=False)
class WallResult:
    """The wall of one segment in one scan.

    Attributes:
        surface: N points in RAS mm.
        ratio: (N,) float32, the intensity sampled for each point, divided by the pool's mean.
        kind: (N,) uint8, `burden.WALL`, `OPENING` or `BORDER`.
        region: (N,) uint8 indices into `burden.REGIONS`.
        proposed: whether the openings are a proposal.
    """

    scan: str
    settings: WallSettings
    surface: Surface
    pool: BloodPool
    ratio: np.ndarray
    kind: np.ndarray
    region: np.ndarray
    proposed: bool
    notes: tuple[str, ...] = ()

    def threshold_ratio(self, threshold: Threshold | None = None) -> float:
        """Return a threshold (default: that of the settings) as a ratio to the blood pool's mean."""
        return (threshold or self.settings.threshold).ratio(self.pool.mean, self.pool.sd)

    def enhanced(self, threshold: Threshold | None = None) -> np.ndarray:
        """Return the mask (N,) bool of the wall's points above a threshold."""
        return np.asarray((self.kind == WALL) & (self.ratio > self.threshold_ratio(threshold)))

    def burdens(self, threshold: Threshold | None = None) -> tuple[Burden, ...]:
        """Return the burden of the whole wall, then of each region, at a threshold."""
        areas = self.surface.point_areas
        return count_burden(self.ratio, self.kind, self.region, areas, self.threshold_ratio(threshold))

    @cached_property
    def burden(self) -> Burden:
        """The burden of the whole wall at the settings' threshold."""
        return self.burdens()[0]

    @property
    def stage(self) -> str:
        """The stage of `burden` according to the bounds of DECAAF."""
        return decaaf_stage(self.burden.percent)

    def area_cm2(self, kind: int) -> float:
        """Return the area of the points of a kind."""
        return float(self.surface.point_areas[self.kind == kind].sum()) / 100.0

    def with_openings(self, openings: np.ndarray) -> WallResult:
        """Return the wall with other openings; points at the scan's border stay `BORDER`.

        Args:
            openings: (N,) bool, True for points in an opening.
        """
        changed = replace(self, kind=_kinds(self.kind == BORDER, openings), proposed=False)
        other_notes = [note for note in self.notes if note not in _opening_notes(self)]
        return replace(changed, notes=(*_opening_notes(changed), *other_notes))


@default_numpy_settings()
def analyse_wall(
    volume: Volume,
    labelmap: Labelmap,
    settings: WallSettings | None = None,
    *,
    label: int | None = None,
    openings: Labelmap | None = None,
    scan: str | None = None,
) -> WallResult:
    """Measure late enhancement on the surface of a segment, and return the wall.

    Args:
        volume: the scan, with one channel.
        labelmap: the segmentation of the same patient, in the scan's coordinates (RAS mm). Its grid may differ from the
            scan's grid.
        label: the segment's value; not needed if the labelmap has only one.
        openings: a labelmap on any grid, 0 outside the openings; by default, `propose_openings` finds the openings.
        scan: the scan's name in the result (default: its file name without the ending; "" if the scan has no file).

    Raises:
        InputError: the scan has several channels; the segment does not exist, or must be chosen from several; the
            segment is too small for a surface, or does not lie in the scan (`_check_overlap`); the blood pool or the
            intensities cannot be used (`_check_pool`, `_check_surroundings`); or the whole surface belongs to openings
            or lies at the scan's border.
    """
    settings = settings or WallSettings()
    name = scan if scan is not None else scan_name(volume.path) if volume.path is not None else ""
    voxels = _single_channel(volume)
    labelmap = _fit_if_possible(labelmap, volume.grid, name)
    mask = labelmap.voxels == segment_label(labelmap, label)
    segment_file = labelmap.path or "The segmentation"
    extraction = extract_surface(mask, labelmap.grid, segment_file)
    surface = extraction.surface
    _check_overlap(surface, volume.grid, segment_file)
    pool = blood_pool(voxels, volume.grid, mask, labelmap.grid, extraction)
    _check_pool(pool, voxels, volume.path, segment_file)

    distances = offsets(settings.from_mm, settings.to_mm, volume.grid)
    along = profiles(voxels, volume.grid, surface, distances)
    sample = along.max(axis=1) if settings.sample == MAXIMUM else along.mean(axis=1)
    is_border = reaches_border(volume.grid, surface, distances)
    beyond = offsets(PROFILE_FROM_MM, PROFILE_TO_MM, volume.grid)
    intensities = profiles(voxels, volume.grid, surface, beyond)
    _check_surroundings(intensities[:, beyond >= SURROUNDINGS_FROM_MM][~is_border], pool, volume.path)
    if openings is None:
        is_opening = propose_openings(extraction, intensities, beyond, pool)
    else:
        is_opening = find_painted_openings(surface, openings)
    kind = _kinds(is_border, is_opening)
    if not (kind == WALL).any():
        raise InputError(
            "leaves no wall: all of the segment's surface belongs to openings or lies at the scan's border",
            path=openings.path if openings is not None and openings.path is not None else segment_file,
            remedy="Mark only the openings, and choose a scan of the whole atrium.",
        )
    result = WallResult(
        scan=name,
        settings=settings,
        surface=surface,
        pool=pool,
        ratio=(sample / pool.mean).astype(np.float32),
        kind=kind,
        region=regions_of(surface.normals),
        proposed=openings is None,
    )
    return replace(result, notes=_notes(result, extraction, volume.grid, labelmap.grid))


def _fit_if_possible(labelmap: Labelmap, grid: Grid, scan: str) -> Labelmap:
    try:
        return fit_labelmap(labelmap, grid, scan)
    except InputError:
        return labelmap


def _kinds(is_border: np.ndarray, is_opening: np.ndarray) -> np.ndarray:
    return np.where(is_border, BORDER, np.where(is_opening, OPENING, WALL)).astype(np.uint8)


def segment_label(labelmap: Labelmap, label: int | None = None) -> int:
    """Return `label` if the labelmap contains it. If `label` is None, return the only label of the labelmap.

    Raises InputError if the labelmap is empty or lacks `label`, or if it has several labels and none is chosen.
    """
    present = [int(value) for value in np.unique(labelmap.voxels) if value != 0]
    path = labelmap.path or "The segmentation"
    if not present:
        raise InputError("holds no segment", path=path, remedy="Choose a segmentation of the left atrium's blood.")
    if label is None and len(present) == 1:
        return present[0]
    listed = ", ".join(map(str, present[:20]))
    if label is None:
        remedy = "Choose a label with --label (in Python: label)."
        raise InputError(f"holds several labels ({listed})", path=path, remedy=remedy)
    if label not in present:
        raise InputError(f"has no label {label}", path=path, remedy=f"Choose one of: {listed}.")
    return label


def _single_channel(volume: Volume) -> np.ndarray:
    if len(volume.voxels) != 1:
        raise InputError(
            f"holds {len(volume.voxels)} images", path=volume.path, remedy="Extract the late-enhancement image."
        )
    return np.asarray(volume.voxels[0])


def _check_overlap(surface: Surface, scan_grid: Grid, segment_file: str | Path) -> None:
    if inside_scan(scan_grid, surface.points).mean() >= LEAST_INSIDE:
        return
    if inside_scan(scan_grid, surface.points - EROSION_MM * surface.normals).mean() >= LEAST_INSIDE:
        raise InputError(
            "has most of its surface at the scan's border, where no wall can be measured",
            path=segment_file,
            remedy="Choose the segment of the left atrium's blood, and a scan of the whole atrium.",
        )
    raise InputError("lies mostly outside the scan", path=segment_file, remedy="Choose the segmentation of this scan.")


def _check_pool(pool: BloodPool, voxels: np.ndarray, path: Path | None, segment_file: str | Path) -> None:
    if pool.voxels < LEAST_POOL_VOXELS:
        raise InputError(
            f"has too small a blood pool: {pool.voxels} voxels of the scan remain after erosion by"
            f" {EROSION_MM:g} mm, but {LEAST_POOL_VOXELS} are needed",
            path=segment_file,
            remedy="Choose the segment of the whole left atrium's blood.",
        )
    lowest = float(voxels.min())
    if lowest < -NEGATIVE_FRACTION * abs(pool.mean):
        raise InputError(
            f"holds negative intensities (down to {lowest:g}), so a ratio to the blood pool is meaningless",
            path=path,
            remedy="Use the scanner's original magnitude image, not a normalised one.",
        )
    if pool.mean <= 0 or pool.sd < CONSTANT_FRACTION * pool.mean:
        raise InputError(
            f"has one intensity, {pool.mean:g}, in the whole blood pool",
            path=path,
            remedy="Choose the late-enhancement scan, not a mask.",
        )


def _check_surroundings(around: np.ndarray, pool: BloodPool, path: Path | None) -> None:
    if not around.size:
        return
    darker = float((around < pool.mean).mean())
    if darker < LEAST_DARKER:
        raise InputError(
            f"is probably not a late-enhancement scan: the blood pool (mean {plain_number(pool.mean, 4)}) is darker"
            f" than {1 - darker:.0%} of the segment's surroundings",
            path=path,
            remedy="Choose the late-enhancement scan, and the segment of the left atrium's blood.",
        )


def _opening_notes(result: WallResult) -> list[str]:
    openings = result.area_cm2(OPENING)
    notes = []
    if result.proposed and openings > 0:
        notes.append(
            f"{fixed_number(openings, 1)} cm² were proposed as openings (mitral valve, veins) and do not count as wall:"
            " check them."
        )
    elif result.proposed:
        notes.append(
            "No opening was found, so the mitral valve and the ends of the veins count as wall. Mark them by hand."
        )
    elif openings == 0:
        notes.append(
            "The given openings do not touch the surface, so the mitral valve and the ends of the veins count as wall."
        )
    return notes


def _resolution_notes(grid: Grid) -> list[str]:
    # Files store rounded directions of axes, so computed spacings differ in the last decimals.
    thickest = round(float(grid.spacing.max()), 3)
    spacings, points = zip(*THIN_WALL_ERRORS, strict=True)
    if thickest <= spacings[0]:
        return []
    too_low = round(float(np.interp(thickest, spacings, points)))
    return [
        f"The voxels are up to {plain_number(thickest, 3)} mm long, so the burden of a thin wall (2.4 mm) may be"
        f" {too_low} or more percentage points too low. Compare only scans whose voxels have the same size."
    ]


def _notes(result: WallResult, extraction: Extraction, scan_grid: Grid, segment_grid: Grid) -> tuple[str, ...]:
    notes = _opening_notes(result) + _resolution_notes(scan_grid)
    border = result.area_cm2(BORDER)
    if border > 0:
        notes.append(f"{fixed_number(border, 1)} cm² of the surface lie at the scan's border and do not count as wall.")
    if extraction.separate_ml > REPORTED_VOLUME_ML:
        notes.append(f"Separate parts of the segment ({extraction.separate_ml:.1f} mL) were ignored.")
    if extraction.hollow_ml > REPORTED_VOLUME_ML:
        notes.append(f"Cavities in the segment ({extraction.hollow_ml:.1f} mL) were filled.")
    if not scan_grid.matches(segment_grid):
        notes.append("Scan and segmentation have different grids; they were aligned by their patient coordinates.")
    return tuple(notes)
