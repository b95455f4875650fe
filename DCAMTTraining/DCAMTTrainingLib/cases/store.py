"""Save and load the case table of a scene: rows as text in the parameter node, nodes also as node references."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

from .rows import CaseRow, SceneScan, parse_rows, rows_to_json

_CASES = "cases"
_REFERENCES = ("DCAMT.caseVolume", "DCAMT.caseSegmentation")
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
        for role in _REFERENCES:
            node.RemoveNodeReferenceIDs(role)
        for row in rows:
            if isinstance(row.source, SceneScan):
                node.AddNodeReferenceID(_REFERENCES[0], row.source.volume)
                # References are matched to rows by order, so a case without a segmentation refers to its volume twice.
                node.AddNodeReferenceID(_REFERENCES[1], row.source.segmentation or row.source.volume)
        node.SetParameter(_CASES, f"[{','.join(texts)}]")
    finally:
        node.EndModify(changing)
    # `EndModify` calls the node's observers, which takes time. After this `yield`, the caller can process events
    # before it continues.
    yield


def load_rows(node: Any) -> list[CaseRow]:
    """Return the saved rows; an empty list if nothing was saved or the text is damaged."""
    text = node.GetParameter(_CASES)
    if not text:
        return []
    try:
        listed = json.loads(text)
        place = 0
        for data in listed:
            source = data["source"]
            if "volume" in source:
                source["volume"] = node.GetNthNodeReferenceID(_REFERENCES[0], place) or source["volume"]
                if source["segmentation"]:
                    source["segmentation"] = node.GetNthNodeReferenceID(_REFERENCES[1], place) or source["segmentation"]
                place += 1
        return parse_rows(listed)
    except (ValueError, TypeError, KeyError):
        return []
