import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Tile
from deploy.cpu.kernels import pointwise
from deploy.cpu.kernels.pointwise import PointwiseSchedule
from deploy.grid import Scales
from lut.ops import Pointwise

from . import exact

OPERATIONS = st.builds(
    Pointwise,
    cin=st.integers(1, 70),
    cout=st.integers(1, 70),
    height=st.integers(1, 9),
    width=st.integers(1, 40),
    act=st.sampled_from(["none", "none", "relu", "relu6", "hswish"]),
    add=st.sampled_from(["none", "map", "channel"]),
    dtype=st.just("int8"),
)


def check(on, op, seed=1, schedule=None, zero=None):
    isa, _ = on
    random = exact.Random(np.random.default_rng(seed))
    x, (w, bias, scales) = (
        random.bytes(1, op.cin, op.height, op.width),
        random.weights(op.cout, op.cin),
    )
    others, maps = [], [random.scale(zero), random.scale(zero)]
    packed = []
    if op.add == "map":
        others, maps = [random.bytes(1, op.cout, op.height, op.width)], [*maps, random.scale(zero)]
        packed = [exact.pack_bytes(isa, others[0])]
    elif op.add == "channel":  # of real numbers
        others = [random.rng.standard_normal((1, op.cout, 1, 1)).astype(np.float32)]
        maps, packed = [*maps, exact.REAL], [layout.pack_activation(isa.wide, others[0])]
    constants = pointwise.pack(
        op, isa, w, bias, Scales(inputs=tuple(maps[1:]), weights=(scales,), output=maps[0])
    )
    schedule = schedule or pointwise.default_schedule(op, isa, 2)
    arrays = [exact.pack_bytes(isa, x), *packed, *constants]
    y = exact.run(pointwise.emit(op, schedule, isa), on, arrays, op.output)
    sums = np.einsum("oi,nihw->nohw", w.astype(np.int64), x.astype(np.int64) - maps[1].zero)
    sums += exact.per_channel(bias)
    add = (others[0], maps[2]) if others else None
    np.testing.assert_array_equal(y, exact.finish(sums, maps[1], scales, maps[0], op.act, add))
    return y


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(op=OPERATIONS, seed=st.integers(0, 99))
@example(op=Pointwise(13, 20, 5, 7, "hswish", "map", dtype="int8"), seed=0)
def test_is_exact(on, op, seed):
    check(on, op, seed)


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(5, 2), Tile(4, 3), Tile(36, 1)])
def test_any_schedule_gives_the_same(on, tile):
    check(on, Pointwise(20, 56, 5, 7, add="map", dtype="int8"), schedule=PointwiseSchedule(tile, 3))


@pytest.mark.parametrize("on", exact.FEW)
def test_uses_all_bytes(on):
    y = check(on, Pointwise(960, 160, 4, 8, dtype="int8"), zero=128)
    assert len(np.unique(y)) > 200
