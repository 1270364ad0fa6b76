"""The training loop."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hmseg.data.batches import Loader, Source
from hmseg.data.dataset import VOID, Array
from hmseg.data.transforms import normalise
from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.train.config import TrainConfig
from hmseg.train.metrics import Predictor
from hmseg.zoo import create_model
from lut.errors import UserError, WorkError


@dataclass(frozen=True)
class StepReport:
    """What one step did; `data_s` is the part of `step_s` spent waiting for the loader."""

    step: int
    loss: float
    learning_rate: float
    images: int
    step_s: float
    data_s: float


class Trainer:
    """A run in progress: the network, its average, SGD's state and the step reached."""

    def __init__(self, config: TrainConfig, source: Source, classes: tuple[str, ...]) -> None:
        self.config, self.source, self.classes = config, source, classes
        largest = max(stage.batch for stage in config.stages)
        if len(source) < 2:
            raise UserError(f"the training split has {len(source)} images; at least 2 are needed")
        if largest < 2:
            raise UserError("a batch of 1 gives batch norm no statistics; use at least 2")
        torch.manual_seed(config.seed)
        self.model = create_model(config.model, num_classes=len(classes))
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model) if config.ema_decay else None
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config.learning_rate, momentum=config.momentum,
            weight_decay=config.weight_decay, nesterov=config.nesterov,
        )  # fmt: skip
        weights = class_weights(source, len(classes), config.class_balance)
        self.loss = config.loss(weights)
        self.step = 0

    def run(self, report: Callable[[StepReport], None]) -> None:
        """Train to the end of the schedule, calling `report` after every step.

        Raises WorkError naming the step where the loss is no longer a finite number; the weights
        of the step before stay in the network.
        """
        loader = Loader(self.source, self.config.augmentation, seed=self.config.seed)
        batches = loader.batches(self.config.batches(self.step))
        self.model.train()
        began = time.perf_counter()
        for images, labels in batches:
            loaded = time.perf_counter()
            rate = self.config.learning_rate_at(self.step)
            loss = self._step(images, labels, rate)
            ended = time.perf_counter()
            report(StepReport(self.step, loss, rate, len(images), ended - began, loaded - began))
            began = ended

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            outputs = self.model(images)
        loss = self.loss(outputs, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise WorkError(f"the loss is {value} at step {self.step + 1}; try a lower --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return value

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        # The ramp lets the average forget the random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        own = self.model.state_dict()
        for name, mean in self.average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(own[name], 1 - decay)
            else:
                mean.copy_(own[name])

    def checkpoint(self) -> Checkpoint:
        """The run as it stands."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if self.optimizer.state[parameter].get("momentum_buffer") is not None
        }
        average = self.average.state_dict() if self.average else {}
        return Checkpoint(
            self.config, self.step, self.classes, self.model.state_dict(), average, momentum
        )

    def resume(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go on from a checkpoint of the same configuration; raises UserError for another."""
        if checkpoint.config != self.config:
            raise UserError(f"{path}: a run of another configuration; train into another folder")
        load_into(self.model, checkpoint.weights, path)
        if self.average is not None:
            load_into(self.average, checkpoint.average, path)
        for name, parameter in self.model.named_parameters():
            if name in checkpoint.momentum:
                # The layout too: it decides the order of sums in the optimiser's kernels.
                buffer = torch.empty_like(parameter).copy_(checkpoint.momentum[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.step = checkpoint.step

    @property
    def released(self) -> nn.Module:
        """The network that is evaluated and shipped."""
        return self.average or self.model


def torch_predictor(model: nn.Module) -> Predictor:
    """Labels of one uint8 image by the network in eval mode, float32."""

    def predict(image: Array) -> NDArray[np.integer]:
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(normalise(image)).permute(2, 0, 1)[None]
                labels: NDArray[np.integer] = model(batch)[0].argmax(0).numpy()
        finally:
            model.train(training)
        return labels

    return predict


def class_weights(source: Source, classes: int, balance: float) -> tuple[float, ...] | None:
    """1 / log(balance + share), share of the labelled pixels; None where `balance` is 0.

    The form is ENet's (Paszke et al., 2016; there balance is 1.02).
    """
    if not balance:
        return None
    counts = np.zeros(256, np.int64)
    for index in range(len(source)):
        counts += np.bincount(source.load(index)[1].ravel(), minlength=256)
    counts[VOID] = 0
    shares = counts[:classes] / counts.sum()
    weights = 1 / np.log(balance + shares)
    return tuple(float(weight) for weight in weights)
