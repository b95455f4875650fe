"""A model file: the same weights are read back, and every kind of damage and forgery is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
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
from dcamt_testing.model_files import BLANK_CARD, assemble, fault, make_tiny_network, parts, signed
from dcamt_testing.tiny_recipes import tiny_recipe


def test_round_trip(saved_model: Path) -> None:
    package = open_model(saved_model)
    check_weights(package, saved_model)
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


def test_network_is_ready_for_inference(saved_model: Path) -> None:
    network = build_network(open_model(saved_model))
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


def test_the_same_model_is_the_same_file(saved_model: Path, tmp_path: Path) -> None:
    state = make_tiny_network().state_dict()
    again = tmp_path / "again.dcamt"
    save_model(again, dict(reversed(state.items())), tiny_recipe(), replace(BLANK_CARD, checksum="old"))
    assert again.read_bytes() == saved_model.read_bytes()
    third = tmp_path / "third.dcamt"
    write_package(third, open_model(saved_model))
    assert third.read_bytes() == saved_model.read_bytes()


def test_any_change_changes_the_checksum(saved_model: Path, tmp_path: Path) -> None:
    package = open_model(saved_model)
    weights = {**package.weights, "branches.0.head.bias": package.weights["branches.0.head.bias"] + np.float32(1e-6)}
    changes = [
        replace(package, weights=weights),
        replace(package, recipe=replace(package.recipe, title="another")),
        replace(package, card=replace(package.card, licence="another")),
    ]
    sums = [write_package(tmp_path / f"{number}.dcamt", one).checksum for number, one in enumerate(changes)]
    assert len({package.card.checksum, *sums}) == 4


def test_the_weights_are_safetensors(saved_model: Path) -> None:
    found = safetensors.numpy.load(parts(saved_model)[WEIGHTS])
    package = open_model(saved_model)
    assert found.keys() == package.weights.keys()
    assert all(np.array_equal(array, found[name]) for name, array in package.weights.items())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        save_model(tmp_path / "file" / "x.dcamt", make_tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
    assert os.listdir(tmp_path) == ["file"]


def test_cut_off_anywhere(model_copy: Path) -> None:
    whole = model_copy.read_bytes()
    lengths = [*range(0, 60), *range(60, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 60, len(whole))]
    for length in lengths:
        model_copy.write_bytes(whole[:length])
        assert "is no DCAMT model, or is cut off" in fault(model_copy)


def test_one_byte_altered(model_copy: Path) -> None:
    """In the parts themselves always found; in the zip's own tables found, or without any effect."""
    whole, package = model_copy.read_bytes(), open_model(model_copy)
    inside = np.zeros(len(whole), bool)
    for data in parts(model_copy).values():
        start = whole.index(data)
        inside[start : start + len(data)] = True
    draw = np.random.default_rng(0)
    outside = np.flatnonzero(~inside)
    refused = 0
    for place in [*outside, *draw.choice(np.flatnonzero(inside), 60)]:
        values = {8, int(draw.integers(256))} if not inside[place] else {whole[place] ^ 1, 0xFF - whole[place]}
        for value in values - {whole[place]}:
            model_copy.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                found = open_model(model_copy)
            except InputError:
                refused += 1
                continue
            assert not inside[place]
            assert (found.card, found.recipe) == (package.card, package.recipe)
            assert all(np.array_equal(found.weights[name], array) for name, array in package.weights.items())
    assert refused > 250


def test_altered_parts_in_a_sound_zip(model_copy: Path) -> None:
    """As a tampering program would leave it: the zip's own sums are right, the model's is not."""
    sound = parts(model_copy)
    for name in sound:
        members = dict(sound)
        data = bytearray(members[name])
        data[-3 if name == WEIGHTS else data.index(b"1")] ^= 1
        members[name] = bytes(data)
        assemble(model_copy, list(members.items()))
        assert fault(model_copy).startswith("was altered after it was made: its checksum does not fit.")


@pytest.mark.parametrize("name", [CARD, RECIPE, WEIGHTS])
def test_a_zip_bomb_is_not_unpacked(model_copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_package.LIMITS, WEIGHTS, 1 << 20)
    members = {**parts(model_copy), name: bytes(40 << 20)}
    assemble(model_copy, list(members.items()), zipfile.ZIP_DEFLATED)
    assert model_copy.stat().st_size < 1 << 20
    assert fault(model_copy) == f"its part '{name}' is larger than 1 MB."


