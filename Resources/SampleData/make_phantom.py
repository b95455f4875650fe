"""Make a synthetic heart scan that looks like late-gadolinium-enhanced (LGE) MRI of the left atrium.

    python make_phantom.py -o LGEHeartPhantom.nrrd
    python make_phantom.py -o scan.nii.gz --label label.nii.gz --seed 7

Every structure is an analytic shape, so the scan contains no patient's data, and the left atrium is known exactly. The
seed determines size, shape, contrast, scar, coil shading and noise.

Lengths are in mm. Coordinates are centred on the left atrium: x points to the patient's left, y to posterior, z to
superior. The blood of the left heart has brightness 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if __package__ in (None, ""):  # run from a checkout, where the engine need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DCAMTSegmentation"))

from dcamt.errors import DCAMTError, InputError
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.volume import Labelmap, Volume

Field = NDArray[np.floating[Any]]
Points = tuple[Field, Field, Field]

EXTENT_MM = (118.75, 90.0, 55.0)
"""Field of view along x, y and z: 190 x 144 x 88 voxels at 0.625 mm."""

CENTRE_IN_VIEW = (0.54, 0.47, 0.53)
"""Position of the left atrium, as fractions of the field of view from the right, anterior and inferior sides.

`make_phantom` adds a random shift.
"""


def _ellipsoid(p: Points, centre: Sequence[float], radii: Sequence[float]) -> Field:
    """Return the distance (mm) to an ellipsoid, negative inside; near the surface it is accurate to first order."""
    q = [(p[i] - centre[i]) / radii[i] for i in range(3)]
    k0 = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
    k1 = np.sqrt(sum((q[i] / radii[i]) ** 2 for i in range(3))) + 1e-6
    return np.asarray(k0 * (k0 - 1) / k1, np.float32)


def _tube(p: Points, line: ArrayLike, radii: ArrayLike) -> Field:
    """Return the distance (mm) to a tube along a polyline, negative inside; each point has a radius (mm)."""
    # A NumPy float64 operand would make every array float64, which takes twice as long.
    points, radius = np.asarray(line, np.float32), np.asarray(radii, np.float32)
    parts = []
    for a, b, ra, rb in zip(points[:-1], points[1:], radius[:-1], radius[1:], strict=True):
        d = b - a
        t = np.clip(sum((p[i] - a[i]) * d[i] for i in range(3)) / (d @ d), 0, 1)
        parts.append(np.sqrt(sum((p[i] - a[i] - t * d[i]) ** 2 for i in range(3))) - (ra + t * (rb - ra)))
    return np.asarray(np.minimum.reduce(parts))


def _half_space(p: Points, point: Field, normal: Field) -> Field:
    """Return the distance (mm) from the plane through `point`, positive on the side to which `normal` points."""
    x, y, z = ((p[i] - point[i]) * normal[i] for i in range(3))
    return np.asarray(x + y + z, np.float32)


def _blend(a: Field, b: Field, k: float) -> Field:
    """Return the distance (mm) to the union of two shapes with a rounded joint.

    Formula: https://iquilezles.org/articles/smin
    """
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * (k / 4)


class _Canvas:
    """Paints shapes over one another, with soft edges `edge_mm` wide."""

    def __init__(self, background: Field, edge_mm: float) -> None:
        self.signal = background
        self._edge = edge_mm

    def paint(self, distance: Field, brightness: float | Field) -> None:
        """Paint `brightness` where `distance` (mm) is negative."""
        cover = np.clip(0.5 - distance / self._edge, 0, 1)
        self.signal += cover * (brightness - self.signal)


def _smooth_noise(rng: np.random.Generator, shape: Sequence[int], extent: Sequence[float], knot_mm: float) -> Field:
    """Return smooth noise of about unit variance; at any voxel size, its bumps are about `knot_mm` wide."""
    from scipy import ndimage

    knots = rng.standard_normal([max(4, int(np.ceil(e / knot_mm)) + 3) for e in extent]).astype(np.float32)
    for axis, n in enumerate(shape):
        at = 1 + (np.arange(n) + 0.5) / n * (knots.shape[axis] - 3)
        weights = ndimage.spline_filter1d(np.eye(knots.shape[axis]), 3, axis=0)
        basis = np.stack([ndimage.map_coordinates(w, [at], order=3, prefilter=False) for w in weights.T])
        knots = np.moveaxis(np.tensordot(knots, basis.astype(np.float32), (axis, 0)), -1, axis)
    return knots


def _atrium(p: Points, size: float, anatomy: dict[str, NDArray[np.float64]]) -> tuple[Field, Field]:
    """Return two distances (mm, negative inside): to the atrium with whole veins, and to the part that experts outline.

    Atrium and outlined part end at the mitral plane. In the outlined part, each vein ends `anatomy["cut"]` mm beyond
    the vein's bend.
    """
    s, v, cut, r = size, anatomy["vein"], anatomy["cut"], anatomy["radius"]
    body = _ellipsoid(p, (2 * s, 1 * s, -2.5 * s), (26.5 * s, 17 * s, 14.5 * s))
    body = _blend(body, _ellipsoid(p, (-4 * s, 1.5 * s, 3.5 * s), (20 * s, 14.5 * s, 12 * s)), 6)
    body = np.maximum(body, _half_space(p, *_mitral_plane(s)))
    # Pulmonary veins: right superior and inferior, left superior and inferior (ostium, bend, far end).
    veins = [
        ((-14, -1, 6), (-30, -6, 9), (-62, -13, 14), 6.6),
        ((-15, 8, -1), (-30, 14, -2), (-62, 27, -5), 6.2),
        ((16, 2, 7), (29, 1, 12), (55, -5, 22), 6.0),
        ((15, 9, 4), (25, 19, 6), (58, 33, 7), 5.6),
    ]
    whole, outlined = body, body
    for n, (ostium, bend, far, radius) in enumerate(veins):
        a, b = np.multiply(ostium, s), np.multiply(bend, s) + v[n]
        c = b + np.subtract(far, bend) + 2 * v[n]
        radius *= float(r[n]) * s**0.5
        tube = _tube(p, (a, b, c), (radius * 1.35, radius, radius * 0.75))
        along = (c - b) / np.linalg.norm(c - b)
        whole = _blend(whole, tube, 5)
        outlined = _blend(outlined, np.maximum(tube, _half_space(p, b + cut[n] * along, along)), 5)
    # The appendage: a hook from the left anterior wall, forward and up beside the pulmonary trunk.
    hook = np.array([(17, -7, 4), (27, -13, 6), (34, -19, 9), (31, -27, 10)]) * s + v[4] / 2
    appendage = _tube(p, hook, np.array([7, 6.2, 6, 3.2]) * float(r[4]))
    return _blend(whole, appendage, 5), _blend(outlined, appendage, 5)


def _mitral_plane(size: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a point on the plane of the mitral valve, and the unit normal from the atrium to the ventricle."""
    normal = np.array([0.76, -0.54, -0.36])
    normal /= np.linalg.norm(normal)
    return normal * 17.0 * size, normal


