"""Scripts that cause failures in a worker. Each runs in the worker's interpreter before the worker starts."""

from __future__ import annotations

GPU_TOO_SMALL_FOR_THE_MODEL = """
import torch
from dcamt.inference import predictor, serving
serving.choose_device = lambda name: torch.device("cuda")
real = predictor.move
def move(network, device, precision):
    if device.type == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return real(network, device, precision)
predictor.move = move
"""
BUG = """
from dcamt.inference import predictor
def segment(self, *a, **k):
    raise AssertionError("a bug")
predictor.Predictor.segment = segment
"""


def without_package(name: str) -> str:
    """Return a script after which importing the package fails as if it were not installed."""
    return f"""
import importlib.machinery as machinery
real = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name == {name!r} else real(name, *a))
import sys
for module in [module for module in sys.modules if module.split(".")[0] == {name!r}]:
    del sys.modules[module]  # warm_python's children start with these packages imported
"""
