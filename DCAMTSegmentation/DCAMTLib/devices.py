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
    """Whether the device computes in bfloat16 itself, much faster than in float32: a GPU's tensor cores, a CPU's
    matrix tiles (AMX) or dot products (AVX-512 BF16).

    Other CPUs emulate it, which is many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        # Compute capability 8.0 (Ampere) brought them; older GPUs emulate, and PyTorch calls that supported, too.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # Of PyTorch's own making and not promised to stay, nor in every release; without them float32 is used.
    tests = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(supported() for supported in tests if supported)
