import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit, inverted_residual, stem_block, stem_pair
from deploy.cpu.kernels.inverted_residual import InvertedResidualSpec
from deploy.cpu.kernels.stem_block import StemBlockSpec
from deploy.cpu.kernels.stem_pair import StemPairSpec

from .helpers import ISAS, normal, planar, run

MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)


def pair(h, w, *, hidden=16, middle=8, wide=48, cout=16, first=(3, 1, 1), acts=("relu6",) * 3,
         source="uint8_nhwc", **geometry):  # fmt: skip
    """`first`: kernel, stride and dilation of the first block; `acts`: of the stem, of the first
    block, of the second."""
    first = StemBlockSpec(hidden, middle, h, w, *first, source, *acts[:2])
    size = first.block.out_height, first.block.out_width
    return StemPairSpec(
        first, InvertedResidualSpec(middle, wide, cout, *size, act=acts[2], **geometry)
    )


def check(isa, spec, **changes):
    first, second = spec.first, spec.second
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
    stem, depthwise, project = pairs[:3]
    first_constants = stem_block.pack(
        first, isa, first=stem, depthwise=depthwise, project=project, mean=MEAN, std=STD
    )
    expand, depthwise, project = pairs[3:]
    second_constants = inverted_residual.pack(
        second, isa, expand=expand, depthwise=depthwise, project=project
    )
    constants = stem_pair.pack(spec, isa, first=first_constants, second=second_constants)
    x = image if first.source == "uint8_nhwc" else normalised.astype(np.float32)
    shape = layout.activation_shape(isa, second.cout, second.out_height, second.out_width)
    schedule = dataclasses.replace(stem_pair.default_schedule(spec, isa, 2), **changes)
    y = planar(
        isa, run(emit(spec, isa, schedule=schedule), isa, [x, *constants], shape), second.cout
    )
    t = torch.from_numpy(normalised)
    geometry = [
        (2, 1), (first.stride, first.block.pad, first.dilation, first.hidden), (), (),
        (second.stride, second.pad, second.dilation, second.hidden), (),
    ]  # fmt: skip
    acts = [first.stem_act, first.act, "none", second.act, second.act, "none"]
    apply = {"relu6": F.relu6, "relu": F.relu, "none": lambda t: t}
    for act, (w, b), rest in zip(acts, pairs, geometry, strict=True):
        t = F.conv2d(t, torch.from_numpy(w).double(), torch.from_numpy(b).double(), *rest)
        t = apply[act](t)
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
    acts=st.tuples(
        *[st.sampled_from(["relu6", "relu", "none"])] * 2, st.sampled_from(["relu6", "relu"])
    ),
    source=st.sampled_from(["uint8_nhwc", "float32_nchw"]),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2, 3]),
    dilation=st.sampled_from([1, 2, 3]),
)
@example(h=1, w=1, **{**USUAL, "stride": 2})
@example(h=64, w=128, **{**USUAL, "stride": 2})
@example(h=33, w=65, **{**USUAL, "stride": 2, "middle": 16})
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
    first = StemBlockSpec(16, 8, 64, 128)
    with pytest.raises(ValueError, match="does not read"):
        StemPairSpec(first, InvertedResidualSpec(8, 48, 16, 30, 64))
    with pytest.raises(ValueError, match="residual"):
        StemPairSpec(first, InvertedResidualSpec(8, 48, 8, 32, 64, residual=True))


def test_the_maps_between_are_no_parameters():
    names = [param.name for param in emit(pair(64, 128), AVX2).params]
    assert names[0] == "image"
    assert names[-1] == "y"
    assert len(names) == 1 + 7 + 6 + 1
