"""Test the segmentation module."""

from __future__ import annotations

import csv
import doctest
import gc
import hashlib
import tempfile
import unittest
import weakref
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import numpy as np
import slicer
from DCAMTSegmentationLib import review
from DCAMTSegmentationLib.doubt_map import mark_map
from engine_case import ROOT
from scene_nodes import add_scan
from segmentation_case import SegmentationCase
from slicer_harness import click, close_scene, in_real_slicer, open_module, process_events, start_afresh


class ClosedModuleTest(SegmentationCase):
    def test_closing_the_module_frees_its_parts(self) -> None:
        widget = self.module.widget
        left = [weakref.ref(part) for part in (widget, widget.logic, widget.segmentationPanel, widget.logic._worker)]
        del widget
        self.module.close()
        self.ui = self.logic = None
        process_events()
        gc.collect()
        self.assertEqual([part() for part in left if part() is not None], [])


class PanelConnectionTest(SegmentationCase):
    def test_reloaded_module_works_after_the_scene_was_closed(self) -> None:
        slicer.util.reloadScriptedModule("DCAMTSegmentation")
        close_scene()
        volume = add_scan()
        process_events()
        self.assertIs(self.module.logic.getParameterNode().inputVolume, volume)
        self.assertTrue(self.module.ui.applyButton.enabled)

    def test_closed_panel_ignores_a_click_on_apply(self) -> None:
        self.prepare(add_scan())
        self.module.widget.segmentationPanel.close()
        self.assertTrue(self.ui.applyButton.enabled)
        with mock.patch.object(self.logic, "apply") as apply:
            click(self.ui.applyButton)
        apply.assert_not_called()

    def test_segmentation_starts_even_if_the_module_was_left_during_the_installation_of_packages(self) -> None:
        volume = add_scan()
        self.prepare(volume)
        panel = self.module.widget.segmentationPanel
        with (
            mock.patch.object(self.logic, "ensurePackages", side_effect=panel.exit),
            mock.patch.object(self.logic, "apply") as apply,
        ):
            click(self.ui.applyButton)
        (settings, *_), _ = apply.call_args
        self.assertIs(settings.inputVolume, volume)
        self.assertTrue(self.ui.statusLabel.text.startswith("Starting"))


class ModuleTest(SegmentationCase):
    def test_module_has_title_help_and_icon(self) -> None:
        module = slicer.modules.dcamtsegmentation
        self.assertEqual(module.title, "DCAMT Segmentation")
        self.assertEqual(list(module.categories), ["Segmentation"])
        for text in ("Apply", "Nothing leaves this computer", "research use only", "https://github.com/"):
            self.assertIn(text, module.helpText)
        self.assertIn("e0352358", module.acknowledgementText)
        self.assertFalse(module.icon.isNull())

    def test_all_parameters_except_model_and_further_channels_are_bound_to_widgets(self) -> None:
        named = {
            widget.property("SlicerParameterName"): name
            for name, widget in vars(self.ui).items()
            if hasattr(widget, "property") and widget.property("SlicerParameterName")
        }
        parameters = set(type(self.settings).allParameters)
        # The panel's own code connects the list of models and the selectors of the further channels.
        self.assertEqual(set(named), parameters - {"model", "channelVolumes"})

    def test_controls_have_tooltips(self) -> None:
        silent = [
            name
            for name, widget in vars(self.ui).items()
            if name.endswith(("Button", "Selector", "ComboBox", "CheckBox"))
            and "Collapsible" not in name
            and not widget.toolTip
        ]
        self.assertEqual(silent, [])

    def test_ui_file_lists_its_custom_classes_and_their_headers(self) -> None:
        tree = ElementTree.parse(ROOT / "DCAMTSegmentation" / "Resources" / "UI" / "DCAMTSegmentation.ui").getroot()
        headers = {item.findtext("class"): item.findtext("header") for item in tree.iter("customwidget")}
        used = {item.get("class") for item in tree.iter("widget")}
        custom = {name for name in used if name and name.startswith(("q", "ctk"))}
        self.assertEqual(custom, set(headers))
        self.assertTrue(all(header == f"{name}.h" for name, header in headers.items()))
        top = tree.find("widget")
        assert top is not None
        self.assertEqual(top.get("class"), "qMRMLWidget")

    def test_opened_module_chooses_a_scan_instead_of_a_map_of_doubt(self) -> None:
        mark_map(add_scan("map"))
        volume = add_scan()
        self.module.close()
        slicer.mrmlScene.RemoveNode(self.settings.parameterNode)
        self.module = open_module("DCAMTSegmentation")
        self.addCleanup(self.module.close)
        self.assertEqual(self.module.ui.inputSelector.currentNode(), volume)


