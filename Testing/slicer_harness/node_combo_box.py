"""Provide qMRMLNodeComboBox, which lists the scene's nodes of given types."""

from __future__ import annotations

from typing import Any, ClassVar

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from .conversion import wrap
from .observation import Observation
from .stored_property import stored


def _refresh(combo: Any) -> None:
    combo._refresh()


def _on_scene(combo: Any) -> None:
    if not combo._scene.IsBatchProcessing():
        combo._refresh()


class qMRMLSortFilterProxyModel(QtCore.QObject):
    """The filter of a node selector: holds the identifiers of the nodes to hide."""

    hiddenNodeIDs = stored("QStringList", [], lambda model: model.parent()._refresh())


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """A node selector, disabled until it has a scene.

    If no node is chosen and `noneEnabled` is False, an update of the list chooses the first node.
    """

    SIGNATURES: ClassVar[dict[str, str]] = {
        f"{name}(vtkMRMLNode*)": f"{name}(PyObject)" for name in ("currentNodeChanged", "nodeAddedByUser")
    }

    currentNodeChanged = Signal(object)
    nodeAddedByUser = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._scene: Any = None
        self._observation = Observation(self, _on_scene)
        self._rows: list[Any] = []
        self._current: Any = None
        self._base_names: dict[str, str] = {}
        self._filter = qMRMLSortFilterProxyModel(self)
        self.setEnabled(False)

    nodeTypes = stored("QStringList", [], _refresh)
    showChildNodeTypes = stored(bool, True, _refresh)
    noneEnabled = stored(bool, False, _refresh)
    noneDisplay = stored(str, "None", _refresh)
    addEnabled = stored(bool, True)
    removeEnabled = stored(bool, True)
    renameEnabled = stored(bool, False)

    def _base_name(self) -> str:
        types = self.property("nodeTypes")
        return self._base_names.get(types[0], "") if types else ""

    def _set_base_name(self, name: str) -> None:
        self._base_names = dict.fromkeys(self.property("nodeTypes"), name)

    baseName = Property(str, _base_name, _set_base_name)

    @Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        kinds = ("NodeAddedEvent", "NodeRemovedEvent", "EndBatchProcessEvent", "EndCloseEvent")
        self._observation.follow(scene, [getattr(scene, kind) for kind in kinds] if scene is not None else ())
        self.setEnabled(scene is not None)
        self._refresh()

    def mrmlScene(self) -> Any:
        return self._scene

    def currentNode(self) -> Any:
        return self._current

    @Slot(object)
    def setCurrentNode(self, node: Any) -> None:
        self._select(node if node in self._nodes() else None)

    def sortFilterProxyModel(self) -> Any:
        return wrap(self._filter)

    def nodeCount(self) -> int:
        return len(self._nodes())

    @Slot(result=object)
    def addNode(self) -> Any:
        """Create a node of the first type, as the menu entry "Create new" does; choose and return the node."""
        kind = self.property("nodeTypes")[0]
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self._base_names.get(kind, "") or node.GetNodeTagName()))
        self._scene.AddNode(node)
        self._select(node)
        self.nodeAddedByUser.emit(node)
        return node

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        kinds = self.property("nodeTypes")
        if len(kinds) == 1:
            collection = self._scene.GetNodesByClass(kinds[0])
            collection.UnRegister(None)
            nodes = [collection.GetItemAsObject(index) for index in range(collection.GetNumberOfItems())]
        else:
            nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in nodes if self._offers(node, kinds)] if nodes else []

    def _offers(self, node: Any, kinds: list[str]) -> bool:
        if node.GetHideFromEditors() or node.GetID() in self._filter.property("hiddenNodeIDs"):
            return False
        return any(
            node.IsA(kind) if self.property("showChildNodeTypes") else node.GetClassName() == kind for kind in kinds
        )

    def _refresh(self) -> None:
        """Update the rows; if the current node is no longer offered, choose another node.

        Slicer 5.12.3 chooses another node even if the list has an item "None" (`noneEnabled`).
        """
        before, rows = self._rows, self._nodes()
        if self.property("noneEnabled"):
            rows.insert(0, None)
        self._rows = rows
        current = self._current
        if current is not None and current not in rows:
            row = before.index(current) if current in before else 0
            nodes = [node for node in rows if node is not None]
            # Choose the last node that stood before `current` in the list and is still offered, or else the first node.
            current = next((node for node in reversed(before[:row]) if node in nodes), nodes[0] if nodes else None)
        elif current is None and rows and not self.property("noneEnabled"):
            current = rows[0]
        self._select(current)

    def _select(self, node: Any) -> None:
        self._show(node)
        if node is not self._current:
            self._current = node
            self.currentNodeChanged.emit(node)

    def _show(self, node: Any) -> None:
        names = [self.property("noneDisplay") if row is None else row.GetName() or "" for row in self._rows]
        if names != [self._box.itemText(index) for index in range(self._box.count())]:
            self._box.clear()
            self._box.addItems(names)
        self._box.setCurrentIndex(self._rows.index(node) if node in self._rows else -1)
