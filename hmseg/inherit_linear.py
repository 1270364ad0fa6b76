"""A block without an expansion from one that has it: what it can do of it.

With its ReLU6 taken as slopes, a block is one convolution. Each of its inputs has then a kernel for
each output, and the best that a depthwise convolution and a projection can do for it, by least
squares, is one kernel and a weight for each output: the first singular vectors. Its inputs are
taken to be of one deviation, by which batch norm divides behind the kernels.
"""

import math

import torch
from torch import Tensor, nn

from hmseg.blocks import ConvBN, InvertedResidual
from hmseg.inherit import conv_of, norm_of

MIDDLE = 3.0  # of ReLU6's linear part, where a normalised input lies up to three deviations


@torch.no_grad()
def inherit_linear(block: InvertedResidual, source: InvertedResidual) -> None:
    """Give `block`, which has no expansion, the nearest to `source`, which has one, of the same
    channels, kernel, stride and dilation.

    Its batch norms have still to count: only in training mode does it give its numbers at once.
    """
    expand, depthwise, project = (
        conv_of(layer).weight.flatten(1) * _scale(layer)[:, None]
        for layer in (source.expand, source.depthwise, source.project)
    )
    slopes = _slope(norm_of(source.expand)) * _slope(norm_of(source.depthwise))
    # (inputs, outputs, taps), in float64: equal on every machine as far as it matters.
    full = torch.einsum("oh,hc,hk->cok", project * slopes, expand, depthwise).double()
    outputs, sizes, taps = torch.linalg.svd(full, full_matrices=False)
    conv = conv_of(block.depthwise)
    conv.weight.copy_(taps[:, 0].view_as(conv.weight))
    conv_of(block.project).weight.copy_((outputs[:, :, 0] * sizes[:, :1]).T[:, :, None, None])
    norm = norm_of(block.depthwise)
    norm.weight.fill_(1)
    norm.bias.fill_(MIDDLE)
    own, theirs = norm_of(block.project), norm_of(source.project)
    own.weight.copy_(theirs.weight)
    own.bias.copy_(theirs.bias)


def _scale(layer: nn.Module) -> Tensor:
    """What a batch norm multiplies by; of the last one the sign is left to the heir's own."""
    assert isinstance(layer, ConvBN)
    norm = norm_of(layer)
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale if len(layer) > 2 else scale.abs()  # a projection has no activation


def _slope(norm: nn.BatchNorm2d) -> Tensor:
    """The share of what leaves a batch norm that ReLU6 does not clip, if it is normal."""
    deviation = norm.weight.abs().clamp(min=1e-6) * math.sqrt(2)
    upper, lower = (torch.erf((end - norm.bias) / deviation) for end in (6, 0))
    return (upper - lower) / 2
