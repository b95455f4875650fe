"""Train data-parallel: each process computes part of every batch, and all processes make the same step.

Several processes started by `torchrun` form a team; any other process is alone. The team's leader (rank 0) writes the
run folder, validates and prints. The other processes receive recipe and case list from the leader, read the scans
themselves and write no files. They print only failures that the leader does not see, such as a missing GPU on another
machine.

Random draws depend on the seed, the iteration and the sample's index in the whole batch, so a team trains on the same
samples as a single process. Gradients are averaged over the team before each step, so all weights stay equal.
Operations that couple samples see only the process's part of the batch:

- Batch normalisation computes its statistics from the part; running statistics are averaged over the team.
- MMD and the prototypes of the contrast losses are computed from the part.
- CutMix mixes patches of one part: labelled with labelled, unlabelled with unlabelled patches. All processes use the
  same box.

A part should contain at least two labelled and two unlabelled patches; otherwise, CutMix would mix a patch with itself.
If a recipe uses none of the listed operations, a team's losses in float32 equal those of a single process up to
rounding.

When one process ends early, the run ends. Over Gloo the next exchange fails in all other processes; if the leader still
runs, it saves a checkpoint. Over NCCL the other processes wait until `torchrun` ends them, and the steps since the last
checkpoint are lost. A team of another size can resume the run if this size divides the numbers of labelled and
unlabelled patches in a batch.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import DCAMTError, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the leader may be validating, or reading cases over a slow network."""

LEADER_GRACE_S = 60.0
"""How long a process with a failure waits for the leader to report it."""

T = TypeVar("T")


class TeamLost(DCAMTError):
    """Raised when another process of the team has ended, has failed or cannot be reached."""


@dataclass(frozen=True)
class Team:
    """The team of `size` processes that this process belongs to; `rank` is the number of this process, from 0."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0

    def sample_indices(self, labelled: int, batch: int) -> list[int]:
        """Return the indices of this process's samples in a batch whose first `labelled` samples are labelled.

        Raises:
            InputError: the batch cannot be split evenly among the processes.
        """
        unlabelled = batch - labelled
        if labelled % self.size or unlabelled % self.size:
            raise InputError(
                f"{labelled} labelled and {unlabelled} unlabelled patches cannot be split among {self.size} processes",
                remedy="Set batch and labelled_per_batch to multiples of the number of processes.",
            )
        indices: list[int] = []
        for first, count in ((0, labelled // self.size), (labelled, unlabelled // self.size)):
            indices += range(first + self.rank * count, first + (self.rank + 1) * count)
        return indices

    def broadcast(self, value: T | None) -> T:
        """Return the leader's `value` in every process; the other processes pass None.

        Raises:
            TeamLost: another process has ended.
        """
        box = [value]
        if self.size > 1:
            import torch.distributed as dist

            with _raising_team_lost():
                dist.broadcast_object_list(box, src=0)
        assert box[0] is not None
        return box[0]

    @contextmanager
    def fail_together(self, uses_float16: bool = False) -> Iterator[None]:
        """Run a block that may fail, such as reading files; if it fails in one process, raise an error in all.

        Args:
            uses_float16: whether this process trains in float16. Either all processes must use float16, or none:
                float16 needs scaled gradients, which must not be averaged with the unscaled gradients of other
                processes.

        Raises:
            Exception, InputError or TeamLost:

            | situation | in the leader | in every other process |
            | --- | --- | --- |
            | the block failed in the leader | the block's error | TeamLost |
            | the block failed only in other processes | InputError | TeamLost |
            | only some processes use float16 | InputError | TeamLost |

            If a process has ended, the table does not apply: each remaining process raises the error of its own block,
            or TeamLost if its own block succeeded.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        try:
            failures = self.gather(failure and self._describe_failure(failure))
            float16_used = self.gather(uses_float16)
        except TeamLost:
            if failure is not None:
                raise failure from None
            raise
        if not any(failures) and len(set(float16_used)) == 1:
            return
        if not self.leads:
            raise TeamLost("a process of the run has failed") from failure
        if failure is not None:
            raise failure
        if any(failures):
            raise InputError(next(text for text in failures if text))
        raise InputError(
            "the GPUs are of different kinds: not all of them compute in bfloat16", remedy="Set mixed_precision=false."
        )

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in order of rank.

        Raises:
            TeamLost: another process has ended.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _raising_team_lost():
            dist.all_gather_object(values, value)
        return values

    def _describe_failure(self, failure: Exception) -> str:
        text = str(failure) if isinstance(failure, DCAMTError) else repr(failure)
        return text if self.leads else f"{describe_process()}: {text}"

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each float tensor, in place, by its mean over the team, in one exchange.

        Raises:
            TeamLost: another process has ended; the tensors are unchanged.
        """
        if self.size == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _raising_team_lost():
            dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


ALONE = Team()


def _number_from_torchrun(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    return int(text) if text.isdecimal() else default


def team_size() -> int:
    """Return the number of processes that `torchrun` started; 1 without it."""
    return max(1, _number_from_torchrun("WORLD_SIZE", 1))


def team_rank() -> int:
    """Return this process's rank in its team; 0 if it is alone."""
    return _number_from_torchrun("RANK", 0) if team_size() > 1 else 0


