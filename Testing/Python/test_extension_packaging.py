"""Test the extension's build, and its files for the Extensions Manager, for pip and for citations."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from dcamt_testing.processes import HANGING_S

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("DCAMTSegmentation", "DCAMTTraining")
RESOURCE_ENDINGS = {".ui", ".png", ".json", ".txt", ".svg", ".csv", ".html", ".css", ".js"}
RAW = "https://raw.githubusercontent.com/DCAMT/SlicerDCAMT/main/"
LIBRARY = "lib/qt-scripted-modules"

# The four following texts are a minimal replacement of Slicer's build system. Some of their checks are stricter than
# Slicer's.

# Checks as in SlicerConfig.cmake: settings that a project must not set before it finds Slicer, and the pointer size.
SLICER_CONFIG = """
foreach(setting IN ITEMS CTK_DIR ITK_DIR VTK_DIR SlicerExecutionModel_DIR CMAKE_CXX_STANDARD)
  if(DEFINED ${setting} AND NOT "${${setting}}" STREQUAL "of-slicer")
    message(FATAL_ERROR "Variable ${setting} defined prior calling 'find_package(Slicer)' does NOT match")
  endif()
endforeach()
set(Slicer_CMAKE_SIZEOF_VOID_P "@POINTER_SIZE@")
if(NOT Slicer_CMAKE_SIZEOF_VOID_P EQUAL CMAKE_SIZEOF_VOID_P)
  message(FATAL_ERROR "Mismatch between bitness of '${CMAKE_PROJECT_NAME}' and 'Slicer' project: "
    "${Slicer_CMAKE_SIZEOF_VOID_P} and '${CMAKE_SIZEOF_VOID_P}'")
endif()
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/CPack.cmake")
"""
# Checks as in UseSlicer.cmake, SlicerMacroBuildScriptedModule.cmake and SlicerMacroPythonTesting.cmake.
USE_SLICER = """
foreach(candidate IN ITEMS MODULE_NAME PROJECT_NAME)
  if(NOT EXTENSION_NAME)
    set(EXTENSION_NAME "${${candidate}}")
  endif()
endforeach()
if("${EXTENSION_NAME}" MATCHES "^$|^Slicer$|^Project$")
  message(FATAL_ERROR "error: Make sure to call 'project(<extension_name>)'")
endif()
if(DEFINED Slicer_SKIP_PROJECT_COMMAND)
  message(FATAL_ERROR "Setting Slicer_SKIP_PROJECT_COMMAND is not required anymore")
endif()
enable_testing()
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
  if(BUILD_TESTING AND MY_WITH_GENERIC_TESTS)
    file(APPEND "${CMAKE_BINARY_DIR}/generic_tests.txt" "${MY_NAME}\\n")
  endif()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown keywords: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "given nonexistent test '${MY_SCRIPT}'")
  endif()
  get_filename_component(test_name "${MY_SCRIPT}" NAME_WE)
  add_test(NAME "py_${MY_TESTNAME_PREFIX}${test_name}" COMMAND Slicer) # fails for a second test of the same name
  file(APPEND "${CMAKE_BINARY_DIR}/tests.txt" "${MY_SCRIPT}\\n")
endmacro()
"""
GENERATE_CONFIG = """
foreach(key HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS LICENSE_FILE
    README_FILE)
  file(APPEND "${CMAKE_BINARY_DIR}/extension.txt" "${key} ${EXTENSION_${key}}\\n")
endforeach()
"""
# Checks as in SlicerExtensionCPack.cmake.
CPACK_EXTENSION = """
if(NOT "${EXTENSION_NAME}" STREQUAL "${PROJECT_NAME}")
  message(FATAL_ERROR "no package: EXTENSION_NAME ${EXTENSION_NAME} differs from PROJECT_NAME ${PROJECT_NAME}")
endif()
foreach(file IN ITEMS EXTENSION_README_FILE EXTENSION_LICENSE_FILE)
  if(NOT EXISTS "${${file}}")
    message(FATAL_ERROR "error: ${file} points to an inexistent file: ${${file}}")
  endif()
endforeach()
"""


def module_sources(module: str, home: Path = ROOT) -> set[str]:
    """Return the Python and resource files that a module must ship, relative to its folder."""
    folder = home / module
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.suffix == ".py" or path.suffix in RESOURCE_ENDINGS)
        and path.name != "CMakeLists.txt"
        and "__pycache__" not in path.parts
    }


def cmake_lists(module: str) -> set[str]:
    """Return the files in the lists of scripts and resources of a module's CMakeLists.txt."""
    text = re.sub(r"#.*", "", (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8"))
    variables = {"MODULE_NAME": module}
    files: set[str] = set()
    for name, body in re.findall(r"set\((\w+)\s+([^)]*)\)", text):
        if name in {"MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"}:
            names = [re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], word) for word in body.split()]
            assert len(names) == len(set(names)), f"{name} names a file twice"
            files |= set(names)
    return files


