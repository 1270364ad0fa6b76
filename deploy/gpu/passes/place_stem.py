"""PlaceStem: the first convolution reads the camera's image."""

from collections.abc import Iterator

import numpy as np
import tvm
from tvm import relax

from deploy.gpu.kernels import GpuChooser
from deploy.gpu.kernels import stem as template
from deploy.gpu.passes.placement import place, placed
from deploy.graph.kernel_call import KernelCall
from deploy.graph.match.fuse_stem import is_stem, stem_source
from deploy.graph.view import Graph, conv_block, plane_of


@tvm.transform.module_pass(opt_level=0, name="PlaceStem")
class PlaceStem:
    """Replace ``image end -> 3x3 conv at stride 2 [-> act]`` by one call of ``stem``.

    Before: the image is transposed, converted, scaled and shifted in float planes. After: one call
    that reads uint8 NHWC; behind another end than that of `deploy.graph.ends`, the float planes.
    """

    def __init__(self, chooser: GpuChooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return place(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        inner: set[relax.Var] = set()
        for var in reversed(graph.vars):
            block = None if var in inner else conv_block(graph, var)
            if block is None:
                continue
            inner.update(block.inner)
            if not is_stem(block):
                continue
            source = stem_source(graph, block)
            spec = template.StemSpec(
                block.cout, *plane_of(block.input), source=source.kind, act=block.act
            )
            mean, std = (
                np.asarray(source.normalisation.get(key, default), np.float64)
                for key, default in (("mean", [0.0] * 3), ("std", [1.0] * 3))
            )
            layout = spec, self.chooser.schedule(spec)
            constants = template.pack(*layout, block.weight, block.bias, 1 / std, -mean / std)
            yield placed(spec, [source.tensor], constants, var)
