"""A model file: the same weights are read back, and every kind of damage and forgery is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from dcamt.errors import InputError, OutputError
from dcamt.models import package as model_package
from dcamt.models.package import CARD, RECIPE, WEIGHTS, open_model, write_package
from dcamt.networks.packaging import build_network, check_weights, save_model
from dcamt_testing.model_files import BLANK_CARD, assemble, fault, make_tiny_network, parts, save_tiny_model, signed
from dcamt_testing.tiny_recipes import tiny_recipe


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.dcamt")


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil, alone in a folder."""
    return Path(shutil.copy(original, tmp_path / "model.dcamt"))


def test_round_trip(original: Path) -> None:
    package = open_model(original)
    check_weights(package, original)
    assert package.recipe == tiny_recipe()
    assert replace(package.card, checksum="") == BLANK_CARD
    network, found = make_tiny_network(), build_network(package).state_dict()
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
    written = save_model(path, make_tiny_network().state_dict(), tiny_recipe(), card)
    assert open_model(path).card == written
    assert replace(written, checksum="") == card


def test_the_same_model_is_the_same_file(original: Path, tmp_path: Path) -> None:
    state = make_tiny_network().state_dict()
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
        save_model(tmp_path / "file" / "x.dcamt", make_tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
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