def extension_facts() -> dict[str, str]:
    """Return the EXTENSION_* values of the top CMakeLists.txt, by name without the prefix."""
    return dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))


def s4ext_facts() -> dict[str, str]:
    """Return the values in DCAMT.s4ext, by keyword."""
    lines = (ROOT / "DCAMT.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def png_size(path: Path) -> tuple[int, int]:
    """Return a PNG file's width and height in pixels, as its header states."""
    head = path.read_bytes()[:24]
    assert (head[:8], head[12:16]) == (b"\x89PNG\r\n\x1a\n", b"IHDR"), f"{path} is no PNG"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize("module", MODULES)
def test_python_and_resource_files_are_exactly_those_listed_in_cmake(module: str) -> None:
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
        # Pillow's versions round differently; a different drawing would differ by far more.
        assert difference.mean() < 2, path


def test_licence_is_apache_2() -> None:
    terms = " ".join((ROOT / "LICENSE.txt").read_text(encoding="utf-8").split())
    assert terms.startswith("Apache License Version 2.0, January 2004 http://www.apache.org/licenses/")
    for section in range(1, 10):
        assert re.search(rf"\b{section}\. [A-Z]", terms)
    assert "END OF TERMS AND CONDITIONS" in terms
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_readme_has_the_parts_that_the_extensions_index_requires() -> None:
    """The Extensions Index requires name, image, all modules, licence and publication."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# DCAMT\n")
    assert re.search(r"!\[[^]]+\]\(Resources/Screenshots/", text)
    for phrase in ("DCAMT Segmentation", "DCAMT Training", "Apache License 2.0", "LICENSE.txt"):
        assert phrase in text
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    paper = re.search(r'doi: "([^"]+)"', citation)
    assert paper is not None
    assert f"https://doi.org/{paper[1]}" in text


def test_contributors_file_names_the_contributors_of_the_extension() -> None:
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


def test_requirements_do_not_replace_packages_of_slicer() -> None:
    lines = (ROOT / "DCAMTSegmentation/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    assert {"nibabel", "pynrrd", "slicerio", "scipy"} <= names
    assert names & {"numpy", "simpleitk", "torch", "vtk", "pydicom", "requests"} == set()


def test_slicer_requirements_are_the_pip_dependencies_that_slicer_lacks() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.findall(r'"([^"]+)"', re.search(r"\ndependencies = \[(.*?)\]", text, re.S)[1])  # type: ignore[index]
    lines = (ROOT / "DCAMTSegmentation/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = {line for line in lines if line and not line.startswith("#")}
    others = {"torch", "numpy", "SimpleITK", "pydicom", "vtk"}  # provided by Slicer and its PyTorch extension
    others |= {"highdicom"}  # only for the command's DICOM output
    assert asked == {line for line in dependencies if re.split("[><=]", line)[0] not in others}


def test_pip_package_contains_only_the_engine_and_the_shipped_models() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.findall(r'"([^"]+)"', re.search(r"\npackages = \[(.*?)\]", text, re.S)[1])  # type: ignore[index]
    assert all(name.split(".")[0] == "dcamt" for name in packages)
    tree = {
        ".".join(path.parent.relative_to(ROOT / "DCAMTSegmentation").parts)
        for path in (ROOT / "DCAMTSegmentation/dcamt").rglob("__init__.py")
    }
    assert set(packages) == tree | {"dcamt.shipped_models"}


def test_each_shipped_model_has_a_file_with_its_terms() -> None:
    models = list((ROOT / "Resources/Models").glob("*.dcamt"))
    assert models
    for model in models:
        assert "research" in model.with_name(f"{model.stem}-terms.txt").read_text(encoding="utf-8"), model
    assert '"dcamt.shipped_models" = ["*.dcamt", "*.json", "*.txt"]' in (ROOT / "pyproject.toml").read_text(
        encoding="utf-8"
    )


# The following tests run CMake on the project, with the replacement of Slicer's build system above.


def build_and_install(source: Path, place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Configure, build and install `source` into place/installed; return the result of the last step that ran."""
    slicer = place / "slicer"
    slicer.mkdir()
    for name, text in (
        ("SlicerConfig", SLICER_CONFIG.replace("@POINTER_SIZE@", str(struct.calcsize("P")))),
        ("Use", USE_SLICER),
        ("GenerateConfig", GENERATE_CONFIG),
        ("CPack", CPACK_EXTENSION),
    ):
        (slicer / f"{name}.cmake").write_text(text, encoding="utf-8")
    build = place / "build"
    done = subprocess.CompletedProcess([], 0, "", "")
    for arguments in (
        ["-S", str(source), "-B", str(build), f"-DSlicer_DIR={slicer}", *options],
        ["--build", str(build)],
        ["--install", str(build), "--prefix", str(place / "installed")],
    ):
        done = subprocess.run(
            ["cmake", *arguments], capture_output=True, text=True, timeout=HANGING_S, check=False, encoding="utf-8"
        )
        if done.returncode != 0:
            break
    return done


def file_names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    """Return a copy of the files that the build reads; a few bytes replace the model, its terms and the sample scan."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("CMakeLists.txt", "LICENSE.txt", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in (*MODULES, "Resources", "Testing/Slicer", "Testing/slicer_harness", "Testing/dcamt_testing"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Models/left-atrium.dcamt", "Models/left-atrium-terms.txt", "SampleData/LGEHeartPhantom.nrrd"):
        path = source / "Resources" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x00weights\xff@NOT_A_VARIABLE@")
    return source


def test_cmake_installs_all_python_and_resource_files(copied_tree: Path, tmp_path: Path) -> None:
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode == 0, done.stderr
    shipped = {
        str(path.relative_to(copied_tree))
        for pattern in ("Models/*.dcamt", "Models/*.json", "Models/*.txt", "SampleData/*.nrrd")
        for path in (copied_tree / "Resources").glob(pattern)
    }
    expected = set.union(shipped, *(module_sources(module, copied_tree) for module in MODULES))
    assert {
        "Resources/Models/left-atrium.dcamt",
        "Resources/Models/left-atrium-terms.txt",
        "dcamt/__init__.py",
    } <= expected
    for place in ("build", "installed"):
        library = tmp_path / place / LIBRARY
        assert file_names_below(library) == expected
        for name in shipped:
            assert (library / name).read_bytes() == (copied_tree / name).read_bytes()
    facts = (tmp_path / "build/extension.txt").read_text(encoding="utf-8")
    assert f"DEPENDS {extension_facts()['DEPENDS']}\n" in facts
    assert f"LICENSE_FILE {copied_tree}/LICENSE.txt\n" in facts


@pytest.mark.parametrize(
    ("project", "complaint"),
    [
        ("project(DCAMT LANGUAGES NONE)", "Mismatch between bitness"),
        ("project(DCAMT)\nset(EXTENSION_NAME Other)", "differs from PROJECT_NAME"),
    ],
)
def test_invalid_project_is_refused(copied_tree: Path, tmp_path: Path, project: str, complaint: str) -> None:
    lists = copied_tree / "CMakeLists.txt"
    assert lists.read_text(encoding="utf-8").count("\nproject(DCAMT)\n") == 1
    lists.write_text(
        lists.read_text(encoding="utf-8").replace("\nproject(DCAMT)\n", f"\n{project}\n"), encoding="utf-8"
    )
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode != 0
    assert complaint in " ".join(done.stderr.split())


def test_package_without_licence_file_is_refused(copied_tree: Path, tmp_path: Path) -> None:
    (copied_tree / "LICENSE.txt").unlink()
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode != 0
    assert "EXTENSION_LICENSE_FILE points to" in " ".join(done.stderr.split())


def test_missing_script_is_refused(copied_tree: Path, tmp_path: Path) -> None:
    (copied_tree / "DCAMTSegmentation/dcamt/errors.py").unlink()
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode != 0
    assert "dcamt/errors.py" in done.stderr


def test_extension_without_models_is_built_and_installed(copied_tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied_tree / "Resources/Models")
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "installed" / LIBRARY / "Resources/Models").exists()


def test_cmake_registers_every_module_test(copied_tree: Path, tmp_path: Path) -> None:
    extra = copied_tree / "Testing/Slicer/test_extra.py"
    extra.write_text("", encoding="utf-8")
    lists = copied_tree / "Testing/Slicer/CMakeLists.txt"
    lists.write_text(
        lists.read_text(encoding="utf-8").replace("set(MODULE_TESTS\n", "set(MODULE_TESTS\n  test_extra.py\n"),
        encoding="utf-8",
    )
    done = build_and_install(copied_tree, tmp_path, "-DBUILD_TESTING=ON")
    assert done.returncode == 0, done.stderr
    tests = {path.name for path in (copied_tree / "Testing/Slicer").glob("test_*.py")}
    tests_of_harness = {name for name in tests if name.startswith("test_harness_")}
    assert tests_of_harness
    assert set((tmp_path / "build/generic_tests.txt").read_text(encoding="utf-8").split()) == set(MODULES)
    assert set((tmp_path / "build/tests.txt").read_text(encoding="utf-8").split()) == tests - tests_of_harness
    # The tests import these packages from the build folder.
    for package in ("slicer_harness", "dcamt_testing"):
        assert (tmp_path / "build/Testing/Slicer" / package / "__init__.py").is_file()
    # No test file is installed with the extension.
    assert not [name for name in file_names_below(tmp_path / "installed") if "test" in name or "harness" in name]
