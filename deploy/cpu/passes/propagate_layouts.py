"""PropagateLayouts: elementwise operators and concatenations work on blocked maps."""

from typing import Any

import tvm
from tvm import relax

from deploy.cpu.kernels import CpuKernels
from deploy.cpu.layout import pack_activation
from deploy.graph.place import KernelEmitter, called_conversion
from deploy.graph.view import Graph, shape_of

# Each output element depends on the operands' elements at its place alone, and no attribute names
# an axis.
ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "abs", "add", "ceil", "clip", "cos", "divide", "erf", "exp", "floor", "log", "maximum",
        "minimum", "multiply", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu",
        "nn.relu6", "nn.silu", "nn.softplus", "power", "rsqrt", "sigmoid", "sin", "sqrt", "square",
        "subtract", "tanh",
    )
)  # fmt: skip


@tvm.transform.module_pass(opt_level=0, name="PropagateLayouts")
class PropagateLayouts:
    """Let operators of TVM's own work on what our kernels wrote, as they wrote it.

    Before: ``op(unpack(x), unpack(y))``. After: ``unpack(op(x, y))``. When: the operator is
    elementwise and every map it reads is blocked, while what it reads besides is one value per
    channel or a single value; or it concatenates channels of blocked maps, each but the last a
    whole number of blocks. The channels of padding then hold whatever the operator makes of them:
    no kernel reads them into a real channel, and ``unpack`` drops them. Runs after the passes that
    place kernels and before CancelLayouts, which removes the conversions that have met.
    """

    def __init__(self, kernels: CpuKernels) -> None:
        self.kernels = kernels

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        mutator = _Propagate(module, self.kernels)
        function = mutator.visit_expr(module["main"])
        if not mutator.changed:
            return module
        mutator.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(mutator.builder_.get())


@relax.expr_functor.mutator
class _Propagate(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: tvm.IRModule, kernels: CpuKernels) -> None:
        super().__init__(module)
        self.module, self.isa = module, kernels.isa
        self.graph = Graph(module["main"])
        self.emitter = KernelEmitter(self.builder_, kernels)
        # Of each planar value of the old function that unpack made: the blocked one of the new.
        self.blocked: dict[relax.Var, relax.Var] = {}
        self.changed = False

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        call = self._blocked_call(binding)
        if call is None:
            super().visit_var_binding_(binding)
            unpack = called_conversion(self.module, binding.value, "unpack")
            if unpack is not None and unpack.dtype == "float32":
                self.blocked[binding.var] = self.visit_expr(binding.value.args[1].fields[0])
            elif unpack is not None:  # CancelLayouts makes one conversion of the two
                planar = self.visit_expr(binding.var)
                self.blocked[binding.var] = self.emitter.pack(planar, shape_of(binding.var))
            return
        self.changed = True
        result = self.builder_.emit(call)
        self.blocked[binding.var] = result
        planar = self.emitter.unpack(result, shape_of(binding.var))
        self.set_var_remap(binding.var, planar)

    def _blocked_call(self, binding: relax.VarBinding) -> Any:  # noqa: ANN401 - a Call or None
        call = self.graph.call(binding.var, "relax.concat", *ELEMENTWISE)
        if call is None or len(getattr(binding.var.ty, "shape", ()) or ()) != 4:
            return None
        if str(binding.var.ty.dtype) != "float32":
            return None
        if call.op.name == "relax.concat":
            return self._concatenation(call)
        return self._elementwise(call, shape_of(binding.var))

    def _concatenation(self, call: relax.Call) -> relax.Call | None:
        parts = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
        *whole, _last = parts or [None]
        if not parts or int(call.attrs.axis) not in (1, -3):
            return None
        if any(shape_of(part)[1] % self.isa.lanes for part in whole):
            return None
        if not all(part in self.blocked for part in parts):
            return None
        return relax.op.concat([self.blocked[part] for part in parts], axis=1)

    def _elementwise(self, call: relax.Call, shape: tuple[int, ...]) -> relax.Call | None:
        """The call on blocked operands, or None where one of them cannot be had."""
        if not any(arg in self.blocked and shape_of(arg) == shape for arg in call.args):
            return None
        operands = [self._operand(arg, shape) for arg in call.args]
        if any(operand is None for operand in operands):
            return None
        return relax.Call(call.op, operands, call.attrs)

    def _operand(self, arg: relax.Expr, shape: tuple[int, ...]) -> relax.Expr | None:
        if not isinstance(arg.ty, relax.TensorType):
            return arg  # a bound of clip
        channels = shape[1]
        value = self.graph.constant(arg)
        if value is not None and value.size == 1:
            return relax.const(value.reshape(()))
        per_channel = (1, channels, 1, 1)
        if value is not None and value.shape == per_channel:
            return relax.const(pack_activation(self.isa, value))
        if arg in self.blocked and shape_of(arg) in (shape, per_channel):
            return self.blocked[arg]
        if isinstance(arg, relax.Var) and shape_of(arg) == per_channel:
            return self.emitter.pack(self.visit_expr(arg), per_channel)
        return None
