"""PlaceConvolutions: 1x1 and depthwise convolutions, with what follows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import tvm
from tvm import relax

from deploy.gpu.ir import Act
from deploy.gpu.kernels import GpuChooser, depthwise, pointwise
from deploy.gpu.passes.placement import place, placed
from deploy.graph.kernel_call import KernelCall
from deploy.graph.view import (
    ConvBlock,
    Graph,
    activation,
    bilinear_resize,
    conv_block,
    plane_of,
    product_of,
    shape_of,
    sum_of,
)


@tvm.transform.module_pass(opt_level=0, name="PlaceConvolutions")
class PlaceConvolutions:
    """Replace ``1x1 conv [* gate] [+ other] [-> act]`` and ``depthwise conv [-> act]`` by one call.

    ``gate`` is one value per channel; ``other`` a map, one value per channel, or a map that is
    upsampled bilinearly, which then is never written at the larger size. When: nothing between is
    read elsewhere. Other convolutions (dense 3x3, grouped, strided 1x1) are left to TVM. Runs after
    PlaceStem and before PlaceResize.
    """

    def __init__(self, chooser: GpuChooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return place(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        # From the end: what follows a convolution is met before it.
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            if var in inner:
                continue
            found = _sum(graph, var) or _gated_or_plain(graph, var)
            if found:
                inner.update(found.inner)
                yield found.call(self.chooser)
                continue
            block = conv_block(graph, var)
            if block is not None and block.depthwise:
                inner.update(block.inner)
                spec = depthwise.DepthwiseSpec(
                    block.cin, *plane_of(block.input), block.kernel, block.stride, block.dilation,
                    block.act,
                )  # fmt: skip
                constants = depthwise.pack(spec, block.weight, block.bias)
                yield placed(spec, [block.input], constants, var)


@dataclass(frozen=True)
class _Pointwise:
    """A 1x1 convolution and what follows it, up to `output`."""

    conv: ConvBlock
    output: relax.Var
    inner: tuple[relax.Var, ...]
    gate: relax.Var | None = None
    other: relax.Var | None = None
    add: Literal["none", "map", "channel", "low"] = "none"
    act: Act = "none"

    def call(self, chooser: GpuChooser) -> KernelCall:
        spec = pointwise.PointwiseSpec(
            self.conv.cin, self.conv.cout, *plane_of(self.conv.input), self.act,
            gate=self.gate is not None, add=self.add,
            low=plane_of(self.other) if self.add == "low" else (0, 0),
        )  # fmt: skip
        inputs = [self.conv.input, *(v for v in (self.gate, self.other) if v is not None)]
        schedule = chooser.schedule(spec)
        constants = pointwise.pack(spec, schedule, self.conv.weight, self.conv.bias)
        return placed(spec, inputs, constants, self.output)


def _sum(graph: Graph, var: relax.Var) -> _Pointwise | None:
    act, total = _activation(graph, var)
    if act != "none" and not graph.used_once(total):
        return None
    for own, other in sum_of(graph, total):
        found = _product(graph, own)
        if found is None or not graph.used_once(own) or graph.constant(other) is not None:
            continue
        inner = (*found.inner, total, own)
        whole, channel = shape_of(own), (1, found.conv.cout, 1, 1)
        low = bilinear_resize(graph, other)
        if low is not None and graph.used_once(other) and shape_of(other) == whole:
            inner = (*inner, other)
            return _Pointwise(found.conv, var, inner, found.gate, low, "low", act)
        if shape_of(other) in (whole, channel):
            add: Literal["map", "channel"] = "map" if shape_of(other) == whole else "channel"
            return _Pointwise(found.conv, var, inner, found.gate, other, add, act)
    return None


def _gated_or_plain(graph: Graph, var: relax.Var) -> _Pointwise | None:
    act, value = _activation(graph, var)
    if act != "none" and not graph.used_once(value):
        return None
    found = _product(graph, value)
    if found is None:
        return None
    return _Pointwise(found.conv, var, (*found.inner, value), found.gate, act=act)


def _product(graph: Graph, value: relax.Var) -> _Pointwise | None:
    """``1x1 conv [* gate]`` without an activation."""
    for conv_var, gate in product_of(graph, value):
        block = conv_block(graph, conv_var, with_act=False)
        if block is None or not block.pointwise or not graph.used_once(conv_var):
            continue
        if shape_of(gate) == (1, block.cout, 1, 1):
            return _Pointwise(block, value, (*block.inner, conv_var), gate)
    block = conv_block(graph, value, with_act=False)
    return _Pointwise(block, value, block.inner) if block and block.pointwise else None


def _activation(graph: Graph, var: relax.Var) -> tuple[Act, relax.Var]:
    sigmoid = graph.call(var, "relax.sigmoid")
    if sigmoid is not None and isinstance(sigmoid.args[0], relax.Var):
        return "sigmoid", sigmoid.args[0]
    act, value = activation(graph, var)
    return (act, value) if isinstance(value, relax.Var) else ("none", var)
