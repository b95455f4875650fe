"""A run on two processes against the same run on one: losses, faults, and going on with another number of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from DCAMTLib.errors import InputError
from DCAMTLib.model_store import verify_model
from DCAMTLib.training.cases import LABELLED, UNLABELLED, read_cases
from DCAMTLib.training.checkpoint import load_checkpoint
from DCAMTLib.training.distributed import Team
from DCAMTLib.training.run_folder import RunFolder
from DCAMTLib.training.sampling import BatchSampler
from synthetic import CPU, new_trainer, set_options, write_cases_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="torchrun's signals are POSIX")

UNCOUPLED = (
    "distillation=0",
    "mmd=0",
    "intra_class=0",
    "inter_class=0",
    "normalisation=instance",
    "mixed_precision=false",
)
BATCH = ("batch=4", "labelled_per_batch=2", "checkpoint_every_s=0.000001")
"""Each checkpoint comes with a report: the losses of every iteration are in the run's events."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases_folder(tmp_path_factory.mktemp("data"), labelled=3, unlabelled=2, validation=1)


def start(processes: int, run: Path, *words: str | Path) -> subprocess.Popen[str]:
    """`dcamt train` on the CPU, under torchrun where there shall be several processes."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    prefix = [*launcher, "--standalone"] if processes > 1 else []
    command = [*prefix, "-m", "DCAMTLib.cli", "train", "--run-folder", run, "--device", "cpu", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def train(processes: int, run: Path, *words: str | Path) -> tuple[int, str, str]:
    """Exit status and what was printed."""
    process = start(processes, run, *words)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text().splitlines() if (run / "events.jsonl").exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_team_shares_the_batch() -> None:
    teams = [Team(rank, 2) for rank in range(2)]
    assert [team.share(2, 6) for team in teams] == [[0, 2, 3], [1, 4, 5]]
    assert Team().share(2, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="3 labelled and 2 unlabelled patches cannot be split among 2 processes"):
        teams[0].share(3, 5)


def test_two_processes_have_the_losses_of_one(table: Path, tmp_path: Path) -> None:
    settings = set_options(*BATCH, *UNCOUPLED, "iterations=5")
    runs = [tmp_path / name for name in ("one", "two")]
    for processes, run in enumerate(runs, start=1):
        status, output, errors = train(processes, run, table, *settings)
        assert status == 0, errors
        assert output.count("starting at 0 of 5") == 1  # one of them speaks
    one, two = ([event["losses"]["total"] for event in events(run, "progress")] for run in runs)
    assert len(one) == 5
    assert two == pytest.approx(one, abs=1e-4)
    assert max(one) - min(one) > 0.01  # they learnt something
    states = [load_checkpoint(RunFolder(run).checkpoint, CPU)["network"] for run in runs]
    for name, tensor in states[0].items():
        assert torch.allclose(states[1][name], tensor, atol=1e-4), name


def test_what_couples_samples_is_done_within_each_share(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All five parts and batch normalisation: the losses are the mean of what each share of the batch gives alone."""
    settings = (*BATCH, "ramp_up=0", "iterations=1")
    assert train(2, tmp_path / "two", table, *set_options(*settings))[0] == 0
    (together,) = (event["losses"] for event in events(tmp_path / "two", "progress"))
    monkeypatch.setattr(Team, "average", lambda team, tensors: None)
    alone = []
    for rank in range(2):
        trainer = new_trainer(tmp_path / f"share{rank}", table, *settings, team=Team(rank, 2))
        by_role = trainer._load_cases(read_cases(table))
        sampler = BatchSampler(by_role[LABELLED], by_role[UNLABELLED], trainer.recipe, CPU, trainer.team)
        alone.append(trainer._iterate(sampler.draw(0)))
    assert set(together) == {*alone[0]} == {"supervised", "distillation", "mmd", "intra_class", "inter_class", "total"}
    for name, loss in together.items():
        assert loss == pytest.approx((float(alone[0][name]) + float(alone[1][name])) / 2, abs=1e-5)
        assert float(alone[0][name]) != pytest.approx(float(alone[1][name]), abs=1e-5)


def test_a_batch_that_cannot_be_split_is_refused(table: Path, tmp_path: Path) -> None:
    status, _, errors = train(2, tmp_path / "run", table, *set_options("batch=3", "labelled_per_batch=1"))
    assert status != 0
    assert errors.count("cannot be split among 2 processes. Set batch and labelled_per_batch") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_and_any_number_goes_on(table: Path, tmp_path: Path, victim: int) -> None:
    run = tmp_path / "run"
    process = start(2, run, table, *set_options(*BATCH, "iterations=100000"))
    limit = time.monotonic() + 120
    while not events(run, "checkpoint")[3:] and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(process_of(process.pid, victim), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    if victim == 1:
        assert "another process of the run has ended" in errors
        assert not RunFolder(run).lock.exists()
    step = load_checkpoint(RunFolder(run).checkpoint, CPU)["step"]
    assert step >= 3
    for processes, target in ((1, step + 2), (2, step + 4)):
        recipe = run / "recipe.json"
        data = json.loads(recipe.read_text())
        data["training"]["iterations"] = target
        recipe.write_text(json.dumps(data))
        RunFolder(run).model.unlink(missing_ok=True)
        status, _, errors = train(processes, run, "--resume")
        assert status == 0, errors
        assert load_checkpoint(RunFolder(run).checkpoint, CPU)["step"] == target
        assert verify_model(RunFolder(run).model).card.trained_on["iterations"] == target


def process_of(launcher: int, rank: int) -> int:
    """The id of a process that torchrun started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (folder / "environ").read_text():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"no process of rank {rank}")
