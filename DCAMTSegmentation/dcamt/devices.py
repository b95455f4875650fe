"""Choose the torch device, move tensors to it, and replace the caller's settings of torch by torch's defaults."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from .distributed import local_device
from .errors import InputError, is_out_of_memory
from .machine import AUTO, DEVICES
from .process_settings import shared_by_threads

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def choose_device(name: str, training: bool = False) -> torch.device:
    """Return the named device. `auto` chooses a CUDA GPU, else an Apple GPU with all needed operations, else the CPU.

    `auto` skips a CUDA GPU that this build of PyTorch does not support.

    Args:
        training: whether an Apple GPU must also support training.

    Raises:
        InputError: the name is unknown, this machine has no such device, or PyTorch lacks operations on it.
    """
    import torch

    name = str(name)  # A caller may pass a `torch.device` instead of a name.
    if name not in DEVICES:
        raise InputError(f"the device '{name}' is unknown", remedy=f"Choose one of: {', '.join(DEVICES)}.")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == AUTO:
        name = next(device for device in ("cuda", "mps", "cpu") if available[device] and _is_usable(device, training))
    if not available[name]:
        remedy = "Let the device be chosen automatically (in a terminal: --device auto)."
        raise InputError(f"this machine has no '{name}' device that torch can use", remedy=remedy)
    if name == "cuda" and not _is_usable(name, training):
        what = f"PyTorch {torch.__version__} cannot compute on this machine's 'cuda' device"
        remedy = (
            "Let the device be chosen automatically (in a terminal: --device auto), or install a build of PyTorch that"
            " supports the GPU."
        )
        raise InputError(what, remedy=remedy)
    if name == "mps" and not _is_usable(name, training):
        what = f"PyTorch {torch.__version__} lacks operations on the 'mps' device"
        remedy = "Let the device be chosen automatically (in a terminal: --device auto), or update PyTorch."
        raise InputError(what, remedy=remedy)
    return torch.device(name)


@contextmanager
def default_torch_settings() -> Iterator[None]:
    """Inside the block, replace a caller's settings of torch by torch's defaults; afterwards, restore the settings.

    The settings are the default type and device of new tensors, autocast, and whether gradients are recorded. This
    function replaces the default type in all threads, and the other settings only in the current thread.
    """
    import torch

    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        # Enter the context `torch.device` only if necessary, because torch's functions are slower inside this context.
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda", "mps"):
            # PyTorch before 2.5 has no autocast for "mps".
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        settings.enter_context(_float32_by_default())
        yield


@shared_by_threads
def _float32_by_default() -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _is_usable(name: str, training: bool) -> bool:
    import torch

    if name == "cuda":
        # A build of PyTorch has all operations for a CUDA GPU, or none, so the test need not cover training.
        return _supports_networks(str(local_device(torch.device(name))), training=False)
    return name == "cpu" or _supports_networks(name, training)


@functools.cache
def _supports_networks(device: str, training: bool) -> bool:
    """Return whether PyTorch implements the 3D operations of networks on `device`.

    Older releases lack some operations on Apple GPUs. PyTorch raises an error only when a missing operation is called.
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
            points = F.affine_grid(identity, [1, 1, 4, 4, 4], align_corners=False)
            for mode in ("bilinear", "nearest"):
                F.grid_sample(volume.detach(), points, mode=mode, align_corners=False).cpu()
    except RuntimeError as error:  # includes NotImplementedError
        return is_out_of_memory(error)  # Too little memory does not mean that an operation is missing.
    return True


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a CPU tensor to the device, without waiting for a CUDA GPU.

    Later operations on the GPU see the copied values.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device has hardware that makes bfloat16 faster than float32.

    NVIDIA's GPUs since Ampere have tensor cores for bfloat16. AMD's GPUs are assumed to have such hardware. Some CPUs
    have matrix tiles (AMX) or dot products (AVX-512 BF16) for bfloat16; other CPUs emulate it, which is many times
    slower than float32.
    """
    import torch

    if device.type == "cuda":
        # Ampere has compute capability 8.0. `torch.cuda.is_bf16_supported` is also true for GPUs that emulate bfloat16.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # Not every PyTorch release has these private functions.
    tests = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(supported() for supported in tests if supported)
