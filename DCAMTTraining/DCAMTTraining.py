"""Slicer module: train a model from a few outlined scans and many plain ones, in a process of its own."""
# Slicer calls methods by their Qt-style names, and this file keeps to them throughout.
# ruff: noqa: N802, N803

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import slicer
import vtk

if find_spec("DCAMTSlicerLib") is None:
    # Installed, both modules lie in one folder; in the source tree each has its own.
    sys.path.append(str(Path(__file__).resolve().parents[1] / "DCAMTSegmentation"))

from dcamt.runs.folder import RunFolder
from DCAMTSlicerLib.parameter_widgets import parameter_widgets
from DCAMTTrainingLib.cases.scene_source import scene_rows
from DCAMTTrainingLib.panels.cases import CasesPanel
from DCAMTTrainingLib.panels.effort import EffortPanel
from DCAMTTrainingLib.panels.outline import OutlinePanel
from DCAMTTrainingLib.panels.results import ResultsPanel
from DCAMTTrainingLib.panels.runs import RunsPanel
from DCAMTTrainingLib.panels.task import TaskPanel
from DCAMTTrainingLib.panels.watch import WatchPanel
from DCAMTTrainingLib.runs.settings import TrainingSettings
from DCAMTTrainingLib.runs.start_job import StartJob
from DCAMTTrainingLib.runs.watch import RunWatch
from DCAMTTrainingLib.session import TrainingSession
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class DCAMTTraining(ScriptedLoadableModule):
    """What the module list shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DCAMT Training")
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = ["DCAMTSegmentation"]
        self.parent.contributors = ["DCAMT contributors"]
        self.parent.helpText = _(
            "Trains a model from a few outlined scans and many that nobody has outlined. Gather cases, press Start, and"
            " watch the charts. The run goes on when Slicer is closed, and can be paused and resumed. Then use the"
            " model in DCAMT Segmentation, and see which scan to outline next. Nothing leaves this computer. For"
            ' research use only. See the <a href="https://github.com/DCAMT/SlicerDCAMT">tutorial</a>.'
        )
        self.parent.acknowledgementText = _(
            "The method is dual cross-attentive mutual teaching (Ma, PLoS ONE 21(6): e0352358, 2026)."
        )


class DCAMTTrainingWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel, one small class a section."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.ui: Any = None
        self._guiTag: Any = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/DCAMTTraining.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = DCAMTTrainingLogic()
        session = self.logic.session
        self.cases = CasesPanel(self.ui, session)
        self.task = TaskPanel(self.ui, session)
        self.effort = EffortPanel(self.ui, session)
        self.watching = WatchPanel(self.ui, session)
        self.results = ResultsPanel(self.ui, lambda name: self.task.refresh())
        self.outlining = OutlinePanel(self.ui, session)
        self.runs = RunsPanel(self.ui, session, self.onRun, self.onLook)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartSaveEvent, self.onSceneStartSave)
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        # A scene that comes in brings cases and settings of its own.
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)
        self._attach()

    def cleanup(self) -> None:
        for part in (self.runs, self.watching, self.results, self.outlining, self.cases):
            part.close()
        self._detach()
        self.logic.close()
        self.removeObservers()

    def enter(self) -> None:
        if self.logic.session.settings is None:
            self._attach()
        else:
            self.task.refresh()
            self.runs.refresh()

    def exit(self) -> None:
        self.logic.session.keep()

    def onSceneStartSave(self, caller: Any, event: Any) -> None:
        self.logic.session.keep()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.runs.cancelStart()
        self._detach()
        self.watching.sceneClosed()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.logic.session.settings is None:
            self._attach()

    def onSettingsModified(self, caller: Any, event: Any) -> None:
        self.logic.session.settingsChanged()

    def onRun(self, watch: RunWatch | None) -> None:
        """Another run is shown."""
        for part in (self.watching, self.results, self.outlining):
            part.setRun(watch)

    def onLook(self, watch: RunWatch) -> None:
        """The run that is shown may have news."""
        for part in (self.watching, self.results, self.outlining):
            part.look()

    def _attach(self) -> None:
        settings = self.logic.attach()
        self._guiTag = settings.connectParametersToGui(parameter_widgets(self.ui))
        self.addObserver(settings, vtk.vtkCommand.ModifiedEvent, self.onSettingsModified)
        for part in (self.cases, self.task, self.effort, self.runs):
            part.refresh()

    def _detach(self) -> None:
        settings = self.logic.session.settings
        if settings is not None:
            settings.disconnectGui(self._guiTag)
            self.removeObserver(settings, vtk.vtkCommand.ModifiedEvent, self.onSettingsModified)
            self.logic.session.detach()


class DCAMTTrainingLogic(ScriptedLoadableModuleLogic):
    """Training without the panel. A script that trains on all that is loaded, and waits for nothing:

    logic = DCAMTTrainingLogic()
    logic.attach().runName = "first"
    logic.addSceneCases()
    logic.session.table.use_for_validation(2)
    logic.start(print, lambda run, message: print(run or message))
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = TrainingSession()

    def getParameterNode(self) -> Any:
        return TrainingSettings(super().getParameterNode())  # type: ignore[call-arg]

    def attach(self) -> Any:
        """Take up the cases and settings of the scene that is open; returns the settings."""
        settings = self.getParameterNode()
        self.session.attach(settings.parameterNode, settings)
        return settings

    def close(self) -> None:
        self.session.close()

    def addSceneCases(self) -> int:
        """Make a case of each scan of the scene; returns how many are new. Raises InputError if the task is faulty."""
        return self.session.table.add(scene_rows(self.session.recipe()))

    def start(
        self,
        onStep: Callable[[str], None],
        onEnd: Callable[[RunFolder | None, str], None],
        device: str = "auto",
    ) -> StartJob:
        """Look the cases over, measure, and start the run in the background; see `StartJob`.

        Raises:
            InputError: the run's name, the task or a setting cannot be used.
        """
        return StartJob(self.session, device, onStep, onEnd)


class DCAMTTrainingTest(ScriptedLoadableModuleTest):
    """The module's self-test: a table from the scene, kept with it."""

    def runTest(self) -> None:
        self.setUp()
        self.test_cases_of_the_scene()

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_cases_of_the_scene(self) -> None:
        import numpy as np

        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        slicer.util.updateVolumeFromArray(volume, np.arange(1000, dtype=np.int16).reshape(10, 10, 10))
        logic = DCAMTTrainingLogic()
        logic.attach()
        assert logic.addSceneCases() == 1
        logic.session.keep()
        again = DCAMTTrainingLogic()
        again.attach()
        assert [row.name for row in again.session.table.rows] == ["scan"]
        for one in (logic, again):
            one.close()
