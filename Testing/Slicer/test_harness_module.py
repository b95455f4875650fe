"""The harness opens, leaves, enters and closes a module of the extension, and resets the application."""

from __future__ import annotations

import unittest
from unittest import mock

import numpy as np
import slicer
from slicer_harness import announce_quitting, choose, click, close_scene, open_module, start_afresh


class OpenModuleTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.module = open_module("DCAMTSegmentation")
        self.addCleanup(self.module.close)

    def test_panel_is_set_up_and_entered(self) -> None:
        self.assertTrue(self.module.panel.isEntered)
        self.assertEqual(slicer.util.selectedModule(), "DCAMTSegmentation")
        self.assertFalse(self.module.ui.applyButton.enabled)
        self.assertIs(slicer.util.getModuleWidget("DCAMTSegmentation"), self.module.widget)

    def test_module_can_be_left_and_entered_again(self) -> None:
        self.module.leave()
        self.assertFalse(self.module.panel.isEntered)
        self.assertEqual(slicer.util.selectedModule(), "Data")
        self.module.enter()
        self.assertTrue(self.module.panel.isEntered)

    def test_listed_node_can_be_chosen(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        slicer.util.updateVolumeFromArray(volume, np.zeros((4, 5, 6), np.int16))
        choose(self.module.ui.inputSelector, volume)
        self.assertTrue(self.module.ui.applyButton.enabled)

    def test_disabled_button_cannot_be_clicked(self) -> None:
        with self.assertRaisesRegex(AssertionError, "applyButton cannot be clicked"):
            click(self.module.ui.applyButton)

    def test_node_that_is_not_listed_cannot_be_chosen(self) -> None:
        model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "surface")
        with self.assertRaisesRegex(AssertionError, "does not offer surface"):
            choose(self.module.ui.inputSelector, model)

    def test_selector_that_requires_a_node_refuses_the_empty_choice(self) -> None:
        self.module.ui.inputSelector.noneEnabled = False
        with self.assertRaisesRegex(AssertionError, "inputSelector does not offer None"):
            choose(self.module.ui.inputSelector, None)


class ReopenedModuleTest(unittest.TestCase):
    def test_closed_module_can_be_opened_again(self) -> None:
        close_scene()
        first = open_module("DCAMTSegmentation")
        widget = first.widget
        first.close()
        self.assertFalse(hasattr(slicer.modules, "DCAMTSegmentationWidget"))
        second = open_module("DCAMTSegmentation")
        self.addCleanup(second.close)
        self.assertIsNot(second.widget, widget)
        self.assertFalse(second.ui.applyButton.enabled)


class ResetTest(unittest.TestCase):
    """A test that sets `slicer._harness` to False simulates a real Slicer."""

    def test_closing_resets_the_module_in_a_real_slicer(self) -> None:
        module = open_module("DCAMTSegmentation")
        self.addCleanup(module.close)
        before = module.widget
        with mock.patch.object(before, "cleanup", wraps=before.cleanup) as cleanup:
            with mock.patch.object(slicer, "_harness", False):
                module.close()
            cleanup.assert_called_once()
        self.assertFalse(module.panel.isEntered)
        self.assertIsNot(module.widget, before)
        self.assertIsNot(module.logic, before.logic)

    def test_quitting_is_announced_in_the_harness_but_not_in_a_real_slicer(self) -> None:
        received: list[str] = []
        slicer.app.connect("aboutToQuit()", lambda: received.append("quit"))
        with mock.patch.object(slicer, "_harness", False), self.assertRaises(unittest.SkipTest):
            announce_quitting()
        self.assertEqual(received, [])
        announce_quitting()
        self.assertEqual(received, ["quit"])

    def test_start_afresh_resets_scene_layout_and_settings(self) -> None:
        module = open_module("DCAMTSegmentation")
        self.addCleanup(module.close)
        manager = slicer.app.layoutManager()
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView)
        slicer.app.settings().setValue("DCAMT/sample", 1)
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        start_afresh()
        self.assertFalse(module.panel.isEntered)
        self.assertEqual(manager.layout, slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
        self.assertFalse(slicer.app.settings().contains("DCAMT/sample"))
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [])

    def test_closing_a_module_twice_is_allowed(self) -> None:
        module = open_module("DCAMTSegmentation")
        module.close()
        module.close()
