"""FuseOutputEnd: from class scores to labels or logits without writing a plane too many."""

from collections.abc import Iterator
from typing import Any, Literal

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import ends as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import Graph, bilinear_resize, plane_of, shape_of


@tvm.transform.module_pass(opt_level=0, name="FuseOutputEnd")
class FuseOutputEnd:
    """Replace ``resize -> argmax over the classes -> uint8``, and a resize that is the network's
    result, by a call of ``labels_end`` or ``logits_end`` each.

    Before: one float plane per class at the image's size is written and read back (159 MB at
    1024x2048 and 19 classes). After: labels from the small scores in one pass. Runs before
    FuseResize.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self._matches)

    def _matches(self, graph: Graph) -> Iterator[KernelCall]:
        for var in graph.vars:
            scores = scores_of_labels(graph, var)
            if scores is not None:
                yield self._call("labels", scores, var, plane_of(var))
            elif graph.is_result(var):
                scores = bilinear_resize(graph, var)
                if scores is not None:
                    yield self._call("logits", scores, var, plane_of(var))

    def _call(
        self,
        output: Literal["labels", "logits"],
        scores: relax.Var,
        var: relax.Var,
        size: tuple[int, int],
    ) -> KernelCall:
        classes, height, width = shape_of(scores)[1:]
        spec = template.EndSpec(classes, height, width, *size, output)
        return KernelCall(
            spec=spec,
            name=f"{output}_end",
            inputs=[scores],
            constants=template.pack(spec, self.chooser.isa),
            output=var,
            planar_output=True,
        )


def scores_of_labels(graph: Graph, var: relax.Var) -> Any:  # noqa: ANN401 - Var or None
    """What ``resize -> argmax over the classes -> uint8`` that ends at `var` reads, else None."""
    cast = graph.call(var, "relax.astype")
    arg_max = graph.call(cast.args[0], "relax.argmax") if cast is not None else None
    if arg_max is None or str(var.ty.dtype) != "uint8":
        return None
    over_classes = int(arg_max.attrs.axis) in (1, -3) and not arg_max.attrs.keepdims
    return bilinear_resize(graph, arg_max.args[0]) if over_classes else None
