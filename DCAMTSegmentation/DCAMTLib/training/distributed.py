"""One run on many processes: each takes its share of every batch, and all of them make the same step.

Started by `torchrun`, a process is one of a team; started by hand, it is alone. The first process of a team keeps the
run's folder; the others write nothing and print nothing.

What an iteration draws depends on the seed, the iteration and the sample's place in the whole batch, so a team sees
the very samples that one process would. Gradients are averaged over the team before each step, so all keep the same
weights. What couples samples is done within each process's share:

- Batch normalisation takes its statistics from the share; the running ones are averaged over the team.
- MMD, and the prototypes of the contrast parts, compare the share's samples.

A share should therefore hold labelled and unlabelled patches, two of each or more. With `normalisation` set to
`instance` and the supervised part alone, a team's losses are those of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import DCAMTError, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one may be validating, or reading cases over a slow network."""


class TeamLost(DCAMTError):
    """Another process of the team has ended, so no step can be made together."""


@dataclass(frozen=True)
class Team:
    """This process's number (`rank`, from 0) among `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run's folder."""
        return self.rank == 0

    def share(self, labelled: int, batch: int) -> list[int]:
        """The samples of the batch that this process takes, labelled ones (0 to `labelled`) first.

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

    def from_leader(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """The leader's `state`, in every process.

        Raises:
            TeamLost: see there.
        """
        if self.size == 1:
            return state
        import torch.distributed as dist

        box = [state]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of the float tensors by its mean over the team, all in one exchange.

        Raises:
            TeamLost: see there; the tensors are as they were.
        """
        if self.size == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _together():
            dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


ALONE = Team()


def team_size() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def team_rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0")) if team_size() > 1 else 0


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process, where a team's processes share a machine with several; else `device`."""
    if device.type != "cuda" or team_size() == 1:
        return device
    import torch

    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Join the team that `torchrun` started, over NCCL on CUDA GPUs, else over Gloo.

    Raises:
        TeamLost: the others cannot be reached.
    """
    if team_size() == 1:
        yield ALONE
        return
    import torch.distributed as dist

    with _together():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def running_statistics(network: nn.Module) -> list[Tensor]:
    """The batch normalisation's running means and variances."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch.distributed's own errors are RuntimeErrors
        raise TeamLost("another process of the run has ended. Go on with --resume.") from error
