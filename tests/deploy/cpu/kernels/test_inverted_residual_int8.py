import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu.isa import AVX512_BF16, AVX512_INT8
from deploy.cpu.kernels import inverted_residual as kernel
from deploy.grid import Scales
from lut.ops import InvertedResidual

from . import exact


@st.composite
def operations(draw):
    cin = draw(st.sampled_from([3, 8, 11, 16, 24, 32]))
    expansion = draw(st.sampled_from([1, 3, 6]))
    stride = draw(st.sampled_from([1, 1, 2]))
    residual = stride == 1 and draw(st.booleans())
    return InvertedResidual(
        cin,
        cin * expansion,
        cin if residual else draw(st.sampled_from([5, 8, 16, 24, 40])),
        height=draw(st.integers(1, 24)),
        width=draw(st.integers(1, 45)),
        kernel=draw(st.sampled_from([3, 5, 7])),
        stride=stride,
        dilation=draw(st.sampled_from([1, 1, 2, 4])),
        expand=expansion > 1,
        residual=residual,
        act=draw(st.sampled_from(["none", "none", "relu6", "hswish"])),
        dtype="int8",
    )


def check(on, op, seed=1, schedule=None, threads=2):
    isa, _ = on
    random = exact.Random(np.random.default_rng(seed))
    x = random.bytes(1, op.cin, op.height, op.width)
    shapes = {
        "depthwise": (op.hidden, 1, op.kernel, op.kernel), "project": (op.cout, op.hidden),
    }  # fmt: skip
    if op.expand:
        shapes = {"expand": (op.hidden, op.cin), **shapes}
    weights = {name: random.weights(*shape) for name, shape in shapes.items()}
    maps = [random.scale() for _ in range(len(shapes) + 1)]
    scales = Scales(
        (maps[0],), tuple(w[2] for w in weights.values()), maps[-1], hidden=tuple(maps[1:-1])
    )
    pairs = {"expand": None, **{name: w[:2] for name, w in weights.items()}}
    constants = kernel.pack(op, isa, **pairs, scales=scales)
    schedule = schedule or kernel.default_schedule(op, isa, threads)
    func = kernel.emit(op, schedule, isa)
    y = exact.run(func, on, [exact.pack_bytes(isa, x), *constants], op.output)

    q, of = x, maps[0]
    pad = op.dilation * (op.kernel // 2)
    for number, (name, (w, bias, scale)) in enumerate(weights.items()):
        window = (op.stride, pad, op.dilation, op.hidden) if name == "depthwise" else ()
        sums = exact.convolve(q, of.zero, w, bias, *window)
        add = (x, maps[0]) if op.residual and name == "project" else None
        act = "none" if name == "project" else op.act
        q = exact.finish(sums, of, scale, maps[number + 1], act, add)
        of = maps[number + 1]
    np.testing.assert_array_equal(y, q)


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(op=operations(), seed=st.integers(0, 99), threads=st.sampled_from([1, 2, 3]))
@example(InvertedResidual(8, 48, 8, 1, 9, 7, 1, 4, residual=True, dtype="int8"), 1, 2)
@example(InvertedResidual(8, 48, 16, 7, 1, act="none", dtype="int8"), 1, 2)
@example(InvertedResidual(8, 8, 16, 7, 21, 5, 2, expand=False, act="none", dtype="int8"), 1, 2)
@example(InvertedResidual(8, 24, 16, 9, 21, 3, 2, 4, act="none", dtype="int8"), 1, 1)
def test_is_exact(on, op, seed, threads):
    check(on, op, seed, threads=threads)


@pytest.mark.parametrize("on", exact.ISAS[-1:])
@pytest.mark.parametrize("mode", ["rows", "hid"])
@pytest.mark.parametrize("strip", [11, 30])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 4)])
def test_both_modes_and_any_strip_give_the_same(on, mode, strip, stride, dilation):
    op = InvertedResidual(
        16, 96, 16, 13, 30, 5, stride, dilation, residual=stride == 1, act="none", dtype="int8"
    )
    schedule = kernel.default_schedule(op, on[0], 2)
    chunk, strip = 6 if mode == "rows" else 2, min(strip, op.output[2])
    check(
        on,
        op,
        schedule=dataclasses.replace(
            schedule, mode=mode, strip=strip, chunk=chunk, prefetch=8, tasks=3
        ),
    )


@pytest.mark.parametrize("on", exact.ISAS[-1:])
@pytest.mark.parametrize(("height", "dilation", "phases"), [(13, 4, 2), (3, 4, 4), (9, 2, 2)])
def test_classes_of_rows_give_the_same(on, height, dilation, phases):
    op = InvertedResidual(
        16, 96, 16, height, 10, 5, 1, dilation, residual=True, act="none", dtype="int8"
    )
    schedule = kernel.default_schedule(op, on[0], 2)
    check(
        on, op, schedule=dataclasses.replace(schedule, mode="rows", chunk=6, phases=phases, tasks=3)
    )


@pytest.mark.parametrize("isa", [AVX512_BF16, AVX512_INT8["avx512vnni"]])
def test_narrow_elements_hold_no_part_of_a_sum(isa):
    op = InvertedResidual(160, 960, 160, 64, 128)
    schedule = kernel.default_schedule(op, isa, 1)
    assert (schedule.mode, schedule.chunk) == ("rows", 60)
    with pytest.raises(ValueError, match="all 60 blocks at once"):
        kernel.emit(op, dataclasses.replace(schedule, chunk=6), isa)
