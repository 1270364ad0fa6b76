"""The training loss: Eq. 1's intermediate boosting of a pixel cross entropy, with its options, and
what other networks add to their scores' loss in its place (`hmseg.families.auxiliary`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmseg.data.batches import Source
from hmseg.data.dataset import VOID
from hmseg.families.auxiliary import Auxiliary
from lut.errors import UserError

OHEM_PROBABILITY = 0.7  # a pixel whose own class has less than this is hard
EDGE_REACH = 2  # pixels: edges are four wide, as PIDNet's authors draw them
OHEM_SHARE = 16  # at least 1/16 of an image's pixels are kept
GPU_CHUNK_BYTES = 1 << 28  # of the upsampled logits that are scored at once on a GPU


@dataclass(frozen=True)
class PixelLoss:
    """Cross entropy of one map of logits; the defaults are the plain one.

    `class_weights` scale each pixel by its class, `label_smoothing` is the usual mixture with the
    uniform distribution, `ohem` keeps only the hard pixels of each image (those of probability
    below 0.7, never less than 1/16 of them). OHEM looks at one image at a time, so the loss does
    not depend on how a batch is split over processes.
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ohem: bool = False

    def sums(self, logits: Tensor, labels: Tensor, every: int = 1) -> tuple[Tensor, Tensor]:
        """Weighted sum of the losses of the pixels in every `every`-th row and column, and the sum
        of their weights.

        `logits` (N, K, h, w) are upsampled to the size of `labels`, uint8 or int64 (N, H, W).
        """
        total, weight = _InChunks.apply(  # type: ignore[no-untyped-call]
            logits, labels, self, self.images_at_once(logits, labels), every
        )
        return total, weight

    def images_at_once(self, logits: Tensor, labels: Tensor) -> int:
        """How many images of a batch are scored together: one in a CPU's cache, but as many as
        memory allows on a GPU, where every operation on a single image would cost a launch."""
        if self.ohem or logits.device.type == "cpu":
            return 1
        image = 4 * logits.shape[1] * labels.shape[-2] * labels.shape[-1]
        return max(1, GPU_CHUNK_BYTES // image)

    def sums_and_gradient(
        self, logits: Tensor, labels: Tensor, *, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The two sums of some images, and the first one's gradient where it is `wanted`: `logits`
        (N, K, H, W), `labels` int64 (N, H, W). With OHEM N must be 1: which pixels are hard is
        decided image by image."""
        table = _class_table(self.class_weights, logits.shape[1], logits.device, logits.dtype)
        weight = table[labels]
        if self.ohem or self.label_smoothing:
            return _by_autograd(lambda given: self._sums(given, labels, weight), logits, wanted)
        # In closed form: weight * (softmax - one-hot), without a pass of autograd for each factor.
        classes = labels.masked_fill(labels == VOID, 0)[:, None]
        logarithms = F.log_softmax(logits, dim=1)
        total = -(logarithms.gather(1, classes)[:, 0] * weight).sum()
        slope = None
        if wanted:
            slope = logarithms.exp_()
            slope.scatter_add_(1, classes, slope.new_full((), -1).expand(classes.shape))
            slope *= weight[:, None]
        return total, weight.sum(), slope

    def _sums(self, logits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        # F.cross_entropy would weight a smoothed label's classes one by one; here the weight is
        # the pixel's, hence the sum is formed from unreduced values.
        pixel = F.cross_entropy(
            logits, labels, ignore_index=VOID, reduction="none",
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        if self.ohem:
            weight = weight * self._hard(pixel.detach(), labels != VOID)
        return (pixel * weight).sum(), weight.sum()

    @staticmethod
    def _hard(pixel: Tensor, valid: Tensor) -> Tensor:
        limit = -torch.log(pixel.new_tensor(OHEM_PROBABILITY))
        losses = pixel[valid]
        keep = max(1, losses.numel() // OHEM_SHARE)
        if losses.numel():
            limit = torch.minimum(limit, losses.topk(keep).values[-1])
        return pixel >= limit


@dataclass(frozen=True)
class EdgeLoss:
    """Binary cross entropy of one map of edges, in which an image's edges weigh as much as all its
    other pixels together; the mean over the images. Each stands alone, as with OHEM."""

    def sums(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the images' losses, and the number of images that have labels.

        `logits` (N, 1, h, w) are upsampled to the size of `labels`, uint8 or int64 (N, H, W).
        """
        total, weight = _InChunks.apply(logits, labels, self, 1, 1)  # type: ignore[no-untyped-call]
        return total, weight

    def sums_and_gradient(
        self, logits: Tensor, labels: Tensor, *, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The two sums of one image, and the first one's gradient where it is `wanted`: `logits`
        (1, 1, H, W), `labels` int64 (1, H, W)."""
        return _by_autograd(lambda given: self._sums(given, labels), logits, wanted)

    @staticmethod
    def _sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        valid = labels != VOID
        edges = edges_of(labels) & valid
        share = edges.sum() / valid.sum().clamp(min=1)
        balance = torch.where(edges, 1 - share, share) * valid
        pixel = F.binary_cross_entropy_with_logits(
            logits[:, 0], edges.to(logits.dtype), reduction="none"
        )
        # Without an edge there is nothing to find: share is 0, and so is the loss.
        return (pixel * balance).sum() / valid.sum().clamp(min=1), valid.any().to(pixel.dtype)


def edges_of(labels: Tensor) -> Tensor:
    """Where a class other than the pixel's own lies within EDGE_REACH rows and columns, bool, of
    int64 (N, H, W); void pixels have no class."""
    classes = labels.float()
    void, size = labels == VOID, 2 * EDGE_REACH + 1
    highest = F.max_pool2d(classes.masked_fill(void, -1), size, 1, EDGE_REACH)
    lowest = -F.max_pool2d(-classes, size, 1, EDGE_REACH)  # void is above every class
    return (highest != lowest) & ~void


@dataclass(frozen=True)
class BoostedLoss:
    """Intermediate boosting (Eq. 1): L(X_h) + w * (L(X_m) + L(X_l)); of another network, the loss
    of its scores and of its own `auxiliary` outputs, each with its weight.

    The paper's weight w is not known to us: 0.4 is our choice.
    """

    pixel: PixelLoss = PixelLoss()
    auxiliary: tuple[Auxiliary, ...] = (Auxiliary(0.4), Auxiliary(0.4))
    every: int = 1
    """The auxiliary losses of classes use every n-th row and column of the labels: X_m and X_l have
    13 and more pixels of the image between their own."""

    def sums(self, outputs: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Numerators with gradient and denominators without, of each output: X_h, X_m and X_l.

        Both may be summed over processes before `combine`.
        """
        scores, *others = outputs
        sums = [self.pixel.sums(scores, labels)]
        for auxiliary, output in zip(self.auxiliary, others, strict=True):
            if auxiliary.target == "edges":  # between neighbours: every pixel is used
                sums.append(EdgeLoss().sums(output, labels))
            else:
                sums.append(self.pixel.sums(output, labels, self.every))
        return torch.stack([s[0] for s in sums]), torch.stack([s[1] for s in sums]).detach()

    def combine(self, totals: Tensor, weights: Tensor) -> Tensor:
        """The scalar loss of the sums; 0 where every pixel is void."""
        # A tiny floor: the mean over an all-void batch is 0/0, and here it is 0.
        means = totals / weights.clamp(min=1e-6)
        total: Tensor = means[0]
        for auxiliary, mean in zip(self.auxiliary, means[1:], strict=True):
            total = total + auxiliary.weight * mean
        return total

    def __call__(self, outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of one process: a scalar with gradient."""
        return self.combine(*self.sums(outputs, labels))


class _InChunks(torch.autograd.Function):
    """Upsample and apply a loss some images at a time, taking the gradient on the way forward.

    Logits at 1/8 are 64 times smaller than at full size. Upsampling the whole batch, its softmax
    and both their gradients were half of a training step on a CPU; one image at a time they stay
    in the cache and only the small gradients are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own protocol
        logits: Tensor,
        labels: Tensor,
        loss: PixelLoss | EdgeLoss,
        chunk: int,
        every: int,
    ) -> tuple[Tensor, Tensor]:
        small = at_least_float32(logits.detach()).contiguous()
        images, classes, *size = small.shape
        rows, columns = (
            _bilinear(side, full, small.device, small.dtype)[every // 2 :: every]
            for side, full in zip(size, labels.shape[-2:], strict=True)
        )
        columns = columns.T.contiguous()
        labels = labels[:, every // 2 :: every, every // 2 :: every]
        wanted = ctx.needs_input_grad[0]
        maps, gradient = small.flatten(0, 1), torch.empty_like(small)
        slopes = gradient.flatten(0, 1)
        total, weight = small.new_zeros(()), small.new_zeros(())
        # Autocast is off: the gradient would be of the rounded values.
        with torch.autocast(small.device.type, enabled=False):
            for first in range(0, images, chunk):
                end = min(first + chunk, images)
                part = slice(first * classes, end * classes)
                large = rows @ (maps[part] @ columns)
                large = large.view(-1, classes, *labels.shape[-2:])
                value, share, slope = loss.sums_and_gradient(
                    large, labels[first:end].long(), wanted=wanted
                )
                if slope is not None:
                    slopes[part] = rows.T @ (slope.flatten(0, 1) @ columns.T)
                total, weight = total + value, weight + share
        ctx.save_for_backward(gradient.to(logits.dtype))
        ctx.mark_non_differentiable(weight)
        return total, weight

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's own protocol
        *slopes: Tensor,
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * slopes[0].to(gradient.dtype), None, None, None, None


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
    if not counts.any():
        raise UserError("no labelled pixel in the training split: nothing to balance")
    weights = 1 / np.log(balance + counts[:classes] / counts.sum())
    return tuple(float(weight) for weight in weights)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself, or its float32 form where its precision is lower."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def _by_autograd(
    sums: Callable[[Tensor], tuple[Tensor, Tensor]], logits: Tensor, wanted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`sums` of `logits`, and the first one's gradient where it is `wanted`."""
    with torch.set_grad_enabled(wanted):
        total, weight = sums(logits.requires_grad_(wanted))
        slope = torch.autograd.grad(total, logits)[0] if wanted else None
    return total.detach(), weight.detach(), slope


@lru_cache(maxsize=8)
def _class_table(
    weights: tuple[float, ...] | None, classes: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The weight of each label: 1 without `weights`, and none of void."""
    table = torch.zeros(VOID + 1, device=device, dtype=dtype)
    table[:classes] = 1.0 if weights is None else torch.tensor(weights, device=device, dtype=dtype)
    return table


@lru_cache(maxsize=64)
def _bilinear(small: int, large: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The (large, small) matrix of one axis of `hmseg.blocks.resize`: bilinear is separable."""
    eye = torch.eye(small, device=device, dtype=dtype)[None]
    return F.interpolate(eye, size=large, mode="linear", align_corners=False)[0].T.contiguous()
