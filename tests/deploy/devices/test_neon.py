"""Every kernel on 64-bit ARM, emulated, against the references of its own tests.

The tests of tests/deploy/cpu/kernels are called with NEON and with a `run` that takes the kernel to
the emulated machine instead of this one.
"""

import numpy as np
import pytest

from deploy.cpu import layout
from deploy.cpu.isa import NEON
from deploy.cpu.kernels import conv_depthwise, conv_multiplied, emit, module_of
from deploy.devices.kernels import kernel_library, remote_kernels
from deploy.devices.session import open_session
from deploy.targets import resolve_target
from lut.ops import (
    AcrossChannels,
    ArgMax,
    Attention,
    ChannelNorm,
    ChannelSlice,
    Concat,
    Conv,
    Convert,
    Depthwise,
    Elementwise,
    GlobalMean,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Logits,
    Masks,
    Pointwise,
    Pool,
    Product,
    Resample,
    Resize,
    Stem,
    StemBlock,
    StemPair,
    Unpool,
)
from tests.deploy.cpu.kernels import (
    helpers,
    test_arg_max,
    test_attention,
    test_channel_norm,
    test_conv,
    test_depthwise,
    test_ends,
    test_head,
    test_inverted_residual,
    test_maps,
    test_pointwise,
    test_product,
    test_stem,
    test_stem_block,
    test_stem_pair,
    test_windows,
)

FILES = (
    test_arg_max, test_attention, test_channel_norm, test_depthwise, test_ends, test_head,
    test_inverted_residual, test_maps, test_pointwise, test_product, test_stem,
    test_stem_block, test_stem_pair, test_windows,
)  # fmt: skip

# What `test_kernel` runs; tests/deploy/cpu/test_isa.py looks for a kernel that is missing.
TESTED = (
    AcrossChannels(37, 4, 7, "mean"),
    ArgMax(19, 5, 9, 20, 36, (2, 2)),
    ArgMax(300, 2, 17, 2, 17),
    Attention(2, 16, 32, 5, 7, 4, 8, ("add", "relu6")),
    ChannelNorm(20, 9, 33),
    ChannelSlice(64, 3, 5, 37, 13),
    Concat((3, 13, 1, 60, 1), 2, 3),
    Conv((20, 33), 40, 9, 17, then=("add", "prelu", "mul_channel", "scale", "mul_pixel")),
    Conv((8,), 5, 3, 4, (3, 3), pad=(1, 1, 2, 2), spread=(2, 2), then=("relu6",)),
    Conv((20, 33), 40, 9, 17, (3, 3), pad=(1, 1, 1, 1), then=("add", "gelu")),
    Conv((20, 33), 40, 17, 34, (3, 3), (2, 2), pad=(1, 1, 1, 1), then=("relu",)),
    Conv((20, 33), 40, 9, 17, (3, 3), (1, 1), (6, 6), (6, 6, 6, 6), then=("add", "gelu")),
    Conv((20,), 20, 6, 50, (3, 1), dilation=(16, 1), pad=(16, 0, 16, 0), groups=20),
    Conv((16,), 96, 12, 40, (3, 3), pad=(1, 1, 1, 1), groups=16, then=("relu",)),
    Convert("pack", 13, 6, 11),
    Convert("unpack", 13, 6, 11),
    Depthwise(13, 9, 31),
    Depthwise(32, 16, 21, kernel=5, stride=2),
    Depthwise(16, 12, 12, kernel=7, dilation=2, act="hswish"),
    Elementwise(17, 30, 40, ("mul_pixel", "swish", "scale", "prelu")),
    GlobalMean(40, 70, 67),
    GlobalPool(40, 77, 9, 14),
    GlobalPool(40, 77, 9, 14, "sigmoid"),
    GlobalPool(40, 77, 9, 14, "relu6"),
    InvertedResidual(16, 96, 16, 13, 30, 5, residual=True),
    InvertedResidual(24, 72, 40, 17, 33, 3, stride=2),
    InvertedResidual(8, 48, 8, 1, 9, 7, 1, 4, residual=True),
    InvertedResidual(16, 16, 8, 24, 45, expand=False),
    InvertedResidual(80, 480, 80, 8, 16, dilation=4, residual=True),
    InvertedResidual(11, 33, 5, 6, 45, act="relu"),
    InvertedResidual(8, 24, 8, 9, 13, residual=True, act="hswish"),
    Labels(19, 4, 8, 32, 64),
    Labels(150, 3, 5, 17, 90),
    Labels(5, 9, 9, 3, 4),
    LocalGlobal(33, 70, 19, 9, 30, 5, 15, gate=False),
    LocalGlobal(33, 70, 19, 9, 30, 5, 15),
    LocalGlobal(16, 256, 128, 3, 50, 2, 25, gate=False),
    LocalGlobal(16, 256, 128, 3, 50, 2, 25),
    Logits(19, 4, 8, 32, 64),
    Logits(150, 3, 5, 17, 90),
    Logits(5, 9, 9, 3, 4),
    Masks(1, 4, 37, 4, 37, one=True),
    Masks(35, 4, 19, 9, 38, (2, 3)),
    Pointwise(20, 56, 5, 7, "relu6", "map"),
    Pointwise(3, 70, 9, 40, "none", "channel"),
    Pointwise(960, 160, 2, 3),
    Pointwise(1, 1, 1, 1, "relu"),
    Pointwise(9, 21, 5, 7, "sigmoid"),
    Pointwise(9, 21, 5, 7, "hswish"),
    Pointwise(30, 19, 12, 25, "relu6", "low", low_height=6, low_width=13),
    Pointwise(1, 64, 3, 4, "sigmoid", "low", low_height=5, low_width=7),
    Pool(20, 17, 33, (3, 3), (2, 2), pad=(1, 1, 1, 1)),
    Pool(8, 5, 7, (2, 2), (2, 2), pad=(0, 0, 1, 1), reduce="mean", then=("add", "relu")),
    Product(2, 35, 5, 9, (5, 7), (1, 5)),
    Resample(33, 5, 7, 10, 14, (2, 2), ("add", "relu")),
    Resize(18, 20, 30, 8, 12),
    Resize(18, 20, 30, 12, 18),
    Resize(18, 20, 30, 41, 60),
    Stem(16, 20, 36),
    Stem(16, 20, 36, "float32_nchw"),
    Stem(13, 9, 41),
    Stem(13, 9, 41, "float32_nchw", "hswish"),
    StemBlock(32, 16, 33, 65),
    StemBlock(16, 8, 40, 70, 7, 2, 2, "float32_nchw"),
    StemBlock(20, 10, 20, 36, stem_act="relu", act="relu"),
    StemBlock(20, 10, 20, 36, stem_act="hswish", act="hswish"),
    test_stem_pair.pair(33, 65, stride=2),
    test_stem_pair.pair(20, 36, hidden=20, middle=10, wide=33, source="float32_nchw"),
    Unpool(33, 6, 10, 2),
)


