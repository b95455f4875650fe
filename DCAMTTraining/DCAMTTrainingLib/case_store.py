"""The case table in the scene: its rows as text in the parameter node, its nodes as references of that node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .case_rows import CaseRow, SceneScan, rows_from_json, rows_to_json

_CASES = "cases"
_ROLES = ("DCAMT.caseVolume", "DCAMT.caseSegmentation")


def save_rows(node: Any, rows: Sequence[CaseRow]) -> None:
    """Keep the rows with a vtkMRMLScriptedModuleNode. References, unlike IDs, survive a scene's coming into another."""
    changing = node.StartModify()
    try:
        for role in _ROLES:
            node.RemoveNodeReferenceIDs(role)
        for row in rows:
            if isinstance(row.source, SceneScan):
                node.AddNodeReferenceID(_ROLES[0], row.source.volume)
                # A reference must be there for each row, so that they can be told apart by their place.
                node.AddNodeReferenceID(_ROLES[1], row.source.segmentation or row.source.volume)
        node.SetParameter(_CASES, rows_to_json(rows))
    finally:
        node.EndModify(changing)


def load_rows(node: Any) -> list[CaseRow]:
    """The rows that `save_rows` kept; none if there are none, or they cannot be read."""
    text = node.GetParameter(_CASES)
    if not text:
        return []
    try:
        listed = json.loads(text)
        place = 0
        for data in listed:
            source = data["source"]
            if "volume" in source:
                source["volume"] = node.GetNthNodeReferenceID(_ROLES[0], place) or source["volume"]
                if source["segmentation"]:
                    source["segmentation"] = node.GetNthNodeReferenceID(_ROLES[1], place) or source["segmentation"]
                place += 1
        return rows_from_json(json.dumps(listed))
    except (ValueError, TypeError, KeyError):
        return []
