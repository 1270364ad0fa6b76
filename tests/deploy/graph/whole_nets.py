"""Any operation, and the graph of its smallest parts."""

import onnx
from hypothesis import strategies as st

from lut import ops
from lut.ops import Operation
from tests.deploy.graph.nets import Net

ACTS = ("relu", "relu6", "hswish", "sigmoid")


@st.composite
def operations(draw, kind: type[Operation]) -> Operation:
    """Of a kind, small, and such as are found: an inverted residual has an activation."""

    def number(first: int, last: int) -> int:
        return draw(st.integers(first, last))

    def act(*others: str) -> str:
        return draw(st.sampled_from([*others, *ACTS]))

    size = number(2, 16), number(2, 16)
    window = draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 2])), number(1, 3)
    channels, other = number(2, 12), number(2, 12)
    if kind is ops.Stem:
        return ops.Stem(channels, *size, "float32_nchw", act("none"))
    if kind is ops.Depthwise:
        return ops.Depthwise(channels, *size, *window, act("none"))
    if kind is ops.Pointwise:
        add = draw(st.sampled_from(["none", "map", "channel", "low"]))
        low = (number(1, 9), number(1, 9)) if add == "low" else (0, 0)
        return ops.Pointwise(channels, other, *size, act("none"), add, draw(st.booleans()), *low)
    if kind is ops.GlobalMean:
        return ops.GlobalMean(channels, *size)
    if kind is ops.Conv:  # of more than three channels, which are no image
        kernel, stride, dilation = window
        then = draw(st.sampled_from([(), *zip(ACTS)]))
        return ops.Conv(
            (channels + 2,), other, *size, (kernel, kernel), (stride, stride), (dilation, dilation),
            (dilation * (kernel // 2),) * 4, then=then,
        )  # fmt: skip
    if kind is ops.Pool:
        k, stride = number(2, min(3, *size)), number(1, 3)
        pad = number(0, 1) if stride == 1 else 0  # padding that no window reaches is left out
        return ops.Pool(channels, *size, (k, k), (stride, stride), pad=(pad,) * 4)
    if kind is ops.ArgMax:
        return ops.ArgMax(channels, *size, *size)
    if kind is ops.Labels:  # of fewer pixels it is an `ArgMax`
        return ops.Labels(channels, *size, *(side * number(4, 6) for side in size))
    if kind in (ops.Resize, ops.Logits):
        return kind(channels, *size, number(1, 20), number(1, 20))
    if kind is ops.GlobalPool:
        return ops.GlobalPool(channels, other, *size, act("none"))
    if kind is ops.LocalGlobal:
        return ops.LocalGlobal(
            channels, number(2, 12), other, *size, number(1, 9), number(1, 9),
            draw(st.booleans()), act(), act("none"),
        )  # fmt: skip
    if kind in (ops.Context, ops.Classifier):
        return kind(channels, other, *size)
    if kind is ops.InvertedResidual:
        return _block(draw, channels, size, residual=draw(st.booleans()))
    first = ops.StemBlock(channels, other, *size, *window, "float32_nchw", act("none"), act())
    if kind is ops.StemBlock:
        return first
    assert kind is ops.StemPair
    return ops.StemPair(first, _block(draw, other, first.output[1:], expand=True))


def _block(draw, channels, size, *, expand=None, residual=False):
    expand = draw(st.booleans()) if expand is None else expand
    return ops.InvertedResidual(
        channels, draw(st.integers(2, 30)) if expand else channels,
        channels if residual else draw(st.integers(2, 12)), *size,
        draw(st.sampled_from([3, 5])), 1 if residual else draw(st.sampled_from([1, 2])),
        draw(st.integers(1, 3)), expand, residual, draw(st.sampled_from(ACTS)),
    )  # fmt: skip


def network_of(first: Operation, *others: Operation) -> onnx.ModelProto:
    """The graph of the smallest parts of operations, each behind the one before."""
    net = Net(*_input(first))
    y = "x"
    for op in (first, *others):
        y = _add(net, op, y)
    if isinstance(op, ops.Resize):
        y = net._node("Abs", [y], op.channels)  # as the graph's result it would be logits
    return net.model(y)


def _input(op: Operation) -> tuple[int, int, int]:
    if isinstance(op, ops.StemPair):
        op = op.first
    channels = 3 if isinstance(op, ops.Stem | ops.StemBlock) else None
    for name in ("cin", "channels", "classes"):
        channels = channels or getattr(op, name, None)
    if isinstance(op, ops.Conv):
        (channels,) = op.cin
    return channels, op.height, op.width


def _add(net: Net, op: Operation, x: str, residual: str = "") -> str:
    """The nodes of an operation; `residual` is what its last sum adds."""
    if isinstance(op, ops.Stem):
        return net.conv(x, op.cout, 3, stride=2, act=op.act)
    if isinstance(op, ops.Depthwise):
        return net.depthwise(x, op.kernel, stride=op.stride, dilation=op.dilation, act=op.act)
    if isinstance(op, ops.Conv):
        (stride, _), (dilation, _) = op.stride, op.dilation
        y = net.conv(x, op.cout, op.kernel[0], stride=stride, dilation=dilation)
        return net.act(y, *op.then or ("none",))
    if isinstance(op, ops.Pool):
        window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": op.pad}
        return net.node("MaxPool", [x], **window)
    if isinstance(op, ops.ArgMax):
        return net.argmax(x)
    if isinstance(op, ops.Pointwise):
        return _pointwise(net, op, x, residual)
    if isinstance(op, ops.GlobalMean):
        return net.average(x)
    if isinstance(op, ops.Resize | ops.Labels):
        planes = net.resize(x, op.out_height, op.out_width)
        return net.argmax(planes) if isinstance(op, ops.Labels) else planes
    if isinstance(op, ops.Context):
        overall, local = op.parts()
        return _add(net, local, x, _add(net, overall, x))
    y = x
    for part in op.parts():
        y = _add(net, part, y, x)
    return y


def _pointwise(net: Net, op: ops.Pointwise, x: str, residual: str) -> str:
    y = net.conv(x, op.cout)
    if op.gate:
        y = net.multiply(y, net.more(op.cout, 1, 1))
    if op.add == "low":
        low = net.more(op.cout, op.low_height, op.low_width)
        y = net.add(y, net.resize(low, op.height, op.width))
    elif op.add != "none":
        size = (op.height, op.width) if op.add == "map" else (1, 1)
        y = net.add(y, residual or net.more(op.cout, *size))
    return net.act(y, op.act)
