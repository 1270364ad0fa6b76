"""Batch norm folded into the convolution before it: what is deployed, and what is quantised."""

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_pairs(model: nn.Module) -> nn.Module:
    """A copy in eval mode with every (convolution, batch norm) pair made one convolution; a batch
    norm that follows none is left."""
    folded = copy.deepcopy(model).eval()
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        children = list(sequence.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(conv, norm)
                conv.weight, conv.bias = fused.weight, fused.bias
                sequence.register_module(name, nn.Identity())
    return folded
