"""Exponentials and what is made of them as arithmetic (`deploy.cpu.functions`), for loop nests that
TVM lowers: LLVM would call the C library's for each element."""

from collections.abc import Callable

from tvm import relax, te, tirx

from deploy import ir
from deploy.cpu import functions
from deploy.cpu.functions import Let
from deploy.graph.importer.node import Scalar, shape_of, sizes

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]
Function = Callable[[Scalar, int, Let], Scalar]


def elementwise(function: Function, x: te.Tensor) -> te.Tensor:
    """A function of each element."""
    shape = [int(side) for side in x.shape]
    return te.compute(sizes(shape), lambda *place: function(x(*place), 1, _let), name="function")


def _let(value: ir.Expr, body: Callable[[ir.Expr], ir.Expr]) -> ir.Expr:
    var = tirx.Var("t", "float32")
    return tirx.Let(var, value, body(var))


def _legalize(function: Function, name: str) -> Legalize:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        if str(call.args[0].ty.dtype) != "float32" or not shape_of(call.args[0]):
            return call.op.get_attr("FLegalize")(builder, call)
        return builder.call_te(
            lambda x: elementwise(function, x), call.args[0], primfunc_name_hint=name
        )

    return legalize


FUNCTIONS: dict[str, Legalize] = {
    f"relax.{name}": _legalize(function, name.removeprefix("nn."))
    for name, function in (
        ("exp", functions.exp), ("sigmoid", functions.sigmoid), ("erf", functions.erf),
        ("tanh", functions.tanh), ("nn.silu", functions.swish), ("nn.gelu", functions.gelu),
        ("nn.gelu_tanh", functions.gelu_tanh),
    )
}  # fmt: skip