def test_a_zip_bomb_with_a_wrong_size_is_refused(model_copy: Path) -> None:
    members = {**parts(model_copy), CARD: bytes(40 << 20)}
    assemble(model_copy, list(members.items()), zipfile.ZIP_DEFLATED)
    raw = model_copy.read_bytes()
    model_copy.write_bytes(raw.replace((40 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    assert fault(model_copy)


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(model_copy: Path, packed: int) -> None:
    assemble(model_copy, list(parts(model_copy).items()), packed)
    assert "is compressed in an unknown way" in fault(model_copy)


def test_a_file_zipped_anew_is_the_same_model(model_copy: Path) -> None:
    package = open_model(model_copy)
    assemble(model_copy, list(reversed(parts(model_copy).items())), zipfile.ZIP_DEFLATED)
    assert open_model(model_copy).card == package.card


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "..\\evil", "C:\\evil", "evil.py", "__init__.py", "recipe.json/", "Card.json", ""]
)
def test_a_part_that_no_model_has(model_copy: Path, name: str) -> None:
    assemble(model_copy, [*parts(model_copy).items(), (name, b"evil")])
    assert fault(model_copy) == f"holds '{name.replace(os.sep, '/')}', which no model contains; nothing was read."
    sound = parts(model_copy)
    assemble(model_copy, [(CARD, sound[CARD]), (name, b"evil"), (WEIGHTS, sound[WEIGHTS])])
    assert "which no model contains" in fault(model_copy)


@pytest.mark.parametrize("name", [CARD, RECIPE, WEIGHTS])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_twice_or_missing(model_copy: Path, name: str) -> None:
    sound = parts(model_copy)
    assemble(model_copy, [*sound.items(), (name, sound[name])])
    assert "a part is missing or occurs twice" in fault(model_copy)
    left = [(other, data) for other, data in sound.items() if other != name]
    assemble(model_copy, left)
    assert "a part is missing or occurs twice" in fault(model_copy)
    other = next(iter(left))
    assemble(model_copy, [*left, other])
    assert fault(model_copy)


def test_files_that_are_no_model(model_copy: Path, tmp_path: Path) -> None:
    assert fault(tmp_path / "gone.dcamt") == "there is no such model file."
    assert fault(tmp_path) == "there is no such model file."
    for data in (b"", b"no zip", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), os.urandom(3000)):
        model_copy.write_bytes(data)
        assert fault(model_copy)


class Trap:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_inside_is_never_loaded(model_copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    card, recipe = json.loads(parts(model_copy)[CARD]), parts(model_copy)[RECIPE]
    model_copy.write_bytes(trap)
    fault(model_copy)
    torch.save({"a": torch.ones(3), "trap": Trap(mark)}, model_copy)
    fault(model_copy)
    for name in (CARD, RECIPE, WEIGHTS):
        assemble(model_copy, list({**parts_of(card, recipe), name: trap}.items()))
        fault(model_copy)
    signed(model_copy, card, recipe, trap)
    assert fault(model_copy).startswith("cannot be used: the weights")
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
def test_cards_of_other_versions_and_types(model_copy: Path, change: dict[str, Any], message: str) -> None:
    members = parts(model_copy)
    members[CARD] = json.dumps({**json.loads(members[CARD]), **change}).encode()
    assemble(model_copy, list(members.items()))
    assert fault(model_copy).startswith(message)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"format": 1}', b"\xff\xfe\xff", b"[" * 200_000]
)
def test_cards_and_recipes_that_are_none(model_copy: Path, data: bytes) -> None:
    sound = parts(model_copy)
    assemble(model_copy, list({**sound, CARD: data}.items()))
    assert fault(model_copy).startswith("its card cannot be read")
    signed(model_copy, json.loads(sound[CARD]), data, sound[WEIGHTS])
    assert fault(model_copy)


def test_a_card_with_a_key_of_a_later_version_is_read(model_copy: Path) -> None:
    sound = parts(model_copy)
    signed(model_copy, {**json.loads(sound[CARD]), "colour": "red"}, sound[RECIPE], sound[WEIGHTS])
    assert open_model(model_copy).card.name == "tiny"
