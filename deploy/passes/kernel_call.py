"""Replacing matched values by calls of our kernels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.kernels.convert import ConvertSpec, emit_pack, emit_unpack
from deploy.kernels.isa import Isa
from deploy.kernels.layout import activation_shape
from deploy.passes.graph import Graph, shape_of

# What a PrimFunc of ours says about itself; later passes, the compile summary and the profile
# read it.
KERNEL, SPEC = "hmseg.kernel", "hmseg.spec"
_OPAQUE = 8  # relax's OpPatternKind: never fused into a neighbour


@dataclass(frozen=True)
class KernelCall:
    """One value of the graph, and the kernel that computes it.

    `inputs` are read in the blocked layout where they are float (1, C, H, W), as they are
    otherwise; the output is blocked unless `planar_output`. `emit` builds the PrimFunc, whose
    parameters are the inputs, the constants and the output.
    """

    name: str
    spec: Any
    emit: Callable[[], Any]
    inputs: Sequence[relax.Var]
    constants: Sequence[NDArray[Any]]
    output: relax.Var
    planar_output: bool = False
    blocked_inputs: Sequence[bool] | None = None


def rewrite(
    module: tvm.IRModule, isa: Isa, match: Callable[[Graph], Iterable[KernelCall]]
) -> tvm.IRModule:
    """Replace every match in ``main``; what nothing reads any more is removed."""
    calls = {call.output: call for call in match(Graph(module["main"]))}
    if not calls:
        return module
    rewriter = _Rewriter(module, isa, calls)
    function = rewriter.visit_expr(module["main"])
    rewriter.builder_.update_func(module.get_global_var("main"), function)
    return relax.transform.DeadCodeElimination(["main"])(rewriter.builder_.get())


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):
    def __init__(self, module: tvm.IRModule, isa: Isa, calls: dict[relax.Var, KernelCall]) -> None:
        super().__init__(module)
        self.isa, self.calls = isa, calls

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        call = self.calls.get(binding.var)
        if call is None:
            super().visit_var_binding_(binding)
            return
        self.set_var_remap(binding.var, self._emit(call, binding.var))

    def _emit(self, call: KernelCall, output: relax.Var) -> relax.Var:
        blocked = call.blocked_inputs or [True] * len(call.inputs)
        arguments = []
        for var, pack in zip(call.inputs, blocked, strict=True):
            value = self.visit_expr(var)
            arguments.append(self._pack(value) if pack else value)
        arguments += [relax.const(np.ascontiguousarray(c)) for c in call.constants]
        shape, dtype = shape_of(output), str(output.ty.dtype)
        function = self._add(call.name, call.spec, call.emit)
        if call.planar_output:
            return self._call(function, arguments, shape, dtype)
        packed = self._call(function, arguments, activation_shape(self.isa, *shape[1:]), dtype)
        unpack = ConvertSpec(*shape[1:])
        return self._call(
            self._add("unpack", unpack, lambda: emit_unpack(unpack, self.isa)),
            [packed],
            shape,
            dtype,
        )

    def _pack(self, value: relax.Expr) -> relax.Var:
        shape = shape_of(value)
        spec = ConvertSpec(*shape[1:])
        function = self._add("pack", spec, lambda: emit_pack(spec, self.isa))
        return self._call(function, [value], activation_shape(self.isa, *shape[1:]), "float32")

    def _add(self, name: str, spec: Any, emit: Callable[[], Any]) -> tvm.ir.GlobalVar:  # noqa: ANN401
        function = emit().with_attrs({KERNEL: name, SPEC: repr(spec), "op_pattern": _OPAQUE})
        return self.builder_.add_func(function, name)

    def _call(
        self,
        function: tvm.ir.GlobalVar,
        arguments: list[relax.Expr],
        shape: Sequence[int],
        dtype: str,
    ) -> relax.Var:
        out_ty = relax.TensorType(tuple(shape), dtype)
        return self.builder_.emit(relax.call_tir(function, arguments, out_ty=out_ty))


def called_kernel(module: tvm.IRModule, value: relax.Expr | None) -> str | None:
    """The name of our kernel that an expression calls, else None."""
    if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
        return None
    if value.op.name != "relax.call_tir":
        return None
    attrs = module[value.args[0]].attrs
    return str(attrs[KERNEL]) if attrs and KERNEL in attrs else None
