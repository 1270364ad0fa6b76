"""Placing kernels: every operation of a graph that the backend has becomes one call."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.decisive import decisive_values
from deploy.graph.in_bytes import Grids, channel_operands, chosen
from deploy.graph.match import FOLLOWERS, MATCHERS, Found, Matcher
from deploy.graph.stored import take_grids
from deploy.graph.view import Graph, shape_of, values_between
from deploy.grid import Grid
from lut.ops import Convert, DType, Operation, dtype_of, parse_operation

# What a PrimFunc of ours says about itself; later passes, the compile summary and the profile
# read it.
KERNEL, OPERATION, MACS = "hmseg.kernel", "hmseg.operation", "hmseg.macs"
_MAP_AXES = 4  # (1, C, H, W)
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

    def stored(self, operation: Operation, *, scores: bool = False) -> Operation:
        """The operation, with the type that its maps shall have in memory; of `scores` what it
        writes is float32 (`score_values`)."""

    def storage(self, dtype: DType) -> str:
        """What such a map is to the compiler: a type of its own may travel as plain bits."""

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
        module, grids = take_grids(module)
        graph = Graph(module["main"])
        found = find_operations(graph, self.kernels, grids)
        if not found and not grids:
            return module
        whole = score_values(graph, found, self.kernels)
        for var, one in found.items():
            stored = self.kernels.stored(one.operation, scores=var in whole)
            found[var] = replace(one, operation=stored)
        rewriter = _Rewriter(module, self.kernels, found, grids)
        function = rewriter.visit_expr(module["main"])
        rewriter.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(rewriter.builder_.get())


def find_operations(
    graph: Graph, kernels: Kernels, grids: Grids = MappingProxyType({})
) -> dict[relax.Var, Found]:
    """What to place, by the variable that it ends at: larger operations first, from the end of the
    graph, and none that overlaps what was found before it. `grids` are those of maps in 8 bits."""
    found: dict[relax.Var, Found] = {}
    taken: set[relax.Var] = set()
    decisive = set(graph.vars) if kernels.exact else decisive_values(graph)

    def find(match: Matcher, beside: bool) -> None:
        # From the end: an operation is met whole, with its activation, before a part of it.
        for var in reversed(graph.vars):
            if var in taken:
                continue
            for whole in match(graph, var):
                candidate = chosen(graph, whole, grids, kernels.has) if grids else whole
                if candidate is None:
                    continue
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


def score_values(
    graph: Graph, found: Mapping[relax.Var, Found], kernels: Kernels
) -> set[relax.Var]:
    """The class scores, what is only rearranged on the way to them, and what is made of them: their
    maps stay float32, so that no rounding turns a lead into a tie."""
    ends = {var for var in found if not kernels.layout(found[var].operation).output}
    todo, whole = [*graph.results, *ends], set()
    while todo:
        var = todo.pop()
        if var in whole:
            continue
        whole.add(var)
        here = found.get(var)
        if here is None:
            value = graph.definition(var)
            todo.extend([] if value is None else relax.analysis.free_vars(value))
        elif here.operation.macs == 0:
            todo.extend(here.inputs)
    return whole


class KernelEmitter:
    """Emits calls of our kernels, and the PrimFuncs that they call, into a function being built."""

    def __init__(self, builder: relax.BlockBuilder, kernels: Kernels) -> None:
        self.builder, self.kernels = builder, kernels
        self._functions: dict[Operation, tvm.ir.GlobalVar] = {}

    def pack(
        self, value: relax.Expr, planar: Sequence[int], dtype: DType = "float32",
        grid: Grid | None = None,
    ) -> relax.Var:  # fmt: skip
        """A planar value (1, C, H, W) in the backend's own layout, as maps of this type, in 8 bits
        on a grid."""
        return self.convert(_conversion("pack", planar, dtype), value, grid)

    def unpack(
        self, value: relax.Expr, planar: Sequence[int], dtype: DType = "float32",
        grid: Grid | None = None,
    ) -> relax.Var:  # fmt: skip
        """The inverse of `pack`."""
        return self.convert(_conversion("unpack", planar, dtype), value, grid)

    def convert(self, operation: Convert, value: relax.Expr, grid: Grid | None) -> relax.Var:
        """A conversion of a value."""
        constants = [] if grid is None else self.kernels.constants(operation, {"grid": grid})
        return self.converted(operation, [value, *map(relax.const, constants)])

    def converted(self, operation: Convert, arguments: list[relax.Expr]) -> relax.Var:
        """A conversion of a value with its constants."""
        shape, plain = self.kernels.own_shape(*operation.output), operation.direction
        if plain == "unpack":
            shape = (1, *operation.output)
        dtype: DType = "float32" if plain in ("unpack", "widen") else operation.dtype
        return self.call(self.function(operation), arguments, shape, self.kernels.storage(dtype))

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


def _conversion(
    direction: Literal["pack", "unpack"], planar: Sequence[int], dtype: DType
) -> Convert:
    _, channels, height, width = planar
    return Convert(direction, channels, height, width, dtype)


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(
        self, module: tvm.IRModule, kernels: Kernels, found: Mapping[relax.Var, Found],
        grids: Grids,
    ) -> None:  # fmt: skip
        super().__init__(module)
        self.found, self.kernels, self.grids = found, kernels, grids
        self.parameters = set(module["main"].params)
        self.emitter = KernelEmitter(self.builder_, kernels)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        found = self.found.get(binding.var)
        if found is None:
            super().visit_var_binding_(binding)
        else:
            self.set_var_remap(binding.var, self._emit(found))
        in_bytes = found is not None and dtype_of(found.operation) == "int8"
        if binding.var in self.grids and not in_bytes:
            self.set_var_remap(binding.var, self._rounded(binding.var))

    def _rounded(self, var: relax.Var) -> relax.Var:
        """A value that was not computed in 8 bits, on its grid. Where it is no map, such as tokens,
        it is one for that: each number is rounded by itself."""
        grid, shape, value = self.grids[var], shape_of(var), self.visit_expr(var)
        if len(shape) == _MAP_AXES and shape[0] == 1:
            return self._through_bytes(value, shape, grid)
        rows = (1, math.prod(shape[:-1]), 1, math.prod(shape[-1:]))
        lines = self.builder_.emit(relax.op.reshape(value, rows))
        stored = self._through_bytes(lines, rows, grid)
        return self.builder_.emit(relax.op.reshape(stored, shape))

    def _through_bytes(self, value: relax.Expr, planar: Sequence[int], grid: Grid) -> relax.Var:
        stored = self.emitter.pack(value, planar, "int8", grid)
        return self.emitter.unpack(stored, planar, "int8", grid)

    def _emit(self, found: Found) -> relax.Var:
        emitter, operation = self.emitter, found.operation
        dtype = dtype_of(operation)
        layout = self.kernels.layout(operation)
        arguments, wide = [], list[int]()
        if dtype == "int8":
            wide = channel_operands(operation, len(found.inputs))
        for number, var in enumerate(found.inputs):
            value, is_image = self.visit_expr(var), layout.from_image and number == 0
            if var in self.parameters and var in self.grids:
                value = self._rounded(var)
            packed = layout.inputs and not is_image
            if packed:
                stored: DType = "float32" if number in wide else dtype
                value = emitter.pack(value, shape_of(var), stored, self._grid(var, stored))
            arguments.append(value)
        constants = self.kernels.constants(operation, found.weights)
        arguments += [relax.const(np.ascontiguousarray(constant)) for constant in constants]
        shape = shape_of(found.output)
        function = emitter.function(operation)
        if not layout.output:
            return emitter.call(function, arguments, shape, str(found.output.ty.dtype))
        if getattr(operation, "wide", False) or getattr(operation, "real", False):
            dtype = "float32"
        own = self.kernels.own_shape(*shape[1:])
        packed = emitter.call(function, arguments, own, self.kernels.storage(dtype))
        return emitter.unpack(packed, shape, dtype, self._grid(found.output, dtype))

    def _grid(self, var: relax.Var, dtype: DType) -> Grid | None:
        return self.grids[var] if dtype == "int8" else None


def called_kernel(module: tvm.IRModule, value: relax.Expr | None) -> str | None:
    """The name of our kernel that an expression calls, else None."""
    attrs = _called(module, value)
    return str(attrs[KERNEL]) if attrs else None


def called_conversion(
    module: tvm.IRModule, value: relax.Expr | None, direction: str
) -> Convert | None:
    """The conversion in this direction that an expression calls, else None."""
    attrs = _called(module, value)
    if not attrs or str(attrs[KERNEL]) != direction:
        return None
    operation = parse_operation(str(attrs[OPERATION]))
    return operation if isinstance(operation, Convert) else None


def _called(module: tvm.IRModule, value: relax.Expr | None) -> Any:  # noqa: ANN401 - attributes
    if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
        return None
    if value.op.name != "relax.call_tir":
        return None
    attrs = module[value.args[0]].attrs
    return attrs if attrs and KERNEL in attrs else None
