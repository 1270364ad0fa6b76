"""FuseStemPair: the stem and the two blocks behind it become one kernel."""

from collections.abc import Iterator

import tvm

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import stem_pair as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.match.fuse_inverted_residual import FuseInvertedResidual
from deploy.graph.match.fuse_stem_block import FuseStemBlock
from deploy.graph.view import Graph


@tvm.transform.module_pass(opt_level=0, name="FuseStemPair")
class FuseStemPair:
    """Replace what FuseStemBlock takes, and an inverted residual behind it, by one call of
    ``stem_pair``.

    Before: the map between the two is written and read; its few channels fill whole vectors. After:
    it exists one row at a time. When: nothing else reads that map, the second block expands and has
    no residual. Runs before FuseStemBlock, which takes the first block alone.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self._first, self._second = FuseStemBlock(chooser), FuseInvertedResidual(chooser)

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        firsts = {call.output: call for call in self._first.matches(graph)}
        if not firsts:
            return
        for second in self._second.matches(graph):
            (source,) = second.inputs
            first = firsts.get(source)
            if first is None or not second.spec.expand or second.spec.residual:
                continue
            if not graph.used_once(source):
                continue
            spec = template.StemPairSpec(first.spec, second.spec)
            constants = template.pack(
                spec,
                self.chooser.isa,
                first=list(first.constants),
                second=list(second.constants),
            )
            yield KernelCall(
                spec=spec,
                inputs=first.inputs,
                constants=constants,
                output=second.output,
                blocked_inputs=[False],
            )