def wait_for_leader() -> None:
    """Give the leader time to report a failure: wait `LEADER_GRACE_S` seconds, unless this process is the leader.

    If this process ended first, `torchrun` would end the leader before the leader reports anything.
    """
    if team_rank() > 0:
        time.sleep(LEADER_GRACE_S)


def describe_process() -> str:
    """Return this process's name for messages."""
    return f"process {team_rank()} on {socket.gethostname()}"


def is_first_on_machine() -> bool:
    """Return whether this is the first of the team's processes on this machine."""
    return _number_from_torchrun("LOCAL_RANK", 0) == 0


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU if `device` is a GPU and there is a team; otherwise return `device`.

    Raises:
        InputError: there are more processes than GPUs on this machine.
    """
    if device.type != "cuda" or team_size() == 1:
        return device
    import torch

    processes, gpus = _number_from_torchrun("LOCAL_WORLD_SIZE", 1), torch.cuda.device_count()
    if processes > gpus:
        raise InputError(
            f"{socket.gethostname()} has fewer GPUs ({gpus}) than processes ({processes})",
            remedy=f"Start torchrun with --nproc-per-node {gpus}, or use --device cpu.",
        )
    gpu = torch.device("cuda", _number_from_torchrun("LOCAL_RANK", 0))
    torch.cuda.set_device(gpu)
    return gpu


@contextmanager
def process_group(device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Team]:
    """Connect the processes that `torchrun` started, and yield the team, or `ALONE` for a single process.

    Raises:
        InputError: `WORLD_SIZE` is above 1, but other environment variables that `torchrun` sets are missing.
        TeamLost: the other processes cannot be reached.
    """
    if team_size() == 1:
        yield ALONE
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise InputError(
            f"the environment variable WORLD_SIZE is {team_size()}, but torchrun has not set {', '.join(missing)}",
            remedy="Start all processes by torchrun; to use a single process, remove the variable: unset WORLD_SIZE.",
        )
    import torch.distributed as dist

    # `torch.distributed.nn` must be imported before the group exists. Otherwise the module would keep the group
    # alive, and Gloo's threads would abort the process when Python ends.
    import torch.distributed.nn  # noqa: F401

    with _raising_team_lost("the other processes of the run cannot be reached. Start all of them by torchrun."):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a network's batch normalisation."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


@contextmanager
def _raising_team_lost(message: str = "another process of the run has ended. Go on with --resume.") -> Iterator[None]:
    try:
        yield
    # RuntimeError: a process has ended or cannot be reached. ValueError: a variable that `torchrun` sets is damaged.
    except (RuntimeError, ValueError) as error:
        raise TeamLost(message) from error
