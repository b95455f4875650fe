"""Recognise masks by their names and folders.

The module `dcamt.cases.names` explains the terms, such as mask.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dcamt.cases import masks
from dcamt.cases.folders import find_cases
from dcamt.cases.found_cases import NO_SCAN, OTHER_LABEL
from dcamt.cases.names import classify_all
from dcamt_testing.case_folders import make_files, scans_and_labels, skip_reasons, write_image, write_images


def test_masks_with_the_word_ra_or_v2_are_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, ("p1",), ("p1_RA", "p1_RA_final", "p1_LA_v2", "p1_LA_v2_smooth"))
    found = find_cases(tmp_path)
    assert scans_and_labels(found, tmp_path) == {"p1": ("p1.nii.gz", None)}
    assert set(skip_reasons(found).values()) == {OTHER_LABEL}


def test_masks_in_a_folder_are_skipped_only_if_most_have_the_name_of_a_scan(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3_0000"):
        write_image(tmp_path / "scans" / f"{name}.nii.gz", 200)
        write_image(tmp_path / "visit2" / f"{name}.nii.gz", 150)
    for name in ("P1", "p3"):
        write_image(tmp_path / "reader1" / f"{name}.nii.gz", 2)
    # No other folder has a file p4, so only half of the files in `atlas` have the name of a scan. Therefore `atlas/p1`
    # and `atlas/p4` count as scans.
    for name in ("p1", "p4"):
        write_image(tmp_path / "atlas" / f"{name}.nii.gz", 2)
    found = find_cases(tmp_path)
    kept = [f"{name}.nii.gz" for name in ("p1", "p2", "p3_0000")]
    expected = [f"scans/{name}" for name in kept] + [f"visit2/{name}" for name in kept]
    expected += ["atlas/p1.nii.gz", "atlas/p4.nii.gz"]
    assert sorted(case.image.relative_to(tmp_path).as_posix() for case in found.cases) == sorted(expected)
    assert not any(case.label for case in found.cases)
    assert {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped} == {
        "reader1/P1.nii.gz": OTHER_LABEL,
        "reader1/p3.nii.gz": OTHER_LABEL,
    }


@pytest.mark.parametrize(
    ("scan", "mask", "is_label"),
    [
        ("scans/{}", "reader1/{}", False),
        ("{}/lge", "{}/observerA", False),
        ("{}_lge", "{}_RA", False),
        ("{}_lge", "{}_LA", True),
        ("{}", "{}LA", True),
        ("{}", "{}RV", False),
        ("{}/lge", "{}/LA", True),
        ("{}/lge", "{}/lge_LA", True),
        ("{}/{}_lge", "{}/{}_LA", True),
        ("{}/5 LGE 3D", "{}/LA", True),
        ("scans/{}", "LA/{}", True),
    ],
)
def test_mask_without_a_scan_is_skipped(tmp_path: Path, scan: str, mask: str, is_label: bool) -> None:
    scans, masks_of_scans = ([path.replace("{}", patient) for patient in ("p1", "p2", "p4")] for path in (scan, mask))
    mask_without_scan = mask.replace("{}", "p3")
    write_images(tmp_path, scans, [*masks_of_scans, mask_without_scan])
    found = find_cases(tmp_path)
    assert set(scans_and_labels(found, tmp_path).values()) == {
        (f"{one}.nii.gz", f"{its_mask}.nii.gz" if is_label else None)
        for one, its_mask in zip(scans, masks_of_scans, strict=True)
    }
    reasons = {file.path: file.reason for file in found.skipped}
    assert reasons.pop(tmp_path / f"{mask_without_scan}.nii.gz") == NO_SCAN
    assert reasons == ({} if is_label else {tmp_path / f"{path}.nii.gz": OTHER_LABEL for path in masks_of_scans})


@pytest.mark.parametrize("mask", ["{}/LA", "LA/{}", "{}/{}_LA", "{}/RA_wall", "{}/LA/{}"])
def test_mask_named_after_a_structure_is_no_scan_even_if_no_mask_has_a_scan(tmp_path: Path, mask: str) -> None:
    write_images(tmp_path, ("p1/LGE", "p2/LGE"), (mask.replace("{}", "p3"), mask.replace("{}", "p4")))
    found = find_cases(tmp_path)
    assert {case.image for case in found.cases} == {tmp_path / "p1/LGE.nii.gz", tmp_path / "p2/LGE.nii.gz"}
    assert [file.reason for file in found.skipped] == [NO_SCAN, NO_SCAN]


LAYOUTS = (
    *(("{0}/{1}/lge", mask) for mask in ("{0}/{1}/LA", "{0}/{1}/la_LA_final", "LA/{0}/{1}")),
    *(("{0}/{1}/5 LGE 3D", mask) for mask in ("{0}/{1}/LA", "{0}/{1}/LA_roi")),
    *(("{0}/images/{1}", mask) for mask in ("{0}/LA/{1}", "{0}/LA/LA_{1}")),
    *(("{0}/{1}/{1}_lge", mask) for mask in ("{0}/{1}/{1}_LA", "{0}/{1}/LA")),
    *((f"{folder}/{{0}}_{{1}}", "LA/{0}_{1}") for folder in ("images", "mri", "cohort")),
    ("{0}/{1}", "{0}/{1}_LA"),
    ("{0}_{1}/lge", "{0}_{1}/LA"),
    ("{0}_{1}_lge", "{0}_{1}_LA"),
    ("{0}_{1}", "LA_{0}_{1}"),
    ("LGE/LGE_{0}_{1}", "LA/LA_{0}_{1}"),
    ("scans/{0}/{1}", "LA/{0}/{1}"),
)
"""Paths of a scan and of its mask: {0} is the centre or the patient, {1} the patient or the visit."""


@pytest.mark.parametrize(("scan", "mask"), LAYOUTS)
@pytest.mark.parametrize("names", [("1", "2", "3"), ("A", "B"), ("P1", "P2", "P12"), ("01", "02")], ids=str)
def test_no_scan_gets_the_mask_of_another_scan_if_files_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan: str, mask: str, names: tuple[str, ...]
) -> None:
    """A patient may have the name of a centre: patient 1 of centre 1."""
    draw = random.Random(scan + mask)
    few: set[Path] = set()
    monkeypatch.setattr(masks, "has_few_values", few.__contains__)
    for number in range(6):
        home = tmp_path / str(number)
        cases = [(first, second) for first in names for second in names if draw.random() < 0.7] or [names[:2]]
        missing = draw.random() if number else 0.0
        scans, labels = (
            {case: f"{path.format(*case)}.nii.gz" for case in cases if draw.random() >= 0.5 * missing}
            for path in (scan, mask)
        )
        if not scans:
            continue
        few |= {home / label for label in labels.values()}
        found = scans_and_labels(find_cases(make_files(home, *scans.values(), *labels.values())), home)
        expected = {path: labels.get(case) for case, path in scans.items()}
        assert dict(found.values()).keys() == expected.keys(), "a scan was skipped, or a mask was taken for a scan"
        assert not {(path, label) for path, label in found.values() if label not in (None, expected[path])}
        if not missing:
            assert dict(found.values()) == expected


@pytest.mark.parametrize(
    ("scans", "mask"),
    [
        (["1/2/lge"], "1/1/LA"),
        (["1/2/lge", "3/1/lge"], "1/1/LA"),
        (["2/1/lge"], "2/2/la_LA_final"),
        (["A/B/lge"], "A/A/LA"),
        (["pre/post/lge"], "pre/pre/LA"),
        (["1/images/2"], "1/LA/1"),
        (["4/2/lge"], "LA/2/2"),
    ],
)
def test_mask_of_patient_a_of_centre_a_is_no_label_of_another_patient(
    tmp_path: Path, scans: list[str], mask: str
) -> None:
    write_images(tmp_path, scans, [mask])
    found = find_cases(tmp_path)
    assert set(scans_and_labels(found, tmp_path).values()) == {(f"{scan}.nii.gz", None) for scan in scans}
    assert [file.path for file in found.skipped] == [tmp_path / f"{mask}.nii.gz"]


@pytest.mark.parametrize("count", [9, 12])
def test_masks_in_folders_of_patients_are_skipped(tmp_path: Path, count: int) -> None:
    patients = [f"p{number}" for number in range(count)]
    write_images(tmp_path, (f"{patient}_post" for patient in patients), (f"{one}/{one}_LA" for one in patients))
    assert {case.name for case in find_cases(tmp_path).cases} == {f"{patient}_post" for patient in patients}


@pytest.mark.parametrize(
    ("scans", "mask"),
    [
        # Each id says how the mask's path differs from the scan's path.
        pytest.param(["scans/p{}"], "reader1/p{}_AB", id="replaced folder, added word"),
        pytest.param(["scans/p{}_lge"], "reader1/p{}", id="replaced folder, name without modality"),
        pytest.param(["de/p{}_de"], "gd/p{}_gd", id="other word in folder and name"),
        pytest.param(
            ["train/p{}_C0", "train/p{}_DE", "train/p{}_T2"], "train_gd/p{}_gd", id="replaced folder (MyoPS 2020)"
        ),
        pytest.param(["scans/p{}/lge"], "reader1/p{}/lge", id="replaced outer folder"),
        pytest.param(["p{}/lge"], "p{}/reader1/lge", id="added inner folder"),
        pytest.param(["p{}/p{}"], "p{}/observerA", id="other name"),
        pytest.param(["p{}/p{}"], "p{}/reader1/LA", id="added folder, other name"),
        pytest.param(["p{}/dcm-LGE-1"], "p{}/mitralcutter", id="other name beside one scan"),
        pytest.param(["p{}/dcm-CMRA-1", "p{}/dcm-LGE-2"], "p{}/LA-cemrgnet", id="other name beside two scans"),
    ],
)
@pytest.mark.parametrize("patients", [1, 8], ids="{} patients".format)
def test_mask_in_another_folder_or_with_another_name_is_skipped(
    tmp_path: Path, scans: list[str], mask: str, patients: int
) -> None:
    images = [scan.replace("{}", str(n)) for scan in scans for n in range(patients)]
    masks = [mask.replace("{}", str(n)) for n in range(patients)]
    write_images(tmp_path, images, masks)
    found = find_cases(tmp_path)
    assert set(scans_and_labels(found, tmp_path).values()) == {(f"{image}.nii.gz", None) for image in images}
    skipped = {file.path.relative_to(tmp_path).as_posix(): file.reason for file in found.skipped}
    assert skipped == dict.fromkeys((f"{mask}.nii.gz" for mask in masks), OTHER_LABEL)


@pytest.mark.parametrize(
    ("scan", "mask", "is_label"),
    [
        ("p1", "p1_chambers/aorta", False),
        ("p1", "p1/LA", True),
        ("p1/lge", "p1/LA/p1", True),
        ("a/p1", "a/p1_ts/heart_atrium_left", False),
        ("ct", "output/aorta", False),
        ("scans/p1_0000", "runs/D501/fold_0/validation/p1", False),
        ("LGE/LGE_1", "LA/LA_1", True),
        ("LGE/LGE_1", "Scar/Scar_1", False),
        ("p1", "p1LA", True),
        ("P1", "P1SEG", True),
        ("p1", "p1RV", False),
    ],
)
def test_no_mask_is_taken_for_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan: str, mask: str, is_label: bool
) -> None:
    write_images(tmp_path, (scan,), (mask,))
    (case,) = find_cases(tmp_path).cases
    assert (case.image, case.label) == (
        tmp_path / f"{scan}.nii.gz",
        tmp_path / f"{mask}.nii.gz" if is_label else None,
    )
    monkeypatch.chdir(tmp_path)
    assert len(find_cases(Path()).cases) == 1


def test_eight_masks_beside_two_scans_are_no_scans(tmp_path: Path) -> None:
    scans, structures = ("dcm-LGE-2", "dcm-CMRA-1"), ("LA", "LA-reg", "RA", "LSPV", "RSPV", "LIPV", "RIPV", "Bloodpool")
    for patient in ("p1", "p2"):
        write_images(tmp_path / patient, scans, structures)
    assert {case.image.name for case in find_cases(tmp_path).cases} == {f"{scan}.nii.gz" for scan in scans}


def test_five_masks_of_one_patient_are_no_scans(tmp_path: Path) -> None:
    write_images(tmp_path, ("4 LGE", "5 MRA 3D"), ("LA", "LA_wall", "LSPV", "RSPV_2", "RA"))
    assert {case.name for case in find_cases(tmp_path).cases} == {"4 LGE", "5 MRA 3D"}


@pytest.mark.parametrize("structure", ["aparc+aseg", "RA+LA", "LA&scar", "[RA]", "RV(2)"])
def test_mask_of_other_structures_is_skipped_despite_special_characters_in_its_name(
    tmp_path: Path, structure: str
) -> None:
    for patient in ("p1", "p2"):
        write_images(tmp_path / patient, ("T1",), (structure,))
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [None, None]
    assert len(found.skipped) == 2


@pytest.mark.parametrize(("scan", "mask"), [("{}_post", "{}_LA"), ("{}_visit1_a", "{}_LA_wall"), ("post_{}", "LA_{}")])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_mask_of_similar_name_is_skipped(tmp_path: Path, scan: str, mask: str, count: int) -> None:
    patients = [f"p{number}" for number in range(count)]
    write_images(tmp_path, map(scan.format, patients), map(mask.format, patients))
    found = find_cases(tmp_path)
    assert {case.name for case in found.cases} == {scan.format(patient) for patient in patients}
    assert skip_reasons(found) == {f"{mask.format(patient)}.nii.gz": OTHER_LABEL for patient in patients}


@pytest.mark.parametrize(
    ("scan", "masks_of_scan"),
    [
        ("{}_MRT", ["{}_Vorhof"]),
        ("{}_3DLGE", ["{}_totalseg"]),
        ("{}_anon", ["{}_auto"]),
        ("{}_anon", ["{}_x", "{}_auto_JS"]),
        ("{}_post", ["{}LA"]),
        ("{}post", ["{}LA"]),
        ("MRT_{}", ["Vorhof_{}"]),
        ("orig-{}", ["x-{}", "y-{}"]),
    ],
)
@pytest.mark.parametrize("count", [1, 3, 12])
def test_masks_are_skipped_if_only_one_scan_has_their_first_or_last_words(
    tmp_path: Path, scan: str, masks_of_scan: list[str], count: int
) -> None:
    patients = [f"p{number}" for number in range(count)]
    masks = [mask.format(patient) for mask in masks_of_scan for patient in patients]
    write_images(tmp_path, map(scan.format, patients), masks)
    found = find_cases(tmp_path)
    assert {case.name for case in found.cases} == {scan.format(patient) for patient in patients}
    assert skip_reasons(found) == {f"{mask}.nii.gz": OTHER_LABEL for mask in masks}


@pytest.mark.parametrize("scan", ["lge{}", "pat{}", "pat-{}"])
def test_mask_with_the_number_of_only_one_scan_is_skipped(tmp_path: Path, scan: str) -> None:
    numbers = range(20)
    write_images(tmp_path, map(scan.format, numbers), map("la{}".format, numbers))
    assert {case.name for case in find_cases(tmp_path).cases} == {scan.format(number) for number in numbers}


@pytest.mark.parametrize("few", ["phantom_c", "phantom_3"])
def test_scan_of_two_values_beside_two_scans_of_similar_names_is_no_mask(tmp_path: Path, few: str) -> None:
    scans = [f"{few[:-1]}{number}" for number in ("a1", "b1")]
    write_images(tmp_path, scans, [few])
    assert {case.name for case in find_cases(tmp_path).cases} == {*scans, few}


@pytest.mark.parametrize(
    ("scans", "masks_of_scans"),
    [
        (["{}_LGE_3D"], ["{}_LA_JS"]),
        (["{}_LGE_3D"], ["{}_JS_LA"]),
        (["{}_LGE_3D"], ["LA_{}_JS"]),
        (["{}_LGE_3D"], ["{}_LA_v2"]),
        (["{}_LGE_3D"], ["{}_LA_2"]),
        (["{}_LGE_3D"], ["{}_LA2"]),
        (["{}_LGE_3D"], ["{}_JS_LA_2"]),
        (["{}_LGE_3D"], ["{}_LA_JS", "{}_LA_KM"]),
        (["{}_3D_LGE"], ["{}_endo_v2"]),
        (["{}_LGE_20210304"], ["{}_LA_20210305"]),
        (["{}_pre_LGE_3D", "{}_post_LGE_3D"], ["{}_pre_LA_JS", "{}_post_LA_JS"]),
        (["{}_T1_3D"], ["{}_heart_atrium_left_JS"]),
        (["{}_LGE_NAV_3D"], ["{}_LA_KL", "{}_Ao_KL"]),
        (["{}_LGE_nav"], ["JS_{}_LA"]),
        (["{}_LGE_nav"], ["JS_{}_LA", "JS_{}_RA"]),
    ],
)
@pytest.mark.parametrize("count", [3, 12])
def test_mask_with_initials_a_version_or_a_date_in_its_name_is_skipped(
    tmp_path: Path, scans: list[str], masks_of_scans: list[str], count: int
) -> None:
    images, labels = (
        [name.format(f"p{number}") for name in names for number in range(count)] for names in (scans, masks_of_scans)
    )
    write_images(tmp_path, images, labels)
    found = find_cases(tmp_path)
    assert {case.name for case in found.cases} == set(images)
    assert skip_reasons(found) == {f"{label}.nii.gz": OTHER_LABEL for label in labels}


@pytest.mark.parametrize("further", ["p1_LA_2", "p1_LA_JS", "p1_Ao_2", "JS_p1_LA", "p2LA"])
def test_image_named_like_a_mask_is_a_scan_if_it_has_many_values(tmp_path: Path, further: str) -> None:
    write_images(tmp_path, ("p1", "p1_LGE_3D", further), ("p1LA",))
    assert {case.name for case in find_cases(tmp_path).cases} == {"p1", "p1_LGE_3D", further}


def test_mask_search_does_not_depend_on_the_order_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    words = ("LA", "RV", "T1", "lge", "gd", "reader1", "scans", "final", "x")
    patients = ("p1", "P1", "p2", "q")
    few: set[Path] = set()
    monkeypatch.setattr(masks, "has_few_values", few.__contains__)
    home = Path("home")
    for _ in range(300):
        paths = {
            home.joinpath(
                *draw.choices((*words, *patients), k=draw.randint(0, 2)),
                draw.choice(patients) + draw.choice(("", "LA", "_0000", f"_{draw.choice(words)}")) + ending,
            )
            for ending in draw.choices((".nii.gz", ".nrrd"), k=8)
        }
        few.clear()
        few.update(path for path in sorted(paths) if draw.random() < 0.5)
        named = classify_all(sorted(paths), home)
        expected = masks.recognise_masks(named)
        for _ in range(3):
            order = draw.sample(range(len(named)), len(named))
            assert masks.recognise_masks([named[n] for n in order]) == [expected[n] for n in order]


@pytest.mark.parametrize("mask", ["LA_{}", "output_{}", "{}_0000/{}_0000_trans", "{}/LA"])
def test_masks_in_folder_model_are_no_scans(tmp_path: Path, mask: str) -> None:
    patients = ("p1", "p2", "p3")
    scans = [f"scans/{patient}_0000" for patient in patients]
    write_images(tmp_path, scans, [f"model/{mask.replace('{}', patient)}" for patient in patients])
    assert [case.label for case in find_cases(tmp_path).cases] == [None] * 3
