"""Which device computes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from .errors import InputError
from .machine import AUTO

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def choose_device(name: str, training: bool = False) -> torch.device:
    """`auto` takes a CUDA GPU if there is one, else Apple's if PyTorch can do there what it is for, else the CPU.

    `training` asks more of a device than segmenting.

    Raises:
        InputError: the device that was asked for is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == AUTO:
        able = {**there, "mps": there["mps"] and _computes_volumes("mps", training)}
        name = next(device for device in ("cuda", "mps", "cpu") if able[device])
    if not there.get(name):
        remedy = "Let the device be chosen automatically (at a shell: --device auto)."
        raise InputError(f"this machine has no '{name}' device that torch can use", remedy=remedy)
    return torch.device(name)


@functools.cache
def _computes_volumes(device: str, training: bool) -> bool:
    """Whether PyTorch has there what networks, and in training samplers, use of it for volumes.

    For Apple's GPUs it came bit by bit, and what is missing is told of only when it is called.
    """
    import torch
    import torch.nn.functional as F

    try:
        volume = torch.ones((1, 2, 4, 4, 4), device=device, requires_grad=training)
        kernel = torch.ones((2, 2, 2, 2, 2), device=device)
        identity = torch.eye(3, 4, device=device)[None]
        results = (
            F.conv3d(volume, kernel),
            F.conv_transpose3d(volume, kernel, stride=2),
            F.interpolate(volume, scale_factor=2, mode="trilinear"),
        )
        total = torch.stack([result.sum() for result in results]).sum()
        total.cpu()
        if training:
            total.backward()  # type: ignore[no-untyped-call]
            places = F.affine_grid(identity, [1, 1, 4, 4, 4], align_corners=False)
            for mode in ("bilinear", "nearest"):
                F.grid_sample(volume.detach(), places, mode=mode, align_corners=False).cpu()
    except RuntimeError:  # of which NotImplementedError is one
        return False
    return True


def hand_over(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, or on its way there: what is asked of the device next finds it.

    A GPU takes from ordinary memory only when all that it was asked before is done, and whoever hands over stands still
    until then. From page-locked memory it takes by itself.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
