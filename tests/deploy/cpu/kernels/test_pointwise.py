import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Tile
from deploy.cpu.kernels import emit, pointwise
from deploy.cpu.kernels.pointwise import PointwiseSchedule, PointwiseSpec

from .helpers import ISAS, normal, planar, run

SPECS = st.builds(
    PointwiseSpec,
    cin=st.integers(1, 70),
    cout=st.integers(1, 70),
    height=st.integers(1, 9),
    width=st.integers(1, 40),
    act=st.sampled_from(["none", "relu", "relu6"]),
    add=st.sampled_from(["none", "map", "channel"]),
)


def reference(spec, x, w, b, r):
    y = np.einsum("oi,nihw->nohw", w.astype(np.float64), x) + b[:, None, None]
    if r is not None:
        y = y + r
    top = {"none": np.inf, "relu": np.inf, "relu6": 6}[spec.act]
    return np.clip(y, -np.inf if spec.act == "none" else 0, top)


def check(isa, spec, schedule=None):
    x, b = normal(1, 1, spec.cin, spec.height, spec.width), normal(3, spec.cout)
    w = normal(2, spec.cout, spec.cin) / np.float32(spec.cin**0.5)
    size = (spec.height, spec.width) if spec.add == "map" else (1, 1)
    r = None if spec.add == "none" else normal(4, 1, spec.cout, *size)
    inputs = [layout.pack_activation(isa, a) for a in (x, r) if a is not None]
    func = emit(spec, isa, schedule=schedule)
    shape = layout.activation_shape(isa, spec.cout, spec.height, spec.width)
    y = run(func, isa, inputs + pointwise.pack(spec, isa, w, b), shape)
    expected = reference(spec, x, w, b, r)
    np.testing.assert_allclose(planar(isa, y, spec.cout), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(spec=SPECS)
def test_matches_numpy(isa, spec):
    check(isa, spec)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(5, 2), Tile(4, 3)])
def test_any_schedule_gives_the_same(isa, tile):
    check(isa, PointwiseSpec(20, 56, 5, 7, "relu6", "map"), PointwiseSchedule(tile, 3))


@pytest.mark.parametrize("isa", ISAS)
def test_wide(isa):
    check(isa, PointwiseSpec(960, 160, 2, 3))


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_passes_through(isa):
    spec = PointwiseSpec(3, 5, 2, 2, "relu6")
    x = np.zeros((1, 3, 2, 2), np.float32)
    x[0, 0, 0, 0], x[0, 0, 0, 1], x[0, 0, 1, 0] = np.nan, np.inf, -np.inf
    constants = pointwise.pack(spec, isa, np.ones((5, 3), np.float32), np.zeros(5, np.float32))
    y = run(
        emit(spec, isa),
        isa,
        [layout.pack_activation(isa, x), *constants],
        layout.activation_shape(isa, 5, 2, 2),
    )
    got = layout.unpack_activation(y, 5)[0]
    assert np.isnan(got[:, 0, 0]).all()
    assert (got[:, 0, 1] == 6).all()
    assert (got[:, 1, :] == 0).all()
