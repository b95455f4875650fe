"""Test the harness's node selector and its other qMRML and CTK widgets."""

from __future__ import annotations

import gc
import unittest

import slicer
from slicer_harness import close_scene, reload_scene
from slicer_harness.deletion import delete_pending


class NodeComboBoxTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.combo = slicer.qMRMLNodeComboBox()
        self.combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.combo.setMRMLScene(slicer.mrmlScene)
        self.received: list[object] = []
        self.combo.currentNodeChanged.connect(self.received.append)

    def add_node(self, name: str, kind: str = "vtkMRMLScalarVolumeNode") -> object:
        return slicer.mrmlScene.AddNewNodeByClass(kind, name)

    def test_selector_is_disabled_without_a_scene(self) -> None:
        self.assertFalse(slicer.qMRMLNodeComboBox().enabled)
        self.assertTrue(self.combo.enabled)

    def test_first_node_becomes_current_if_the_item_none_is_not_offered(self) -> None:
        self.assertFalse(self.combo.noneEnabled)
        first = self.add_node("first")
        self.add_node("second")
        self.assertIs(self.combo.currentNode(), first)
        self.assertEqual(self.combo.nodeCount(), 2)
        self.assertEqual(self.received, [first])

    def test_no_node_becomes_current_if_the_item_none_is_offered(self) -> None:
        self.combo.noneEnabled = True
        self.add_node("first")
        self.assertIsNone(self.combo.currentNode())

    def test_choosing_a_node_emits_the_signal(self) -> None:
        self.combo.noneEnabled = True
        first, second = self.add_node("first"), self.add_node("second")
        self.combo.setCurrentNode(second)
        self.combo.setCurrentNode(first)
        self.combo.setCurrentNode(None)
        self.assertEqual(self.received, [second, first, None])

    def test_signals_can_be_connected_by_signature(self) -> None:
        received: list[object] = []
        self.combo.connect("currentNodeChanged(vtkMRMLNode*)", received.append)
        node = self.add_node("first")
        self.assertEqual(received, [node])
        with self.assertRaises(ValueError):
            self.combo.connect("currentNodeChanged(vtkMRMLVolumeNode*)", received.append)

    def test_removed_node_is_no_longer_current(self) -> None:
        self.combo.noneEnabled = True
        node = self.add_node("first")
        self.combo.setCurrentNode(node)
        slicer.mrmlScene.RemoveNode(node)
        self.assertIsNone(self.combo.currentNode())
        self.assertEqual(self.received, [node, None])

    def test_another_node_becomes_current_when_the_current_node_is_removed(self) -> None:
        self.combo.noneEnabled = True
        for removed, expected in ((0, 1), (1, 0), (2, 1)):
            with self.subTest(removed):
                close_scene()
                nodes = [self.add_node(name) for name in ("first", "second", "third")]
                self.combo.setCurrentNode(nodes[removed])
                slicer.mrmlScene.RemoveNode(nodes[removed])
                self.assertIs(self.combo.currentNode(), nodes[expected])

    def test_selector_is_empty_after_closing_the_scene(self) -> None:
        self.add_node("first")
        close_scene()
        self.assertIsNone(self.combo.currentNode())
        self.assertEqual(self.combo.nodeCount(), 0)

    def test_nodes_of_a_loaded_scene_are_listed(self) -> None:
        self.add_node("first")
        reload_scene()
        self.assertEqual(self.combo.currentNode().GetName(), "first")

    def test_only_nodes_of_the_given_types_are_listed(self) -> None:
        self.combo.showChildNodeTypes = False
        self.add_node("labels", "vtkMRMLLabelMapVolumeNode")
        self.add_node("surface", "vtkMRMLModelNode")
        self.assertEqual(self.combo.nodeCount(), 0)
        self.combo.showChildNodeTypes = True
        self.assertEqual(self.combo.nodeCount(), 1)

    def test_hidden_nodes_are_not_listed(self) -> None:
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetHideFromEditors(True)
        slicer.mrmlScene.AddNode(node)
        self.assertEqual(self.combo.nodeCount(), 0)

    def test_selector_creates_a_node(self) -> None:
        self.combo.baseName = "Result"
        received: list[object] = []
        self.combo.nodeAddedByUser.connect(received.append)
        node = self.combo.addNode()
        self.assertEqual(node.GetName(), "Result")
        self.assertIs(self.combo.currentNode(), node)
        self.assertEqual(received, [node])

    def test_destroyed_selector_gets_no_events(self) -> None:
        self.combo.deleteLater()
        delete_pending()
        self.assertFalse(self.combo)  # destroyed
        self.add_node("first")
        self.assertEqual(self.received, [])


class OtherWidgetsTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()

    def test_table_view_shows_and_follows_its_node(self) -> None:
        import numpy as np
        import qt

        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "measures")
        slicer.util.updateTableFromArray(node, np.array([[1.0, 2.0], [3.0, 4.0]]), ["mL", "mm"])
        view = slicer.qMRMLTableView()
        view.transposed = True  # ignored, because the view has no table node yet
        view.setMRMLTableNode(node)
        self.assertEqual(view.model().rowCount(), 3)  # the first row holds the column names
        node.AddEmptyRow()
        self.assertEqual(view.model().rowCount(), 4)

        node.SetColumnTitle("mm", "Diameter")
        node.SetUseColumnTitleAsColumnHeader(True)
        self.assertEqual(view.model().rowCount(), 3)
        self.assertEqual(view.model().headerData(1, qt.Qt.Horizontal), "Diameter")
        view.transposed = True
        self.assertEqual(view.model().rowCount(), 2)
        self.assertEqual(view.model().headerData(1, qt.Qt.Vertical), "Diameter")
        with self.assertRaises(ValueError):
            view.setMRMLTableNode(slicer.vtkMRMLModelNode())

    def test_node_can_be_modified_after_its_table_view_was_deleted(self) -> None:
        slicer.qMRMLTableView().setMRMLTableNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "measures"))
        gc.collect()
        slicer.util.getNode("measures").Modified()

    def test_collapsible_button_hides_and_shows_its_content(self) -> None:
        import ctk
        import qt

        button, received = ctk.ctkCollapsibleButton(), []
        inner = qt.QLabel("inner")
        qt.QVBoxLayout(button).addWidget(inner)
        button.contentsCollapsed.connect(received.append)
        button.collapsed = True
        self.assertTrue(inner.isHidden())
        button.collapsed = False
        self.assertFalse(inner.isHidden())
        self.assertEqual(received, [True, False])
        with self.assertRaises(AttributeError):
            button.setCollapsed(True)

    def test_slider_emits_its_value_and_limits_it_to_the_maximum(self) -> None:
        import ctk

        slider, received = ctk.ctkSliderWidget(), []
        slider.valueChanged.connect(received.append)
        slider.minimum, slider.maximum, slider.decimals = 1.0, 5.0, 1
        slider.value = 2.5
        self.assertEqual((slider.value, received[-1]), (2.5, 2.5))
        slider.value = 9.0
        self.assertEqual(slider.value, 5.0)
