"""Test the harness (`slicer_harness`): files, layout, settings, modules, sample data, and module base classes."""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer_harness import Person, close_scene
from slicer_harness.modules import ScriptedModule


def add_scan(name: str = "scan") -> slicer.vtkMRMLScalarVolumeNode:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    node.SetSpacing(0.5, 1.0, 2.0)
    node.SetOrigin(10, -20, 30)
    return node


class FilesTest(unittest.TestCase):
    """`exportNode` writes into the default value of `properties`, so each call passes a new dictionary."""

    def setUp(self) -> None:
        close_scene()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_saved_volume_loads_with_its_voxels_and_origin_and_spacing(self) -> None:
        node = add_scan()
        for name, ending in (("first", "nrrd"), ("second", "nii.gz")):
            with self.subTest(ending):
                path = self.folder / f"{name}.{ending}"
                before = slicer.mrmlScene.GetNumberOfNodes()
                self.assertTrue(slicer.util.exportNode(node, str(path), {}))
                self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
                self.assertIsNone(node.GetStorageNode())
                loaded = slicer.util.loadVolume(str(path))
                self.assertEqual(loaded.GetName(), name)
                np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), slicer.util.arrayFromVolume(node))
                np.testing.assert_allclose(loaded.GetOrigin(), node.GetOrigin())
                np.testing.assert_allclose(loaded.GetSpacing(), node.GetSpacing())
                slicer.mrmlScene.RemoveNode(loaded)

    def test_saved_segmentation_loads_with_its_name_and_voxels(self) -> None:
        volume = add_scan()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = node.GetSegmentation().AddEmptySegment("atrium", "Left atrium", (1.0, 0.0, 0.0))
        mask = (slicer.util.arrayFromVolume(volume) > 30).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
        path = self.folder / "out.seg.nrrd"
        self.assertTrue(slicer.util.exportNode(node, str(path), {}))
        loaded = slicer.util.loadSegmentation(str(path))
        self.assertEqual(loaded.GetSegmentation().GetNthSegment(0).GetName(), "Left atrium")
        identifier = loaded.GetSegmentation().GetNthSegmentID(0)
        array = slicer.util.arrayFromSegmentBinaryLabelmap(loaded, identifier, volume)
        np.testing.assert_array_equal(array, mask)

    def test_table_is_saved_as_csv_and_markups_load_with_their_size(self) -> None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "measures")
        slicer.util.updateTableFromArray(table, np.array([[1.5, 2.5]]), ["a", "b"])
        self.assertTrue(slicer.util.exportNode(table, str(self.folder / "t.csv"), {}))
        self.assertEqual((self.folder / "t.csv").read_text(encoding="utf-8").split(), ['"a","b"', "1.5,2.5"])
        box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
        box.SetSize(10, 20, 30)
        self.assertTrue(slicer.util.saveNode(box, str(self.folder / "box.mrk.json")))
        loaded = slicer.util.loadMarkups(str(self.folder / "box.mrk.json"))
        self.assertEqual(tuple(loaded.GetSize()), (10, 20, 30))

    def test_missing_file_is_refused(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "Failed to load node from file"):
            slicer.util.loadVolume(str(self.folder / "none.nrrd"))

    def test_export_to_an_unwritable_path_returns_false(self) -> None:
        (self.folder / "file").write_text("no folder", encoding="utf-8")
        self.assertFalse(slicer.util.exportNode(add_scan(), str(self.folder / "file" / "out.nrrd"), {}))

    def test_unknown_format_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "no known file format"):
            slicer.util.exportNode(add_scan(), str(self.folder / "out.xyz"), {})


class LayoutTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.manager = slicer.app.layoutManager()
        self.addCleanup(self.manager.setLayout, slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)

    def test_layout_has_three_slice_views_and_the_red_one_shows_the_scan(self) -> None:
        self.assertEqual(self.manager.sliceViewNames(), ("Red", "Green", "Yellow"))
        node = add_scan()
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        widget = self.manager.sliceWidget("Red")
        self.assertEqual(widget.mrmlSliceCompositeNode().GetBackgroundVolumeID(), node.GetID())
        self.assertEqual(widget.mrmlSliceNode().GetOrientation(), "Axial")
        self.assertIs(widget.sliceLogic().GetBackgroundLayer().GetVolumeNode(), node)

    def test_slice_view_nodes_remain_when_the_scene_is_closed(self) -> None:
        close_scene()
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLSliceNode")), 3)
        self.assertIsNotNone(self.manager.sliceWidget("Green").mrmlSliceCompositeNode())

    def test_layout_with_a_plot_has_a_plot_view(self) -> None:
        self.assertEqual(self.manager.plotViewCount, 0)
        self.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView)
        self.assertEqual(self.manager.plotViewCount, 1)
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "losses")
        view = self.manager.plotWidget(0).mrmlPlotViewNode()
        view.SetPlotChartNodeID(chart.GetID())
        self.assertIs(view.GetPlotChartNode(), chart)

    def test_showing_a_chart_selects_a_layout_with_a_plot(self) -> None:
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "losses")
        slicer.modules.plots.logic().ShowChartInLayout(chart)
        self.assertEqual(self.manager.plotViewCount, 1)


