"""FuseUpsampleAdd: linear cumulative fusion (paper section 3.1), one resolution onto the next."""

from collections.abc import Iterator

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import upsample_add as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import Graph, activation, bilinear_resize, conv_block, plane_of, sum_of


@tvm.transform.module_pass(opt_level=0, name="FuseUpsampleAdd")
class FuseUpsampleAdd:
    """Replace ``1x1 conv + resize(low) [-> act]`` by a call of ``upsample_add``.

    Before: the convolution and the upsampled map are written and read back to be added. After: one
    call that writes the sum. When: neither addend is read elsewhere. Runs before FuseConvolution
    and FuseResize, after FuseLocalGlobal.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            act, total = activation(graph, var)
            if var in inner or (act != "none" and not graph.used_once(total)):
                continue
            for conv_var, up_var in sum_of(graph, total):
                low = bilinear_resize(graph, up_var)
                block = conv_block(graph, conv_var, with_act=False)
                if low is None or block is None or not block.pointwise:
                    continue
                if not (graph.used_once(conv_var) and graph.used_once(up_var)):
                    continue
                height, width = plane_of(var)
                spec = template.UpsampleAddSpec(
                    block.cin, block.cout, height, width, *plane_of(low), act=act
                )
                inner.add(total)
                yield KernelCall(
                    spec=spec,
                    inputs=[block.input, low],
                    constants=template.pack(spec, self.chooser.isa, block.weight, block.bias),
                    output=var,
                )
                break
