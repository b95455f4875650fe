"""The memory estimated for loading cases is compared with the measured peak and with a formula."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dcamt.case_memory import loading_bytes, resident_bytes
from dcamt.geometry import Grid
from dcamt.training.estimate import Trial, estimate
from dcamt_testing.analytic_scans import centred_grid
from dcamt_testing.synthetic import CPU, write_nifti
from dcamt_testing.tiny_recipes import tiny_recipe

LOAD = """if True:
    import sys
    from pathlib import Path
    import torch
    from dcamt import preprocessing
    from dcamt.cases.case_list import Case
    from dcamt.machine import keep_freed_memory, peak_memory_bytes
    from dcamt.recipe_files import load_recipe
    from dcamt.training.resident import load_case
    small, large, recipe, moments = sys.argv[1:]
    recipe = load_recipe(recipe)
    preprocessing.MOMENTS = int(moments)
    keep_freed_memory()
    load = lambda scan: load_case(Case("x", Path(scan), None, "unlabelled"), recipe, torch.device("cpu"))
    load(small)  # loads the libraries
    before = peak_memory_bytes()
    load(large)
    print(peak_memory_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures the peak memory of a process on Linux with glibc")
@pytest.mark.parametrize(("moments", "rule"), [(1 << 21, "local"), (1 << 26, "local"), (1 << 26, "clip")])
def test_estimated_memory_equals_the_peak_of_loading_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: int, rule: str
) -> None:
    monkeypatch.setattr("dcamt.case_memory.MOMENTS", moments)
    recipe = tiny_recipe("spacing=0.5,0.5,0.5", "radius_mm=2", f"rule={rule}")
    sizes = (16, 100)
    values = np.random.default_rng(0).integers(0, 500, sizes[1:] * 3).astype(np.int16)
    small, large = (write_nifti(tmp_path / f"{n}.nii.gz", values[:n, :n, :n], 1.0) for n in sizes)
    (tmp_path / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    command = [sys.executable, "-c", LOAD, *map(str, (small, large, tmp_path / "recipe.json", moments))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    empty, estimated = (loading_bytes(recipe, grids) for grids in ([], [Grid((100, 100, 100), np.eye(4))]))
    expected = estimated - empty
    # The estimate leaves out small arrays, such as slabs, so the peak may be up to 60 MB higher.
    assert 0.8 * expected < int(done.stdout) < expected + 60e6


@pytest.mark.parametrize("channels", [1, 2])
def test_estimate_covers_the_loading_of_a_scan_with_a_large_field_of_view(tmp_path: Path, channels: int) -> None:
    recipe = tiny_recipe("spacing=0.625,0.625,0.625", f"input_channels={channels}")
    scan = centred_grid((400, 400, 150), (1.125, 1.125, 2.0))
    voxels = 450 * 450 * 300 / 0.625**3
    trial = Trial(1.0, 10**9, 1.0)
    on_cpu, on_gpu = (
        estimate(recipe, trial, [scan] * 2, False, torch.device(device), tmp_path, None).memory_bytes
        for device in ("cpu", "cuda")
    )
    resident = 2 * voxels * (channels + 1)
    assert on_gpu == pytest.approx(10**9 + resident)
    # The process takes 5e8 bytes, and the local moments take 1 GiB. Three arrays are in float32: the scan as read, the
    # resampled scan and the normalised scan.
    assert on_cpu == pytest.approx(5e8 + resident + channels * (8 * voxels + 4 * 400 * 400 * 150) + 2**30)
    small = estimate(recipe, trial, [centred_grid((40, 40, 40), (1, 1, 1))], False, CPU, tmp_path, None)
    assert small.memory_bytes == 10**9 + resident_bytes(recipe, [centred_grid((40, 40, 40), (1, 1, 1))])
