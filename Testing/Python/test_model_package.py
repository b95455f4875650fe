"""A model file: the same weights back, and every kind of damage and trick refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from dcamt.errors import InputError, OutputError
from dcamt.models import package as model_package
from dcamt.models.package import CARD, RECIPE, WEIGHTS, Card, ModelPackage, open_model, write_package
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import build_network, check_weights, save_model, verify_model
from dcamt_testing.tiny_recipes import tiny_recipe

BLANK_CARD = Card("tiny", "A tiny model", ("Left atrium",), "MRI", "1", "CC0-1.0", "2024-01-01")


def tiny_network() -> DualVNet:
    torch.manual_seed(7)
    network = DualVNet(tiny_recipe())
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape) * 0.1)  # so that no weight is an exact 0 or 1
    return network.eval()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.dcamt"
    save_model(path, tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
    return path


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil, alone in a folder."""
    return Path(shutil.copy(original, tmp_path / "model.dcamt"))


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def assemble(path: Path, members: list[tuple[str, bytes]], packed: int = zipfile.ZIP_STORED) -> Path:
    """A zip of the members by Python's own library, names as they are."""
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return path


def signed(path: Path, card: dict[str, Any], recipe: bytes, weights: bytes) -> Path:
    """A package of any content whose checksum fits, as a forger could make it."""
    known = {key: tuple(v) if isinstance(v, list) else v for key, v in card.items() if key in asdict(BLANK_CARD)}
    checksum = model_package._checksum(weights, recipe, replace(Card(**known), checksum=""))
    data = json.dumps({**card, "checksum": checksum}).encode()
    return assemble(path, [(CARD, data), (RECIPE, recipe), (WEIGHTS, weights)])


def fault(path: Path, check: Callable[[Path], object] = open_model) -> str:
    """The message with which a file is refused; nothing may appear beside it."""
    beside = sorted(os.listdir(path.parent.parent)), sorted(os.listdir(path.parent)), sorted(os.listdir())
    with pytest.raises(InputError) as caught:
        check(path)
    assert (sorted(os.listdir(path.parent.parent)), sorted(os.listdir(path.parent)), sorted(os.listdir())) == beside
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_round_trip(original: Path) -> None:
    package = open_model(original)
    check_weights(package, original)
    assert package.recipe == tiny_recipe()
    assert replace(package.card, checksum="") == BLANK_CARD
    network, found = tiny_network(), build_network(package).state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:  # 11 bits of precision; below 6e-5 a fixed step of 6e-8
            assert torch.allclose(found[name], tensor, rtol=2**-11, atol=2**-25)
            assert package.weights[name].dtype == np.float16
        elif tensor.is_floating_point():
            assert torch.equal(found[name], tensor)
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        before, after = network(image), build_network(package)(image)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one.logits, other.logits, atol=0.02)
        assert not torch.equal(one.logits, other.logits)  # 16 bits they are


def test_network_is_ready_for_inference(original: Path) -> None:
    network = build_network(open_model(original))
    assert not network.training
    assert all(tensor.dtype == torch.float32 for tensor in network.parameters())


def test_card_of_a_rich_model_comes_back(tmp_path: Path) -> None:
    card = replace(
        BLANK_CARD,
        title="Vorhof – «left»",
        segments=("Left atrium", "Right atrium"),
        trained_on={"labelled": 3, "share": 0.25, "places": ["a", "b"], "none": None},
        measured=({"on": "x", "dice": {"mean": {"Left atrium": 0.9}}}, {"on": "y"}),
        notes='two\nlines and a "quote"',
    )
    path = tmp_path / "rich.dcamt"
    written = save_model(path, tiny_network().state_dict(), tiny_recipe(), card)
    assert open_model(path).card == written
    assert replace(written, checksum="") == card


def test_the_same_model_is_the_same_file(original: Path, tmp_path: Path) -> None:
    state = tiny_network().state_dict()
    again = tmp_path / "again.dcamt"
    save_model(again, dict(reversed(state.items())), tiny_recipe(), replace(BLANK_CARD, checksum="old"))
    assert again.read_bytes() == original.read_bytes()
    third = tmp_path / "third.dcamt"
    write_package(third, open_model(original))
    assert third.read_bytes() == original.read_bytes()


