"""What a network of the search space takes of Lite0's ImageNet weights (`hmseg.lite0`).

What it cannot hold is left out by importance: the channels between blocks here, consistently in
every layer that writes or reads them, the hidden ones by `hmseg.inherit.inherit_block`. Depthwise
kernels are fitted to its sizes and dilations. The head keeps its own weights.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hmseg.blocks import ConvBN, InvertedResidual
from hmseg.inherit import conv_of, inherit_block, inherit_norm, norm_of
from hmseg.inherit_linear import inherit_linear
from hmseg.lite0 import Lite0, load_lite0, provenance, weights_path
from hmseg.mrms import MultiResolution
from lut.errors import UserError


@torch.no_grad()
def inherit_lite0(heir: MultiResolution, source: Lite0 | None = None) -> dict[str, Any]:
    """Give stem and operators of a network or supernet what they can take of Lite0's weights; the
    head keeps its own. Returns what a checkpoint keeps about it (`Checkpoint.before`).

    The n-th operator of a group takes the n-th block of the stage, where the shape changes without
    an expansion as far as `inherit_linear` can; a further one begins as `inherit_block` says. An
    heir of the same widths, kernels, strides and dilations gives its numbers. Raises UserError for
    an heir that is wider, and what `load_lite0` raises.
    """
    path = weights_path() if source is None else None
    source = source or load_lite0(path)
    layers = heir.layers()
    groups: list[list[list[InvertedResidual]]] = []
    for group in heir.config.genotype.ops:
        groups.append([layer for layer in layers[: len(group)] if layer])
        layers = layers[len(group) :]
    blocks = source.blocks
    widths = [conv_of(heir.stem).out_channels]
    widths += [conv_of(group[0][0].project).out_channels for group in groups]
    kept = [
        _most_important(importance, width)
        for importance, width in zip(_importances(source), widths, strict=True)
    ]
    conv_of(heir.stem).weight.copy_(conv_of(source.stem).weight[kept[0]])
    inherit_norm(norm_of(heir.stem), norm_of(source.stem), kept[0])
    for index, (mine, theirs) in enumerate(zip(groups, blocks, strict=True)):
        for layer, candidates in enumerate(mine):
            inputs = kept[index if layer == 0 else index + 1]
            for block in candidates:
                block_source = None
                if layer < len(theirs):
                    block_source = _fitted(theirs[layer], block, inputs, kept[index + 1])
                inherit_block(block, block_source)
                if block_source is not None and _only_linear(block, block_source):
                    inherit_linear(block, block_source)
    return provenance(path)


def _only_linear(block: InvertedResidual, source: InvertedResidual) -> bool:
    """Whether nothing of the source's hidden channels fits, and no identity is there instead."""
    there, here = (isinstance(each.expand, ConvBN) for each in (source, block))
    return there and not here and not block.residual


def _importances(source: Lite0) -> list[Tensor]:
    """How much each channel between blocks moves what reads it, for the stem and every stage: its
    deviation times the norm of its weights in all blocks that read it."""
    blocks = source.blocks
    after = [*blocks[1:], []]
    # Behind the stem there is one reader, depthwise.
    first = norm_of(source.stem).weight.abs() * _reading(blocks[0][0])
    result = [first]
    for group, following in zip(blocks, after, strict=True):
        variance = sum(norm_of(block.project).weight.square() for block in group)
        assert isinstance(variance, Tensor)
        readers = [*group[1:], *following[:1]]
        reading = [_reading(block).square() for block in readers]
        weight = torch.stack(reading).sum(0).sqrt() if reading else torch.ones_like(variance)
        result.append(variance.sqrt() * weight)
    return result


def _reading(block: InvertedResidual) -> Tensor:
    """The norm of a block's weights for each of its inputs, behind batch norm."""
    if not isinstance(block.expand, ConvBN):
        scale = norm_of(block.depthwise).weight.abs()
        return scale * _column_norms(conv_of(block.project).weight.flatten(1))
    norm = norm_of(block.expand)
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return _column_norms(conv_of(block.expand).weight.flatten(1) * scale[:, None])


def _column_norms(matrix: Tensor) -> Tensor:
    return matrix.square().sum(0).sqrt()


def _most_important(importance: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, in the source's order."""
    if count > len(importance):
        raise UserError(
            f"the network has {count} channels where Lite0 has {len(importance)}; begin without it"
        )
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _fitted(
    source: InvertedResidual, heir: InvertedResidual, inputs: Tensor, outputs: Tensor
) -> InvertedResidual:
    """A block of the source with the chosen inputs and outputs and all its hidden channels, and
    with the heir's depthwise kernel."""
    block = copy.deepcopy(source)
    hidden = None
    if isinstance(block.expand, ConvBN):
        block.expand = _narrowed(block.expand, inputs, None)
    else:
        hidden = inputs
    block.depthwise = _narrowed(block.depthwise, None, hidden)
    conv, own = conv_of(block.depthwise), conv_of(heir.depthwise)
    conv.weight = nn.Parameter(
        fit_taps(conv.weight, own.kernel_size[0], own.dilation[0]), requires_grad=False
    )
    conv.kernel_size, conv.dilation = own.kernel_size, own.dilation
    block.project = _narrowed(block.project, hidden, outputs)
    return block


def _narrowed(layer: ConvBN, inputs: Tensor | None, outputs: Tensor | None) -> ConvBN:
    """A copy with the chosen inputs and outputs; None: all. Of a depthwise one only `outputs`."""
    layer = copy.deepcopy(layer)
    conv, norm = conv_of(layer), norm_of(layer)
    weight = conv.weight
    if inputs is not None:
        weight = weight[:, inputs]
    if outputs is not None:
        weight = weight[outputs]
        depthwise = conv.groups > 1
        for name, tensor in norm.state_dict().items():
            if tensor.dim():
                getattr(norm, name).data = tensor[outputs]
        norm.num_features = conv.out_channels = len(outputs)
        if depthwise:
            conv.groups = conv.in_channels = len(outputs)
    conv.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def fit_taps(weight: Tensor, size: int, dilation: int) -> Tensor:
    """Depthwise weights (C, 1, K, K) of dilation 1 as (C, 1, size, size) of another dilation.

    Each weight goes to the two taps of an axis that it lies between, in proportion (outside the
    kernel to the outermost): what is constant, and inside it linear, gives the same. Without a
    dilation a larger kernel has zeros around it.
    """
    matrix = _axis(weight.shape[-1], size, dilation).to(weight)
    fitted: Tensor = matrix @ weight @ matrix.T
    return fitted


def _axis(taps: int, size: int, dilation: int) -> Tensor:
    """The (size, taps) matrix of one axis."""
    reach = size // 2
    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    places = (offsets / dilation).clamp(-reach, reach) + reach
    distances = (places - torch.arange(size, dtype=torch.float64)[:, None]).abs()
    return (1 - distances).clamp(min=0)
