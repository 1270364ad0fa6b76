"""Operators whose output element depends on the inputs' elements at its place alone."""

import math
from collections.abc import Callable
from functools import reduce

from onnx import helper
from tvm import relax, tirx

from deploy.graph.importer.node import TYPES, Constant, Expr, Node, Scalar, Value, constant

Operator = Callable[[Node], Value]


def unary(operator: Callable[[Expr], Expr]) -> Operator:
    """An operator of Relax on the one input."""
    return lambda node: operator(node.tensor(0))


def unary_loop(element: Callable[[Scalar], Scalar]) -> Operator:
    """A formula of tirx on the one input."""
    return lambda node: node.elementwise(element, node.tensor(0))


def binary(operator: Callable[[Expr, Expr], Expr]) -> Operator:
    """An operator of Relax on two inputs."""
    return lambda node: operator(node.tensor(0), node.tensor(1))


def variadic(operator: Callable[[Expr, Expr], Expr]) -> Operator:
    """An operator of Relax between one input and the next."""
    return lambda node: reduce(operator, node.tensors())


def number(value: float, like: Scalar) -> Scalar:
    """A constant of the type of an element."""
    return tirx.const(value, like.ty.dtype)


def divide(node: Node) -> Expr:
    """Integers are divided towards zero."""
    if node.is_float():
        return relax.op.divide(node.tensor(0), node.tensor(1))
    return node.elementwise(
        lambda a, b: tirx.truncdiv(a, _not_zero(b)), node.tensor(0), node.tensor(1)
    )


def modulo(node: Node) -> Expr:
    """The result has the divisor's sign, with fmod=1 the dividend's."""
    fmod = node.attribute("fmod", 0)
    a, b = node.tensor(0), node.tensor(1)
    if node.is_float():
        if not fmod:
            node.refuse("fmod=0 is for integers; the file is not valid ONNX")
        # LLVM has no fmod of its own.
        name = "fmodf" if node.dtype() == "float32" else "fmod"
        return node.elementwise(lambda x, y: tirx.call_pure_extern(node.dtype(), name, x, y), a, b)
    if fmod or node.dtype().startswith("uint"):
        return node.elementwise(lambda a, b: tirx.truncmod(a, _not_zero(b)), a, b)
    return node.elementwise(lambda a, b: tirx.floormod(a, _not_zero(b)), a, b)


def _not_zero(divisor: Scalar) -> Scalar:
    """An integer that can be divided by: by 0 a CPU would end the process."""
    return tirx.Select(divisor == 0, number(1, divisor), divisor)


def power(node: Node) -> Expr:
    """The result has the base's type."""
    base = node.tensor(0)
    if node.is_float() and node.is_constant(1):
        exponent = node.parameter(1, "exponent")
        if exponent.size == 1 and exponent.ndim <= len(node.shape()):
            if exponent.item() == 1:
                return base
            if exponent.item() == 2:
                return relax.op.multiply(base, base)
            if exponent.item() == 3:
                return relax.op.multiply(relax.op.multiply(base, base), base)
            if exponent.item() == 0.5:
                return relax.op.sqrt(base)
    if node.is_float() and node.dtype(0) == node.dtype(1):
        return relax.op.power(base, node.tensor(1))
    return node.elementwise(
        lambda a, b: tirx.pow(a.astype("float64"), b.astype("float64")).astype(node.dtype()),
        base, node.tensor(1),
    )  # fmt: skip


def bit_shift(node: Node) -> Expr:
    """Of unsigned integers."""
    shift = {"LEFT": relax.op.left_shift, "RIGHT": relax.op.right_shift}
    direction = node.choice("direction", "", *shift)
    if not direction or not node.dtype().startswith("uint"):
        node.refuse(f"direction {direction!r} of {node.dtype()}; the file is not valid ONNX")
    return shift[direction](node.tensor(0), node.tensor(1))


def maximum(node: Node) -> Expr:
    """NaN where one of the inputs is NaN."""
    return _extremum(node, relax.op.maximum, tirx.max)


def minimum(node: Node) -> Expr:
    """NaN where one of the inputs is NaN."""
    return _extremum(node, relax.op.minimum, tirx.min)


