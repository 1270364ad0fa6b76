"""Adaptive average pools, which exporters write as dozens of Gathers, as two constant matrices.

Before: nodes that only move, mask and sum the numbers of one map, to a smaller one.
After: rows (h, H) x map (1, C, H, W) x columns (W, w), where that is what those nodes compute. That
is found by running them: the matrices are what rows and columns of ones come to, and the product is
compared on random maps.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deploy.reading.evaluate import run_all
from deploy.reading.graph import Graph, Node, model_of
from deploy.reading.writer import Writer

_MOVES = ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Concat", "Expand",
          "Gather", "GatherND", "GatherElements", "Split", "Pad")  # fmt: skip
_SUMS = ("ReduceMean", "ReduceSum", "Add", "Sum", "Mean", "AveragePool", "GlobalAveragePool")
_SCALES = ("Mul", "Div", "Where")
_GATHERS = ("Gather", "GatherND", "GatherElements", "Slice", "Split")
_FEWEST_NODES = 3
_TOLERANCE = 1e-5
_LARGEST_MAP = 128 << 20  # bytes; running the nodes takes a few times as much


def adaptive_pools_as_matrices(graph: Graph) -> None:
    """Replace every such group of nodes, in place; others stay as they are."""
    origins = _origins(graph)
    readers, makers = graph.readers(), graph.makers()
    for name in list(origins):
        leaves = name in graph.outputs or any(
            origins.get(made) != origins[name] for r in readers.get(name, ()) for made in r.outputs
        )
        if not leaves or graph.rank(name) != 4:
            continue
        region = _region(makers, name, origins[name])
        if _may_be_a_pool(graph, region, origins[name], name):
            _replace(graph, region, origins[name], name)


def _origins(graph: Graph) -> dict[str, str]:
    """For each tensor that is a linear function of one other, as far up as that goes, the other."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        maps = [name for name in node.inputs if name and name not in graph.constants]
        if maps and node.op in (*_MOVES, *_SUMS, *_SCALES) and _is_linear(graph, node, maps):
            first, *others = (found.get(name, name) for name in maps)
            if all(other == first for other in others):
                found.update(dict.fromkeys(node.outputs, first))
    return found


def _is_linear(graph: Graph, node: Node, maps: list[str]) -> bool:
    constants = [name for name in node.inputs if name in graph.constants]
    if node.op in ("Mul", "Div"):
        return len(maps) == 1 and node.inputs[0] == maps[0]
    if node.op in ("Add", "Sum", "Mean", "Concat"):
        return not constants
    if node.op == "Where":
        others = constants[1:]
        return node.inputs[0] in constants and not any(graph.constants[n].any() for n in others)
    if node.op == "Pad":
        return node.get("mode", "constant") == "constant" and not node.input(2)
    return len(maps) == 1 and node.inputs[0] == maps[0]


def _region(makers: dict[str, Node], name: str, origin: str) -> list[Node]:
    """The nodes between an origin and what comes from it, in an order that runs."""
    found: dict[int, Node] = {}
    todo = [name]
    while todo:
        tensor = todo.pop()
        node = makers.get(tensor)
        if tensor == origin or node is None or id(node) in found:
            continue
        found[id(node)] = node
        todo += [n for n in node.inputs if n]
    return list(found.values())


def _may_be_a_pool(graph: Graph, region: list[Node], origin: str, name: str) -> bool:
    ops = {node.op for node in region}
    before, after = graph.shape(origin), graph.shape(name)
    return (
        len(region) >= _FEWEST_NODES
        and graph.types[origin].bytes <= _LARGEST_MAP
        and not ops.isdisjoint(_GATHERS)
        and not ops.isdisjoint(_SUMS)
        and len(before) == 4
        and before[:2] == after[:2]
        and before[2] >= after[2]
        and before[3] >= after[3]
        and before[2:] != after[2:]
    )


def _replace(graph: Graph, region: list[Node], origin: str, name: str) -> None:
    matrices = _matrices(graph, region, origin, name)
    if matrices is None:
        return
    rows, columns = matrices
    last = next(node for node in region if name in node.outputs)
    writer = Writer(graph, Node(last.op, [], [name], {}, last.name))
    narrow = writer("MatMul", origin, writer.constant(columns.T.astype(np.float32).copy()))
    writer.end("MatMul", writer.constant(rows.astype(np.float32)), narrow)
    last.outputs = [graph.fresh(name) if made == name else made for made in last.outputs]
    for made in last.outputs:
        graph.types.setdefault(made, graph.types[name])
    at = graph.nodes.index(last)
    graph.nodes[at:at] = writer.nodes


def _matrices(
    graph: Graph, region: list[Node], origin: str, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """rows (h, H) and columns (w, W), None where the nodes are no product with two matrices."""
    wanted = {id(node) for node in region}
    nodes = [node for node in graph.nodes if id(node) in wanted]
    model = model_of(graph, nodes, [origin], [name])
    shape = graph.shape(origin)
    _, channels, height, width = shape
    random = np.random.default_rng(0).standard_normal(shape, np.float32)

    def maps() -> Iterator[dict[str, NDArray[np.float32]]]:
        """Each channel has ones in a row of its own, then in a column, then random numbers."""
        for axis in (2, 3):
            for first in range(0, shape[axis], channels):
                ones = np.zeros(shape, np.float32)
                for channel, place in enumerate(range(first, min(first + channels, shape[axis]))):
                    ones[0, channel].swapaxes(0, axis - 2)[place] = 1
                yield {origin: ones}
        yield {origin: random}

    *made, found = (outputs[0][0].astype(np.float64) for outputs in run_all(model, maps()))
    row_runs = -(-height // channels)
    rows = np.concatenate(made[:row_runs])[:height, :, 0].T
    columns = np.concatenate(made[row_runs:])[:width, 0, :].T
    whole = rows[0].sum()  # what a map of ones comes to
    if not whole:
        return None
    columns = columns / whole
    difference = np.abs(found - rows @ random[0] @ columns.T).max()
    return (rows, columns) if difference <= _TOLERANCE * np.abs(random).max() else None
