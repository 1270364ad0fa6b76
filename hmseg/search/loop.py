"""The search loop: weights and architecture in turns, on disjoint halves of the data (Eq. 3)."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from hmseg.data.batches import BatchSpec, Loader, Source, normalise_on
from hmseg.data.dataset import Array
from hmseg.data.fingerprint import Fingerprint, check_same
from hmseg.inherit import inherit_released
from hmseg.inherit_lite0 import inherit_lite0
from hmseg.lite0 import weights_name
from hmseg.mrms import image_size
from hmseg.pretrained import Released
from hmseg.search.architecture import (
    Architecture,
    Path,
    fair_path,
    gumbel_noise,
    temperature_at,
)
from hmseg.search.checkpoint import SearchCheckpoint
from hmseg.search.config import SearchConfig
from hmseg.search.derive import require_reachable
from hmseg.search.estimators import ESTIMATORS
from hmseg.search.objective import Objective
from hmseg.search.space import search_space
from hmseg.search.supernet import Supernet, largest_network
from hmseg.train.autocast import autocast
from hmseg.train.checkpoint import load_into
from hmseg.train.distill import Lesson
from hmseg.train.distributed import ALONE, CPU, World, synchronise_batch_norm
from hmseg.train.guard import check_batches, finite_loss, require_finite
from hmseg.train.losses import class_weights
from hmseg.train.memory import available_bytes, check_memory, explain_exhaustion
from hmseg.train.optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from hmseg.train.place import UNKNOWN, Place, add_place, place_of
from hmseg.train.teacher import Teacher
from hmseg.zoo import network_config
from lut.errors import UserError

_WEIGHTS, _ARCHITECTURE = 0, 1  # draws of a step: of its weight step, of its architecture step


class Half:
    """Every second frame of a split in an order drawn from the seed: number 0 or 1, disjoint."""

    def __init__(self, source: Source, number: int, seed: int) -> None:
        order = np.random.default_rng((seed, 4)).permutation(len(source))
        self._source, self.indices = source, order[number::2].tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> tuple[Array, Array]:
        """One frame, as the split gives it."""
        return self._source.load(self.indices[index])


@dataclass(frozen=True)
class ArchitectureStep:
    """What an architecture step saw: the task's loss on the other half, E(A), the upper bound F of
    its (first) path, the temperature."""

    loss: float
    expected: float
    sampled: float
    temperature: float


@dataclass(frozen=True)
class SearchReport:
    """What one step did. `step` counts from 1; `architecture` is None in the warm-up."""

    step: int
    loss: float
    learning_rate: float
    images: int  # of this process, in both kinds of step
    step_s: float
    architecture: ArchitectureStep | None


class Searcher:
    """A search in progress: supernet, architecture, both optimisers, and the step reached.

    The supernet begins with what fits of `released` or of Lite0's, the weights that the
    configuration names by their digest, or with random ones; with a `teacher`, which it names too,
    every loss has what the teacher says in it. Raises UserError for other weights or another
    teacher, for a budget that nothing in the space meets, for a split whose halves are smaller than
    a batch, and for a batch that does not fit into memory.
    """

    def __init__(
        self,
        config: SearchConfig,
        objective: Objective,
        source: Source,
        classes: tuple[str, ...],
        *,
        world: World = ALONE,
        device: torch.device = CPU,
        loader_threads: int = 2,
        released: Released | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        if config.pretrained != (released.card["sha256"] if released else ""):
            raise UserError("the pretrained weights are not those of the search's configuration")
        if config.recipe.teacher != (teacher.name if teacher else None):
            raise UserError("the teacher is not that of the search's configuration")
        self.config, self.objective, self.classes = config, objective, classes
        self.source = source
        self.world, self.device = world, device
        recipe = config.recipe
        self.network_config = network_config(recipe.model, num_classes=len(classes))
        space = search_space(config.dimensions, self.network_config.genotype)
        self.architecture = Architecture(space)
        if config.prior:
            self.architecture.begin_near(self.network_config.genotype, config.prior)
        require_reachable(objective, self.architecture)
        halves = [Half(source, number, recipe.seed) for number in (0, 1)]
        check_batches(recipe, min(map(len, halves)), world)
        largest = largest_network(self.network_config, space)
        for stage in recipe.stages:
            free = available_bytes(device, world.size)
            check_memory(largest, stage.crop, stage.batch, recipe.element_size, free)
        torch.manual_seed(recipe.seed)
        self.supernet = Supernet(self.network_config, space, shared=config.shared).to(device)
        if recipe.channels_last:
            self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.precision == "float64":
            self.supernet.double()
        if world.size > 1:
            synchronise_batch_norm(self.supernet)
        self.dtype = self.supernet.aux_low.weight.dtype
        self.optimizer = make_optimizer(recipe, self.supernet)
        self.arch_optimizer = torch.optim.Adam(
            self.architecture.parameters(), lr=config.arch_learning_rate, betas=config.arch_betas
        )
        self.teacher, self.distillation = teacher, recipe.distillation()
        if teacher is not None:
            teacher.network.to(device, self.dtype)
            if recipe.channels_last:
                teacher.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = recipe.loss(class_weights(halves[0], len(classes), recipe.class_balance))
        self.loaders = [
            Loader(
                half, recipe.augmentation, seed=recipe.seed + number,
                rank=world.rank, world=world.size, threads=loader_threads,
                pin_memory=device.type == "cuda",
            )
            for number, half in enumerate(halves)
        ]  # fmt: skip
        self.step = 0
        self.before: tuple[dict[str, Any], ...] = ()
        self.places: tuple[Place, ...] = (place_of(device),)
        self.frames: dict[str, Fingerprint] = {}  # what it learns from, if a run is to keep it
        if released:
            self.before = inherit_released(self.supernet, released, classes)
        if config.init:
            if config.init != weights_name():
                raise UserError("Lite0's weights are not those of the search's configuration")
            self.before = (inherit_lite0(self.supernet),)
        if teacher is not None:
            self.before += (teacher.about,)

    def run(self, report: Callable[[SearchReport], None]) -> None:
        """Search to the end, calling `report` after every step.

        Raises UserError naming the step where a loss is no longer a finite number, and where
        memory is exhausted.
        """
        self.supernet.train()
        config = self.config
        others = self._batches(_ARCHITECTURE, max(self.step, config.warmup_steps))
        for images, labels in self._batches(_WEIGHTS, self.step):
            began = time.perf_counter()
            rate = config.recipe.learning_rate_at(self.step)
            count, found = len(images), None
            with explain_exhaustion(images.shape[-2:], count * self.world.size):
                loss = self._weight_step(images, labels, rate)
                if self.step >= config.warmup_steps:
                    images, labels = next(others)
                    found = self._architecture_step(images, labels)
                    count += len(images)
            self.step += 1
            seconds = time.perf_counter() - began
            report(SearchReport(self.step, loss, rate, count, seconds, found))

    def _batches(self, half: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        specs: Iterator[BatchSpec] = self.config.recipe.batches(start)
        for images, labels in self.loaders[half].batches(specs):
            normal = normalise_on(self.device, images, self.dtype)
            if not self.config.recipe.channels_last:
                normal = normal.contiguous()
            yield normal, labels.to(self.device, non_blocking=True)

    def weight_path(self, step: int) -> Path:
        """The path that a weight step trains: a sample, but fair turns in a warm-up that prefers
        no network."""
        seed = self.config.recipe.seed
        if step < self.config.warmup_steps and not self.config.prior:
            return fair_path(self.architecture.allowed, seed, step)
        with torch.no_grad():  # which candidate is chosen does not depend on the temperature
            path = self.architecture.sample(gumbel_noise(seed, step, _WEIGHTS), 1.0)
        return Path(path.choices)

    def _weight_step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        path, lesson = self.weight_path(self.step), self._lesson(images)
        loss = self.task_loss(images, labels, path, lesson)
        # None, not zero: what the path does not use is left alone, by weight decay too. (Of shared
        # weights the parts that it does not use have a gradient of zero, and do decay.)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.supernet.parameters())
        self.optimizer.step()
        # At the end, as in training: a GPU is not waited for before.
        return finite_loss(self.world.sum(loss.detach()).item(), self.step + 1)

    def task_loss(
        self, images: Tensor, labels: Tensor, path: Path, lesson: Lesson | None
    ) -> Tensor:
        """This process's share of the batch's loss; `lesson` is what the teacher says of it."""
        with autocast(self.device, self.config.recipe.precision):
            maps = self.supernet.maps(images, path)
            outputs = cast(Sequence[Tensor], self.supernet.outputs(*maps, image_size(images)))
            distilled: Tensor | float = 0.0
            if lesson is not None:
                loss = self.distillation(outputs[0], maps[1:], lesson)
                distilled = loss / self.world.size
        totals, weights = self.loss.sums(outputs, labels)
        return self.loss.combine(totals, self.world.sum(weights)) + distilled

    def _lesson(self, images: Tensor) -> Lesson | None:
        """Once for a batch, whatever the number of paths."""
        if self.teacher is None:
            return None
        with autocast(self.device, self.config.recipe.precision):
            return self.teacher.ask(images)

    def _architecture_step(self, images: Tensor, labels: Tensor) -> ArchitectureStep:
        config, seed = self.config, self.config.recipe.seed
        done, total = self.step - config.warmup_steps, config.steps - config.warmup_steps
        temperature = temperature_at(done, total, *config.temperature)
        paths = [
            self.architecture.sample(
                gumbel_noise(seed, self.step, _ARCHITECTURE + draw), temperature
            )
            for draw in range(config.samples)
        ]
        loss = partial(self.task_loss, images, labels, lesson=self._lesson(images))
        slope, value = ESTIMATORS[config.estimator](loss, self.architecture, paths, self.world)
        finite_loss(value, self.step + 1)
        logits = self.architecture.logits
        probabilities = self.architecture.probabilities()
        losses = [self.objective.loss(probabilities, path) for path in paths]
        cost = config.cost_weight * torch.stack(losses).mean()
        (cost_slope,) = torch.autograd.grad(cost, logits)
        logits.grad = slope + cost_slope
        self.arch_optimizer.step()
        expected = float(self.objective.expected(probabilities.detach()))
        return ArchitectureStep(
            value, expected, self.objective.estimate(paths[0]).upper, temperature
        )

    def checkpoint(self) -> SearchCheckpoint:
        """The search as it stands; raises UserError where a weight is not a finite number."""
        weights = self.supernet.state_dict()
        require_finite(weights, self.step)
        require_finite(self.architecture.state_dict(), self.step)
        return SearchCheckpoint(
            self.config,
            self.step,
            self.classes,
            weights,
            self.architecture.state_dict(),
            optimizer_tensors(self.supernet, self.optimizer),
            optimizer_tensors(self.architecture, self.arch_optimizer),
            self.before,
            self.places,
            self.frames,
        )

    def resume(self, checkpoint: SearchCheckpoint, path: FilePath) -> None:
        """Go on from a checkpoint of the same search; raises UserError for one of another."""
        if checkpoint.classes != self.classes:
            raise UserError(f"{path}: a search on data of other classes; search in another folder")
        if checkpoint.config != self.config:
            raise UserError(
                f"{path}: a search with other settings "
                f"({self.config.difference(checkpoint.config)}); go on with its own options, or "
                "search in another folder"
            )
        check_same(checkpoint.frames, self.frames, str(path))
        load_into(self.supernet, checkpoint.weights, path)
        load_into(self.architecture, checkpoint.architecture, path)
        restore_optimizer(self.supernet, self.optimizer, checkpoint.optimizer)
        restore_optimizer(self.architecture, self.arch_optimizer, checkpoint.arch_optimizer)
        self.step, self.before = checkpoint.step, checkpoint.before
        self.places = checkpoint.places or (UNKNOWN,)
        if self.step < self.config.steps:
            self.places = add_place(self.places, place_of(self.device))
