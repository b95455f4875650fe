"""Undocumented behaviour that was observed in a real Slicer 5.12.3; the harness behaves in the same way."""

from __future__ import annotations

import logging
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from fake_worker import slice_composites
from slicer_harness import Person, close_scene, open_module
from slicer_harness.layout_manager import LayoutManager


def add_volume(name: str = "scan") -> slicer.vtkMRMLScalarVolumeNode:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    return node


class SceneTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def add_singleton(self) -> slicer.vtkMRMLScriptedModuleNode:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag("Sample")
        return slicer.mrmlScene.AddNode(node)

    def test_import_resolves_node_references_after_the_modified_event(self) -> None:
        node = self.add_singleton()
        text = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "text")
        node.SetNodeReferenceID("text", text.GetID())
        node.SetParameter("quality", "fast")
        path = str(self.folder / "scene.mrml")
        slicer.util.saveScene(path)
        close_scene()
        node = self.add_singleton()
        received: list[tuple[str, bool, bool]] = []

        def listen(name: str) -> None:
            scene = slicer.mrmlScene
            received.append((name, bool(scene.IsImporting()), node.GetNodeReference("text") is not None))

        for subject, event in (
            (slicer.mrmlScene, slicer.mrmlScene.StartImportEvent),
            (node, "ModifiedEvent"),
            (slicer.mrmlScene, slicer.mrmlScene.EndImportEvent),
        ):
            tag = subject.AddObserver(event, lambda _caller, name: listen(name))
            self.addCleanup(subject.RemoveObserver, tag)
        slicer.util.loadScene(path)
        names = [name for name, _importing, _resolved in received]
        self.assertIn("ModifiedEvent", names[1:-1])
        self.assertTrue(received[names.index("ModifiedEvent")][1])
        self.assertFalse(received[names.index("ModifiedEvent")][2])
        self.assertIsNotNone(node.GetNodeReference("text"))

    def test_adding_a_node_that_is_not_saved_with_the_scene_marks_the_scene_as_modified(self) -> None:
        path = str(self.folder / "scene.mrml")
        slicer.util.saveScene(path)
        slicer.util.loadScene(path)
        self.assertFalse(slicer.mrmlScene.GetStorableNodesModifiedSinceRead())
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLTableNode")
        node.UnRegister(None)
        node.SetSaveWithScene(False)
        slicer.mrmlScene.AddNode(node)
        self.assertTrue(slicer.mrmlScene.GetStorableNodesModifiedSinceRead())

    def test_name_of_a_removed_node_is_not_reused(self) -> None:
        names = []
        for _turn in range(3):
            names.append(slicer.mrmlScene.GenerateUniqueName("scan"))
            slicer.mrmlScene.RemoveNode(add_volume(names[-1]))
        self.assertEqual(len(set(names)), 3)


class BackgroundTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor

    def shown_volumes(self) -> set[tuple[str | None, str | None]]:
        composites = slice_composites()
        self.assertEqual(len(composites), 3)
        return {(node.GetBackgroundVolumeID(), node.GetForegroundVolumeID()) for node in composites}

    def test_loaded_volume_becomes_the_background(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "scan.nrrd"))
            first = add_volume()
            slicer.util.exportNode(first, path, {})
            self.assertEqual(self.shown_volumes(), {(None, None)})
            loaded = slicer.util.loadVolume(path)
            self.assertEqual(self.shown_volumes(), {(loaded.GetID(), None)})
            slicer.util.loadVolume(path, {"show": False})
            self.assertEqual(self.shown_volumes(), {(loaded.GetID(), None)})
            labels = slicer.util.loadLabelVolume(path)
            self.assertEqual(self.shown_volumes(), {(loaded.GetID(), None)})
            self.assertEqual({node.GetLabelVolumeID() for node in slice_composites()}, {labels.GetID()})

    def test_choosing_another_volume_in_segment_editor_removes_the_foreground(self) -> None:
        scan, over, other = add_volume("scan"), add_volume("map"), add_volume("other")
        slicer.util.setSliceViewerLayers(background=scan, foreground=over)
        self.editor.setSourceVolumeNode(scan)
        self.assertEqual(self.shown_volumes(), {(scan.GetID(), over.GetID())})
        self.editor.setSourceVolumeNode(other)
        self.assertEqual(self.shown_volumes(), {(other.GetID(), None)})


