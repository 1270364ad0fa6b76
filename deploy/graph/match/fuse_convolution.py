"""FuseConvolution: single convolutions with their bias and activation."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import depthwise, pointwise
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import ConvBlock, Graph, activation, conv_block, plane_of, shape_of, sum_of


@tvm.transform.module_pass(opt_level=0, name="FuseConvolution")
class FuseConvolution:
    """Replace ``1x1 conv`` and ``depthwise conv``, each ``[+ bias] [-> act]``, by one call.

    Before: ``nn.conv2d -> add -> clip``. After: one call of ``pointwise`` or ``depthwise``. A map,
    or one value per channel, that is added to a 1x1 convolution is added inside the call. Other
    convolutions (dense 3x3, grouped, strided 1x1) are left to TVM. Runs after the passes that fuse
    several convolutions.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        # From the end: a block is met whole, with its activation, before its parts.
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            if var in inner:
                continue
            call = self._sum(graph, var, inner) or self._single(graph, var, inner)
            if call:
                yield call

    def _sum(self, graph: Graph, var: relax.Var, inner: set[relax.Var]) -> KernelCall | None:
        act, total = activation(graph, var)
        if act != "none" and not graph.used_once(total):
            return None
        for conv_var, other in sum_of(graph, total):
            block = conv_block(graph, conv_var, with_act=False)
            if block is None or not block.pointwise or not graph.used_once(conv_var):
                continue
            whole, channel = shape_of(conv_var), (1, block.cout, 1, 1)
            if shape_of(other) not in (whole, channel) or graph.constant(other) is not None:
                continue
            inner.update((total, conv_var, *block.inner))
            add: Literal["map", "channel"] = "map" if shape_of(other) == whole else "channel"
            return self._pointwise(replace(block, output=var, act=act), add, other)
        return None

    def _pointwise(
        self,
        block: ConvBlock,
        add: Literal["none", "map", "channel"] = "none",
        other: relax.Var | None = None,
    ) -> KernelCall:
        height, width = plane_of(block.input)
        spec = pointwise.PointwiseSpec(block.cin, block.cout, height, width, block.act, add)
        return KernelCall(
            spec=spec,
            inputs=[block.input, *([other] if other is not None else [])],
            constants=pointwise.pack(spec, self.chooser.isa, block.weight, block.bias),
            output=block.output,
        )

    def _single(self, graph: Graph, var: relax.Var, inner: set[relax.Var]) -> KernelCall | None:
        block = conv_block(graph, var)
        if block is None:
            return None
        inner.update(block.inner)
        if block.pointwise:
            return self._pointwise(block)
        height, width = plane_of(block.input)
        if block.depthwise:
            depth = depthwise.DepthwiseSpec(
                block.cin, height, width, block.kernel, block.stride, block.dilation, block.act
            )
            return KernelCall(
                spec=depth,
                inputs=[block.input],
                constants=depthwise.pack(depth, self.chooser.isa, block.weight, block.bias),
                output=block.output,
            )
        return None
