"""Weights that the operators of a layer share, as in Single-Path NAS (Stamoulis et al., 2019).

A 3x3 depthwise kernel is the middle of the 5x5 and of the 7x7 one, and the hidden channels of
expansion 3 are the first half of those of expansion 6. So whichever operator a step trains, it
trains the others too. Expansion 1 has no hidden channels of its own: its operators share among
themselves. Batch norms stay each operator's own: their statistics differ (Yu et al., Slimmable
Neural Networks, 2019).
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.blocks import ConvBN, InvertedResidual


class SharedConv(nn.Module):
    """The convolution of `conv`'s shape whose weight is a part of `owner`'s, which is larger: the
    first output and input channels, and the middle of the kernel.

    It has no parameter of its own; in a state dict it has a copy of its part, so that a supernet's
    weights have the same names and shapes whether they are shared or not.
    """

    def __init__(self, conv: nn.Conv2d, owner: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels, self.kernel_size = conv.out_channels, conv.kernel_size
        self.stride, self.padding = conv.stride, conv.padding
        self.dilation, self.groups = conv.dilation, conv.groups
        border = (owner.kernel_size[0] - conv.kernel_size[0]) // 2
        middle = slice(border, border + conv.kernel_size[0])
        shape = conv.weight.shape
        self._part = (slice(shape[0]), slice(shape[1]), middle, middle)
        self._owner = (owner,)  # in a tuple, so that it is not registered a second time

    @property
    def weight(self) -> Tensor:
        """The part, as a view: what is written to it is written to the owner's weight."""
        return self._owner[0].weight[self._part]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        padding = cast(tuple[int, int], self.padding)
        return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation, self.groups)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        weight = self.weight if keep_vars else self.weight.detach().clone()
        destination[f"{prefix}weight"] = weight

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        *_args: Any,  # noqa: ANN401 - torch's own
    ) -> None:
        with torch.no_grad():
            self.weight.copy_(state_dict[f"{prefix}weight"])


def share_weights(blocks: Iterable[InvertedResidual]) -> None:
    """Let the operators of one layer share: all with an expansion, and all without."""
    for group in _by_expansion(blocks):
        largest = max(group, key=lambda block: _size(block))
        for block in group:
            if block is largest:
                continue
            for name in ("expand", "depthwise", "project"):
                own, owners = getattr(block, name), getattr(largest, name)
                if isinstance(own, ConvBN):
                    own[0] = SharedConv(cast(nn.Conv2d, own[0]), cast(nn.Conv2d, owners[0]))


def _by_expansion(blocks: Iterable[InvertedResidual]) -> list[list[InvertedResidual]]:
    blocks = list(blocks)
    groups = (
        [b for b in blocks if isinstance(b.expand, ConvBN) is there] for there in (True, False)
    )
    return [group for group in groups if group]


def _size(block: InvertedResidual) -> tuple[int, int]:
    """Hidden channels and kernel."""
    conv = cast(nn.Conv2d, block.depthwise[0])
    return conv.out_channels, conv.kernel_size[0]
