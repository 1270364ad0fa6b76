import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Tile
from deploy.cpu.kernels import emit, pointwise
from deploy.cpu.kernels.pointwise import PointwiseSchedule
from lut.ops import Pointwise

from .helpers import ACTIVATIONS, ISAS, activate, normal, planar, run, unpack_activation

OPERATIONS = st.builds(
    Pointwise,
    cin=st.integers(1, 70),
    cout=st.integers(1, 70),
    height=st.integers(1, 9),
    width=st.integers(1, 40),
    act=ACTIVATIONS,
    add=st.sampled_from(["none", "map", "channel"]),
)


def reference(op, x, w, b, r):
    y = np.einsum("oi,nihw->nohw", w.astype(np.float64), x) + b[:, None, None]
    if r is not None:
        y = y + r
    return activate(torch.from_numpy(y), op.act).numpy()


def check(isa, op, schedule=None):
    x, b = normal(1, 1, op.cin, op.height, op.width), normal(3, op.cout)
    w = normal(2, op.cout, op.cin) / np.float32(op.cin**0.5)
    size = (op.height, op.width) if op.add == "map" else (1, 1)
    r = None if op.add == "none" else normal(4, 1, op.cout, *size)
    inputs = [layout.pack_activation(isa, a) for a in (x, r) if a is not None]
    func = emit(op, isa, schedule=schedule)
    shape = layout.activation_shape(isa, op.cout, op.height, op.width)
    y = run(func, isa, inputs + pointwise.pack(op, isa, w, b), shape)
    expected = reference(op, x, w, b, r)
    np.testing.assert_allclose(planar(isa, y, op.cout, op.act), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(op=OPERATIONS)
@example(op=Pointwise(13, 20, 5, 7, "hswish", "map"))
def test_matches_numpy(isa, op):
    check(isa, op)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(5, 2), Tile(4, 3), Tile(36, 1)])
def test_any_schedule_gives_the_same(isa, tile):
    check(isa, Pointwise(20, 56, 5, 7, "relu6", "map"), PointwiseSchedule(tile, 3))


@pytest.mark.parametrize("isa", ISAS)
def test_wide(isa):
    check(isa, Pointwise(960, 160, 2, 3))


@pytest.mark.parametrize("isa", ISAS)
def test_weights_from_far_away(isa):
    check(isa, Pointwise(150, 300, 3, 7, "relu", "map"))  # 180 KB, asked for ahead


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_passes_through(isa):
    op = Pointwise(3, 5, 2, 2, "relu6")
    x = np.zeros((1, 3, 2, 2), np.float32)
    x[0, 0, 0, 0], x[0, 0, 0, 1], x[0, 0, 1, 0] = np.nan, np.inf, -np.inf
    constants = pointwise.pack(op, isa, np.ones((5, 3), np.float32), np.zeros(5, np.float32))
    y = run(
        emit(op, isa),
        isa,
        [layout.pack_activation(isa, x), *constants],
        layout.activation_shape(isa, 5, 2, 2),
    )
    got = unpack_activation(y, 5)[0]
    assert np.isnan(got[:, 0, 0]).all()
    assert (got[:, 0, 1] == 6).all()
    assert (got[:, 1, :] == 0).all()
