"""The frame around the code: what Slicer's build, its Extensions Manager and a citing reader are told."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("DCAMTSegmentation", "DCAMTTraining")
RESOURCE_ENDINGS = {".ui", ".png", ".json", ".txt", ".svg", ".csv", ".html", ".css", ".js"}
RAW = "https://raw.githubusercontent.com/DCAMT/SlicerDCAMT/main/"
LIBRARY = "lib/qt-scripted-modules"

# A Slicer that copies and installs as the real one does (SlicerMacroBuildScriptedModule and CTK's
# ctkMacroCompilePythonScript): what a module names goes below the scripted modules' folder of the build tree,
# and that whole folder is installed.
FAKE_SLICER = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/CPack.cmake")
"""
FAKE_USE = """
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "lib/qt-scripted-modules")
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown keywords: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT MY_NAME OR NOT MY_SCRIPTS)
    message(FATAL_ERROR "NAME and SCRIPTS are mandatory")
  endif()
  foreach(file IN LISTS MY_SCRIPTS MY_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "given nonexistent file '${file}'")
    endif()
    configure_file("${CMAKE_CURRENT_SOURCE_DIR}/${file}"
      "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${file}" COPYONLY)
  endforeach()
  install(DIRECTORY "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/"
    DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}" COMPONENT RuntimeLibraries
    USE_SOURCE_PERMISSIONS)
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown keywords: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "given nonexistent test '${MY_SCRIPT}'")
  endif()
  file(APPEND "${CMAKE_BINARY_DIR}/tests.txt" "${MY_SCRIPT}\\n")
endmacro()
"""
FAKE_GENERATE_CONFIG = """
foreach(key HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS LICENSE_FILE
    README_FILE)
  file(APPEND "${CMAKE_BINARY_DIR}/extension.txt" "${key} ${EXTENSION_${key}}\\n")
endforeach()
"""


def module_sources(module: str, home: Path = ROOT) -> set[str]:
    """Python and resource files below a module's folder, relative to it: what must be shipped."""
    folder = home / module
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.suffix == ".py" or path.suffix in RESOURCE_ENDINGS)
        and path.name != "CMakeLists.txt"
        and "__pycache__" not in path.parts
    }


def cmake_lists(module: str) -> set[str]:
    """Files that a module's CMakeLists.txt names in its set(...) lists."""
    text = re.sub(r"#.*", "", (ROOT / module / "CMakeLists.txt").read_text())
    variables = {"MODULE_NAME": module}
    files: set[str] = set()
    for name, body in re.findall(r"set\((\w+)\s+([^)]*)\)", text):
        if name in {"MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES", "TRAINING_RESOURCES"}:
            words = [re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word) for word in body.split()]
            assert len(words) == len(set(words)), f"{name} names a file twice"
            files |= set(words)
    return files


def extension_facts() -> dict[str, str]:
    """The EXTENSION_* values of the top CMakeLists.txt, by the ending of their names."""
    return dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', (ROOT / "CMakeLists.txt").read_text()))


def s4ext_facts() -> dict[str, str]:
    """Keyword and value of every line of DCAMT.s4ext that is no comment."""
    lines = (ROOT / "DCAMT.s4ext").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def png_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels from a PNG's header chunk."""
    head = path.read_bytes()[:24]
    assert (head[:8], head[12:16]) == (b"\x89PNG\r\n\x1a\n", b"IHDR"), f"{path} is no PNG"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize("module", MODULES)
def test_cmake_lists_equal_the_tree(module: str) -> None:
    listed, present = cmake_lists(module), module_sources(module)
    assert sorted(present - listed) == [], f"add these to {module}/CMakeLists.txt"
    assert sorted(listed - present) == [], f"{module}/CMakeLists.txt names files that do not exist"


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


