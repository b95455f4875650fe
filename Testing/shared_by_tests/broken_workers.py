"""What breaks a worker on purpose: programs that are run in its interpreter before it."""

from __future__ import annotations

GPU_TOO_SMALL_FOR_THE_MODEL = """
import torch
from DCAMTLib import model_package
from DCAMTLib.inference import serving
serving.choose_device = lambda name: torch.device("cuda")
real = model_package.ModelPackage.network
def network(package, device="cpu"):
    if torch.device(device).type == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return real(package, device)
model_package.ModelPackage.network = network
"""
BUG = """
from DCAMTLib.inference import predictor
def segment(self, *a, **k):
    raise AssertionError("a bug")
predictor.Predictor.segment = segment
"""


def without_package(name: str) -> str:
    """The package is as if it were not installed."""
    return f"""
import importlib.machinery as machinery
real = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name == {name!r} else real(name, *a))
"""
