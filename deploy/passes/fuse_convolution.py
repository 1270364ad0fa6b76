"""FuseConvolution: single convolutions with their bias and activation."""

from collections.abc import Iterator

import tvm

from deploy.kernels import depthwise, pointwise
from deploy.kernels.isa import Isa
from deploy.passes.graph import ConvBlock, Graph, conv_block, shape_of
from deploy.passes.kernel_call import KernelCall, rewrite


@tvm.transform.module_pass(opt_level=0, name="FuseConvolution")
class FuseConvolution:
    """Replace ``1x1 conv`` and ``depthwise conv``, each ``[+ bias] [-> act]``, by one call.

    Before: ``nn.conv2d -> add -> clip``. After: one call of ``pointwise`` or ``depthwise``. Other
    convolutions (dense 3x3, grouped, strided 1x1) are left to TVM. Runs after the passes that fuse
    several convolutions.
    """

    def __init__(self, isa: Isa, threads: int) -> None:
        self.isa, self.threads = isa, threads

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.isa, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        # From the end: a block is met whole, with its activation, before its parts.
        inner: set[object] = set()
        for var in reversed(graph.vars):
            block = None if var in inner else conv_block(graph, var)
            if block is None:
                continue
            inner.update(block.inner)
            call = self._call(block)
            if call:
                yield call

    def _call(self, block: ConvBlock) -> KernelCall | None:
        height, width = shape_of(block.input)[2:]
        if block.pointwise:
            point = pointwise.PointwiseSpec(block.cin, block.cout, height, width, block.act)
            schedule = pointwise.default_schedule(point, self.isa, self.threads)
            return KernelCall(
                name="pointwise",
                spec=point,
                emit=lambda: pointwise.emit(point, schedule, self.isa),
                inputs=[block.input],
                constants=pointwise.pack(point, self.isa, block.weight, block.bias),
                output=block.output,
            )
        if block.depthwise:
            depth = depthwise.DepthwiseSpec(
                block.cin, height, width, block.kernel, block.stride, block.dilation, block.act
            )
            cut = depthwise.default_schedule(depth, self.isa, self.threads)
            return KernelCall(
                name="depthwise",
                spec=depth,
                emit=lambda: depthwise.emit(depth, cut, self.isa),
                inputs=[block.input],
                constants=depthwise.pack(depth, self.isa, block.weight, block.bias),
                output=block.output,
            )
        return None
