"""One event, one line of JSON, whatever happens to the process that writes it."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from pathlib import Path

import pytest
from dcamt.errors import OutputError
from dcamt.runs import events
from dcamt.runs.events import Checkpointed, Event, EventLog, Progress, Validated, to_line
from dcamt.runs.folder import RunFolder

EXAMPLES: dict[object, object] = {int: 3, float: 0.5, str: 'a "b"\nc\u2028d', bool: True, int | None: 7}


def example(kind: type) -> Event:
    """An event of a kind, its fields filled by their types."""
    hints = typing.get_type_hints(kind)
    values = {}
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if hint == dict[str, float]:
            values[item.name] = {"total": 1.5}
        elif hint == dict[str, dict[str, float]]:
            values[item.name] = {"A": {"Left atrium": 0.25}}
        else:
            values[item.name] = EXAMPLES[hint]
    return kind(**values)


@pytest.mark.parametrize("kind", typing.get_args(events.Event))
def test_every_event_is_one_line_of_json(kind: type) -> None:
    event = example(kind)
    line = to_line(event)
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"event": event.kind, **dataclasses.asdict(event)}


def test_kinds_are_told_apart() -> None:
    kinds = [kind.kind for kind in typing.get_args(events.Event)]
    assert len(set(kinds)) == len(kinds)


def test_numbers_that_are_not_finite_become_null() -> None:
    line = to_line(Progress(1, 2, {"total": math.nan, "mmd": math.inf}, -math.inf, 1 / 3, 2.0))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(line, parse_constant=refuse)
    assert found["losses"] == {"total": None, "mmd": None}
    assert found["learning_rate"] is None
    assert found["steps_per_s"] == pytest.approx(1 / 3, rel=1e-5)
    nested = json.loads(to_line(Validated(1, {"A": {"x": math.nan, "y": 1.0}}, 0.0)), parse_constant=refuse)
    assert nested["dice"] == {"A": {"x": None, "y": 1.0}}


def test_log_goes_to_the_file_and_to_the_listeners(tmp_path: Path) -> None:
    heard: list[Event] = []
    run = RunFolder(tmp_path)
    log = EventLog(run.events, [heard.append])
    for step in range(3):
        log(Checkpointed(step))
    assert heard == [Checkpointed(0), Checkpointed(1), Checkpointed(2)]
    kept = run.last_events()
    assert [(event["event"], event["step"]) for event in kept] == [("checkpoint", step) for step in range(3)]
    assert all(isinstance(event["time"], float) for event in kept)
    assert kept[0]["time"] <= kept[2]["time"]


def test_no_file_is_no_fault() -> None:
    heard: list[Event] = []
    EventLog(None, [heard.append])(Checkpointed(1))
    assert heard == [Checkpointed(1)]


def test_a_line_cut_off_by_a_crash_costs_that_line_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in range(2):
        EventLog(run.events)(Checkpointed(step))
    whole = run.events.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last + 1, len(whole) - 1):
        run.events.write_bytes(whole[:length])
        assert [event["step"] for event in run.last_events()] == [0]
        log = EventLog(run.events)
        log(Checkpointed(2))
        log(Checkpointed(3))
        assert [event["step"] for event in run.last_events()] == [0, 2, 3]
    # Only the line's end was lost: the event itself was not.
    run.events.write_bytes(whole[:-1])
    EventLog(run.events)(Checkpointed(2))
    assert [event["step"] for event in run.last_events()] == [0, 1, 2]


def test_bytes_that_are_no_text_do_not_hide_the_rest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.last_events() == []
    run.events.write_bytes(b'\xff\x00\xfe\n{"event": "checkpoint", "step": 7}\n\n')
    assert run.last_events() == [{"event": "checkpoint", "step": 7}]


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.mkdir()
    with pytest.raises(OutputError, match=r"events\.jsonl: could not be written \(Is a directory\)\.$"):
        EventLog(path)(Checkpointed(1))
