"""Parameters of a node: stored as text, saved with the scene, and connected to widgets."""

from __future__ import annotations

import enum
import tempfile
import unittest
from pathlib import Path

import ctk
import qt
import slicer
import vtk
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer_harness import close_scene


class Effort(enum.Enum):
    QUICK = "quick"
    THOROUGH = "thorough"


@parameterNodeWrapper
class Choices:
    volume: slicer.vtkMRMLScalarVolumeNode
    channels: list[slicer.vtkMRMLScalarVolumeNode]
    model: str = "left-atrium"
    iterations: int = 600
    show3D: bool  # noqa: N815
    effort: Effort
    note: str


class _Logic(ScriptedLoadableModuleLogic):
    def __init__(self) -> None:
        super().__init__()
        self.moduleName = "HarnessTest"

    def choices(self) -> Choices:
        return Choices(self.getParameterNode())


class ParameterNodeTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.logic = _Logic()
        self.choices = self.logic.choices()
        self.node = self.choices.parameterNode

    def test_new_parameters_have_their_defaults(self) -> None:
        choices = self.choices
        self.assertEqual((choices.model, choices.iterations), ("left-atrium", 600))
        self.assertEqual((choices.show3D, choices.note, choices.effort), (False, "", Effort.QUICK))
        self.assertEqual(choices.channels, ())
        self.assertIsNone(choices.volume)

    def test_values_are_stored_as_text_in_the_format_of_slicer(self) -> None:
        """The expected names and texts follow Slicer's sources (Base/Python/slicer/parameterNodeWrapper)."""
        self.choices.show3D = True
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        self.choices.channels = [None, volume]
        written = {
            name: self.node.GetParameter(name)
            for name in ("show3D", "channels_len", "channels_1", "volume", "iterations", "effort")
        }
        self.assertEqual(
            written,
            {
                "show3D": "True",
                "channels_len": "2",
                "channels_1": "",
                "volume": "",
                "iterations": "600",
                "effort": "QUICK",
            },
        )
        for name in ("volume", "channels_1"):
            self.assertEqual(self.node.GetNodeReferenceID(name), volume.GetID())

    def test_invalid_values_are_refused(self) -> None:
        for name, value, error in (
            ("iterations", "many", TypeError),
            ("note", None, ValueError),
            ("show3D", 1, TypeError),
            ("volume", self.node, TypeError),
            ("channels", [self.node], TypeError),
        ):
            with self.subTest(name), self.assertRaises(error):
                setattr(self.choices, name, value)

    def test_shorter_list_replaces_a_longer_one(self) -> None:
        first, second = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode") for _ in range(2))
        self.choices.channels = [first, second]
        self.choices.channels = [second]
        self.assertEqual(self.logic.choices().channels, (second,))
        self.assertFalse(self.node.HasParameter("channels_1"))

    def test_reference_to_a_removed_node_is_none(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        slicer.mrmlScene.RemoveNode(volume)
        self.assertIsNone(self.logic.choices().volume)

    def test_observers_are_called_after_a_change(self) -> None:
        received: list[str] = []
        tag = self.choices.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: received.append(self.choices.note))
        self.choices.note = "new"
        self.choices.RemoveObserver(tag)
        self.choices.note = "newer"
        self.assertEqual(received, ["new"])

    def test_change_is_seen_by_another_wrapper_of_the_node(self) -> None:
        other = self.logic.choices()
        self.choices.iterations = 7
        self.assertEqual(other.iterations, 7)

    def test_scene_has_one_parameter_node(self) -> None:
        self.assertIs(self.logic.getParameterNode(), self.node)
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        self.assertEqual([node for node in nodes if node.GetAttribute("ModuleName") == "HarnessTest"], [self.node])

    def test_values_are_restored_with_a_saved_scene(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        self.choices.model = "ß & <b>"
        self.choices.effort = Effort.THOROUGH
        self.choices.channels = [None, volume]
        for ending in ("mrb", "mrml"):
            with self.subTest(ending), tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder, f"scene.{ending}"))
                self.assertTrue(slicer.util.saveScene(path))
                close_scene()
                self.assertEqual(self.logic.choices().model, "left-atrium")
                slicer.util.loadScene(path)
                loaded = self.logic.choices()
                self.assertEqual((loaded.model, loaded.effort), ("ß & <b>", Effort.THOROUGH))
                self.assertEqual(loaded.channels, (None, loaded.volume))
                self.assertEqual(loaded.volume.GetName(), "scan")


