"""Products of matrices."""

import operator
import re
from functools import reduce

from tvm import relax, te

from deploy.graph.importer.node import Expr, Node, Scalar, constant, reduction, sizes, spread


def matmul(node: Node) -> Expr:
    """As numpy does."""
    a, b = node.shape(0), node.shape(1)
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else 0]:
        node.refuse(f"matrices of shapes {a} and {b}; the file is not valid ONNX")
    return relax.op.matmul(node.tensor(0), node.tensor(1))


def gemm(node: Node) -> Expr:
    """alpha * A B + beta * C, A and B transposed where transA and transB say so."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    dtype = node.dtype()
    a, b = (_matrix(node, i, node.attribute(f"trans{name}", 0)) for i, name in enumerate("AB"))
    result = relax.op.matmul(a, b)
    if alpha != 1:
        result = relax.op.multiply(result, constant(alpha, dtype))
    if not node.has(2) or beta == 0:
        return result
    if node.is_constant(2):
        c = constant(node.parameter(2, "C") * node.parameter(2, "C").dtype.type(beta))
    elif beta != 1:
        c = relax.op.multiply(node.tensor(2), constant(beta, dtype))
    else:
        c = node.tensor(2)
    return relax.op.add(result, c)


def _matrix(node: Node, index: int, transposed: int) -> Expr:
    if len(node.shape(index)) != 2:
        node.refuse(f"input {index} of shape {node.shape(index)} is no matrix; not valid ONNX")
    if not transposed:
        return node.tensor(index)
    if node.is_constant(index):
        return constant(node.parameter(index, "matrix").T)
    return relax.op.permute_dims(node.tensor(index), [1, 0])


def einsum(node: Node) -> Expr:
    """Products of elements, summed over the letters that the result does not have."""
    equation = node.attribute("equation").replace(" ", "")
    terms, result = _letters(node, equation)
    extents: dict[str, int] = {}
    axes = [
        (letter, size)
        for position, term in enumerate(terms)
        for letter, size in zip(term, node.shape(position), strict=True)
    ]
    for letter, size in axes:
        extents[letter] = max(extents.get(letter, 1), size)
    if any(size not in (1, extents[letter]) for letter, size in axes):
        node.refuse(f"the equation {equation!r} does not fit the shapes of its inputs")
    if len(set(result)) != len(result) or not set(result) <= set(extents):
        node.refuse(f"the equation {equation!r} is not valid")

    def nest(*tensors: te.Tensor) -> te.Tensor:
        sums = {
            letter: reduction(size, f"k{number}")
            for number, (letter, size) in enumerate(extents.items())
            if letter not in result
        }

        def element(*place: Scalar) -> Scalar:
            at = {**sums, **dict(zip(result, place, strict=True))}
            factors = (
                spread(tensor, [at[letter] for letter in term])
                for term, tensor in zip(terms, tensors, strict=True)
            )
            value = reduce(operator.mul, factors)
            return te.sum(value, axis=list(sums.values())) if sums else value

        return te.compute(sizes([extents[letter] for letter in result]), element, name="einsum")

    return node.loops(nest, *node.tensors())


def _letters(node: Node, equation: str) -> tuple[list[str], str]:
    """One letter for each axis of each input, and of the result; digits stand for '...'."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    valid = all(re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", term) for term in (*terms, right))
    if not valid or len(terms) != node.count:
        node.refuse(f"the equation {equation!r} is not valid")
    hidden = [len(node.shape(i)) - len(term.replace("...", "")) for i, term in enumerate(terms)]
    if any(count < 0 or (count and "..." not in t) for count, t in zip(hidden, terms, strict=True)):
        node.refuse(f"the equation {equation!r} does not fit the shapes of its inputs")
    most = max(hidden)
    named = "0123456789"[:most] if most <= 10 else node.refuse("too many axes in '...'")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    full = [
        term.replace("...", named[most - count :])
        for term, count in zip(terms, hidden, strict=True)
    ]
    return full, right.replace("...", named)
