"""Which scans and labels of a folder are proposed as cases; the files are empty, since names alone decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dcamt.cases.folders import DECATHLON, NAMES, NNUNET, FoundCases, find_cases
from dcamt.errors import InputError


def folder(home: Path, *files: str) -> Path:
    for file in files:
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).touch()
    return home


def pairs(found: FoundCases, home: Path) -> dict[str, tuple[str, str | None]]:
    """{name: (image, label)}, paths relative to `home`; roles follow from the labels."""
    assert all(case.role == ("labelled" if case.label else "unlabelled") for case in found.cases)
    result = {
        case.name: (
            case.image.relative_to(home).as_posix(),
            case.label.relative_to(home).as_posix() if case.label else None,
        )
        for case in found.cases
    }
    assert len(result) == len(found.cases)
    return result


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("x_image.nii.gz", "x_label.nii.gz", "x"),
        ("x.nii.gz", "x_label.nii.gz", "x"),
        ("x.nrrd", "x.seg.nrrd", "x"),
        ("x.nrrd", "x-segmentation.nrrd", "x"),
        ("image_7.nii", "label_7.nii", "7"),
        ("images/x.mha", "labels/x.mha", "x"),
        ("images/a/x.nii", "masks/a/x_mask.nii", "x"),
        ("p01/image.nrrd", "p01/label.nrrd", "p01"),
        ("p01/lgemri.nrrd", "p01/laendo.nrrd", "p01"),
        ("LGE scan.nrrd", "LGE Label.nrrd", "LGE"),
    ],
)
def test_pairs_by_name(tmp_path: Path, image: str, label: str, name: str) -> None:
    found = find_cases(folder(tmp_path, image, label, "other.nii.gz"))
    assert found.layout == NAMES
    assert found.left_over == ()
    assert pairs(found, tmp_path) == {name: (image, label), "other": ("other.nii.gz", None)}


def test_a_word_within_a_name_is_no_role(tmp_path: Path) -> None:
    found = find_cases(folder(tmp_path, "maskell.nii", "segal_2.nii", "imagery.nii"))
    assert {name for name, (_, label) in pairs(found, tmp_path).items() if label is None} == {
        "maskell",
        "segal_2",
        "imagery",
    }


def test_what_is_not_sure_is_left_over(tmp_path: Path) -> None:
    files = ("a_image.nii", "a_label.nii", "a_seg.nii", "b.nii", "b_image.nii", "b_label.nii", "c_label.nii")
    found = find_cases(folder(tmp_path, *files, "d.nii", "d_agreement.nii", ".hidden.nii", "notes.txt"))
    assert pairs(found, tmp_path) == {"d": ("d.nii", None)}
    assert {left.path.name for left in found.left_over} == set(files)
    assert {left.why for left in found.left_over if left.path.name == "c_label.nii"} == {"a label without a scan"}


def test_names_tell_cases_apart(tmp_path: Path) -> None:
    files = ("site1/x_image.nii", "site1/x_label.nii", "site2/x_image.nii", "y.nii", "y.nrrd")
    found = find_cases(folder(tmp_path, *files))
    got = pairs(found, tmp_path)
    assert got["site1_x"] == ("site1/x_image.nii", "site1/x_label.nii")
    assert got["site2_x"] == ("site2/x_image.nii", None)
    assert len(got) == 4


def test_folders_of_dicom_slices(tmp_path: Path) -> None:
    found = find_cases(folder(tmp_path, "p1/slices/1.dcm", "p1/slices/2.dcm", "p2/IM1.IMA", "p2/label.nrrd"))
    assert pairs(found, tmp_path) == {"slices": ("p1/slices", None), "p2": ("p2", "p2/label.nrrd")}


def test_nnunet(tmp_path: Path) -> None:
    files = ("imagesTr/la_001_0000.nii.gz", "imagesTr/la_001_0001.nii.gz", "imagesTr/la_002_0000.nii.gz")
    labels = ("labelsTr/la_001.nii.gz", "labelsTr/la_009.nii.gz")
    found = find_cases(folder(tmp_path, *files, *labels, "imagesTs/la_005_0000.nii.gz"))
    assert found.layout == NNUNET
    assert pairs(found, tmp_path) == {
        "la_001": (files[0], labels[0]),
        "la_002": (files[2], None),
        "la_005": ("imagesTs/la_005_0000.nii.gz", None),
    }
    assert {left.path.name for left in found.left_over} == {"la_001_0001.nii.gz", "la_009.nii.gz"}


def test_nnunet_keeps_its_test_set_out(tmp_path: Path) -> None:
    files = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTs/b.nii.gz")
    description = {"labels": {"background": 0, "Left atrium": 1, "Wall": 2}, "channel_names": {"0": "MRI"}}
    (folder(tmp_path, *files) / "dataset.json").write_text(json.dumps(description))
    found = find_cases(tmp_path)
    assert pairs(found, tmp_path) == {"a": (files[0], files[1])}
    assert {left.why for left in found.left_over} == {"the data set keeps it for tests"}
    assert found.classes == ((1, "Left atrium"), (2, "Wall"))


def test_decathlon(tmp_path: Path) -> None:
    files = ("imagesTr/la_003.nii.gz", "labelsTr/la_003.nii.gz", "imagesTs/la_001.nii.gz", "imagesTr/._la_003.nii.gz")
    description = {
        "labels": {"0": "background", "1": "left atrium"},
        "training": [
            {"image": f"./{files[0]}", "label": f"./{files[1]}"},
            {"image": "./imagesTr/gone.nii.gz", "label": f"./{files[1]}"},
        ],
        "test": [f"./{files[2]}"],
    }
    (folder(tmp_path, *files) / "dataset.json").write_text(json.dumps(description))
    found = find_cases(tmp_path)
    assert found.layout == DECATHLON
    assert pairs(found, tmp_path) == {"la_003": (files[0], files[1]), "la_001": (files[2], None)}
    assert [left.path.name for left in found.left_over] == ["gone.nii.gz"]
    assert found.classes == ((1, "left atrium"),)


def test_faults_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_cases(tmp_path / "none")
    with pytest.raises(InputError, match="holds no scan"):
        find_cases(folder(tmp_path, "notes.txt"))
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json: cannot be read"):
        find_cases(tmp_path)
