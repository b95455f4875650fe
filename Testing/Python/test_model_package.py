"""Model packages are saved and read back, and damaged or forged files are refused with a one-line message."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
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
from dcamt.models.package import (
    CARD,
    RECIPE,
    WEIGHTS,
    open_model,
    read_calibration,
    read_card,
    read_recipe,
    write_package,
)
from dcamt.networks.packaging import build_network, check_weights, save_model
from dcamt_testing.model_files import (
    BLANK_CARD,
    Trap,
    make_tiny_network,
    read_members,
    refusal,
    write_with_checksum,
    write_zip,
)
from dcamt_testing.tiny_recipes import tiny_recipe


def test_saved_model_is_read_back_with_weights_rounded_to_16_bits(saved_model: Path) -> None:
    package = open_model(saved_model)
    check_weights(package, saved_model)
    assert package.recipe == tiny_recipe()
    assert replace(package.card, checksum="") == BLANK_CARD
    network, weights = make_tiny_network(), build_network(package).state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            assert torch.equal(weights[name], tensor.half().float())
            assert package.weights[name].dtype == np.float16
        elif tensor.is_floating_point():
            assert torch.equal(weights[name], tensor)
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        before, after = network(image), build_network(package)(image)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one.logits, other.logits, atol=0.02)
        assert not torch.equal(one.logits, other.logits)


def test_network_is_ready_for_inference(saved_model: Path) -> None:
    network = build_network(open_model(saved_model))
    assert not network.training
    assert all(tensor.dtype == torch.float32 for tensor in network.parameters())


def test_loading_a_model_does_not_import_sympy(saved_model: Path) -> None:
    """Torch imports sympy for some functions of tensors on the meta device; this takes time and 40 MB of memory."""
    program = """if True:
        import sys
        from dcamt.inference.predictor import Predictor
        from dcamt.networks.packaging import verify_model
        before = set(sys.modules)
        Predictor(verify_model(sys.argv[1]))
        print("sympy" in set(sys.modules) - before)
        """
    done = subprocess.run([sys.executable, "-c", program, saved_model], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_card_with_every_kind_of_value_is_read_back(tmp_path: Path) -> None:
    card = replace(
        BLANK_CARD,
        title="Vorhof – «left»",
        segments=("Left atrium", "Right atrium"),
        trained_on={"labelled": 3, "fraction": 0.25, "places": ["a", "b"], "none": None},
        measured=({"on": "x", "dice": {"mean": {"Left atrium": 0.9}}}, {"on": "y"}),
        notes='two\nlines and a "quote"',
    )
    path = tmp_path / "rich.dcamt"
    written = save_model(path, make_tiny_network().state_dict(), tiny_recipe(), card)
    assert open_model(path).card == written
    assert replace(written, checksum="") == card


def test_equal_models_give_identical_files(saved_model: Path, tmp_path: Path) -> None:
    state = make_tiny_network().state_dict()
    again = tmp_path / "again.dcamt"
    save_model(again, dict(reversed(state.items())), tiny_recipe(), replace(BLANK_CARD, checksum="old"))
    assert again.read_bytes() == saved_model.read_bytes()
    third = tmp_path / "third.dcamt"
    write_package(third, open_model(saved_model))
    assert third.read_bytes() == saved_model.read_bytes()


def test_change_of_weights_recipe_or_card_changes_the_checksum(saved_model: Path, tmp_path: Path) -> None:
    package = open_model(saved_model)
    weights = {**package.weights, "branches.0.head.bias": package.weights["branches.0.head.bias"] + np.float32(1e-6)}
    changes = [
        replace(package, weights=weights),
        replace(package, recipe=replace(package.recipe, title="another")),
        replace(package, card=replace(package.card, licence="another")),
    ]
    sums = [write_package(tmp_path / f"{number}.dcamt", one).checksum for number, one in enumerate(changes)]
    assert len({package.card.checksum, *sums}) == 4


def test_weights_are_readable_by_safetensors(saved_model: Path) -> None:
    weights = safetensors.numpy.load(read_members(saved_model)[WEIGHTS])
    package = open_model(saved_model)
    assert weights.keys() == package.weights.keys()
    assert all(np.array_equal(array, weights[name]) for name, array in package.weights.items())


def test_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        save_model(tmp_path / "file" / "x.dcamt", make_tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
    assert os.listdir(tmp_path) == ["file"]


def test_truncated_file_is_refused_at_many_lengths(model_copy: Path) -> None:
    whole = model_copy.read_bytes()
    lengths = [*range(0, 60), *range(60, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 60, len(whole))]
    for length in lengths:
        model_copy.write_bytes(whole[:length])
        assert "is no DCAMT model, or is cut off" in refusal(model_copy)


def test_altered_byte_is_detected_or_changes_nothing(model_copy: Path) -> None:
    """A change within a member is detected. A change in the zip's own tables is detected or has no effect."""
    whole, package = model_copy.read_bytes(), open_model(model_copy)
    is_member = np.zeros(len(whole), bool)
    for data in read_members(model_copy).values():
        start = whole.index(data)
        is_member[start : start + len(data)] = True
    draw = np.random.default_rng(0)
    table_places = np.flatnonzero(~is_member)
    detected = 0
    for place in [*table_places, *draw.choice(np.flatnonzero(is_member), 60)]:
        values = {8, int(draw.integers(256))} if not is_member[place] else {whole[place] ^ 1, 0xFF - whole[place]}
        for value in values - {whole[place]}:
            model_copy.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                opened = open_model(model_copy)
            except InputError:
                detected += 1
                continue
            assert not is_member[place]
            assert (opened.card, opened.recipe) == (package.card, package.recipe)
            assert all(np.array_equal(opened.weights[name], array) for name, array in package.weights.items())
    assert detected > 250


