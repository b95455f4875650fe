"""Save and load the case table of a scene: rows as text in the parameter node, nodes also as node references."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import slicer

from .rows import CaseRow, SceneScan, parse_rows, rows_to_json

_CASES = "cases"
_REFERENCE = "DCAMT.caseNode."
"""The node that stores the rows has a reference to each volume and segmentation of the cases.

The role of such a reference is this text, followed by the volume's or segmentation's ID at the time of saving.
"""
_ORDERED_REFERENCES = ("DCAMT.caseVolume", "DCAMT.caseSegmentation")
"""Roles in scenes of older versions, whose references are matched to the rows by order."""
_REMOVED = "removed."
"""Begins the ID of a volume that was removed from the scene; no node has such an ID."""
ROWS_PER_STEP = 1000
"""Maximum number of rows that are formatted between two turns of the event loop."""


def save_rows(node: Any, rows: Sequence[CaseRow]) -> None:
    """Save the rows in a vtkMRMLScriptedModuleNode.

    Nodes are saved as references, too, since importing a scene updates references but not the IDs in the text.
    """
    for _step in save_rows_in_steps(node, rows):
        pass


def save_rows_in_steps(node: Any, rows: Sequence[CaseRow]) -> Generator[None, None, None]:
    """Save the rows as `save_rows` does: format them in steps, then change the node in one step."""
    texts = []
    for start in range(0, len(rows), ROWS_PER_STEP):
        texts.append(rows_to_json(rows[start : start + ROWS_PER_STEP])[1:-1])
        yield
    changing = node.StartModify()
    try:
        _save_references(node, rows)
        node.SetParameter(_CASES, f"[{','.join(texts)}]")
    finally:
        node.EndModify(changing)
    # `EndModify` calls the node's observers, which takes time. After this `yield`, the caller can process events
    # before it continues.
    yield


def load_rows(node: Any) -> list[CaseRow]:
    """Return the saved rows; an empty list if nothing was saved or the text is damaged.

    The row of a volume that was removed from the scene is kept, so that the user learns which scan is missing.
    """
    text = node.GetParameter(_CASES)
    if not text:
        return []
    try:
        listed = json.loads(text)
        sources = [data["source"] for data in listed if "volume" in data["source"]]
        if any(node.GetNumberOfNodeReferences(role) for role in _ORDERED_REFERENCES):
            _update_ids_by_order(node, sources)
        else:
            _update_ids(node, sources)
        return parse_rows(listed)
    except (ValueError, TypeError, KeyError):
        return []


def _save_references(node: Any, rows: Sequence[CaseRow]) -> None:
    """Replace the case references of `node` with references to the nodes of `rows`."""
    sources = [row.source for row in rows if isinstance(row.source, SceneScan)]
    identifiers = {identifier for source in sources for identifier in (source.volume, source.segmentation)}
    # A removed node gets no reference, since a node imported later may get the removed node's ID.
    present = [identifier for identifier in identifiers if identifier and slicer.mrmlScene.GetNodeByID(identifier)]
    roles = {_REFERENCE + identifier: identifier for identifier in present}
    known = [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]
    for role in known:
        if role in _ORDERED_REFERENCES or (role.startswith(_REFERENCE) and role not in roles):
            node.RemoveNodeReferenceIDs(role)
    for role, identifier in roles.items():
        if node.GetNodeReferenceID(role) != identifier:
            node.SetNodeReferenceID(role, identifier)


def _update_ids(node: Any, sources: Sequence[dict[str, Any]]) -> None:
    """Replace the saved node IDs in `sources` with the present ones.

    The reference to a removed node is gone, and another node may have got its ID. Therefore a removed volume gets an
    ID that no node has, and a removed segmentation an empty one.
    """
    for source in sources:
        volume, segmentation = source["volume"], source["segmentation"]
        source["volume"] = node.GetNodeReferenceID(_REFERENCE + volume) or _REMOVED + volume.removeprefix(_REMOVED)
        if segmentation:
            source["segmentation"] = node.GetNodeReferenceID(_REFERENCE + segmentation) or ""


def _update_ids_by_order(node: Any, sources: Sequence[dict[str, Any]]) -> None:
    """Replace the node IDs that an older version saved in `sources` with the present ones.

    If a node was removed, the order no longer shows which reference belongs to which row. Then all IDs stay unchanged.
    """
    if any(node.GetNumberOfNodeReferences(role) != len(sources) for role in _ORDERED_REFERENCES):
        return
    for place, source in enumerate(sources):
        source["volume"] = node.GetNthNodeReferenceID(_ORDERED_REFERENCES[0], place)
        if source["segmentation"]:
            source["segmentation"] = node.GetNthNodeReferenceID(_ORDERED_REFERENCES[1], place)
