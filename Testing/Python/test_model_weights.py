"""Damaged weights, and weights that do not fit the recipe, are refused with a one-line message."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcamt.models.package import CARD, RECIPE, WEIGHTS, ModelPackage, open_model, write_package
from dcamt.networks.packaging import verify_model
from dcamt_testing.model_files import read_members, refusal, write_with_checksum

Weights = dict[str, np.ndarray]

MISFIT = "cannot be used: its weights do not fit its recipe's network. Choose another model."


def remove_tensor(weights: Weights) -> None:
    del weights["branches.1.head.bias"]


def add_tensor(weights: Weights) -> None:
    weights["more"] = np.zeros(3, np.float32)


def flatten_tensor(weights: Weights) -> None:
    weights["branches.0.head.weight"] = weights["branches.0.head.weight"].reshape(-1)


def set_tensor_to_nan(weights: Weights) -> None:
    weights["branches.0.head.bias"] = weights["branches.0.head.bias"] * np.float32("nan")


def set_number_to_infinity(weights: Weights) -> None:
    array = weights["branches.0.head.weight"].copy()
    array.flat[3] = np.inf
    weights["branches.0.head.weight"] = array


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (remove_tensor, MISFIT),
        (add_tensor, MISFIT),
        (flatten_tensor, MISFIT),
        (set_tensor_to_nan, "cannot be used: the weights 'branches.0.head.bias' are not finite numbers."),
        (set_number_to_infinity, "cannot be used: the weights 'branches.0.head.weight' are not finite numbers."),
    ],
)
def test_weights_that_misfit_the_recipe_or_are_not_finite_are_refused(
    model_copy: Path, alter: Callable[[Weights], None], message: str
) -> None:
    package = open_model(model_copy)
    weights = dict(package.weights)
    alter(weights)
    write_package(model_copy, replace(package, weights=weights))
    assert refusal(model_copy, verify_model) == message


@pytest.mark.parametrize(
    "network",
    [
        {"channels": (8, 8, 8)},
        {"channels": (4, 8), "convolutions": (1, 1)},
        {"convolutions": (1, 1, 2)},
        {"convolutions": (1, 1, 64)},
        {"channels": (4, 4096, 4096)},
        {"attention_heads": 0},
        {"normalisation": "instance"},
    ],
    ids=str,
)
def test_recipe_of_another_network_is_refused(model_copy: Path, network: dict[str, Any]) -> None:
    package = open_model(model_copy)
    recipe = replace(package.recipe, network=replace(package.recipe.network, **network))
    write_package(model_copy, ModelPackage(package.card, recipe, package.weights))
    assert refusal(model_copy, verify_model) == MISFIT


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"convolutions": (1, 1, 10**9)}, "convolutions must be at most 64."),  # too many layers
        ({"channels": (4, 2**40, 2**40)}, "channels must be at most 4096."),  # more weights than fit into memory
        ({"channels": (4, 2**70, 2**70)}, "channels must be at most 4096."),
    ],
    ids=str,
)
def test_recipe_of_an_enormous_network_is_refused(model_copy: Path, network: dict[str, Any], message: str) -> None:
    package = open_model(model_copy)
    recipe = replace(package.recipe, network=replace(package.recipe.network, **network))
    write_package(model_copy, ModelPackage(package.card, recipe, package.weights))
    assert refusal(model_copy, verify_model) == message


# `safetensors` parses the weights. Whatever it raises, the user sees a one-line message.


def safetensors_bytes(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor_entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    """Return the header's entry for a tensor; `offsets` are the tensor's first byte and the byte after the tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def with_weights(model_copy: Path, weights: bytes) -> Path:
    """Replace the weights and the checksum in a model's file."""
    members = read_members(model_copy)
    return write_with_checksum(model_copy, json.loads(members[CARD]), members[RECIPE], weights)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": tensor_entry(), "b": tensor_entry(offsets=(4, 12))}, 12),  # overlap
        ({"a": tensor_entry(), "b": tensor_entry()}, 8),  # the same bytes twice
        ({"a": tensor_entry(), "b": tensor_entry(offsets=(12, 20))}, 20),  # gap
        ({"a": tensor_entry(offsets=(4, 12))}, 12),  # gap at the start
        ({"a": tensor_entry()}, 12),  # surplus bytes
        ({"a": tensor_entry()}, 4),  # bytes missing
        ({"a": tensor_entry(offsets=(8, 0))}, 8),
        ({"a": tensor_entry(offsets=(-8, 0))}, 8),
        ({"a": tensor_entry(offsets=(0, 10**30))}, 8),
        ({"a": tensor_entry(offsets=(0,))}, 8),
        ({"a": tensor_entry(offsets=(0, 4, 8))}, 8),
        ({"a": tensor_entry(offsets=("0", "8"))}, 8),
        ({"a": tensor_entry(offsets=(0.0, 8.0))}, 8),
        ({"a": tensor_entry(offsets=None)}, 8),
        ({"a": tensor_entry(), "b": tensor_entry(offsets="x")}, 8),
        ({"a": tensor_entry(shape=(-2,))}, 8),
        ({"a": tensor_entry(shape=(-1, -2))}, 8),
        ({"a": tensor_entry(shape=(3,))}, 8),
        ({"a": tensor_entry(shape=(2.5,))}, 8),
        ({"a": tensor_entry(shape=(float("inf"),))}, 8),
        ({"a": tensor_entry(shape=(float("nan"),))}, 8),
        ({"a": tensor_entry(shape="2")}, 8),
        ({"a": tensor_entry(shape=2)}, 8),
        ({"a": tensor_entry(shape=(1,) * 99 + (2,))}, 8),
        ({"a": tensor_entry(shape=(2**32, 2**32), offsets=(0, 0))}, 0),  # 2**64 elements, which overflow to 0
        ({"a": tensor_entry(shape=(0, 2**80), offsets=(0, 0))}, 0),
        ({"a": tensor_entry(shape=(2**61, 2, 2), offsets=(0, 0))}, 0),
        ({"a": tensor_entry(dtype="F64")}, 8),
        ({"a": tensor_entry(dtype="O")}, 8),
        ({"a": tensor_entry(dtype=["F32"])}, 8),
        ({"a": tensor_entry(dtype=None)}, 8),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8),
        ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8),
        ({"a": None}, 8),
        ([["a", tensor_entry()]], 8),
        (None, 0),
        (b"", 0),
        (b"{", 0),
        (b"\xff\xfe\xff", 0),
        (b"[" * 200_000 + b"]" * 200_000, 0),
    ],
)
def test_invalid_weights_header_is_refused(model_copy: Path, header: Any, size: int) -> None:
    assert refusal(with_weights(model_copy, safetensors_bytes(header, bytes(size)))).startswith(
        "cannot be used: the weights"
    )


