"""Which device computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA GPU if there is one, else Apple's, else the CPU.

    Raises:
        InputError: the device that was asked for is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there.get(name):
        remedy = "Let the device be chosen automatically (at a shell: --device auto)."
        raise InputError(f"this machine has no '{name}' device that torch can use", remedy=remedy)
    return torch.device(name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is much faster than float32: on a CPU's matrix tiles (AMX), a GPU's tensor cores.

    A CPU without such tiles emulates them, which is many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        # Compute capability 8.0 (Ampere) brought them; older GPUs emulate, and PyTorch calls that supported, too.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # Of PyTorch's own making and not promised to stay; without it float32 is used.
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported else False
