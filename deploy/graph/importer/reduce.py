"""Reductions over axes."""

from collections.abc import Callable

from tvm import relax

from deploy.graph.importer.node import Expr, Node, dtype_of

Reduction = Callable[..., Expr]


def reduce_by(reduction: Reduction) -> Callable[[Node], Expr]:
    """An operator of Relax over the axes that a node names."""

    def operator(node: Node) -> Expr:
        x, axes, keepdims = _read(node)
        if not axes:
            return x
        if dtype_of(x) == "bool":  # an order that TVM has for numbers only
            numbers = reduction(relax.op.astype(x, "uint8"), axis=axes, keepdims=keepdims)
            return relax.op.astype(numbers, "bool")
        return reduction(x, axis=axes, keepdims=keepdims)

    return operator


def reduce_after(
    before: Callable[[Expr], Expr], after: Callable[[Expr], Expr] = lambda total: total
) -> Callable[[Node], Expr]:
    """``after(sum(before(x)))`` over the axes that a node names."""

    def operator(node: Node) -> Expr:
        x, axes, keepdims = _read(node)
        if not axes:
            node.refuse("no axes, with noop_with_empty_axes, is not supported; leave the node out")
        return after(relax.op.sum(before(x), axis=axes, keepdims=keepdims))

    return operator


def square(x: Expr) -> Expr:
    """x * x."""
    return relax.op.multiply(x, x)


def log_sum_exp(node: Node) -> Expr:
    """log(sum(exp(x))), which does not overflow: the largest is taken out before."""
    x, axes, keepdims = _read(node)
    if not axes:
        node.refuse("no axes, with noop_with_empty_axes, is not supported; leave the node out")
    largest = node.bind(relax.op.max(x, axis=axes, keepdims=True))
    dtype = node.dtype()
    finite = node.bind(
        relax.op.clip(largest, *((-3e38, 3e38) if dtype == "float32" else (-1e308, 1e308)))
    )
    total = relax.op.sum(relax.op.exp(relax.op.subtract(x, finite)), axis=axes, keepdims=keepdims)
    if not keepdims:
        finite = relax.op.squeeze(finite, axes)
    return relax.op.add(relax.op.log(total), finite)


def _read(node: Node) -> tuple[Expr, list[int], bool]:
    """The input, the axes counted from the front, and whether they are kept."""
    keepdims = bool(node.attribute("keepdims", 1))
    named = node.attribute("axes", None)  # before opset 18
    if node.has(1):
        named = node.integers(1, "axes")
    nothing = node.attribute("noop_with_empty_axes", 0)
    if named:
        axes = sorted({node.checked_axis(axis) for axis in named})
    else:
        axes = [] if nothing else list(range(len(node.shape())))
    if not node.shape():
        node.refuse("a reduction of a single number is not supported; leave the node out")
    return node.tensor(0), axes, keepdims