def test_any_change_changes_the_checksum(original: Path, tmp_path: Path) -> None:
    package = open_model(original)
    weights = {**package.weights, "branches.0.head.bias": package.weights["branches.0.head.bias"] + np.float32(1e-6)}
    changes = [
        replace(package, weights=weights),
        replace(package, recipe=replace(package.recipe, title="another")),
        replace(package, card=replace(package.card, licence="another")),
    ]
    sums = [write_package(tmp_path / f"{number}.dcamt", one).checksum for number, one in enumerate(changes)]
    assert len({package.card.checksum, *sums}) == 4


def test_the_weights_are_safetensors(original: Path) -> None:
    found = safetensors.numpy.load(parts(original)[WEIGHTS])
    package = open_model(original)
    assert found.keys() == package.weights.keys()
    assert all(np.array_equal(array, found[name]) for name, array in package.weights.items())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        save_model(tmp_path / "file" / "x.dcamt", tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
    assert os.listdir(tmp_path) == ["file"]


def test_cut_off_anywhere(model: Path) -> None:
    whole = model.read_bytes()
    lengths = [*range(0, 60), *range(60, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 60, len(whole))]
    for length in lengths:
        model.write_bytes(whole[:length])
        assert "is no DCAMT model, or is cut off" in fault(model)


def test_one_byte_altered(model: Path) -> None:
    """In the parts themselves always found; in the zip's own tables found, or without any effect."""
    whole, package = model.read_bytes(), open_model(model)
    inside = np.zeros(len(whole), bool)
    for data in parts(model).values():
        start = whole.index(data)
        inside[start : start + len(data)] = True
    draw = np.random.default_rng(0)
    outside = np.flatnonzero(~inside)
    refused = 0
    for place in [*outside, *draw.choice(np.flatnonzero(inside), 60)]:
        values = {8, int(draw.integers(256))} if not inside[place] else {whole[place] ^ 1, 0xFF - whole[place]}
        for value in values - {whole[place]}:
            model.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                found = open_model(model)
            except InputError:
                refused += 1
                continue
            assert not inside[place]
            assert (found.card, found.recipe) == (package.card, package.recipe)
            assert all(np.array_equal(found.weights[name], array) for name, array in package.weights.items())
    assert refused > 250


def test_altered_parts_in_a_sound_zip(model: Path) -> None:
    """As a tampering program would leave it: the zip's own sums are right, the model's is not."""
    sound = parts(model)
    for name in sound:
        members = dict(sound)
        data = bytearray(members[name])
        data[-3 if name == WEIGHTS else data.index(b"1")] ^= 1
        members[name] = bytes(data)
        assemble(model, list(members.items()))
        assert fault(model).startswith("was altered after it was made: its checksum does not fit.")


@pytest.mark.parametrize("name", [CARD, RECIPE, WEIGHTS])
def test_a_zip_bomb_is_not_unpacked(model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_package.LIMITS, WEIGHTS, 1 << 20)
    members = {**parts(model), name: bytes(40 << 20)}
    assemble(model, list(members.items()), zipfile.ZIP_DEFLATED)
    assert model.stat().st_size < 1 << 20
    assert fault(model) == f"its part '{name}' is larger than 1 MB."


def test_a_zip_bomb_with_a_wrong_size_is_refused(model: Path) -> None:
    members = {**parts(model), CARD: bytes(40 << 20)}
    assemble(model, list(members.items()), zipfile.ZIP_DEFLATED)
    raw = model.read_bytes()
    model.write_bytes(raw.replace((40 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    assert fault(model)


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(model: Path, packed: int) -> None:
    assemble(model, list(parts(model).items()), packed)
    assert "is compressed in an unknown way" in fault(model)


def test_a_file_zipped_anew_is_the_same_model(model: Path) -> None:
    package = open_model(model)
    assemble(model, list(reversed(parts(model).items())), zipfile.ZIP_DEFLATED)
    assert open_model(model).card == package.card


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "..\\evil", "C:\\evil", "evil.py", "__init__.py", "recipe.json/", "Card.json", ""]
)
def test_a_part_that_no_model_has(model: Path, name: str) -> None:
    assemble(model, [*parts(model).items(), (name, b"evil")])
    assert fault(model) == f"holds '{name.replace(os.sep, '/')}', which no model contains; nothing was read."
    sound = parts(model)
    assemble(model, [(CARD, sound[CARD]), (name, b"evil"), (WEIGHTS, sound[WEIGHTS])])
    assert "which no model contains" in fault(model)


@pytest.mark.parametrize("name", [CARD, RECIPE, WEIGHTS])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_twice_or_missing(model: Path, name: str) -> None:
    sound = parts(model)
    assemble(model, [*sound.items(), (name, sound[name])])
    assert "a part is missing or occurs twice" in fault(model)
    left = [(other, data) for other, data in sound.items() if other != name]
    assemble(model, left)
    assert "a part is missing or occurs twice" in fault(model)
    other = next(iter(left))
    assemble(model, [*left, other])
    assert fault(model)


def test_files_that_are_no_model(model: Path, tmp_path: Path) -> None:
    assert fault(tmp_path / "gone.dcamt") == "there is no such model file."
    assert fault(tmp_path) == "there is no such model file."
    for data in (b"", b"no zip", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), os.urandom(3000)):
        model.write_bytes(data)
        assert fault(model)


class Trap:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_inside_is_never_loaded(model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    card, recipe = json.loads(parts(model)[CARD]), parts(model)[RECIPE]
    model.write_bytes(trap)
    fault(model)
    torch.save({"a": torch.ones(3), "trap": Trap(mark)}, model)
    fault(model)
    for name in (CARD, RECIPE, WEIGHTS):
        assemble(model, list({**parts_of(card, recipe), name: trap}.items()))
        fault(model)
    signed(model, card, recipe, trap)
    assert fault(model).startswith("cannot be used: the weights")
    assert not mark.exists()
    pickle.loads(trap)
    assert mark.exists()  # the trap works


def parts_of(card: dict[str, Any], recipe: bytes) -> dict[str, bytes]:
    return {CARD: json.dumps(card).encode(), RECIPE: recipe, WEIGHTS: safetensors.numpy.save({})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is a model of format 2; this DCAMT reads format 1. Update DCAMT."),
        ({"format": "1"}, "is a model of format 1; this DCAMT reads format 1. Update DCAMT."),
        ({"format": None}, "is a model of format None; this DCAMT reads format 1. Update DCAMT."),
        ({"name": 5}, "its card cannot be read"),
        ({"title": None}, "its card cannot be read"),
        ({"checksum": ["x"]}, "its card cannot be read"),
        ({"segments": [1, 2]}, "its card cannot be read"),
        ({"segments": 3}, "its card cannot be read"),
        ({"measured": ["ninety percent"]}, "its card cannot be read"),
        ({"measured": 90}, "its card cannot be read"),
        ({"measured": [{"dice": {"mean": 0.9}}]}, "its card cannot be read"),
        ({"measured": [{"dice": {"mean": {"Left atrium": "0.9"}}}]}, "its card cannot be read"),
        ({"trained_on": "sixty scans"}, "its card cannot be read"),
    ],
)
def test_cards_of_other_versions_and_types(model: Path, change: dict[str, Any], message: str) -> None:
    members = parts(model)
    members[CARD] = json.dumps({**json.loads(members[CARD]), **change}).encode()
    assemble(model, list(members.items()))
    assert fault(model).startswith(message)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"format": 1}', b"\xff\xfe\xff", b"[" * 200_000]
)
def test_cards_and_recipes_that_are_none(model: Path, data: bytes) -> None:
    sound = parts(model)
    assemble(model, list({**sound, CARD: data}.items()))
    assert fault(model).startswith("its card cannot be read")
    signed(model, json.loads(sound[CARD]), data, sound[WEIGHTS])
    assert fault(model)


