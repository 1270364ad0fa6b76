"""FuseGlobalPool: global context in one kernel."""

from collections.abc import Iterator

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import global_pool as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import Graph, conv_block, global_average, plane_of


@tvm.transform.module_pass(opt_level=0, name="FuseGlobalPool")
class FuseGlobalPool:
    """Replace ``global average -> 1x1 conv [-> act or sigmoid]`` by a call of ``global_pool``.

    When: the average is read by the convolution alone. Runs before FuseConvolution, which would
    take the convolution of a 1x1 map for any other.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            if var in inner:
                continue
            sigmoid = graph.call(var, "relax.sigmoid")
            end = sigmoid.args[0] if sigmoid is not None else var
            if sigmoid is not None and not graph.used_once(end):
                continue
            block = conv_block(graph, end, with_act=sigmoid is None)
            source = global_average(graph, block.input) if block and block.pointwise else None
            if block is None or source is None or not graph.used_once(block.input):
                continue
            inner.update((end, *block.inner))
            height, width = plane_of(source)
            act = "sigmoid" if sigmoid is not None else block.act
            spec = template.GlobalPoolSpec(block.cin, block.cout, height, width, act)
            yield KernelCall(
                spec=spec,
                inputs=[source],
                constants=template.pack(spec, self.chooser.isa, block.weight, block.bias),
                output=var,
            )
