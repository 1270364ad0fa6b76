"""Placing kernels: every operation of a graph that the backend has becomes one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.decisive import decisive_values
from deploy.graph.match import FOLLOWERS, MATCHERS, Found, Matcher
from deploy.graph.view import Graph, shape_of, values_between
from lut.ops import Convert, Operation

# What a PrimFunc of ours says about itself; later passes, the compile summary and the profile
# read it.
KERNEL, OPERATION, MACS = "hmseg.kernel", "hmseg.operation", "hmseg.macs"
_OPAQUE = 8  # relax's OpPatternKind: never fused into a neighbour


@dataclass(frozen=True)
class Layout:
    """Whether a kernel's inputs, and whether its output, are in the backend's own layout; else they
    are planar. An image, which comes first, is planar everywhere."""

    inputs: bool
    output: bool
    from_image: bool = False


class Kernels(Protocol):
    """The kernels of a backend, each of which computes one operation."""

    @property
    def exact(self) -> bool:
        """Whether every operation is wanted so."""

    def has(self, operation: Operation) -> bool:
        """Whether there is a kernel for it."""

    def exactly(self, operation: Operation) -> Operation:
        """The operation, as whose kernel rounds no more than it must, and equal windows alike."""

    def emit(self, operation: Operation) -> Any:  # noqa: ANN401 - a PrimFunc
        """The PrimFunc of inputs, constants, output, with the schedule chosen for it."""

    def constants(self, operation: Operation, weights: Mapping[str, Any]) -> list[NDArray[Any]]:
        """A kernel's constants, in call order, from what a matcher found (`Found.weights`)."""

    def layout(self, operation: Operation) -> Layout:
        """How its maps lie in memory."""

    def own_shape(self, channels: int, height: int, width: int) -> tuple[int, ...]:
        """Of a map in the backend's own layout."""


@tvm.transform.module_pass(opt_level=0, name="Place")
class Place:
    """Replace what `deploy.graph.match` recognises by calls of a backend's kernels.

    Before: operators of Relax. After: one call for each operation, the largest that the backend
    has; where it lacks one, its parts are met by their own matchers. Maps that kernels want in the
    backend's own layout are converted before the call and behind it. What no kernel covers stays.
    Runs first, on ``main`` of an imported graph.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        found = find_operations(Graph(module["main"]), self.kernels)
        if not found:
            return module
        rewriter = _Rewriter(module, self.kernels, found)
        function = rewriter.visit_expr(module["main"])
        rewriter.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(rewriter.builder_.get())


def find_operations(graph: Graph, kernels: Kernels) -> dict[relax.Var, Found]:
    """What to place, by the variable that it ends at: larger operations first, from the end of the
    graph, and none that overlaps what was found before it."""
    found: dict[relax.Var, Found] = {}
    taken: set[relax.Var] = set()
    decisive = set(graph.vars) if kernels.exact else decisive_values(graph)

    def find(match: Matcher, beside: bool) -> None:
        # From the end: an operation is met whole, with its activation, before a part of it.
        for var in reversed(graph.vars):
            if var in taken:
                continue
            for candidate in match(graph, var):
                if beside and not any(value in found for value in candidate.inputs):
                    continue
                if kernels.has(candidate.operation) and taken.isdisjoint(candidate.inner):
                    found[var] = candidate
                    if var in decisive:
                        exact = kernels.exactly(candidate.operation)
                        found[var] = replace(candidate, operation=exact)
                    taken.update((var, *candidate.inner))
                    # And what an activation of several operators has between them.
                    taken.update(values_between(graph, (var, *candidate.inner), candidate.inputs))
                    break

    for match in MATCHERS:
        find(match, beside=False)
    before = -1
    while before < len(found):  # one may be beside another that is found after it
        before = len(found)
        for match in FOLLOWERS:
            find(match, beside=True)
    return found


class KernelEmitter:
    """Emits calls of our kernels, and the PrimFuncs that they call, into a function being built."""

    def __init__(self, builder: relax.BlockBuilder, kernels: Kernels) -> None:
        self.builder, self.kernels = builder, kernels
        self._functions: dict[Operation, tvm.ir.GlobalVar] = {}

    def pack(self, value: relax.Expr, planar: Sequence[int]) -> relax.Var:
        """A planar value (1, C, H, W) in the backend's own layout."""
        _, channels, height, width = planar
        function = self.function(Convert("pack", channels, height, width))
        shape = self.kernels.own_shape(channels, height, width)
        return self.call(function, [value], shape, "float32")

    def unpack(self, value: relax.Expr, planar: Sequence[int]) -> relax.Var:
        """The inverse of `pack`."""
        _, channels, height, width = planar
        function = self.function(Convert("unpack", channels, height, width))
        return self.call(function, [value], planar, "float32")

    def function(self, operation: Operation) -> tvm.ir.GlobalVar:
        """The PrimFunc of an operation; equal ones share it."""
        if operation not in self._functions:
            name = operation.direction if isinstance(operation, Convert) else operation.kind
            # Without a symbol of its own a function that nothing calls any more is removed.
            function = self.kernels.emit(operation).without_attr("global_symbol")
            text, macs = str(operation), operation.macs
            attrs = {KERNEL: name, OPERATION: text, MACS: macs, "op_pattern": _OPAQUE}
            self._functions[operation] = self.builder.add_func(function.with_attrs(attrs), name)
        return self._functions[operation]

    def call(
        self,
        function: tvm.ir.GlobalVar,
        arguments: list[relax.Expr],
        shape: Sequence[int],
        dtype: str,
    ) -> relax.Var:
        """A call whose output has this shape."""
        out_ty = relax.TensorType(tuple(shape), dtype)
        return self.builder.emit(relax.call_tir(function, arguments, out_ty=out_ty))


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(
        self, module: tvm.IRModule, kernels: Kernels, found: Mapping[relax.Var, Found]
    ) -> None:
        super().__init__(module)
        self.found, self.kernels = found, kernels
        self.emitter = KernelEmitter(self.builder_, kernels)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        found = self.found.get(binding.var)
        if found is None:
            super().visit_var_binding_(binding)
        else:
            self.set_var_remap(binding.var, self._emit(found))

    def _emit(self, found: Found) -> relax.Var:
        emitter, operation = self.emitter, found.operation
        layout = self.kernels.layout(operation)
        arguments = []
        for number, var in enumerate(found.inputs):
            value, is_image = self.visit_expr(var), layout.from_image and number == 0
            packed = layout.inputs and not is_image
            arguments.append(emitter.pack(value, shape_of(var)) if packed else value)
        constants = self.kernels.constants(operation, found.weights)
        arguments += [relax.const(np.ascontiguousarray(constant)) for constant in constants]
        shape, dtype = shape_of(found.output), str(found.output.ty.dtype)
        function = emitter.function(operation)
        if not layout.output:
            return emitter.call(function, arguments, shape, dtype)
        packed = emitter.call(function, arguments, self.kernels.own_shape(*shape[1:]), dtype)
        return emitter.unpack(packed, shape)


def called_kernel(module: tvm.IRModule, value: relax.Expr | None) -> str | None:
    """The name of our kernel that an expression calls, else None."""
    if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
        return None
    if value.op.name != "relax.call_tir":
        return None
    attrs = module[value.args[0]].attrs
    return str(attrs[KERNEL]) if attrs and KERNEL in attrs else None
