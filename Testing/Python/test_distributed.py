"""Test training by a team: several processes that train one network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from dcamt.api import training as training_api
from dcamt.api.training_plan import TrainingPlan
from dcamt.cases.case_list import LABELLED, UNLABELLED, read_cases
from dcamt.distributed import ALONE, Team, TeamLost, is_first_on_machine, process_group, team_rank
from dcamt.errors import InputError
from dcamt.networks.packaging import verify_model
from dcamt.runs.events import CheckpointSaved, RunEvent, TrainingProgress, ValidationScored
from dcamt.runs.folder import RunFolder
from dcamt.training import trainer as trainer_module
from dcamt.training.checkpoint import load_checkpoint
from dcamt.training.sampling import Batch, BatchSampler
from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.processes import HANGING_S, own_lines, run_team, wait_until
from dcamt_testing.synthetic import CPU, assert_same, new_trainer, set_options, write_cases_folder, write_nifti
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.warm_python import interpreter, program_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

SUPERVISED = ("distillation=0", "mmd=0", "intra_class=0", "inter_class=0")
"""Settings that turn off all losses but supervision."""
COMPARABLE = (
    "normalisation=instance",  # batch normalisation would use the statistics of each process's half of the batch
    "mix=0",  # each process would mix only the patches of its half
    "mixed_precision=false",  # 16-bit numbers are coarser than the tolerance of the comparison
    "ramp_up=0",  # distillation has its full weight in all iterations, so that a wrong distillation loss shows
)
"""Settings with which the losses `supervised` and `distillation` of two processes equal those of one process."""
TEAM_SETTINGS = ("batch=4", "labelled_per_batch=2", "checkpoint_every_s=0.000001")
"""Two processes can split this batch. Each iteration logs the losses and saves a checkpoint."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases_folder(tmp_path_factory.mktemp("data"), labelled=3, unlabelled=2, validation=1)


@pytest.fixture(scope="module")
def labelled_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases_folder(tmp_path_factory.mktemp("labelled"), labelled=3, validation=1)


