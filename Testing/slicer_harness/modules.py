"""Provide `slicer.modules`, the module manager and selector, and the core modules that the extension uses."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore

from .conversion import wrap
from .mrml_widgets import qSlicerScriptedLoadableModuleWidget
from .signals import find_connections
from .wrapping import wrapper_class


class CoreModule:
    """A core module of Slicer."""

    def __init__(self, name: str, logic: Any = None, widget: Any = None) -> None:
        self.name, self.title = name, name
        self._logic, self._widget = logic, widget

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        if self._widget is None:
            raise NotImplementedError(f"the harness has no panel of the module {self.name}")
        return self._widget


class _ScriptedModuleParent:
    """The `parent` argument of a scripted module's class."""

    __slots__ = (
        "acknowledgementText",
        "associatedNodeTypes",
        "categories",
        "contributors",
        "dependencies",
        "helpText",
        "hidden",
        "icon",
        "index",
        "name",
        "path",
        "title",
        "widgetRepresentationCreationEnabled",
    )


class ScriptedModule(_ScriptedModuleParent):
    """A scripted module of this repository."""

    __slots__ = ("_python", "_source", "_widget")

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path, self.hidden, self.index = name, path, False, -1
        self._widget: Any = None
        folder = os.path.dirname(path)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        self._source = importlib.util.module_from_spec(spec)
        sys.modules[name] = self._source
        spec.loader.exec_module(self._source)
        self._python = getattr(self._source, name)(self)

    def widgetRepresentation(self) -> Any:
        if self._widget is None:
            panel = qSlicerScriptedLoadableModuleWidget()
            panel.setMRMLScene(slicer.mrmlScene)
            panel._fill = self._fill
            self._widget = wrap(panel)
            self._fill()
        return self._widget

    def _fill(self) -> None:
        """Create the module's Python widget in the panel, from the source that was loaded last."""
        python = getattr(sys.modules[self.name], f"{self.name}Widget")(self._widget)
        self._widget._object._python = python
        setattr(slicer.modules, f"{self.name}Widget", python)
        python.setup()

    def self(self) -> Any:
        return self._python

    def enter(self) -> None:
        panel = self.widgetRepresentation()._object
        panel._entered = True
        if hasattr(panel._python, "enter"):
            panel._python.enter()

    def exit(self) -> None:
        panel = self._widget._object
        panel._entered = False
        if hasattr(panel._python, "exit"):
            panel._python.exit()

    def unload(self) -> None:
        """Unload the module, as Slicer does on exit."""
        if self._widget is not None:
            if self._widget.isEntered:
                self.exit()
            module_manager().moduleAboutToBeUnloaded.emit(self.name)
            self._widget.hide()
            panel = self._widget._object
            connections = [find_connections(part) for part in (panel, *panel.findChildren(QtCore.QObject))]
            self._widget.deleteLater()
            QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
            for known in connections:
                if known is not None:
                    known.release()
            self._widget = None
        for name in (self.name.lower(), f"{self.name}Widget", f"{self.name}Instance"):
            slicer.modules.__dict__.pop(name, None)


class Modules:
    """The class of `slicer.modules`; each module is an attribute with the module's name in lower case.

    For a scripted module X, `XInstance` is the object of the module's class, and `XWidget` is the module's Python
    widget.
    """


class qSlicerModuleManager(QtCore.QObject):
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)


def unload_scripted_modules() -> None:
    for module in [module for module in _all() if isinstance(module, ScriptedModule)]:
        module.unload()


def _all() -> list[Any]:
    return [module for module in vars(slicer.modules).values() if isinstance(module, CoreModule | ScriptedModule)]


@cache
def module_manager() -> Any:
    return wrapper_class(qSlicerModuleManager)()


