"""Parameters of a node: stored as text, saved with the scene, and connected to widgets."""

from __future__ import annotations

import enum
import tempfile
import unittest
from pathlib import Path
from typing import Annotated, Optional, Union

import ctk
import qt
import slicer
import vtk
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer_harness import close_scene


class Effort(enum.Enum):
    QUICK = "quick"
    THOROUGH = "thorough"


@parameterPack
class Weights:
    supervised: float = 1.0
    contrast: float = 0.1


@parameterNodeWrapper
class Choices:
    volume: slicer.vtkMRMLScalarVolumeNode
    region: Optional[slicer.vtkMRMLMarkupsROINode]  # noqa: UP045
    quality: Annotated[str, Choice(["accurate", "fast"])] = "accurate"
    iterations: Annotated[int, WithinRange(1, 1000)] = 600
    rate: Annotated[float, WithinRange(0.0, 1.0), Default(0.01)]
    show3D: bool  # noqa: N815
    folder: Path
    effort: Effort
    names: list[str]
    spacing: tuple[float, float, float]
    weights: Weights
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

    def test_members_of_a_pack_are_set_by_name(self) -> None:
        self.choices.setValue("weights.contrast", 0.5)
        self.choices.weights.setValue("supervised", 2.0)
        self.assertEqual(self.logic.choices().weights, Weights(2.0, 0.5))

    def test_new_parameters_have_their_defaults(self) -> None:
        choices = self.choices
        self.assertEqual((choices.quality, choices.iterations, choices.rate), ("accurate", 600, 0.01))
        self.assertEqual((choices.show3D, choices.note, choices.effort), (False, "", Effort.QUICK))
        self.assertEqual((choices.names, choices.spacing), ([], (0, 0, 0)))
        self.assertIsNone(choices.volume)
        self.assertIsNone(choices.region)
        self.assertEqual(choices.weights, Weights(1.0, 0.1))

    def test_values_are_stored_as_text_in_the_format_of_slicer(self) -> None:
        """The expected names and texts follow Slicer's sources (Base/Python/slicer/parameterNodeWrapper)."""
        self.choices.show3D = True
        self.choices.names = ["a", "b"]
        self.choices.weights.contrast = 0.5
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        written = {
            name: self.node.GetParameter(name)
            for name in ("show3D", "names_len", "names_1", "weights.contrast", "volume", "iterations", "effort")
        }
        self.assertEqual(
            written,
            {
                "show3D": "True",
                "names_len": "2",
                "names_1": "b",
                "weights.contrast": "0.5",
                "volume": "",
                "iterations": "600",
                "effort": "QUICK",
            },
        )
        self.assertEqual(self.node.GetNodeReferenceID("volume"), volume.GetID())
        self.assertEqual(self.node.GetParameter("region_1"), "True")

    def test_invalid_values_are_refused(self) -> None:
        for name, value, error in (
            ("quality", "best", ValueError),
            ("iterations", 0, ValueError),
            ("iterations", "many", TypeError),
            ("note", None, ValueError),
            ("show3D", 1, TypeError),
            ("volume", self.node, TypeError),
            ("names", ["a", 3], TypeError),
        ):
            with self.subTest(name), self.assertRaises(error):
                setattr(self.choices, name, value)

    def test_changes_of_a_list_are_written_to_the_node(self) -> None:
        self.choices.names.append("first")
        self.choices.names += ["second", "third"]
        del self.choices.names[0]
        self.assertEqual(self.logic.choices().names, ["second", "third"])
        self.assertFalse(self.node.HasParameter("names_2"))

    def test_reference_to_a_removed_node_is_none(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        slicer.mrmlScene.RemoveNode(volume)
        self.assertIsNone(self.logic.choices().volume)

    def test_optional_node_may_be_none(self) -> None:
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
        self.choices.region = region
        self.assertIs(self.logic.choices().region, region)
        self.choices.region = None
        self.assertIsNone(self.logic.choices().region)

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
        self.assertEqual(self.logic.getAllParameterNodes(), [self.node])

    def test_values_are_restored_with_a_saved_scene(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        self.choices.quality = "fast"
        self.choices.folder = Path("some/folder")
        self.choices.effort = Effort.THOROUGH
        self.choices.spacing = (0.5, 0.5, 2.0)
        self.choices.names = ["a", "ß & <b>"]
        self.choices.weights.contrast = 0.25
        for ending in ("mrb", "mrml"):
            with self.subTest(ending), tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder, f"scene.{ending}"))
                self.assertTrue(slicer.util.saveScene(path))
                close_scene()
                self.assertEqual(self.logic.choices().quality, "accurate")
                slicer.util.loadScene(path)
                loaded = self.logic.choices()
                self.assertEqual((loaded.quality, loaded.folder), ("fast", Path("some/folder")))
                self.assertEqual((loaded.effort, loaded.spacing), (Effort.THOROUGH, (0.5, 0.5, 2.0)))
                self.assertEqual((loaded.names, loaded.weights), (["a", "ß & <b>"], Weights(1.0, 0.25)))
                self.assertEqual(loaded.volume.GetName(), "scan")


