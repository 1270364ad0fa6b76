"""Pad: more elements around a tensor."""

from collections.abc import Sequence

import numpy as np
from tvm import relax, tirx

from deploy.graph.importer.indexing import take
from deploy.graph.importer.node import Expr, Node, Scalar, constant


def pad(node: Node) -> Expr:
    """More elements on both sides of the axes, or fewer where a pad is negative."""
    mode = node.choice("mode", "constant", "reflect", "edge", "wrap")
    old, named = node.shape(), node.integers(1, "pads")
    axes = [
        node.checked_axis(axis)
        for axis in (node.integers(3, "axes") if node.has(3) else range(len(old)))
    ]
    if len(named) != 2 * len(axes):
        node.refuse(f"pads {named} for {len(axes)} axes; the file is not valid ONNX")
    begin, end = [0] * len(old), [0] * len(old)
    for number, axis in enumerate(axes):
        begin[axis], end[axis] = named[number], named[number + len(axes)]
    shape = [size + a + b for size, a, b in zip(old, begin, end, strict=True)]
    x = node.tensor(0)
    if mode != "constant":
        return _padded_from_itself(node, x, mode, begin, end)
    filling = node.optional(2, "value")
    if filling is not None and filling.size != 1:
        node.refuse("its value must be one number; the file is not valid ONNX")
    ends = [axis for axis in range(len(old)) if end[axis]]
    number = 0 if filling is None or node.dtype() == "bool" else filling.item()
    if number and not any(begin) and len(ends) == 1 and end[ends[0]] > 0:  # a column of ones, say
        beside = [end[axis] if axis == ends[0] else size for axis, size in enumerate(old)]
        more = constant(np.full(beside, number, node.dtype()))
        return relax.op.concat([x, more], ends[0])
    value = tirx.const(0 if filling is None else filling.item(), node.dtype())
    if node.dtype() == "bool":
        value = tirx.const(bool(filling is not None and filling.item()), "bool")

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        there = [at - before for at, before in zip(place, begin, strict=True)]
        inside = [
            condition
            for at, size, a, b in zip(there, old, begin, end, strict=True)
            for condition in ([at >= 0] if a > 0 else []) + ([at < size] if b > 0 else [])
        ]
        if not inside:
            return tensors[0](*there)
        return tirx.if_then_else(tirx.all(*inside), tensors[0](*there), value)

    return node.compute(shape, element, x)


def _padded_from_itself(
    node: Node, x: Expr, mode: str, begin: Sequence[int], end: Sequence[int]
) -> Expr:
    for axis, (size, before, behind) in enumerate(zip(node.shape(), begin, end, strict=True)):
        if not before and not behind:
            continue
        at = np.arange(-before, size + behind)
        if mode == "edge":
            at = at.clip(0, size - 1)
        elif mode == "wrap":
            at = at % size
        else:
            period = max(2 * (size - 1), 1)
            at = (size - 1) - np.abs(at % period - (size - 1))
        x = take(node, x, axis, at)
    return x