class TypesTest(unittest.TestCase):
    def test_types_without_a_serializer_are_refused(self) -> None:
        for kind in (dict, object, list[str], "int | None"):
            with self.subTest(kind), self.assertRaises(TypeError):
                parameterNodeWrapper(type("Bad", (), {"__annotations__": {"member": kind}}))

    def test_reserved_names_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "reserved name 'Modified'"):
            parameterNodeWrapper(type("Bad", (), {"__annotations__": {"Modified": int}}))


class GuiTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.choices = _Logic().choices()
        self.ui = type("Ui", (), {})()
        self.add("volume", slicer.qMRMLNodeComboBox()).setMRMLScene(slicer.mrmlScene)
        self.ui.volume.noneEnabled = True
        self.add("iterations", qt.QSpinBox())
        self.add("show3D", qt.QCheckBox())
        self.add("note", qt.QLineEdit())
        self.add("effort", qt.QComboBox())
        self.choices.connectParametersToGui(vars(self.ui))

    def add(self, name: str, widget: object) -> object:
        setattr(self.ui, name, widget)
        return widget

    def test_widgets_get_the_values_of_their_parameters(self) -> None:
        ui = self.ui
        self.assertEqual([ui.effort.itemText(row) for row in range(ui.effort.count)], ["QUICK", "THOROUGH"])
        self.assertEqual(ui.iterations.value, 600)
        self.assertEqual(ui.volume.nodeTypes, ("vtkMRMLScalarVolumeNode",))
        self.assertEqual(ui.effort.currentText, "QUICK")

    def test_change_of_a_widget_changes_the_node(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.ui.volume.setCurrentNode(volume)
        self.ui.iterations.value = 5
        self.ui.show3D.click()
        self.ui.note.text = "written"
        self.ui.effort.currentIndex = 1
        choices = self.choices
        self.assertIs(choices.volume, volume)
        self.assertEqual((choices.iterations, choices.show3D, choices.note), (5, True, "written"))
        self.assertIs(choices.effort, Effort.THOROUGH)

    def test_change_of_the_node_changes_the_widgets(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        self.choices.effort = Effort.THOROUGH
        self.choices.show3D = True
        self.choices.note = "written"
        ui = self.ui
        self.assertIs(ui.volume.currentNode(), volume)
        self.assertEqual((ui.effort.currentText, ui.show3D.checked, ui.note.text), ("THOROUGH", True, "written"))

    def test_disconnected_widgets_and_node_are_independent(self) -> None:
        note, effort = qt.QLineEdit(), qt.QComboBox()
        tag = self.choices.connectParametersToGui({"note": note, "effort": effort})
        self.choices.disconnectGui(tag)
        note.text = "panel"
        self.choices.effort = Effort.THOROUGH
        self.assertEqual((self.choices.note, effort.currentText), ("", "QUICK"))

    def test_connecting_a_combo_box_again_resets_its_parameter_to_the_first_value(self) -> None:
        """As in Slicer (issue 7545), the second connection refills the combo box, so the first item becomes current."""
        self.choices.effort = Effort.THOROUGH
        _Logic().choices().connectParametersToGui(vars(self.ui))
        self.assertIs(self.choices.effort, Effort.QUICK)

    def test_unsuitable_widgets_and_unknown_parameters_are_refused(self) -> None:
        for widget, name in (
            (qt.QLabel(), "note"),
            (qt.QComboBox(), "note"),
            (qt.QPushButton(), "effort"),
            (qt.QSpinBox(), "show3D"),
            (ctk.ctkCollapsibleButton(), "show3D"),
        ):
            with self.subTest(name), self.assertRaisesRegex(RuntimeError, "Unable to create GUI connector"):
                self.choices.connectParametersToGui({name: widget})
        with self.assertRaisesRegex(ValueError, "Cannot find a param"):
            self.choices.connectParametersToGui({"nothing": qt.QLineEdit()})
