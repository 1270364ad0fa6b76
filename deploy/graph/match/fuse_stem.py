"""FuseStem: the first convolution reads the camera's image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import stem as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import Array, ConvBlock, Graph, conv_block, plane_of


@tvm.transform.module_pass(opt_level=0, name="FuseStem")
class FuseStem:
    """Replace ``image end -> 3x3 conv at stride 2 [-> act]`` by one call of ``stem``.

    Before: the image is transposed, converted, scaled and shifted in float planes. After: one call
    that reads uint8 NHWC. When: the image end is the one that `deploy.graph.ends` attaches;
    behind any other, the call reads the float planes.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            block = None if var in inner else conv_block(graph, var)
            if block is None:
                continue
            inner.update(block.inner)
            if not is_stem(block):
                continue
            source = stem_source(graph, block)
            spec = template.StemSpec(
                block.cout, *plane_of(block.input), source=source.kind, act=block.act
            )
            constants = template.pack(
                spec, self.chooser.isa, block.weight, block.bias, **source.normalisation
            )
            yield KernelCall(
                spec=spec,
                inputs=[source.tensor],
                constants=constants,
                output=var,
                blocked_inputs=[False],
            )


@dataclass(frozen=True)
class StemSource:
    """What a stem reads, and how it is normalised: the arguments of `pack`."""

    tensor: relax.Var
    kind: Literal["uint8_nhwc", "float32_nchw"]
    normalisation: dict[str, Any]


def is_stem(block: ConvBlock) -> bool:
    """A 3x3 convolution of three channels at stride 2."""
    window = (block.cin, block.kernel, block.stride, block.padding, block.dilation, block.groups)
    return window == (template.CHANNELS, template.KERNEL, template.STRIDE, 1, 1, 1)


def stem_source(graph: Graph, block: ConvBlock) -> StemSource:
    """The uint8 image if `deploy.graph.ends` attached an image end, else the float planes."""
    found = _image_end(graph, block.input)
    if found is None:
        return StemSource(block.input, "float32_nchw", {})
    image, factor, shift = found
    # v * factor + shift = (v - mean) / std
    std = 1 / factor.astype(np.float64)
    mean = -shift.astype(np.float64) * std
    return StemSource(image, "uint8_nhwc", {"scale": 1.0, "mean": mean, "std": std})


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
    per_channel = factor.shape == shift.shape == (1, template.CHANNELS, 1, 1)
    if axes != [0, 3, 1, 2] or not per_channel or str(image.ty.dtype) != "uint8":
        return None
    return image, factor.reshape(-1), shift.reshape(-1)
