"""Check DICOM objects against the tables of the standard."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from pydicom.dataset import Dataset

CONTENT_OF = {
    "CONTAINER": "ContinuityOfContent",
    "CODE": "ConceptCodeSequence",
    "NUM": "MeasuredValueSequence",
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "IMAGE": "ReferencedSOPSequence",
    "COMPOSITE": "ReferencedSOPSequence",
}
"""The attribute that an item of a structured report must have, by the item's value type (DICOM PS3.3 C.17.3)."""


def missing_attributes(dataset: Dataset) -> list[str]:
    """Describe the required attributes that are missing or wrongly empty.

    Only the mandatory modules of the SOP class are checked. Attributes of types 1 and 2 (DICOM PS3.3) are required;
    attributes of type 2 may be empty. Conditional attributes are not checked. In a structured report, the content items
    are checked, too. `highdicom` ships the standard's tables.
    """
    iods, modules, attributes = map(_table, ("sop_class_iod_map", "iod_module_map", "module_attribute_map"))
    faults = _missing_in_content(dataset) if "ContentSequence" in dataset else []
    for module in modules[iods[str(dataset.SOPClassUID)]]:
        if module["usage"] != "M" or module["key"] == "sr-document-content":
            continue
        for attribute in attributes[module["key"]]:
            path, name = attribute["path"], attribute["keyword"]
            if attribute["type"] not in ("1", "2") or name == "PlanePositionSlideSequence":  # for microscopy only
                continue
            groups = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
            if path in ([group] for group in groups):  # either sequence may hold the functional group
                holders = [holder for group in groups for holder in _holders(dataset, [group])]
                holders = [] if any(name in holder for holder in holders) else holders[:1]
            else:
                holders = _holders(dataset, path)
            for holder in holders:
                where = ".".join([module["key"], *path, name])
                if name not in holder:
                    faults.append(f"{where} is missing")
                elif attribute["type"] == "1" and holder[name].is_empty:
                    faults.append(f"{where} is empty")
    return sorted(set(faults))


@functools.cache
def _table(name: str) -> Any:
    return json.loads((resources.files("highdicom") / "_standard" / f"{name}.json").read_text(encoding="utf-8"))


def _missing_in_content(item: Dataset, depth: int = 0) -> list[str]:
    name = CONTENT_OF[item.ValueType]
    faults = [] if name in item and not item[name].is_empty else [f"{item.ValueType} without {name}"]
    if "ConceptNameCodeSequence" not in item and item.ValueType not in ("IMAGE", "COMPOSITE"):
        faults.append(f"{item.ValueType} without a name")
    if depth and "RelationshipType" not in item:
        faults.append(f"{item.ValueType} without RelationshipType")
    return [
        *faults,
        *(fault for child in item.get("ContentSequence", []) for fault in _missing_in_content(child, depth + 1)),
    ]


def _holders(dataset: Dataset, path: list[str]) -> list[Dataset]:
    """Return all items at the end of a path of sequences."""
    holders = [dataset]
    for name in path:
        holders = [item for holder in holders if name in holder for item in holder[name].value]
    return holders
