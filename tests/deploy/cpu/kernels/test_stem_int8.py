import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu.kernels import stem, stem_block, stem_pair
from deploy.cpu.layout import pack_normalisation
from deploy.grid import Scales
from lut.ops import InvertedResidual, Stem, StemBlock, StemPair

from . import exact

MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)


def quantise(isa, image, source, scale):
    """The image as the convolution reads it, (1, 3, H, W)."""
    if source == "float32_nchw":
        return exact.narrow(exact.fma(image, 1 / scale.scale, scale.zero))
    std, mean = np.array(STD), np.array(MEAN)
    factor, shift = (
        table.reshape(-1)[:3]
        for table in pack_normalisation(
            isa, 1 / 255 / scale.scale, mean / scale.scale - scale.zero * std, std
        )
    )
    planes = image.transpose(0, 3, 1, 2).astype(np.float32)
    return exact.narrow(exact.fma(planes, exact.per_channel(factor), exact.per_channel(shift)))


def make_image(op, rng):
    image = rng.integers(0, 256, (1, op.height, op.width, 3)).astype(np.uint8)
    if op.source == "uint8_nhwc":
        return image
    return ((image / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def normalisation(op):
    return {"mean": MEAN, "std": STD} if op.source == "uint8_nhwc" else {}


def first_maps(random):
    return dataclasses.replace(random.scale(), scale=float(np.float32(0.021))), random.scale()


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    source=st.sampled_from(["uint8_nhwc", "float32_nchw"]), cout=st.integers(1, 40),
    h=st.integers(1, 30), w=st.integers(1, 70), act=st.sampled_from(["none", "relu6", "hswish"]),
)  # fmt: skip
@example("uint8_nhwc", 16, 1, 1, "none")
@example("uint8_nhwc", 32, 33, 65, "none")
def test_stem_is_exact(on, source, cout, h, w, act):
    isa, _ = on
    op = Stem(cout, h, w, source, act, "int8")
    random = exact.Random(np.random.default_rng(h * w))
    image, (weight, bias, scale) = make_image(op, random.rng), random.weights(cout, 3, 3, 3)
    x, y = first_maps(random)
    scales = Scales((x,), (scale,), y)
    constants = stem.pack(op, isa, weight, bias, **normalisation(op), scales=scales)
    func = stem.emit(op, stem.default_schedule(op, isa, 2), isa)
    got = exact.run(func, on, [image, *constants], op.output)
    q = quantise(isa, image, source, x)
    sums = exact.convolve(q, x.zero, weight, bias, 2, 1)
    np.testing.assert_array_equal(got, exact.finish(sums, x, scale, y, act))


def block(isa, random, op, image):
    """Arguments of `stem_block.pack`, and the result."""
    maps = [*first_maps(random), random.scale(), random.scale()]
    layers = {
        "first": random.weights(op.hidden, 3, 3, 3),
        "depthwise": random.weights(op.hidden, 1, op.kernel, op.kernel),
        "project": random.weights(op.cout, op.hidden),
    }
    weights = tuple(layer[2] for layer in layers.values())
    given = {name: layer[:2] for name, layer in layers.items()} | normalisation(op)
    given["scales"] = Scales(tuple(maps[:1]), weights, maps[3], tuple(maps[1:3]))
    q, pad = quantise(isa, image, op.source, maps[0]), op.dilation * (op.kernel // 2)
    windows = {"first": (2, 1), "depthwise": (op.stride, pad, op.dilation, op.hidden)}
    acts = {"first": op.stem_act, "depthwise": op.act, "project": "none"}
    for number, (name, (w, bias, scale)) in enumerate(layers.items()):
        sums = exact.convolve(q, maps[number].zero, w, bias, *windows.get(name, ()))
        q = exact.finish(sums, maps[number], scale, maps[number + 1], acts[name])
    return given, q


@pytest.mark.parametrize("on", exact.FEW)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(
    h=st.integers(1, 40), w=st.integers(1, 70), kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]), act=st.sampled_from(["none", "relu6"]),
)  # fmt: skip
def test_stem_block_is_exact(on, h, w, kernel, stride, act):
    op = StemBlock(24, 12, h, w, kernel, stride, stem_act=act, act=act, dtype="int8")
    random = exact.Random(np.random.default_rng(h * w))
    image = make_image(op, random.rng)
    given, expected = block(on[0], random, op, image)
    func = stem_block.emit(op, stem_block.default_schedule(op, on[0], 2), on[0])
    constants = stem_block.pack(op, on[0], **given)
    got = exact.run(func, on, [image, *constants], op.output)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize(("h", "w", "strip"), [(37, 50, None), (20, 90, 9)])
def test_stem_pair_is_exact(on, h, w, strip):
    isa, _ = on
    first = StemBlock(16, 8, h, w, stem_act="none", act="none", dtype="int8")
    second = InvertedResidual(8, 48, 16, *first.output[1:], stride=2, act="none", dtype="int8")
    op = StemPair(first, second)
    random = exact.Random(np.random.default_rng(7))
    image = make_image(first, random.rng)
    given, q = block(isa, random, first, image)
    maps = [given["scales"].output, random.scale(), random.scale(), random.scale()]
    layers = {
        "expand": random.weights(48, 8), "depthwise": random.weights(48, 1, 3, 3),
        "project": random.weights(16, 48),
    }  # fmt: skip
    for number, (name, (weight, bias, scale)) in enumerate(layers.items()):
        window = (2, 1, 1, 48) if name == "depthwise" else ()
        sums = exact.convolve(q, maps[number].zero, weight, bias, *window)
        q = exact.finish(sums, maps[number], scale, maps[number + 1], "none")
    weights = tuple(layer[2] for layer in layers.values())
    behind = {name: layer[:2] for name, layer in layers.items()}
    behind["scales"] = Scales(tuple(maps[:1]), weights, maps[3], tuple(maps[1:3]))
    schedule = stem_pair.default_schedule(op, isa, 2)
    if strip:
        schedule = dataclasses.replace(schedule, strip=strip)
    constants = stem_pair.pack(op, isa, first=given, second=behind)
    got = exact.run(stem_pair.emit(op, schedule, isa), on, [image, *constants], op.output)
    np.testing.assert_array_equal(got, q)
