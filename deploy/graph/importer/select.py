"""The largest elements and where they are."""

from collections.abc import Callable

from tvm import relax, te, tirx

from deploy.graph.importer.node import Expr, Node, Result, Scalar, constant, reduction, sizes


def arg_by(operator: Callable[..., Expr]) -> Callable[[Node], Expr]:
    """The index of the largest or smallest element of an axis: the first of equal ones."""

    def convert(node: Node) -> Expr:
        axis, keepdims = node.axis("axis", 0), bool(node.attribute("keepdims", 1))
        x = node.tensor(0)
        if not node.attribute("select_last_index", 0):
            return operator(x, axis=axis, keepdims=keepdims)
        turned = relax.op.flip(x, axis)
        last = constant(node.shape()[axis] - 1, "int64")
        return relax.op.subtract(last, operator(turned, axis=axis, keepdims=keepdims))

    return convert


def top_k(node: Node) -> Result:
    """The k largest (or smallest) elements of an axis in order, and their indices; of equal ones
    the first comes first. Each element's rank is how many come before it."""
    axis, largest = node.axis("axis", -1), node.attribute("largest", 1)
    node.ignore("sorted")  # sorted is one of the orders that are allowed without it
    (k,) = node.integers(1, "k")
    x, shape = node.tensor(0), node.shape()
    if not 0 < k <= shape[axis]:
        node.refuse(f"k={k} of {shape[axis]} elements; the file is not valid ONNX")

    def at(place: tuple[Scalar, ...], there: Scalar) -> tuple[Scalar, ...]:
        return (*place[:axis], there, *place[axis + 1 :])

    def ranks(tensor: te.Tensor) -> te.Tensor:
        j = reduction(shape[axis], "j")

        def element(*place: Scalar) -> Scalar:
            own, other = tensor(*place), tensor(*at(place, j))
            ahead = other > own if largest else other < own
            before = tirx.any(ahead, tirx.all(other == own, j < place[axis]))
            return te.sum(before.astype("int64"), axis=[j])

        return te.compute(sizes(shape), element, name="ranks")

    rank = node.loops(ranks, x, name="ranks")
    chosen = at(shape, k)

    def places(tensor: te.Tensor) -> te.Tensor:
        j = reduction(shape[axis], "j")

        def element(*place: Scalar) -> Scalar:
            here = tensor(*at(place, j)) == place[axis]
            return te.sum(tirx.Select(here, j, tirx.const(0, "int64")), axis=[j])

        return te.compute(sizes(chosen), element, name="places")

    indices = node.loops(places, rank, name="places")
    values = node.compute(
        chosen,
        lambda tensors, *place: tensors[0](*at(place, tensors[1](*place))),
        x, indices, name="top_k",
    )  # fmt: skip
    return [values, indices]