def test_weights_with_a_wrong_length_or_header_length_are_refused(model_copy: Path) -> None:
    whole = read_members(model_copy)[WEIGHTS]
    for length in [*range(0, 40), *range(40, len(whole), len(whole) // 20), len(whole) - 1]:
        assert refusal(with_weights(model_copy, whole[:length])).startswith("cannot be used: the weights")
    assert refusal(with_weights(model_copy, whole + b"\0")).startswith("cannot be used: the weights")
    for length in (len(whole) - 7, 2**31, 2**63, 2**64 - 1):
        changed = struct.pack("<Q", length) + whole[8:]
        assert refusal(with_weights(model_copy, changed)).startswith("cannot be used: the weights")


@pytest.mark.parametrize("dtype", ["F64", "I64", "U8", "BOOL"])
def test_weights_that_are_not_16_or_32_bit_floats_are_refused(model_copy: Path, dtype: str) -> None:
    size = {"F64": 8, "I64": 8, "U8": 1, "BOOL": 1}[dtype] * 2
    header = {"a": tensor_entry(offsets=(0, size), dtype=dtype)}
    assert "are of the type" in refusal(with_weights(model_copy, safetensors_bytes(header, bytes(size))))


def test_package_of_an_earlier_version_is_read(model_copy: Path) -> None:
    """Earlier versions wrote the arrays in the order of their names; `safetensors` orders them by type first."""
    package = open_model(model_copy)
    header, body = {}, b""
    for name in sorted(package.weights):
        data = package.weights[name].tobytes()
        kind = {2: "F16", 4: "F32"}[package.weights[name].itemsize]
        header[name] = tensor_entry(list(package.weights[name].shape), (len(body), len(body) + len(data)), kind)
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    opened = open_model(with_weights(model_copy, safetensors_bytes(text, body)))
    assert opened.weights.keys() == package.weights.keys()
    assert all(np.array_equal(array, package.weights[name]) for name, array in opened.weights.items())
