"""Results in the scene: helper nodes, folders and images in memory."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import slicer
import vtk
from DCAMTSegmentationLib import correction_marks
from DCAMTSegmentationLib.result_nodes import DOUBT_MAP, MEASUREMENTS, VOLUME
from fake_worker import PanelCase
from scene_nodes import add_scan, copy_node, draw_segment, segment_mask
from slicer_harness import Person, choose, click, close_scene, process_events_until, reload_scene
from vtk.util.numpy_support import vtk_to_numpy

RESULTS = 4


def node_names(kind: str) -> list[str]:
    return [node.GetName() for node in slicer.util.getNodesByClass(kind)]


def dcamt_folders() -> list[str]:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    names = [hierarchy.GetItemName(items.GetId(index)) for index in range(items.GetNumberOfIds())]
    return [name for name in names if name.endswith("DCAMT")]


class SceneTest(PanelCase):
    def test_helper_nodes_are_removed_with_their_result(self) -> None:
        scene, volume = slicer.mrmlScene, add_scan()
        for in_batch in (False, True):
            segmentation = self.segment(volume)
            if not self.ui.doubtCheckBox.checked:
                self.ui.doubtCheckBox.click()
            click(self.ui.nextPlaceButton)
            self.assertEqual(dcamt_folders(), ["LGE – DCAMT"])
            if in_batch:
                scene.StartState(scene.BatchProcessState)
            scene.RemoveNode(segmentation)
            if in_batch:
                scene.EndState(scene.BatchProcessState)
            self.assertEqual(node_names("vtkMRMLScalarVolumeNode"), ["LGE"])
            self.assertEqual(node_names("vtkMRMLTableNode"), [])
            self.assertEqual(node_names("vtkMRMLMarkupsFiducialNode"), [])
            process_events_until(lambda: not dcamt_folders(), "the result's folder to be removed")

    def test_result_that_is_added_again_within_a_batch_keeps_its_helper_nodes(self) -> None:
        scene, segmentation = slicer.mrmlScene, self.segment(add_scan())
        scene.StartState(scene.BatchProcessState)
        scene.RemoveNode(segmentation)
        scene.AddNode(segmentation)
        scene.EndState(scene.BatchProcessState)
        self.assertEqual(len(node_names("vtkMRMLTableNode")), 1)
        self.assertEqual(len(node_names("vtkMRMLScalarVolumeNode")), 2)  # the scan and the map of doubt

    def test_measuring_or_removing_a_copy_leaves_the_helper_nodes_of_the_original(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        rows = self.logic.measurements(segmentation)
        copy = copy_node(segmentation)
        copy.SetName("copy")
        smaller = segment_mask(copy, volume).copy()
        smaller[:8] = 0
        draw_segment(copy, volume, smaller)
        choose(self.ui.outputSelector, copy)
        click(self.ui.measureButton)
        self.wait()
        self.assertNotEqual(self.logic.measurements(copy), rows)
        self.assertEqual(self.logic.measurements(segmentation), rows)
        slicer.mrmlScene.RemoveNode(copy)
        self.assertEqual(node_names("vtkMRMLTableNode"), ["LGE measurements"])
        self.assertEqual(node_names("vtkMRMLScalarVolumeNode"), ["LGE", "LGE doubt"])

    def test_segmenting_into_a_copy_keeps_the_map_and_the_table_of_the_original(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        copy = copy_node(segmentation)
        for role in (DOUBT_MAP, MEASUREMENTS):
            self.assertIs(copy.GetNodeReference(role), segmentation.GetNodeReference(role))
        choose(self.ui.outputSelector, copy)
        choose(self.ui.qualityComboBox, "Fast: one branch")
        click(self.ui.applyButton)
        self.wait()
        self.assertIsNone(copy.GetNodeReference(DOUBT_MAP))
        self.assertIsNotNone(segmentation.GetNodeReference(DOUBT_MAP))
        tables = [node.GetNodeReference(MEASUREMENTS) for node in (segmentation, copy)]
        self.assertNotIn(None, tables)
        self.assertIsNot(*tables)

    def test_removal_of_the_table_in_a_batch_disables_the_buttons(self) -> None:
        scene, segmentation = slicer.mrmlScene, self.segment(add_scan())
        scene.StartState(scene.BatchProcessState)
        scene.RemoveNode(segmentation.GetNodeReference(MEASUREMENTS))
        scene.EndState(scene.BatchProcessState)
        for button in (self.ui.copyButton, self.ui.exportButton, self.ui.measureButton):
            self.assertFalse(button.enabled)

    def test_edit_without_an_event_is_noticed_when_the_module_is_entered(self) -> None:
        self.segment(add_scan())
        reload_scene()
        process_events_until(lambda: self.settings.outputSegmentation is not None, "the result")
        segmentation = self.settings.outputSegmentation
        self.assertNotIn("changed since the measurement", self.ui.trustLabel.text)
        self.module.panel.exit()
        image = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
        voxels = vtk_to_numpy(image.GetPointData().GetScalars())
        earlier = voxels.copy()
        # A change in place sends no event.
        voxels[np.flatnonzero(voxels)[:4]] = 0
        self.module.panel.enter()
        self.assertIn("changed since the measurement", self.ui.trustLabel.text)
        self.assertTrue(correction_marks.is_corrected(segmentation))
        voxels[:] = earlier
        self.module.panel.exit()
        self.module.panel.enter()
        self.assertNotIn("changed since the measurement", self.ui.trustLabel.text)
        self.assertFalse(correction_marks.is_corrected(segmentation))

    def test_results_of_one_scan_share_a_folder(self) -> None:
        volume = add_scan()
        self.segment(volume)
        choose(self.ui.outputSelector, None)
        self.segment(volume)
        self.assertEqual(len(node_names("vtkMRMLSegmentationNode")), 2)
        self.assertEqual(dcamt_folders(), ["LGE – DCAMT"])

    def test_segmenting_into_a_copy_removes_the_folder_of_the_removed_result(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        copy = copy_node(segmentation)
        slicer.mrmlScene.RemoveNode(segmentation)
        choose(self.ui.outputSelector, copy)
        self.assertEqual(dcamt_folders(), ["LGE – DCAMT"])  # contains the helper nodes
        self.assertIs(self.segment(volume), copy)
        self.assertEqual(dcamt_folders(), [])

    def test_panel_states_that_the_scan_of_a_result_is_missing(self) -> None:
        volume = add_scan()
        segmentation = self.segment(volume)
        slicer.mrmlScene.RemoveNode(volume)
        choose(self.ui.outputSelector, segmentation)
        self.assertEqual(self.ui.trustLabel.text, "The scan of this result is not in the scene.")

    def test_result_of_a_removed_scan_is_replaced_only_after_a_question(self) -> None:
        volume, other = add_scan("LGE"), add_scan("follow-up", seed=1)
        segmentation = self.segment(volume)
        measured = self.logic.measurements(segmentation)
        self.module.leave()
        slicer.mrmlScene.RemoveNode(volume)
        self.module.enter()
        self.assertEqual((self.settings.inputVolume, self.settings.outputSegmentation), (other, None))
        choose(self.ui.outputSelector, segmentation)
        with Person() as person:
            person.expects("“LGE segmentation” holds the result of another scan than “follow-up”. Replace", "Cancel")
            click(self.ui.applyButton)
        self.assertFalse(self.logic.isRunning())
        self.assertEqual(self.logic.measurements(segmentation), measured)
        with Person() as person:
            person.expects("Replace", "Ok")
            click(self.ui.applyButton)
            self.wait()
        self.assertIs(segmentation.GetNodeReference(VOLUME), other)

    def test_map_of_doubt_is_not_listed_as_a_volume(self) -> None:
        volume = add_scan()
        self.segment(volume)
        slicer.mrmlScene.RemoveNode(volume)
        slicer.app.processEvents()
        self.assertEqual(node_names("vtkMRMLScalarVolumeNode"), ["LGE doubt"])
        self.assertIsNone(self.ui.inputSelector.currentNode())
        self.assertEqual(self.ui.inputSelector.nodeCount(), 0)

    def test_closed_scene_leaves_at_most_one_volume_and_one_map_in_memory(self) -> None:
        images: list[tuple[str, Any]] = []
        for number in range(RESULTS):
            volume = add_scan(f"scan {number}", seed=number)
            segmentation = self.segment(volume)
            self.ui.doubtCheckBox.click()
            click(self.ui.nextPlaceButton)
            labelmap = segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
            map_node = slicer.util.getNode(f"scan {number} doubt")
            for name, image in (
                ("volume", volume.GetImageData()),
                ("map", map_node.GetImageData()),
                ("labels", labelmap),
                ("node", segmentation),
            ):
                weak = vtk.vtkWeakReference()
                weak.Set(image)
                images.append((name, weak))
        del volume, segmentation, labelmap, map_node, image
        close_scene()

        def are_images_freed() -> bool:
            gc.collect()
            kept = [name for name, weak in images if weak.Get() is not None]
            # Return whether at most one volume and one map remain: the slice views keep the last images.
            return sorted(kept) in ([], ["map"], ["volume"], ["map", "volume"])

        process_events_until(are_images_freed, "the images to be freed")