def _extremum(
    node: Node, operator: Callable[[Expr, Expr], Expr], element: Callable[..., Scalar]
) -> Expr:
    if not node.is_float():
        return reduce(operator, node.tensors())

    def either(a: Scalar, b: Scalar) -> Scalar:
        extreme = tirx.Select(a > b if operator is relax.op.maximum else a < b, a, b)
        return tirx.Select(tirx.isnan(a), a, extreme)  # of two that are not ordered it takes b

    return reduce(lambda a, b: node.elementwise(either, a, b), node.tensors())


def mean(node: Node) -> Expr:
    """Of all inputs, which are broadcast."""
    total = reduce(relax.op.add, node.tensors())
    return total if node.count == 1 else relax.op.divide(total, constant(node.count, node.dtype()))


def where(node: Node) -> Expr:
    """The second input where the first is true, else the third."""
    return relax.op.where(node.tensor(0), node.tensor(1), node.tensor(2))


def clip(node: Node) -> Expr:
    """min(max(x, low), high); a bound that is missing or NaN is none."""
    x, dtype = node.tensor(0), node.dtype()
    low, high = _bound(node, 1, "lower bound"), _bound(node, 2, "upper bound")
    if node.is_float():
        least = -math.inf if low is None else float(low)
        most = math.inf if high is None else float(high)
        if least > most:
            return relax.op.full(node.shape(), constant(most, dtype), dtype)
        return relax.op.clip(x, least, most)
    if low is not None:
        x = relax.op.maximum(x, constant(low, dtype))
    return x if high is None else relax.op.minimum(x, constant(high, dtype))


def _bound(node: Node, index: int, what: str) -> Constant | None:
    value = node.optional(index, what)
    if value is None or value.size != 1:
        if value is not None:
            node.refuse(f"its {what} must be one number; the file is not valid ONNX")
        return None
    number = value.reshape(())
    return None if number != number else number


def cast(node: Node) -> Value:
    """Floating-point numbers are cut off towards zero, and wrap where the type is too small."""
    node.ignore("saturate", "round_mode")  # of types that are not supported
    target = helper.tensor_dtype_to_np_dtype(node.attribute("to")).name
    return cast_to(node, target)


def cast_like(node: Node) -> Value:
    """To the type of the second input."""
    node.ignore("saturate", "round_mode")
    return cast_to(node, node.dtype(1))


def cast_to(node: Node, target: str) -> Value:
    """The first input in another type."""
    if target not in TYPES or node.dtype() not in TYPES:
        node.refuse(
            f"a cast from {node.dtype()} to {target} is not supported; "
            "convert the network to float32"
        )
    x = node.tensor(0)
    if target == node.dtype():
        return x
    if target == "bool":
        return relax.op.not_equal(x, constant(0, node.dtype()))
    if node.is_float() and target.startswith(("int", "uint")):
        # What is out of range has no meaning in LLVM: in a wide type first.
        wide = "int64" if target in ("int64", "uint32", "uint64") else "int32"
        if wide != target:
            x = relax.op.astype(x, wide)
    return relax.op.astype(x, target)


def reciprocal(node: Node) -> Expr:
    """1 / x."""
    return relax.op.divide(constant(1, node.dtype()), node.tensor(0))


def is_infinite(node: Node) -> Expr:
    """Positive or negative infinity, or one of them."""
    negative, positive = (node.attribute(f"detect_{sign}", 1) for sign in ("negative", "positive"))

    def element(x: Scalar) -> Scalar:
        above = x == tirx.infinity(x.ty.dtype) if positive else tirx.const(False, "bool")
        below = x == -tirx.infinity(x.ty.dtype) if negative else tirx.const(False, "bool")
        return tirx.any(above, below)

    return node.elementwise(element, node.tensor(0))


def sign(x: Scalar) -> Scalar:
    """-1, 0 or 1; NaN of NaN."""
    below = tirx.Select(x < 0, number(-1, x), x) if x.ty.dtype[0] != "u" else x
    return tirx.Select(x > 0, number(1, x), below)
