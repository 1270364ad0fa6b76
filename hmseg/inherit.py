"""A network's or a supernet's weights from another, trained network's, layer by layer.

Where nothing is cut away the function stays the same: a larger depthwise kernel is the smaller one
with zeros around it, and a further layer or hidden channel begins with nothing (Net2Net, Chen et
al. 2016). Of more hidden channels than are wanted those that reach the output most are kept, of a
larger kernel its middle (Once-for-All, Cai et al. 2020).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from hmseg.blocks import ConvBN, InvertedResidual
from hmseg.mrms import MRMS, MultiResolution
from hmseg.pretrained import Released
from hmseg.zoo import network_config
from lut.errors import UserError


def inherit_released(
    heir: MultiResolution, released: Released, classes: tuple[str, ...]
) -> tuple[dict[str, Any], ...]:
    """Give a network or supernet, in training for `classes`, what it can take of released weights;
    returns the runs before, as `Checkpoint.before` keeps them.

    Raises UserError for weights of other classes, of another width, or of another head.
    """
    model = released.card["model"]
    if tuple(released.card["classes"]) != classes:
        raise UserError(f"the pretrained {model} is for other classes; begin without it")
    config = network_config(model, len(classes))
    if (config.width, config.head) != (heir.config.width, heir.config.head):
        raise UserError(f"the pretrained {model} has another width or head; begin without it")
    network = MRMS(config)
    network.load_state_dict(released.tensors)
    inherit_network(heir, network)
    taken = {"released": model, "data": released.card["data"], "sha256": released.card["sha256"],
             "taken": "what fits (hmseg/inherit.py)", "images_seen": 0}  # fmt: skip
    return (*released.card["runs"], taken)


def inherit_network(heir: MultiResolution, network: MRMS) -> None:
    """Give stem, head and every operator what they can take of a network of the same width, head
    and classes. The heir, or a supernet's path, that cuts nothing away then gives its numbers."""
    for name in ("stem", "head", "aux_medium", "aux_low"):
        getattr(heir, name).load_state_dict(getattr(network, name).state_dict())
    for mine, theirs in zip(heir.layers(), network.layers(), strict=True):
        for block in mine:
            inherit_block(block, theirs[0] if theirs else None)


@torch.no_grad()
def inherit_block(block: InvertedResidual, source: InvertedResidual | None) -> None:
    """Give `block` what it can take from the operator in the same place of a trained network, of
    the same channels, stride and dilation; None where that network skips it.

    Expansion 1 has no hidden channels of its own, so nothing of it fits another expansion: such a
    block, as a further one, keeps its own weights, and begins as the identity where its input is
    added to what it makes.

    Hidden channels come in order of their reach: those that a smaller operator takes are the first
    of a larger one's, so that operators that share their weights (`hmseg.search.shared`) agree.
    """
    if source is None or _has_hidden(block) != _has_hidden(source):
        if block.residual:
            nn.init.zeros_(norm_of(block.project).weight)
        return
    count = min(_hidden(block), _hidden(source))
    kept = torch.arange(count)  # without an expansion the channels are the input's, in its order
    if isinstance(block.expand, ConvBN):
        columns = conv_of(source.project).weight.flatten(1).norm(dim=0)
        reach = norm_of(source.depthwise).weight.abs() * columns
        # Of equal reach the earlier one first, on every machine.
        kept = reach.argsort(descending=True, stable=True)[:count]
        conv_of(block.expand).weight[:count] = conv_of(source.expand).weight[kept]
        inherit_norm(norm_of(block.expand), norm_of(source.expand), kept)
    conv_of(block.depthwise).weight[:count] = fit_kernel(
        conv_of(source.depthwise).weight[kept], conv_of(block.depthwise).kernel_size[0]
    )
    inherit_norm(norm_of(block.depthwise), norm_of(source.depthwise), kept)
    conv_of(block.project).weight[:, :count] = conv_of(source.project).weight[:, kept]
    conv_of(block.project).weight[:, count:] = 0
    norm_of(block.project).load_state_dict(norm_of(source.project).state_dict())


def inherit_norm(norm: nn.BatchNorm2d, source: nn.BatchNorm2d, kept: Tensor) -> None:
    """The first channels from the kept ones; the count of batches is neither's."""
    theirs = source.state_dict()
    for name, tensor in norm.state_dict().items():
        if tensor.dim():
            tensor[: len(kept)] = theirs[name][kept]


def fit_kernel(weight: Tensor, size: int) -> Tensor:
    """The middle of (C, 1, K, K), or with zeros around it: (C, 1, size, size); both sizes odd."""
    border = (size - weight.shape[-1]) // 2
    return nn.functional.pad(weight, (border,) * 4)  # a negative border cuts


def _has_hidden(block: InvertedResidual) -> bool:
    return isinstance(block.expand, ConvBN)


def _hidden(block: InvertedResidual) -> int:
    return conv_of(block.depthwise).out_channels


def conv_of(layer: nn.Module) -> nn.Conv2d:
    """The convolution of a ConvBN."""
    return cast(nn.Conv2d, cast(ConvBN, layer)[0])


def norm_of(layer: nn.Module) -> nn.BatchNorm2d:
    """The batch norm of a ConvBN."""
    return cast(nn.BatchNorm2d, cast(ConvBN, layer)[1])
