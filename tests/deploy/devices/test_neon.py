"""Every kernel on 64-bit ARM, emulated, against the references of its own tests.

The tests of tests/deploy/cpu/kernels are called with NEON and with a `run` that takes the kernel to
the emulated machine instead of this one.
"""

import numpy as np
import pytest

from deploy.cpu import layout
from deploy.cpu.isa import NEON
from deploy.cpu.kernels import emit
from deploy.devices.kernels import kernel_library, remote_kernels
from deploy.devices.session import open_session
from deploy.targets import resolve_target
from lut.ops import (
    Convert,
    Depthwise,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Logits,
    Pointwise,
    Resize,
    Stem,
    StemBlock,
)
from tests.deploy.cpu.kernels import (
    helpers,
    test_depthwise,
    test_ends,
    test_head,
    test_inverted_residual,
    test_pointwise,
    test_stem,
    test_stem_block,
    test_stem_pair,
)

FILES = (
    test_depthwise, test_ends, test_head, test_inverted_residual, test_pointwise, test_stem,
    test_stem_block, test_stem_pair,
)  # fmt: skip

# One of each kernel that the tests below run; tests/deploy/cpu/test_isa.py looks for what is
# missing.
TESTED = (
    Convert("pack", 13, 6, 11), Depthwise(13, 9, 31), Labels(19, 4, 8, 32, 64),
    Logits(19, 4, 8, 32, 64), GlobalPool(40, 77, 9, 14), InvertedResidual(11, 33, 5, 6, 45),
    LocalGlobal(33, 70, 19, 9, 30, 5, 15), Pointwise(20, 56, 5, 7),
    Pointwise(30, 19, 12, 25, add="low", low_height=6, low_width=13), Resize(18, 20, 30, 8, 12),
    Stem(16, 20, 36), StemBlock(32, 16, 33, 65), test_stem_pair.pair(33, 65, stride=2),
)  # fmt: skip


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


@pytest.mark.parametrize(
    "op",
    [
        Pointwise(20, 56, 5, 7, "relu6", "map"),
        Pointwise(3, 70, 9, 40, "none", "channel"),
        Pointwise(960, 160, 2, 3),
        Pointwise(1, 1, 1, 1, "relu"),
        Pointwise(9, 21, 5, 7, "sigmoid"),
    ],
    ids=str,
)
def test_pointwise_kernel(op):
    test_pointwise.check(NEON, op)


def test_not_a_number():
    test_pointwise.test_not_a_number_passes_through(NEON)
    test_ends.test_not_a_number_and_infinity_as_in_torch(NEON)
    test_ends.test_logits_that_are_not_finite(NEON, (72, 48))
    test_ends.test_logits_that_are_not_finite(NEON, (61, 39))
    test_ends.test_cells_beside_a_non_finite_score_are_not_filled(NEON)
    test_inverted_residual.test_non_finite_input_stays_where_the_window_reaches(NEON)


@pytest.mark.parametrize(
    "op",
    [
        Depthwise(13, 9, 31),
        Depthwise(32, 16, 21, kernel=5, stride=2),
        Depthwise(16, 12, 12, kernel=7, dilation=2),
    ],
    ids=str,
)
def test_depthwise_kernel(op):
    inner(test_depthwise.test_matches_torch)(NEON, op)


@pytest.mark.parametrize(
    "op",
    [
        InvertedResidual(16, 96, 16, 13, 30, 5, residual=True),
        InvertedResidual(24, 72, 40, 17, 33, 3, stride=2),
        InvertedResidual(8, 48, 8, 1, 9, 7, 1, 4, residual=True),
        InvertedResidual(16, 16, 8, 24, 45, expand=False),
        InvertedResidual(80, 480, 80, 8, 16, dilation=4, residual=True),
        InvertedResidual(11, 33, 5, 6, 45, act="relu"),
    ],
    ids=str,
)
def test_inverted_residual_kernel(op):
    test_inverted_residual.check(NEON, op)


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