class SampleScanTest(unittest.TestCase):
    def setUp(self) -> None:
        start_afresh()
        self.module = open_module("DCAMTSegmentation")
        self.addCleanup(self.module.close)

    def test_sample_scan_is_registered_and_loads(self) -> None:
        if not in_real_slicer():
            slicer.app.startupCompleted.emit()
        import SampleData

        volume = SampleData.SampleDataLogic().downloadSample("LGEHeartPhantom")
        volume = volume[0] if isinstance(volume, (list, tuple)) else volume
        self.assertEqual(volume.GetName(), "LGEHeartPhantom")
        self.assertEqual(volume.GetImageData().GetDimensions(), (190, 144, 88))
        np.testing.assert_allclose(volume.GetSpacing(), 0.625)

    def test_checksum_of_the_sample_scan_is_correct(self) -> None:
        from DCAMTSegmentationLib.sample_scan import CHECKSUM, sample_path

        self.assertEqual(CHECKSUM, f"SHA256:{hashlib.sha256(sample_path().read_bytes()).hexdigest()}")


class ScriptTest(SegmentationCase):
    def test_docstring_example_can_segment_a_folder(self) -> None:
        import DCAMTSegmentation

        with tempfile.TemporaryDirectory() as folder:
            scans, results = Path(folder, "scans"), Path(folder, "results")
            scans.mkdir()
            results.mkdir()
            for seed, name in enumerate(("one", "two")):
                volume = add_scan(name, seed=seed)
                slicer.util.saveNode(volume, str(scans / f"{name}.nrrd"))
                slicer.mrmlScene.RemoveNode(volume)
            text = DCAMTSegmentation.DCAMTSegmentationLogic.__doc__ or ""
            text = text.replace("/data/scans", str(scans)).replace("/data/results", str(results))
            text = text.replace('quality="accurate"', 'model="tiny", quality="accurate"')
            known: dict[str, Any] = {"slicer": slicer}
            test = doctest.DocTestParser().get_doctest(text, known, "script", None, None)
            self.assertGreater(len(test.examples), 4)
            # Without `out`, doctest reads `sys.stdout.encoding`, which is missing in Slicer.
            report: list[str] = []
            failed, _tried = doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
            self.assertEqual(failed, 0, "".join(report))
            for name in ("one", "two"):
                with open(results / f"{name}.csv", encoding="utf-8", newline="") as file:
                    (row,) = csv.DictReader(file)
                self.assertEqual(row["scan"], name)
                loaded = slicer.util.loadSegmentation(str(results / f"{name}.seg.nrrd"))
                self.assertEqual(loaded.GetSegmentation().GetNthSegment(0).GetName(), "Left atrium")

    def test_unknown_model_is_refused(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "no such model file"):
            self.logic.process(add_scan(), model="nowhere")

    def test_model_file_may_be_given_as_text_or_as_a_path(self) -> None:
        volume, file = add_scan(), self.home / "models" / "tiny.dcamt"
        for model in (file, str(file)):
            segmentation = self.logic.process(volume, model=model)
            self.assertEqual(review.model_title(segmentation), str(file))

    def test_second_segmentation_at_the_same_time_is_refused(self) -> None:
        self.logic.segment(add_scan(), model="tiny")
        with self.assertRaisesRegex(RuntimeError, "is running"):
            self.logic.segment(add_scan("other"), model="tiny")
        self.logic.cancel()
