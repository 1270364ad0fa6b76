"""FuseResize: bilinear resizes in the blocked layout."""

from collections.abc import Iterator

import tvm

from deploy.kernels import resize as template
from deploy.kernels.isa import Isa
from deploy.passes.graph import Graph, bilinear_resize, shape_of
from deploy.passes.kernel_call import KernelCall, rewrite


@tvm.transform.module_pass(opt_level=0, name="FuseResize")
class FuseResize:
    """Replace ``image.resize2d``, bilinear with half-pixel centres, by a call of ``resize``.

    Runs after the passes that take a resize into a larger kernel.
    """

    def __init__(self, isa: Isa, threads: int) -> None:
        self.isa, self.threads = isa, threads

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.isa, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        for var in graph.vars:
            source = bilinear_resize(graph, var)
            if source is None:
                continue
            spec = template.ResizeSpec(*shape_of(source)[1:], *shape_of(var)[2:])
            schedule = template.default_schedule(spec, self.isa, self.threads)
            yield KernelCall(
                name="resize",
                spec=spec,
                emit=lambda spec=spec, schedule=schedule: template.emit(spec, schedule, self.isa),
                inputs=[source],
                constants=template.pack(spec, self.isa),
                output=var,
            )
