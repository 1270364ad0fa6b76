"""PlaceResize: bilinear resizes that no other kernel has taken in."""

from collections.abc import Iterator

import tvm

from deploy.gpu.kernels import GpuChooser, resize
from deploy.gpu.passes.placement import place, placed
from deploy.graph.kernel_call import KernelCall
from deploy.graph.view import Graph, bilinear_resize, plane_of, shape_of


@tvm.transform.module_pass(opt_level=0, name="PlaceResize")
class PlaceResize:
    """Replace ``image.resize2d``, bilinear with half-pixel centres, by a call of ``resize``.

    The class scores at the image's size, where they are the network's result, are such a resize.
    Runs after the passes that take a resize into a larger kernel.
    """

    def __init__(self, chooser: GpuChooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return place(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        for var in graph.vars:
            source = bilinear_resize(graph, var)
            if source is not None:
                channels, *_ = shape_of(source)[1:]
                spec = resize.ResizeSpec(channels, *plane_of(source), *plane_of(var))
                yield placed(spec, [source], resize.pack(spec), var)
