"""The store lists, imports and removes models, and refuses invalid models and names."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from dcamt.errors import InputError, OutputError
from dcamt.io.atomic import atomic_path
from dcamt.models import package as model_package
from dcamt.models import store as model_store
from dcamt.models.calibration import Calibration, OverlapFunction
from dcamt.models.package import Card, calibration_path, open_model, read_calibration, write_package
from dcamt.models.store import check_store, import_model, model_path, remove_model, stored_models, user_folder
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import check_package, save_model, verify_model
from dcamt_testing.processes import call_dcamt
from dcamt_testing.tiny_recipes import tiny_recipe

CARD = Card("tiny", "A tiny model", ("Left atrium",), "MRI", "1", "CC0-1.0", "2024-01-01")


def write_model(path: Path, name: str) -> Path:
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, DualVNet(tiny_recipe()).state_dict(), tiny_recipe(), replace(CARD, name=name))
    return path


def write_calibrated_model(path: Path, name: str) -> Path:
    checksum = open_model(write_model(path, name)).card.checksum
    function = OverlapFunction(("entropy",), (0.5,), (0.1,), (-0.5,), 2.0, (0.5, 0.9), (-0.1, -0.1), (0.1, 0.1))
    calibration_path(path).write_text(Calibration(checksum, {"fast": function}, 8, 8).to_json(), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a temporary store with one shipped model and no imported models; return the shipped model's file."""
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(model_store, "shipped_folders", lambda: [tmp_path / "shipped", tmp_path / "gone"])
    return write_model(tmp_path / "shipped" / "left-atrium.dcamt", "left-atrium")


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return write_model(tmp_path / "downloads" / "model (1).dcamt", "mine")


def stored_names() -> list[tuple[str, bool]]:
    return [(model.name, model.shipped) for model in stored_models()]


def test_environment_variable_sets_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_folder() == tmp_path / "home" / "models"
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("DCAMT_HOME")
        else:
            monkeypatch.setenv("DCAMT_HOME", value)
        assert user_folder() == Path.home() / ".dcamt" / "models"


