"""The choice of the device, and which devices are fast in 16 bits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from dcamt import devices
from dcamt.devices import choose_device, fast_bfloat16
from dcamt.errors import InputError

CPU = torch.device("cpu")
QUESTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no 'cuda' device"):
        choose_device("cuda")


def test_an_apple_gpu_that_lacks_what_volumes_need_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    asked: list[str] = []

    def able(device: str, training: bool, yes: bool) -> bool:
        asked.append(device)
        return yes

    for yes, chosen in ((True, "mps"), (False, "cpu")):
        monkeypatch.setattr(devices, "_supports_volumes", partial(able, yes=yes))
        assert choose_device("auto").type == chosen
    assert asked == ["mps", "mps"]
    assert choose_device("mps").type == "mps"  # who asks for it gets it


@pytest.mark.parametrize("missing", ["conv3d", "conv_transpose3d", "interpolate", "grid_sample"])
def test_each_missing_operation_is_detected(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = devices._supports_volumes.__wrapped__  # each time anew
    assert probe("cpu", training=True)
    assert probe("cpu", training=False)

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("is not currently implemented for the MPS device")

    monkeypatch.setattr(torch.nn.functional, missing, refuse)
    assert not probe("cpu", training=True)
    assert probe("cpu", training=False) is (missing == "grid_sample")  # which only samplers use


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux lists the processor's features")
def test_a_cpu_is_fast_in_bfloat16_if_the_system_lists_tiles_or_dot_products_for_it() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch was built without oneDNN")
    listed = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split()
    assert fast_bfloat16(CPU) == (not {"amx_tile", "avx512_bf16"}.isdisjoint(listed))


@pytest.mark.parametrize(("has", "fast"), [((True, False), True), ((False, True), True), ((False, False), False)])
def test_either_is_enough(has: tuple[bool, bool], fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name, there in zip(QUESTIONS, has, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)
    assert fast_bfloat16(CPU) is fast


def test_without_a_way_to_know_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUESTIONS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert fast_bfloat16(CPU) is False
    assert fast_bfloat16(torch.device("mps")) is False


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_from_ampere_on(capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert fast_bfloat16(torch.device("cuda")) is fast
