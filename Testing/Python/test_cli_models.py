"""`dcamt models`: import, list, show, verify and remove; damaged files and other invalid input are refused."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcamt.models import store as model_store
from dcamt.models.package import Card
from dcamt.networks.packaging import save_model
from dcamt_testing.model_files import make_tiny_network
from dcamt_testing.processes import call_dcamt
from dcamt_testing.tiny_recipes import tiny_recipe


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty store of models, without the shipped models."""
    monkeypatch.setenv("DCAMT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(model_store, "shipped_folders", lambda: [tmp_path / "shipped"])
    return tmp_path / "home"


def save_model_named(path: Path, name: str = "tiny", broken: bool = False) -> Path:
    state = make_tiny_network().state_dict()
    if broken:
        next(iter(state.values())).fill_(np.nan)
    card = Card(name, "A tiny model", ("Left atrium",), "LGE-MRI", "7", "CC0", "2020-01-01", trained_on={"labelled": 3})
    save_model(path, state, tiny_recipe(), card)
    return path


def call_models(*arguments: str | Path) -> int:
    return call_dcamt(["models", *arguments])


def test_model_is_imported_listed_shown_verified_and_removed(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save_model_named(tmp_path / "some name.dcamt")

    def models_events(*arguments: str | Path) -> list[dict]:
        assert call_models(*arguments, "--json") == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert models_events("list") == []
    (imported,) = models_events("import", file)
    assert imported["name"] == "tiny"
    assert Path(imported["path"]).read_bytes() == file.read_bytes()
    (listed,) = models_events("list")
    assert (listed["name"], listed["title"], listed["shipped"]) == ("tiny", "A tiny model", False)
    (card,) = models_events("show", "tiny")
    assert (card["version"], card["licence"], card["trained_on"]) == ("7", "CC0", {"labelled": 3})
    (verified,) = models_events("verify", "tiny")
    assert verified["checksum"] == card["checksum"]
    assert call_models("show", file) == 0
    assert "A tiny model" in capsys.readouterr().out
    assert call_models("list") == 0
    assert capsys.readouterr().out.startswith("tiny ")
    (removed,) = models_events("remove", "tiny")
    assert removed["name"] == "tiny"
    assert list((home / "models").iterdir()) == []


def test_folder_given_as_a_model_is_refused(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action, message in (
        ("import", "is a folder, not a model file"),
        ("show", "is a folder, and there is no model of that name"),
    ):
        assert call_models(action, tmp_path) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"dcamt: {tmp_path}: {message}. ")
        assert "model.dcamt in a run's folder" in error


def test_wrong_input_is_refused_in_one_line(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model_named(tmp_path / "shipped" / "first.dcamt", "first")
    good = save_model_named(tmp_path / "good.dcamt")
    assert call_models("import", good) == 0
    capsys.readouterr()
    cut = tmp_path / "cut.dcamt"
    cut.write_bytes(good.read_bytes()[:-300])
    altered = tmp_path / "altered.dcamt"
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    extra = tmp_path / "extra.dcamt"
    extra.write_bytes(good.read_bytes())
    with zipfile.ZipFile(extra, "a") as archive:
        archive.writestr("code.py", "print('run me')")
    climbing = save_model_named(tmp_path / "climbing.dcamt", "../../climbing")
    broken = save_model_named(tmp_path / "broken.dcamt", "broken", broken=True)
    (tmp_path / "text.dcamt").write_text("no model", encoding="utf-8")
    cases = [
        (("show", "nobody"), ("nobody", "Available models", "tiny")),
        (("verify", cut), ("cut.dcamt", "again")),
        (("verify", altered), ("altered.dcamt", "again")),
        (("verify", extra), ("extra.dcamt", "code.py")),
        (("verify", broken), ("broken.dcamt", "finite")),
        (("import", tmp_path / "text.dcamt"), ("text.dcamt", "again")),
        (("import", climbing), ("climbing.dcamt", "../../climbing")),
        (("import", good), ("good.dcamt", "dcamt models remove tiny")),
        (("import", tmp_path), (str(tmp_path),)),
        (("remove", "first"), ("first", "shipped with")),
        (("remove", "nobody"), ("nobody", "dcamt models list")),
        (("remove", good), ("good.dcamt",)),
    ]
    for arguments, parts in cases:
        assert call_models(*arguments) == 1, arguments
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), arguments
        for part in parts:
            assert part in printed.err
        assert [path.name for path in (home / "models").iterdir()] == ["tiny.dcamt"]
    assert good.exists()


def test_damaged_model_does_not_hide_the_others(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model_named(home / "models" / "b.dcamt", "b")
    (home / "models" / "a.dcamt").write_text("no model", encoding="utf-8")
    assert call_models("list", "--json") == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["name"] for line in printed.out.splitlines()] == ["b"]
    assert printed.err.count("\n") == 1
    assert "a.dcamt" in printed.err


def test_unreadable_store_is_reported_after_the_shipped_models(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model_named(tmp_path / "shipped" / "tiny.dcamt")
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if path == home / "models":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(model_store.os, "scandir", refuse)
    assert call_models("list") == 1
    printed = capsys.readouterr()
    assert "A tiny model (shipped)" in printed.out
    assert printed.err.startswith(f"dcamt: {home / 'models'}: cannot be read (Permission denied).")


def test_store_whose_folder_is_a_file_is_refused(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save_model_named(tmp_path / "good.dcamt")
    home.write_text("a file where the folder should be", encoding="utf-8")
    assert call_models("import", file) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not a folder" in error
    assert home.read_text(encoding="utf-8") == "a file where the folder should be"


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["show"], ["paint"]):
        assert call_models(*arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_card_and_calibration_are_shown_as_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = Path(__file__).resolve().parents[2] / "Resources" / "Models" / "left-atrium.dcamt"
    assert call_models("show", shipped) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "segments:    Left atrium" in lines
    assert "  labelled patients: 80" in lines
    assert lines.count("    dice mean: 0.9239") + lines.count("  - dice mean: 0.9239") == 1
    assert any(line.startswith("  accurate, clean: mean absolute error 0.0") for line in lines)
    assert not any(mark in line for line in lines for mark in "{}[]")


def test_list_of_mappings_and_texts_in_a_card_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source: dict[str, object] = {"source": [{"site": "A", "scans": 2}, "site B"]}
    card = Card("tiny", "A tiny model", ("Left atrium",), "LGE-MRI", "7", "CC0", "2020-01-01", source)
    path = tmp_path / "tiny.dcamt"
    save_model(path, make_tiny_network().state_dict(), tiny_recipe(), card)
    assert call_models("show", path) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("  source:")
    assert lines[start : start + 4] == ["  source:", "    - scans: 2", "      site: A", "    - site B"]


def test_control_characters_in_a_card_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.dcamt"
    card = Card("hostile", "A\x1b[2J\x9b1m\rmodel", ("LA",), "MRI", "1", "CC0", "2020-01-01", notes="a\nb")
    save_model(path, make_tiny_network().state_dict(), tiny_recipe(), card)
    assert call_models("show", path) == 0
    out = capsys.readouterr().out
    assert r"A\x1b[2J\x9b1m\x0dmodel" in out
    assert all(char.isprintable() or char == "\n" for char in out)
    assert call_models("verify", "\x1b[31m") == 1
    assert r"dcamt: \x1b[31m: there is no such model file" in capsys.readouterr().err
