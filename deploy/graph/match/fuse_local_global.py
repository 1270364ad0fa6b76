"""FuseLocalGlobal: the high-resolution end of the MRMS head (LGE, LCF and the fuse layer)."""

from collections.abc import Iterator

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import local_global as template
from deploy.graph.kernel_call import KernelCall, rewrite
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


@tvm.transform.module_pass(opt_level=0, name="FuseLocalGlobal")
class FuseLocalGlobal:
    """Replace ``1x1 conv [* gate] + resize(low) -> act -> 1x1 conv [-> act]`` by one call.

    Before: the wide middle, the largest tensor of the head, is written and read four times. After:
    one call of ``local_global``, in which it exists in segments only. When: the gate is one value
    per channel, and nothing between is read elsewhere. Runs before FuseUpsampleAdd.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            out = None if var in inner else conv_block(graph, var)
            if out is None or not out.pointwise:
                continue
            call = self._match(graph, out)
            if call:
                inner.update(out.inner)
                yield call

    def _match(self, graph: Graph, out: ConvBlock) -> KernelCall | None:
        mid_act, total = activation(graph, out.input)
        if mid_act == "none" or not (graph.used_once(out.input) and graph.used_once(total)):
            return None
        for local, up in sum_of(graph, total):
            low = bilinear_resize(graph, up)
            if low is None or not (graph.used_once(local) and graph.used_once(up)):
                continue
            mid, gate = self._gated(graph, local)
            if mid is None or not mid.pointwise:
                continue
            height, width = plane_of(out.input)
            spec = template.LocalGlobalSpec(
                mid.cin,
                mid.cout,
                out.cout,
                height,
                width,
                *plane_of(low),
                gate=gate is not None,
                mid_act=mid_act,
                act=out.act,
            )
            return KernelCall(
                spec=spec,
                inputs=[mid.input, *([gate] if gate is not None else []), low],
                constants=template.pack(
                    spec, self.chooser.isa, mid=(mid.weight, mid.bias), out=(out.weight, out.bias)
                ),
                output=out.output,
            )
        return None

    def _gated(self, graph: Graph, local: relax.Var) -> tuple[ConvBlock | None, relax.Var | None]:
        for conv_var, gate in product_of(graph, local):
            block = conv_block(graph, conv_var, with_act=False)
            per_channel = block is not None and shape_of(gate) == (1, block.cout, 1, 1)
            if per_channel and graph.used_once(conv_var):
                return block, gate
        return conv_block(graph, local, with_act=False), None