@pytest.mark.parametrize(
    "op",
    [
        StemBlock(32, 16, 33, 65, 3, 1, 1, "uint8_nhwc"),
        StemBlock(16, 8, 40, 70, 7, 2, 2, "float32_nchw"),
        StemBlock(20, 10, 20, 36, stem_act="relu", act="relu"),
    ],
    ids=str,
)
def test_stem_block_kernel(op):
    test_stem_block.check(NEON, op)


@pytest.mark.parametrize(
    ("op", "changes"),
    [
        (test_stem_pair.pair(33, 65, stride=2), {}),
        (test_stem_pair.pair(20, 36, hidden=20, middle=10, wide=33, source="float32_nchw"), {}),
        (test_stem_pair.pair(22, 90, kernel=5, stride=2), {"strip": 5, "tasks": 3}),
    ],
    ids=str,
)
def test_stem_pair_kernel(op, changes):
    test_stem_pair.check(NEON, op, **changes)


@pytest.mark.parametrize("source", ["uint8_nhwc", "float32_nchw"])
@pytest.mark.parametrize(("cout", "h", "w"), [(16, 20, 36), (13, 9, 41)])
def test_stem_kernel(source, cout, h, w):
    inner(test_stem.test_matches_torch)(NEON, source, cout=cout, h=h, w=w, act="relu6")


@pytest.mark.parametrize(("oh", "ow"), [(8, 12), (12, 18), (41, 60)])
def test_resize_kernel(oh, ow):
    inner(test_head.test_resize)(NEON, channels=18, h=20, w=30, oh=oh, ow=ow)


def test_upsample_add_kernel():
    upsample_add = inner(test_head.test_upsample_add)
    upsample_add(NEON, cin=30, cout=19, h=12, w=25, lh=6, lw=13, act="relu6")
    upsample_add(NEON, cin=1, cout=64, h=3, w=4, lh=5, lw=7, act="sigmoid")


@pytest.mark.parametrize(
    ("classes", "h", "w", "oh", "ow"), [(19, 4, 8, 32, 64), (150, 3, 5, 17, 90), (5, 9, 9, 3, 4)]
)
def test_output_end_kernel(classes, h, w, oh, ow):
    inner(test_ends.test_labels)(NEON, classes=classes, h=h, w=w, oh=oh, ow=ow)
    inner(test_ends.test_logits)(NEON, classes=classes, h=h, w=w, oh=oh, ow=ow)


def test_output_end_with_filled_cells():
    inner(test_ends.test_filled_cells_are_the_labels_of_their_pixels)(
        NEON, 255, (7, 5), (53, 61)
    )  # fmt: skip
    test_ends.test_equal_scores_give_the_lowest_class(NEON)


def test_convert_kernels(kernels):
    x = helpers.normal(1, 1, 13, 6, 11)
    packed = layout.pack_activation(NEON, x)
    got = kernels(emit(Convert("pack", 13, 6, 11), NEON), NEON, [x], packed.shape)
    np.testing.assert_array_equal(got, packed)
    back = kernels(emit(Convert("unpack", 13, 6, 11), NEON), NEON, [packed], x.shape)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("gate", [False, True])
def test_local_global_kernel(gate):
    local_global, acts = inner(test_head.test_local_global), ("relu6", "relu6")
    local_global(NEON, cin=33, mid=70, cout=19, h=9, w=30, gate=gate, acts=acts)
    local_global(NEON, cin=16, mid=256, cout=128, h=3, w=50, gate=gate, acts=acts)


@pytest.mark.parametrize(("act", "tasks"), [("none", 1), ("sigmoid", 3), ("relu6", 3)])
def test_global_pool_kernel(act, tasks):
    inner(test_head.test_global_pool)(NEON, cin=40, cout=77, h=9, w=14, act=act, tasks=tasks)
