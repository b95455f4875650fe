"""Draw Slicer's slice and 3D views off-screen, with Slicer's displayable managers in VTK windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from .png import window_pixels

SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


@dataclass
class _Window:
    window: Any
    renderers: Sequence[Any]
    managers: Any
    interactor: Any

    def pixels(self) -> np.ndarray:
        return window_pixels(self.window)


def slice_picture(name: str, size: tuple[int, int], fit: bool) -> np.ndarray:
    """Return the picture (rows, columns, 3) of the layout's slice view `name`.

    Args:
        size: width and height in pixels.
        fit: whether to show the whole background volume; if not, the view keeps its centre and zoom.
    """
    logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
    logic.ResizeSliceNode(*size)
    if fit:
        logic.FitSliceToBackground()
        logic.SnapSliceOffsetToIJK()
    # As in Slicer, the managers draw on a second layer above the image.
    view = _window(slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, logic.GetSliceNode(), size, 2)
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    image = vtk.vtkActor2D()
    image.SetMapper(mapper)
    image.GetProperty().SetDisplayLocationToBackground()
    view.renderers[0].AddViewProp(image)
    return view.pixels()


def three_d_picture(size: tuple[int, int], turn: float = 0.0, tilt: float = 0.0, zoom: float = 1.0) -> np.ndarray:
    """Return the picture (rows, columns, 3) of the first 3D view.

    Args:
        size: width and height in pixels.
        turn: azimuth of the camera in degrees, 0 in front of the patient, 90 at the patient's left.
        tilt: elevation of the camera in degrees, positive towards superior.
        zoom: magnification; at 1, the scene fills the picture.
    """
    node = slicer.app.layoutManager().threeDWidget(0).mrmlViewNode()
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    view = _window(slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, node, size, 1)
    (renderer,) = view.renderers
    camera = renderer.GetActiveCamera()
    camera.SetFocalPoint(0, 0, 0)
    camera.SetPosition(0, 1, 0)
    camera.SetViewUp(0, 0, 1)
    camera.Azimuth(turn)
    camera.Elevation(tilt)
    renderer.ResetCamera()
    camera.Zoom(zoom)
    return view.pixels()


def show_volume(volume: Any) -> None:
    """Show a volume as the background of all slice views and move them to its centre, as Slicer does after loading."""
    layout = slicer.app.layoutManager()
    for name in layout.sliceViewNames():
        logic = layout.sliceWidget(name).sliceLogic()
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.FitSliceToBackground()
        logic.SnapSliceOffsetToIJK()


def zoom_slices(factor: float) -> None:
    """Magnify all slice views about their centres."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / factor, height / factor, depth)


def _window(factory_class: Any, names: Sequence[str], node: Any, size: tuple[int, int], layers: int) -> _Window:
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetAlphaBitPlanes(1)
    window.SetMultiSamples(8 if layers == 1 else 0)
    window.SetNumberOfLayers(layers)
    window.SetSize(*size)
    renderers = [vtk.vtkRenderer() for _ in range(layers)]
    for layer, renderer in enumerate(renderers):
        renderer.SetLayer(layer)
        window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    factory = factory_class.GetInstance()
    factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    managers = slicer.vtkMRMLDisplayableManagerGroup()
    managers.Initialize(factory, renderers[-1])
    managers.SetMRMLDisplayableNode(node)
    # The displayable manager of legends notices only new legends: announce existing legends again.
    for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"):
        slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.NodeAddedEvent, legend)
    return _Window(window, renderers, managers, interactor)
