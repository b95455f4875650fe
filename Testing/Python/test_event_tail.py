"""A run's events are read on as they come in, each once and whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dcamt.runs.event_tail import CHUNK, EventTail


def take(tail: EventTail) -> list[dict[str, Any]]:
    events = []
    while (event := tail.next()) is not None:
        events.append(event)
    return events


def line(step: int) -> bytes:
    return json.dumps({"event": "progress", "step": step}).encode() + b"\n"


def test_each_event_comes_once_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.next() is None  # not there yet
    path.write_bytes(line(1) + line(2)[:10])
    assert [event["step"] for event in take(tail)] == [1]
    with path.open("ab") as file:
        file.write(line(2)[10:] + line(3))
    assert [event["step"] for event in take(tail)] == [2, 3]
    assert tail.at_end
    assert tail.next() is None


def test_what_a_crash_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2)[:10] + b"\n" + b'"text"\n[1]\n{"step": 1}\n' + line(3))
    assert [event["step"] for event in take(EventTail(path))] == [1, 3]


def test_a_long_file_is_read_in_small_parts_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    count = 5 * CHUNK // len(line(10000))
    path.write_bytes(b"".join(line(10000 + step) for step in range(count)))
    tail = EventTail(path)
    tail.next()
    assert not tail.at_end
    assert [event["step"] for event in take(tail)] == list(range(10001, 10000 + count))
    assert tail.at_end


def test_from_the_end_the_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line(step) for step in range(10, 60)))
    steps = [event["step"] for event in take(EventTail(path, from_end=3 * len(line(10)) + 5))]
    assert steps == [57, 58, 59]
    assert len(take(EventTail(path, from_end=1 << 20))) == 50


def test_a_file_begun_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2))
    tail = EventTail(path)
    take(tail)
    path.write_bytes(line(7))
    assert [event["step"] for event in take(tail)] == [7]
