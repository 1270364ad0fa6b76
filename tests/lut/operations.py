"""Operations of every kind, drawn for tests, and what each reads."""

from typing import Any, get_args

from hypothesis import strategies as st

from lut import ops
from lut.ops import Activation, ImageLayout, Operation, Shape

CHANNELS, SIZES, WINDOWS = st.integers(1, 48), st.integers(1, 40), st.sampled_from([1, 3, 5, 7])
STRIDES, DILATIONS, FACTORS = st.integers(1, 3), st.integers(1, 4), st.integers(2, 6)
ACTS, SOURCES = st.sampled_from(get_args(Activation)), st.sampled_from(get_args(ImageLayout))
MAPS = CHANNELS, SIZES, SIZES
STEPS = st.lists(st.sampled_from(get_args(ops.Step)), max_size=3).map(tuple)
Draw = Any  # hypothesis's


@st.composite
def pointwise(draw: Draw) -> ops.Pointwise:
    add = draw(st.sampled_from(get_args(ops.Addend)))
    low = [draw(SIZES) if add == "low" else 0 for _ in range(2)]
    return ops.Pointwise(
        draw(CHANNELS), *map(draw, MAPS), draw(ACTS), add, draw(st.booleans()), *low
    )


def block(draw: Draw, source: Shape, *, residuals: bool = True) -> ops.InvertedResidual:
    """An inverted residual on a map; without `residuals` one that expands and has none."""
    cin, height, width = source
    window = draw(WINDOWS), draw(STRIDES), draw(DILATIONS)
    expands = not residuals or draw(st.booleans())
    hidden = cin * (draw(FACTORS) if expands else 1)
    cout = draw(st.one_of(st.just(cin), CHANNELS))
    plain = ops.InvertedResidual(cin, hidden, cout, height, width, *window, expands)
    residual = residuals and plain.output == source and draw(st.booleans())
    return ops.InvertedResidual(
        cin, hidden, cout, height, width, *window, expands, residual, draw(ACTS)
    )


@st.composite
def inverted_residual(draw: Draw) -> ops.InvertedResidual:
    return block(draw, tuple(map(draw, MAPS)))


STEM_BLOCK = st.builds(
    ops.StemBlock, CHANNELS, *MAPS, WINDOWS, STRIDES, DILATIONS, SOURCES, ACTS, ACTS
)


@st.composite
def stem_pair(draw: Draw) -> ops.StemPair:
    first = draw(STEM_BLOCK)
    return ops.StemPair(first, block(draw, first.output, residuals=False))


PAIRS, THEN = st.tuples(WINDOWS, WINDOWS), st.lists(st.sampled_from(get_args(ops.Step)), max_size=3)
SIDES = st.tuples(*[st.integers(0, 3)] * 4)


@st.composite
def conv(draw: Draw) -> ops.Conv:
    """Its window is no larger than the map that it sees."""
    cin, groups = tuple(draw(st.lists(CHANNELS, min_size=1, max_size=3))), 1
    if draw(st.booleans()):
        cin = (draw(CHANNELS),)
        groups = cin[0]
    kernel, pad = draw(PAIRS), draw(SIDES)
    height, width = (draw(SIZES) + 3 * (k - 1) for k in kernel)
    return ops.Conv(
        cin, groups * draw(st.integers(1, 3)), height, width, kernel, draw(PAIRS),
        draw(st.tuples(STRIDES, STRIDES)), pad, draw(st.tuples(STRIDES, STRIDES)), groups,
        then=tuple(draw(THEN)),
    )  # fmt: skip


@st.composite
def pool(draw: Draw) -> ops.Pool:
    kernel = draw(PAIRS)
    height, width = (draw(SIZES) + 3 * (k - 1) for k in kernel)
    return ops.Pool(
        draw(CHANNELS), height, width, kernel, draw(PAIRS), draw(st.tuples(STRIDES, STRIDES)),
        draw(SIDES), draw(st.sampled_from(get_args(ops.Reduction))), tuple(draw(THEN)),
    )  # fmt: skip


@st.composite
def unpool(draw: Draw) -> ops.Unpool:
    kernel = draw(st.integers(2, 4))
    return ops.Unpool(draw(CHANNELS), draw(SIZES) * kernel, draw(SIZES) * kernel, kernel)


@st.composite
def channel_slice(draw: Draw) -> ops.ChannelSlice:
    begin, count = draw(st.integers(0, 20)), draw(CHANNELS)
    return ops.ChannelSlice(
        begin + count + draw(st.integers(0, 20)), draw(SIZES), draw(SIZES), count, begin
    )


STEPS = THEN.map(tuple)