@pytest.fixture(scope="module")
def kernels(emulated_farm):
    """Takes a PrimFunc to the machine, as tests.deploy.cpu.kernels.helpers.run does to this one."""
    arm = resolve_target("arm")
    with open_session(emulated_farm.farm("arm")) as session:
        session.set_threads(2)

        def run(func, isa, arrays, out, dtype="float32"):
            assert isa is NEON
            remote = remote_kernels(session, kernel_library({"main": func}, arm))
            return remote.run("main", arrays, np.full(out, 77, dtype))

        yield run


@pytest.fixture(autouse=True)
def on_the_machine(kernels, monkeypatch):
    for file in FILES:
        monkeypatch.setattr(file, "run", kernels)


def inner(test):
    """The test that hypothesis calls with what it draws."""
    return getattr(getattr(test, "hypothesis", None), "inner_test", test)


def check(op, run):
    """The kernel of an operation against the reference of its own test."""
    size = {} if isinstance(op, StemPair | Product) else {"h": op.height, "w": op.width}
    match op:
        case AcrossChannels():
            test_maps.test_across_channels(NEON, op.reduce, (op.channels, op.height, op.width))
        case ArgMax(resampled=True):
            out = op.out_height, op.out_width
            test = test_arg_max.test_of_scores_that_are_resampled
            test(NEON, op.classes, (op.height, op.width), out, op.taps)
        case ArgMax():
            test = inner(test_arg_max.test_of_scores_at_their_own_size)
            test(NEON, op.classes, op.height, op.width)
        case Attention():
            test_attention.check(NEON, op)
        case ChannelNorm():
            test_channel_norm.check(NEON, op)
        case ChannelSlice():
            test_maps.test_slice_of_channels(NEON, op.channels, op.count, op.begin)
        case Concat():
            inner(test_maps.test_concatenation)(NEON, list(op.cin), op.height, op.width)
        case Conv() if module_of(op) in (conv_depthwise, conv_multiplied):
            test_windows.check_convolution(NEON, op)
        case Conv():
            y, expected = test_conv.compute(NEON, op, module_of(op), run=run)
            np.testing.assert_allclose(y, expected, atol=5e-6 * max(1, np.abs(expected).max()))
        case Elementwise():
            inner(test_maps.test_steps_alone)(NEON, op.channels, op.height, op.width, op.then)
        case GlobalMean():
            test_maps.test_global_mean(NEON, (op.channels, op.height, op.width))
        case Masks():
            test_arg_max.test_masks(NEON, op.classes, op.width, op.resampled)
        case Product():
            test_product.check(NEON, op)
        case Pool():
            inner(test_windows.test_pools_match_numpy)(NEON, op, op.reduce, op.then)
        case Resample():
            sizes = op.height, op.width, op.out_height, op.out_width
            test = inner(test_maps.test_resample_is_two_products)
            test(NEON, op.channels, sizes, op.taps, op.then)
        case Unpool():
            test_maps.test_unpooling_gives_the_first_of_equal_ones(NEON, op.channels, op.kernel)
        case Convert():
            planes = helpers.normal(1, 1, op.channels, op.height, op.width)
            x, y = planes, layout.pack_activation(NEON, planes)
            x, y = (x, y) if op.direction == "pack" else (y, x)
            np.testing.assert_array_equal(run(emit(op, NEON), NEON, [x], y.shape), y)
        case Depthwise():
            inner(test_depthwise.test_matches_torch)(NEON, op)
        case GlobalPool():
            test, tasks = inner(test_head.test_global_pool), 1 if op.act == "none" else 3
            test(NEON, cin=op.cin, cout=op.cout, act=op.act, tasks=tasks, **size)
        case InvertedResidual():
            test_inverted_residual.check(NEON, op)
        case Labels() | Logits():
            test = test_ends.test_labels if isinstance(op, Labels) else test_ends.test_logits
            inner(test)(NEON, classes=op.classes, oh=op.out_height, ow=op.out_width, **size)
        case LocalGlobal():
            acts = (op.mid_act, op.act)
            inner(test_head.test_local_global)(
                NEON, cin=op.cin, mid=op.mid, cout=op.cout, gate=op.gate, acts=acts, **size
            )
        case Pointwise(add="low"):
            low = {"lh": op.low_height, "lw": op.low_width}
            test = inner(test_head.test_upsample_add)
            test(NEON, cin=op.cin, cout=op.cout, act=op.act, **size, **low)
        case Pointwise():
            test_pointwise.check(NEON, op)
        case Resize():
            test, out = inner(test_head.test_resize), {"oh": op.out_height, "ow": op.out_width}
            test(NEON, channels=op.channels, **size, **out)
        case Stem():
            test = inner(test_stem.test_matches_torch)
            test(NEON, op.source, cout=op.cout, act=op.act, **size)
        case StemBlock():
            test_stem_block.check(NEON, op)
        case StemPair():
            test_stem_pair.check(NEON, op)
        case _:
            pytest.fail(f"{op} has no reference")


