"""Test the Python API: types of public names, segmentation, and the engine's examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import dcamt
import numpy as np
import pytest
from dcamt.api.outputs import write_probabilities
from dcamt.geometry import CUT_BY_REGION
from dcamt.io.writers import write_volume
from dcamt.metrics.doubtful_places import doubtful_places
from dcamt.volume import Volume
from dcamt_testing.processes import HANGING_S, call_dcamt

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(dcamt.__file__).parent
MODULES_WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if re.search(r">>> (?!.*\+SKIP)", path.read_text(encoding="utf-8"))
)


@pytest.fixture(scope="module")
def scan(oblique_scan: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "scan.nrrd"
    write_volume(oblique_scan, path)
    return path


@pytest.mark.usefixtures("coarse_pictures")
@pytest.mark.parametrize("module", MODULES_WITH_EXAMPLES)
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loaded = importlib.import_module(f"dcamt.{module}")
    own = {name: value for name, value in vars(loaded).items() if getattr(value, "__module__", "") == loaded.__name__}
    # Examples of the API must import what they use, so `globs` lacks the imports of the module.
    result = doctest.testmod(loaded, globs=own if module.startswith("api.") else None)
    assert result.attempted > 0
    assert result.failed == 0


def test_import_loads_no_submodule_until_a_name_is_used() -> None:
    program = (
        "import sys, dcamt; before = set(sys.modules); dcamt.Grid; "
        "print(*sorted(n for n in before if n.startswith('dcamt.') or n in ('torch', 'numpy'))); "
        "print('torch' in sys.modules, 'dcamt.geometry' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGING_S, check=True, encoding="utf-8"
    )
    assert done.stdout.splitlines() == ["", "False True"]


def test_every_public_name_is_typed_in_the_stub_and_documented() -> None:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    public = {name: f"{module}.{name}" for name, module in dcamt._MODULE_OF.items()}
    assert typed == public
    for name in dcamt.__all__:
        assert getattr(dcamt, name).__doc__
    assert (PACKAGE / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = dcamt.paint


def test_segment_and_the_command_give_equal_results(
    saved_model: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", scan, "-o", tmp_path / "out.nrrd", "--model", saved_model, "--device", "cpu", "--json"]
    assert call_dcamt(arguments) == 0
    event = next(e for e in map(json.loads, capsys.readouterr().out.splitlines()) if e["event"] == "segmented")
    expected = dcamt.read_labelmap(tmp_path / "out.nrrd")
    assert expected.voxels.any()
    volume = dcamt.read_scan(scan)
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    results = [
        dcamt.segment(scan, saved_model, device="cpu"),
        segmenter.segment(volume, keep_probabilities=True),
        segmenter.segment(volume.voxels[0], affine=volume.grid.affine),
    ]
    for result in results:
        np.testing.assert_array_equal(result.labelmap.voxels, expected.voxels)
        assert result.labelmap.grid.matches(expected.grid)
        assert result.measurements[0].volume_ml == pytest.approx(event["measurements"][0]["volume_ml"])
        assert result.trust == pytest.approx(event["trust"])
        assert result.disagreement is not None
        assert result.disagreement.shape == expected.voxels.shape
        assert result.doubt_map is not None
        assert result.doubt_map.shape == expected.voxels.shape
        assert result.doubtful_places() == doubtful_places(result.doubt_map, result.labelmap.grid)
    probabilities = results[1].probabilities
    assert probabilities is not None
    assert results[0].probabilities is None
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-4)
    with pytest.raises(ValueError, match="without keep_probabilities=True"):
        write_probabilities(results[0], tmp_path / "probabilities.nrrd")
    assert results[0].scan.path == scan


def test_result_lies_inside_the_region(saved_model: Path, scan: Path) -> None:
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    volume = dcamt.read_scan(scan)
    whole = segmenter.segment(volume, region=(-1e3, 1e3, -1e3, 1e3, -1e3, 1e3))
    assert whole.notes == ()
    everything = whole.labelmap.voxels
    centre = volume.grid.corners().mean(axis=0)
    low, high = centre - np.array([6, 5, 7]), centre + np.array([8, 9, 7])
    result = segmenter.segment(volume, region=(high[0], low[0], low[1], high[1], low[2], high[2]))
    part = result.labelmap.voxels
    assert result.notes == ("Only a region of the scan was segmented: a box of 14 × 14 × 14 mm.", CUT_BY_REGION)
    index = np.stack(np.indices(volume.grid.shape), axis=-1)
    ras = index @ volume.grid.affine[:3, :3].T + volume.grid.affine[:3, 3]
    inside = ((ras >= low) & (ras <= high)).all(axis=-1)
    assert part.any()
    assert not part[~inside].any()
    assert everything[~inside].any()


def test_wrong_arguments_are_refused(saved_model: Path, scan: Path) -> None:
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    volume = dcamt.read_scan(scan)
    with pytest.raises(ValueError, match="needs its affine"):
        segmenter.segment(volume.voxels)
    with pytest.raises(ValueError, match="have their own"):
        segmenter.segment(volume, affine=np.eye(4))
    with pytest.raises(ValueError, match="number of channels must be 1, not 2"):
        segmenter.segment(np.zeros((2, 8, 8, 8)), affine=np.eye(4))
    with pytest.raises(dcamt.InputError, match="not a region"):
        segmenter.segment(volume, region=(0, 0, 1, 2, 3, 4))
    with pytest.raises(dcamt.InputError, match="quality 'best' is unknown"):
        segmenter.segment(volume, quality="best")
    with pytest.raises(dcamt.InputError, match="does not exist"):
        segmenter.segment("nowhere.nrrd")