def _size_for(target_ml: float, anatomy: dict[str, NDArray[np.float64]]) -> float:
    """Return the size factor for which the outlined atrium has a volume of `target_ml`."""
    step = 1.5
    axes = [np.arange(-e * 0.6, e * 0.6, step, dtype=np.float32) for e in EXTENT_MM]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    low, high = 0.7, 1.6
    for _ in range(9):
        size = (low + high) / 2
        volume_ml = float((_atrium((x, y, z), size, anatomy)[1] < 0).sum()) * step**3 / 1000
        low, high = (size, high) if volume_ml < target_ml else (low, size)
    return (low + high) / 2


def _paint_chest(canvas: _Canvas, p: Points, s: float, whole: Field, tone: dict[str, float], texture: Field) -> None:
    back = 17 * s
    mediastinum = _ellipsoid(p, (6, -26, -12), (58, 42 * s**0.5, 60))
    mediastinum = _blend(mediastinum, _ellipsoid(p, (-2, 0, 0), (38 * s, 22 * s, 34 * s)), 12)
    for line, radius in (((4, back + 11), 15.0), ((-15, back + 26), 20.0)):
        mediastinum = _blend(mediastinum, _tube(p, ((*line, -60), (*line, 60)), (radius, radius)), 8)
    wall = _ellipsoid(p, (-4, -10, 0), (92, 62 + 8 * s, 400))
    canvas.paint(np.maximum(-mediastinum, wall), tone["lung"] * (1 + 0.35 * texture))
    canvas.paint(-wall, tone["fat"] * (1 + 0.15 * texture))
    canvas.paint(np.abs(mediastinum) - 0.5, tone["tissue"] * 1.1)
    canvas.paint(_ellipsoid(p, (-48, -8, -64 * s**0.5), (46, 48, 40)), tone["liver"] * (1 + 0.1 * texture))

    # Hila: connective tissue surrounds the veins where they enter the lungs.
    hila = np.maximum(whole - 5 - 2 * texture, np.abs(p[0]) - 46)
    canvas.paint(hila, tone["tissue"] * (1 + 0.3 * texture))

    spine = _ellipsoid(p, (-16, back + 27, 0), (19, 17, 400))
    canvas.paint(spine - 1.8, tone["rim"])
    canvas.paint(spine, tone["marrow"] * (1 + 0.4 * texture))
    for z in (-22.0, 3.0, 28.0):  # discs between the vertebral bodies
        canvas.paint(np.maximum(spine + 1, np.abs(p[2] - z) - 1.8), tone["rim"] * 0.7)
    oesophagus = _ellipsoid(p, (-7, back + 4.5, 0), (8.5, 3.4, 400))
    canvas.paint(oesophagus, tone["rim"])
    canvas.paint(oesophagus + 1.6, tone["tissue"] * 0.7)
    aorta = _tube(p, ((5, back + 14, -60), (6, back + 12, 60)), (11, 10.2))
    canvas.paint(aorta - 1.4, tone["tissue"] * 0.7)
    canvas.paint(aorta, tone["blood_left"])


