"""The Slicer module that trains a model on labelled and unlabelled scans, in a separate process."""
# ruff: noqa: N802  (Slicer calls these methods by their Qt-style names)

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import slicer
import vtk

if find_spec("DCAMTSlicerLib") is None:
    # The installed modules lie in one folder; in the source tree, each module has a folder of its own.
    sys.path.append(str(Path(__file__).resolve().parents[1] / "DCAMTSegmentation"))

from dcamt.machine import AUTO
from dcamt.runs.folder import RunFolder
from DCAMTSlicerLib.parameter_widgets import parameter_widgets
from DCAMTSlicerLib.plain_text import show_labels_as_plain_text
from DCAMTTrainingLib.cases.scene_source import scene_rows
from DCAMTTrainingLib.cases.store import NO_CASES, SavedCases, load_cases
from DCAMTTrainingLib.panels.cases import CasesPanel
from DCAMTTrainingLib.panels.effort import EffortPanel
from DCAMTTrainingLib.panels.outline import OutlinePanel
from DCAMTTrainingLib.panels.results import ResultsPanel
from DCAMTTrainingLib.panels.runs import RunsPanel
from DCAMTTrainingLib.panels.sections import Sections
from DCAMTTrainingLib.panels.start import StartPanel
from DCAMTTrainingLib.panels.task import TaskPanel
from DCAMTTrainingLib.panels.watch import WatchPanel
from DCAMTTrainingLib.runs.proposal_opening import remove_remaining_folders
from DCAMTTrainingLib.runs.watch import RunWatch
from DCAMTTrainingLib.session import TrainingSession
from DCAMTTrainingLib.settings import Device, TrainingSettings, last_device, remember_device
from DCAMTTrainingLib.start_job import StartJob
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class DCAMTTraining(ScriptedLoadableModule):
    """The module's entry in the module list."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DCAMT Training")
        # The category is Slicer's own, so its name is translated in Slicer's context.
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["DCAMTSegmentation"]
        self.parent.contributors = ["DCAMT contributors"]
        self.parent.helpText = _(
            "Trains a model on a few labelled scans and many unlabelled ones. Add cases, press Start, and watch the"
            " charts. The run goes on when Slicer is closed, and can be paused and resumed. Then use the model in DCAMT"
            " Segmentation, and see which scan to outline next. Nothing leaves this computer. For research use only."
            ' See the <a href="https://github.com/DCAMT/SlicerDCAMT/blob/main/'
            'docs/tutorial-training.md">tutorial</a>.'
        )
        self.parent.acknowledgementText = _(
            "The method is dual cross-attentive mutual teaching (Ma, PLoS ONE 21(6): e0352358, 2026)."
        )


class DCAMTTrainingWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel; the classes in `DCAMTTrainingLib.panels` control its sections."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.ui: Any = None
        self._gui_tag: Any = None
        self._cases_before_import = NO_CASES

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/DCAMTTraining.ui"))
        show_labels_as_plain_text(panel)
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = DCAMTTrainingLogic()
        session = self.logic.session
        self.sections = Sections(self.ui, session)
        self.cases = CasesPanel(self.ui, session)
        self.task = TaskPanel(self.ui, session)
        self.effort = EffortPanel(self.ui, session)
        self.watching = WatchPanel(self.ui, session)
        self.results = ResultsPanel(self.ui, self.task.refresh)
        self.outlining = OutlinePanel(self.ui, session)
        self.starting = StartPanel(self.ui, session, lambda run: self.runs.show(run))
        self.runs = RunsPanel(self.ui, session, self._on_run, self._on_run_news, self.starting.suggest_name)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartSaveEvent, self._on_scene_start_save)
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_start_close)
        self.addObserver(scene, scene.EndCloseEvent, self._on_scene_end_close)
        # An imported scene may bring cases and settings of its own, which are loaded after the import.
        self.addObserver(scene, scene.StartImportEvent, self._on_scene_start_import)
        self.addObserver(scene, scene.EndImportEvent, self._on_scene_end_import)
        # The charts are hidden before Slicer stores the layout, so that the next session starts without them.
        slicer.app.aboutToQuit.connect(self._on_quit)
        self._attach()

    def cleanup(self) -> None:
        slicer.app.aboutToQuit.disconnect(self._on_quit)
        self.starting.cancel()
        for part in (self.runs, self.watching, self.results, self.outlining, self.cases, self.task):
            part.close()
        self._detach()
        self.logic.close()
        self.removeObservers()

    def enter(self) -> None:
        if self.logic.session.settings is None:
            self._attach()
        else:
            self._refresh_from_outside()

    def exit(self) -> None:
        self.watching.hide_charts()
        self.logic.session.save()

    def _on_quit(self) -> None:
        self.watching.hide_charts()
        self.outlining.close()
        remove_remaining_folders()

    def _on_scene_start_save(self, caller: Any, event: Any) -> None:
        self.logic.session.save()

    def _on_scene_start_close(self, caller: Any, event: Any) -> None:
        self.starting.cancel()
        self.task.on_scene_closing()
        self.outlining.on_scene_closing()
        self.watching.on_scene_closing()
        self._detach()

    def _on_scene_end_close(self, caller: Any, event: Any) -> None:
        self.watching.on_scene_closed()
        if self.logic.session.settings is None:
            self._attach()

    def _on_scene_start_import(self, caller: Any, event: Any) -> None:
        # The cases are read before the import, which may replace the parameter node that holds them.
        session = self.logic.session
        session.save()
        self._cases_before_import = (
            load_cases(session.settings.parameterNode) if session.settings is not None else NO_CASES
        )
        self._on_scene_start_close(caller, event)

    def _on_scene_end_import(self, caller: Any, event: Any) -> None:
        if self.logic.session.settings is None:
            self._attach(self._cases_before_import)
        self._cases_before_import = NO_CASES

    def _on_settings_modified(self, caller: Any, event: Any) -> None:
        device = self.logic.session.settings.device
        if device is not (last_device() or Device.AUTOMATIC):
            remember_device(device)
        self.logic.session.notify_settings_changed()

    def _on_run(self, watch: RunWatch | None) -> None:
        for part in (self.watching, self.results, self.outlining, self.sections):
            part.set_run(watch)

    def _on_run_news(self) -> None:
        for part in (self.watching, self.results, self.outlining, self.sections):
            part.update()

    def _attach(self, earlier: SavedCases = NO_CASES) -> None:
        settings = self.logic.attach(earlier)
        self._gui_tag = settings.connectParametersToGui(parameter_widgets(self.ui))
        self.addObserver(settings, vtk.vtkCommand.ModifiedEvent, self._on_settings_modified)
        for part in (self.cases, self.effort):
            part.refresh()
        self._refresh_from_outside()
        self.starting.suggest_name()

    def _refresh_from_outside(self) -> None:
        """Show what changed outside the panel: models, runs, and the cases that DCAMT Segmentation added."""
        self.task.refresh()
        self.runs.refresh()
        self.logic.session.add_unlisted_cases()
        self.starting.refresh()
        self.sections.show_titles()

    def _detach(self) -> None:
        settings = self.logic.session.settings
        if settings is not None:
            settings.disconnectGui(self._gui_tag)
            self.removeObserver(settings, vtk.vtkCommand.ModifiedEvent, self._on_settings_modified)
            self.logic.session.detach()


class DCAMTTrainingLogic(ScriptedLoadableModuleLogic):
    """The module's logic. A script can use it to train on the loaded scans in the background:

        logic = DCAMTTrainingLogic()
        logic.attach().runName = "first"
        logic.add_scene_cases()
        logic.session.table.use_for_validation(2)
        logic.start(print, lambda run, message: print(run or message))

    The logic does not ask the user to accept terms of use. If a script's training starts from a model, the script's
    author must read the model's terms (`DCAMTSlicerLib.terms_of_use.read_terms`).
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = TrainingSession()

    def getParameterNode(self) -> Any:
        return TrainingSettings(super().getParameterNode())  # type: ignore[call-arg]

    def attach(self, earlier: SavedCases = NO_CASES) -> Any:
        """Load the cases and settings of the open scene; return the settings.

        Args:
            earlier: cases that come before the scene's saved cases in the table.
        """
        settings = self.getParameterNode()
        # The settings belong to the scene, but the device is a choice for this computer.
        settings.device = last_device() or settings.device
        self.session.attach(settings.parameterNode, settings, earlier)
        return settings

    def close(self) -> None:
        """Save the cases, and stop a check or an estimation; runs continue."""
        self.session.close()

    def add_scene_cases(self) -> int:
        """Add a case for each scan of the scene; return the number of new cases.

        Raises:
            InputError: the task or the model to start from is not usable.
        """
        return self.session.table.add(scene_rows(self.session.recipe()))

    def start(
        self,
        on_step: Callable[[str], None],
        on_end: Callable[[RunFolder | None, str], None],
        device: str = AUTO,
    ) -> StartJob:
        """Check the cases, estimate time and memory, and start the run in the background; see `StartJob`.

        Args:
            device: where the run trains; the device in the settings is ignored.

        Raises:
            InputError: the run's name is taken or invalid, or the task or the model to start from is not usable.
        """
        return StartJob(self.session, device, on_step, on_end).start()


class DCAMTTrainingTest(ScriptedLoadableModuleTest):
    """The module's self-test."""

    def runTest(self) -> None:
        self.setUp()
        self.test_cases_of_the_scene_are_listed_and_saved()

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_cases_of_the_scene_are_listed_and_saved(self) -> None:
        import numpy as np

        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        slicer.util.updateVolumeFromArray(volume, np.arange(1000, dtype=np.int16).reshape(10, 10, 10))
        logic = DCAMTTrainingLogic()
        logic.attach()
        assert logic.add_scene_cases() == 1
        logic.session.save()
        again = DCAMTTrainingLogic()
        again.attach()
        assert [row.name for row in again.session.table.rows] == ["scan"]
        for each_logic in (logic, again):
            each_logic.close()
