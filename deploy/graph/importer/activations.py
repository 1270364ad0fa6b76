"""Activations, element by element."""

from collections.abc import Callable

from tvm import relax, tirx

from deploy.graph.importer.elementwise import number
from deploy.graph.importer.node import Expr, Node, Scalar, constant


def hard_sigmoid(node: Node) -> Expr:
    """max(0, min(1, alpha * x + beta))."""
    dtype = node.dtype()
    alpha = constant(node.attribute("alpha", 0.2), dtype)
    beta = constant(node.attribute("beta", 0.5), dtype)
    return relax.op.clip(relax.op.add(relax.op.multiply(alpha, node.tensor(0)), beta), 0, 1)


def hard_swish(node: Node) -> Expr:
    """x * max(0, min(1, x / 6 + 0.5))."""
    x, dtype = node.tensor(0), node.dtype()
    relu6 = relax.op.clip(relax.op.add(x, constant(3, dtype)), 0, 6)
    return relax.op.multiply(x, relax.op.divide(relu6, constant(6, dtype)))


def leaky_relu(node: Node) -> Expr:
    """x, times alpha below zero."""
    return relax.op.nn.leakyrelu(node.tensor(0), node.attribute("alpha", 0.01))


def prelu(node: Node) -> Expr:
    """x, times the second input below zero."""
    return node.elementwise(
        lambda x, slope: tirx.Select(x < 0, x * slope, x), node.tensor(0), node.tensor(1)
    )


def elu(node: Node) -> Expr:
    """x, below zero alpha * (exp(x) - 1)."""
    return _elu(node, node.tensor(0), node.attribute("alpha", 1.0))


def celu(node: Node) -> Expr:
    """x, below zero alpha * (exp(x / alpha) - 1)."""
    alpha = node.attribute("alpha", 1.0)
    if alpha > 0:  # alpha times the ELU of x / alpha
        factor = constant(alpha, node.dtype())
        inside = relax.op.divide(node.tensor(0), factor)
        return relax.op.multiply(_elu(node, inside, 1.0), factor)
    return _below_zero(node, lambda x: number(alpha, x) * (tirx.exp(x / number(alpha, x)) - 1))


def selu(node: Node) -> Expr:
    """Gamma * x, below zero gamma * alpha * (exp(x) - 1)."""
    alpha = node.attribute("alpha", 1.6732632423543772)
    gamma = node.attribute("gamma", 1.0507009873554805)
    return relax.op.multiply(_elu(node, node.tensor(0), alpha), constant(gamma, node.dtype()))


def _elu(node: Node, x: Expr, alpha: float) -> Expr:
    """In loops of this name, whose second input is alpha: `deploy.graph.view.elu_of` finds them."""
    return node.elementwise(
        lambda x, alpha: tirx.Select(x > 0, x, alpha * (tirx.exp(x) - 1)),
        x, constant(alpha, node.dtype()), name="elu",
    )  # fmt: skip


def _below_zero(node: Node, element: Callable[[Scalar], Scalar]) -> Expr:
    return node.elementwise(lambda x: tirx.Select(x > 0, x, element(x)), node.tensor(0))


def thresholded_relu(node: Node) -> Expr:
    """x above alpha, else 0."""
    alpha = node.attribute("alpha", 1.0)
    return node.elementwise(
        lambda x: tirx.Select(x > number(alpha, x), x, number(0, x)), node.tensor(0)
    )


def shrink(node: Node) -> Expr:
    """x nearer to zero by bias, and 0 between -lambd and lambd."""
    bias, edge = node.attribute("bias", 0.0), node.attribute("lambd", 0.5)

    def element(x: Scalar) -> Scalar:
        shift = number(bias, x)
        inside = tirx.Select(x > number(edge, x), x - shift, number(0, x))
        return tirx.Select(x < number(-edge, x), x + shift, inside)

    return node.elementwise(element, node.tensor(0))


def gelu(node: Node) -> Expr:
    """x times the normal distribution's integral up to x, or its approximation by tanh."""
    tanh = node.choice("approximate", "none", "tanh") == "tanh"
    return (relax.op.nn.gelu_tanh if tanh else relax.op.nn.gelu)(node.tensor(0))


def mish(node: Node) -> Expr:
    """x * tanh(log(1 + exp(x))); without the logarithm, which loses digits below zero."""

    def element(x: Scalar) -> Scalar:
        e = tirx.exp(tirx.min(x, number(20, x)))
        return x * (e * (e + 2) / (e * (e + 2) + 2))

    return node.elementwise(element, node.tensor(0))


def softsign(node: Node) -> Expr:
    """x / (1 + |x|)."""
    x = node.tensor(0)
    return relax.op.divide(x, relax.op.add(constant(1, node.dtype()), relax.op.abs(x)))
