"""PlaceLabelEnd: from class scores to labels without writing a plane."""

from collections.abc import Iterator

import tvm

from deploy.gpu.kernels import GpuChooser, label_end
from deploy.gpu.passes.placement import place, placed
from deploy.graph.kernel_call import KernelCall
from deploy.graph.match.fuse_output_end import scores_of_labels
from deploy.graph.view import Graph, plane_of, shape_of


@tvm.transform.module_pass(opt_level=0, name="PlaceLabelEnd")
class PlaceLabelEnd:
    """Replace ``resize -> argmax over the classes -> uint8`` by one call of ``label_end``.

    Before: one float plane per class at the image's size is written and read back (159 MB at
    1024x2048 and 19 classes). Runs before PlaceResize.
    """

    def __init__(self, chooser: GpuChooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return place(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        for var in graph.vars:
            scores = scores_of_labels(graph, var)
            if scores is not None:
                channels, *_ = shape_of(scores)[1:]
                spec = label_end.LabelEndSpec(channels, *plane_of(scores), *plane_of(var))
                yield placed(spec, [scores], label_end.pack(spec), var)
