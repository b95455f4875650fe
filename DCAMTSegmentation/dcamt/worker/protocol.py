"""Write and parse the lines of JSON that an application and its worker process exchange.

A request is a line of JSON on the worker's stdin; an event is a line of JSON on its stdout.

The worker does not answer a `CancelRequest` or a `KeepFilesRequest`. It answers any other request with events of the
same `id`: any number of `WorkerProgress` and `WorkerNote`, then exactly one of `ScanSegmented`, `SegmentsMeasured`,
`WallMeasured`, `ReportWritten` or `RequestFailed`. The worker's first event is `WorkerReady` or, if it cannot start,
`RequestFailed` without an `id`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Region
from ..io.json_lines import json_line, plain
from ..io.typed_json import build, parse_json, value_of
from ..machine import DEVICES
from ..recipe import QUALITIES
from .events import WorkerEvent
from .requests import (
    VERSION,
    CancelRequest,
    ControlRequest,
    KeepFilesRequest,
    Request,
    SegmentRequest,
)

_REQUESTS: dict[str, type[Request]] = {request.kind: request for request in typing.get_args(Request)}
_EVENTS: dict[str, type[WorkerEvent]] = {event.kind: event for event in typing.get_args(WorkerEvent)}


def request_line(request: Request) -> str:
    """Return a request as a line of JSON. Raises ValueError if an affine contains NaN or infinity.

    >>> request_line(CancelRequest("1"))
    '{"request": "cancel", "protocol": 4, "id": "1"}'
    """
    return json.dumps({"request": request.kind, "protocol": VERSION, **_fields(request)}, allow_nan=False)


def worker_event_line(event: WorkerEvent) -> str:
    """Return an event as a line of JSON."""
    return json_line(event.kind, _fields(event))


def parse_request(line: str) -> Request:
    """Return the request in a line.

    Raises:
        InputError: the line is not a request of this protocol, a key is missing or unknown, or a value cannot be used.
    """
    try:
        data = parse_json(line)
        kind, version = data.pop("request"), data.pop("protocol")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the request cannot be read ({type(error).__name__}: {error})") from error
    if value_of(version, int, None, "request.protocol") != VERSION:
        what = f"Slicer and DCAMT's background process have different protocols ({version} and {VERSION})"
        raise InputError(what, remedy="Restart Slicer.")
    if not isinstance(kind, str) or kind not in _REQUESTS:
        raise InputError(f"the request '{kind}' is unknown")
    request: Request = build(_REQUESTS[kind], data, None, "request")
    for where, value in _values(request, "request"):
        _check_value(where, value)
    if isinstance(request, SegmentRequest):
        _check_choice("device", request.device, DEVICES)
        _check_choice("quality", request.quality, QUALITIES)
        if request.region is not None:
            request = dataclasses.replace(request, region=_checked_region(request.region))
    return request


def _values(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield each value of a request with the dotted name of its field."""
    if isinstance(value, tuple):
        for item in value:
            yield from _values(item, where)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _values(getattr(value, field.name), f"{where}.{field.name}")
    else:
        yield where, value


def _checked_region(region: Region) -> Region:
    """Return `region`, with `low` and `high` swapped along each axis on which `low` is larger.

    Raises:
        InputError: the region encloses no volume, or `to_unit` is not an invertible affine.
    """
    if region.to_unit is not None:
        if [len(row) for row in region.to_unit] != [4] * 4:
            raise InputError("'request.region.to_unit' must hold 4 x 4 numbers")
        if np.linalg.matrix_rank(np.array(region.to_unit)[:3, :3]) < 3:
            raise InputError("'request.region.to_unit' must be invertible")
    corners = zip(region.low, region.high, strict=True)
    parsed = Region.parse(",".join(repr(number) for pair in corners for number in pair))
    return dataclasses.replace(parsed, to_unit=region.to_unit)


def parse_worker_event(data: Mapping[str, Any]) -> WorkerEvent:
    """Return the event in a parsed line of JSON.

    Raises:
        InputError: the line is not an event of this protocol, a key is missing or unknown, or a value has the wrong
            type.
    """
    fields = dict(data)
    kind = fields.pop("event", None)
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise InputError(f"the event '{kind}' is unknown")
    rows = fields.get("measurements")
    if isinstance(rows, list):
        # In JSON, null stands for NaN, such as the sphericity of an empty segment.
        fields["measurements"] = [
            {k: math.nan if v is None else v for k, v in row.items()} if isinstance(row, dict) else row for row in rows
        ]
    event: WorkerEvent = build(_EVENTS[kind], fields, None, "event")
    return event


def parse_control(line: str) -> ControlRequest | None:
    """Return the request in a line if it takes effect at once (`ControlRequest`); otherwise None."""
    if not any(f'"{kind}"' in line for kind in (CancelRequest.kind, KeepFilesRequest.kind)):
        return None
    try:
        request = parse_request(line)
    except InputError:
        return None
    return request if isinstance(request, ControlRequest) else None


def request_id(line: str) -> str | None:
    """Return the `id` in a line that cannot be parsed as a request; None if the line has no `id`."""
    try:
        value = parse_json(line)["id"]
    except (KeyError, TypeError, ValueError):
        return None
    return None if value is None else str(value)


def _fields(message: Any) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: convert(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [convert(item) for item in value]
        if isinstance(value, np.ndarray):
            return value.tolist()
        return str(value) if isinstance(value, Path) else plain(value)

    fields: dict[str, Any] = convert(message)
    return fields


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"the {what} '{value}' is unknown", remedy=f"Choose one of: {', '.join(known)}.")


def _check_value(where: str, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.shape != (4, 4):
        raise InputError(f"the affine must hold 4 x 4 numbers, not {' x '.join(map(str, value.shape)) or 1}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"'{where}' must be a finite number, not {value}")
    if isinstance(value, Path) and not _is_valid(value):
        raise InputError(f"'{where}' must be a valid path, not {str(value)!a}")


def _is_valid(path: Path) -> bool:
    try:
        return b"\0" not in str(path).encode("utf-8", sys.getfilesystemencodeerrors())
    except UnicodeEncodeError:
        return False
