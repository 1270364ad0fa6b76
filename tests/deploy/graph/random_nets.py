"""Random graphs of the operators that our operations are made of, wired in many ways."""

import random

import onnx

from tests.deploy.graph.nets import Net

CHANNELS = 8
SIZE = (12, 16)
ACTS = (*["none"] * 5, *["relu6"] * 4, "relu", "sigmoid", "hswish")


def random_net(seed: int, outputs: int | None = None) -> onnx.ModelProto:
    """Convolutions, sums, gates, activations, means and resizes of earlier values, mostly of the
    last one; the results are all values that nothing reads, or so many of the last."""
    builder = _Builder(seed)
    for _ in range(builder.random.randint(4, 14)):
        builder.step()
    if builder.random.random() < 0.3:
        builder.label(builder.last())
    ends = [value for value in builder.sizes if value not in builder.read and value != "x"]
    return builder.net.model(*(ends[-outputs:] if outputs else ends))


class _Builder:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.net = Net(self.random.choice([3, CHANNELS]), *SIZE)
        self.sizes = {"x": SIZE}
        self.read: set[str] = set()
        if self.net.channels["x"] == 3:
            self.stem("x")

    def step(self) -> None:
        """One more operator, or a few that belong together, of a value that is mostly the last."""
        steps = [self.convolve] * 3 + [self.filter, self.block] * 2 + [self.pool, self.stem]
        steps += [self.activate, self.resize, self.add, self.add, self.gate, self.fuse, self.fuse]
        self.random.choice(steps)(self.pick())

    def block(self, x: str) -> None:
        """Convolutions as of an inverted residual, and perhaps its sum."""
        act = self.act()
        wide = self.keep(self.net.conv(x, 16, act=act), self.sizes[x], x)
        deep = self.keep(self.net.depthwise(wide, act=act), self.sizes[x], wide)
        y = self.keep(self.net.conv(deep, self.net.channels[x]), self.sizes[x], deep)
        if self.random.random() < 0.5:
            self.keep(self.net.add(y, x), self.sizes[x], y)

    def fuse(self, x: str) -> None:
        """A convolution and what may follow it."""
        self.convolve(x)
        if self.random.random() < 0.6:
            self.gate(self.last())
        if self.random.random() < 0.8:
            self.add(self.last())
        if self.random.random() < 0.5:
            self.convolve(self.last())

    def other(self, x: str, values: list[str]) -> str:
        """Seldom the value itself."""
        others = [value for value in values if value != x]
        return self.random.choice(others if others and self.random.random() < 0.9 else values)

    def last(self) -> str:
        return list(self.sizes)[-1]

    def pick(self) -> str:
        values = list(self.sizes)
        return values[-1] if self.random.random() < 0.85 else self.random.choice(values)

    def keep(self, value: str, size: tuple[int, int], *read: str) -> str:
        self.sizes[value] = size
        self.read.update(read)
        return value

    def act(self) -> str:
        return self.random.choice(ACTS)

    def convolve(self, x: str) -> None:
        self.keep(self.net.conv(x, CHANNELS, act=self.act()), self.sizes[x], x)

    def filter(self, x: str) -> None:
        stride = self.random.choice([1, 1, 1, 2])
        height, width = self.sizes[x]
        size = -(-height // stride), -(-width // stride)
        self.keep(self.net.depthwise(x, stride=stride, act=self.act()), size, x)

    def stem(self, _x: str) -> None:
        height, width = self.sizes["x"]
        size = -(-height // 2), -(-width // 2)
        y = self.keep(self.net.conv("x", CHANNELS, 3, stride=2, act=self.act()), size, "x")
        if self.random.random() < 0.5:
            self.filter(y)
            self.convolve(self.last())

    def activate(self, x: str) -> None:
        self.keep(self.net.act(x, self.random.choice(ACTS[5:])), self.sizes[x], x)

    def pool(self, x: str) -> None:
        self.keep(self.net.average(x), (1, 1), x)

    def resize(self, x: str) -> None:
        size = self.random.choice([SIZE, (6, 8)])
        self.keep(self.net.resize(x, *size), size, x)

    def add(self, x: str) -> None:
        """A map, one value per channel, or a map that is brought to the size."""
        others = [v for v in self.sizes if self.net.channels[v] == self.net.channels[x]]
        other = self.other(x, others)
        self.read.add(other)
        if self.random.random() < 0.2:
            other = self.net.conv(self.net.average(other), self.net.channels[x])
        elif self.random.random() < 0.3 or self.sizes[other] not in (self.sizes[x], (1, 1)):
            other = self.keep(self.net.resize(other, *self.sizes[x]), self.sizes[x])
        pair = self.random.sample([x, other], 2)
        total = self.keep(self.net.add(*pair), self.sizes[x], x, other)
        if self.random.random() < 0.5:
            self.activate(total)

    def label(self, x: str) -> None:
        planes = self.keep(self.net.resize(x, *SIZE), SIZE, x)
        self.keep(self.net.argmax(planes), SIZE, *[planes] * self.random.randint(0, 1))

    def gate(self, x: str) -> None:
        mean = self.net.average(self.other(x, [*self.sizes]))
        factor = self.net.conv(mean, self.net.channels[x], act="sigmoid")
        pair = self.random.sample([x, factor], 2)
        self.keep(self.net.multiply(*pair), self.sizes[x], x)
