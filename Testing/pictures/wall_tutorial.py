"""Draw the pictures of docs/wall.md: the wall of the sample scan with added scar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall
from dcamt.wall.burden import OPENING
from dcamt.wall.colors import COLOR_STOPS, OPENING_COLOR, RATIO_RANGE, threshold_colors, wall_colors
from dcamt.wall.settings import SD, Threshold

from .png import window_pixels

SAMPLE_DATA = Path(__file__).resolve().parents[2] / "Resources" / "SampleData"
SCARRED_MM = 3.0
"""Thickness of the added scar."""
VIEWS = {"from the front": ((0.15, 1.0, 0.1), (0, 0, 1)), "from behind": ((0.0, -1.0, 0.15), (0, 0, 1))}
"""For each view, the direction from the atrium to the viewer and the up direction, RAS."""
ENHANCED_COLOR = (0.78, 0.13, 0.15)
PIXELS = 620


def scarred_sample() -> tuple[Volume, Labelmap]:
    """Return the sample scan, with bright patches added in the posterior wall of the atrium, and the atrium's label."""
    from scipy import ndimage

    sys.path.insert(0, str(SAMPLE_DATA))
    from make_phantom import make_phantom

    volume, label = make_phantom(0)
    inside = label.voxels != 0
    away = ndimage.distance_transform_edt(~inside, sampling=volume.grid.spacing)
    texture = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(inside.shape), 7.0)
    index = np.indices(inside.shape).reshape(3, -1).T
    posterior = -(index @ volume.grid.affine[:3, :3].T + volume.grid.affine[:3, 3])[:, 1].reshape(inside.shape)
    centre = posterior[inside].mean()
    scar = (away > 0) & (away < SCARRED_MM) & (posterior > centre + 3) & (texture > 0.4 * texture.std())
    blood = float(volume.voxels[0][inside].mean())
    cover = ndimage.gaussian_filter(scar.astype(np.float32), 0.7)
    strength = 1.3 + 0.45 * np.clip(texture / texture.std() - 0.4, 0, 1)
    voxels = volume.voxels[0] * (1 - cover) + cover * blood * strength
    return Volume(np.clip(np.rint(voxels), 0, 255).astype(np.uint8)[None], volume.grid), label


def render(result: WallResult, colors: np.ndarray, view: str) -> np.ndarray:
    """Render the surface off-screen; return the picture (H, W, 3), uint8.

    Args:
        colors: (N, 3), 0 to 1, the colours of the surface's points.
        view: a key of `VIEWS`.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

    mesh, points, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    points.SetData(numpy_to_vtk(result.surface.points, deep=True))
    cells.SetData(3, numpy_to_vtkIdTypeArray(result.surface.triangles.ravel(), deep=True))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    mesh.GetPointData().SetScalars(numpy_to_vtk((colors * 255).astype(np.uint8), deep=True))
    mesh.GetPointData().SetNormals(numpy_to_vtk(result.surface.normals, deep=True))
    mapper, actor = vtk.vtkPolyDataMapper(), vtk.vtkActor()
    mapper.SetInputData(mesh)
    actor.SetMapper(mapper)
    actor.GetProperty().SetAmbient(0.25)
    actor.GetProperty().SetDiffuse(0.75)
    renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
    renderer.SetBackground(1, 1, 1)
    renderer.AddActor(actor)
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(8)
    window.SetSize(PIXELS, int(PIXELS * 0.62))
    window.AddRenderer(renderer)
    camera, centre = renderer.GetActiveCamera(), result.surface.points.mean(axis=0)
    direction, up = VIEWS[view]
    camera.ParallelProjectionOn()
    camera.SetFocalPoint(*centre)
    camera.SetPosition(*(centre + 300 * np.array(direction)))
    camera.SetViewUp(*up)
    renderer.ResetCamera()
    camera.SetParallelScale(0.62 * np.ptp(result.surface.points[:, 0]) / 2 * 1.08)
    return window_pixels(window)


def draw(folder: Path) -> Iterator[Path]:
    """Draw the two pictures into `folder`; yield each picture's path after writing the picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    result = analyse_wall(*scarred_sample(), scan="LGEHeartPhantom")
    threshold = result.threshold_ratio()
    scale = ListedColormap(threshold_colors(np.linspace(*RATIO_RANGE, 256), threshold))
    burden = result.burden
    figure, axes = pyplot.subplots(1, 2, figsize=(10.4, 3.9), constrained_layout=True)
    for axis, view in zip(axes, VIEWS, strict=True):
        axis.imshow(render(result, wall_colors(result.ratio, result.kind, threshold), view))
        axis.set_title(view, fontsize=10)
        axis.axis("off")
    bar = figure.colorbar(ScalarMappable(Normalize(*RATIO_RANGE), scale), ax=axes, shrink=0.8)
    bar.set_label("image intensity ratio; openings grey")
    bar.set_ticks([stop for stop, _ in COLOR_STOPS])
    figure.suptitle(
        f"{result.settings.threshold.text} in {burden.percent:.1f}% of a wall of {burden.wall_cm2:.0f} cm²", fontsize=11
    )
    yield _save(figure, folder / "wall-1-ratio.png")

    figure, axes = pyplot.subplots(1, 2, figsize=(9.4, 3.7), constrained_layout=True)
    for axis, threshold in zip(axes, (result.settings.threshold, Threshold(SD, 3.0)), strict=True):
        colors = np.full((len(result.ratio), 3), 0.86)
        colors[result.enhanced(threshold)] = ENHANCED_COLOR
        colors[result.kind == OPENING] = OPENING_COLOR
        axis.imshow(render(result, colors, "from behind"))
        axis.set_title(f"{threshold.text}: {result.burdens(threshold)[0].percent:.1f}% of the wall", fontsize=11)
        axis.axis("off")
    yield _save(figure, folder / "wall-2-thresholds.png")


def _save(figure: object, path: Path) -> Path:
    figure.savefig(path, dpi=100, metadata={"Software": None})  # type: ignore[attr-defined]
    return path