def test_a_card_with_a_key_of_a_later_version_is_read(model: Path) -> None:
    sound = parts(model)
    signed(model, {**json.loads(sound[CARD]), "colour": "red"}, sound[RECIPE], sound[WEIGHTS])
    assert open_model(model).card.name == "tiny"


Weights = dict[str, np.ndarray]


def without_one(weights: Weights) -> None:
    del weights["branches.1.head.bias"]


def with_one_more(weights: Weights) -> None:
    weights["more"] = np.zeros(3, np.float32)


def reshaped(weights: Weights) -> None:
    weights["branches.0.head.weight"] = weights["branches.0.head.weight"].reshape(-1)


def not_a_number(weights: Weights) -> None:
    weights["branches.0.head.bias"] = weights["branches.0.head.bias"] * np.float32("nan")


def infinite(weights: Weights) -> None:
    array = weights["branches.0.head.weight"].copy()
    array.flat[3] = np.inf
    weights["branches.0.head.weight"] = array


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_one, "cannot be used: its weights do not fit its recipe's network."),
        (with_one_more, "cannot be used: its weights do not fit its recipe's network."),
        (reshaped, "cannot be used: its weights do not fit its recipe's network."),
        (not_a_number, "cannot be used: the weights 'branches.0.head.bias' are not finite numbers."),
        (infinite, "cannot be used: the weights 'branches.0.head.weight' are not finite numbers."),
    ],
)
def test_weights_that_do_not_fit(model: Path, spoil: Callable[[Weights], None], message: str) -> None:
    package = open_model(model)
    weights = dict(package.weights)
    spoil(weights)
    write_package(model, replace(package, weights=weights))
    assert fault(model, verify_model) == message


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
def test_a_recipe_of_another_network(model: Path, network: dict[str, Any]) -> None:
    package = open_model(model)
    recipe = replace(package.recipe, network=replace(package.recipe.network, **network))
    write_package(model, ModelPackage(package.card, recipe, package.weights))
    assert fault(model, verify_model) == "cannot be used: its weights do not fit its recipe's network."


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"convolutions": (1, 1, 10**9)}, "convolutions must be at most 64."),  # would take for ever to build
        ({"channels": (4, 2**40, 2**40)}, "channels must be at most 4096."),  # beyond any tensor
        ({"channels": (4, 2**70, 2**70)}, "channels must be at most 4096."),
    ],
    ids=str,
)
def test_a_recipe_of_an_enormous_network_is_refused(model: Path, network: dict[str, Any], message: str) -> None:
    package = open_model(model)
    recipe = replace(package.recipe, network=replace(package.recipe.network, **network))
    write_package(model, ModelPackage(package.card, recipe, package.weights))
    assert fault(model, verify_model) == message


