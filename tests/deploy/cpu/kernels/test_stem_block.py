import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit, stem_block
from lut.ops import StemBlock

from .helpers import ISAS, activate, normal, planar, run

MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)


def check(isa, op):
    image = np.random.default_rng(5).integers(0, 256, (1, op.height, op.width, 3))
    image = image.astype(np.uint8)
    normalised = ((image / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    pairs = [
        (normal(2, op.hidden, 3, 3, 3) / 4, normal(3, op.hidden)),
        (normal(4, op.hidden, 1, op.kernel, op.kernel) / 3, normal(6, op.hidden)),
        (normal(7, op.cout, op.hidden, 1, 1) / 3, normal(8, op.cout)),
    ]
    first = image if op.source == "uint8_nhwc" else normalised.astype(np.float32)
    constants = stem_block.pack(
        op, isa, first=pairs[0], depthwise=pairs[1], project=pairs[2], mean=MEAN, std=STD
    )
    shape = layout.activation_shape(isa, *op.output)
    y = planar(isa, run(emit(op, isa), isa, [first, *constants], shape), op.cout)
    (w1, b1), (w2, b2), (w3, b3) = [[torch.from_numpy(a).double() for a in p] for p in pairs]
    x = activate(F.conv2d(torch.from_numpy(normalised), w1, b1, 2, 1), op.stem_act)
    pad = op.dilation * (op.kernel // 2)
    x = F.conv2d(x, w2, b2, op.stride, pad, op.dilation, groups=op.hidden)
    np.testing.assert_allclose(y, F.conv2d(activate(x, op.act), w3, b3).numpy(), atol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", ["uint8_nhwc", "float32_nchw"])
@settings(max_examples=2, deadline=None, derandomize=True)
@given(
    hidden=st.integers(1, 40),
    cout=st.integers(1, 40),
    h=st.integers(1, 40),
    w=st.integers(1, 70),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
)
@example(hidden=16, cout=8, h=1, w=1, kernel=3, stride=1, dilation=1)
@example(hidden=16, cout=8, h=2, w=70, kernel=7, stride=2, dilation=2)
@example(hidden=32, cout=16, h=33, w=65, kernel=3, stride=1, dilation=1)
@example(hidden=16, cout=8, h=64, w=128, kernel=3, stride=1, dilation=1)
def test_matches_torch(isa, source, hidden, cout, h, w, kernel, stride, dilation):
    check(isa, StemBlock(hidden, cout, h, w, kernel, stride, dilation, source))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("stem_act", "act"),
    [("none", "none"), ("none", "relu"), ("sigmoid", "relu"), ("hswish", "hswish")],
)
def test_other_activations(isa, stem_act, act):
    check(isa, StemBlock(20, 10, 20, 36, stem_act=stem_act, act=act))


def test_multiplications_are_those_of_the_parts():
    op = StemBlock(16, 8, 256, 512)
    assert op.macs == op.stem.macs + 128 * 256 * 16 * (9 + 8)


def test_the_map_between_is_no_parameter():
    func = emit(StemBlock(16, 8, 64, 128), AVX2)
    names = [param.name for param in func.params]
    assert names == [
        "image", "weight", "bias", "normalisation", "depthwise_weight", "depthwise_bias",
        "project_weight", "project_bias", "y",
    ]  # fmt: skip