def test_altered_member_is_detected_when_the_zip_checksums_are_valid(model_copy: Path) -> None:
    original = read_members(model_copy)
    for name in original:
        members = dict(original)
        data = bytearray(members[name])
        data[-3 if name == WEIGHTS else data.index(b"1")] ^= 1
        members[name] = bytes(data)
        write_zip(model_copy, list(members.items()))
        assert refusal(model_copy).startswith("is damaged or was changed: its checksum does not match.")


@pytest.mark.parametrize("name", [CARD, RECIPE, WEIGHTS])
def test_zip_bomb_is_refused(model_copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_package.LIMITS, WEIGHTS, 1 << 20)
    members = {**read_members(model_copy), name: bytes(40 << 20)}
    write_zip(model_copy, list(members.items()), zipfile.ZIP_DEFLATED)
    assert model_copy.stat().st_size < 1 << 20
    assert refusal(model_copy) == f"its part '{name}' is larger than 1 MB."


def test_zip_bomb_that_declares_a_small_size_is_refused(model_copy: Path) -> None:
    members = {**read_members(model_copy), CARD: bytes(40 << 20)}
    write_zip(model_copy, list(members.items()), zipfile.ZIP_DEFLATED)
    raw = model_copy.read_bytes()
    model_copy.write_bytes(raw.replace((40 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    assert refusal(model_copy)


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unsupported_compression_is_refused(model_copy: Path, packed: int) -> None:
    write_zip(model_copy, list(read_members(model_copy).items()), packed)
    assert "is compressed in an unknown way" in refusal(model_copy)


def test_rezipped_package_is_the_same_model(model_copy: Path) -> None:
    package = open_model(model_copy)
    write_zip(model_copy, list(reversed(read_members(model_copy).items())), zipfile.ZIP_DEFLATED)
    assert open_model(model_copy).card == package.card


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "..\\evil", "C:\\evil", "evil.py", "__init__.py", "recipe.json/", "Card.json", ""]
)
def test_unknown_member_is_refused(model_copy: Path, name: str) -> None:
    write_zip(model_copy, [*read_members(model_copy).items(), (name, b"evil")])
    assert refusal(model_copy) == f"is not a DCAMT model: it contains the unknown file '{name.replace(os.sep, '/')}'."
    original = read_members(model_copy)
    write_zip(model_copy, [(CARD, original[CARD]), (name, b"evil"), (WEIGHTS, original[WEIGHTS])])
    assert "is not a DCAMT model: it contains the unknown file" in refusal(model_copy)


@pytest.mark.parametrize("name", [CARD, RECIPE, WEIGHTS])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_or_missing_member_is_refused(model_copy: Path, name: str) -> None:
    original = read_members(model_copy)
    write_zip(model_copy, [*original.items(), (name, original[name])])
    assert "a part is missing or occurs twice" in refusal(model_copy)
    without = [(other, data) for other, data in original.items() if other != name]
    write_zip(model_copy, without)
    assert "a part is missing or occurs twice" in refusal(model_copy)
    write_zip(model_copy, [*without, without[0]])  # one part is missing, another occurs twice
    assert refusal(model_copy)


def test_path_without_a_model_is_refused(model_copy: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.dcamt") == "there is no such model file. Check the name and the folder."
    assert refusal(tmp_path).startswith("is a folder, not a model file.")
    for read in (read_card, read_recipe, read_calibration):
        with pytest.raises(InputError, match=r"there is no such model file\. Check the name and the folder\.$"):
            read(tmp_path / "gone.dcamt")
    for data in (b"", b"no zip", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), os.urandom(3000)):
        model_copy.write_bytes(data)
        assert refusal(model_copy)


def test_pickle_in_place_of_a_package_or_member_is_not_loaded(model_copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    card, recipe = json.loads(read_members(model_copy)[CARD]), read_members(model_copy)[RECIPE]
    model_copy.write_bytes(trap)
    refusal(model_copy)
    torch.save({"a": torch.ones(3), "trap": Trap(mark)}, model_copy)
    refusal(model_copy)
    for name in (CARD, RECIPE, WEIGHTS):
        write_zip(model_copy, list({**make_members(card, recipe), name: trap}.items()))
        refusal(model_copy)
    write_with_checksum(model_copy, card, recipe, trap)
    assert refusal(model_copy).startswith("cannot be used: the weights")
    assert not mark.exists()
    pickle.loads(trap)
    assert mark.exists()  # loading the pickle does create the folder `mark`


def make_members(card: dict[str, Any], recipe: bytes) -> dict[str, bytes]:
    return {CARD: json.dumps(card).encode(), RECIPE: recipe, WEIGHTS: safetensors.numpy.save({})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is a model of format 2; this DCAMT reads format 1. Update DCAMT."),
        ({"format": "1"}, "its model card cannot be read (its format is '1', not 1)"),
        ({"format": None}, "its model card cannot be read (its format is None, not 1)"),
        ({"name": 5}, "its model card cannot be read"),
        ({"title": None}, "its model card cannot be read"),
        ({"checksum": ["x"]}, "its model card cannot be read"),
        ({"segments": [1, 2]}, "its model card cannot be read"),
        ({"segments": 3}, "its model card cannot be read"),
        ({"segments": "LA"}, "its model card cannot be read ('segments' is no list)"),
        ({"segments": {"LA": 1}}, "its model card cannot be read ('segments' is no list)"),
        ({"segments": []}, "its model card cannot be read (it names no segment)"),
        ({"measured": ["ninety percent"]}, "its model card cannot be read"),
        ({"measured": 90}, "its model card cannot be read"),
        ({"measured": ""}, "its model card cannot be read ('measured' is no list)"),
        ({"measured": {}}, "its model card cannot be read ('measured' is no list)"),
        ({"measured": [{"dice": {"mean": 0.9}}]}, "its model card cannot be read"),
        ({"measured": [{"dice": {"mean": {"Left atrium": "0.9"}}}]}, "its model card cannot be read"),
        ({"measured": [{"dice": {"mean": {"a": 10**400, "b": 1 - 10**400}}}]}, "its model card cannot be read"),
        ({"measured": [{"dice": {"mean": {"Left atrium": float("nan")}}}]}, "its model card cannot be read"),
        ({"measured": [{"dice_mean": 10**400}]}, "its model card cannot be read"),
        ({"measured": [{"dice_mean": "0.9"}]}, "its model card cannot be read"),
        ({"trained_on": "sixty scans"}, "its model card cannot be read"),
        ({"trained_on": {"started_from": {}}}, "its model card cannot be read"),
        ({"trained_on": {"started_from": {"title": 5}}}, "its model card cannot be read"),
        ({"trained_on": {"started_from": "tiny"}}, "its model card cannot be read"),
    ],
)
def test_card_of_another_format_or_with_wrong_value_is_refused(
    model_copy: Path, change: dict[str, Any], message: str
) -> None:
    members = read_members(model_copy)
    members[CARD] = json.dumps({**json.loads(members[CARD]), **change}).encode()
    write_zip(model_copy, list(members.items()))
    assert refusal(model_copy).startswith(message)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"format": 1}', b"\xff\xfe\xff", b"[" * 200_000]
)
def test_text_that_is_not_a_card_or_a_recipe_is_refused(model_copy: Path, data: bytes) -> None:
    original = read_members(model_copy)
    write_zip(model_copy, list({**original, CARD: data}.items()))
    assert refusal(model_copy).startswith("its model card cannot be read")
    write_with_checksum(model_copy, json.loads(original[CARD]), data, original[WEIGHTS])
    assert refusal(model_copy)