def _paint_lung_vessels(canvas: _Canvas, p: Points, lines: NDArray[np.float64], tone: dict[str, float]) -> None:
    """Paint thin vessels across the lungs; the heart is painted later and covers the vessels that cross it.

    Each vessel is painted only in its bounding box, to save time.
    """
    axes = [np.asarray(a).ravel() for a in p]
    for start, end, (radius, brightness, _) in lines:
        low, high = np.minimum(start, end) - radius - 2, np.maximum(start, end) + radius + 2
        box = tuple(slice(*np.searchsorted(axes[i], (low[i], high[i]))) for i in range(3))
        if any(b.start >= b.stop for b in box):
            continue
        x, y, z = np.meshgrid(*(axes[i][box[i]] for i in range(3)), indexing="ij", sparse=True)
        cover = np.clip(0.5 - _tube((x, y, z), (start, end), (radius, radius * 0.6)) / 1.2, 0, 1)
        # Vessels are visible in dark lung, and not in the bright chest wall.
        part = canvas.signal[box]
        part += cover * np.maximum(brightness * tone["blood_left"] - part, 0)


def _paint_heart(
    canvas: _Canvas, p: Points, s: float, whole: Field, tone: dict[str, float], texture: Field, scar: Field
) -> None:
    valve, normal = _mitral_plane(s)
    right, left, myocardium = tone["blood_right"], tone["blood_left"], tone["myocardium"]
    grown = 17 * (s - 1)

    heart = _ellipsoid(p, (8, -28 - grown / 2, -14), (56, 36, 38))
    canvas.paint(np.abs(heart) - 0.9, tone["tissue"] * 1.3)
    canvas.paint(heart, tone["tissue"] * 0.9 * (1 + 0.25 * texture))

    ventricle = _ellipsoid(p, (8, -46 - grown, -24), (34, 21, 22))
    canvas.paint(ventricle - 2.5, myocardium)
    canvas.paint(ventricle, right)
    atrium = _ellipsoid(p, (-31 - grown / 2, -23 - grown / 2, -10), (20, 21, 25))
    cava = _tube(p, ((-27, -19 - grown / 2, 4), (-25, -18 - grown / 2, 60)), (9.5, 8))
    inferior = _tube(p, ((-29, -8, -20), (-31, -3, -60)), (11, 12))
    atrium_and_veins = _blend(_blend(atrium, cava, 6), inferior, 6)
    canvas.paint(atrium_and_veins - 1.8, tone["tissue"] * 0.7)
    canvas.paint(atrium_and_veins, right)
    canvas.paint(np.maximum(_tube(p, ((-20, -32, -14), (0, -42, -20)), (13, 13)), -atrium - 6), right)

    centre = valve + normal * 29
    along = _half_space(p, centre, normal)
    across = np.sqrt(np.maximum(sum((p[i] - centre[i]) ** 2 for i in range(3)) - along**2, 0))
    cavity_len, cavity_rad, thick = 38.0, 22.0, 9.0
    zero = np.zeros(1, np.float32)
    cavity = _ellipsoid((across, along, zero), (0, 0, 0), (cavity_rad, cavity_len, 1e3))
    shell = _ellipsoid((across, along, zero), (0, 0, 0), (cavity_rad + thick, cavity_len + thick, 1e3))
    base = -_half_space(p, valve, normal)
    canvas.paint(np.maximum(shell, base + 1.5), myocardium * (1 + 0.12 * texture))
    # Scar lies in the inner half of the wall, where the field `scar` is positive.
    canvas.paint(np.maximum(np.maximum(np.abs(cavity) - thick * 0.5, -scar * 6), base + 6), tone["scar"])
    canvas.paint(np.maximum(cavity, base), left)

    root, up = (2, -27 - grown / 2, 2), (-4, -33 - grown, 34)
    outflow = _tube(p, ((20, -33 - grown, -12), root, up), (9, 14, 14.5))
    canvas.paint(outflow - 1.5, tone["tissue"] * 0.7)
    canvas.paint(outflow, left)
    trunk = _tube(p, ((20, -50 - grown, -8), (25, -36 - grown, 18), (20, -22, 32 + grown)), (13, 13, 12))
    branch = _tube(p, ((20, -22, 32 + grown), (-4, -10, 29 + grown), (-50, -8, 26 + grown)), (11, 9, 8))
    arteries = np.minimum(trunk, branch)
    canvas.paint(arteries - 1.4, tone["tissue"] * 0.7)
    canvas.paint(arteries, right)

    # The wall of the atrium: about 2 mm, faintly enhanced, brighter where the field `scar` is positive.
    fibrosis = np.clip(scar, 0, 1) * (tone["scar"] - tone["wall"])
    canvas.paint(np.maximum(whole - 3.6, -base - 1), tone["tissue"] * 0.8)
    canvas.paint(np.maximum(whole - 2.0, -base), tone["wall"] + fibrosis)
    canvas.paint(whole, left)
    canvas.paint(np.abs(base) + np.maximum(whole, 0) - 0.9, tone["leaflet"])


