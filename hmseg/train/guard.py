"""What stops a run: batches that cannot be, a loss or a weight that is not a finite number."""

import math

import torch

from hmseg.train.checkpoint import Tensors
from hmseg.train.config import Learning, TrainConfig
from hmseg.train.distributed import World
from lut.errors import UserError


def require_finite(weights: Tensors, step: int) -> None:
    """Raise UserError, naming the tensor, where one is no longer a finite number."""
    finite = torch.stack([tensor.isfinite().all() for tensor in weights.values()])
    for name, good in zip(weights, finite.tolist(), strict=True):
        if not good:
            raise UserError(
                f"{name} is not finite after step {step}; the last good checkpoint is "
                "kept: resume from it with a lower learning rate"
            )


def finite_loss(value: float, step: int) -> float:
    """The loss of a step, which counts from 1; raises UserError where it is not finite."""
    if not math.isfinite(value):
        raise UserError(
            f"the loss is {value} at step {step}; the last good checkpoint is kept: "
            "resume from it with a lower learning rate"
        )
    return value


def check_peer(config: TrainConfig) -> None:
    """Raise UserError for what only our own networks take, where another one is trained."""
    for name in ("auxiliary_weight", "auxiliary_every", "backbone_rate"):
        if getattr(config, name) != getattr(Learning, name):
            words = name.replace("_", " ")
            raise UserError(
                f"{words} is of our own networks: {config.model} has the weights that its authors "
                "published and one learning rate; leave it out"
            )
    if config.teacher is not None:
        raise UserError(f"a teacher is of our own networks, not of {config.model}: leave it out")


def check_batches(config: TrainConfig, images: int, world: World) -> None:
    """Raise UserError for batches that a split is too small for or that cannot be shared out."""
    for stage in config.stages:
        if stage.batch > images:
            raise UserError(
                f"the training split has {images} images, too few for a batch of {stage.batch}"
            )
        if stage.batch % world.size:
            raise UserError(
                f"a batch of {stage.batch} cannot be shared out over {world.size} processes"
            )
        if stage.batch // world.size < 2:
            raise UserError("batch norm needs at least 2 images in each process's batch")
