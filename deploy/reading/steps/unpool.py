"""Max pools with indices and what is unpooled by them, as masks.

Before: MaxPool with its indices, arithmetic on these, MaxUnpool or a scatter into zeros.
After: of the k x k numbers of a window the first that is the largest has the mask, which places the
unpooled number; the others are zero. Exact at ties too: the first wins, as it does in the pool.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.reading.graph import Graph, Node
from deploy.reading.writer import Writer


@dataclass(frozen=True)
class _Indices:
    """Places of a pool's largest numbers in their planes (H, W), plus an offset of each channel."""

    pool: Node
    offsets: NDArray[np.int64]  # (C,)


def unpool_by_masks(graph: Graph) -> None:
    """Replace every unpooling, in place.

    Raises UserError for a pool whose windows overlap, and where its indices serve anything else.
    """
    _slice_identity_pools(graph)
    pools = [node for node in graph.nodes if node.op == "MaxPool" and len(node.outputs) > 1]
    if not pools:
        return
    known = {pool.outputs[1]: _of_pool(graph, pool) for pool in pools}
    for node in list(graph.nodes):
        found = next((known[name] for name in node.inputs if name in known), None)
        if found is None:
            continue
        moved = _moved(graph, node, found)
        if moved is not None:
            known[node.outputs[0]] = moved
        else:
            _unpool(graph, node, found)
    for name, found in known.items():
        if name in graph.outputs:
            raise found.pool.error("its indices leave the graph; export the network without them")
    for pool in pools:
        del pool.outputs[1:]


def _of_pool(graph: Graph, pool: Node) -> _Indices:
    _, channels, height, width = _planes(graph, pool)
    return _Indices(pool, np.arange(channels, dtype=np.int64) * height * width)


def _planes(graph: Graph, pool: Node) -> tuple[int, ...]:
    shape = graph.shape(pool.inputs[0])
    if len(shape) != 4 or pool.get("storage_order", 0):
        raise pool.error(
            "its indices are not of the rows of a map; export the network without them"
        )
    return shape


def _slice_identity_pools(graph: Graph) -> None:
    """A pool of one number has known indices; torch's exporter slices the planes' first from it."""
    makers = graph.makers()
    for node in [n for n in graph.nodes if n.op == "Slice"]:
        pool = makers.get(node.inputs[0])
        if pool is None or pool.op != "MaxPool" or pool.outputs[0] == node.inputs[0]:
            continue
        if any(k != 1 for k in (*pool.get("kernel_shape"), *pool.get("strides", []))):
            continue
        shape = _planes(graph, pool)
        steps = (shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1)
        starts, ends, axes, strides = (graph.constants[name] for name in node.inputs[1:5])
        places = [np.arange(side) for side in shape]
        for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
            places[axis] = places[axis][start:end:stride]
        value = sum(p * s for p, s in zip(np.ix_(*places), steps, strict=True))
        graph.set_constant(node.outputs[0], np.asarray(value, np.int64))
        graph.nodes.remove(node)
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    for node in graph.nodes:
        if node.op == "MaxPool" and len(node.outputs) > 1 and node.outputs[1] not in read:
            del node.outputs[1:]


def _moved(graph: Graph, node: Node, found: _Indices) -> _Indices | None:
    """The indices that a node makes of others; None where it is no such node."""
    if node.op in ("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Cast", "Identity"):
        return found
    other = graph.constants.get(node.input(1)) if node.op in ("Add", "Sub") else None
    if other is None and node.op == "Add":
        other = graph.constants.get(node.input(0))
    if other is None or graph.rank(node.outputs[0]) != 4:
        return None
    channels = len(found.offsets)
    if other.ndim > 0 and other.size != 1 and other.shape[-3:] != (channels, 1, 1):
        return None
    term = np.broadcast_to(other.reshape(-1).astype(np.int64), (channels,))
    return _Indices(found.pool, found.offsets + (term if node.op == "Add" else -term))


def _unpool(graph: Graph, node: Node, found: _Indices) -> None:
    pool = found.pool
    shape = _planes(graph, pool)
    _, channels, height, width = shape
    kernel = pool.get("kernel_shape")
    pooled = graph.shape(pool.outputs[0])[2:]
    if (
        len(set(kernel)) != 1
        or list(kernel) != list(pool.get("strides") or [1, 1])
        or any(pool.get("pads") or [])
        or any(d != 1 for d in pool.get("dilations") or [])
        or pooled != tuple(side // kernel[0] for side in shape[2:])
    ):
        raise pool.error(
            f"its indices are read by {node.title}; only those of square windows that neither "
            "overlap nor pad can be: export the network without them"
        )
    plane = height * width
    by_planes = np.array_equal(found.offsets, np.arange(channels) * plane)
    made = graph.shape(node.outputs[0])
    if node.op == "MaxUnpool":
        updates, fits = node.inputs[0], by_planes and made == shape
    elif node.op == "ScatterND":
        updates, fits = node.inputs[2], by_planes and made == (channels * plane,)
    elif node.op == "ScatterElements":
        updates = node.inputs[2]
        whole = by_planes and prod(made) == channels * plane == made[node.get("axis", 0)]
        each = not found.offsets.any() and made in ((1, channels, plane), (channels, plane))
        fits = whole or (each and node.get("axis", 0) in (-1, len(made) - 1))
    else:
        updates, fits = "", False
    zeros = node.op == "MaxUnpool" or _is_zero(graph, node.inputs[0])
    if not fits or not zeros or node.get("reduction", "none") != "none":
        raise node.error(
            f"it reads the indices of {pool.title} in a way that is not known here; unpool to the "
            "size that was pooled, or export the network without indices"
        )
    writer = Writer(graph, node)
    placed = _placed(writer, pool, updates, kernel[0], shape)
    writer.end("Reshape", placed, writer.constant(np.array(made, np.int64)))
    at = graph.nodes.index(node)
    graph.nodes[at : at + 1] = writer.nodes


def _placed(writer: Writer, pool: Node, updates: str, k: int, shape: tuple[int, ...]) -> str:
    """The map (1, C, H, W) with each update where the pool found its largest number."""
    _, channels, height, width = shape
    h, w = height // k, width // k
    source, largest = pool.inputs[0], pool.outputs[0]
    if (h * k, w * k) != (height, width):
        values: tuple[list[int], ...] = ([0, 0], [h * k, w * k], [2, 3], [1, 1])
        source = writer("Slice", source, *(writer.constant(v) for v in values))
    small = writer.constant([1, channels, h, w])
    updates = writer("Reshape", updates, small)
    phases = [writer.graph.fresh(source) for _ in range(k * k)]
    deep = writer("SpaceToDepth", source, blocksize=k)
    sizes = writer.constant([channels] * (k * k))
    writer.keep(Node("Split", [deep, sizes], phases, {"axis": 1}, writer.like.name))
    zero, seen, parts = writer.constant(0.0), "", []
    for phase in phases:
        equal = writer("Equal", phase, largest)
        mask = writer("And", equal, writer("Not", seen)) if seen else equal
        seen = writer("Or", seen, equal) if seen else equal
        parts.append(writer("Where", mask, updates, zero))
    placed = writer("DepthToSpace", writer("Concat", *parts, axis=1), blocksize=k, mode="DCR")
    if (h * k, w * k) == (height, width):
        return placed
    pads = writer.constant([0, 0, 0, 0, 0, 0, height - h * k, width - w * k])
    return writer("Pad", placed, pads)


def _is_zero(graph: Graph, name: str) -> bool:
    value: NDArray[Any] | None = graph.constants.get(name)
    return value is not None and not value.any()