@pytest.mark.parametrize("op", TESTED, ids=str)
def test_kernel(op, kernels):
    check(op, kernels)


def test_not_a_number():
    test_pointwise.test_not_a_number_passes_through(NEON)
    test_ends.test_not_a_number_and_infinity_as_in_torch(NEON)
    test_ends.test_logits_that_are_not_finite(NEON, (72, 48))
    test_ends.test_logits_that_are_not_finite(NEON, (61, 39))
    test_ends.test_cells_beside_a_non_finite_score_are_not_filled(NEON)
    test_inverted_residual.test_non_finite_input_stays_where_the_window_reaches(NEON)


@pytest.mark.parametrize("mode", ["rows", "hid"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 4), (2, 1)])
def test_both_modes_of_the_inverted_residual(mode, stride, dilation):
    test_inverted_residual.test_both_modes_and_any_strip_give_the_same(
        NEON, mode, 11, stride, dilation
    )


@pytest.mark.parametrize(("height", "dilation", "phases"), [(13, 4, 2), (9, 2, 2)])
@pytest.mark.parametrize("tasks", [1, 3])
def test_classes_of_rows_of_the_inverted_residual(height, dilation, phases, tasks):
    test_inverted_residual.test_classes_of_rows_give_the_same(NEON, height, dilation, phases, tasks)


def test_strips_of_the_stem_pair():
    op = test_stem_pair.pair(22, 90, kernel=5, stride=2)
    test_stem_pair.check(NEON, op, strip=5, tasks=3)


def test_output_end_with_filled_cells():
    inner(test_ends.test_filled_cells_are_the_labels_of_their_pixels)(
        NEON, 255, (7, 5), (53, 61)
    )  # fmt: skip
    test_ends.test_equal_scores_give_the_lowest_class(NEON)
