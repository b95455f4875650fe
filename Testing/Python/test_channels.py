"""Channel files with nnU-Net's names are read as one scan, with a note that lists the channels."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dcamt.cases.case_list import Case, read_cases, write_cases
from dcamt.cases.case_scans import unused_channel_files
from dcamt.cases.suggestion import suggest_recipe
from dcamt.commands.scan_paths import find_scans
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.channels import channel_files, channel_names, has_channel_files, read_channels
from dcamt.io.readers import read_header, read_scan
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.models.package import open_model
from dcamt.recipe_files import recipe_from_dict
from dcamt.volume import IdentifyingNote, Labelmap, Volume
from dcamt_testing.processes import call_dcamt
from dcamt_testing.tiny_recipes import TINY

GRID = Grid((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
BALL = np.linalg.norm(np.indices(GRID.shape) - 9.5, axis=0) < 6


def write_channels(folder: Path, name: str, count: int = 2) -> list[np.ndarray]:
    """Write channel files; return the voxels (I, J, K) of each file."""
    draw = np.random.default_rng(list(name.encode()))
    channels = [(100 * (n + 1) + 50 * BALL + draw.integers(0, 9, GRID.shape)).astype(np.int16) for n in range(count)]
    for number, voxels in enumerate(channels):
        write_volume(Volume(voxels[None], GRID), folder / f"{name}_{number:04d}.nii.gz")
    return channels


def write_dataset_json(folder: Path, names: dict[str, str]) -> None:
    description = {"channel_names": names, "labels": {"background": 0, "LA": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


UNUSED = "The recipe has one channel, so numbered files beside the scans are not used, such as a_0001.nii.gz."


def write_numbered_cases(folder: Path) -> list[Case]:
    """Write two labelled cases, `a_0000` and `b_0000`, with a second file beside each, and the list `cases.csv`."""
    for name in ("a", "b"):
        write_channels(folder, name)
    write_labelmap(Labelmap(BALL.astype(np.uint8), GRID), folder / "label.nii.gz")
    cases = [Case(name, folder / f"{name}_0000.nii.gz", folder / "label.nii.gz", "labelled") for name in ("a", "b")]
    write_cases(cases, folder / "cases.csv")
    return cases


def test_channel_files_are_read_as_one_scan(tmp_path: Path) -> None:
    written = write_channels(tmp_path / "imagesTs", "a", 3)
    first = tmp_path / "imagesTs" / "a_0000.nii.gz"
    scan = read_scan(first, channels=3)
    independent = [np.asanyarray(nibabel.load(file).dataobj) for file in channel_files(first)]
    assert np.array_equal(scan.voxels, np.stack(independent))
    assert np.array_equal(scan.voxels, np.stack(written))
    assert read_header(first, channels=3).channels == 3
    assert read_header(first).channels == 1
    with pytest.raises(InputError, match=r"a_0000\.nii\.gz: is the first of 3 channel files, but 2 channels"):
        read_scan(first, channels=2)


def test_notes_use_the_channel_names_of_dataset_json(tmp_path: Path) -> None:
    written = write_channels(tmp_path / "imagesTs", "a")
    first = tmp_path / "imagesTs" / "a_0000.nii.gz"
    assert read_scan(first).notes == ("Only the first channel of 2 was read. Not used: a_0001.nii.gz.",)
    write_dataset_json(tmp_path, {"0": "LGE", "1": "cine"})
    assert channel_names(first) == ("LGE", "cine")
    scan = read_scan(first)
    assert np.array_equal(scan.voxels[0], written[0])
    assert scan.notes == ("Only the first channel (LGE) of 2 was read. Not used: a_0001.nii.gz.",)
    assert read_scan(first, channels=2).notes == ("Files read as channels: a_0000.nii.gz (LGE), a_0001.nii.gz (cine).",)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_channels_of_linked_files_are_found_beside_the_links(tmp_path: Path) -> None:
    """`dcamt cases find` lists the links, not their targets."""
    write_channels(tmp_path / "store", "a")
    write_labelmap(Labelmap(BALL.astype(np.uint8), GRID), tmp_path / "store" / "label.nii.gz")
    write_dataset_json(tmp_path / "store", {"0": "other", "1": "other"})
    data = tmp_path / "data"
    for folder, name, target in (
        ("imagesTr", "a_0000.nii.gz", "a_0000.nii.gz"),
        ("imagesTr", "a_0001.nii.gz", "a_0001.nii.gz"),
        ("labelsTr", "a.nii.gz", "label.nii.gz"),
    ):
        (data / folder).mkdir(parents=True, exist_ok=True)
        (data / folder / name).symlink_to(tmp_path / "store" / target)
    write_dataset_json(data, {"0": "LGE", "1": "cine"})
    assert call_dcamt(["cases", "find", data, "-o", tmp_path / "cases.csv"]) == 0
    (case,) = read_cases(tmp_path / "cases.csv")
    assert channel_names(case.image) == ("LGE", "cine")
    recipe = suggest_recipe([case], 2**34)
    assert (recipe.input_channels, recipe.classes[0].name) == (2, "LA")


def test_dataset_json_is_read_once_for_many_scans_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset_json(tmp_path, {"0": "LGE", "1": "cine"})
    read: list[Path] = []
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **options: read.append(path) or original(path, **options))
    scans = [tmp_path / f"imagesTr/a{n}_0000.nii.gz" for n in range(9)]
    assert {channel_names(scan) for scan in scans} == {("LGE", "cine")}
    assert read == [tmp_path / "dataset.json"]
    write_dataset_json(tmp_path, {"0": "T1 map"})
    assert channel_names(scans[0]) == ("T1 map",)


def test_suggested_recipe_names_the_channels(tmp_path: Path) -> None:
    write_channels(tmp_path / "imagesTr", "a")
    (tmp_path / "labelsTr").mkdir()
    nibabel.save(nibabel.Nifti1Image(BALL.astype(np.uint8), GRID.affine), tmp_path / "labelsTr" / "a.nii.gz")
    case = Case("a", tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz", "labelled")
    write_dataset_json(tmp_path, {"0": "LGE", "1": "cine"})
    recipe = suggest_recipe([case], 4 << 30)
    assert (recipe.input_channels, recipe.channel_names) == (2, ("LGE", "cine"))
    with pytest.raises(InputError, match="channel_names must name every input channel, or be empty"):
        recipe_from_dict({**recipe.to_dict(), "channel_names": ["LGE"]}, "x.json")
    old = {key: value for key, value in recipe.to_dict().items() if key != "channel_names"}
    assert recipe_from_dict(old, "x.json").channel_names == ()


def test_numbered_file_outside_nnunet_folders_is_read_without_a_note(tmp_path: Path) -> None:
    write_channels(tmp_path, "patient")
    assert read_scan(tmp_path / "patient_0000.nii.gz").notes == ()


@pytest.mark.parametrize("command", ["recipe suggest", "cases check", "train"])
def test_one_note_says_that_files_beside_the_scans_are_not_used(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_numbered_cases(tmp_path)
    run = ["--run", tmp_path / "run", "--device", "cpu", "--set", *TINY, "iterations=1"]
    options = {"recipe suggest": ["-o", tmp_path / "recipe.json"], "cases check": [], "train": run}[command]
    assert call_dcamt([*command.split(), tmp_path / "cases.csv", *options]) == 0
    printed = "".join(capsys.readouterr())
    assert printed.count(UNUSED) == printed.count("_0001.nii.gz") == 1
    assert "set input_channels to 2 in the recipe" in printed


def test_channels_named_beside_the_scans_are_suggested_without_a_note(tmp_path: Path) -> None:
    cases, notes = write_numbered_cases(tmp_path), list[str]()
    suggest_recipe(cases, 4 << 30, on_note=notes.append)
    assert [note.startswith(f"{cases[0].image}: {UNUSED}") for note in notes] == [True]
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "LGE", "1": "cine"}}', encoding="utf-8")
    recipe = suggest_recipe(cases, 4 << 30, on_note=pytest.fail)
    assert recipe.channel_names == ("LGE", "cine")


def test_note_on_unused_files_needs_one_channel_and_files_that_the_list_does_not_name(tmp_path: Path) -> None:
    cases = write_numbered_cases(tmp_path)
    patients = [
        replace(case, name=f"{case.name}1", image=Path(str(case.image).replace("_0000", "_0001"))) for case in cases
    ]
    assert [index for index, _ in unused_channel_files(cases, 1)] == [0]
    assert [index for index, _ in unused_channel_files([*cases, patients[0]], 1)] == [1]
    assert list(unused_channel_files([*cases, *patients], 1)) == []
    assert (
        list(
            unused_channel_files(
                [replace(case, label=other.image) for case, other in zip(cases, patients, strict=True)], 1
            )
        )
        == []
    )
    assert list(unused_channel_files([replace(case, role="left out") for case in cases], 1)) == []
    assert list(unused_channel_files(cases, 2)) == []
    write_dataset_json(tmp_path, {"0": "LGE", "1": "cine"})  # Each scan then has a note (`one_channel_note`).
    assert list(unused_channel_files(cases, 1)) == []


@pytest.mark.parametrize(("count", "channels"), [(10, 10), (11, 0)])
def test_ten_numbered_files_in_images_tr_are_channels_and_eleven_are_not(
    tmp_path: Path, count: int, channels: int
) -> None:
    (tmp_path / "imagesTr").mkdir()
    for number in range(count):
        (tmp_path / "imagesTr" / f"p_{number:04d}.nii.gz").touch()
    assert len(channel_files(tmp_path / "imagesTr" / "p_0000.nii.gz")) == channels


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    write_channels(tmp_path, "a")
    shifted = Grid(GRID.shape, GRID.affine + np.pad([[3.0]], ((0, 3), (3, 0))))
    voxels = read_scan(tmp_path / "a_0001.nii.gz").voxels
    write_volume(Volume(voxels, shifted), tmp_path / "a_0001.nii.gz")
    with pytest.raises(InputError, match=r"a_0001.nii.gz: lies on a different grid from a_0000.nii.gz.* 3 mm apart"):
        read_scan(tmp_path / "a_0000.nii.gz", channels=2)


def test_commands_from_find_to_segment_accept_a_data_set_of_two_channels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, table, run, out = tmp_path / "Dataset001_LA", tmp_path / "cases.csv", tmp_path / "run", tmp_path / "out"
    for name in ("a", "b"):
        write_channels(data / "imagesTr", name)
        write_labelmap(Labelmap(BALL.astype(np.uint8), GRID), data / "labelsTr" / f"{name}.nii.gz")
    write_channels(data / "imagesTs", "c")
    write_dataset_json(data, {"0": "LGE", "1": "cine"})
    recipe = tmp_path / "recipe.json"
    settings = ["iterations=1", "input_channels=2"]

    assert call_dcamt(["cases", "find", data, "-o", table]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"labelled   a: {data}/imagesTr/a_0000.nii.gz with {data}/labelsTr/a.nii.gz",
        f"labelled   b: {data}/imagesTr/b_0000.nii.gz with {data}/labelsTr/b.nii.gz",
        f"unlabelled c: {data}/imagesTs/c_0000.nii.gz",
    ]
    assert call_dcamt(["train", table, "--run", run, "--device", "cpu", "--set", *TINY, *settings]) == 0
    model = run / "model.dcamt"
    trained = open_model(model).recipe
    assert trained.input_channels == 2
    recipe.write_text(trained.to_json(), encoding="utf-8")
    assert call_dcamt(["cases", "check", table, "--recipe", recipe]) == 0
    capsys.readouterr()
    arguments = ["segment", data / "imagesTs", "-o", out, "--model", model, "--format", "nii.gz"]
    assert call_dcamt(arguments) == 0
    printed = capsys.readouterr()
    assert "Files read as channels: c_0000.nii.gz (LGE), c_0001.nii.gz (cine)." in printed.err
    assert [path.name for path in out.iterdir()] == ["c_0000.nii.gz"]


def test_numbered_file_with_several_channels_is_a_separate_scan(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    for number in range(2):
        voxels = draw.integers(0, 99, (2, *GRID.shape)).astype(np.int16)
        write_volume(Volume(voxels, GRID), tmp_path / f"p_{number:04d}.nii.gz")
    first = tmp_path / "p_0000.nii.gz"
    scan = read_scan(first, channels=2)
    assert np.array_equal(scan.voxels, np.moveaxis(np.asanyarray(nibabel.load(first).dataobj), -1, 0))
    assert scan.notes == ()
    assert read_header(first, channels=2).channels == 2
    assert [path.name for path in find_scans(tmp_path, channels=2).scans] == ["p_0000.nii.gz", "p_0001.nii.gz"]


def test_notes_with_file_names_are_marked_as_identifying(tmp_path: Path) -> None:
    write_channels(tmp_path / "imagesTs", "Mueller")
    first = tmp_path / "imagesTs" / "Mueller_0000.nii.gz"
    for channels in (1, 2):
        (note,) = read_scan(first, channels).notes
        assert "Mueller_0001.nii.gz" in note
        assert isinstance(note, IdentifyingNote)


def test_scan_contains_the_notes_of_its_channel_files(tmp_path: Path) -> None:
    def read(path: Path) -> Volume:
        return Volume(np.zeros((1, 3, 3, 3)), Grid((3, 3, 3), np.eye(4)), path, ("both", path.name))

    files = [tmp_path / "p_0000.nrrd", tmp_path / "p_0001.nrrd"]
    assert read_channels(files[0], files, 2, read).notes[1:] == ("both", "p_0000.nrrd", "p_0001.nrrd")


def test_dataset_json_is_not_read_for_a_file_without_channel_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.nii.gz").touch()
    monkeypatch.setattr("dcamt.io.channels.channel_names", lambda path: pytest.fail(f"{path} is not a channel file"))
    assert not has_channel_files(tmp_path / "a.nii.gz")


def test_numbered_files_are_separate_scans_if_the_data_set_has_one_channel(tmp_path: Path) -> None:
    folder = tmp_path / "imagesTr"
    folder.mkdir()
    for number in range(2):
        (folder / f"p_{number:04}.nii.gz").touch()
    first = folder / "p_0000.nii.gz"
    assert has_channel_files(first)
    for names, are_channels in (({"0": "LGE"}, False), ({"0": "LGE", "1": "T1"}, True)):
        (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names}), encoding="utf-8")
        assert has_channel_files(first) is are_channels


@pytest.mark.parametrize(("stated", "expected"), [(("MR", "MR"), "MR"), (("CT", "PT"), ""), (("CT", ""), "")])
def test_modality_of_channels_is_known_if_all_files_state_the_same(stated: tuple[str, str], expected: str) -> None:
    scan = Volume(BALL[None].astype(np.float32), GRID)
    modalities = iter(stated)
    files = (Path("a_0000.dcm"), Path("a_0001.dcm"))
    read = read_channels(files[0], files, 2, lambda file: replace(scan, modality=next(modalities)))
    assert read.modality == expected
