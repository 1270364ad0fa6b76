"""The optimiser of a recipe, and its state as tensors with names."""

import torch
from torch import nn

from hmseg.train.checkpoint import Tensors
from hmseg.train.config import TrainConfig
from lut.errors import UserError


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for, over all of a model's parameters."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(
        model.parameters(), lr=rate, momentum=config.momentum,
        weight_decay=decay, nesterov=config.nesterov,
    )  # fmt: skip


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
