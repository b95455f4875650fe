"""Test the build of the extension with CMake, and what the extension and the pip package contain."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dcamt.io.dicom_files import OLDEST_PYDICOM
from dcamt_testing.processes import HANGING_S

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("DCAMTSegmentation", "DCAMTTraining")
RESOURCE_ENDINGS = {".ui", ".png", ".json", ".txt", ".svg", ".csv", ".html", ".css", ".js"}
LIBRARY = "lib/qt-scripted-modules"

# The four following texts are a minimal replacement of Slicer's build system. Some of their checks are stricter than
# Slicer's.

# Checks as in SlicerConfig.cmake.
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
    """Return the scripts and resources that a module's CMakeLists.txt lists."""
    text = re.sub(r"#.*", "", (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8"))
    variables = {"MODULE_NAME": module}
    files: set[str] = set()
    for name, body in re.findall(r"set\((\w+)\s+([^)]*)\)", text):
        if name in {"MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"}:
            names = [re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], word) for word in body.split()]
            assert len(names) == len(set(names)), f"{name} names a file twice"
            files |= set(names)
    return files


@pytest.mark.parametrize("module", MODULES)
def test_python_and_resource_files_are_exactly_those_listed_in_cmake(module: str) -> None:
    listed, present = cmake_lists(module), module_sources(module)
    assert sorted(present - listed) == [], f"add these to {module}/CMakeLists.txt"
    assert sorted(listed - present) == [], f"{module}/CMakeLists.txt names files that do not exist"


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


def test_pip_package_requires_at_least_the_oldest_pydicom_that_the_engine_accepts() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"pydicom>={".".join(map(str, OLDEST_PYDICOM))}"' in text


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
    """Return a copy of the files that the build reads; three of them get bytes that CMake must not change."""
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
    assert "DEPENDS PyTorch\n" in facts
    assert f"LICENSE_FILE {copied_tree}/LICENSE.txt\n" in facts


def replace_project(tree: Path, project: str) -> None:
    lists = tree / "CMakeLists.txt"
    text = lists.read_text(encoding="utf-8")
    assert text.count("\nproject(DCAMT)\n") == 1
    lists.write_text(text.replace("\nproject(DCAMT)\n", f"\n{project}\n"), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tree: replace_project(tree, "project(DCAMT LANGUAGES NONE)"), "Mismatch between bitness"),
        (lambda tree: replace_project(tree, "project(DCAMT)\nset(EXTENSION_NAME Other)"), "differs from PROJECT_NAME"),
        (lambda tree: (tree / "LICENSE.txt").unlink(), "EXTENSION_LICENSE_FILE points to"),
        (lambda tree: (tree / "DCAMTSegmentation/dcamt/errors.py").unlink(), "dcamt/errors.py"),
    ],
    ids=["no languages", "another name", "no licence file", "missing script"],
)
def test_invalid_project_is_refused(
    copied_tree: Path, tmp_path: Path, change: Callable[[Path], None], complaint: str
) -> None:
    change(copied_tree)
    done = build_and_install(copied_tree, tmp_path)
    assert done.returncode != 0
    assert complaint in " ".join(done.stderr.split())


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
    assert not [name for name in file_names_below(tmp_path / "installed") if "test" in name or "harness" in name]
