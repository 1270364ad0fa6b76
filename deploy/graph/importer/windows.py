"""Windows that slide over maps: their sizes as ONNX's attributes give them."""

from dataclasses import dataclass

from deploy.graph.importer.node import Node


@dataclass(frozen=True)
class Window:
    """One value for each axis of a map; `begin` and `end` are the padding on both sides."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    output: tuple[int, ...]  # the output map's size

    @property
    def spans(self) -> tuple[int, ...]:
        """From a window's first element to behind its last one."""
        return tuple(
            dilation * (size - 1) + 1
            for size, dilation in zip(self.kernel, self.dilations, strict=True)
        )

    def along(self, axis: int, sides: tuple[int, ...]) -> "Window":
        """The same over one axis alone, of a map of these sides."""

        def only(values: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
            return (*others[:axis], values[axis], *others[axis + 1 :])

        ones, zeros = (1,) * len(sides), (0,) * len(sides)
        return Window(
            only(self.kernel, ones), only(self.strides, ones), only(self.dilations, ones),
            only(self.begin, zeros), only(self.end, zeros), only(self.output, sides),
        )  # fmt: skip


def read_window(node: Node, kernel: tuple[int, ...], ceil_mode: bool = False) -> Window:
    """The window of a convolution or pool over the first input (N, C, map's axes)."""
    sides = node.shape()[2:]
    rank = len(kernel)
    if len(sides) != rank or not rank:
        node.refuse(
            f"a window of {rank} axes over an input of shape {node.shape()}; "
            "the file is not valid ONNX"
        )
    strides = read_sides(node, "strides", rank)
    dilations = read_sides(node, "dilations", rank)
    auto_pad = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    pads = node.attribute("pads", None) or [0] * (2 * rank)
    if len(pads) != 2 * rank or min(pads) < 0:
        node.refuse(f"pads={pads} is not supported: two sizes for each axis, none negative")
    axes = [
        _axis(auto_pad, ceil_mode, *sizes)
        for sizes in zip(sides, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    ]
    begin, end, output = zip(*axes, strict=True)
    if min(output) < 1:
        node.refuse(f"its window is larger than the padded map {sides}; use a larger resolution")
    return Window(kernel, strides, dilations, begin, end, output)


def read_sides(node: Node, name: str, rank: int) -> tuple[int, ...]:
    """An attribute of one positive number for each axis of the map, by default 1."""
    values = tuple(node.attribute(name, None) or [1] * rank)
    if len(values) != rank or min(values) < 1:
        node.refuse(f"{name}={list(values)} is not supported: one positive number for each axis")
    return values


def _axis(
    auto_pad: str, ceil_mode: bool, size: int, kernel: int, stride: int, dilation: int, begin: int,
    end: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Padding before and behind, and the output's size."""
    span = dilation * (kernel - 1) + 1
    if auto_pad == "VALID":
        begin = end = 0
    elif auto_pad != "NOTSET":
        output = -(-size // stride)
        total = max((output - 1) * stride + span - size, 0)
        small, large = total // 2, total - total // 2
        begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        return begin, end, output
    room = size + begin + end - span
    output = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (output - 1) * stride >= size + begin:
        output -= 1  # a window that would start in the padding behind the map
    return begin, end, output
