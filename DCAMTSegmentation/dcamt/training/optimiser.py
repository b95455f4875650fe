"""The optimiser, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..recipe import Training

FUSED = ("cpu", "cuda")
"""Kinds of device on which every release of PyTorch from 2.4 on has the optimisers' fused form."""


def make_optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW, which change all weights in one pass over them where PyTorch has that."""
    parameters = list(network.parameters())
    rate, decay = training.learning_rate, training.weight_decay
    fused = all(parameter.device.type in FUSED for parameter in parameters)
    if training.optimiser == "sgd":
        sgd = torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused, foreach=not fused)
        for parameter in parameters:
            # Fused, PyTorch makes it from memory that nobody wrote, and keeps that where a first step in float16
            # overflows and is left out.
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=fused, foreach=not fused)


def set_learning_rate(optimiser: torch.optim.Optimizer, training: Training, step: int) -> None:
    """Polynomial decay of power 0.9 (SGD), or half a cosine after a short linear warm-up (AdamW)."""
    progress = step / training.iterations
    if training.optimiser == "sgd":
        factor = (1 - progress) ** 0.9
    else:
        warm_up = min(1.0, (step + 1) / max(1.0, 0.02 * training.iterations))
        factor = warm_up * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimiser.param_groups:
        group["lr"] = training.learning_rate * factor


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """average = decay * average + (1 - decay) * network, running statistics included.

    At first the decay is smaller, (1 + t) / (10 + t), so that the random start is soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    kept, new = average.state_dict(), network.state_dict()
    floats = [name for name, tensor in kept.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], 1 - decay)
