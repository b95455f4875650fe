"""Define the object that `slicer.app.coreIOManager()` returns: it loads and saves nodes and scenes."""

from __future__ import annotations

import os
from typing import Any

import slicer

# The node class of each file type that `_load` reads through a storage node.
_NODE_CLASSES = {
    "ModelFile": "vtkMRMLModelNode",
    "TransformFile": "vtkMRMLLinearTransformNode",
    "TableFile": "vtkMRMLTableNode",
    "TextFile": "vtkMRMLTextNode",
    "ColorTableFile": "vtkMRMLColorTableNode",
}
# The file type of each ending of a file name. A file with another ending counts as a volume.
_FILE_TYPES = {
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".obj": "ModelFile",
    ".ply": "ModelFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
    ".ctbl": "ColorTableFile",
}


class IOManager:
    def __init__(self, application_logic: Any) -> None:
        self._application_logic = application_logic

    def fileType(self, fileName: Any) -> str:
        name = str(fileName).lower()
        endings = [ending for ending in _FILE_TYPES if name.endswith(ending)]
        return _FILE_TYPES[max(endings, key=len)] if endings else "VolumeFile"

    def fileWriterFileType(self, node: Any) -> str:
        return "NodeFile"

    def fileWriterExtensions(self, node: Any) -> tuple[str, ...]:
        """Return the file formats that a node can be saved in, such as "NRRD (.nrrd)"."""
        types = _new_storage_node(node).GetSupportedWriteFileTypes()
        return tuple(types.GetValue(index) for index in range(types.GetNumberOfValues()))

    def extractKnownExtension(self, fileName: Any, node: Any) -> str:
        known = [
            slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString(kind)
            for kind in self.fileWriterExtensions(node)
        ]
        endings = [ending for ending in known if str(fileName).lower().endswith(ending)]
        return max(endings, key=len) if endings else "." + str(fileName).rpartition(".")[2]

    def loadNodes(self, fileType: str, properties: dict[str, Any], nodes: Any, messages: Any = None) -> bool:
        path = properties["fileName"]
        if not os.path.exists(path):
            return False
        if fileType == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear", False)))
        loaded = self._load(fileType, path, properties)
        if loaded is None:
            return False
        nodes.AddItem(loaded)
        return True

    def saveNodes(self, fileType: str, properties: dict[str, Any], messages: Any = None) -> bool:
        path = str(properties["fileName"])
        if fileType == "SceneFile":
            return self._save_scene(path)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        storage = node.GetStorageNode()
        if storage is None:
            node.AddDefaultStorageNode(path)
            storage = node.GetStorageNode()
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    def exportNodes(
        self, nodeIDs: Any, fileNames: Any, properties: dict[str, Any], hardenTransform: bool, messages: Any = None
    ) -> bool:
        """Write nodes to files and leave the scene as it is; refuse to harden a transform (NotImplementedError)."""
        for node_id, path in zip(nodeIDs, fileNames, strict=True):
            node = slicer.mrmlScene.GetNodeByID(node_id)
            storage = _new_storage_node(node)
            storage.SetFileName(str(path))
            storage.SetUseCompression(int(properties.get("useCompression", 1)))
            if hardenTransform and node.GetParentTransformNode() is not None:
                raise NotImplementedError("the harness does not export in world coordinates")
            if not storage.WriteData(node):
                return False
        return True

    def _load(self, fileType: str, path: str, properties: dict[str, Any]) -> Any:
        scene, name = slicer.mrmlScene, properties.get("name", "")
        if fileType == "VolumeFile":
            logic = slicer.modules.volumes.logic()
            options = int(bool(properties.get("labelmap"))) + 2 * int(bool(properties.get("center")))
            options += 4 * int(bool(properties.get("singleFile")))
            volume = logic.AddArchetypeVolume(path, name or _stem(path), options)
            if volume is not None and properties.get("show", True):
                self._show(volume)
            return volume
        if fileType == "SegmentationFile":
            logic = slicer.modules.segmentations.logic()
            auto_opacities = bool(properties.get("autoOpacities", True))
            return logic.LoadSegmentationFromFile(path, auto_opacities, name or _stem(path))
        if fileType == "MarkupsFile":
            node_id = slicer.modules.markups.logic().LoadMarkups(path, name or _stem(path))
            return scene.GetNodeByID(node_id) if node_id else None
        node = scene.AddNewNodeByClass(_NODE_CLASSES[fileType], name or _stem(path))
        node.AddDefaultStorageNode(path)
        if not node.GetStorageNode().ReadData(node):
            scene.RemoveNode(node)
            return None
        return node

    def _show(self, volume: Any) -> None:
        selection = self._application_logic.GetSelectionNode()
        if volume.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(volume.GetID())
        else:
            selection.SetActiveVolumeID(volume.GetID())
        self._application_logic.PropagateVolumeSelection()

    def _load_scene(self, path: str, clear: bool) -> bool:
        scene = slicer.mrmlScene
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def _save_scene(self, path: str) -> bool:
        scene = slicer.mrmlScene
        if path.lower().endswith(".mrb"):
            return bool(scene.WriteToMRB(path, None))
        if path.lower().endswith(".mrml"):
            scene.SetURL(path)
            scene.SetRootDirectory(os.path.dirname(path))
            return bool(scene.Commit(path))
        return bool(self._application_logic.SaveSceneToSlicerDataBundleDirectory(path, None))


def _new_storage_node(node: Any) -> Any:
    storage = node.CreateDefaultStorageNode()
    if storage is None:
        raise ValueError(f"{node.GetName()}: a {node.GetClassName()} has no default storage node")
    storage.UnRegister(None)
    # A volume's storage node finds its file formats through the scene.
    storage.SetScene(slicer.mrmlScene)
    return storage


def _stem(path: str) -> str:
    name = os.path.basename(path)
    for ending in sorted((*_FILE_TYPES, ".nrrd", ".nii.gz", ".nii", ".nhdr", ".mha"), key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
