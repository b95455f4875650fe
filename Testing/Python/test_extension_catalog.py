"""Test the extension's files for the Extensions Manager and for citations."""

from __future__ import annotations

import json
import re
import runpy
import struct
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("DCAMTSegmentation", "DCAMTTraining")
RAW = "https://raw.githubusercontent.com/DCAMT/SlicerDCAMT/main/"


def extension_facts() -> dict[str, str]:
    """Return the EXTENSION_* values of the top CMakeLists.txt, by name without the prefix."""
    return dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))


def s4ext_facts() -> dict[str, str]:
    lines = (ROOT / "DCAMT.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert (head[:8], head[12:16]) == (b"\x89PNG\r\n\x1a\n", b"IHDR"), f"{path} is no PNG"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_s4ext_agrees_with_cmake() -> None:
    cmake, s4ext = extension_facts(), s4ext_facts()
    pairs = {
        "homepage": "HOMEPAGE",
        "category": "CATEGORY",
        "contributors": "CONTRIBUTORS",
        "description": "DESCRIPTION",
        "iconurl": "ICONURL",
        "screenshoturls": "SCREENSHOTURLS",
        "depends": "DEPENDS",
    }
    assert {key: s4ext[key] for key in pairs} == {key: cmake[name] for key, name in pairs.items()}


def test_catalog_entry_fits_the_schema_and_agrees_with_cmake() -> None:
    entry = json.loads((ROOT / "DCAMT.json").read_text(encoding="utf-8"))
    s4ext = s4ext_facts()
    # The keys and types of slicer-extension-catalog-entry-schema-v1.0.1.json in Slicer's Schemas folder.
    types = {
        "$schema": str,
        "category": str,
        "scm_url": str,
        "scm_revision": str,
        "scm_type": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "enabled": bool,
        "tier": int,
    }
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(types)
    assert all(type(value) is types[key] for key, value in entry.items())
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["tier"] in {1, 3, 5}
    assert entry["build_dependencies"] == s4ext["depends"].split() == extension_facts()["DEPENDS"].split()
    for key, older in {
        "category": "category",
        "scm_url": "scmurl",
        "scm_revision": "scmrevision",
        "build_subdirectory": "build_subdirectory",
        "tier": "tier",
    }.items():
        assert str(entry[key]) == s4ext[older]
    assert entry["scm_url"] == extension_facts()["HOMEPAGE"]


def test_description_is_short_and_plain() -> None:
    description = extension_facts()["DESCRIPTION"]
    assert 1 <= len(re.findall(r"\.(?:\s|$)", description)) <= 2
    assert not re.search(r"V-Net|DCA-MT|attentive|distillation|semi-supervised", description)


def test_icon_and_screenshot_urls_point_to_files() -> None:
    facts = extension_facts()
    assert facts["ICONURL"].startswith(RAW)
    assert png_size(ROOT / facts["ICONURL"].removeprefix(RAW)) == (128, 128)
    screenshots = facts["SCREENSHOTURLS"].split()
    assert screenshots
    assert all(url.startswith(f"{RAW}Resources/Screenshots/") for url in screenshots)
    if not (ROOT / "Resources/Screenshots").exists():
        pytest.skip("the tree has no screenshots")
    assert [url for url in screenshots if not (ROOT / url.removeprefix(RAW)).is_file()] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_icon_has_the_right_size(module: str) -> None:
    assert png_size(ROOT / module / f"Resources/Icons/{module}.png") == (128, 128)


def test_icons_equal_the_drawings_of_their_script(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    drawn = runpy.run_path(str(ROOT / "Resources/Icons/make_icons.py"))
    for name, path in {
        "extension_icon": "Resources/Icons/DCAMT.png",
        "segmentation_icon": "DCAMTSegmentation/Resources/Icons/DCAMTSegmentation.png",
        "training_icon": "DCAMTTraining/Resources/Icons/DCAMTTraining.png",
    }.items():
        fresh = drawn[name]().resize((128, 128), image.Resampling.LANCZOS)
        with image.open(ROOT / path) as kept:
            difference = np.abs(np.asarray(fresh, np.int16) - np.asarray(kept.convert("RGBA"), np.int16))
        # Pillow's versions round differently.
        assert difference.mean() < 2, path


def test_licence_is_apache_2() -> None:
    terms = " ".join((ROOT / "LICENSE.txt").read_text(encoding="utf-8").split())
    assert terms.startswith("Apache License Version 2.0, January 2004 http://www.apache.org/licenses/")
    for section in range(1, 10):
        assert re.search(rf"\b{section}\. [A-Z]", terms)
    assert "END OF TERMS AND CONDITIONS" in terms
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_readme_has_the_parts_that_the_extensions_index_requires() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# DCAMT\n")
    assert re.search(r"!\[[^]]+\]\(Resources/Screenshots/", text)
    for phrase in ("DCAMT Segmentation", "DCAMT Training", "Apache License 2.0", "LICENSE.txt"):
        assert phrase in text
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    paper = re.search(r'doi: "([^"]+)"', citation)
    assert paper is not None
    assert f"https://doi.org/{paper[1]}" in text


def test_contributors_in_cmake_are_in_the_contributors_file() -> None:
    names = [
        line
        for line in (ROOT / "CONTRIBUTORS").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert extension_facts()["CONTRIBUTORS"] in names


def test_citation_names_paper_and_data() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # The four keys that the Citation File Format 1.2.0 requires.
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    paper = citation["preferred-citation"]
    assert (paper["authors"][0]["family-names"], paper["journal"], paper["year"]) == ("Ma", "PLoS ONE", 2026)
    assert (paper["volume"], paper["issue"], paper["start"]) == (21, 6, "e0352358")
    assert "dual cross-attentive mutual teaching" in paper["title"].lower()
    assert "DCA-MT" in paper["notes"]
    benchmark, processed = citation["references"]
    assert benchmark["authors"][0]["family-names"] == "Xiong"
    assert benchmark["year"] == 2021
    assert benchmark["journal"] == "Medical Image Analysis"
    assert "2018 Left Atrial Segmentation Challenge" in benchmark["notes"]
    assert "University of Utah" in benchmark["notes"]
    assert processed["authors"][0]["family-names"] == "Yu"
    assert "MICCAI 2019" in processed["conference"]["name"]
    for reference in (paper, benchmark, processed):
        assert re.fullmatch(r"10\.\d{4,}/\S+", reference["doi"])