def start_torchrun(processes: int, run: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start `dcamt train` on the CPU under torchrun."""
    launcher = [interpreter(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = ["-m", "dcamt", "train", "--run-folder", str(run), "--device", "cpu", *map(str, arguments)]
    return subprocess.Popen(
        [*launcher, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON_EXEC": interpreter()},
        start_new_session=True,
        encoding="utf-8",
    )


def train_as_team(processes: int, run: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """Train without torchrun, which takes seconds to start; return the exit status, stdout and stderr."""
    return run_team(processes, "train", "--run-folder", run, "--device", "cpu", *arguments)


def losses_of(run: Path) -> list[Mapping[str, float]]:
    return [event.losses for event in RunFolder(run).read_events() if isinstance(event, TrainingProgress)]


def test_team_splits_the_batch() -> None:
    teams = [Team(rank, 2) for rank in range(2)]
    assert [team.sample_indices(2, 6) for team in teams] == [[0, 2, 3], [1, 4, 5]]
    assert Team().sample_indices(2, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="3 labelled and 2 unlabelled patches cannot be split among 2 processes"):
        teams[0].sample_indices(3, 5)


@pytest.mark.parametrize("value", ["", " ", "two"])
def test_process_is_alone_if_the_variables_of_torchrun_have_no_number(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, value)
    with process_group(CPU) as team:
        assert team is ALONE
    assert is_first_on_machine()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert team_rank() == 0


def test_team_size_without_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "WORLD_SIZE is 2, but torchrun has not set RANK, MASTER_ADDR, MASTER_PORT. .* unset WORLD_SIZE"
    with pytest.raises(InputError, match=message), process_group(CPU):
        pass


@pytest.mark.parametrize(
    ("cases", "objective"),
    [
        ("labelled_table", SUPERVISED),
        ("table", ("mmd=0", "intra_class=0", "inter_class=0", "weight_average=0.9")),
    ],
)
def test_two_processes_have_the_same_losses_as_one(
    cases: str, objective: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    table: Path = request.getfixturevalue(cases)
    runs = train_with_one_and_two_processes(table, tmp_path, *COMPARABLE, *objective)
    one, two = map(losses_of, runs)
    assert len(one) == 5
    for name in one[0]:
        assert [losses[name] for losses in two] == pytest.approx([losses[name] for losses in one], abs=1e-4), name
    totals = [losses["total"] for losses in one]
    assert max(totals) - min(totals) > 0.01
    states = [load_checkpoint(RunFolder(run).checkpoint, CPU) for run in runs]
    for part in ("network", "average") if states[0]["average"] else ("network",):
        for name, tensor in states[0][part].items():
            assert torch.allclose(states[1][part][name], tensor, atol=1e-4), name


def test_losses_of_two_processes_differ_with_batch_normalisation(labelled_table: Path, tmp_path: Path) -> None:
    runs = train_with_one_and_two_processes(labelled_table, tmp_path, *COMPARABLE, *SUPERVISED, "normalisation=batch")
    one, two = ([losses["total"] for losses in losses_of(run)] for run in runs)
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) > 1e-3


def train_with_one_and_two_processes(table: Path, folder: Path, *settings: str) -> list[Path]:
    runs = [folder / name for name in ("one", "two")]
    options = set_options(*TEAM_SETTINGS, *settings, "iterations=5")
    for processes, run in enumerate(runs, start=1):
        status, output, errors = train_as_team(processes, run, table, *options)
        assert status == 0, errors
        assert output.count("starting at iteration 0 of 5") == 1  # only the leader prints
        assert own_lines(errors) == []
    return runs


def first_batch(trainer: trainer_module.Trainer, table: Path) -> Batch:
    by_role = trainer._load_cases(read_cases(table))
    sampler = BatchSampler(by_role[LABELLED], by_role[UNLABELLED], trainer.recipe, CPU, trainer.team)
    return sampler.draw(0)


def test_loss_of_a_team_is_the_mean_of_the_losses_of_its_processes(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*TEAM_SETTINGS, "ramp_up=0", "iterations=1")
    assert train_as_team(2, tmp_path / "two", table, *set_options(*settings))[0] == 0
    (together,) = losses_of(tmp_path / "two")
    monkeypatch.setattr(Team, "average", lambda team, tensors: None)
    halves = []
    for rank in range(2):
        trainer = new_trainer(tmp_path / f"half{rank}", table, *settings, team=Team(rank, 2))
        halves.append(trainer.iterate(first_batch(trainer, table)))
    names = {"supervised", "distillation", "mmd", "intra_class", "inter_class", "total"}
    assert set(together) == {*halves[0]} == names
    for name, loss in together.items():
        first, second = (float(losses[name]) for losses in halves)
        assert loss == pytest.approx((first + second) / 2, abs=1e-5)
        assert first != pytest.approx(second, abs=1e-5)


class BrokenTeam(Team):
    """A team of this process and another process, which has ended."""

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        tensors[0].zero_()
        raise TeamLost("another process of the run has ended")


def test_failed_step_leaves_the_state_unchanged(table: Path, tmp_path: Path) -> None:
    """The running statistics of batch normalisation are restored as well."""
    trainer = new_trainer(tmp_path / "run", table, "iterations=4", "batch=4", "labelled_per_batch=2")
    before = {name: tensor.clone() for name, tensor in trainer.learner.network.state_dict().items()}
    batch = first_batch(trainer, table)
    trainer.team = BrokenTeam(0, 2)
    with pytest.raises(TeamLost):
        trainer.iterate(batch)
    assert_same(dict(trainer.learner.network.state_dict()), before)


def test_team_saves_a_checkpoint_before_validating(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "VALIDATION_FRACTION", 1e9)
    monkeypatch.setattr(BrokenTeam, "average", lambda self, tensors: None)
    received: list[RunEvent] = []
    trainer = new_trainer(
        tmp_path / "run", table, "iterations=4", "validate_every=2", "batch=4", "labelled_per_batch=2",
        on_event=received.append,
    )  # fmt: skip
    trainer.team = BrokenTeam(0, 2)
    monkeypatch.setattr(Team, "fail_together", lambda self, uses_float16=False: nullcontext())
    trainer.fit(read_cases(table))
    saved = [event.iteration for event in received if isinstance(event, CheckpointSaved)]
    assert saved[0] == 2
    kinds = [type(event) for event in received if isinstance(event, (CheckpointSaved, ValidationScored))]
    assert kinds[:2] == [CheckpointSaved, ValidationScored]


@pytest.mark.parametrize("lost_at", [None, 2], ids=["before validation", "after another process ended"])
def test_team_saves_no_checkpoint_of_infinite_weights(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_at: int | None
) -> None:
    received: list[RunEvent] = []
    trainer = new_trainer(
        tmp_path / "run", table, "iterations=9", "validate_every=2", "learning_rate=1e300", "batch=4",
        "labelled_per_batch=2", on_event=received.append,
    )  # fmt: skip

    def average(team: Team, tensors: Sequence[torch.Tensor]) -> None:
        if trainer.step + 1 == lost_at:
            raise TeamLost("another process of the run has ended")

    monkeypatch.setattr(trainer_module, "VALIDATION_FRACTION", 1e9)
    monkeypatch.setattr(trainer_module, "REPORT_EVERY_S", 1e9)
    monkeypatch.setattr(BrokenTeam, "average", average)
    monkeypatch.setattr(Team, "fail_together", lambda self, uses_float16=False: nullcontext())
    trainer.team = BrokenTeam(0, 2)
    with pytest.raises(InputError, match="no longer finite at iteration"):
        trainer.fit(read_cases(table))
    assert not any(isinstance(event, CheckpointSaved) for event in received)


@pytest.mark.parametrize(("signalled", "wait_count"), [(False, 1), (True, 0)])
def test_signalled_follower_of_a_failed_team_does_not_wait_for_the_leader(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalled: bool, wait_count: int
) -> None:
    plan = TrainingPlan(RunFolder(Path()), tiny_recipe("iterations=4"), read_cases(table), device="cpu")
    monkeypatch.setattr(BrokenTeam, "broadcast", lambda team, value: plan)
    monkeypatch.setattr(Team, "fail_together", lambda team, uses_float16=False: nullcontext())
    monkeypatch.setattr(training_api, "process_group", lambda device: nullcontext(BrokenTeam(1, 2)))

    def lose_leader(trainer: trainer_module.Trainer, cases: object, resumed: bool) -> None:
        with trainer._stopping_on_signals():
            if signalled:
                signal.raise_signal(signal.SIGTERM)
        raise TeamLost("another process of the run has ended")

    monkeypatch.setattr(trainer_module.Trainer, "fit", lose_leader)
    waited: list[None] = []
    monkeypatch.setattr(training_api, "wait_for_leader", lambda: waited.append(None))
    assert training_api.follow_leader(RunFolder(tmp_path / "run"), "cpu", lambda failure: None) == 1
    assert len(waited) == wait_count


def test_batch_that_cannot_be_split_is_refused(table: Path, tmp_path: Path) -> None:
    status, _, errors = train_as_team(2, tmp_path / "run", table, *set_options("batch=3", "labelled_per_batch=1"))
    assert status != 0
    assert len(own_lines(errors)) == 1
    assert "cannot be split among 2 processes. Set batch and labelled_per_batch" in own_lines(errors)[0]
    assert not (tmp_path / "run").exists()


def test_failure_of_a_team_is_reported_once(table: Path, tmp_path: Path) -> None:
    rows = table.read_text(encoding="utf-8").splitlines()
    broken = table.with_name("broken.csv")
    (table.parent / "broken.nii.gz").write_bytes(b"no scan")
    broken.write_text("\n".join([*rows, "broken,broken.nii.gz,,unlabelled"]) + "\n", encoding="utf-8")
    for arguments, message in (
        # Only the leader detects these failures.
        ([table, "--set", "colour=1"], "there is no setting 'colour'"),
        ([table.with_name("none.csv")], "none.csv"),
        (["--resume"], "holds no run"),
        # Every process detects this failure.
        ([broken, *set_options(*TEAM_SETTINGS)], "broken.nii.gz"),
    ):
        status, output, errors = train_as_team(2, tmp_path / "run", *arguments)
        assert status != 0
        assert output == ""
        assert len(own_lines(errors)) == 1, errors
        assert message in own_lines(errors)[0]
        assert not (tmp_path / "run").exists()


def test_note_on_a_label_is_printed_once_by_a_team(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path, labelled=2)
    write_nifti(tmp_path / "labelled1_label.nii.gz", 1 - ellipsoid_scan()[1])
    settings = set_options(*TEAM_SETTINGS, "iterations=1")
    status, _, errors = train_as_team(2, tmp_path / "run", table, *settings)
    assert status == 0, errors
    (line,) = own_lines(errors)
    assert "labelled1_label.nii.gz: The label covers" in line


LATE_LEADER = """
import os, sys, time
if os.environ["RANK"] == "0":
    time.sleep(2)
from dcamt.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("arguments", [["--colour"], ["--recipe", "none"]], ids=["usage", "input"])
def test_leader_that_starts_late_still_reports_the_failure(table: Path, tmp_path: Path, arguments: list[str]) -> None:
    """Process 1 waits for the leader. If process 1 ended first, `run_team` would end the leader, as torchrun does."""
    script = tmp_path / "late_leader.py"
    script.write_text(LATE_LEADER, encoding="utf-8")
    status, _, errors = run_team(2, "train", table, "--run-folder", tmp_path / "run", *arguments, script=script)
    assert status != 0
    (line,) = own_lines(errors)
    assert arguments[-1] in line


TEAM_SCRIPT = """
import os, sys
import torch
from dcamt.errors import InputError
from dcamt.distributed import TeamLost, process_group

def print_line(*values):
    sys.stdout.write(f"{os.environ['RANK']} {' '.join(map(str, values))}\\n")

with process_group(torch.device("cpu")) as team:
    print_line(team.broadcast("news" if team.leads else None))
    for failing in ((), (0,), (1, 2), (0, 1)):
        try:
            with team.fail_together():
                if team.rank in failing:
                    raise InputError(f"fault of {team.rank}")
            print_line(failing, "no fault")
        except (InputError, TeamLost) as error:
            print_line(failing, type(error).__name__, error)
    try:
        with team.fail_together(uses_float16=team.rank == 2):
            pass
    except (InputError, TeamLost) as error:
        print_line("float16", type(error).__name__, error)
    parameter = torch.nn.Parameter(torch.ones(2))
    torch.optim.SGD([parameter], 0.1, foreach=True).step()
    team.average([parameter.data])
threads = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print_line("gloo" if any("gloo" in thread for thread in threads) else "no thread of the team is left")
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to list threads")
def test_failure_of_one_process_fails_the_others_and_leaves_no_thread(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TEAM_SCRIPT, encoding="utf-8")
    # The leader runs in `sys.executable`, which unloads PyTorch on exit and aborts if a thread of Gloo is left. The
    # other processes run in `interpreter()`, which does not unload PyTorch, so they would not abort.
    status, output, errors = run_team(3, script=script, leader_interpreter=sys.executable)
    assert status == 0, errors
    host = socket.gethostname()
    different_gpus = "the GPUs are of different kinds: not all of them compute in bfloat16. Set mixed_precision=false."
    team_lost = "TeamLost a process of the run has failed"
    expected = [
        *(f"{rank} news" for rank in range(3)),
        *(f"{rank} () no fault" for rank in range(3)),
        "0 (0,) InputError fault of 0.",
        f"0 (1, 2) InputError process 1 on {host}: fault of 1.",
        "0 (0, 1) InputError fault of 0.",
        f"0 float16 InputError {different_gpus}",
        *(f"{rank} {failing} {team_lost}" for rank in (1, 2) for failing in ("(0,)", "(1, 2)", "(0, 1)", "float16")),
        *(f"{rank} no thread of the team is left" for rank in range(3)),
    ]
    assert sorted(output.splitlines()) == sorted(expected)


def test_signal_to_torchrun_pauses_the_team_and_the_run_resumes(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_torchrun(2, run, table, *set_options(*TEAM_SETTINGS, "iterations=100000"))
    wait_for_checkpoints(run)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode != 0
    (line,) = own_lines(errors)
    step = load_checkpoint(RunFolder(run).checkpoint, CPU)["step"]
    assert f"paused at iteration {step}. Continue with: dcamt train" in line
    set_target(run, step + 2)
    for text in ("resuming at", "trained for"):  # the second command finds the run finished
        status, output, errors = train_as_team(2, run, "--resume")
        assert status == 0, errors
        assert text in output
        assert output.count("trained for") == 1
        assert own_lines(errors) == []


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to find processes")
def test_run_of_a_killed_leader_ends_and_keeps_its_checkpoint(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert own_lines(kill_and_read_errors(run, table, rank=0)) == []
    assert load_checkpoint(RunFolder(run).checkpoint, CPU)["step"] >= 3


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to find processes")
def test_run_of_a_killed_process_resumes_with_one_and_with_two_processes(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (line,) = own_lines(kill_and_read_errors(run, table, rank=1))
    assert line == f"dcamt: {run}: another process of the run has ended. Go on with --resume."
    assert not RunFolder(run).lock.exists()
    step = load_checkpoint(RunFolder(run).checkpoint, CPU)["step"]
    assert step >= 3
    for processes, target in ((1, step + 2), (2, step + 4)):
        set_target(run, target)
        status, _, errors = train_as_team(processes, run, "--resume")
        assert status == 0, errors
        assert load_checkpoint(RunFolder(run).checkpoint, CPU)["step"] == target
        assert verify_model(RunFolder(run).model).card.trained_on["iterations"] == target


def kill_and_read_errors(run: Path, table: Path, rank: int) -> str:
    process = start_torchrun(2, run, table, *set_options(*TEAM_SETTINGS, "iterations=100000"))
    wait_for_checkpoints(run)
    os.kill(process_id_of(run, rank), signal.SIGKILL)
    _, errors = process.communicate(timeout=HANGING_S)
    assert process.returncode != 0
    return errors


def wait_for_checkpoints(run: Path) -> None:
    wait_until(lambda: [event.kind for event in RunFolder(run).read_events()].count("checkpoint") > 3, "checkpoints")


def set_target(run: Path, iterations: int) -> None:
    recipe = run / "recipe.json"
    data = json.loads(recipe.read_text(encoding="utf-8"))
    data["training"]["iterations"] = iterations
    recipe.write_text(json.dumps(data), encoding="utf-8")
    RunFolder(run).model.unlink(missing_ok=True)


def process_id_of(run: Path, rank: int) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command_line = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(run) in command_line and b"RANK=%d" % rank in environment:
            return program_of(int(folder.name))
    raise AssertionError(f"no process of rank {rank}")
