"""The training loop: one optimiser step after another, over one process or many."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from hmseg.data.batches import Loader, Source, normalise_on
from hmseg.data.fingerprint import Fingerprint, check_same
from hmseg.families.auxiliary import auxiliary_of, outputs_of
from hmseg.fold import fold_pairs
from hmseg.inherit import inherit_released
from hmseg.inherit_lite0 import inherit_lite0
from hmseg.mrms import MRMS, image_size
from hmseg.pretrained import Released
from hmseg.train.autocast import autocast
from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.train.config import TrainConfig
from hmseg.train.distributed import ALONE, CPU, World, synchronise_batch_norm
from hmseg.train.guard import check_batches, check_peer, finite_loss, require_finite
from hmseg.train.losses import class_weights
from hmseg.train.memory import available_bytes, check_memory, explain_exhaustion
from hmseg.train.optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from hmseg.train.place import UNKNOWN, Place, add_place, place_of
from hmseg.train.quantise import CALIBRATION_BATCHES, MOMENTUM, QUANTISERS, quantise, set_momentum
from hmseg.train.teacher import Teacher
from hmseg.zoo import create_model
from lut.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class StepReport:
    """What one step did. `step` counts from 1, `images` are this process's; `waited_s` is the
    part of `step_s` that the trainer waited for the loader."""

    step: int
    loss: float
    learning_rate: float
    images: int
    step_s: float
    waited_s: float


class Trainer:
    """A run in progress: the network, its average, the optimiser's state and the step reached.

    Raises UserError for a split that is smaller than a batch, and for a batch that does not fit
    into memory or cannot be shared out over the processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        classes: tuple[str, ...],
        *,
        world: World = ALONE,
        device: torch.device = CPU,
        loader_threads: int = 2,
        teacher: Teacher | None = None,
    ) -> None:
        self.config, self.classes, self.world, self.device = config, classes, world, device
        check_batches(config, len(source), world)
        torch.manual_seed(config.seed)
        model = self._placed(create_model(config.model, num_classes=len(classes)))
        is_ours = isinstance(model, MRMS)
        if not is_ours:
            check_peer(config)
        for stage in config.stages:
            free = available_bytes(device, world.size)
            check_memory(model, stage.crop, stage.batch, config.element_size, free)
        if config.quantise:
            model = self._placed(quantise(model, config.model))
        self.average = copy.deepcopy(model) if config.ema_decay else None
        self._averaged = pair_tensors(self.average, model) if self.average else None
        if world.size > 1:
            synchronise_batch_norm(model)
        self.model = model
        self.dtype = next(model.parameters()).dtype
        self.optimizer = make_optimizer(config, model)
        self.teacher = teacher
        if teacher is not None:
            teacher.network.to(device, self.dtype)
            if config.channels_last:
                teacher.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.distillation = config.distillation()
        weights = class_weights(source, len(classes), config.class_balance)
        self.loss = config.loss(weights, None if is_ours else auxiliary_of(model))
        self.loader = Loader(
            source, config.augmentation, seed=config.seed,
            rank=world.rank, world=world.size, threads=loader_threads,
            pin_memory=device.type == "cuda",
        )  # fmt: skip
        self.step = 0
        self.schedules: tuple[tuple[int, str], ...] = ((0, config.schedule),)
        self.before: tuple[dict[str, Any], ...] = (teacher.about,) if teacher else ()
        self.places: tuple[Place, ...] = (place_of(device),)
        self.frames: dict[str, Fingerprint] = {}  # what it learns from, if a run is to keep it

    def _placed(self, model: nn.Module) -> nn.Module:
        """On the device, in the layout and the type that training has."""
        model.to(self.device)
        if self.config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.double() if self.config.precision == "float64" else model

    def calibrate(self) -> None:
        """Before the first step of quantised training: the ranges of its maps on the first batches,
        which the training's own ranges then follow. Raises what the network's first use may."""
        self.model.train()
        batches = islice(self.config.batches(), CALIBRATION_BATCHES)
        with torch.no_grad():
            for number, (images, _) in enumerate(self.loader.batches(batches), 1):
                set_momentum(self.model, 1 / number)  # the mean over all batches
                self.model(normalise_on(self.device, images, self.dtype))
        set_momentum(self.model, MOMENTUM)
        self._update_average()

    def run(self, report: Callable[[StepReport], None]) -> None:
        """Train to the end of the schedule, calling `report` after every step.

        Raises UserError naming the step where the loss is no longer a finite number, and where
        memory is exhausted.
        """
        self.model.train()
        began = time.perf_counter()
        for images, labels in self.loader.batches(self.config.batches(self.step)):
            loaded = time.perf_counter()
            rate = self.config.learning_rate_at(self.step)
            images = normalise_on(self.device, images, self.dtype)
            labels = labels.to(self.device, non_blocking=True)
            if not self.config.channels_last:
                images = images.contiguous()  # torch computes in the layout that it is given
            with (
                explain_exhaustion(images.shape[-2:], len(images) * self.world.size),
                fastest_convolutions(),
            ):
                loss = self._take_step(images, labels, rate)
            ended = time.perf_counter()
            report(StepReport(self.step, loss, rate, len(images), ended - began, loaded - began))
            began = time.perf_counter()

    def _take_step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with autocast(self.device, self.config.precision):
            outputs, distilled = self._outputs(images)
        totals, weights = self.loss.sums(outputs, labels)
        weights = self.world.sum(weights)
        loss = self.loss.combine(totals, weights) + distilled
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.model.parameters())
        self.optimizer.step()
        self.step += 1
        self._update_average()
        # At the end: to read a number is to wait until a GPU has done all that it was told to. A
        # loss that is not finite has spoilt the weights by now, but they are saved nowhere.
        return finite_loss(self.world.sum(loss.detach()).item(), self.step)

    def _outputs(self, images: Tensor) -> tuple[Sequence[Tensor], Tensor | float]:
        """The network's maps of scores, three of ours, and its loss against the teacher: this
        process's share of the mean over all."""
        if self.teacher is None:
            return outputs_of(self.model(images)), 0.0
        model = cast(MRMS, self.model)  # `check_peer`
        maps = model.features(images)  # what `MRMS.forward` does, with the maps in between
        outputs = cast(Sequence[Tensor], model.outputs(*maps, image_size(images)))
        loss = self.distillation(outputs[0], maps[1:], self.teacher.ask(images))
        return outputs, loss / self.world.size

    @torch.no_grad()
    def _update_average(self) -> None:
        if self._averaged is None:
            return
        # The ramp lets the average forget the random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        (means, values), (copies, originals) = self._averaged
        torch._foreach_lerp_(means, values, 1 - decay)
        torch._foreach_copy_(copies, originals)

    @property
    def released(self) -> nn.Module:
        """The network that is evaluated and shipped: the average where there is one."""
        return self.average or self.model

    def checkpoint(self) -> Checkpoint:
        """The run as it stands; raises UserError where a weight is no longer a finite number."""
        weights = self.model.state_dict()
        require_finite(weights, self.step)
        optimizer = optimizer_tensors(self.model, self.optimizer)
        average = self.average.state_dict() if self.average else {}
        return Checkpoint(
            self.config,
            self.step,
            self.classes,
            weights,
            average,
            optimizer,
            self.schedules,
            self.before,
            self.places,
            self.frames,
        )

    def begin_with(self, checkpoint: Checkpoint, path: Path) -> None:
        """Take another run's last weights, and nothing else of it, instead of random ones.

        Raises UserError for a checkpoint of another network or of other classes.
        """
        if checkpoint.classes != self.classes:
            raise UserError(f"{path}: trained for other classes; leave it out or change the data")
        if checkpoint.config.quantise:
            raise UserError(
                f"{path} is quantised: begin with the float weights that it began with, or go on "
                "with that run"
            )
        self._fill(lambda model: load_into(model, checkpoint.weights, path))
        self._begin_after(checkpoint.as_history())

    def begin_with_released(self, released: Released) -> None:
        """Take what fits of released weights, of this or another network of the space, instead of
        random ones; raises UserError where nothing can (`hmseg.inherit`)."""
        self._own_model("pretrained weights of another network")
        before = self._fill(
            lambda model: inherit_released(cast(MRMS, model), released, self.classes)
        )
        self._begin_after(before)

    def begin_with_lite0(self) -> None:
        """Take what fits of Lite0's ImageNet weights (`hmseg.lite0`); the head keeps its own."""
        self._own_model("Lite0's weights")
        self._begin_after((self._fill(lambda model: inherit_lite0(cast(MRMS, model))),))

    def _fill(self, fill: Callable[[nn.Module], T]) -> T:
        """Have `fill` give the network and its average their first weights, and return what it
        says of them. A quantised network gets those of a float one, folded."""
        if self.config.quantise:
            network = create_model(self.config.model, num_classes=len(self.classes))
            about = fill(network)
            weights = fold_pairs(network).state_dict()
        for model in (self.model, self.average):
            if model is not None and self.config.quantise:
                model.load_state_dict(model.state_dict() | weights)
            elif model is not None:
                about = fill(model)
        return about

    def _own_model(self, what: str) -> MRMS:
        """The network, where it is of our search space; raises UserError for what only these can
        take."""
        if not isinstance(self.model, MRMS):
            raise UserError(f"{what}: only our own networks take that, not {self.config.model}")
        return self.model

    def _begin_after(self, runs: tuple[dict[str, Any], ...]) -> None:
        self.before = (*runs, *((self.teacher.about,) if self.teacher else ()))

    def resume(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go on from a checkpoint of the same run; raises UserError for one of another.

        The steps to come may differ (`TrainConfig.continues`); the checkpoint records that.
        """
        if not self.config.continues(checkpoint.config, checkpoint.step):
            differing = self.config.difference(checkpoint.config)
            raise UserError(
                f"{path}: a run of another configuration ({differing}); go on with the options "
                "that it was started with, or train into another folder"
            )
        if checkpoint.offsets:
            raise UserError(f"{path}: an adjusted copy; resume with the run's own last checkpoint")
        check_same(checkpoint.frames, self.frames, str(path))
        load_into(self.model, checkpoint.weights, path)
        if self.average is not None:
            load_into(self.average, checkpoint.average, path)
        restore_optimizer(self.model, self.optimizer, checkpoint.optimizer)
        self.step = checkpoint.step
        self.schedules, self.before = checkpoint.schedules, checkpoint.before
        self.places = checkpoint.places or (UNKNOWN,)
        if self.step < self.config.steps:
            self.places = add_place(self.places, place_of(self.device))
        if self.config.stages != checkpoint.config.stages:
            self.schedules += ((self.step, self.config.schedule),)


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new shape: worth it in training, where a stage has
    one, but not in the validation between its steps, whose frames may all differ."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


TensorPairs = tuple[list[Tensor], list[Tensor]]


def pair_tensors(first: nn.Module, second: nn.Module) -> tuple[TensorPairs, TensorPairs]:
    """The tensors of two networks of one kind side by side: those that an average is made of, and
    those that are copied: the integers, and a quantised network's ranges, which are averages."""
    own, other = first.state_dict(), second.state_dict()
    real = [
        name for name, tensor in own.items()
        if tensor.is_floating_point() and not name.startswith(QUANTISERS)
    ]  # fmt: skip
    rest = [name for name in own if name not in set(real)]
    reals, copied = (
        ([own[name] for name in names], [other[name] for name in names]) for names in (real, rest)
    )
    return reals, copied
