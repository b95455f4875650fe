"""Read and write a run's ranking: a JSON file with its unlabelled cases, which a person may outline next."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcamt.cases.case_list import list_cases
from dcamt.errors import InputError
from dcamt.io.atomic import atomic_path
from dcamt.io.file_identity import is_same_file
from dcamt.io.typed_json import is_finite_number, parse_json
from dcamt.runs.folder import RunFolder

from .proposal import FORMER_SEGMENTATION

_KEYS = ("name", "image", "score", "place", "segmentation")


def ranked_case(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the case of a `scored` event of `dcamt rank`."""
    return {**{key: event[key] for key in _KEYS}, "empty": event.get("empty", False)}


def save_ranking(run: RunFolder, cases: Sequence[Mapping[str, Any]]) -> None:
    """Save a run's ranking.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(_file(run)) as partial:
        partial.write_text(json.dumps(cases), encoding="utf-8")


def read_ranking(run: RunFolder) -> list[dict[str, Any]]:
    """Return a run's ranking as `saved_cases` does, but with the present paths of moved files."""
    try:
        images = {case.name: str(case.image) for case in list_cases(run.cases)}
    except (InputError, OSError):
        images = {}
    return [
        _with_present_segmentation({**case, "image": images.get(case["name"], case["image"])}, run)
        for case in saved_cases(run)
    ]


def saved_cases(run: RunFolder) -> list[dict[str, Any]]:
    """Return the saved ranking of a run, without damaged cases; an empty list if the file is missing or damaged."""
    try:
        cases = parse_json(_file(run).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [case for case in cases if _is_ranked_case(case)] if isinstance(cases, list) else []


def _file(run: RunFolder) -> Path:
    return run.ranking / "ranking.json"


def _is_ranked_case(case: Any) -> bool:
    if not isinstance(case, dict) or not case.keys() >= set(_KEYS):
        return False
    texts, place = (case["name"], case["image"], case["segmentation"]), case["place"]
    is_point = isinstance(place, list) and len(place) == 3
    numbers = (case["score"], *place) if is_point else ()
    return is_point and all(isinstance(text, str) for text in texts) and all(map(is_finite_number, numbers))


def _with_present_segmentation(case: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    saved = Path(case["segmentation"])
    present = run.ranking / saved.name
    if not os.path.exists(present) or is_same_file(saved, present):
        return case
    # If a file exists at the former path, the scene's proposals from this path may belong to another run.
    former = {} if os.path.exists(saved) else {FORMER_SEGMENTATION: str(saved)}
    return {**case, "segmentation": str(present), **former}
