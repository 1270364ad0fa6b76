"""Replacing matched values by calls of our kernels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.cpu.kernels import convert, module_of
from deploy.cpu.layout import activation_shape
from deploy.graph.view import Graph, shape_of

# What a PrimFunc of ours says about itself; later passes, the compile summary and the profile
# read it.
KERNEL, SPEC, MACS = "hmseg.kernel", "hmseg.spec", "hmseg.macs"
_OPAQUE = 8  # relax's OpPatternKind: never fused into a neighbour


@dataclass(frozen=True)
class KernelCall:
    """One value of the graph, and the kernel that computes it.

    The PrimFunc's parameters are the inputs, the constants and the output. Inputs are read in the
    blocked layout unless `blocked_inputs` says otherwise; the output is blocked unless
    `planar_output`. The name is the kernel module's, unless another says more.
    """

    spec: Any
    inputs: Sequence[relax.Var]
    constants: Sequence[NDArray[Any]]
    output: relax.Var
    planar_output: bool = False
    blocked_inputs: Sequence[bool] | None = None
    name: str | None = None


def rewrite(
    module: tvm.IRModule, chooser: Chooser, match: Callable[[Graph], Iterable[KernelCall]]
) -> tvm.IRModule:
    """Replace every match in ``main``; what nothing reads any more is removed."""
    calls = {call.output: call for call in match(Graph(module["main"]))}
    if not calls:
        return module
    rewriter = _Rewriter(module, chooser, calls)
    function = rewriter.visit_expr(module["main"])
    rewriter.builder_.update_func(module.get_global_var("main"), function)
    return relax.transform.DeadCodeElimination(["main"])(rewriter.builder_.get())


class KernelEmitter:
    """Emits calls of our kernels, and the PrimFuncs that they call, into a function being built."""

    def __init__(self, builder: relax.BlockBuilder, chooser: Chooser) -> None:
        self.builder, self.chooser = builder, chooser
        self._functions: dict[Any, tvm.ir.GlobalVar] = {}

    def convert(
        self, direction: Literal["pack", "unpack"], value: relax.Expr, planar: Sequence[int]
    ) -> relax.Var:
        """A conversion of a value whose planar shape is (1, C, H, W)."""
        spec = convert.ConvertSpec(direction, *planar[1:])
        blocked = activation_shape(self.chooser.isa, *planar[1:])
        shape = blocked if direction == "pack" else planar
        return self.call(self.function(spec, direction), [value], shape, "float32")

    def function(self, spec: Any, name: str | None = None) -> tvm.ir.GlobalVar:  # noqa: ANN401
        """The PrimFunc for a spec; equal specs share one."""
        if spec not in self._functions:
            name = name or module_of(spec).__name__.rpartition(".")[2]
            # Without a symbol of its own a function that nothing calls any more is removed.
            function = self.chooser.emit(spec).without_attr("global_symbol")
            attrs = {KERNEL: name, SPEC: repr(spec), MACS: spec.macs, "op_pattern": _OPAQUE}
            self._functions[spec] = self.builder.add_func(function.with_attrs(attrs), name)
        return self._functions[spec]

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
        self, module: tvm.IRModule, chooser: Chooser, calls: dict[relax.Var, KernelCall]
    ) -> None:
        super().__init__(module)
        self.calls = calls
        self.emitter = KernelEmitter(self.builder_, chooser)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        call = self.calls.get(binding.var)
        if call is None:
            super().visit_var_binding_(binding)
            return
        self.set_var_remap(binding.var, self._emit(call, binding.var))

    def _emit(self, call: KernelCall, output: relax.Var) -> relax.Var:
        emitter = self.emitter
        blocked = call.blocked_inputs or [True] * len(call.inputs)
        arguments = []
        for var, pack in zip(call.inputs, blocked, strict=True):
            value = self.visit_expr(var)
            arguments.append(emitter.convert("pack", value, shape_of(var)) if pack else value)
        arguments += [relax.const(np.ascontiguousarray(c)) for c in call.constants]
        shape, dtype = shape_of(output), str(output.ty.dtype)
        function = emitter.function(call.spec, call.name)
        if call.planar_output:
            return emitter.call(function, arguments, shape, dtype)
        packed_shape = activation_shape(emitter.chooser.isa, *shape[1:])
        packed = emitter.call(function, arguments, packed_shape, dtype)
        return emitter.convert("unpack", packed, shape)


def called_kernel(module: tvm.IRModule, value: relax.Expr | None) -> str | None:
    """The name of our kernel that an expression calls, else None."""
    if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
        return None
    if value.op.name != "relax.call_tir":
        return None
    attrs = module[value.args[0]].attrs
    return str(attrs[KERNEL]) if attrs and KERNEL in attrs else None
