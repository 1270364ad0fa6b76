"""Offsets of a trained network's class scores, for the best mean IoU (after logit adjustment, Menon
et al., ICLR 2021).

A pixel goes to the class of the largest probability, which makes the fewest wrong pixels. The best
mean IoU wants another rule: a class that the network finds to a fifth gains by every pixel that is
its own with a probability above a tenth (Lipton et al., 2014: the threshold of F1, or of IoU, is
half of what is reached). A constant added to the class's score says that, and is part of the last
layer's bias: it costs nothing at run time.
"""

from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hmseg.data.batches import Source, normalise_on
from hmseg.data.dataset import VOID
from hmseg.mrms import MultiResolution
from hmseg.train.checkpoint import Checkpoint, Tensors
from hmseg.train.trained import trained_network
from lut.errors import UserError

LARGEST = 4.0  # of an offset: odds of 55 to 1
STEP = 1 / 16
ROUNDS = 10  # over all classes; most searches stand still after four
EVERY = 4  # rows and columns of which one is looked at


@dataclass(frozen=True)
class Offsets:
    """What is added to each class's score, and the mean IoU in [0, 1] of the pixels that were
    looked at, without it and with it."""

    values: tuple[float, ...]
    before: float
    after: float


def find_offsets(network: nn.Module, source: Source, every: int = EVERY) -> Offsets:
    """Of a network in eval mode over a split, at the frames' own size; raises UserError where no
    pixel has a label."""
    scores, labels = _scores(network, source, every)
    if not len(labels):
        raise UserError("no labelled pixel in this split: there is nothing to fit offsets to")
    return best_offsets(scores, labels)


def best_offsets(scores: Tensor, labels: Tensor) -> Offsets:
    """The offsets of classes, `scores` (K, M) and `labels` int64 (M), that give the best mean IoU,
    one class after the other until none moves. They are multiples of STEP, up to LARGEST."""
    classes = len(scores)
    levels = torch.arange(-LARGEST, LARGEST + STEP / 2, STEP)
    values = torch.zeros(classes)
    here = len(levels) // 2
    reached = before = 0.0
    for number in range(ROUNDS):
        moved = False
        for k in range(classes):
            rivals = scores + values[:, None]
            rivals[k] = -torch.inf
            strongest, rival = rivals.max(0)
            # The class wins at every level above what its score is behind.
            behind = strongest - scores[k]
            first = torch.bucketize(behind, levels, right=True)  # levels[first] > behind
            means = _mean_ious(first, rival, labels, k, classes, len(levels))
            own = round((values[k].item() + LARGEST) / STEP)
            if not number and not k:
                before = reached = means[here].item()
            best = int(means.argmax())
            if means[best] > means[own] + 1e-6:
                values[k], reached, moved = levels[best], means[best].item(), True
        if not moved:
            break
    values = values - values.mean()  # what all have in common changes nothing
    return Offsets(tuple(values.tolist()), before, reached)


def _mean_ious(
    first: Tensor, rival: Tensor, labels: Tensor, k: int, classes: int, levels: int
) -> Tensor:
    """The mean IoU at each level of the offset of class `k`: a pixel is of `k` from level `first`
    on, and of its `rival` below it."""

    def up_to(index: Tensor, size: int) -> Tensor:
        """How many of the pixels of each kind are of `k` at each level."""
        counts = torch.bincount(index, minlength=size * (levels + 1))
        return counts.view(size, levels + 1).double().cumsum(1)[:, :levels]

    bins = levels + 1
    taken = up_to(rival * bins + first, classes)
    right = rival == labels
    lost = up_to(rival[right] * bins + first[right], classes)
    own = labels == k
    gained = up_to(first[own], 1)[0]
    truth = torch.bincount(labels, minlength=classes).double()
    guessed = torch.bincount(rival, minlength=classes).double()[:, None] - taken
    hits = torch.bincount(rival[right], minlength=classes).double()[:, None] - lost
    guessed[k], hits[k] = taken.sum(0), gained
    union = truth[:, None] + guessed - hits
    there = union > 0
    ious = torch.where(there, hits / union.clamp(min=1), 0.0)
    return ious.sum(0) / there.sum(0).clamp(min=1)


def adjusted(checkpoint: Checkpoint, offsets: Offsets) -> Checkpoint:
    """The checkpoint with the offsets in the bias of its last layer, of the average too."""
    shifted = [dict(checkpoint.weights), dict(checkpoint.average)]
    for tensors in filter(None, shifted):
        bias = tensors[_last_bias(tensors)]
        tensors[_last_bias(tensors)] = bias + bias.new_tensor(offsets.values)
    total = [a + b for a, b in zip_longest(offsets.values, checkpoint.offsets, fillvalue=0.0)]
    return replace(
        checkpoint, weights=shifted[0], average=shifted[1], optimizer={}, offsets=tuple(total)
    )


def _last_bias(tensors: Tensors) -> str:
    """The bias of the layer that makes the scores: a head of one layer, or the last of several."""
    return "head.classify.bias" if "head.classify.bias" in tensors else "head.classify.1.bias"


def adjust(path: Path, source: Source, every: int = EVERY) -> tuple[Checkpoint, Offsets]:
    """A run's checkpoint with the offsets that are best on a split, and these.

    Raises UserError for a network that is not of our space, for a quantised one, and for a split
    without labels or of other classes.
    """
    checkpoint = Checkpoint.load(path)
    if checkpoint.config.quantise:
        raise UserError(f"{path} is quantised: adjust the float network that it began with")
    network = trained_network(checkpoint, path)
    if not isinstance(network, MultiResolution):
        raise UserError(
            f"{path}: only our own networks are adjusted, not {checkpoint.config.model}"
        )
    offsets = find_offsets(network.eval(), source, every)
    return adjusted(checkpoint, offsets), offsets


@torch.inference_mode()
def _scores(network: nn.Module, source: Source, every: int) -> tuple[Tensor, Tensor]:
    """Scores (K, M) and labels (M) of the labelled ones of every `every`-th row and column."""
    like = next(network.parameters())
    scores, labels = [], []
    for index in range(len(source)):
        image, truth = source.load(index)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        given = network(normalise_on(like.device, pixels, like.dtype))[0]
        seen = torch.from_numpy(np.array(truth))[every // 2 :: every, every // 2 :: every]
        few = given[:, every // 2 :: every, every // 2 :: every]
        valid = seen != VOID
        scores.append(few[:, valid].float().cpu())
        labels.append(seen[valid].long())
    return torch.cat(scores, 1), torch.cat(labels)
