"""What a rule is, and the few things that many of them ask."""

from collections.abc import Callable
from typing import Any, TypeAlias

from numpy.typing import NDArray

from deploy.reading.graph import Node
from deploy.reading.writer import Writer

# Writes what a node of the file's opset (the number) does.
Rule: TypeAlias = Callable[[Writer, Node, int], None]


def parameter(writer: Writer, node: Node, index: int, what: str) -> NDArray[Any] | None:
    """The value of an input that must be a constant; None where it is left out.

    Raises UserError where it depends on the image.
    """
    name = node.input(index)
    if not name:
        return None
    if name not in writer.graph.constants:
        raise node.error(f"its {what} depends on the image; export the network with it fixed")
    return writer.graph.constants[name]


def needed(writer: Writer, node: Node, index: int, what: str) -> NDArray[Any]:
    """The value of an input that must be there and a constant; raises UserError otherwise."""
    value = parameter(writer, node, index, what)
    if value is None:
        raise node.error(f"its {what} is missing")
    return value


def integers(value: NDArray[Any]) -> list[int]:
    """A constant of any shape as integers."""
    return [int(v) for v in value.reshape(-1)]


def one_output(node: Node) -> None:
    """Raises UserError where more than the first output of a node is read."""
    if any(node.outputs[1:]):
        raise node.error("its further outputs are read; only the first is known here: export the "
                         "network for inference")  # fmt: skip
    del node.outputs[1:]
