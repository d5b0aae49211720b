"""Optimizer: made from a recipe, its schedule, and its state as tensors by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from shoal.core.errors import BadArtifact
from shoal.training.recipe import TrainingRecipe

ADAMS: Mapping[str, type[Adam]] = {"adamw": AdamW, "adam": Adam}


def make_optimizer(net: nn.Module, recipe: TrainingRecipe) -> Optimizer:
    """For the parameters that require a gradient; those of one axis or none (biases, norms) are not decayed."""
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learned if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(parameter.is_floating_point() for parameter in learned)
    if recipe.optimizer in ADAMS:
        return ADAMS[recipe.optimizer](groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)


def lr_share(recipe: TrainingRecipe, progress: float) -> float:
    """The share of the highest learning rate when so much of training, 0..1, is over: a rise, then the schedule."""
    if progress < recipe.warmup:
        return progress / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / max(1 - recipe.warmup, 1e-9)))


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Its state by "number of the parameter/name", such as "3/exp_avg"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`; each tensor gets the device and memory layout of its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        if int(number) >= len(parameters):
            raise BadArtifact(f"checkpoint: parameter {number} of its optimizer is not in this net; give the same net")
        like = parameters[int(number)]
        if value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        state.setdefault(int(number), {})[name] = value.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
