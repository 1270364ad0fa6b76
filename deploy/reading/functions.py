"""Functions that a file brings along: put in the place of their calls."""

import onnx
from onnx import inliner

from deploy.reading.text import plain
from lut.errors import UserError

_MOST_NODES = 200_000
_MOST_FUNCTIONS = 10_000


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model without functions of its own; `check_functions` was asked before."""
    return inliner.inline_local_functions(model) if model.functions else model


def check_functions(model: onnx.ModelProto) -> None:
    """Raise UserError where a file's functions call themselves, or make too large a graph."""
    bodies = {(f.domain, f.name): list(f.node) for f in model.functions}
    if len(bodies) > _MOST_FUNCTIONS:
        raise UserError(f"it has {len(bodies)} functions; at most {_MOST_FUNCTIONS} are read")
    sizes: dict[tuple[str, str], int] = {}
    open_calls: set[tuple[str, str]] = set()

    def size_of(nodes: list[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            total += _size_of_call((node.domain, node.op_type))
            for attribute in node.attribute:
                for graph in (
                    *([attribute.g] if attribute.HasField("g") else []),
                    *attribute.graphs,
                ):
                    total += size_of(list(graph.node))
            total = min(total, _MOST_NODES + 1)
        return total

    def _size_of_call(key: tuple[str, str]) -> int:
        if key not in bodies:
            return 1
        if key in open_calls or len(open_calls) > 100:
            raise UserError(f"its function '{plain(key[1])}' calls itself, or 100 others in turn")
        if key not in sizes:
            open_calls.add(key)
            sizes[key] = size_of(bodies[key])
            open_calls.discard(key)
        return sizes[key]

    if size_of(list(model.graph.node)) > _MOST_NODES:
        raise UserError(f"with its functions written out it has over {_MOST_NODES} nodes")
