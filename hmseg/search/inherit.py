"""A supernet's weights from a trained network's, layer by layer.

Where nothing is cut away the function stays the same: a larger depthwise kernel is the smaller one
with zeros around it, and a further layer or hidden channel begins with nothing (Net2Net, Chen et
al. 2016). Of more hidden channels than are wanted those that reach the output most are kept, of a
larger kernel its middle (Once-for-All, Cai et al. 2020).
"""

from typing import cast

import torch
from torch import Tensor, nn

from hmseg.blocks import ConvBN, InvertedResidual
from hmseg.genotype import GROUPS
from hmseg.mrms import MRMS
from hmseg.search.space import LAYERS
from hmseg.search.supernet import Supernet


def inherit_network(supernet: Supernet, network: MRMS) -> None:
    """Give stem, head and every candidate what they can take of a network of the same width and
    classes. The path of that network, and every path that cuts nothing of it away, then gives the
    network's own numbers."""
    for name in ("stem", "head", "aux_medium", "aux_low"):
        getattr(supernet, name).load_state_dict(getattr(network, name).state_dict())
    trained = _blocks(network)
    for (group, layer), source in zip(LAYERS, trained, strict=True):
        for block in supernet.candidates(group, layer):
            inherit_block(block, source)


def _blocks(network: MRMS) -> list[InvertedResidual | None]:
    """Of the 22 layers; None where the network skips one."""
    ops = [op for ops in network.config.genotype.ops for op in ops]
    blocks = iter([
        block for group in GROUPS for block in network.stages[group.name].children()
    ])  # fmt: skip
    return [cast(InvertedResidual, next(blocks)) if op else None for op in ops]


@torch.no_grad()
def inherit_block(block: InvertedResidual, source: InvertedResidual | None) -> None:
    """Give `block` what it can take from the operator in the same place of a trained network, None
    where that skips it.

    Expansion 1 has no hidden channels of its own, so nothing of it fits another expansion: such a
    block, as a further one, keeps its own weights, and begins as the identity where its input is
    added to what it makes.
    """
    if source is None or _has_hidden(block) != _has_hidden(source):
        if block.residual:
            nn.init.zeros_(_norm(block.project).weight)
        return
    columns = _conv(source.project).weight.flatten(1).norm(dim=0)
    reach = _norm(source.depthwise).weight.abs() * columns
    kept = reach.topk(min(_hidden(block), _hidden(source))).indices.sort().values
    count = len(kept)
    if isinstance(block.expand, ConvBN):
        _conv(block.expand).weight[:count] = _conv(source.expand).weight[kept]
        _inherit_norm(_norm(block.expand), _norm(source.expand), kept)
    _conv(block.depthwise).weight[:count] = fit_kernel(
        _conv(source.depthwise).weight[kept], _conv(block.depthwise).kernel_size[0]
    )
    _inherit_norm(_norm(block.depthwise), _norm(source.depthwise), kept)
    _conv(block.project).weight[:, :count] = _conv(source.project).weight[:, kept]
    _conv(block.project).weight[:, count:] = 0
    _norm(block.project).load_state_dict(_norm(source.project).state_dict())


def _inherit_norm(norm: nn.BatchNorm2d, source: nn.BatchNorm2d, kept: Tensor) -> None:
    """The first channels from the kept ones; the count of batches is neither's."""
    theirs = source.state_dict()
    for name, tensor in norm.state_dict().items():
        if tensor.dim():
            tensor[: len(kept)] = theirs[name][kept]


def fit_kernel(weight: Tensor, size: int) -> Tensor:
    """The middle of (C, 1, K, K), or with zeros around it: (C, 1, size, size)."""
    border = (size - weight.shape[-1]) // 2
    return nn.functional.pad(weight, (border,) * 4)  # a negative border cuts


def _has_hidden(block: InvertedResidual) -> bool:
    return isinstance(block.expand, ConvBN)


def _hidden(block: InvertedResidual) -> int:
    return _conv(block.depthwise).out_channels


def _conv(layer: nn.Module) -> nn.Conv2d:
    return cast(nn.Conv2d, cast(ConvBN, layer)[0])


def _norm(layer: nn.Module) -> nn.BatchNorm2d:
    return cast(nn.BatchNorm2d, cast(ConvBN, layer)[1])
