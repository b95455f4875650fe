"""Save the case table of a scene in the parameter node, and load it."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import slicer
from dcamt.io.typed_json import parse_json

from .rows import CaseRow, SceneScan, parse_row, removed_id, rows_to_json

_CASES = "cases"
_ROLE_PREFIX = "DCAMT.caseNode."
"""Prefix of a reference's role; the saved ID of the volume or segmentation follows."""
_ORDERED_REFERENCES = ("DCAMT.caseVolume", "DCAMT.caseSegmentation")
"""Roles in scenes of older versions. The references of each role are in the order of the rows."""
MAX_TITLE = 80
"""Maximum length of the text that `title_of_unread` returns, in characters."""
ROWS_PER_STEP = 1000
"""Maximum number of rows that are formatted between two turns of the event loop."""


class SavedCases(NamedTuple):
    """The cases of a scene.

    Attributes:
        unread: parsed JSON of the cases that this version cannot read, or the whole text if it is damaged. They are
            saved again, so that they are not lost.
    """

    rows: Sequence[CaseRow] = ()
    unread: Sequence[Any] = ()


NO_CASES = SavedCases()


def save_rows(node: Any, rows: Sequence[CaseRow], unread: Sequence[Any] = ()) -> None:
    """Save the rows in a vtkMRMLScriptedModuleNode, followed by the cases that this version cannot read.

    Nodes are saved as references, too, since importing a scene updates references but not the IDs in the JSON text.
    """
    for _step in save_rows_in_steps(node, rows, unread):
        pass


def save_rows_in_steps(node: Any, rows: Sequence[CaseRow], unread: Sequence[Any] = ()) -> Generator[None, None, None]:
    """Save the rows as `save_rows` does: format them in steps, then change the node in one step."""
    texts = []
    for start in range(0, len(rows), ROWS_PER_STEP):
        texts.append(rows_to_json(rows[start : start + ROWS_PER_STEP])[1:-1])
        yield
    texts += [json.dumps(data, separators=(",", ":")) for data in unread]
    changing = node.StartModify()
    try:
        _save_references(node, rows, unread)
        node.SetParameter(_CASES, f"[{','.join(texts)}]")
    finally:
        node.EndModify(changing)
    # `EndModify` calls the node's observers, which takes time.
    yield


def load_cases(node: Any) -> SavedCases:
    """Return the saved cases.

    The row of a volume that was removed from the scene is kept, so that the user learns which scan is missing.
    """
    text = node.GetParameter(_CASES)
    if not text:
        return NO_CASES
    try:
        listed = parse_json(text)
    except ValueError:
        listed = None
    if not isinstance(listed, list):
        return SavedCases(unread=[text])
    sources = _scene_sources(listed)
    if any(node.GetNumberOfNodeReferences(role) for role in _ORDERED_REFERENCES):
        _update_ids_by_order(node, sources)
    else:
        _update_ids(node, sources)
    rows, unread = [], []
    for data in listed:
        try:
            rows.append(parse_row(data))
        except ValueError:
            unread.append(data)
    return SavedCases(rows, unread)


def mark_removed(unread: Sequence[Any], identifier: str) -> None:
    """Replace the ID of a removed node by its `removed_id` in cases that this version cannot read."""
    for source in _scene_sources(unread):
        for key in ("volume", "segmentation"):
            if source[key] == identifier:
                source[key] = removed_id(identifier)


def title_of_unread(data: Any) -> str:
    """Return name and scan of a case that this version cannot read, or the first characters of the saved text."""
    source = data.get("source") if isinstance(data, dict) else None
    name = data.get("name") if isinstance(data, dict) else None
    scan = (source.get("image") or source.get("volume")) if isinstance(source, dict) else None
    node = slicer.mrmlScene.GetNodeByID(scan) if isinstance(scan, str) else None
    parts = [name, node.GetName() if node is not None else scan]
    texts = list(dict.fromkeys(part for part in parts if isinstance(part, str) and part))
    text = ", ".join(texts) or (data if isinstance(data, str) else json.dumps(data))
    return text if len(text) <= MAX_TITLE else f"{text[: MAX_TITLE - 1]}…"


def _scene_sources(listed: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the sources that hold node IDs instead of file paths.

    The segmentation may be an empty string.
    """
    sources = [data.get("source") for data in listed if isinstance(data, dict)]
    keys = ("volume", "segmentation")
    return [
        source
        for source in sources
        if isinstance(source, dict) and all(isinstance(source.get(key), str) for key in keys)
    ]


def _save_references(node: Any, rows: Sequence[CaseRow], unread: Sequence[Any]) -> None:
    sources = [row.source for row in rows if isinstance(row.source, SceneScan)]
    identifiers = {identifier for source in sources for identifier in (source.volume, source.segmentation)}
    for source in _scene_sources(unread):
        identifiers |= {source["volume"], source["segmentation"]}
    # A removed node gets no reference, since a node imported later may get the removed node's ID.
    present = [identifier for identifier in identifiers if identifier and slicer.mrmlScene.GetNodeByID(identifier)]
    roles = {_ROLE_PREFIX + identifier: identifier for identifier in present}
    known = [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]
    for role in known:
        if role in _ORDERED_REFERENCES or (role.startswith(_ROLE_PREFIX) and role not in roles):
            node.RemoveNodeReferenceIDs(role)
    for role, identifier in roles.items():
        if node.GetNodeReferenceID(role) != identifier:
            node.SetNodeReferenceID(role, identifier)


def _update_ids(node: Any, sources: Sequence[dict[str, Any]]) -> None:
    """Replace the saved node IDs in `sources` with the present ones.

    The ID of a removed node becomes a `removed_id`, since another node may have got the saved ID.
    """
    scans = {source["volume"] for source in sources}
    for source in sources:
        volume, segmentation = source["volume"], source["segmentation"]
        source["volume"] = node.GetNodeReferenceID(_ROLE_PREFIX + volume) or removed_id(volume, scans)
        if segmentation:
            source["segmentation"] = node.GetNodeReferenceID(_ROLE_PREFIX + segmentation) or removed_id(segmentation)


def _update_ids_by_order(node: Any, sources: Sequence[dict[str, Any]]) -> None:
    """Replace the node IDs in `sources`, which an older version saved, by the present IDs.

    If a node was removed, the order no longer shows which reference belongs to which row. Then all IDs stay unchanged.
    """
    if any(node.GetNumberOfNodeReferences(role) != len(sources) for role in _ORDERED_REFERENCES):
        return
    for place, source in enumerate(sources):
        source["volume"] = node.GetNthNodeReferenceID(_ORDERED_REFERENCES[0], place)
        if source["segmentation"]:
            source["segmentation"] = node.GetNthNodeReferenceID(_ORDERED_REFERENCES[1], place)
