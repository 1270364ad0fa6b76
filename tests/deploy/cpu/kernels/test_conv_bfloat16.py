"""Convolutions on maps of bfloat16, against torch in double.

Inputs and weights are bfloat16 to begin with, so that what a kernel may be off by is the rounding
of its result, one part in 256, and that of its sums in float32. Where weights and inputs are
transformed before they are rounded, both are small whole numbers, of which the transforms are
bfloat16 too.
"""

import numpy as np
import pytest
import torch
from hypothesis import example, reject, settings
from hypothesis import given as drawn

from deploy.cpu import layout
from deploy.cpu.elements import from_bfloat16, to_bfloat16
from deploy.cpu.isa import AVX512_BF16, NEON_BF16
from deploy.cpu.kernels import (
    conv_depthwise,
    conv_dilated,
    conv_direct,
    conv_multiplied,
    conv_winograd,
)
from lut.ops import Conv
from tests import conditions

from . import arm
from .helpers import normal, run, unpack_activation
from .steps import THEN, Given
from .test_conv import SAME, atrous, convolutions, far_apart, filtered, reference
from .test_windows import conv, windows

ISA = AVX512_BF16
ON_ARM = "neoverse-v2"
HALF_A_QUANTUM = 2.0**-8  # of a number, at most: seven bits lie behind the leading one
SUMS = 1e-5  # of the largest result: float32, of up to a thousand terms
on_avx512 = conditions.BF16.mark


def rounded(x):
    return from_bfloat16(to_bfloat16(x))


def whole(seed, *shape):
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


def stored(x, isa=ISA):
    return isa.element.pack(layout.pack_activation(isa, x))


def run_arm(func, isa, arrays, shape, dtype):
    return arm.run(func, ON_ARM, arrays, np.full(shape, 77, dtype))


def compute(op, module, numbers, isa=ISA, run=run):
    """What the kernel gives, and what it should."""
    xs = [rounded(numbers(i, 1, c, op.height, op.width)) for i, c in enumerate(op.cin)]
    inner = sum(op.cin) // op.groups
    w, b = rounded(numbers(7, op.cout, inner, *op.kernel)), normal(8, op.cout)
    given = Given(op.then, op.output)
    given.maps = [rounded(x) for x in given.maps]
    arrays = [stored(x, isa) for x in (*xs, *given.maps)]
    arrays += module.pack(op, isa, w, b, given.vectors)
    shape = layout.activation_shape(isa, *op.output)
    func = module.emit(op, module.default_schedule(op, isa), isa)
    y = run(func, isa, arrays, shape, isa.element.stored)
    expected = given.apply(reference(op, np.concatenate(xs, 1), w, b))
    return from_bfloat16(unpack_activation(y, op.cout)), expected


def check(op, module, numbers=normal, isa=ISA, run=run):
    y, expected = compute(op, module, numbers, isa, run)
    allowed = HALF_A_QUANTUM * np.abs(expected) + SUMS * max(1, np.abs(expected).max())
    assert (np.abs(y - expected) <= allowed).all()


@on_avx512
@settings(max_examples=8, deadline=None, derandomize=True)
@drawn(op=convolutions())
@example(op=Conv((7,), 24, 9, 17, **SAME, then=("add", "prelu", "mul_channel", "mul_pixel")))
@example(op=Conv((7,), 24, 9, 17, **SAME, then=("add_pixel", "clip", "elu")))
@example(op=Conv((20, 33), 40, 9, 17, then=("gelu", "mul")))
@example(op=Conv((64,), 64, 8, 9, **SAME, groups=4))
@example(op=Conv((7,), 5, 3, 4, (3, 3), pad=(1, 1, 2, 2), spread=(2, 2), then=("relu6",)))
@example(op=Conv((300,), 5, 3, 4, **SAME))
def test_direct(op):
    check(op, conv_direct)