def deny_access(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root can read every folder despite `chmod`, so `os.scandir` is replaced.
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if path == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(model_store.os, "scandir", refuse)


@pytest.mark.parametrize("home_is_unknown", [False, True])
def test_shipped_model_is_found_without_access_to_imported_models(
    shipped: Path, download: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home_is_unknown: bool
) -> None:
    def fail() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    if home_is_unknown:  # as in some containers
        monkeypatch.delenv("DCAMT_HOME")
        monkeypatch.setattr(Path, "home", fail)
        message = "the folder of imported models is unknown.*DCAMT_HOME"
    else:
        import_model(download)
        deny_access(tmp_path / "home" / "models", monkeypatch)
        message = r"models: cannot be read \(Permission denied\)\. .*DCAMT_HOME"
    assert stored_names() == [("left-atrium", True)]
    assert (model_path("left-atrium"), model_path(download)) == (shipped, download)
    with pytest.raises(InputError, match="there is no such model file"):
        model_path(tmp_path / "gone.dcamt")
    for search in (check_store, lambda: model_path("mine"), lambda: remove_model("mine")):
        with pytest.raises(InputError, match=message):
            search()


def test_only_the_shipped_model_is_listed_before_any_import(tmp_path: Path, shipped: Path) -> None:
    assert stored_names() == [("left-atrium", True)]
    assert not (tmp_path / "home").exists()
    assert model_path("left-atrium") == shipped


def test_model_is_imported_found_and_removed(tmp_path: Path, download: Path) -> None:
    model = import_model(download)
    assert (model.name, model.shipped) == ("mine", False)
    assert model.path == tmp_path / "home" / "models" / "mine.dcamt"
    assert model.path.read_bytes() == download.read_bytes()
    assert stored_names() == [("left-atrium", True), ("mine", False)]
    assert verify_model("mine").card.name == "mine"
    assert remove_model("mine") == model
    assert stored_names() == [("left-atrium", True)]
    assert list(model.path.parent.iterdir()) == []
    import_model(download)


def test_model_is_found_by_its_path(download: Path) -> None:
    assert model_path(download) == download
    assert model_path(str(download)) == download
    assert verify_model(str(download)).card.name == "mine"


def test_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^righ-atrium: there is no such model file.*Available models: left-atrium"):
        model_path("righ-atrium")
    with pytest.raises(InputError, match="there is no such model file"):
        import_model(tmp_path / "gone.dcamt")


def test_file_is_imported_even_if_its_path_is_the_name_of_a_stored_model(
    tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("left-atrium").write_bytes(write_model(tmp_path / "x.dcamt", "mine").read_bytes())
    model = import_model(Path("left-atrium"))
    assert (model.name, model.path.read_bytes()) == ("mine", (tmp_path / "x.dcamt").read_bytes())
    assert model.path.read_bytes() != shipped.read_bytes()
    remove_model("mine")
    Path("left-atrium").write_text("no model", encoding="utf-8")
    with pytest.raises(InputError, match=r"^left-atrium: is no DCAMT model"):
        import_model(Path("left-atrium"))
    Path("left-atrium").unlink()
    with pytest.raises(InputError, match=r"^left-atrium: there is no such model file"):
        import_model(Path("left-atrium"))
    assert stored_names() == [("left-atrium", True)]


def test_import_stores_the_bytes_that_were_checked(download: Path) -> None:
    sound = download.read_bytes()

    def check_then_spoil(path: Path, data: bytes) -> Card:
        card = check_package(path, data)
        download.write_bytes(b"spoiled")
        return card

    assert import_model(download, check_then_spoil).path.read_bytes() == sound


def test_model_whose_weights_do_not_fit_its_network_is_refused(download: Path) -> None:
    package = open_model(download)
    weights = dict(package.weights)
    weights.popitem()
    write_package(download, replace(package, weights=weights))
    open_model(download)  # the package itself is valid
    for action in (lambda path: import_model(path, check_package), verify_model):
        with pytest.raises(InputError, match="its weights do not fit its recipe's network"):
            action(download)


def test_file_larger_than_any_model_is_refused(download: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_package, "_LARGEST", 1000)
    with pytest.raises(InputError, match="is too large for a model"):
        import_model(download)


def test_existing_model_is_replaced_only_if_the_import_succeeds(
    tmp_path: Path, download: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = import_model(download)
    before = old.path.read_bytes()
    package = open_model(download)
    newer = tmp_path / "newer.dcamt"
    write_package(newer, replace(package, card=replace(package.card, notes="newer")))

    weights = dict(package.weights)
    weights.popitem()
    unfit = tmp_path / "unfit.dcamt"
    write_package(unfit, replace(package, weights=weights))
    with pytest.raises(InputError, match="its weights do not fit"):
        import_model(unfit, check_package, replace=True)
    assert old.path.read_bytes() == before

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fail_as_if_full)
        with pytest.raises(OutputError):
            import_model(newer, replace=True)
    assert old.path.read_bytes() == before
    assert [path.name for path in old.path.parent.iterdir()] == ["mine.dcamt"]

    assert import_model(newer, replace=True) == old
    assert open_model(old.path).card.notes == "newer"
    assert stored_names() == [("left-atrium", True), ("mine", False)]


def fail_as_if_full(path: Path, data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_advice_to_remove_a_model_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    model = write_model(tmp_path / "x.dcamt", "first run")
    import_model(model)
    argument = '"first run"' if os.name == "nt" else "'first run'"
    with pytest.raises(InputError, match=f"dcamt models remove {argument}$"):
        import_model(model)


def test_import_under_an_existing_name_is_refused(tmp_path: Path, download: Path) -> None:
    model = import_model(download)
    before = model.path.read_bytes()
    with pytest.raises(InputError, match=r"a model 'mine' exists already\. .*--overwrite.*dcamt models remove mine$"):
        import_model(download)
    for replace_it in (False, True):
        with pytest.raises(InputError, match="a model 'left-atrium' is shipped with DCAMT"):
            import_model(write_model(tmp_path / "x.dcamt", "left-atrium"), replace=replace_it)
    assert model.path.read_bytes() == before
    assert len(stored_models()) == 2


def test_import_does_not_follow_a_stored_link_to_a_missing_model(tmp_path: Path, download: Path) -> None:
    stored, elsewhere = import_model(download).path, tmp_path / "elsewhere.dcamt"
    stored.unlink()
    stored.symlink_to(elsewhere)
    with pytest.raises(InputError, match="a model 'mine' exists already"):
        import_model(download)
    assert not elsewhere.exists()


def test_model_is_found_replaced_and_removed_by_a_name_that_looks_equal(download: Path) -> None:
    stored = import_model(download, name="Vorho\u0308fe\u3000LGE")
    for name in ("Vorh\u00f6fe\u3000LGE", "Vorho\u0308fe LGE"):
        assert model_path(name) == stored.path
        with pytest.raises(InputError, match="exists already"):
            import_model(download, name=name)
        assert import_model(download, name=name, replace=True) == stored
    for name in ("vorh\u00f6fe LGE", "Vorhofe LGE"):
        with pytest.raises(InputError, match="no such model"):
            model_path(name)
    assert remove_model("Vorh\u00f6fe LGE") == stored
    assert stored_names() == [("left-atrium", True)]


def test_shipped_model_cannot_be_replaced_or_removed(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model 'left-atrium' is shipped with DCAMT"):
        remove_model("left-atrium")
    assert shipped.exists()
    # A file of the same name in the user's folder does not replace the shipped model.
    write_model(tmp_path / "home" / "models" / "left-atrium.dcamt", "left-atrium")
    assert stored_names() == [("left-atrium", True)]
    assert model_path("left-atrium") == shipped


def test_removing_a_model_that_is_not_in_the_store_is_refused(download: Path) -> None:
    for name in ("mine", str(download), "../downloads/model (1)", ""):
        with pytest.raises(InputError, match="there is no model"):
            remove_model(name)
    assert download.exists()


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", ".hidden", "../evil", "a/b", "a\\b", "C:evil", "a\nb", "a\0b", "\ud800", "what?", "nul", "a" * 240],
)
def test_model_name_that_is_not_a_file_name_is_refused(tmp_path: Path, name: str) -> None:
    path = write_model(tmp_path / "x.dcamt", name)
    with pytest.raises(InputError, match="cannot be a file name") as caught:
        import_model(path)
    assert "\n" not in str(caught.value)
    assert "under another name (in a terminal: dcamt models import FILE --name NAME)" in str(caught.value)
    assert not (tmp_path / "home").exists()
    assert import_model(path, name="usable").path.name == "usable.dcamt"
    with pytest.raises(InputError, match="cannot be a file name"):
        import_model(path, name=name)
    assert stored_names() == [("left-atrium", True), ("usable", False)]


def test_import_command_refuses_the_name_of_a_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_model(tmp_path / "runs" / "left-atrium" / "model.dcamt", "left-atrium")
    for options in ([], ["--name", "left-atrium"]):
        assert call_dcamt(["models", "import", path, "--overwrite", *options]) == 1
        assert "is shipped with DCAMT. Import the model under another name" in capsys.readouterr().err
    assert call_dcamt(["models", "import", path, "--name", "my atrium"]) == 0
    assert "imported as 'my atrium'" in capsys.readouterr().out
    assert call_dcamt(["models", "import", path, "--name", "my atrium"]) == 1
    assert "a model 'my atrium' exists already" in capsys.readouterr().err
    assert stored_names() == [("left-atrium", True), ("my atrium", False)]


@pytest.mark.parametrize(
    "form",
    [
        "name",
        "path",
        "relative path",
        pytest.param("link", marks=pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")),
    ],
)
def test_calibrate_command_refuses_a_shipped_model(
    tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    models = {"name": "left-atrium", "path": str(shipped), "relative path": "shipped/left-atrium.dcamt"}
    if form == "link":
        (tmp_path / "link.dcamt").symlink_to(shipped)
    assert call_dcamt(["models", "calibrate", models.get(form, "link.dcamt"), "cases.csv"]) == 1
    assert "is shipped with DCAMT and cannot be changed" in capsys.readouterr().err


def test_import_command_reports_a_calibration_of_another_model(
    tmp_path: Path, download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_calibrated_model(tmp_path / "x.dcamt", "other")
    calibration_path(download).write_bytes(calibration_path(other).read_bytes())
    assert call_dcamt(["models", "import", download]) == 0
    error = capsys.readouterr().err
    assert f"{calibration_path(download)}: the calibration belongs to another model" in error
    assert call_dcamt(["models", "import", other]) == 0
    assert capsys.readouterr().err == ""


def test_longest_model_name_is_imported_with_its_calibration(tmp_path: Path) -> None:
    path = write_calibrated_model(tmp_path / "x.dcamt", "a" * 238)
    stored = import_model(path).path
    assert read_calibration(stored) is not None
    assert len(calibration_path(stored).name) == 255


def test_model_is_not_stored_if_its_calibration_cannot_be_written(tmp_path: Path) -> None:
    path = write_calibrated_model(tmp_path / "x.dcamt", "mine")
    calibration_path(tmp_path / "home" / "models" / "mine.dcamt").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"mine\.calibration\.json: "):
        import_model(path)
    assert stored_names() == [("left-atrium", True)]


def test_ordinary_model_name_is_accepted(tmp_path: Path) -> None:
    for name in ("left-atrium 2.0", "Vorhof_ä", "a..b"):
        assert import_model(write_model(tmp_path / "x.dcamt", name)).name == name
        assert verify_model(name).card.name == name
    assert len(stored_models()) == 4


def test_check_package_refuses_weights_of_a_wrong_type(download: Path) -> None:
    package = open_model(download)
    double_precision = {name: array.astype("f8") for name, array in package.weights.items()}
    write_package(download, replace(package, weights=double_precision))
    with pytest.raises(InputError, match="are of the type float64"):
        import_model(download, check_package)
    imported = import_model(download)
    with pytest.raises(InputError, match="are of the type float64"):
        verify_model(imported.name)


def test_damaged_model_is_not_imported(tmp_path: Path, download: Path) -> None:
    data = bytearray(download.read_bytes())
    data[len(data) // 2] ^= 0xFF
    download.write_bytes(data)
    with pytest.raises(InputError, match=r"model \(1\)\.dcamt: "):
        import_model(download)
    assert not (tmp_path / "home").exists()


def test_import_is_refused_if_the_home_folder_is_a_file(tmp_path: Path, download: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(OutputError, match=r"is not a folder\. Choose another folder\. .*DCAMT_HOME can name"):
        import_model(download)
    assert stored_names() == [("left-atrium", True)]


@pytest.mark.parametrize("allows_hard_links", [True, False])
@pytest.mark.parametrize("is_replaced", [True, False])
def test_model_that_appears_during_an_import_is_replaced_only_if_replace_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allows_hard_links: bool, is_replaced: bool
) -> None:
    first = write_calibrated_model(tmp_path / "x.dcamt", "first")
    second = write_calibrated_model(tmp_path / "y.dcamt", "second")
    write_bytes = Path.write_bytes

    def import_first_model_then_write(path: Path, data: bytes) -> int:
        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        import_model(first, name="mine")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", import_first_model_then_write)
    if not allows_hard_links:
        monkeypatch.setattr("dcamt.io.atomic.os.link", deny_permission)
    if is_replaced:
        import_model(second, name="mine", replace=True)
    else:
        with pytest.raises(InputError, match=r"y\.dcamt: a model 'mine' exists already\. .*--overwrite"):
            import_model(second, name="mine")
    kept = second if is_replaced else first
    stored = tmp_path / "home" / "models" / "mine.dcamt"
    assert stored.read_bytes() == kept.read_bytes()
    assert calibration_path(stored).read_bytes() == calibration_path(kept).read_bytes()
    assert len(list(stored.parent.iterdir())) == 2


def test_full_disk_during_import_leaves_no_partial_model(
    download: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def write_the_beginning(path: Path, data: bytes) -> None:
        write_bytes(path, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_the_beginning)
    with pytest.raises(OutputError, match="the disk is full"):
        import_model(download)
    assert stored_names() == [("left-atrium", True)]
    assert not (tmp_path / "home").exists()


def test_each_kind_of_installation_has_a_folder_of_shipped_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kinds are the source tree, the extension of 3D Slicer and the pip package."""
    monkeypatch.undo()
    engine = Path(model_store.__file__).parents[1]
    assert model_store.shipped_folders() == [
        engine.parents[1] / "Resources" / "Models",
        engine.parent / "Resources" / "Models",
        engine / "shipped_models",
    ]


def test_model_is_replaced_although_its_old_calibration_cannot_be_removed(tmp_path: Path, download: Path) -> None:
    """The old calibration names the checksum of the old model, so it is not used."""
    old = import_model(write_calibrated_model(tmp_path / "x.dcamt", "mine"))
    assert read_calibration(old.path) is not None
    package = open_model(download)
    write_package(download, replace(package, card=replace(package.card, notes="newer")))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "unlink", deny_permission)
        import_model(download, replace=True)
    assert old.path.read_bytes() == download.read_bytes()
    assert read_calibration(old.path) is None
    assert "the calibration belongs to another model" in open_model(old.path).notes[0]


def test_model_is_removed_although_its_calibration_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = import_model(write_calibrated_model(tmp_path / "x.dcamt", "mine"))
    unlink = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, **rest: (deny_permission if ".json" in path.name else unlink)(path)
    )
    assert remove_model("mine") == model
    assert stored_names() == [("left-atrium", True)]
    assert calibration_path(model.path).exists()


def deny_permission(path: Path, target: object = None, missing_ok: bool = False) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_temporary_file_of_a_killed_import_is_not_listed(download: Path) -> None:
    model = import_model(download)
    with atomic_path(model.path.with_name("other.dcamt")) as temporary:
        temporary.write_bytes(b"half")
        assert stored_names() == [("left-atrium", True), ("mine", False)]