class qSlicerModuleSelectorToolBar(QtCore.QObject):
    """A selector that calls `enter` of the selected module and `exit` of the previous one."""

    def __init__(self) -> None:
        super().__init__()
        self._selected = ""

    selectedModule = QtCore.Property(str, lambda self: self._selected)

    def selectModule(self, name: str) -> None:
        before = module_manager().module(self._selected) if self._selected else None
        module = module_manager().module(name)
        if module is None:
            raise RuntimeError(f"There is no module {name}")
        if isinstance(before, ScriptedModule) and before.name != name:
            before.exit()
        self._selected = name
        if isinstance(module, ScriptedModule) and not module.widgetRepresentation().isEntered:
            module.enter()


@cache
def module_selector() -> Any:
    return wrapper_class(qSlicerModuleSelectorToolBar)()


class SegmentEditorModule(CoreModule):
    def __init__(self) -> None:
        super().__init__("SegmentEditor")

    def widgetRepresentation(self) -> Any:
        if self._widget is None:
            panel = qSlicerScriptedLoadableModuleWidget()
            panel._python = SimpleNamespace(editor=SegmentEditor())
            self._widget = wrap(panel)
        return self._widget


class SegmentEditor:
    """Slicer's qMRMLSegmentEditorWidget, reduced to its nodes, its undo history and the background of slice views."""

    def __init__(self) -> None:
        self._segmentation: Any = None
        self._source: Any = None
        self._segment = ""
        self._history = slicer.vtkSegmentationHistory()

    def setSegmentationNode(self, node: Any) -> None:
        self._segmentation = node
        self._history.SetSegmentation(node.GetSegmentation() if node is not None else None)

    def segmentationNode(self) -> Any:
        return self._segmentation

    def setSourceVolumeNode(self, node: Any) -> None:
        """Choose the volume to segment, and make this volume the background of every slice view."""
        self._source = node
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode") if node is not None else ():
            if composite.GetBackgroundVolumeID() != node.GetID():
                composite.SetBackgroundVolumeID(node.GetID())
                composite.SetForegroundVolumeID(None)

    def sourceVolumeNode(self) -> Any:
        return self._source

    def setCurrentSegmentID(self, segment: str) -> None:
        self._segment = segment

    def currentSegmentID(self) -> str:
        return self._segment

    def saveStateForUndo(self) -> None:
        self._history.SaveState()

    def undo(self) -> None:
        """Restore the previous state.

        As in Slicer, the segmentation then sends SegmentModified, but not SourceRepresentationModified.
        """
        self._history.RestorePreviousState()

    def redo(self) -> None:
        self._history.RestoreNextState()


def install_core_modules(application_logic: Any) -> None:
    """Install the core modules that the extension uses."""
    slicer.modules = Modules()
    scene = slicer.mrmlScene
    # Hide the logics' warnings about terminology and colour files, which the package slicer-core lacks.
    shown = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    for name, kind in (
        ("Colors", "vtkSlicerColorLogic"),
        ("Terminologies", "vtkSlicerTerminologiesModuleLogic"),
        ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
        ("Volumes", "vtkSlicerVolumesLogic"),
        ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
        ("Markups", "vtkSlicerMarkupsLogic"),
        ("Models", "vtkSlicerModelsLogic"),
        ("Tables", "vtkSlicerTablesLogic"),
        ("Plots", "vtkSlicerPlotsLogic"),
        ("Transforms", "vtkSlicerTransformLogic"),
        ("Texts", "vtkSlicerTextsLogic"),
    ):
        logic = getattr(slicer, kind)()
        if hasattr(logic, "SetMRMLApplicationLogic"):
            logic.SetMRMLApplicationLogic(application_logic)
        if name == "Colors":
            application_logic.SetColorLogic(logic)
        application_logic.SetModuleLogic(name, logic)
        logic.SetMRMLScene(scene)
        setattr(slicer.modules, name.lower(), CoreModule(name, logic))
    slicer.modules.colors.logic().AddDefaultColorNodes()
    vtk.vtkLogger.SetStderrVerbosity(shown)
    slicer.modules.segmenteditor = SegmentEditorModule()
    for name in ("Data", "SampleData", "Welcome"):
        setattr(slicer.modules, name.lower(), CoreModule(name))
