"""The first convolution, which reads the camera's image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Array, ConvBlock, Graph, conv_block, plane_of
from lut.ops import CHANNELS, STEM_KERNEL, STEM_STRIDE, ImageLayout, Stem


def match_stem(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[image end ->] 3x3 convolution of three channels at stride 2 [-> act]``.

    The image is uint8 NHWC where the image end is the one that `deploy.graph.ends` attaches; behind
    any other, the stem reads the float planes.
    """
    block = conv_block(graph, var)
    if block is not None and is_stem(block):
        source = image_source(graph, block)
        stem = Stem(block.cout, *plane_of(block.input), source=source.layout, act=block.act)
        weights = {"weight": block.weight, "bias": block.bias, **source.normalisation}
        yield Found(stem, [source.tensor], var, block.inner, weights, {"weight": block.input})


@dataclass(frozen=True)
class ImageSource:
    """What a stem reads, and how it is normalised: (v - mean) / std."""

    tensor: relax.Var
    layout: ImageLayout
    normalisation: dict[str, Any]


def is_stem(block: ConvBlock) -> bool:
    """A 3x3 convolution of three channels at stride 2."""
    window = (block.cin, block.kernel, block.stride, block.padding, block.dilation, block.groups)
    return window == (CHANNELS, STEM_KERNEL, STEM_STRIDE, 1, 1, 1)


def image_source(graph: Graph, block: ConvBlock) -> ImageSource:
    """The uint8 image if `deploy.graph.ends` attached an image end, else the float planes."""
    return image_end(graph, block.input) or ImageSource(block.input, "float32_nchw", {})


def image_end(graph: Graph, tensor: relax.Expr) -> ImageSource | None:
    """What a normalised tensor of three channels is made of, if it is the image or its planes as
    they come in."""
    found = _image_end(graph, tensor)
    if found is None:
        planes = isinstance(tensor, relax.Var) and graph.definition(tensor) is None
        return ImageSource(tensor, "float32_nchw", {}) if planes else None
    image, factor, shift = found
    # v * factor + shift = (v - mean) / std
    std = 1 / factor.astype(np.float64)
    mean = -shift.astype(np.float64) * std
    return ImageSource(image, "uint8_nhwc", {"scale": 1.0, "mean": mean, "std": std})


def _image_end(graph: Graph, tensor: relax.Expr) -> tuple[relax.Var, Array, Array] | None:
    """The uint8 NHWC image, factor (3,) and shift (3,) behind a normalised float tensor."""
    add = graph.call(tensor, "relax.add")
    multiply = graph.call(add.args[0], "relax.multiply") if add is not None else None
    cast = graph.call(multiply.args[0], "relax.astype") if multiply is not None else None
    transpose = graph.call(cast.args[0], "relax.permute_dims") if cast is not None else None
    if add is None or multiply is None or transpose is None:
        return None
    factor, shift = graph.constant(multiply.args[1]), graph.constant(add.args[1])
    image = transpose.args[0]
    if factor is None or shift is None or not isinstance(image, relax.Var):
        return None
    axes = [int(axis) for axis in transpose.attrs.axes]
    per_channel = factor.shape == shift.shape == (1, CHANNELS, 1, 1)
    if axes != [0, 3, 1, 2] or not per_channel or str(image.ty.dtype) != "uint8":
        return None
    if not factor.all():  # a user's own, which leaves a channel out
        return None
    return image, factor.reshape(-1), shift.reshape(-1)