# The weights' block of bytes: read by `safetensors`, but whatever it holds, a model is refused in one line.


def block(header: Any, body: bytes = b"") -> bytes:
    """Bytes in the safetensors format: the header's length (8 bytes), the header (JSON), the arrays."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def with_weights(model: Path, weights: bytes) -> Path:
    sound = parts(model)
    return signed(model, json.loads(sound[CARD]), sound[RECIPE], weights)


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
def test_a_wrong_weights_header_is_refused(model: Path, header: Any, size: int) -> None:
    assert fault(with_weights(model, block(header, bytes(size)))).startswith("cannot be used: the weights")


def test_weights_cut_off_or_too_long(model: Path) -> None:
    whole = parts(model)[WEIGHTS]
    for length in [*range(0, 40), *range(40, len(whole), len(whole) // 20), len(whole) - 1]:
        assert fault(with_weights(model, whole[:length])).startswith("cannot be used: the weights")
    assert fault(with_weights(model, whole + b"\0")).startswith("cannot be used: the weights")
    for length in (len(whole) - 7, 2**31, 2**63, 2**64 - 1):
        changed = struct.pack("<Q", length) + whole[8:]
        assert fault(with_weights(model, changed)).startswith("cannot be used: the weights")


@pytest.mark.parametrize("dtype", ["F64", "I64", "U8", "BOOL"])
def test_weights_that_are_no_16_or_32_bit_floats(model: Path, dtype: str) -> None:
    size = {"F64": 8, "I64": 8, "U8": 1, "BOOL": 1}[dtype] * 2
    header = {"a": entry(offsets=(0, size), dtype=dtype)}
    assert "are of the type" in fault(with_weights(model, block(header, bytes(size))))


def test_a_package_of_an_earlier_version_opens(model: Path) -> None:
    """Before `safetensors` wrote them, arrays of all types lay in the order of their names."""
    package = open_model(model)
    header, body = {}, b""
    for name in sorted(package.weights):
        data = package.weights[name].tobytes()
        kind = {2: "F16", 4: "F32"}[package.weights[name].itemsize]
        header[name] = entry(list(package.weights[name].shape), (len(body), len(body) + len(data)), kind)
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    found = open_model(with_weights(model, block(text, body)))
    assert found.weights.keys() == package.weights.keys()
    assert all(np.array_equal(array, package.weights[name]) for name, array in found.weights.items())
