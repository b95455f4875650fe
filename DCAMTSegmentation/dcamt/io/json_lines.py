"""One event, one line of JSON: what commands, training runs and the worker write, and others read while it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_line(event: str, fields: Mapping[str, Any]) -> str:
    """`{"event": "progress", "step": 120, ...}` without an end of line.

    Numbers that are not finite, which JSON does not know, become null.

    >>> json_line("finished", {"trust": float("nan"), "size": (3, 4)})
    '{"event": "finished", "trust": null, "size": [3, 4]}'
    """
    return json.dumps({"event": event, **plain(fields)}, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` as JSON knows it, which has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
