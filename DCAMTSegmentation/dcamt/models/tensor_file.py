"""Named arrays in one block of bytes: the safetensors format, read and written with numpy alone.

The format: 8 bytes, the little-endian length N of the header; N bytes of JSON, `{name: {"dtype", "shape",
"data_offsets"}}`; the arrays' bytes, one after the other. https://github.com/huggingface/safetensors
Training has to run with torch, numpy and nibabel alone, and every byte of a model file is checked on opening; the
`safetensors` library reads what this writes, and the other way round (see the tests).
"""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}


def pack_tensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as safetensors bytes, in the order of their names.

    Raises:
        KeyError: an array's type is none of `DTYPES`.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, object] = {}
    blocks: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        array = tensors[name]
        block = array.astype(array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": codes[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(block)],
        }
        blocks.append(block)
        offset += len(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays start aligned, as the format advises
    return struct.pack("<Q", len(text)) + text + b"".join(blocks)


def unpack_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The arrays in safetensors bytes, as views of them.

    Raises:
        ValueError: the bytes are not such a block, whole and without gaps or overlaps; the text says why.
    """
    if len(data) < 8:
        raise ValueError("the weights are cut off")
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise ValueError("the weights' header is cut off")
    try:
        header = json.loads(data[8 : 8 + length])
        entries = sorted(
            ((name, entry) for name, entry in header.items() if name != "__metadata__"),
            key=lambda item: item[1]["data_offsets"],
        )
        body = memoryview(data)[8 + length :]
        arrays: dict[str, np.ndarray] = {}
        position = 0
        for name, entry in entries:
            begin, end = entry["data_offsets"]
            dtype, shape = DTYPES[entry["dtype"]], tuple(operator.index(n) for n in entry["shape"])
            fits = begin == position and begin <= end <= len(body) and min((0, *shape)) == 0
            if not fits or end - begin != dtype.itemsize * math.prod(shape):
                raise ValueError(f"the weights' entry '{name}' does not fit")
            arrays[name] = np.frombuffer(body[begin:end], dtype).reshape(shape)
            position = end
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the weights' header is not understood ({error})") from error
    if position != len(body):
        raise ValueError("the weights end too early or too late")
    return arrays
