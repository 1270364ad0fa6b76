"""Operations: their text, their parts, and their counts beside those of torch modules."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from hmseg import blocks
from hmseg.blocks import ConvBN, global_average, resize
from hmseg.count import count_macs, count_parameters
from lut import ops
from lut.errors import UserError
from lut.ops import (
    Classifier,
    Context,
    Depthwise,
    GlobalMean,
    GlobalPool,
    InvertedResidual,
    LocalGlobal,
    Operation,
    Pointwise,
    Stem,
    StemBlock,
    StemPair,
    expand,
    parse_operation,
)
from tests.lut.operations import OPERATIONS, input_of
from tests.lut.tables import KEY, OTHER

every_kind = pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.kind)
# Of users' networks alone: not what a network of ours is made of, nor counted by the paper's rule.
USERS = (
    ops.AcrossChannels, ops.ArgMax, ops.Attention, ops.ChannelNorm, ops.ChannelSlice, ops.Concat,
    ops.Conv, ops.Elementwise, ops.Masks, ops.Pool, ops.Product, ops.Resample,
    ops.Unpool,
)  # fmt: skip
BLOCK = StemBlock(8, 4, 30, 41, source="float32_nchw")  # its output has 15 rows, 21 columns
PAIR = StemPair(BLOCK, InvertedResidual(4, 24, 6, 15, 21, stride=2))


def test_every_kind_is_drawn():
    kinds = Operation.__subclasses__()
    assert set(OPERATIONS) == set(kinds)
    assert len({kind.kind for kind in kinds}) == len(kinds)
    with pytest.raises(ValueError, match="'stem' is registered already"):
        ops._register("stem")(Stem)


# Text


def test_text_has_what_is_no_default():
    assert str(KEY) == (
        "inverted_residual cin=16 hidden=96 cout=16 height=64 width=128 residual=yes"
    )
    assert str(OTHER) == "resize channels=16 height=32 width=64 out_height=16 out_width=32"
    plain = InvertedResidual(8, 8, 12, 5, 6, 5, 2, expand=False, act="relu")
    assert str(plain).endswith(" height=5 width=6 kernel=5 stride=2 expand=no act=relu")
    assert str(PAIR) == (
        "stem_pair first=( stem_block hidden=8 cout=4 height=30 width=41 source=float32_nchw ) "
        "second=( inverted_residual cin=4 hidden=24 cout=6 height=15 width=21 stride=2 )"
    )


@every_kind
def test_text_reads_back(kind: type[Operation]):
    @given(OPERATIONS[kind])
    def reads_back(op: Operation) -> None:
        text = str(op)
        assert "\n" not in text
        assert parse_operation(text) == op
        assert hash(parse_operation(text)) == hash(op)
        assert text.split(" ")[0] == op.kind

    reads_back()


STEM, MAP = "stem cout=16 height=64 width=128", "height=64 width=128"
DEEP = "stem_pair first=( " * 100_000


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "stem", "(", ")", "=", "conv cin=3 height=4 width=4", "Stem cout=1", "operation",
        # Fields: missing, unknown, double, empty, not given by name.
        STEM.replace(" height=64", ""), f"{STEM} channels=3", f"{STEM} width=128", f"{STEM} act",
        f"{STEM} act=", f"{STEM} kind=stem", "stem 16 64 128", "stem cout:16 height:64 width:128",
        # Values of another kind.
        f"{STEM} act=swish", f"{STEM} source=none", f"{STEM} dtype=float16",
        f"pointwise cin=1 cout=1 {MAP} gate=1", f"pointwise cin=1 cout=1 {MAP} gate=true",
        *(f"stem cout={n} {MAP}" for n in
          ("-1", "+1", "0", "01", "1.0", "1e3", "0x10", "1_0", "\u0663", "\u00b9", "yes", "none",
           "1000000000", "9" * 5000, "( stem cout=1 height=1 width=1 )", "(")),
        # Not as it is printed.
        f"{STEM} ", f" {STEM}", STEM.replace(" ", "  "), f"{STEM}\n", STEM.replace(" ", "\t"),
        f"{STEM} act=relu6", f"pointwise cin=1 cout=1 {MAP} gate=no",
        "stem height=64 cout=16 width=128", STEM.upper(),
        # Blocks within.
        f"{STEM} )", f"( {STEM} )", str(PAIR)[:-2], f"{PAIR} )", str(PAIR).replace("( ", ""),
        str(PAIR).replace("stem_block", "stem_pair"), f"stem_pair first=( {BLOCK} )",
        f"stem_pair first=( {PAIR.second} ) second=( {PAIR.second} )",
        f"stem_pair first={STEM} second=2", DEEP, DEEP + ") " * 100_000,
        # Sizes that do not fit together.
        str(PAIR).replace("cin=4", "cin=5"), str(PAIR).replace("width=21", "width=20"),
        str(PAIR).replace("stride=2", "expand=no"), str(PAIR).replace("hidden=8", "hidden=0"),
        str(PAIR).replace("source=float32_nchw", "stride=0"),
        f"inverted_residual cin=16 hidden=96 cout=16 {MAP} expand=no",
        f"inverted_residual cin=16 hidden=96 cout=8 {MAP} residual=yes",
        f"inverted_residual cin=16 hidden=96 cout=16 {MAP} stride=2 residual=yes",
        f"pointwise cin=1 cout=1 {MAP} add=low", f"pointwise cin=1 cout=1 {MAP} low_height=2",
        f"pointwise cin=1 cout=1 {MAP} add=low low_height=2",
        f"pointwise cin=1 cout=1 {MAP} add=map low_height=2 low_width=2",
        None, 3, 1.5, True, STEM.encode(), [STEM], {"kind": "stem"}, KEY,
    ],
    ids=lambda text: repr(text)[:40],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="is no operation, such as 'inverted_residual cin=16") as e:
        parse_operation(text)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


def test_what_does_not_fit_together_is_not_made():
    with pytest.raises(ValueError, match="does not read the output of"):
        StemPair(BLOCK, InvertedResidual(4, 24, 6, 16, 21))
    with pytest.raises(ValueError, match="has no expansion, or a residual"):
        StemPair(BLOCK, InvertedResidual(4, 24, 4, 15, 21, residual=True))
    with pytest.raises(ValueError, match="has no expansion, or a residual"):
        StemPair(BLOCK, InvertedResidual(4, 4, 6, 15, 21, expand=False))
    with pytest.raises(ValueError, match="no expansion to its hidden channels"):
        InvertedResidual(4, 24, 6, 15, 21, expand=False)
    with pytest.raises(ValueError, match="adds its input to a map of another shape"):
        InvertedResidual(4, 24, 4, 15, 21, stride=2, residual=True)
    # Of a map of one pixel the shape stays.
    assert InvertedResidual(4, 24, 4, 1, 1, stride=2, residual=True).output == (4, 1, 1)


# Parts


@every_kind
def test_parts_read_what_the_one_before_computes(kind: type[Operation]):
    @given(OPERATIONS[kind])
    def chained(op: Operation) -> None:
        shape = input_of(op)
        for part in op.parts():
            # The global half of a context is an addend of the local one: both read the same map.
            assert input_of(part) == shape
            shape = shape if isinstance(part, GlobalPool) else part.output
        if op.parts():
            assert shape == op.output

    chained()


def test_the_parts_of_a_stem_pair():
    assert expand(PAIR, lambda op: not isinstance(op, StemPair)) == [PAIR.first, PAIR.second]
    stem, depthwise = Stem(8, 30, 41, "float32_nchw"), Depthwise(8, 15, 21)
    assert [*BLOCK.parts()] == [stem, InvertedResidual(8, 8, 4, 15, 21, expand=False)]
    assert expand(PAIR, lambda op: not op.parts()) == [
        stem, depthwise, Pointwise(8, 4, 15, 21),
        Pointwise(4, 24, 15, 21, "relu6"), Depthwise(24, 15, 21, stride=2), Pointwise(24, 6, 8, 11),
    ]  # fmt: skip
    assert expand(PAIR, lambda op: isinstance(op, Stem | InvertedResidual)) == [
        stem, BLOCK.block, PAIR.second,
    ]  # fmt: skip


def test_the_parts_of_the_head():
    atoms = [
        (LocalGlobal(4, 32, 16, 8, 9, 4, 5), [
            Pointwise(4, 32, 8, 9, "relu6", "low", True, 4, 5), Pointwise(32, 16, 8, 9, "relu6"),
        ]),
        (Context(40, 32, 4, 5), [
            GlobalMean(40, 4, 5), Pointwise(40, 32, 1, 1), Pointwise(40, 32, 4, 5, add="channel"),
        ]),
        (Context(40, 32, 1, 1), [
            GlobalMean(40, 1, 1), Pointwise(40, 32, 1, 1), Pointwise(40, 32, 1, 1, add="map"),
        ]),
        (GlobalPool(4, 32, 8, 9, "sigmoid"), [
            GlobalMean(4, 8, 9), Pointwise(4, 32, 1, 1, "sigmoid"),
        ]),
        (Classifier(16, 19, 8, 9), [Depthwise(16, 8, 9), Pointwise(16, 19, 8, 9)]),
        (InvertedResidual(4, 24, 4, 8, 9, 5, residual=True, act="relu"), [
            Pointwise(4, 24, 8, 9, "relu"), Depthwise(24, 8, 9, 5, act="relu"),
            Pointwise(24, 4, 8, 9, add="map"),
        ]),
    ]  # fmt: skip
    for op, wanted in atoms:
        assert expand(op, lambda op: not op.parts()) == wanted


@every_kind
def test_an_operation_is_run_whole_or_as_its_parts(kind: type[Operation]):
    @settings(max_examples=20)
    @given(OPERATIONS[kind])
    def run(op: Operation) -> None:
        assert expand(op, lambda _: True) == [op]
        atoms = expand(op, lambda op: not op.parts())
        assert not any(atom.parts() for atom in atoms)
        assert atoms[-1].output == op.output
        assert sum(atom.macs for atom in atoms) == op.macs
        for missing in atoms:
            with pytest.raises(UserError, match="there is no kernel for") as e:
                expand(op, lambda op, missing=missing: not op.parts() and op != missing)
            assert f"'{missing}'" in str(e.value)

    run()


# Counts and shapes, beside torch


class Reads(nn.Module):
    """The image as a map of as many channels as are asked for; no convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1].expand(-1, self.channels, -1, -1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return global_average(x)


class Resized(nn.Module):
    def __init__(self, op: ops.Resize | ops.Logits | ops.Labels) -> None:
        super().__init__()
        self.size, self.labels = (op.out_height, op.out_width), isinstance(op, ops.Labels)

    def forward(self, x: Tensor) -> Tensor:
        y = resize(x, self.size)
        return y.argmax(dim=1, keepdim=True) if self.labels else y


class LowContext(nn.Module):
    def __init__(self, op: Context) -> None:
        super().__init__()
        self.low = ConvBN(op.cin, op.cout, act=False)
        self.context = nn.Conv2d(op.cin, op.cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.low(x) + self.context(global_average(x))
        return y


def module_of(op: Operation) -> nn.Module:
    """As hmseg.mrms builds it."""
    match op:
        case Stem():
            return ConvBN(3, op.cout, 3, stride=2)
        case Depthwise(channels=c):
            return ConvBN(c, c, op.kernel, stride=op.stride, dilation=op.dilation, groups=c)
        case Pointwise():
            return ConvBN(op.cin, op.cout, act=False)
        case GlobalPool():
            return nn.Sequential(Mean(), nn.Conv2d(op.cin, op.cout, 1))
        case InvertedResidual():
            return blocks.InvertedResidual(
                op.cin, op.cout, expansion=op.hidden // op.cin, kernel=op.kernel, stride=op.stride,
                dilation=op.dilation,
            )  # fmt: skip
        case StemBlock():
            block = blocks.InvertedResidual(
                op.hidden, op.cout, expansion=1, kernel=op.kernel, stride=op.stride,
                dilation=op.dilation,
            )  # fmt: skip
            return nn.Sequential(ConvBN(3, op.hidden, 3, stride=2), block)
        case StemPair():
            return nn.Sequential(module_of(op.first), module_of(op.second))
        case LocalGlobal():
            return nn.Sequential(ConvBN(op.cin, op.mid), ConvBN(op.mid, op.cout))
        case Context():
            return LowContext(op)
        case Classifier(cin=c):
            return nn.Sequential(ConvBN(c, c, 3, groups=c), nn.Conv2d(c, op.classes, 1))
        case GlobalMean():
            return Mean()
        case ops.Resize() | ops.Labels() | ops.Logits():
            return Resized(op)
    assert isinstance(op, ops.Convert)
    return nn.Identity()


@pytest.mark.parametrize(
    "kind", [kind for kind in OPERATIONS if kind not in USERS], ids=lambda kind: kind.kind
)
def test_counts_and_shapes_are_those_of_torch(kind: type[Operation]):
    @settings(max_examples=25)
    @given(OPERATIONS[kind])
    def counted(op: Operation) -> None:
        channels, height, width = input_of(op)
        with torch.device("meta"):  # no memory
            model = nn.Sequential(Reads(channels), module_of(op)).eval()
            output = model(torch.empty(1, 3, height, width))
        assert op.output == tuple(output.shape[1:])
        assert op.macs == count_macs(model, height, width)
        assert op.parameters == count_parameters(model)

    counted()


@settings(max_examples=40)
@given(OPERATIONS[ops.Pool])
def test_a_pool_has_the_size_of_torchs(op: ops.Pool) -> None:
    top, left, bottom, right = op.pad
    x = nn.functional.pad(
        torch.empty(1, op.channels, op.height, op.width), (left, right, top, bottom)
    )
    y = nn.functional.max_pool2d(x, op.kernel, op.stride, 0, op.dilation)
    assert op.output == tuple(y.shape[1:])


@settings(max_examples=40)
@given(OPERATIONS[ops.Conv])
def test_a_convolution_has_the_size_of_torchs(op: ops.Conv) -> None:
    if op.spread != (1, 1):
        return
    with torch.device("meta"):
        top, left, bottom, right = op.pad
        x = torch.empty(1, sum(op.cin), op.height, op.width)
        weight = torch.empty(op.cout, sum(op.cin) // op.groups, *op.kernel)
        x = nn.functional.pad(x, (left, right, top, bottom))
        y = nn.functional.conv2d(x, weight, None, op.stride, 0, op.dilation, op.groups)
    assert op.output == tuple(y.shape[1:])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no output"):
        ops.Pool(3, 2, 2, (5, 5))
    with pytest.raises(ValueError, match="windows that its map is not made of"):
        ops.Unpool(3, 5, 4, 2)
