"""A genotype as operations: the entries of the latency table that a network is the sum of.

No torch.
The largest operations that there are: a backend that lacks one runs its parts. Every kernel call of
a compiled network belongs to one of them (tests/deploy/tables/test_networks.py compiles networks
and compares, in both directions), so that a network's latency is the sum of its entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from hmseg.genotype import (
    EXPANSIONS,
    GROUPS,
    KERNELS,
    RATIO_TENTHS,
    Genotype,
    Group,
    Op,
)
from hmseg.widths import HEAD_WIDTH, STEM_WIDTH, TAIL_WIDTH, scale_channels
from lut.errors import UserError
from lut.ops import (
    Classifier,
    Context,
    Depthwise,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Operation,
    Pointwise,
    Resize,
    Stem,
    StemBlock,
    StemPair,
)
from lut.table import Table

RESIZE_RULE = "bilinear, half-pixel centres, to max(1, side * tenths // 10)"
OPERATORS = tuple(Op(e, k) for e in EXPANSIONS for k in KERNELS)
_S1, _S2, *_ = GROUPS

Size = tuple[int, int]


@dataclass(frozen=True)
class Space:
    """The search space at one input size (height, width), width and number of classes."""

    resolution: Size
    width: float
    num_classes: int = 19

    def sizes(self, medium_tenths: int, low_tenths: int) -> tuple[Size, Size, Size, Size, Size]:
        """Input sizes of s1, s2's later layers, s3's later layers (= C3), s4 and s5."""
        half = _halved(self.resolution)
        quarter = _halved(half)
        high = _halved(quarter)
        medium = _resized(high, medium_tenths)
        return half, quarter, high, medium, _resized(medium, low_tenths)

    def operator(self, group: Group, layer: int, op: Op, size: Size) -> InvertedResidual:
        """The operation of an operator in a layer whose input has this size."""
        cin = scale_channels(group.cin if layer == 0 else group.cout, self.width)
        cout = scale_channels(group.cout, self.width)
        stride = group.stride if layer == 0 else 1
        return InvertedResidual(
            cin, cin * op.expansion, cout, *size, op.kernel, stride, group.dilation,
            expand=op.expansion > 1, residual=stride == 1 and cin == cout,
        )  # fmt: skip

    def first(self, op: Op) -> list[Operation]:
        """The stem and s1 alone: one operation where s1 has no expansion, else two."""
        stem = scale_channels(STEM_WIDTH, self.width)
        if op.expansion == 1:
            cout = scale_channels(_S1.cout, self.width)
            return [StemBlock(stem, cout, *self.resolution, op.kernel)]
        half = _halved(self.resolution)
        return [Stem(stem, *self.resolution), self.operator(_S1, 0, op, half)]

    def pair(self, first: Op, second: Op) -> StemPair | None:
        """The stem, s1 and s2's first layer as one operation, where there is one: s1 without an
        expansion, s2's with one. It takes the place of both their own."""
        if first.expansion > 1 or second.expansion == 1:
            return None
        (block,) = self.first(first)
        assert isinstance(block, StemBlock)
        return StemPair(block, self.operator(_S2, 0, second, _halved(self.resolution)))

    def first_two(self, first: Op, second: Op) -> list[Operation]:
        """The stem, s1, and s2's first layer."""
        pair = self.pair(first, second)
        half = _halved(self.resolution)
        return [pair] if pair else [*self.first(first), self.operator(_S2, 0, second, half)]

    def layer(self, group: Group, layer: int, op: Op, medium: int, low: int) -> list[Operation]:
        """The entries that choosing `op` in a layer brings, at these ratios in tenths, where no
        `pair` takes their place."""
        half, quarter, high, middle, lowest = self.sizes(medium, low)
        if group.name == "s1":
            return self.first(op)
        inputs = {"s2": (half, quarter), "s3": (quarter, high)}
        inputs |= {name: (middle, middle) for name in ("s4a", "s4b")}
        inputs |= {name: (lowest, lowest) for name in ("s5a", "s5b")}
        return [self.operator(group, layer, op, inputs[group.name][min(layer, 1)])]

    def fixed(self, medium_tenths: int, low_tenths: int) -> list[Operation]:
        """What every network with these ratios has besides its operators: resizes and head."""
        _, _, high, medium, low = self.sizes(medium_tenths, low_tenths)
        c3, c4, c5 = (scale_channels(channels, self.width) for channels in (32, 96, 320))
        return [
            Resize(c3, *high, *medium),
            Resize(c4, *medium, *low),
            Context(c5, HEAD_WIDTH, *low),
            Pointwise(c4, HEAD_WIDTH, *medium, add="low", low_height=low[0], low_width=low[1]),
            Depthwise(c3, *high),
            GlobalPool(c3, HEAD_WIDTH, *high, "sigmoid"),
            LocalGlobal(c3, HEAD_WIDTH, TAIL_WIDTH, *high, *medium),
            Classifier(TAIL_WIDTH, self.num_classes, *high),
            Labels(self.num_classes, *high, *self.resolution),
        ]

    def keys(self, genotype: Genotype) -> list[Operation]:
        """All entries of a network, one for each call; an entry may come up several times."""
        ratios = genotype.medium_tenths, genotype.low_tenths
        first, second = genotype.ops[0][0], genotype.ops[1][0]
        assert first is not None  # a Genotype holds that the first layer of a group is there
        assert second is not None
        layers = [
            key
            for group, ops in zip(GROUPS, genotype.ops, strict=True)
            for index, op in enumerate(ops)
            if op is not None and (group, index) not in ((_S1, 0), (_S2, 0))
            for key in self.layer(group, index, op, *ratios)
        ]
        return [*self.first_two(first, second), *layers, *self.fixed(*ratios)]

    def choices(self) -> Iterator[tuple[Group, int, Op, int, int]]:
        """Every (group, layer, operator, medium and low ratio in tenths)."""
        for group in GROUPS:
            for layer, op, medium, low in product(
                range(group.layers), OPERATORS, RATIO_TENTHS, RATIO_TENTHS
            ):
                yield group, layer, op, medium, low

    def operator_keys(self) -> set[Operation]:
        """The distinct operator entries: 342 at 768x1536, 315 at 256x512."""
        return {self.layer(*choice)[-1] for choice in self.choices()}

    def pair_keys(self) -> set[Operation]:
        """The 18 entries of two layers in one kernel."""
        pairs = (self.pair(first, second) for first, second in product(OPERATORS, OPERATORS))
        return {key for key in pairs if key}

    def all_keys(self) -> set[Operation]:
        """Every entry of the space."""
        return self.operator_keys() | self.pair_keys() | self.fixed_keys()

    def fixed_keys(self) -> set[Operation]:
        """The distinct fixed entries, the stem among them: 36 at 768x1536, 35 at 256x512."""
        ratios = product(RATIO_TENTHS, RATIO_TENTHS)
        return {self.first(Op(3, 3))[0]} | {key for pair in ratios for key in self.fixed(*pair)}

    def require_table(self, table: Table) -> None:
        """Raise UserError unless a table is for networks of this space."""
        height, width = self.resolution
        table.require(f"{height}x{width}", self.width, self.num_classes, RESIZE_RULE)

    def check(self, keys: set[Operation], name: str) -> None:
        """Raise UserError where a table called `name` holds what is not in this space."""
        odd = sorted(map(str, keys - self.all_keys()))
        if odd:
            height, width = self.resolution
            raise UserError(
                f"{name}: '{odd[0]}' is no entry of the space at {height}x{width}, width "
                f"{self.width:g}; it was measured for another resolution or width"
            )


def _halved(size: Size) -> Size:
    return -(-size[0] // 2), -(-size[1] // 2)


def _resized(size: Size, tenths: int) -> Size:
    """`hmseg.blocks.downsample`'s rule."""
    return max(1, size[0] * tenths // 10), max(1, size[1] * tenths // 10)
