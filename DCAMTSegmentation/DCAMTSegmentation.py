"""The Slicer module that segments scans in a child process, and shows where the result is doubtful."""
# Slicer calls methods by their Qt-style names.
# ruff: noqa: N802

from __future__ import annotations

from typing import Any

import slicer
from DCAMTSegmentationLib.sample_scan import register_sample_scan, sample_path
from DCAMTSegmentationLib.segmentation_logic import DCAMTSegmentationLogic
from DCAMTSegmentationLib.segmentation_panel import SegmentationPanel
from DCAMTSlicerLib.plain_text import show_labels_as_plain_text
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class DCAMTSegmentation(ScriptedLoadableModule):
    """The module's entry in the module list."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DCAMT Segmentation")
        # The category is Slicer's own, so its name is translated in Slicer's context.
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["DCAMT contributors"]
        self.parent.helpText = _(
            "Segments the left atrium in late gadolinium-enhanced MRI of the heart, measures it, and shows where not to"
            " trust the result. Choose a volume and press Apply; Slicer stays usable meanwhile. Then look at the"
            " doubtful places, and use Segment Editor to correct errors. If you like, add the case to the training"
            " cases of the DCAMT Training module. Nothing leaves this computer. For research use only, not for"
            ' diagnosis or treatment. See the <a href="https://github.com/DCAMT/SlicerDCAMT/blob/main/'
            'docs/tutorial-segmentation.md">tutorial</a>.'
        )
        self.parent.acknowledgementText = _(
            "The method is dual cross-attentive mutual teaching (Ma, PLoS ONE 21(6): e0352358, 2026). The"
            " shipped model learnt from the 2018 Left Atrial Segmentation Challenge's scans, University of"
            " Utah (Xiong et al., Medical Image Analysis 67: 101832, 2021), as processed by Yu et al."
            " (MICCAI 2019)."
        )
        slicer.app.connect("startupCompleted()", register_sample_scan)


class DCAMTSegmentationWidget(ScriptedLoadableModuleWidget):
    """The module's widget: connects the panel to a logic."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.logic: Any = None
        self.ui: Any = None
        self.segmentationPanel: Any = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/DCAMTSegmentation.ui"))
        show_labels_as_plain_text(panel)
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = DCAMTSegmentationLogic()
        self.segmentationPanel = SegmentationPanel(self.ui, self.logic)
        self.segmentationPanel.start()
        if self.parent.isEntered:  # *Reload* sets up a new widget of the open module, and does not call `enter`.
            self.enter()

    def enter(self) -> None:
        self.segmentationPanel.enter()

    def exit(self) -> None:
        self.segmentationPanel.exit()

    def cleanup(self) -> None:
        self.segmentationPanel.close()
        self.logic.shutdown()


class DCAMTSegmentationTest(ScriptedLoadableModuleTest):
    """The test behind "Reload and Test": segments the sample scan, and checks the left atrium's volume in mL.

    The test uses the shipped model.
    """

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_sample_scan()

    def test_sample_scan(self) -> None:
        self.delayDisplay("Segmenting the sample scan")
        volume = slicer.util.loadVolume(str(sample_path()))
        logic = DCAMTSegmentationLogic()
        try:
            logic.ensurePackages()
            segmentation = logic.process(volume, quality="fast")
        finally:
            logic.shutdown()
        (row,) = logic.measurements(segmentation)
        # In the sample scan's label, the left atrium has 50.9 mL.
        assert abs(float(row["volume_ml"]) / 50.9 - 1) < 0.2
        self.delayDisplay("Test passed")
