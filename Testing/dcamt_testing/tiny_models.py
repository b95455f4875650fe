"""Make tiny models with random weights for the tests inside Slicer.

A separate process makes the models, since the application must never import PyTorch.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]


@cache
def tiny_models(testing: Path = TESTING) -> Path:
    """Return a folder with segmenting/tiny.dcamt, segmenting/other.dcamt and training/tiny.dcamt.

    Args:
        testing: the folder that contains the package dcamt_testing.
    """
    folder = tempfile.mkdtemp(prefix="dcamt-models-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    python = shutil.which("PythonSlicer") or sys.executable
    arguments = [python, "-m", "dcamt_testing.tiny_models", folder]
    subprocess.run(arguments, check=True, timeout=600, cwd=testing, env={**os.environ, "PYTHONPATH": str(testing)})
    return Path(folder)


def _make(folder: Path) -> None:
    import torch
    from dcamt.networks.packaging import save_model

    from .analytic_scans import analytic_scan, centred_grid, random_package
    from .synthetic import save_tiny_model
    from .tiny_recipes import tiny_recipe, tiny_recipe_keeping_all_components

    (folder / "segmenting").mkdir()
    (folder / "training").mkdir()
    recipe = tiny_recipe_keeping_all_components()
    for name, seed in (("tiny", 0), ("other", 3)):
        package = random_package(recipe, analytic_scan(centred_grid((24, 20, 16), (1.5, 1.5, 1.5))), seed)
        card = replace(package.card, name=name, title=name.capitalize())
        weights = {key: torch.from_numpy(array) for key, array in package.weights.items()}
        save_model(folder / "segmenting" / f"{name}.dcamt", weights, recipe, card)
    save_tiny_model(folder / "training" / "tiny.dcamt", tiny_recipe())


if __name__ == "__main__":
    sys.path.insert(0, str(TESTING.parent / "DCAMTSegmentation"))
    sys.modules["pytest"] = None  # type: ignore[assignment]  # make `import pytest` fail, as in Slicer
    _make(Path(sys.argv[1]))
