"""FuseInvertedResidual: MobileNetV2's block becomes one kernel."""

from collections.abc import Iterator

import tvm
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import inverted_residual as template
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import ConvBlock, Graph, activation, conv_block, plane_of, sum_of


@tvm.transform.module_pass(opt_level=0, name="FuseInvertedResidual")
class FuseInvertedResidual:
    """Replace ``[1x1 conv, act] -> depthwise, act -> 1x1 conv [-> + input]`` by one call.

    Before: convolutions, biases and clips of their own. After: one call of the kernel
    ``inverted_residual``, whose hidden tensor never leaves the caches. When: both activations are
    equal, and no value between is read elsewhere. An activation after the projection stays behind
    the call; without an expansion (a separable convolution of DeepLab) such a block is left to the
    passes for single convolutions, which run after this one and take the activation in.
    """

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        return rewrite(module, self.chooser, self.matches)

    def matches(self, graph: Graph) -> Iterator[KernelCall]:
        """Where the pass applies."""
        taken: set[relax.Var] = set()
        # From the end: the sum of a residual block is met before its projection.
        for var in reversed(graph.vars):
            if var in taken:
                continue
            taken.update(_separable_before_act(graph, var))
            call = self._match(graph, var, taken)
            if call:
                yield call

    def _match(self, graph: Graph, var: relax.Var, taken: set[relax.Var]) -> KernelCall | None:
        for projected, other in sum_of(graph, var):
            if graph.used_once(projected):
                call = self._block(graph, projected, var, other, taken)
                if call:
                    return call
        return self._block(graph, var, var, None, taken)

    def _block(
        self,
        graph: Graph,
        projected: relax.Var,
        output: relax.Var,
        residual: relax.Expr | None,
        taken: set[relax.Var],
    ) -> KernelCall | None:
        project = conv_block(graph, projected, with_act=False)
        if project is None or not project.pointwise or not graph.used_once(project.input):
            return None
        depthwise = conv_block(graph, project.input)
        if depthwise is None or not depthwise.depthwise or depthwise.act == "none":
            return None
        expand = _expansion(graph, depthwise)
        source = expand.input if expand else depthwise.input
        if residual is not None and not residual.same_as(source):
            return None
        height, width = plane_of(source)
        spec = template.InvertedResidualSpec(
            cin=expand.cin if expand else depthwise.cin,
            hidden=depthwise.cout,
            cout=project.cout,
            height=height,
            width=width,
            kernel=depthwise.kernel,
            stride=depthwise.stride,
            dilation=depthwise.dilation,
            expand=expand is not None,
            residual=residual is not None,
            act=depthwise.act,
        )
        taken.update({projected, output, *project.inner})
        return KernelCall(
            spec=spec,
            inputs=[source],
            constants=template.pack(
                spec,
                self.chooser.isa,
                expand=(expand.weight, expand.bias) if expand else None,
                depthwise=(depthwise.weight, depthwise.bias),
                project=(project.weight, project.bias),
            ),
            output=output,
        )


def _expansion(graph: Graph, depthwise: ConvBlock) -> ConvBlock | None:
    if not graph.used_once(depthwise.input):
        return None
    expand = conv_block(graph, depthwise.input)
    fits = expand is not None and expand.pointwise and expand.act == depthwise.act
    return expand if fits else None


def _separable_before_act(graph: Graph, var: relax.Var) -> set[relax.Var]:
    """The values of the projection whose activation is `var`, if its block has no expansion.

    Two kernels, the second of which applies the activation, are faster than the fused kernel and
    one more pass over its output, unless there is an expansion, whose map is the widest.
    """
    act, value = activation(graph, var)
    if act == "none" or not graph.used_once(value):
        return set()
    project = conv_block(graph, value, with_act=False)
    if project is None or not project.pointwise:
        return set()
    depthwise = conv_block(graph, project.input)
    if depthwise is None or not depthwise.depthwise or _expansion(graph, depthwise):
        return set()
    return {value, *project.inner}
