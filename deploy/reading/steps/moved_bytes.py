"""What only moves numbers of 8 bits, as in files of operators of integers, moves floats between
pairs of QuantizeLinear and DequantizeLinear.

Before: QuantizeLinear -> MaxPool, of bytes. After: QuantizeLinear -> DequantizeLinear -> MaxPool,
of floats -> QuantizeLinear, all of one scale and zero point, so that the bytes are the same.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.reading.graph import Graph, Node
from deploy.reading.writer import Writer

_MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "Max", "MaxPool", "Min", "Pad", "Reshape", "Slice", "SpaceToDepth", "Split",
     "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_MANY = {"Concat", "Max", "Min"}  # all of whose inputs are maps
_CHOSEN = {"ArgMax", "ArgMin"}  # of floats and of their bytes alike
# Of a quantum: what a linear resize of bytes, which leaves fractions away, may be short of a whole
# number by float32's roundings. Weights of a resize by 16 or less make no fraction so near to one.
_SLACK = 2.0**-11


def pairs_around_moved_bytes(graph: Graph) -> None:
    """Apply the step, in place. Bytes whose scale is not known stay."""
    grids: dict[str, _Grid] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "QuantizeLinear":
            scale, zero = (graph.constants[name] for name in node.inputs[1:3])
            grids[node.outputs[0]] = _Grid(scale, zero)
        maps = node.inputs if node.op in _MANY else node.inputs[:1]
        found = [grids.get(name) for name in maps]
        grid = found[0] if found else None
        if grid is None or not _moves(node) or not all(grid.equals(other) for other in found):
            nodes.append(node)
            continue
        nodes.extend(_of_floats(graph, node, len(maps), grid))
        if node.op not in _CHOSEN:
            grids |= dict.fromkeys((name for name in node.outputs if name), grid)
    graph.nodes = nodes


class _Grid(NamedTuple):
    """Scale and zero point of a map, as the file's constants."""

    scale: NDArray[Any]
    zero: NDArray[Any]

    def equals(self, other: "_Grid | None") -> bool:
        if other is None or self.zero.dtype != other.zero.dtype:
            return False
        return bool(self.scale == other.scale) and bool(self.zero == other.zero)


def _moves(node: Node) -> bool:
    if node.op == "Resize":
        return node.get("mode", "nearest") in ("nearest", "linear")
    one = node.op in ("MaxPool", *_CHOSEN)  # which may give indices, too
    return node.op in (*_MOVES, *_CHOSEN) and not (one and any(node.outputs[1:]))


def _of_floats(graph: Graph, node: Node, maps: int, grid: _Grid) -> list[Node]:
    writer = Writer(graph, node)
    scale, zero = (writer.constant(value) for value in grid)
    inputs = list(node.inputs)
    read: dict[str, str] = {}  # a Concat may read one map twice
    for index in range(maps):
        name = inputs[index]
        if name not in read:
            read[name] = writer("DequantizeLinear", name, scale, zero)
        inputs[index] = read[name]
    if node.op == "Pad":
        given = graph.constants.get(node.input(2), np.zeros((), grid.zero.dtype))
        padded = (given.astype(np.float32) - grid.zero.astype(np.float32)) * grid.scale
        inputs = [*inputs[:2], writer.constant(padded.astype(np.float32)), *inputs[3:]]
    if node.op in _CHOSEN:
        writer.keep(Node(node.op, inputs, node.outputs, node.attributes, node.name))
        return writer.nodes
    made = [graph.fresh(name) if name else "" for name in node.outputs]
    writer.keep(Node(node.op, inputs, list(made), node.attributes, node.name))
    if node.op == "Resize" and node.get("mode", "nearest") != "nearest":
        made = [_fractions_left_away(writer, made[0], grid)]
    for name, output in zip(made, node.outputs, strict=True):
        if output:
            stored = Node("QuantizeLinear", [name, scale, zero], [output], {}, node.name)
            writer.keep(stored)
    return writer.nodes


def _fractions_left_away(writer: Writer, x: str, grid: _Grid) -> str:
    """What is rounded to what `x` is without its fraction, in bytes: onnxruntime interpolates bytes
    in floats, which C casts toward zero."""
    scale, zero = (value.astype(np.float64) for value in grid)
    less = (0.5 - _SLACK) * scale
    if grid.zero.dtype == np.uint8:
        return writer("Sub", x, writer.constant(float(less)))
    raw = writer("Add", x, writer.constant(float(zero * scale)))
    sign = writer("Sign", raw)
    return writer("Sub", x, writer("Mul", sign, writer.constant(float(less))))