class ApplicationTest(unittest.TestCase):
    def test_settings_are_stored_in_a_temporary_folder(self) -> None:
        settings = qt.QSettings()
        settings.setValue("DCAMT/folder", "/data")
        self.assertEqual(slicer.util.settingsValue("DCAMT/folder", "none"), "/data")
        self.assertTrue(settings.fileName().startswith(str(Path(slicer.app.temporaryPath).parent)))
        settings.remove("DCAMT/folder")
        self.assertEqual(slicer.util.settingsValue("DCAMT/folder", "none"), "none")

    def test_attributes_and_modules_that_the_harness_lacks_raise_errors(self) -> None:
        for name in ("extensionsManagerModel", "commandOptions", "errorLogModel"):
            with self.assertRaises(AttributeError):
                getattr(slicer.app, name)
        with self.assertRaises(AttributeError):
            _ = slicer.modules.volumerendering
        with self.assertRaisesRegex(RuntimeError, "There is no module Nothing"):
            slicer.util.selectModule("Nothing")

    def test_about_to_quit_signal_is_received(self) -> None:
        received: list[str] = []
        slicer.app.connect("aboutToQuit()", lambda: received.append("end"))
        slicer.app.aboutToQuit.emit()
        self.assertEqual(received, ["end"])

    def test_main_window_and_clipboard_exist(self) -> None:
        self.assertEqual(slicer.util.mainWindow().name, "qSlicerMainWindow")
        self.assertTrue(slicer.util.showStatusMessage("working", 100))
        slicer.app.clipboard().setText("copied")
        self.assertEqual(qt.QApplication.clipboard().text(), "copied")

    def test_opened_link_goes_to_the_simulated_person_instead_of_a_browser(self) -> None:
        with Person() as person:
            person.expects("example.org", None)
            self.assertTrue(qt.QDesktopServices.openUrl(qt.QUrl("https://example.org/help")))

    def test_segment_editor_keeps_its_node(self) -> None:
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        slicer.util.selectModule("SegmentEditor")
        editor.setSegmentationNode(node)
        self.assertIs(editor.segmentationNode(), node)
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")


class SampleDataTest(unittest.TestCase):
    def register(self, name: str, address: str) -> None:
        """Register a sample with the keyword arguments that the segmentation module uses."""
        import SampleData

        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="DCAMT",
            sampleName=name,
            uris=address,
            fileNames="scan.nrrd",
            nodeNames="Sample",
            checksums="",
            thumbnailFileName="",
        )

    def test_registered_sample_loads(self) -> None:
        import SampleData

        close_scene()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "scan.nrrd")
            slicer.util.exportNode(add_scan(), str(path), {})
            self.register("HarnessScan", path.as_uri())
            self.assertEqual(SampleData.downloadSample("HarnessScan").GetName(), "Sample")

    def test_remote_sample_is_refused(self) -> None:
        import SampleData

        self.register("far", "https://example.org/x.nrrd")
        with self.assertRaisesRegex(RuntimeError, "nothing from the network"):
            SampleData.downloadSample("far")


SOURCE = """
from slicer.ScriptedLoadableModule import *
class HarnessSample(ScriptedLoadableModule):
    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "Sample"
class HarnessSampleWidget(ScriptedLoadableModuleWidget):
    calls = []
    def setup(self):
        super().setup()
        self.calls.append("setup")
    def enter(self): self.calls.append("enter")
    def exit(self): self.calls.append("exit")
    def cleanup(self): self.calls.append("cleanup")
"""


class ScriptedModuleTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "HarnessSample.py")
        self.path.write_text(SOURCE, encoding="utf-8")

    def open(self) -> ScriptedModule:
        slicer.modules.harnesssample = ScriptedModule("HarnessSample", str(self.path))
        self.addCleanup(lambda: hasattr(slicer.modules, "harnesssample") and slicer.modules.harnesssample.unload())
        slicer.util.selectModule("HarnessSample")
        return slicer.modules.harnesssample

    def test_module_calls_setup_enter_exit_and_cleanup_in_this_order(self) -> None:
        module = self.open()
        calls = slicer.modules.HarnessSampleWidget.calls
        slicer.util.selectModule("Data")
        module.unload()
        self.assertEqual(calls, ["setup", "enter", "exit", "cleanup"])
        self.assertFalse(hasattr(slicer.modules, "HarnessSampleWidget"))

    def test_unknown_property_of_a_module_cannot_be_set(self) -> None:
        module = self.open()
        self.assertEqual(module.title, "Sample")
        with self.assertRaises(AttributeError):
            module.titel = "Sample"

    def test_resource_path_points_into_the_folder_of_the_module(self) -> None:
        self.open()
        expected = str(self.path.parent / "Resources" / "UI" / "x.ui")
        self.assertEqual(slicer.modules.HarnessSampleWidget.resourcePath("UI/x.ui"), expected)

    def test_logic_without_a_widget_keeps_its_parameter_node(self) -> None:
        logic = ScriptedLoadableModuleLogic()
        node = logic.getParameterNode()
        self.assertIs(logic.getParameterNode(), node)

    def test_star_import_provides_the_four_base_classes(self) -> None:
        names = set(sys.modules["slicer.ScriptedLoadableModule"].__all__)
        classes = (
            ScriptedLoadableModule,
            ScriptedLoadableModuleWidget,
            ScriptedLoadableModuleLogic,
            ScriptedLoadableModuleTest,
        )
        self.assertEqual(names, {cls.__name__ for cls in classes})
