"""Test the choice of the device, and the check for fast bfloat16."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from dcamt import devices
from dcamt.devices import choose_device, fast_bfloat16
from dcamt.errors import InputError

CPU = torch.device("cpu")
CPU_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""Functions of `torch.cpu` that detect instructions for bfloat16."""


def test_error_names_the_missing_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no 'cuda' device"):
        choose_device("cuda")


def test_auto_skips_an_apple_gpu_without_the_needed_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    asked: list[str] = []

    def record_device(device: str, training: bool, supports: bool) -> bool:
        asked.append(device)
        return supports

    for supports, chosen in ((True, "mps"), (False, "cpu")):
        monkeypatch.setattr(devices, "_supports_networks", partial(record_device, supports=supports))
        assert choose_device("auto").type == chosen
    assert set(asked) == {"mps"}


def test_cuda_gpu_that_pytorch_does_not_support_is_skipped_by_auto_and_refused_if_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for training in (False, True):
        monkeypatch.setattr(devices, "_supports_networks", lambda device, training: True)
        assert choose_device("auto", training).type == choose_device("cuda", training).type == "cuda"
        monkeypatch.setattr(devices, "_supports_networks", lambda device, training: False)
        assert choose_device("auto", training).type == "cpu"
        with pytest.raises(InputError, match=r"cannot compute on this machine's 'cuda' device.*--device auto"):
            choose_device("cuda", training)


def test_each_process_of_a_team_tests_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[str] = []

    def record_device(device: str, training: bool) -> bool:
        tested.append(device)
        return True

    for name, number in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(devices, "_supports_networks", record_device)
    choose_device("auto", training=True)
    assert set(tested) == {"cuda:2"}


def test_chosen_apple_gpu_without_the_operations_of_training_is_refused_only_for_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_supports_networks", lambda device, training: not training)
    assert choose_device("mps").type == "mps"
    with pytest.raises(InputError, match=r"lacks operations on the 'mps' device.*--device auto.*update PyTorch"):
        choose_device("mps", training=True)


@pytest.mark.parametrize("missing", ["conv3d", "conv_transpose3d", "interpolate", "grid_sample"])
def test_each_missing_operation_is_detected(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = devices._supports_networks.__wrapped__  # the uncached function
    assert probe("cpu", training=True)
    assert probe("cpu", training=False)

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("is not currently implemented for the MPS device")

    monkeypatch.setattr(torch.nn.functional, missing, refuse)
    assert not probe("cpu", training=True)
    assert probe("cpu", training=False) is (missing == "grid_sample")  # only training uses grid_sample


@pytest.mark.parametrize(
    ("error", "supported"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), True),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), False),
    ],
)
def test_full_gpu_does_not_count_as_unsupported(
    error: RuntimeError, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.nn.functional, "conv3d", fail)
    assert devices._supports_networks.__wrapped__("cpu", training=False) is supported


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux lists the processor's features")
def test_cpu_flags_tell_whether_bfloat16_is_fast() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch was built without oneDNN")
    listed = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split()
    assert fast_bfloat16(CPU) == (not {"amx_tile", "avx512_bf16"}.isdisjoint(listed))


@pytest.mark.parametrize(("features", "fast"), [((True, False), True), ((False, True), True), ((False, False), False)])
def test_only_a_cpu_with_avx512_bf16_or_amx_is_fast_in_bfloat16(
    features: tuple[bool, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name, supported in zip(CPU_CHECKS, features, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda supported=supported: supported, raising=False)
    assert fast_bfloat16(CPU) is fast


def test_apple_gpu_and_cpu_with_unknown_features_count_as_slow_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CPU_CHECKS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert fast_bfloat16(CPU) is False
    assert fast_bfloat16(torch.device("mps")) is False


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpu_is_fast_in_bfloat16_from_ampere_on(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert fast_bfloat16(torch.device("cuda")) is fast
