"""The safetensors format against the `safetensors` library, and damaged blocks."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from dcamt.models.tensor_file import pack_tensors, unpack_tensors

library = pytest.importorskip("safetensors.numpy")


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "half": draw.normal(size=(2, 3, 4)).astype(np.float16),
        "single": draw.normal(size=(5,)).astype(np.float32),
        "scalar": np.array(2.5, np.float32),
        "counts": np.array([[1, -(2**40)]], np.int64),
        "bytes": np.arange(7, dtype=np.uint8),
        "none": np.zeros((0, 3), np.float32),
        "Größe": np.ones((1, 1), np.float16),
    }


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def block(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_library_reads_what_we_write() -> None:
    assert_same(library.load(pack_tensors(arrays())), arrays())


def test_we_read_what_the_library_writes() -> None:
    assert_same(unpack_tensors(library.save(arrays(), metadata={"made": "elsewhere"})), arrays())


def test_big_endian_and_strided_arrays_are_stored_by_value() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    assert np.array_equal(library.load(pack_tensors({"a": array}))["a"], [[0, 2], [4, 6], [8, 10]])


def test_order_of_insertion_does_not_show() -> None:
    assert pack_tensors(arrays()) == pack_tensors(dict(reversed(arrays().items())))


def test_another_type_is_refused() -> None:
    with pytest.raises(KeyError):
        pack_tensors({"a": np.zeros(2, np.complex64)})


def test_cut_off_anywhere() -> None:
    whole = pack_tensors(arrays())
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="weights"):
            unpack_tensors(whole[:length])
    with pytest.raises(ValueError, match="too early or too late"):
        unpack_tensors(whole + b"\0")


def test_header_lengths_beyond_the_file() -> None:
    whole = pack_tensors(arrays())
    for length in (len(whole) - 7, 2**31, 2**63, 2**64 - 1):
        with pytest.raises(ValueError, match="header is cut off"):
            unpack_tensors(struct.pack("<Q", length) + whole[8:])


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": entry(), "b": entry(offsets=(4, 12))}, 12),  # overlap
        ({"a": entry(), "b": entry()}, 8),  # the same bytes twice
        ({"a": entry(), "b": entry(offsets=(12, 20))}, 20),  # gap
        ({"a": entry(offsets=(4, 12))}, 12),  # gap at the start
        ({"a": entry()}, 12),  # bytes left over
        ({"a": entry()}, 4),  # bytes missing
        ({"a": entry(offsets=(8, 0))}, 8),
        ({"a": entry(offsets=(-8, 0))}, 8),
        ({"a": entry(offsets=(0, 10**30))}, 8),
        ({"a": entry(offsets=(0,))}, 8),
        ({"a": entry(offsets=(0, 4, 8))}, 8),
        ({"a": entry(offsets=("0", "8"))}, 8),
        ({"a": entry(offsets=(0.0, 8.0))}, 8),
        ({"a": entry(offsets=None)}, 8),
        ({"a": entry(), "b": entry(offsets="x")}, 8),
        ({"a": entry(shape=(-2,))}, 8),
        ({"a": entry(shape=(-1, -2))}, 8),
        ({"a": entry(shape=(3,))}, 8),
        ({"a": entry(shape=(2.5,))}, 8),
        ({"a": entry(shape=(float("inf"),))}, 8),
        ({"a": entry(shape=(float("nan"),))}, 8),
        ({"a": entry(shape="2")}, 8),
        ({"a": entry(shape=2)}, 8),
        ({"a": entry(shape=(1,) * 99 + (2,))}, 8),
        ({"a": entry(shape=(2**32, 2**32), offsets=(0, 0))}, 0),  # 2**64 elements: 0 in 64 bits
        ({"a": entry(shape=(0, 2**80), offsets=(0, 0))}, 0),
        ({"a": entry(shape=(2**61, 2, 2), offsets=(0, 0))}, 0),
        ({"a": entry(dtype="F64")}, 8),
        ({"a": entry(dtype="O")}, 8),
        ({"a": entry(dtype=["F32"])}, 8),
        ({"a": entry(dtype=None)}, 8),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8),
        ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8),
        ({"a": None}, 8),
        ([["a", entry()]], 8),
        (None, 0),
        (b"", 0),
        (b"{", 0),
        (b"\xff\xfe\xff", 0),
        (b"[" * 200_000 + b"]" * 200_000, 0),
    ],
)
def test_a_header_that_lies_is_refused(header: Any, size: int) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - of whatever text, but of this very type or its kind
        unpack_tensors(block(header, bytes(size)))
    assert str(caught.value)


def test_damage_anywhere_raises_nothing_but_value_error() -> None:
    whole = pack_tensors(arrays())
    start = len(whole) - sum(array.nbytes for array in arrays().values())
    draw = np.random.default_rng(1)
    refused = 0
    for place in range(start):
        for value in {0, 0xFF, ord("9"), ord('"'), int(draw.integers(256))} - {whole[place]}:
            try:
                unpack_tensors(whole[:place] + bytes([value]) + whole[place + 1 :])
            except ValueError:
                refused += 1
    assert refused > start
