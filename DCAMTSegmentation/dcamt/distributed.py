"""Train data-parallel: each process computes part of every batch, and all processes make the same step.

Processes started by `torchrun` form a team; a process started otherwise is alone. The team's leader (rank 0) keeps the
run folder, validates and prints. The others receive recipe and case list from the leader, read the scans themselves,
write no files and print only what no other process can know: an unexpected failure, or a missing GPU of their machine.

Random draws depend on the seed, the iteration and the sample's index in the whole batch, so a team trains on the same
samples as a single process. Gradients are averaged over the team before each step, so all weights stay equal.
Operations that couple samples work within each process's part of the batch:

- Batch normalisation takes its statistics from the part; running statistics are averaged over the team.
- MMD and the prototypes of the contrast losses use the part's samples. All parts draw the same voxels.
- CutMix mixes patches of one part. All parts use the same box.

A part should therefore hold at least two labelled and two unlabelled patches. Supervision and distillation are means
over samples: with `normalisation` set to `instance`, and without mixing, MMD and contrast, a team's losses equal those
of one process in float32 (in bfloat16 each part is rounded separately: 8e-4 apart after twenty steps).

When one process ends, the run ends, and any number of processes can resume it. Over Gloo the next exchange fails in
all others, and the leader saves what was learnt. Over NCCL the others wait until `torchrun` ends them: steps since the
last checkpoint are lost.
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
"""How long a process waits for the others: the leader may be validating, or reading cases over a slow network.

A process that has ended is not waited for: its connections close, or `torchrun` ends those that wait on a GPU.
"""

LEADER_GRACE_S = 60.0
"""How long a process whose failure the leader reports waits until `torchrun` ends all processes."""

T = TypeVar("T")


class TeamLost(DCAMTError):
    """Another process of the team has ended or failed, so no common step can be made."""


@dataclass(frozen=True)
class Team:
    """The processes of one run: this one has number `rank` (from 0) of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the leader, which keeps the run folder."""
        return self.rank == 0

    def sample_indices(self, labelled: int, batch: int) -> list[int]:
        """Return the indices of this process's samples in the batch, labelled samples (0 to `labelled`) first.

        Raises:
            InputError: the batch cannot be split evenly.
        """
        unlabelled = batch - labelled
        if labelled % self.size or unlabelled % self.size:
            raise InputError(
                f"{labelled} labelled and {unlabelled} unlabelled patches cannot be split among {self.size} processes",
                remedy="Set batch and labelled_per_batch to multiples of the number of processes.",
            )
        mine: list[int] = []
        for first, count in ((0, labelled // self.size), (labelled, unlabelled // self.size)):
            mine += range(first + self.rank * count, first + (self.rank + 1) * count)
        return mine

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
    def fail_together(self, scales_gradients: bool = False) -> Iterator[None]:
        """Run a block that may fail in any process, such as reading files; if it fails in one, it fails in all.

        scales_gradients: whether this process scales its gradients (float16), which all processes must do, or none.

        Raises:
            Exception: in the leader, its own failure.
            InputError: in the leader, the first failure of another process, or if only some scale their gradients.
            TeamLost: in the other processes, whose failures the leader reports; or another process has ended.
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
            failures = self._gather(failure and (str(failure) if isinstance(failure, DCAMTError) else repr(failure)))
            scaling = self._gather(scales_gradients)
        except TeamLost:
            if failure is not None:
                raise failure from None
            raise
        if not any(failures) and len(set(scaling)) == 1:
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
        return self._gather(value) if self.size > 1 else [value]

    def _gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of rank; a follower's text is prefixed with its name."""
        import torch.distributed as dist

        if isinstance(value, str) and not self.leads:
            value = f"{describe_process()}: {value}"
        values = [None] * self.size
        with _raising_team_lost():
            dist.all_gather_object(values, value)
        return values

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


def team_size() -> int:
    """Return the number of processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def team_rank() -> int:
    """Return this process's rank in its team; 0 if it is alone."""
    return int(os.environ.get("RANK", "0")) if team_size() > 1 else 0


def wait_for_leader() -> None:
    """Wait until `torchrun` ends this process after the leader, which meets the same failure and reports it.

    If this process ended first, `torchrun` would end the leader before it has reported anything.
    """
    if team_rank() > 0:
        time.sleep(LEADER_GRACE_S)


def describe_process() -> str:
    """Return text that names this process in a message."""
    return f"process {team_rank()} on {socket.gethostname()}"


def is_first_on_machine() -> bool:
    """Return whether this is the first of the team's processes on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def own_device(device: torch.device) -> torch.device:
    """Return this process's own GPU, where a team's processes share a machine with several GPUs; else `device`.

    Raises:
        InputError: there are more processes than GPUs on this machine.
    """
    if device.type != "cuda" or team_size() == 1:
        return device
    import torch

    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > gpus:
        raise InputError(
            f"{socket.gethostname()} has {gpus} GPU(s) for {processes} processes",
            remedy=f"Start torchrun with --nproc-per-node {gpus}, or use --device cpu.",
        )
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own


@contextmanager
def process_group(device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Team]:
    """Join the processes that `torchrun` started for the length of a block: over NCCL on CUDA GPUs, else over Gloo.

    patience: how long a process waits for the others.

    Raises:
        TeamLost: the other processes cannot be reached.
    """
    if team_size() == 1:
        yield ALONE
        return
    import torch.distributed as dist

    # If this module were first imported later (the first optimiser does so), its default arguments would keep the group
    # alive for good, and Gloo's threads, outliving Python, would abort the process at its end.
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
    """Convert torch.distributed's errors within a block to TeamLost."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch.distributed's own errors are RuntimeErrors
        raise TeamLost(message) from error
