"""FuseResize: bilinear resizes in the blocked layout."""

from collections.abc import Iterator

import tvm

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import resize as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import Graph, bilinear_resize, plane_of, shape_of


@tvm.transform.module_pass(opt_level=0, name="FuseResize")
class FuseResize:
    """Replace ``image.resize2d``, bilinear with half-pixel centres, by a call of ``resize``.

    Runs after the passes that take a resize into a larger kernel.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        for var in graph.vars:
            source = bilinear_resize(graph, var)
            if source is None:
                continue
            channels, height, width = shape_of(source)[1:]
            spec = template.ResizeSpec(channels, height, width, *plane_of(var))
            yield KernelCall(
                spec=spec,
                inputs=[source],
                constants=template.pack(spec, self.chooser.isa),
                output=var,
            )
