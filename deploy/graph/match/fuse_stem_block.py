"""FuseStemBlock: the stem and the block behind it become one kernel."""

from collections.abc import Iterator

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import stem_block as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.match.fuse_stem import is_stem, stem_source
from deploy.graph.view import ConvBlock, Graph, conv_block, plane_of


@tvm.transform.module_pass(opt_level=0, name="FuseStemBlock")
class FuseStemBlock:
    """Replace ``[image end ->] 3x3 conv at stride 2, act -> depthwise, act -> 1x1 conv`` by one
    call of ``stem_block``.

    Before: the stem's output, the largest map of the network, is written and read. After: it
    exists in a few rows only. When: nothing else reads what lies between, and no
    activation follows. Runs before FuseStem and
    FuseInvertedResidual, which take the parts.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self.matches)

    def matches(self, graph: Graph) -> Iterator[KernelCall]:
        """Where the pass applies."""
        inner: set[relax.Var] = set()
        # From the end: a projection is met whole, with its bias and any activation.
        for var in reversed(graph.vars):
            project = None if var in inner else conv_block(graph, var)
            if project is None:
                continue
            inner.update(project.inner)
            call = self._match(graph, project) if project.act == "none" else None
            if call:
                yield call

    def _match(self, graph: Graph, project: ConvBlock) -> KernelCall | None:
        if not project.pointwise or not graph.used_once(project.input):
            return None
        depthwise = conv_block(graph, project.input)
        # At a stride above 2 the ring would not hold the last column of the stem.
        if depthwise is None or not depthwise.depthwise or depthwise.stride > 2:
            return None
        first = conv_block(graph, depthwise.input)
        if first is None or not is_stem(first) or not graph.used_once(depthwise.input):
            return None
        source = stem_source(graph, first)
        height, width = plane_of(first.input)
        spec = template.StemBlockSpec(
            first.cout,
            project.cout,
            height,
            width,
            depthwise.kernel,
            depthwise.stride,
            depthwise.dilation,
            source.kind,
            first.act,
            depthwise.act,
        )
        constants = template.pack(
            spec,
            self.chooser.isa,
            first=(first.weight, first.bias),
            depthwise=(depthwise.weight, depthwise.bias),
            project=(project.weight, project.bias),
            **source.normalisation,
        )
        return KernelCall(
            spec=spec,
            inputs=[source.tensor],
            constants=constants,
            output=project.output,
            blocked_inputs=[False],
        )
