"""Slicer module: outline the left atrium in an MRI volume. The network runs in a child Python process."""
# Slicer calls methods by their Qt-style names, and this file keeps to them throughout.
# ruff: noqa: N802, N803, N806, N815

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

ProgressCallback = Callable[[str, float], None]
FinishedCallback = Callable[[Any, str], None]


class DCAMTSegmentation(ScriptedLoadableModule):
    """What the module list shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DCAMT Segmentation")
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = []
        self.parent.contributors = ["DCAMT contributors"]
        self.parent.helpText = _(
            "Outlines the left atrium in late gadolinium-enhanced MRI of the heart. Choose a volume, press"
            " Apply; Slicer stays usable meanwhile. For research use only, not for diagnosis or treatment."
            ' See the <a href="https://github.com/DCAMT/SlicerDCAMT">documentation</a>.'
        )
        self.parent.acknowledgementText = _(
            "The method is dual cross-attentive mutual teaching (Ma, PLoS ONE 21(6): e0352358, 2026). The"
            " shipped model learnt from the 2018 Left Atrial Segmentation Challenge's scans, University of"
            " Utah (Xiong et al., Medical Image Analysis 67: 101832, 2021), as processed by Yu et al."
            " (MICCAI 2019)."
        )


@parameterNodeWrapper
class DCAMTSegmentationParameterNode:
    """What the person chose; saved with the scene."""

    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    quality: Annotated[str, Choice(["accurate", "fast"])] = "accurate"


class DCAMTSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.ui: Any = None
        self._parameterNode: Any = None
        self._guiTag: Any = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/DCAMTSegmentation.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = DCAMTSegmentationLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self._connectParameterNode()

    def cleanup(self) -> None:
        self.logic.cancel()
        self._disconnectParameterNode()
        self.removeObservers()
        # The cancelled process still reports its end, when the panel is gone.
        self.ui = None

    def enter(self) -> None:
        self._connectParameterNode()

    def exit(self) -> None:
        self._disconnectParameterNode()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.logic.cancel()
        self._disconnectParameterNode()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self._connectParameterNode()

    def _connectParameterNode(self) -> None:
        self._disconnectParameterNode()
        self._parameterNode = self.logic.getParameterNode()
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        self._guiTag = self._parameterNode.connectGui(self.ui)
        self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateApply)
        self._updateApply()

    def _disconnectParameterNode(self) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateApply)
            self._parameterNode = None

    def _updateApply(self, caller: Any = None, event: Any = None) -> None:
        running = self.logic.isRunning()
        self.ui.applyButton.text = _("Cancel") if running else _("Apply")
        ready = self._parameterNode is not None and self._parameterNode.inputVolume is not None
        self.ui.applyButton.enabled = running or ready

    def onApply(self, checked: bool = False) -> None:
        if self.logic.isRunning():
            self.logic.cancel()
            return
        choice = self._parameterNode
        with slicer.util.tryWithErrorDisplay(_("The segmentation could not start.")):
            self.logic.installDependencies(self.resourcePath("requirements.txt"))
            self.logic.segment(
                choice.inputVolume,
                choice.outputSegmentation,
                choice.quality,
                self.onProgress,
                self.onFinished,
            )
        self.ui.progressBar.visible = self.logic.isRunning()
        if self.logic.isRunning():
            self.onProgress(_("Starting"), 0.0)
        self._updateApply()

    def onProgress(self, stage: str, fraction: float) -> None:
        self.ui.progressBar.setValue(round(100 * fraction))
        self.ui.statusLabel.text = stage

    def onFinished(self, segmentationNode: Any, message: str) -> None:
        if self.ui is None:
            return
        self.ui.progressBar.visible = False
        self.ui.statusLabel.text = message
        if segmentationNode is not None and self._parameterNode is not None:
            self._parameterNode.outputSegmentation = segmentationNode
        self._updateApply()


class DCAMTSegmentationLogic(ScriptedLoadableModuleLogic):
    """Runs the engine's command line on one volume at a time; works without the widget."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._process: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def getParameterNode(self) -> Any:
        # The decorator gives the class its constructor.
        return DCAMTSegmentationParameterNode(super().getParameterNode())  # type: ignore[call-arg]

    def installDependencies(self, requirementsPath: str) -> None:
        """Install, after asking, what the engine needs. Raises RuntimeError where the person declines."""
        # Looked up, not imported: torch belongs to the child process, and loading it here takes seconds.
        if find_spec("torch") is None:
            try:
                import PyTorchUtils
            except ModuleNotFoundError:
                remedy = _("Install the PyTorch extension in the Extensions Manager and restart Slicer.")
                raise RuntimeError(remedy) from None
            if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
                raise RuntimeError(_("PyTorch was not installed. The segmentation needs it."))
        from slicer.packaging import load_requirements, pip_ensure

        pip_ensure(load_requirements(requirementsPath), requester="DCAMT")

    def isRunning(self) -> bool:
        return self._folder is not None

    def segment(
        self,
        volumeNode: Any,
        segmentationNode: Any,
        quality: str,
        onProgress: ProgressCallback,
        onFinished: FinishedCallback,
    ) -> None:
        """Start segmenting `volumeNode`; return at once.

        `segmentationNode` has its segments replaced; None makes a new node. `quality` is "fast" or
        "accurate". `onProgress(stage, fraction)` gets fractions in 0..1. `onFinished(node, message)` is
        called once: node is None and the scene untouched if the run failed or was cancelled.
        Raises RuntimeError if a run is under way or the volume cannot be written.
        """
        if self.isRunning():
            raise RuntimeError(_("A segmentation is already running."))
        folder = tempfile.TemporaryDirectory(prefix="DCAMT-", dir=slicer.app.temporaryPath, ignore_cleanup_errors=True)
        scan, result = Path(folder.name, "scan.nrrd"), Path(folder.name, "out.seg.nrrd")
        # Exporting, unlike saving, leaves the file name that the volume has in the scene.
        slicer.util.exportNode(volumeNode, str(scan))
        if not scan.exists():
            folder.cleanup()
            raise RuntimeError(_("{name} could not be written to disk.").format(name=volumeNode.GetName()))
        self._folder, self._cancelled, self._pending = folder, False, b""
        self._onProgress, self._onFinished = onProgress, onFinished
        self._volumeNode, self._segmentationNode, self._result = volumeNode, segmentationNode, result
        # Kept until the next run: a QProcess must not be destroyed inside its own signal.
        self._process = qt.QProcess()
        # `-m` searches the working directory first, and this is the folder that DCAMTLib lies in.
        self._process.setWorkingDirectory(str(Path(__file__).resolve().parent))
        self._process.readyReadStandardOutput.connect(self._readProgress)
        self._process.finished.connect(self._processFinished)
        self._process.errorOccurred.connect(self._processError)
        arguments = ["-m", "DCAMTLib.cli", "segment", str(scan), "-o", str(result), "--json"]
        python = shutil.which("PythonSlicer") or sys.executable
        self._process.start(python, [*arguments, "--quality", quality])

    def cancel(self) -> None:
        """Stop the run, if there is one; `onFinished` follows with no node."""
        if not self.isRunning():
            return
        self._cancelled = True
        process = self._process
        # PythonSlicer is a launcher: killed outright, it would leave the interpreter that it started behind.
        if os.name == "nt":
            qt.QProcess.execute("taskkill", ["/F", "/T", "/PID", str(process.processId())])
        else:
            process.terminate()
            qt.QTimer.singleShot(3000, lambda: process.kill())

    def _readProgress(self) -> None:
        *lines, self._pending = (self._pending + self._process.readAllStandardOutput().data()).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # A library may print to the same stream.
            if isinstance(event, dict) and event.get("event") == "progress" and not self._cancelled:
                self._onProgress(str(event["stage"]), float(event["fraction"]))

    def _processError(self, error: Any) -> None:
        # Any other error is followed by `finished`.
        if error == qt.QProcess.FailedToStart:
            self._finish(None, _("Slicer's Python could not be started. Reinstall Slicer or free some memory."))

    def _processFinished(self, *details: Any) -> None:
        if not self.isRunning():
            return
        self._readProgress()
        process = self._process
        errors = process.readAllStandardError().data().decode(errors="replace").strip()
        if self._cancelled:
            self._finish(None, _("Cancelled."))
        elif process.exitStatus() != qt.QProcess.NormalExit or process.exitCode() != 0:
            self._finish(None, errors.splitlines()[-1] if errors else _("The segmentation stopped unexpectedly."))
        else:
            try:
                segmentationNode = self._loadResult()
            except RuntimeError as error:
                self._finish(None, _("The result could not be loaded: {error}").format(error=error))
            else:
                self._finish(segmentationNode, _("Done."))

    def _loadResult(self) -> Any:
        """Put the result's segments into the chosen or a new node, on the volume's geometry."""
        loaded = slicer.util.loadSegmentation(str(self._result))
        # The file goes with its folder, so the node must not remember it.
        storageNode = loaded.GetStorageNode()
        loaded.SetAndObserveStorageNodeID(None)
        slicer.mrmlScene.RemoveNode(storageNode)
        target = self._segmentationNode
        if target is not None and target.GetScene() is not None:
            target.GetSegmentation().DeepCopy(loaded.GetSegmentation())
            target.CreateDefaultDisplayNodes()
            for node in (loaded.GetDisplayNode(), loaded):
                slicer.mrmlScene.RemoveNode(node)
        else:
            target = loaded
            name = _("{volume} segmentation").format(volume=self._volumeNode.GetName())
            target.SetName(slicer.mrmlScene.GetUniqueNameByString(name))
        target.SetReferenceImageGeometryParameterFromVolumeNode(self._volumeNode)
        target.SetAndObserveTransformNodeID(self._volumeNode.GetTransformNodeID())
        return target

    def _finish(self, segmentationNode: Any, message: str) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()
        self._onFinished(segmentationNode, message)