def test_card_with_unknown_key_is_read(model_copy: Path) -> None:
    original = read_members(model_copy)
    write_with_checksum(
        model_copy, {**json.loads(original[CARD]), "colour": "red"}, original[RECIPE], original[WEIGHTS]
    )
    assert open_model(model_copy).card.name == "tiny"


def test_checksum_covers_keys_of_the_card_that_this_version_does_not_know(model_copy: Path) -> None:
    original = read_members(model_copy)
    card = {**json.loads(original[CARD]), "colour": "red"}
    write_with_checksum(model_copy, card, original[RECIPE], original[WEIGHTS])
    members = read_members(model_copy)
    assert open_model(model_copy).card.name == "tiny"
    members[CARD] = members[CARD].replace(b"red", b"blue")
    write_zip(model_copy, list(members.items()))
    assert refusal(model_copy).startswith("is damaged or was changed: its checksum does not match.")


def test_deeply_nested_card_is_refused(model_copy: Path) -> None:
    members = read_members(model_copy)
    for depth in (200, 400, 800, 980, 3000):
        text = members[CARD].decode()[:-1].rstrip() + f', "colour": {"[" * depth}{"]" * depth}}}'
        write_zip(model_copy, list({**members, CARD: text.encode()}.items()))
        assert refusal(model_copy)