@on_avx512
@pytest.mark.parametrize("source", ["uint8_nhwc", "float32_nchw"])
def test_an_images_products_are_float32(source):
    op = Conv((3,), 20, 15, 37, (5, 5), (2, 2), pad=(2, 2, 2, 2), source=source, then=("relu",))
    image = np.random.default_rng(0).integers(0, 256, (1, 15, 37, 3), np.uint8)
    planes = (image / 255.0).transpose(0, 3, 1, 2).astype(np.float32)
    w, b = normal(7, 20, 3, 5, 5), normal(8, 20)
    given = {"scale": 1 / 255} if source == "uint8_nhwc" else None
    arrays = [image if given else planes, *conv_direct.pack(op, ISA, w, b, [], given)]
    func = conv_direct.emit(op, conv_direct.default_schedule(op, ISA), ISA)
    y = run(func, ISA, arrays, layout.activation_shape(ISA, *op.output), "uint16")
    expected = Given(op.then, op.output).apply(reference(op, planes, w, b))
    y = from_bfloat16(unpack_activation(y, 20))
    assert (np.abs(y - expected) <= HALF_A_QUANTUM * np.abs(expected) + 3e-5).all()


@on_avx512
@settings(max_examples=6, deadline=None, derandomize=True)
@drawn(op=far_apart())
@example(op=atrous(40, (16, 32), 18, then=("add", "relu")))
@example(op=atrous(64, (16, 32), 14, groups=4))
@example(op=atrous(21, (9, 17), 6))
def test_dilated(op):
    check(op, conv_dilated)


@on_avx512
@settings(max_examples=8, deadline=None, derandomize=True)
@drawn(op=filtered(dtype="bfloat16"))
@example(op=Conv((20, 33), 40, 9, 17, **SAME, then=("add", "gelu"), dtype="bfloat16"))
@example(op=Conv((21, 17), 40, 19, 34, **SAME, stride=(2, 2), then=("add",), dtype="bfloat16"))
@example(op=Conv((64,), 32, 9, 17, **SAME, groups=2, dtype="bfloat16"))
def test_winograd_of_whole_numbers(op):
    check(op, conv_winograd, whole)


@on_avx512
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_winograd_rounds_at_most_twice_as_much_as_the_plain_sum(stride):
    """Root mean square, with the rounding of the result; weights are float32 to begin with."""
    op = Conv((64,), 32, 33, 34, **SAME, stride=stride, dtype="bfloat16")
    x, w = rounded(np.maximum(normal(1, 1, 64, 33, 34), 0)), normal(2, 32, 64, 3, 3) / 24
    zeros = np.zeros(32, np.float32)
    expected = reference(op, x, w, zeros).numpy()
    errors = []
    for module in (conv_winograd, conv_direct):
        func = module.emit(op, module.default_schedule(op, ISA), ISA)
        arrays = [stored(x), *module.pack(op, ISA, w, zeros, [])]
        y = run(func, ISA, arrays, layout.activation_shape(ISA, *op.output), "uint16")
        errors.append(np.square(from_bfloat16(unpack_activation(y, 32)) - expected).mean())
    assert errors[0] <= 4 * errors[1]


@on_avx512
@pytest.mark.parametrize(("times", "module"), [(1, conv_depthwise), (3, conv_multiplied)])
@settings(max_examples=4, deadline=None, derandomize=True)
@drawn(op=windows(conv), then=THEN)
@example(op=conv(20, 9, 33, (7, 7), pad=(3, 3, 3, 3)), then=("swish",))
@example(op=conv(16, 12, 40, (3, 3), (2, 2), pad=(1, 1, 1, 1)), then=("add", "relu"))
def test_each_channel_by_itself(times, module, op, then):
    op = Conv(**{**vars(op), "cout": op.cout * times, "then": then})
    check(op, module) if module.supports(op) else reject()


@conditions.QEMU.mark
@pytest.mark.parametrize(
    ("op", "module", "numbers"),
    [
        (Conv((7, 5), 6, 5, 9, **SAME, then=("add", "gelu")), conv_direct, normal),
        (atrous(5, (9, 17), 6), conv_dilated, normal),
        (Conv((17,), 18, 9, 10, **SAME, then=("relu",), dtype="bfloat16"), conv_winograd, whole),
        (Conv((17,), 18, 9, 10, **SAME, stride=(2, 2), dtype="bfloat16"), conv_winograd, whole),
        (conv(6, 5, 9, (3, 3), pad=(1, 1, 1, 1)), conv_depthwise, normal),
    ],
    ids=["direct", "dilated", "winograd", "halving", "depthwise"],
)
def test_on_arm(op, module, numbers):
    check(op, module, numbers, NEON_BF16, run_arm)


def test_torch_rounds_the_same():
    x = normal(1, 1000)
    assert (rounded(x) == torch.from_numpy(x).bfloat16().float().numpy()).all()
