"""Offsets of a trained network's class scores, for the best mean IoU (after logit adjustment, Menon
et al., ICLR 2021).

The class of the largest probability makes the fewest wrong pixels. The best mean IoU wants another
rule: a pixel of probability p adds to the IoU J of its class where p / (1 - p) > J, so a class that
is found to a fifth gains by every pixel above a sixth (for F1: Lipton et al., ECML 2014). A
constant added to the class's score says that, and is part of the last layer's bias: it costs
nothing at run time.
"""

from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from hmseg.data.dataset import VOID, SegmentationData
from hmseg.mrms import MultiResolution
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.metrics import torch_scores
from hmseg.train.trained import trained_network
from lut.errors import UserError

LARGEST = 4.0  # of an offset: odds of 55 to 1
STEP = 1 / 16
ROUNDS = 10  # over all classes, at most
EVERY = 4  # rows and columns of which one is looked at, more of a large split
MOST_BYTES = 1 << 30  # of the scores that are looked at


@dataclass(frozen=True)
class Offsets:
    """What is added to each class's score, and the mean IoU in [0, 1] of the pixels that were
    looked at, without it and with it."""

    values: tuple[float, ...]
    before: float
    after: float


def adjust(path: Path, data: SegmentationData) -> tuple[Checkpoint, Offsets]:
    """A run's checkpoint with the offsets that are best on a split, its training split, and these.

    Raises UserError for a network that is not of our space, for a quantised one, and for a split of
    other classes or without labels.
    """
    checkpoint = Checkpoint.load(path)
    if checkpoint.classes != data.classes.names:
        raise UserError(f"{path}: trained for other classes; name the data that it learned from")
    if checkpoint.config.quantise:
        raise UserError(f"{path} is quantised: adjust the float network that it began with")
    network = trained_network(checkpoint, path)
    if not isinstance(network, MultiResolution):
        raise UserError(
            f"{path}: only our own networks are adjusted, not {checkpoint.config.model}"
        )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    offsets = best_offsets(*_scores(network, data))
    return adjusted(checkpoint, offsets), offsets


def adjusted(checkpoint: Checkpoint, offsets: Offsets) -> Checkpoint:
    """The checkpoint with the offsets in the bias of its last layer, of the average too."""
    shifted = [dict(checkpoint.weights), dict(checkpoint.average)]
    for tensors in filter(None, shifted):
        # A head of one layer, or the last of several.
        name = "head.classify.bias"
        name = name if name in tensors else "head.classify.1.bias"
        tensors[name] = tensors[name] + tensors[name].new_tensor(offsets.values)
    total = [a + b for a, b in zip_longest(offsets.values, checkpoint.offsets, fillvalue=0.0)]
    return replace(
        checkpoint, weights=shifted[0], average=shifted[1], optimizer={}, offsets=tuple(total)
    )


def best_offsets(scores: Tensor, labels: Tensor) -> Offsets:
    """The offsets of classes, `scores` float32 (K, M) and `labels` int64 (M), that give the best
    mean IoU, one class after the other until none moves: each a multiple of STEP up to LARGEST, and
    then less the mean of all, which changes nothing."""
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
    values = values - values.mean()
    return Offsets(tuple(values.tolist()), before, reached)


def _mean_ious(
    first: Tensor, rival: Tensor, labels: Tensor, k: int, classes: int, levels: int
) -> Tensor:
    """The mean IoU, float64 (levels), at each level of the offset of class `k`: a pixel is of `k`
    from level `first` on, and of its `rival` below it; both int64 (M), as the labels."""

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


def _scores(network: nn.Module, data: SegmentationData) -> tuple[Tensor, Tensor]:
    """Scores float32 (K, M) and labels int64 (M) of the labelled pixels of some rows and columns;
    raises UserError where there is none."""
    score, scores, labels = torch_scores(network), [], []
    every = _every(data)
    for index in range(len(data)):
        image, truth = data.load(index)
        seen = torch.from_numpy(truth[every // 2 :: every, every // 2 :: every].copy()).long()
        valid = seen != VOID
        given = score(image)[:, every // 2 :: every, every // 2 :: every]
        scores.append(given[:, valid].float().cpu())
        labels.append(seen[valid])
    found = torch.cat(scores, 1), torch.cat(labels)
    if not len(found[1]):
        raise UserError("no labelled pixel in this split: there is nothing to fit offsets to")
    return found


def _every(data: SegmentationData) -> int:
    """How many rows and columns lie between those that are looked at: EVERY, doubled until the
    scores of so many pixels fit in MOST_BYTES; frames are taken to be of the first one's size."""
    height, width = data.load_labels(0).shape
    every = EVERY
    while len(data) * height * width * len(data.classes) * 4 / every**2 > MOST_BYTES:
        every *= 2
    return every