class UndoTest(unittest.TestCase):
    def test_undo_and_redo_send_no_event_of_changed_voxels(self) -> None:
        close_scene()
        volume = add_volume()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = node.GetSegmentation().AddEmptySegment("atrium")
        mask = np.zeros((3, 4, 5), np.uint8)
        mask[1] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(node)
        editor.saveStateForUndo()
        slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones_like(mask), node, segment, volume)
        received: list[str] = []
        event = slicer.vtkSegmentation.SourceRepresentationModified
        node.GetSegmentation().AddObserver(event, lambda *_: received.append("source"))

        def count_voxels() -> int:
            # `arrayFromSegmentBinaryLabelmap` would export the segment, and an export discards the states for redo.
            return int(slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, segment).sum())

        editor.undo()
        self.assertEqual(count_voxels(), 20)
        editor.redo()
        self.assertEqual(count_voxels(), 60)
        self.assertEqual(received, [])


class ApplicationTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.manager = slicer.app.layoutManager()
        self.addCleanup(slicer.app.settings().remove, "MainWindow/layout")
        self.addCleanup(self.manager.setLayout, slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)

    def test_layout_stays_when_the_module_or_scene_or_session_is_closed(self) -> None:
        module = open_module("DCAMTSegmentation")
        self.addCleanup(module.close)
        wanted = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView
        self.manager.setLayout(wanted)
        module.close()
        self.assertEqual(self.manager.layout, wanted)
        close_scene()
        self.assertEqual(self.manager.layout, wanted)
        slicer.app.aboutToQuit.emit()
        next_session = LayoutManager(slicer.vtkMRMLScene(), slicer.vtkMRMLApplicationLogic())
        self.assertEqual(next_session.layout, wanted)

    def test_selecting_the_current_module_does_not_enter_it_again(self) -> None:
        module = open_module("DCAMTSegmentation")
        self.addCleanup(module.close)
        with mock.patch.object(module.widget, "enter", wraps=module.widget.enter) as enter:
            slicer.util.selectModule("DCAMTSegmentation")
            enter.assert_not_called()
            module.leave()
            module.enter()
            enter.assert_called_once()

    def test_module_widget_is_destroyed_after_the_about_to_quit_signal(self) -> None:
        self.assertFalse(hasattr(slicer.modules, "DCAMTSegmentationWidget"))
        module = open_module("DCAMTSegmentation")
        self.addCleanup(module.close)
        panel, received = module.panel, []
        slicer.app.connect("aboutToQuit()", lambda: received.append(bool(panel)))
        slicer.app.aboutToQuit.emit()
        self.assertEqual(received, [True])
        self.assertFalse(panel)  # destroyed
        self.assertFalse(hasattr(slicer.modules, "DCAMTSegmentationWidget"))

    def test_confirmation_is_declined_in_testing_mode(self) -> None:
        with mock.patch.object(slicer.app, "testing", True), self.assertLogs(level=logging.INFO):
            self.assertFalse(slicer.util.confirmOkCancelDisplay("Go on?"))

    def test_standard_output_has_no_encoding(self) -> None:
        self.assertFalse(hasattr(sys.stdout, "encoding"))
        print("still prints", flush=True)

    def test_dialog_blocks_until_it_is_answered(self) -> None:
        import qt

        dialog, order = qt.QDialog(), []
        dialog.windowTitle = "Sample"

        def answer(opened: qt.QDialog) -> None:
            order.append("answered")
            opened.accept()

        with Person() as person:
            person.expects("Sample", answer)
            self.assertEqual(dialog.exec_(), qt.QDialog.Accepted)
            order.append("returned")
        self.assertEqual(order, ["answered", "returned"])
