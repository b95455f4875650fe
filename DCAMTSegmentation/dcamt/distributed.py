"""One run on many processes: each takes its share of every batch, and all of them make the same step.

Started by `torchrun`, a process is one of a team; started by hand, it is alone. The first process of a team keeps the
run's folder, validates and speaks; the others get the recipe and the case list from it, read the scans by themselves,
write nothing and print nothing. Only what a process alone can know it says itself, in one line with its number: that
it broke down in the midst of a step, or that its machine has no such GPU.

What an iteration draws depends on the seed, the iteration and the sample's place in the whole batch, so a team sees
the very samples that one process would. Gradients are averaged over the team before each step, so all keep the same
weights. What couples samples is done within each process's share:

- Batch normalisation takes its statistics from the share; the running ones are averaged over the team.
- MMD, and the prototypes of the contrast parts, compare the share's samples. All shares draw the same places.
- Patches are mixed (CutMix) with others of the share. All shares mix by the same box.
- Copy-paste pairs the share's labelled patches with its unlabelled ones, by one box for the whole batch. Where a batch
  holds as many of the one as of the other, the pairs are those of one process.

A share should therefore hold labelled and unlabelled patches, two of each or more. Supervision, distillation and
copy-paste (of equal numbers) are means over samples: with `normalisation` set to `instance`, and mixing, MMD and
contrast left out, a team's losses are those of one process. That is so in float32; in bfloat16 each share is rounded by
itself (8e-4 apart after twenty steps).

Whatever ends one process ends the run, and any number of processes can go on with it. Over Gloo the next exchange fails
in all others, and the leader saves what was learnt and says so. Over NCCL, which only asks the GPU for it,
they wait until `torchrun` ends them: what was learnt since the last checkpoint is lost.
"""

from __future__ import annotations

import os
import socket
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
"""How long a process waits for the others: the first one may be validating, or reading cases over a slow network.

One that has ended is not waited for: its connections close, and where a GPU would wait on, `torchrun` ends it.
"""

T = TypeVar("T")


class TeamLost(DCAMTError):
    """Another process of the team has ended or gives up, so no step can be made together."""


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

    def from_leader(self, value: T | None) -> T:
        """The leader's `value`, in every process.

        Raises:
            TeamLost: see there.
        """
        box = [value]
        if self.size > 1:
            import torch.distributed as dist

            with _together():
                dist.broadcast_object_list(box, src=0)
        assert box[0] is not None
        return box[0]

    @contextmanager
    def agreed(self, scales: bool = False) -> Iterator[None]:
        """Do what may fail in any process, such as reading files: where it fails in one, it fails in all.

        `scales`: whether this process multiplies its gradients by a scale, which they all must do, or none.

        Raises:
            Exception: in the leader, its own fault.
            InputError: in the leader, the first fault of another process, or that not all scale their gradients.
            TeamLost: in the others, whose faults the leader tells of; or see there.
        """
        if self.size == 1:
            yield
            return
        fault: Exception | None = None
        try:
            yield
        except Exception as error:
            fault = error
        try:
            faults = self._gather(fault and (str(fault) if isinstance(fault, DCAMTError) else repr(fault)))
            scaling = self._gather(scales)
        except TeamLost:
            if fault is not None:
                raise fault from None
            raise
        if not any(faults) and len(set(scaling)) == 1:
            return
        if not self.leads:
            raise TeamLost("a process of the run gives up") from fault
        if fault is not None:
            raise fault
        if any(faults):
            raise InputError(next(text for text in faults if text))
        raise InputError(
            "the GPUs are of different kinds: not all of them compute in bfloat16", remedy="Set mixed_precision=false."
        )

    def gathered(self, value: T) -> list[T]:
        """Every process's value, in order of their numbers.

        Raises:
            TeamLost: see there.
        """
        return self._gather(value) if self.size > 1 else [value]

    def _gather(self, value: Any) -> list[Any]:
        """Every process's value, in order of their numbers; a text of another process than the leader says of which."""
        import torch.distributed as dist

        if isinstance(value, str) and not self.leads:
            value = f"{whoami()}: {value}"
        values = [None] * self.size
        with _together():
            dist.all_gather_object(values, value)
        return values

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


def whoami() -> str:
    """This process of the team, for the person."""
    return f"process {team_rank()} on {socket.gethostname()}"


def first_of_machine() -> bool:
    """Whether, of the team's processes on this machine, this is the first."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process, where a team's processes share a machine with several; else `device`.

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
def joined(device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Team]:
    """Join the team that `torchrun` started, over NCCL on CUDA GPUs, else over Gloo.

    `patience`: how long a process waits for the others.

    Raises:
        TeamLost: the others cannot be reached.
    """
    if team_size() == 1:
        yield ALONE
        return
    import torch.distributed as dist

    # Loaded later, as it is with the first optimiser, it would keep the group for good in its functions' defaults; and
    # Gloo's threads, outliving Python, would end the process by an abort.
    import torch.distributed.nn  # noqa: F401

    with _together("the other processes of the run cannot be reached. Start all of them by torchrun."):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def running_statistics(network: nn.Module) -> list[Tensor]:
    """The batch normalisation's running means and variances."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


@contextmanager
def _together(otherwise: str = "another process of the run has ended. Go on with --resume.") -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch.distributed's own errors are RuntimeErrors
        raise TeamLost(otherwise) from error