def make_phantom(seed: int, *, spacing_mm: float = 0.625) -> tuple[Volume, Labelmap]:
    """Return a synthetic scan and the label of its left atrium.

    Args:
        seed: at least 0; the same seed gives the same scan.
        spacing_mm: voxel size; 0.625 gives 190 x 144 x 88 voxels. Larger voxels give the same heart faster.

    Returns:
        The scan, `(1, I, J, K)` uint8, and the labelmap, `(I, J, K)` uint8. Label 1 is the blood of the left atrium
        with the appendage and the veins' antra. Label 1 has a volume of 40 to 90 mL. Voxel axes run to the patient's
        left, posterior and superior; the grid's centre is the RAS origin.

    Raises:
        InputError: the seed is negative or the spacing is outside 0.3 to 3 mm.
    """
    if seed < 0:
        raise InputError(f"the seed is {seed}", remedy="Give a whole number of at least 0.")
    if not 0.3 <= spacing_mm <= 3:
        raise InputError(f"the voxel size is {spacing_mm} mm", remedy="Give a voxel size from 0.3 to 3 mm.")
    rng = np.random.default_rng(seed)
    shape = tuple(round(e / spacing_mm) for e in EXTENT_MM)

    def smooth(knot_mm: float) -> Field:
        return _smooth_noise(rng, shape, EXTENT_MM, knot_mm)

    anatomy = {
        "vein": rng.normal(0, 1.6, (5, 3)),
        "cut": rng.uniform(0, 11, 4),
        "radius": rng.uniform(0.85, 1.2, 5),
    }
    blood = rng.uniform(42, 118)
    tone = _draw_tones(rng)
    # Small volumes are more frequent than large ones, as in patients.
    size = _size_for(42 + 44 * float(rng.beta(1.2, 1.8)), anatomy)

    axes = [
        ((np.arange(n) + 0.5) * spacing_mm - c * e).astype(np.float32)
        for n, c, e in zip(shape, CENTRE_IN_VIEW + rng.normal(0, 0.02, 3), EXTENT_MM, strict=True)
    ]
    straight = tuple(np.meshgrid(*axes, indexing="ij", sparse=True))
    bent: Points = tuple(a + 1.5 * smooth(32) + 0.4 * smooth(11) for a in straight)  # type: ignore[assignment]
    whole, outlined = _atrium(bent, size, anatomy)

    texture = 0.7 * smooth(5) + 0.7 * smooth(2.2)
    scar = smooth(14) - 1.0
    vessels = _draw_vessels(rng)

    canvas = _Canvas((tone["tissue"] * (1 + 0.3 * texture)).astype(np.float32), max(1.3, 1.3 * spacing_mm))
    _paint_chest(canvas, bent, size, whole, tone, texture)
    _paint_lung_vessels(canvas, straight, vessels, tone)  # type: ignore[arg-type]
    _paint_heart(canvas, bent, size, whole, tone, texture, scar)

    # The shading of the receive coil.
    signal = canvas.signal * np.exp(0.09 * smooth(55)) * np.exp(-bent[1] * rng.uniform(0, 0.004))
    voxels = np.clip(np.rint(_add_noise(signal, spacing_mm, rng) * blood), 0, 255).astype(np.uint8)

    grid = _centred_grid(shape, spacing_mm)
    label = _largest_component(outlined < 0)
    return Volume(voxels[None], grid, None), Labelmap(label.astype(np.uint8), grid, None)