def test_catalog_entry_fits_schema_and_agrees() -> None:
    entry = json.loads((ROOT / "DCAMT.json").read_text())
    s4ext = s4ext_facts()
    # What slicer-extension-catalog-entry-schema-v1.0.1.json in Slicer's Schemas folder allows: these keys
    # of these types, no others.
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


def test_icon_and_screenshot_addresses_lead_to_files() -> None:
    facts = extension_facts()
    assert facts["ICONURL"].startswith(RAW)
    assert png_size(ROOT / facts["ICONURL"].removeprefix(RAW)) == (128, 128)
    screenshots = facts["SCREENSHOTURLS"].split()
    assert screenshots
    assert all(url.startswith(f"{RAW}Resources/Screenshots/") for url in screenshots)
    if not (ROOT / "Resources/Screenshots").exists():
        pytest.skip("no screenshots in the tree yet")
    assert [url for url in screenshots if not (ROOT / url.removeprefix(RAW)).is_file()] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_icons(module: str) -> None:
    assert png_size(ROOT / module / f"Resources/Icons/{module}.png") == (128, 128)


def test_icons_are_what_their_script_draws(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    import runpy

    import numpy as np
    from PIL import Image

    drawn = runpy.run_path(str(ROOT / "Resources/Icons/make_icons.py"))
    for name, path in {
        "extension_icon": "Resources/Icons/DCAMT.png",
        "segmentation_icon": "DCAMTSegmentation/Resources/Icons/DCAMTSegmentation.png",
        "training_icon": "DCAMTTraining/Resources/Icons/DCAMTTraining.png",
    }.items():
        fresh = drawn[name]().resize((128, 128), Image.Resampling.LANCZOS)
        with Image.open(ROOT / path) as kept:
            difference = np.abs(np.asarray(fresh, np.int16) - np.asarray(kept.convert("RGBA"), np.int16))
        # Pillow versions round differently; another drawing differs by tens.
        assert difference.mean() < 2, path


def test_licence_is_apache_2() -> None:
    words = " ".join((ROOT / "LICENSE.txt").read_text().split())
    assert words.startswith("Apache License Version 2.0, January 2004 http://www.apache.org/licenses/")
    for section in range(1, 10):
        assert re.search(rf"\b{section}\. [A-Z]", words)
    assert "END OF TERMS AND CONDITIONS" in words
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text()


def test_citation_names_paper_and_data() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # The four keys that the Citation File Format 1.2.0 demands.
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


def test_requirements_leave_slicers_own_packages_alone() -> None:
    lines = (ROOT / "DCAMTSegmentation/Resources/requirements.txt").read_text().splitlines()
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    assert {"nibabel", "pynrrd", "slicerio", "scipy"} <= names
    assert names & {"numpy", "simpleitk", "torch", "vtk", "pydicom", "requests"} == set()


def test_requirements_are_those_of_the_pip_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    dependencies = re.findall(r'"([^"]+)"', re.search(r"\ndependencies = \[(.*?)\]", text, re.S)[1])  # type: ignore[index]
    lines = (ROOT / "DCAMTSegmentation/Resources/requirements.txt").read_text().splitlines()
    asked = {line for line in lines if line and not line.startswith("#")}
    others = {"torch", "numpy", "SimpleITK"}  # from Slicer and its PyTorch extension
    assert asked == {line for line in dependencies if re.split("[><=]", line)[0] not in others}


def test_the_pip_package_holds_the_engine_alone() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    packages = re.findall(r'"([^"]+)"', re.search(r"\npackages = \[(.*?)\]", text, re.S)[1])  # type: ignore[index]
    assert all(name.split(".")[0] == "dcamt" for name in packages)
    tree = {
        ".".join(path.parent.relative_to(ROOT / "DCAMTSegmentation").parts)
        for path in (ROOT / "DCAMTSegmentation/dcamt").rglob("__init__.py")
    }
    assert set(packages) == tree | {"dcamt.shipped_models"}


# Configuring and installing for real, with a Slicer of a few lines in the place of the true one.


def build_and_install(source: Path, place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Configure with `options`, build and install `source` into place/installed; the first failing step's result."""
    slicer = place / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(FAKE_SLICER)
    (slicer / "Use.cmake").write_text(FAKE_USE)
    (slicer / "GenerateConfig.cmake").write_text(FAKE_GENERATE_CONFIG)
    (slicer / "CPack.cmake").write_text("")
    build = place / "build"
    done = subprocess.CompletedProcess([], 0, "", "")
    for arguments in (
        ["-S", str(source), "-B", str(build), f"-DSlicer_DIR={slicer}", *options],
        ["--build", str(build)],
        ["--install", str(build), "--prefix", str(place / "installed")],
    ):
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            break
    return done


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    """What the build reads, in a copy that a test may damage, with a model and a sample scan in it."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("CMakeLists.txt", "LICENSE.txt"):
        shutil.copy(ROOT / name, source)
    for name in (*MODULES, "Resources", "Testing/Slicer", "Testing/slicer_harness", "Testing/dcamt_testing"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Models/left-atrium.dcamt", "SampleData/LGEHeartPhantom.nrrd"):
        path = source / "Resources" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x00weights\xff@NOT_A_VARIABLE@")
    return source


def test_cmake_ships_the_tree(copied_tree: Path, tmp_path: Path) -> None:
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode == 0, done.stderr
    shipped = {
        str(path.relative_to(copied_tree))
        for pattern in ("Models/*.dcamt", "SampleData/*.nrrd")
        for path in (copied_tree / "Resources").glob(pattern)
    }
    expected = set.union(shipped, *(module_sources(module, copied_tree) for module in MODULES))
    assert {"Resources/Models/left-atrium.dcamt", "dcamt/__init__.py"} <= expected
    for place in ("build", "installed"):
        library = tmp_path / place / LIBRARY
        assert files_below(library) == expected
        for name in shipped:
            assert (library / name).read_bytes() == (copied_tree / name).read_bytes()
    facts = (tmp_path / "build/extension.txt").read_text()
    assert f"DEPENDS {extension_facts()['DEPENDS']}\n" in facts
    assert f"LICENSE_FILE {copied_tree}/LICENSE.txt\n" in facts


def test_cmake_refuses_a_missing_script(copied_tree: Path, tmp_path: Path) -> None:
    (copied_tree / "DCAMTSegmentation/dcamt/errors.py").unlink()
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode != 0
    assert "dcamt/errors.py" in done.stderr


def test_cmake_configures_before_any_model_is_there(copied_tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied_tree / "Resources/Models")
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "installed" / LIBRARY / "Resources/Models").exists()


def test_cmake_gives_slicer_every_module_test(copied_tree: Path, tmp_path: Path) -> None:
    extra = copied_tree / "Testing/Slicer/test_extra.py"
    extra.write_text("")
    lists = copied_tree / "Testing/Slicer/CMakeLists.txt"
    lists.write_text(lists.read_text().replace("set(MODULE_TESTS\n", "set(MODULE_TESTS\n  test_extra.py\n"))
    done = build_and_install(copied_tree, tmp_path, "-DBUILD_TESTING=ON")
    assert done.returncode == 0, done.stderr
    tests = {path.name for path in (copied_tree / "Testing/Slicer").glob("test_*.py")}
    own = {name for name in tests if name.startswith("test_harness_")}
    assert own
    assert set((tmp_path / "build/tests.txt").read_text().split()) == tests - own
    # The macro puts this folder of the build on the path of the tests.
    for package in ("slicer_harness", "dcamt_testing"):
        assert (tmp_path / "build/Testing/Slicer" / package / "__init__.py").is_file()
    # Nothing of the tests is installed with the extension.
    assert not [name for name in files_below(tmp_path / "installed") if "test" in name or "harness" in name]
