"""How good a network is with the weights that it inherits from a trained supernet.

Its batch norms first count anew: the supernet's statistics are of whatever paths came by, and an
operator's input differs from path to path (as in Guo et al., Single Path One-Shot, ECCV 2020).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn

from hmseg.data.batches import BatchSpec, Loader, Source, normalise_on
from hmseg.data.dataset import Array
from hmseg.mrms import MRMS
from hmseg.search.architecture import Path
from hmseg.search.checkpoint import SearchCheckpoint
from hmseg.search.loop import Half
from hmseg.search.space import search_space
from hmseg.search.supernet import Supernet, inherited_weights
from hmseg.train.checkpoint import load_into
from hmseg.train.config import TrainConfig
from hmseg.train.distributed import ALONE, World
from hmseg.train.metrics import evaluate, torch_predictor
from hmseg.zoo import network_config


class Evenly:
    """At most `count` frames of a split, evenly spaced."""

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def load(self, index: int) -> tuple[Array, Array]:
        """One frame, as the split gives it."""
        return self._source.load(index * len(self._source) // self._count)


class Inherited:
    """Networks of a `supernet` that has been trained by `recipe` on `source`, on at most `frames`
    of a validation split.

    Batch norm's statistics are those of the first `batches` batches of the weights' half, augmented
    as in the search's last stage, the same ones for every network and in every process.
    """

    def __init__(
        self, supernet: Supernet, recipe: TrainConfig, source: Source, validation: Source, *,
        frames: int, batches: int, world: World = ALONE, loader_threads: int = 1,
    ) -> None:  # fmt: skip
        self.supernet, self.world = supernet, world
        self.validation = Evenly(validation, frames)
        stage = recipe.stages[-1]
        loader = Loader(
            Half(source, 0, recipe.seed), recipe.augmentation, seed=recipe.seed,
            threads=loader_threads,
        )  # fmt: skip
        specs = (BatchSpec(n * stage.batch, stage.batch, stage.crop) for n in range(batches))
        self._batches = [images for images, _ in loader.batches(specs)]

    def network(self, path: Path) -> MRMS:
        """A path as a network of its own, in eval mode."""
        like = self.supernet.aux_low.weight
        network = MRMS(replace(self.supernet.config, genotype=path.genotype)).to(like)
        network.load_state_dict(inherited_weights(self.supernet, path))
        recalibrate(network, [normalise_on(like.device, b, like.dtype) for b in self._batches])
        return network

    def miou(self, path: Path) -> float:
        """Mean IoU of a path; the processes share the frames out and all get the same."""
        predict, classes = torch_predictor(self.network(path)), self.supernet.config.num_classes
        return evaluate(predict, self.validation, classes, self.world).miou


def load_supernet(path: FilePath) -> tuple[Supernet, SearchCheckpoint]:
    """The supernet of a search, as its checkpoint has it; raises UserError for what is none."""
    checkpoint = SearchCheckpoint.load(path)
    config = network_config(checkpoint.config.recipe.model, num_classes=len(checkpoint.classes))
    space = search_space(checkpoint.config.dimensions, config.genotype)
    supernet = Supernet(config, space, shared=checkpoint.config.shared)
    load_into(supernet, checkpoint.weights, path)
    return supernet, checkpoint


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Give every batch norm the mean of what these batches' statistics are; ends in eval mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # each batch counts alike
    network.train()
    for images in batches:
        network(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
