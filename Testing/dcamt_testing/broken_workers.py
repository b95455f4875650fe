"""Scripts that change what a program of the engine does; each runs in the interpreter before the program starts."""

from __future__ import annotations

from pathlib import Path

GPU_TOO_SMALL_FOR_THE_MODEL = """
import torch
from dcamt.commands import serving
from dcamt.inference import predictor
serving.choose_device = lambda name: torch.device("cuda")
real = predictor.move
def move(network, device, precision):
    if device.type == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return real(network, device, precision)
predictor.move = move
"""
"""A script after which the worker finds a GPU whose memory is too small for any model."""

ENDLESS = """
from dcamt.inference import predictor
from torch.nn.modules.module import _global_forward_pre_hooks as request_hooks  # set by serving.Worker._stoppable
predict = predictor.predict_bounded
def predict_bounded(*arguments, **options):
    while request_hooks:
        predict(*arguments, **options)
    return predict(*arguments, **options)
predictor.predict_bounded = predict_bounded
"""
"""A script after which the network computes a scan again and again, until the request is cancelled.

The worker sets a hook only while it segments the scan of a request, so the loop does not run when the worker measures
the model's speed. If the request is cancelled, the hook raises an error in `predict`, which ends the loop.
"""

EXPECTS_LONG_WORK = """
from dcamt.commands import serving
expected_s = serving.Worker._expected_s
serving.Worker._expected_s = lambda *arguments: 600.0 if expected_s(*arguments) else None
"""
"""A script after which the worker, once the model's speed is measured, expects each scan to take ten minutes."""

SLOW_TRAINING = """
import time
from dcamt.training import trainer
trainer.REPORT_EVERY_S = trainer.REQUEST_EVERY_S = 0.0
iterate = trainer.Trainer.iterate
def iterate_slowly(*arguments):
    time.sleep(0.1)
    return iterate(*arguments)
trainer.Trainer.iterate = iterate_slowly
"""
"""A script after which each iteration takes at least 0.1 s; the run reports and obeys requests after each iteration."""

BUG = """
from dcamt.inference import predictor
def segment(self, *a, **k):
    raise AssertionError("a bug")
predictor.Predictor.segment = segment
"""


def wait_while_exists(gate: Path) -> str:
    """Return a script after which the network begins no scan while the file `gate` exists."""
    return f"""
import os, time, torch
from dcamt.inference import predictor
from torch.nn.modules.module import _global_forward_pre_hooks as request_hooks  # set by serving.Worker._stoppable
predict = predictor.predict_bounded
def predict_bounded(*arguments, **options):
    call_hooks = torch.nn.Identity()
    while request_hooks and os.path.exists({str(gate)!r}):
        call_hooks(None)  # the hook raises an error if the request was cancelled
        time.sleep(0.01)
    return predict(*arguments, **options)
predictor.predict_bounded = predict_bounded
"""


def without_package(name: str) -> str:
    """Return a script after which importing the package fails as if it were not installed."""
    return f"""
import importlib.machinery as machinery
real = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name == {name!r} else real(name, *a))
{_forget(name)}"""


def with_broken_package(name: str, folder: Path) -> str:
    """Return a script after which importing the package raises an OSError, as for a missing shared library.

    The broken package is written into `folder`.
    """
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise OSError('libbroken.so.1: cannot open')\n", encoding="utf-8")
    return f"""
{_forget(name)}
sys.path.insert(0, {str(folder)!r})
"""


def _forget(name: str) -> str:
    return f"""
import sys
for module in [module for module in sys.modules if module.split(".")[0] in ({name!r}, "dcamt")]:
    del sys.modules[module]  # the worker may be a fork of a process that imported the module (warm_python.py)
"""