@st.composite
def attention(draw: Draw) -> ops.Attention:
    """Of all pixels or of groups, with a bias or without."""
    groups, heads = draw(st.tuples(FACTORS, FACTORS)), draw(FACTORS)
    groups = draw(st.sampled_from([(1, 1), groups]))
    biases = draw(st.sampled_from([0, heads, heads * groups[0] * groups[1]]))
    planes = [count * draw(st.integers(1, 5)) for count in (*groups, *groups)]
    widths = draw(CHANNELS), draw(CHANNELS)
    return ops.Attention(heads, *widths, *planes, draw(STEPS), groups, draw(st.booleans()), biases)


@st.composite
def product(draw: Draw) -> ops.Product:
    """Of two maps, one of them turned or none."""
    turned = draw(st.sampled_from(["none", "left", "right"]))
    left, right = draw(st.tuples(SIZES, SIZES)), draw(st.tuples(SIZES, SIZES))
    heads, rows, columns = draw(FACTORS), left[0] * left[1], draw(CHANNELS)
    inner = right[0] * right[1]
    if turned == "left":
        left, rows = right, draw(CHANNELS)
    elif turned == "right":
        inner, columns = draw(CHANNELS), right[0] * right[1]
    return ops.Product(heads, rows, inner, columns, left, right, turned, draw(STEPS))


OPERATIONS: dict[type[Operation], st.SearchStrategy[Any]] = {
    ops.Stem: st.builds(ops.Stem, *MAPS, SOURCES, ACTS),
    ops.Depthwise: st.builds(ops.Depthwise, *MAPS, WINDOWS, STRIDES, DILATIONS, ACTS),
    ops.Pointwise: pointwise(),
    ops.GlobalMean: st.builds(ops.GlobalMean, *MAPS),
    ops.Resize: st.builds(ops.Resize, *MAPS, SIZES, SIZES),
    ops.GlobalPool: st.builds(ops.GlobalPool, CHANNELS, *MAPS, ACTS),
    ops.InvertedResidual: inverted_residual(),
    ops.StemBlock: STEM_BLOCK,
    ops.StemPair: stem_pair(),
    ops.LocalGlobal: st.builds(
        ops.LocalGlobal, CHANNELS, CHANNELS, *MAPS, SIZES, SIZES, st.booleans(), ACTS, ACTS
    ),
    ops.ChannelNorm: st.builds(ops.ChannelNorm, *MAPS, STEPS),
    ops.Attention: attention(),
    ops.Product: product(),
    ops.Context: st.builds(ops.Context, CHANNELS, *MAPS),
    ops.Classifier: st.builds(ops.Classifier, CHANNELS, *MAPS),
    ops.Labels: st.builds(ops.Labels, *MAPS, SIZES, SIZES),
    ops.Logits: st.builds(ops.Logits, *MAPS, SIZES, SIZES),
    ops.ArgMax: st.builds(ops.ArgMax, *MAPS, SIZES, SIZES, PAIRS),
    ops.AcrossChannels: st.builds(
        ops.AcrossChannels, *MAPS, st.sampled_from(["max", "mean", "sum"])
    ),
    ops.Concat: st.builds(
        ops.Concat, st.lists(CHANNELS, min_size=1, max_size=4).map(tuple), SIZES, SIZES
    ),
    ops.ChannelSlice: channel_slice(),
    ops.Conv: conv(),
    ops.Elementwise: st.builds(ops.Elementwise, *MAPS, STEPS.filter(bool)),
    ops.Masks: st.one_of(
        st.builds(ops.Masks, *MAPS, SIZES, SIZES, PAIRS),
        st.builds(ops.Masks, st.just(1), SIZES, SIZES, SIZES, SIZES, PAIRS, st.booleans()),
    ),
    ops.Pool: pool(),
    ops.Resample: st.builds(ops.Resample, *MAPS, SIZES, SIZES, PAIRS, STEPS),
    ops.Unpool: unpool(),
    ops.Convert: st.builds(
        ops.Convert, st.sampled_from(["pack", "unpack", "widen", "narrow"]), *MAPS
    ),
}


def input_of(op: Any) -> Shape:
    """Channels, rows and columns of what an operation reads, besides addends and gates."""
    if isinstance(op, ops.StemPair):
        return input_of(op.first)
    if isinstance(op, ops.Stem | ops.StemBlock):
        return 3, op.height, op.width
    if isinstance(op, ops.Conv | ops.Concat):
        return sum(op.cin), op.height, op.width
    if isinstance(op, ops.ArgMax | ops.Labels | ops.Logits | ops.Masks):
        return op.classes, op.height, op.width
    if isinstance(op, ops.Attention):
        return op.heads * op.key, op.height, op.width
    if isinstance(op, ops.Product):
        return op.maps[0]
    channels = op.channels if hasattr(op, "channels") else op.cin
    return channels, op.height, op.width