class TypesTest(unittest.TestCase):
    def test_types_without_a_serializer_are_refused(self) -> None:
        for kind in (dict, object, "int | None"):
            with self.subTest(kind), self.assertRaises(TypeError):
                parameterNodeWrapper(type("Bad", (), {"__annotations__": {"member": kind}}))

    def test_reserved_names_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "reserved name 'Modified'"):
            parameterNodeWrapper(type("Bad", (), {"__annotations__": {"Modified": int}}))

    def test_union_stores_a_value_with_the_matching_type(self) -> None:
        close_scene()
        wrapper = parameterNodeWrapper(type("Either", (), {"__annotations__": {"member": Union[int, str]}}))  # noqa: UP007
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        either = wrapper(node)
        either.member = "text"
        self.assertEqual(wrapper(node).member, "text")
        either.member = 3
        self.assertEqual(wrapper(node).member, 3)
        with self.assertRaises(TypeError):
            either.member = 2.5


class GuiTest(unittest.TestCase):
    def setUp(self) -> None:
        close_scene()
        self.choices = _Logic().choices()
        self.ui = type("Ui", (), {})()
        self.add("volume", slicer.qMRMLNodeComboBox()).setMRMLScene(slicer.mrmlScene)
        self.ui.volume.noneEnabled = True
        self.add("quality", qt.QComboBox())
        self.add("iterations", qt.QSpinBox())
        self.add("rate", ctk.ctkSliderWidget())
        self.add("show3D", qt.QCheckBox())
        self.add("note", qt.QLineEdit())
        self.add("folder", ctk.ctkPathLineEdit())
        self.add("effort", qt.QComboBox())
        self.ui.plain = qt.QLabel()
        self.choices.connectGui(self.ui)

    def add(self, name: str, widget: object) -> object:
        widget.setProperty("SlicerParameterName", name)
        setattr(self.ui, name, widget)
        return widget

    def test_widgets_get_values_and_limits_of_their_parameters(self) -> None:
        ui = self.ui
        self.assertEqual([ui.quality.itemText(row) for row in range(ui.quality.count)], ["accurate", "fast"])
        self.assertEqual((ui.iterations.value, ui.iterations.maximum), (600, 1000))
        self.assertEqual((ui.rate.value, ui.rate.maximum), (0.01, 1.0))
        self.assertEqual(ui.volume.nodeTypes, ("vtkMRMLScalarVolumeNode",))
        self.assertEqual(ui.effort.currentText, "QUICK")

    def test_change_of_a_widget_changes_the_node(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.ui.volume.setCurrentNode(volume)
        self.ui.quality.currentIndex = 1
        self.ui.iterations.value = 5
        self.ui.rate.value = 0.5
        self.ui.show3D.click()
        self.ui.note.text = "written"
        self.ui.folder.currentPath = "/data"
        self.ui.effort.currentIndex = 1
        choices = self.choices
        self.assertIs(choices.volume, volume)
        self.assertEqual((choices.quality, choices.iterations, choices.rate), ("fast", 5, 0.5))
        self.assertEqual((choices.show3D, choices.note, choices.folder), (True, "written", Path("/data")))
        self.assertIs(choices.effort, Effort.THOROUGH)

    def test_change_of_the_node_changes_the_widgets(self) -> None:
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
        self.choices.volume = volume
        self.choices.quality = "fast"
        self.choices.show3D = True
        self.choices.note = "written"
        ui = self.ui
        self.assertIs(ui.volume.currentNode(), volume)
        self.assertEqual((ui.quality.currentText, ui.show3D.checked, ui.note.text), ("fast", True, "written"))

    def test_disconnected_widgets_and_node_are_independent(self) -> None:
        note, quality = qt.QLineEdit(), qt.QComboBox()
        tag = self.choices.connectParametersToGui({"note": note, "quality": quality})
        self.choices.disconnectGui(tag)
        note.text = "panel"
        self.choices.quality = "fast"
        self.assertEqual((self.choices.note, quality.currentText), ("", "accurate"))

    def test_second_connection_of_a_combo_box_sets_its_parameter_to_the_first_choice(self) -> None:
        self.choices.disconnectGui(self.choices.connectGui(self.ui))
        self.choices.quality = "fast"
        _Logic().choices().connectGui(self.ui)
        self.assertEqual(self.choices.quality, "accurate")

    def test_unsuitable_widgets_and_unknown_parameters_are_refused(self) -> None:
        for widget, name in (
            (qt.QLabel(), "note"),
            (ctk.ctkComboBox(), "quality"),
            (qt.QSpinBox(), "rate"),
            (ctk.ctkCollapsibleButton(), "show3D"),
        ):
            with self.subTest(name), self.assertRaisesRegex(RuntimeError, "Unable to create GUI connector"):
                self.choices.connectParametersToGui({name: widget})
        with self.assertRaisesRegex(RuntimeError, "Choice annotation"):
            self.choices.connectParametersToGui({"note": qt.QComboBox()})
        with self.assertRaisesRegex(ValueError, "Cannot find a param"):
            self.choices.connectParametersToGui({"nothing": qt.QLineEdit()})
