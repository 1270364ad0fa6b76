import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit, stem_pair
from lut.ops import InvertedResidual, StemBlock, StemPair

from .helpers import ACTIVATIONS, ISAS, activate, normal, planar, run

MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)


def pair(h, w, *, hidden=16, middle=8, wide=48, cout=16, first=(3, 1, 1), acts=("relu6",) * 3,
         source="uint8_nhwc", **geometry):  # fmt: skip
    """`first`: kernel, stride and dilation of the first block; `acts`: of the stem, of the first
    block, of the second."""
    first = StemBlock(hidden, middle, h, w, *first, source, *acts[:2])
    size = first.output[1:]
    return StemPair(first, InvertedResidual(middle, wide, cout, *size, act=acts[2], **geometry))


def pad(block):
    return block.dilation * (block.kernel // 2)


def check(isa, op, **changes):
    first, second = op.first, op.second
    image = np.random.default_rng(5).integers(0, 256, (1, first.height, first.width, 3))
    image = image.astype(np.uint8)
    normalised = ((image / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    shapes = [
        (first.hidden, 3, 3, 3), (first.hidden, 1, first.kernel, first.kernel),
        (first.cout, first.hidden, 1, 1), (second.hidden, second.cin, 1, 1),
        (second.hidden, 1, second.kernel, second.kernel), (second.cout, second.hidden, 1, 1),
    ]  # fmt: skip
    pairs = [
        (normal(i, *shape) / np.float32(np.prod(shape[1:]) ** 0.5), normal(90 + i, shape[0]))
        for i, shape in enumerate(shapes)
    ]
    constants = stem_pair.pack(
        op, isa,
        first=dict(zip(("first", "depthwise", "project"), pairs[:3], strict=True))
        | {"mean": MEAN, "std": STD},
        second=dict(zip(("expand", "depthwise", "project"), pairs[3:], strict=True)),
    )  # fmt: skip
    x = image if first.source == "uint8_nhwc" else normalised.astype(np.float32)
    shape = layout.activation_shape(isa, *op.output)
    schedule = dataclasses.replace(stem_pair.default_schedule(op, isa, 2), **changes)
    y = planar(isa, run(emit(op, isa, schedule=schedule), isa, [x, *constants], shape), second.cout)
    t = torch.from_numpy(normalised)
    geometry = [
        (2, 1), (first.stride, pad(first), first.dilation, first.hidden), (), (),
        (second.stride, pad(second), second.dilation, second.hidden), (),
    ]  # fmt: skip
    acts = [first.stem_act, first.act, "none", second.act, second.act, "none"]
    for act, (w, b), rest in zip(acts, pairs, geometry, strict=True):
        t = F.conv2d(t, torch.from_numpy(w).double(), torch.from_numpy(b).double(), *rest)
        t = activate(t, act)
    np.testing.assert_allclose(y, t.numpy(), atol=1e-4)


USUAL = {
    "hidden": 16, "middle": 8, "wide": 48, "cout": 16, "first": (3, 1, 1), "acts": ("relu6",) * 3,
    "source": "uint8_nhwc", "kernel": 3, "stride": 1, "dilation": 1,
}  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    h=st.integers(1, 40),
    w=st.integers(1, 70),
    hidden=st.sampled_from([13, 16, 32]),
    middle=st.sampled_from([5, 8, 16, 20]),
    wide=st.sampled_from([5, 24, 48, 60, 96]),
    cout=st.sampled_from([7, 16, 24]),
    first=st.tuples(st.sampled_from([3, 5, 7]), st.sampled_from([1, 2]), st.sampled_from([1, 2])),
    acts=st.tuples(*[ACTIVATIONS] * 3),
    source=st.sampled_from(["uint8_nhwc", "float32_nchw"]),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2, 3]),
    dilation=st.sampled_from([1, 2, 3]),
)
@example(h=1, w=1, **{**USUAL, "stride": 2})
@example(h=64, w=128, **{**USUAL, "stride": 2})
@example(h=33, w=65, **{**USUAL, "stride": 2, "middle": 16})
@example(h=12, w=20, **{**USUAL, "acts": ("hswish",) * 3})
@example(h=40, w=70, **{**USUAL, "first": (5, 2, 2), "wide": 60, "kernel": 5, "dilation": 2})
def test_matches_torch(isa, h, w, **options):
    check(isa, pair(h, w, **options))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("strip", [5, 9])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5)])
def test_strips_and_ranges_give_the_same(isa, strip, stride, kernel):
    check(isa, pair(22, 90, kernel=kernel, stride=stride), strip=strip, tasks=3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("first", "strip"), [((3, 2, 1), 11), ((5, 1, 2), 4)])
def test_strips_of_any_first_block(isa, first, strip):
    check(isa, pair(45, 178, first=first, wide=40, stride=2), strip=strip)


def test_only_what_fits():
    first = StemBlock(16, 8, 64, 128)
    with pytest.raises(ValueError, match="does not read"):
        StemPair(first, InvertedResidual(8, 48, 16, 30, 64))
    with pytest.raises(ValueError, match="residual"):
        StemPair(first, InvertedResidual(8, 48, 8, 32, 64, residual=True))


def test_the_maps_between_are_no_parameters():
    names = [param.name for param in emit(pair(64, 128), AVX2).params]
    assert names[0] == "image"
    assert names[-1] == "y"
    assert len(names) == 1 + 7 + 6 + 1
