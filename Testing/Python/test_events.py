"""Events of a run are written to a file and read from the file while it grows; truncated lines are skipped."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from pathlib import Path

import pytest
from dcamt.errors import OutputError
from dcamt.runs import events
from dcamt.runs.events import (
    CHUNK,
    CasesLoading,
    CheckpointSaved,
    EventLog,
    EventTail,
    RunEvent,
    RunFinished,
    RunPaused,
    RunStarted,
    TrainingProgress,
    ValidationScored,
    parse_run_event,
    run_event_line,
)
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import run_lock
from dcamt.runs.state import PAUSED, RUNNING, STOPPED, TAIL, run_state

TEXT = 'a "b"\nc\u2028d'
JSON_KEYS = {"iteration": "step", "iterations": "of", "loaded": "step", "cases": "of"}
EXAMPLES: dict[object, object] = {int: 3, float: 0.5, str: TEXT, bool: True, int | None: 7, float | None: 0.25}


def example_event(event_class: type) -> RunEvent:
    hints = typing.get_type_hints(event_class)
    values = {}
    for item in dataclasses.fields(event_class):
        hint = hints[item.name]
        if hint == dict[str, float]:
            values[item.name] = {"total": 1.5}
        elif hint == dict[str, dict[str, float]]:
            values[item.name] = {"A": {"Left atrium": 0.25}}
        else:
            values[item.name] = EXAMPLES[hint]
    return event_class(**values)


@pytest.mark.parametrize("event_class", typing.get_args(events.RunEvent))
def test_every_event_is_one_line_of_json_and_is_parsed_back(event_class: type) -> None:
    event = example_event(event_class)
    line = run_event_line(event)
    assert len(line.splitlines()) == 1
    fields = {JSON_KEYS.get(name, name): value for name, value in dataclasses.asdict(event).items()}
    assert json.loads(line) == {"event": event.kind, **fields}
    assert parse_run_event(json.loads(line)) == event
    untimed = dataclasses.replace(event, time=None)
    assert "time" not in json.loads(run_event_line(untimed))
    assert parse_run_event(json.loads(run_event_line(untimed))) == untimed


def test_parsing_tolerates_unknown_events_and_absent_fields_and_wrong_types() -> None:
    assert parse_run_event({"event": "dance", "step": 1}) is None
    assert parse_run_event({"event": "checkpoint", "step": 7, "more": "x"}) == CheckpointSaved(7)
    incomplete = {"event": "progress", "step": 1, "of": 2, "losses": {"total": None, "mmd": 0.5}, "learning_rate": 0.1}
    event = parse_run_event(incomplete)
    assert event == TrainingProgress(1, 2, {"mmd": 0.5}, 0.1, None, None, None)
    wrong_types = parse_run_event({"event": "validation", "step": "3", "dice": {"A": None, "B": {"x": "y", "z": 1}}})
    assert isinstance(wrong_types, ValidationScored)
    assert (wrong_types.iteration, wrong_types.dice) == (0, {"A": {}, "B": {"z": 1.0}})
    too_large = parse_run_event({"event": "finished", "step": 10**400, "seconds": 10**400})
    assert isinstance(too_large, RunFinished)
    assert too_large.iteration == 0
    assert math.isnan(too_large.seconds)


def test_numbers_that_are_not_finite_become_null() -> None:
    line = run_event_line(TrainingProgress(1, 2, {"total": math.nan, "mmd": math.inf}, -math.inf, 1 / 3, 2.0))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    values = json.loads(line, parse_constant=refuse)
    assert values["losses"] == {"total": None, "mmd": None}
    assert values["learning_rate"] is None
    assert values["steps_per_s"] == pytest.approx(1 / 3, rel=1e-5)
    nested = json.loads(
        run_event_line(ValidationScored(1, {"A": {"x": math.nan, "y": 1.0}}, 0.0)), parse_constant=refuse
    )
    assert nested["dice"] == {"A": {"x": None, "y": 1.0}}


def test_event_is_written_to_the_file_and_sent_to_the_listeners(tmp_path: Path) -> None:
    received: list[RunEvent] = []
    run = RunFolder(tmp_path)
    log = EventLog(run.events, [received.append])
    for step in range(3):
        log(CheckpointSaved(step))
    assert received == [CheckpointSaved(0), CheckpointSaved(1), CheckpointSaved(2)]
    kept = run.read_events()
    assert [(event.kind, event.iteration) for event in kept] == [("checkpoint", step) for step in range(3)]
    assert all(isinstance(event.time, float) for event in kept)
    assert kept[0].time <= kept[2].time


def test_log_without_a_file_sends_events_to_the_listeners() -> None:
    received: list[RunEvent] = []
    EventLog(None, [received.append])(CheckpointSaved(1))
    assert received == [CheckpointSaved(1)]


def test_truncated_line_does_not_affect_later_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in range(2):
        EventLog(run.events)(CheckpointSaved(step))
    whole = run.events.read_bytes()
    start_of_last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start_of_last + 1, len(whole) - 1):
        run.events.write_bytes(whole[:length])
        assert [event.iteration for event in run.read_events()] == [0]
        log = EventLog(run.events)
        log(CheckpointSaved(2))
        log(CheckpointSaved(3))
        assert [event.iteration for event in run.read_events()] == [0, 2, 3]
    # Only the line break is missing, so the event is complete.
    run.events.write_bytes(whole[:-1])
    EventLog(run.events)(CheckpointSaved(2))
    assert [event.iteration for event in run.read_events()] == [0, 1, 2]


def test_bytes_that_are_not_utf8_do_not_hide_other_events(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.read_events() == []
    run.events.write_bytes(b'\xff\x00\xfe\n{"event": "checkpoint", "step": 7}\n\n')
    assert run.read_events() == [CheckpointSaved(7)]


def test_unwritable_events_file_causes_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.mkdir()
    with pytest.raises(OutputError, match=r"events\.jsonl: is a folder\. Give a file name\.$"):
        EventLog(path)(CheckpointSaved(1))


def take_all(tail: EventTail) -> list[RunEvent]:
    taken = []
    while (event := tail.next()) is not None:
        taken.append(event)
    return taken


def line(step: int) -> bytes:
    return json.dumps({"event": "progress", "step": step}).encode() + b"\n"


def test_tail_returns_each_event_once_and_waits_for_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.next() is None  # the file does not exist yet
    path.write_bytes(line(1) + line(2)[:10])
    assert [event.iteration for event in take_all(tail)] == [1]
    with path.open("ab") as file:
        file.write(line(2)[10:] + line(3))
    assert [event.iteration for event in take_all(tail)] == [2, 3]
    assert tail.at_end
    assert tail.next() is None


def test_tail_skips_a_truncated_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2)[:10] + b"\n" + b'"text"\n[1]\n{"step": 1}\n' + line(3))
    assert [event.iteration for event in take_all(EventTail(path))] == [1, 3]


def test_tail_reads_a_long_file_in_small_parts(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    count = 5 * CHUNK // len(line(10000))
    path.write_bytes(b"".join(line(10000 + step) for step in range(count)))
    tail = EventTail(path)
    tail.next()
    assert not tail.at_end
    assert [event.iteration for event in take_all(tail)] == list(range(10001, 10000 + count))
    assert tail.at_end


def test_tail_that_starts_near_the_end_skips_the_first_partial_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line(step) for step in range(10, 60)))
    steps = [event.iteration for event in take_all(EventTail(path, from_end=3 * len(line(10)) + 5))]
    assert steps == [57, 58, 59]
    assert len(take_all(EventTail(path, from_end=1 << 20))) == 50


def test_tail_that_started_mid_line_restarts_when_the_file_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1)[:-1])
    tail = EventTail(path, from_end=5)
    assert take_all(tail) == []
    path.write_bytes(b"")
    assert take_all(tail) == []
    path.write_bytes(line(8))
    assert [event.iteration for event in take_all(tail)] == [8]


def test_tail_restarts_when_the_file_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2))
    tail = EventTail(path)
    take_all(tail)
    path.write_bytes(line(7))
    assert [event.iteration for event in take_all(tail)] == [7]


def test_run_state_does_not_parse_outdated_progress_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    progress = [
        TrainingProgress(iteration=n, iterations=90, losses={}, learning_rate=0.1, steps_per_s=1.0, eta_s=2.0)
        for n in range(60)
    ]
    lines = map(
        run_event_line,
        [
            RunStarted(iteration=0, iterations=90, labelled=1, unlabelled=0, validation=0, device="cpu", resumed=False),
            *progress,
            RunPaused(iteration=59),
        ],
    )
    run.events.write_text("\n".join(lines) + "\n", encoding="utf-8")
    parsed: list[object] = []
    parse = events.parse_run_event
    monkeypatch.setattr(events, "parse_run_event", lambda fields: parsed.append(fields) or parse(fields))
    state = run_state(run)
    assert (state.iteration, state.iterations, len(parsed)) == (59, 90, 3)


def test_time_left_is_unknown_after_a_pause_and_while_cases_load(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    begun = RunStarted(iteration=0, iterations=9, labelled=1, unlabelled=0, validation=0, device="cpu", resumed=False)
    going = TrainingProgress(iteration=4, iterations=9, losses={}, learning_rate=0.1, steps_per_s=1.0, eta_s=5.0)
    paused, loading = RunPaused(iteration=4), CasesLoading(loaded=0, cases=1)
    for later, eta_s in (([], 5.0), ([paused], None), ([paused, loading], None), ([loading], None)):
        events_so_far = [begun, going, *later]
        run.events.write_text("".join(f"{run_event_line(event)}\n" for event in events_so_far), encoding="utf-8")
        with run_lock(run.lock):
            state = run_state(run)
        assert (state.state, state.iteration, state.eta_s) == (RUNNING, 4, eta_s)


@pytest.mark.parametrize(("end", "name"), [(RunPaused(4), PAUSED), (RunFinished(4, "model.dcamt", 1.0), STOPPED)])
def test_many_loading_events_do_not_hide_the_run_state(tmp_path: Path, end: RunEvent, name: str) -> None:
    run = RunFolder(tmp_path)
    begun = RunStarted(iteration=0, iterations=9, labelled=1, unlabelled=0, validation=0, device="cpu", resumed=False)
    loading = "".join(f"{run_event_line(CasesLoading(loaded=number, cases=900))}\n" for number in range(900))
    assert len(loading) > TAIL
    run.events.write_text(f"{run_event_line(begun)}\n{run_event_line(end)}\n{loading}", encoding="utf-8")
    state = run_state(run)
    assert (state.state, state.iteration, state.iterations) == (name, 4, 9)


@pytest.mark.parametrize("events_since", [1, 900])
def test_failed_run_states_the_iteration_of_its_last_checkpoint(tmp_path: Path, events_since: int) -> None:
    run = RunFolder(tmp_path)
    run.recipe.write_text("{}", encoding="utf-8")
    progress = TrainingProgress(30, 90, losses={}, learning_rate=0.1, steps_per_s=1.0, eta_s=5.0)
    log: list[RunEvent] = [RunStarted(0, 90, 1, 0, 0, "cpu", False), CheckpointSaved(20), *[progress] * events_since]
    saved = CheckpointSaved(30)
    for later, states in (([], (30, 20)), ([saved], (30, 30)), ([saved, RunPaused(30)], (30, 30))):
        run.events.write_text("".join(f"{run_event_line(event)}\n" for event in [*log, *later]), encoding="utf-8")
        with run_lock(run.lock):
            training = run_state(run)
        ended = run_state(run)
        assert ((training.iteration, ended.iteration), ended.iterations) == (states, 90)
