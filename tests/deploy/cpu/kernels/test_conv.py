"""Dense convolutions, direct and by Winograd, against torch in double."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, reject, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2, AVX512, Tile
from deploy.cpu.kernels import CpuKernels, conv_dilated, conv_direct, conv_winograd, module_of
from deploy.cpu.winograd_tiles import transforms
from lut.ops import Conv

from .helpers import ISAS, normal, run, unpack_activation
from .steps import THEN, Given

SIDES = st.integers(-1, 4)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
SAME = {"kernel": (3, 3), "pad": (1, 1, 1, 1)}


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 4]))
    cin = tuple(draw(st.integers(1, 10)) * groups for _ in range(1 if groups > 1 else 2))
    spread = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]))
    stride = draw(PAIRS) if spread == (1, 1) else (1, 1)
    try:
        return Conv(
            cin, draw(st.integers(1, 40)) * groups, draw(st.integers(1, 9)),
            draw(st.integers(1, 30)), draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
            stride, draw(PAIRS), tuple(draw(SIDES) for _ in range(4)), spread, groups,
            then=draw(THEN),
        )  # fmt: skip
    except ValueError:  # no output
        reject()


def reference(op, x, w, b):
    """(1, cout, h, w) in double, before the steps."""
    x = torch.from_numpy(x).double()
    if op.spread != (1, 1):
        sides = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], op.spread, strict=True)]
        spaced = torch.zeros(*x.shape[:2], *sides, dtype=torch.double)
        spaced[:, :, :: op.spread[0], :: op.spread[1]] = x
        x = spaced
    top, left, bottom, right = op.pad
    x = F.pad(x, (left, right, top, bottom))
    w, b = torch.from_numpy(w).double(), torch.from_numpy(b).double()
    return F.conv2d(x, w, b, op.stride, 0, op.dilation, op.groups)


def compute(isa, op, module, schedule=None, run=run):
    """What the kernel gives, and what it should."""
    xs = [normal(i, 1, c, op.height, op.width) for i, c in enumerate(op.cin)]
    taps = sum(op.cin) // op.groups * op.kernel[0] * op.kernel[1]
    w, b = normal(7, op.cout, taps).reshape(op.cout, -1, *op.kernel), normal(8, op.cout)
    w = w / np.float32(taps**0.5)
    given = Given(op.then, op.output)
    schedule = schedule or module.default_schedule(op, isa)
    arrays = [*(layout.pack_activation(isa, x) for x in xs), *given.packed_maps(isa)]
    arrays += module.pack(op, isa, w, b, given.vectors)
    shape = layout.activation_shape(isa, *op.output)
    y = unpack_activation(run(module.emit(op, schedule, isa), isa, arrays, shape), op.cout)
    return y, given.apply(reference(op, np.concatenate(xs, 1), w, b))


def check(isa, op, module=conv_direct, schedule=None, tolerance=2e-6):
    y, expected = compute(isa, op, module, schedule)
    assert np.abs(y - expected).max() <= tolerance * max(1, np.abs(expected).max())


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=12, deadline=None, derandomize=True)
@drawn(op=convolutions())
@example(op=Conv((20, 33), 40, 9, 17, then=("add", "prelu", "mul_channel", "scale", "mul_pixel")))
@example(op=Conv((20,), 24, 16, 7, (7, 7), (2, 2), pad=(3, 3, 3, 3), then=("swish",)))
@example(op=Conv((64,), 64, 8, 9, **SAME, groups=4))
@example(op=Conv((64,), 64, 4, 9, **SAME, groups=16))
@example(op=Conv((8,), 5, 3, 4, (16, 16), pad=(11, 11, 11, 11), spread=(8, 8)))
@example(op=Conv((8,), 5, 3, 4, (3, 3), pad=(1, 1, 2, 2), spread=(2, 2), then=("relu6",)))
@example(op=Conv((8,), 5, 3, 4, (1, 1), spread=(2, 2)))
@example(op=Conv((20,), 10, 1, 1, **SAME, then=("gelu_tanh", "tanh", "gelu")))
def test_direct(isa, op):
    check(isa, op)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(5, 2), Tile(3, 3)])
@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (3, 17), (9, 5)])
def test_any_direct_schedule_gives_the_same(isa, tile, rows, columns):
    op = Conv((20,), 40, 9, 17, **SAME, then=("add", "relu"))
    check(isa, op, schedule=conv_direct.ConvDirectSchedule(tile, 2, rows, columns))


@pytest.mark.parametrize("isa", ISAS)
def test_sums_that_wait_for_channels_are_the_same(isa):
    op = Conv((64,), 40, 5, 11, **SAME, then=("relu",))
    tile = Tile(3, 2)
    whole, in_chunks = (
        compute(isa, op, conv_direct, conv_direct.ConvDirectSchedule(tile, 1, 3, 7, chunk))[0]
        for chunk in (0, 2)
    )
    np.testing.assert_array_equal(in_chunks, whole)
    with pytest.raises(ValueError, match="chunks of 3 blocks"):
        conv_direct.emit(op, conv_direct.ConvDirectSchedule(tile, 1, 3, 7, 3), isa)


def test_rule_of_channels_at_a_time():
    def chunk(*cin, **changes):
        op = Conv(cin, 512, 32, 64, **{**SAME, **changes})
        return conv_direct.default_schedule(op, AVX512, 1).chunk

    assert chunk(512) == 8  # 32 blocks of 27 KB of weights each
    assert chunk(256) == 0  # half as many leave room in L2
    assert chunk(500) == 0  # the last block is not whole
    assert chunk(512, 512) == 0
    assert chunk(512, groups=8) == 0


def test_threads_share_the_pixels_of_a_pointwise_convolution():
    def columns(op, threads):
        return conv_direct.default_schedule(op, AVX512, threads).columns

    small = Conv((512, 256, 128, 128), 512, 8, 16)  # its input is half of L2
    assert [columns(small, threads) for threads in (1, 2, 3)] == [128, 64, 43]
    assert [columns(Conv((16,), 240, 64, 128), threads) for threads in (1, 2)] == [8192, 4096]
    assert columns(Conv((512,), 512, 1, 3), 8) == 1
    assert columns(Conv((512,), 64, 32, 64), 1) == 256


@pytest.mark.parametrize("isa", ISAS)
def test_shared_pixels_give_the_same(isa):
    op = Conv((150, 20), 40, 4, 9, then=("add", "relu"))
    alone, shared = (
        compute(isa, op, conv_direct, conv_direct.default_schedule(op, isa, threads))[0]
        for threads in (1, 5)
    )
    np.testing.assert_array_equal(shared, alone)
    check(isa, op, schedule=conv_direct.default_schedule(op, isa, 5))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", ["uint8_nhwc", "float32_nchw"])
def test_direct_from_the_image(isa, source):
    op = Conv((3,), 20, 15, 37, (5, 5), (2, 2), pad=(2, 2, 2, 2), source=source, then=("relu",))
    mean, std = [100.0, 90, 80], [50.0, 60, 70]
    image = np.random.default_rng(0).integers(0, 256, (1, 15, 37, 3), np.uint8)
    planes = ((image - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2).astype(np.float32)
    w, b = normal(7, 20, 3, 5, 5), normal(8, 20)
    given = {"scale": 1.0, "mean": mean, "std": std} if source == "uint8_nhwc" else None
    constants = conv_direct.pack(op, isa, w, b, [], given)
    func = conv_direct.emit(op, conv_direct.default_schedule(op, isa), isa)
    arrays = [image if given else planes, *constants]
    y = run(func, isa, arrays, layout.activation_shape(isa, *op.output))
    expected = Given(op.then, op.output).apply(reference(op, planes, w, b))
    np.testing.assert_allclose(unpack_activation(y, 20), expected, atol=3e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "op",
    [
        Conv((2048,), 32, 2, 16, (1, 1)), Conv((64,), 32, 9, 17, (6, 6)),
        Conv((8,), 32, 20, 40, (16, 16)),
    ],
    ids=["1x1", "channels", "taps"],
)  # fmt: skip
def test_long_sums_round_as_little_as_short_ones(isa, op):
    """A sum in one row of 2000 terms is off by 1e-6 of its size on average."""
    y, expected = compute(isa, op, conv_direct)
    error = np.sqrt(np.square(y - expected).mean() / np.square(expected).mean())
    assert error < 4e-7


@st.composite
def far_apart(draw):
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (5, 3), (3, 1), (1, 3), (2, 4)]))
    groups = draw(st.sampled_from([1, 1, 2]))
    cin = draw(st.sampled_from([(7,), (16,), (20, 17)])) if groups == 1 else (32,)
    try:
        op = Conv(
            cin, draw(st.integers(1, 40)) * groups, draw(st.integers(1, 20)),
            draw(st.integers(4, 40)), kernel, (1, 1),
            (draw(st.integers(1, 20)), draw(st.integers(1, 20))),
            tuple(draw(st.integers(0, 20)) for _ in range(4)), groups=groups, then=draw(THEN),
        )  # fmt: skip
    except ValueError:  # no output
        reject()
    return op if conv_dilated.supports(op) else reject()


def atrous(channels, size, dilation, groups=1, then=()):
    return Conv(
        (channels,), channels, *size, (3, 3), (1, 1), (dilation,) * 2, (dilation,) * 4,
        groups=groups, then=then,
    )  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=10, deadline=None, derandomize=True)
@drawn(op=far_apart())
@example(op=atrous(40, (16, 32), 18, then=("add", "relu")))
@example(op=atrous(20, (9, 40), 6, then=("prelu", "gelu")))
@example(op=atrous(64, (16, 32), 14, groups=4))
@example(op=atrous(20, (3, 5), 30))  # but for the middle every tap is outside
def test_dilated(isa, op):
    check(isa, op, conv_dilated)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("tile", "rows"), [(Tile(1, 1), 1), (Tile(5, 2), 4), (Tile(3, 3), 9)])
def test_any_dilated_schedule_gives_the_same(isa, tile, rows):
    op = atrous(20, (9, 17), 6, then=("relu",))
    check(isa, op, conv_dilated, conv_dilated.ConvDilatedSchedule(tile, rows))


def test_taps_outside_are_left_out_where_that_saves_more_than_winograd():
    for op in (atrous(64, (16, 32), 12), atrous(64, (16, 32), 18), atrous(8, (64, 128), 4)):
        assert module_of(op) is conv_dilated, op
        inside = reference(replace(op, then=()), *(np.ones(s) for s in (
            (1, op.cin[0], *op.output[1:]), (op.cout, op.cin[0], 3, 3), op.cout)))  # fmt: skip
        assert conv_dilated.products(op) == float((inside - 1).sum())
    assert module_of(atrous(64, (64, 128), 4)) is conv_winograd
    assert module_of(atrous(64, (16, 32), 2)) is conv_winograd
    assert module_of(atrous(8, (16, 32), 2)) is conv_direct
    assert conv_direct.supports(atrous(64, (16, 32), 12))


@st.composite
def filtered(draw, dtype="float32"):
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (5, 5), (3, 1), (1, 3), (1, 5), (5, 1)]))
    stride = draw(st.sampled_from([(1, 1), (2, 2)])) if kernel == (3, 3) else (1, 1)
    dilation = tuple(draw(st.integers(1, 3)) if k > 1 and stride == (1, 1) else 1 for k in kernel)
    cin = draw(st.sampled_from([(16,), (33,), (20, 17)]))
    op = Conv(
        cin, draw(st.integers(16, 40)), draw(st.integers(1, 20)), draw(st.integers(1, 30)),
        kernel, stride, dilation, then=draw(THEN), dtype=dtype,
        pad=tuple(draw(st.integers(3 * (k > 1), 6 * (k > 1))) for k in kernel * 2),
    )  # fmt: skip
    return op if conv_winograd.supports(op) else reject()


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=10, deadline=None, derandomize=True)
@drawn(op=filtered())
@example(op=Conv((20, 33), 40, 9, 17, **SAME, then=("add", "gelu")))
@example(op=Conv((16,), 16, 3, 2, **SAME))
@example(op=Conv((20, 33), 40, 19, 34, **SAME, stride=(2, 2), then=("add", "gelu")))
@example(op=Conv((16,), 16, 5, 4, **SAME, stride=(2, 2)))
@example(op=Conv((32,), 32, 19, 30, (3, 3), (1, 1), (2, 2), pad=(2, 2, 2, 2), then=("relu",)))
@example(op=Conv((32,), 32, 9, 17, (3, 3), (1, 1), (4, 4), pad=(4, 4, 4, 4), then=("relu",)))
def test_winograd(isa, op):
    check(isa, op, conv_winograd, tolerance=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", [
    Conv((48,), 96, 9, 17, **SAME, groups=3, then=("add", "relu")),
    Conv((64,), 32, 9, 17, (3, 3), (1, 1), (2, 2), pad=(2, 2, 2, 2), groups=2),
    Conv((64,), 32, 17, 18, (3, 3), (2, 2), pad=(1, 1, 0, 0), groups=2),
], ids=str)  # fmt: skip
def test_winograd_in_groups(isa, op):
    assert module_of(op) is conv_winograd
    check(isa, op, conv_winograd, tolerance=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("by_point", [False, True])
@pytest.mark.parametrize(("block", "splits"), [((1, 1), 1), ((3, 2), 2), ((3, 5), 2)])
def test_any_winograd_schedule_gives_the_same(isa, block, splits, by_point):
    op = Conv((40,), 64, 9, 17, **SAME, then=("relu",))
    schedule = conv_winograd.ConvWinogradSchedule(*block, Tile(2, 2), splits, by_point)
    check(isa, op, conv_winograd, schedule, tolerance=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("maps", [1, 2, 3, 6])
def test_a_winograd_task_may_have_several_of_a_dilations_maps(isa, maps):
    op = Conv((20,), 33, 9, 17, (3, 3), (1, 1), (2, 3), pad=(2, 2, 3, 3), then=("relu",))
    schedule = conv_winograd.ConvWinogradSchedule(3, 3, Tile(2, 2), 1, False, maps)
    check(isa, op, conv_winograd, schedule, tolerance=5e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_winograd_rounds_little_more_than_the_plain_sum(isa):
    """Beside a sum of 576 terms in one row, which the direct kernel cuts in parts."""
    y, expected = compute(isa, Conv((64,), 32, 16, 24, **SAME), conv_winograd)
    terms = normal(1, 4000, 576) * normal(2, 4000, 576) / np.float32(24)
    in_a_row = terms.cumsum(1, dtype=np.float32)[:, -1] - terms.sum(1, dtype=np.float64)
    assert np.square(y - expected).mean() <= 16 * np.square(in_a_row).mean()


def test_tiles_are_as_large_as_their_weights_are_worth():
    def outputs(op):
        return [transform.outputs for transform in transforms(op)]

    wide = Conv((128,), 128, 8, 16, **SAME)
    assert outputs(wide) == outputs(Conv((64,), 64, 8, 16, **SAME)) == [4, 4]
    assert outputs(replace(wide, height=4, width=8)) == [2, 2]  # two tiles for 2 MB of weights
    # 38 MB of weights, for which a saving has to be clear; 75 MB are read too often.
    assert outputs(Conv((512,), 512, 8, 16, **SAME)) == [2, 2]
    assert outputs(Conv((512,), 512, 16, 32, **SAME)) == [4, 4]
    assert outputs(Conv((1024,), 512, 16, 32, **SAME)) == [2, 2]
    assert outputs(replace(wide, dtype="bfloat16")) == [2, 2]
    halving = Conv((64,), 128, 32, 64, **SAME, stride=(2, 2))
    assert outputs(halving) == [4, 4]
    assert outputs(Conv((128,), 256, 32, 64, **SAME, stride=(2, 2))) == [2, 2]


def test_winograd_is_taken_where_it_can_be_and_left_out_when_exact():
    wide = Conv((64,), 64, 16, 32, **SAME)
    assert module_of(wide) is conv_winograd
    kernels = CpuKernels(AVX2, 2)
    assert module_of(kernels.exactly(wide)) is conv_direct
    halving = replace(wide, stride=(2, 2))
    assert module_of(halving) is conv_winograd
    assert module_of(kernels.exactly(halving)) is conv_direct
    strided = replace(wide, stride=(1, 2))
    assert kernels.exactly(strided) == strided  # it is direct as it is, and its records count
    for op in (
        strided, replace(halving, dilation=(2, 2)), replace(wide, cin=(3,)), replace(wide, cout=8),
        replace(wide, groups=8), Conv((64,), 64, 1, 1, **SAME), Conv((64,), 64, 16, 32),
    ):  # fmt: skip
        assert module_of(op) is conv_direct, op