def _centred_grid(shape: Sequence[int], spacing_mm: float) -> Grid:
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


def _draw_tones(rng: np.random.Generator) -> dict[str, float]:
    return {
        "blood_left": 1.0,
        "blood_right": rng.uniform(0.88, 1.06),
        "myocardium": rng.uniform(0.3, 0.52),
        "scar": rng.uniform(1.05, 1.35),
        "wall": rng.uniform(0.5, 0.75),
        "leaflet": rng.uniform(0.65, 0.95),
        "tissue": rng.uniform(0.36, 0.6),
        "lung": rng.uniform(0.06, 0.14),
        "fat": rng.uniform(0.6, 1.1),
        "liver": rng.uniform(0.35, 0.6),
        "marrow": rng.uniform(0.1, 0.3),
        "rim": rng.uniform(0.55, 0.85),
    }


def _draw_vessels(rng: np.random.Generator, count: int = 320) -> NDArray[np.float64]:
    """Return random vessels of the lung, (count, 3, 3): start, end, and (radius, brightness, 0)."""
    starts = rng.uniform(-0.65, 0.65, (count, 3)) * EXTENT_MM
    steps = rng.normal(0, 1, (count, 3)) * (11, 6, 6)
    widths = np.stack([rng.gamma(3, 0.45, count) + 0.5, rng.uniform(0.4, 1, count), np.zeros(count)], 1)
    return np.stack([starts, starts + steps, widths], 1)


def _add_noise(signal: Field, spacing_mm: float, rng: np.random.Generator) -> Field:
    """Return the signal with Rician noise.

    The noise is smoothed by a Gaussian filter (standard deviation 0.75 mm), so that neighbouring voxels correlate as in
    interpolated scans.
    """
    from scipy import ndimage

    level, sigma = rng.uniform(0.05, 0.12), 0.75 / spacing_mm
    noise = []
    for _ in range(2):
        part = ndimage.gaussian_filter(rng.standard_normal(signal.shape, dtype=np.float32), sigma)
        noise.append(part * (level / part.std()))
    return np.asarray(np.hypot(np.maximum(signal, 0) + noise[0], noise[1]))


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.asarray(components == int(sizes.argmax()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a synthetic heart scan with a known left atrium.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the scan: .nrrd or .nii.gz")
    parser.add_argument(
        "--label", type=Path, help="also write the label of the left atrium to this file: .nrrd or .nii.gz"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random numbers; each seed gives another heart (default: 0)"
    )
    given = parser.parse_args(argv)
    try:
        scan, label = make_phantom(given.seed)
        write_volume(scan, given.output)
        if given.label is not None:
            write_labelmap(label, given.label)
    except (DCAMTError, OSError) as error:
        print(f"make_phantom: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
