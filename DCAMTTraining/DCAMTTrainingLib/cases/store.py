"""The case table in the scene: its rows as text in the parameter node, its nodes as references of that node."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

from .rows import CaseRow, SceneScan, rows_of, rows_to_json

_CASES = "cases"
_ROLES = ("DCAMT.caseVolume", "DCAMT.caseSegmentation")


SLICE = 1000
"""Rows that are made text of between two turns of the event loop."""


def save_rows(node: Any, rows: Sequence[CaseRow]) -> None:
    """Keep the rows with a vtkMRMLScriptedModuleNode. References, unlike IDs, survive a scene's coming into another."""
    for _step in saving_rows(node, rows):
        pass


def saving_rows(node: Any, rows: Sequence[CaseRow]) -> Generator[None, None, None]:
    """`save_rows` in steps; the node changes in the last one."""
    texts = []
    for start in range(0, len(rows), SLICE):
        texts.append(rows_to_json(rows[start : start + SLICE])[1:-1])
        yield
    changing = node.StartModify()
    try:
        for role in _ROLES:
            node.RemoveNodeReferenceIDs(role)
        for row in rows:
            if isinstance(row.source, SceneScan):
                node.AddNodeReferenceID(_ROLES[0], row.source.volume)
                # A reference must be there for each row, so that they can be told apart by their place.
                node.AddNodeReferenceID(_ROLES[1], row.source.segmentation or row.source.volume)
        node.SetParameter(_CASES, f"[{','.join(texts)}]")
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
        return rows_of(listed)
    except (ValueError, TypeError, KeyError):
        return []
