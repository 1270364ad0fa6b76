"""The optimiser of a recipe, and its state as tensors with names."""

from typing import Any

import torch
from torch import nn

from hmseg.train.checkpoint import Tensors
from hmseg.train.config import TrainConfig
from lut.errors import UserError

BACKBONE = ("stem.", "stages.")  # what the names of a network's backbone begin with


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for, over all of a model's parameters."""
    rate, decay = config.learning_rate, config.weight_decay
    groups = parameter_groups(config, model)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    return torch.optim.SGD(
        groups, lr=rate, momentum=config.momentum, weight_decay=decay, nesterov=config.nesterov
    )


def parameter_groups(config: TrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """All parameters in one group, or the backbone's in one of their own; `share` is what a group
    has of the learning rate."""
    if config.backbone_rate == 1:
        return [{"params": list(model.parameters()), "share": 1.0}]
    backbone: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (backbone if name.startswith(BACKBONE) else rest).append(parameter)
    return [{"params": backbone, "share": config.backbone_rate}, {"params": rest, "share": 1.0}]


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimiser's state by ``PARAMETER/KEY``; a parameter without a step yet has none."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
        if value is not None
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Give an optimiser the state that `optimizer_tensors` named; raises UserError for another
    network's."""
    parameters = dict(model.named_parameters())
    for name, saved in tensors.items():
        owner, _, key = name.rpartition("/")
        if owner not in parameters or (saved.dim() and saved.shape != parameters[owner].shape):
            raise UserError(f"the optimiser's state {name} is not of this network")
        if saved.dim():
            # The layout too: it decides the order of sums in the optimiser's kernels.
            saved = torch.empty_like(parameters[owner]).copy_(saved).detach()
        optimizer.state[parameters[owner]][key] = saved
