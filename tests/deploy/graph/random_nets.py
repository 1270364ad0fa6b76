"""Random graphs of the operators that our operations are made of, wired in any way."""

from hypothesis import strategies as st

from tests.deploy.graph.nets import Net

CHANNELS = 8


@st.composite
def nets(draw, outputs: int | None = None):
    """A graph of convolutions, sums, gates, activations, means and resizes of any earlier values,
    mostly of the last ones; its results are those that nothing reads, or so many of the last."""
    net = Net(3 if draw(st.booleans()) else CHANNELS, 12, 16)
    sizes = {"x": (12, 16)}
    read: set[str] = set()

    def pick(*, like: str | None = None) -> str:
        names = [n for n in sizes if like is None or same(n, like)]
        back = draw(st.integers(1, min(len(names), 3)))
        return names[-back]

    def same(a: str, b: str) -> bool:
        return sizes[a] == sizes[b] and net.channels[a] == net.channels[b]

    def keep(value: str, size: tuple[int, int], *inputs: str) -> str:
        sizes[value] = size
        read.update(inputs)
        return value

    act = st.sampled_from(["none", "none", "relu6", "relu6", "relu", "sigmoid"])
    for _ in range(draw(st.integers(4, 14))):
        x = pick()
        height, width = size = sizes[x]
        step = draw(st.sampled_from(STEPS))
        if step == "pointwise":
            keep(net.conv(x, CHANNELS, act=draw(act)), size, x)
        elif step in ("depthwise", "stem"):
            stride = draw(st.sampled_from([1, 2])) if step == "depthwise" else 2
            half = -(-height // stride), -(-width // stride)
            if step == "depthwise":
                keep(net.depthwise(x, stride=stride, act=draw(act)), half, x)
            else:
                keep(net.conv(x, CHANNELS, 3, stride=2, act=draw(act)), half, x)
        elif step == "act":
            keep(net.act(x, draw(st.sampled_from(["relu", "relu6"]))), size, x)
        elif step == "add":
            other = pick(like=x)
            keep(net.add(x, other), size, x, other)
        elif step == "gate":
            other = pick()
            factor = net.conv(net.average(other), net.channels[x], act="sigmoid")
            keep(net.multiply(x, factor), size, x, other)
        elif step == "mean":
            keep(net.conv(net.average(x), CHANNELS), (1, 1), x)
        elif step == "spread" and (1, 1) in sizes.values():
            one = next(n for n in sizes if sizes[n] == (1, 1))
            if net.channels[one] == net.channels[x]:
                keep(net.add(x, one), size, x, one)
        elif step == "resize":
            larger = draw(st.sampled_from([(12, 16), (6, 8), (24, 32)]))
            keep(net.resize(x, *larger), larger, x)
    ends = [name for name in sizes if name not in read and name != "x"]
    return net.model(*(ends[-outputs:] if outputs else ends))


STEPS = ("pointwise",) * 3 + ("depthwise", "stem", "act", "add", "add", "gate", "mean", "spread",
                              "resize")  # fmt: skip
