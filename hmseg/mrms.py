"""MRMS and every network of its search space, top to bottom (paper section 3, Figures 2 to 4).

image (N,3,H,W) -> stem, s1, s2, s3 -> C3 at 1/8 -> x0.4..0.6 -> s4a, s4b -> C4
                -> x0.4..0.6 -> s5a, s5b -> C5 -> LCF head (C5, C4, C3) -> logits (N,K,H,W)

The reconstruction and what in it is fact or inference: docs/networks.md.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from hmseg.blocks import (
    LGE,
    ConvBN,
    InvertedResidual,
    downsample,
    global_average,
    resize,
)
from hmseg.genotype import GROUPS, Group, Op
from hmseg.mrms_config import MRMSConfig
from hmseg.widths import HEAD_WIDTH, STEM_WIDTH, TAIL_WIDTH
from lut.errors import UserError

MIN_SIDE = 64  # pixels; below it the lowest branch has no pixel left to dilate over


class MultiResolution(nn.Module):
    """What MRMS and the search's supernet share: stem, stages, head and the training outputs.

    `make_stage(index, group)` makes the stage of a group.
    """

    def __init__(self, config: MRMSConfig, make_stage: Callable[[int, Group], nn.Module]) -> None:
        super().__init__()
        self.config = config
        c = config.scaled
        self.stem = ConvBN(3, c(STEM_WIDTH), 3, stride=2)
        self.stages = nn.ModuleDict(
            {group.name: make_stage(index, group) for index, group in enumerate(GROUPS)}
        )
        c3, c4, c5 = c(32), c(96), c(320)
        head = LCFHead if config.head.startswith("lcf") else ConcatHead
        self.head = head(c3, c4, c5, config.num_classes, lge=config.head.endswith("lge"))
        # Training only: never exported, not counted.
        self.aux_medium = nn.Conv2d(c4, config.num_classes, 1)
        self.aux_low = nn.Conv2d(c5, config.num_classes, 1)
        self._initialise()

    @abstractmethod
    def layers(self) -> list[list[InvertedResidual]]:
        """The operators in each of the 22 layers; a network has one, or none where it skips."""

    def outputs(
        self, c3: Tensor, c4: Tensor, c5: Tensor, size: tuple[int, int]
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits at `size`, the input's; in training mode the three that the loss upsamples."""
        logits: Tensor = self.head(c3, c4, c5)
        if self.training:
            return logits, self.aux_medium(c4), self.aux_low(c5)
        return resize(logits, size)

    def _initialise(self) -> None:
        for module in self.modules():
            # On the meta device there are no values, which torch would import its compiler to find.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class MRMS(MultiResolution):
    """Multi-resolution multi-scale network, for any genotype of the search space.

    Input: float (N, 3, H, W), normalised, H and W at least 64. In eval mode the output is the
    logits (N, num_classes, H, W); in training mode (X_h, X_m, X_l), the logits on C3, C4 and C5
    at those maps' own sizes: the loss upsamples them (intermediate boosting, Eq. 1).
    """

    def __init__(self, config: MRMSConfig) -> None:
        def stage(index: int, group: Group) -> nn.Sequential:
            ops = enumerate(config.genotype.ops[index])
            return nn.Sequential(*(make_block(config, group, n, op) for n, op in ops if op))

        super().__init__(config, stage)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits at the input's size; in training mode the three that the loss upsamples."""
        size = image_size(image)
        return self.outputs(*self.features(image), size)

    def layers(self) -> list[list[InvertedResidual]]:
        """The one operator of each of the 22 layers, none where the genotype skips it."""
        blocks = iter([b for group in GROUPS for b in self.stages[group.name].children()])
        ops = [op for ops in self.config.genotype.ops for op in ops]
        return [[cast(InvertedResidual, next(blocks))] if op else [] for op in ops]

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3 at 1/8 of the input, C4 and C5 at the medium and low resolutions."""
        genotype, stages = self.config.genotype, self.stages
        c3 = stages["s3"](stages["s2"](stages["s1"](self.stem(image))))
        c4 = stages["s4b"](stages["s4a"](downsample(c3, genotype.medium_tenths)))
        c5 = stages["s5b"](stages["s5a"](downsample(c4, genotype.low_tenths)))
        return c3, c4, c5


def make_block(config: MRMSConfig, group: Group, layer: int, op: Op) -> InvertedResidual:
    """The operator `op` as layer `layer` of a group."""
    c = config.scaled
    return InvertedResidual(
        c(group.cin if layer == 0 else group.cout),
        c(group.cout),
        expansion=op.expansion,
        kernel=op.kernel,
        stride=group.stride if layer == 0 else 1,
        dilation=group.dilation,
    )


def image_size(image: Tensor) -> tuple[int, int]:
    """(H, W) in pixels of (N, 3, H, W); raises UserError for an image that is too small."""
    size = image.shape[-2], image.shape[-1]
    if min(size) < MIN_SIDE:
        raise UserError(f"input is {size[0]}x{size[1]}; the sides must be >= {MIN_SIDE}")
    return size


class LCFHead(nn.Module):
    """Linear cumulative fusion (paper section 3.1): C5 and its global context, C4 and C3, added
    from the lowest resolution up. Output: class scores at C3's size."""

    def __init__(self, c3: int, c4: int, c5: int, num_classes: int, *, lge: bool) -> None:
        super().__init__()
        self.low = ConvBN(c5, HEAD_WIDTH, act=False)
        self.context = nn.Conv2d(c5, HEAD_WIDTH, 1)  # C_gap: no BN on a 1x1 map
        self.medium = ConvBN(c4, HEAD_WIDTH, act=False)
        self.high = LGE(c3, HEAD_WIDTH) if lge else ConvBN(c3, HEAD_WIDTH, act=False)
        self.act = nn.ReLU6()
        self.fuse = ConvBN(HEAD_WIDTH, TAIL_WIDTH)
        self.classify = nn.Sequential(
            ConvBN(TAIL_WIDTH, TAIL_WIDTH, 3, groups=TAIL_WIDTH),
            nn.Conv2d(TAIL_WIDTH, num_classes, 1),
        )

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> Tensor:
        """Fuse the three resolutions."""
        low = self.low(c5) + self.context(global_average(c5))
        medium = self.medium(c4) + resize(low, (c4.shape[-2], c4.shape[-1]))
        high = self.act(self.high(c3) + resize(medium, (c3.shape[-2], c3.shape[-1])))
        scores: Tensor = self.classify(self.fuse(high))
        return scores


class ConcatHead(nn.Module):
    """Rows (a) and (b) of Table 4: C5 upsampled and concatenated with C3, one classifier."""

    def __init__(self, c3: int, c4: int, c5: int, num_classes: int, *, lge: bool) -> None:
        super().__init__()
        del c4  # these rows do not look at the medium resolution
        self.low = ConvBN(c5, 64)
        self.high = LGE(c3, c3) if lge else nn.Identity()
        self.classify = nn.Conv2d(64 + c3, num_classes, 1)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> Tensor:
        """Fuse the highest and the lowest resolution."""
        low = resize(self.low(c5), (c3.shape[-2], c3.shape[-1]))
        scores: Tensor = self.classify(torch.cat([low, self.high(c3)], dim=1))
        return scores
