"""PlaceGlobalMean: the mean of every channel."""

from collections.abc import Iterator

import tvm

from deploy.gpu.kernels import GpuChooser, global_mean
from deploy.gpu.passes.placement import place, placed
from deploy.graph.kernel_call import KernelCall
from deploy.graph.view import Graph, global_average, shape_of


@tvm.transform.module_pass(opt_level=0, name="PlaceGlobalMean")
class PlaceGlobalMean:
    """Replace a mean over height and width by a call of ``global_mean``."""

    def __init__(self, chooser: GpuChooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return place(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        for var in graph.vars:
            source = global_average(graph, var)
            if source is not None and shape_of(source)[0] == 1:
                spec = global_mean.GlobalMeanSpec(*shape_of(source)[1:])
                yield placed(spec, [source], global_mean.pack(spec), var)
