"""Products of maps as matrices, beside numpy in float64."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Tile
from deploy.cpu.kernels import emit, product
from deploy.cpu.kernels.product import ProductSchedule
from lut.ops import Product

from .helpers import ISAS, normal, planar, run

SIDES, WIDTHS = st.integers(1, 7), st.integers(1, 40)


@st.composite
def products(draw):
    """Of heads of any width, neither side turned or one."""
    turned = draw(st.sampled_from(["none", "left", "right"]))
    left, right = draw(st.tuples(SIDES, SIDES)), draw(st.tuples(SIDES, SIDES))
    rows, inner, columns = left[0] * left[1], right[0] * right[1], draw(WIDTHS)
    if turned == "left":
        left, rows = (inner, 1), draw(WIDTHS)
    elif turned == "right":
        inner, columns = draw(WIDTHS), inner
    return Product(draw(st.integers(1, 3)), rows, inner, columns, left, right, turned)


def matrices(op, x, *, turned):
    """(heads, pixels, channels) of a map, or turned (heads, channels, pixels), in float64."""
    of = x.astype(np.float64).reshape(op.heads, x.shape[1] // op.heads, -1)
    return of if turned else of.transpose(0, 2, 1)


def reference(op, a, b):
    """The product as a map."""
    left = matrices(op, a, turned=op.turned == "left")
    right = matrices(op, b, turned=op.turned == "right")
    return np.einsum("hmk,hkn->hnm", left, right).reshape(1, *op.output)


def check(isa, op, schedule=None):
    a, b = (normal(i, 1, *shape) for i, shape in enumerate(op.maps))
    expected, more, vectors = reference(op, a, b), [], []
    for step in op.then:
        if step == "add":
            more.append(normal(3, 1, *op.output))
            expected = expected + more[-1]
        elif step == "scale":
            vectors = [normal(4, op.output[0]), normal(5, op.output[0])]
            expected = expected * vectors[0][:, None, None] + vectors[1][:, None, None]
        else:
            expected = np.maximum(expected, 0)
    maps = [layout.pack_activation(isa, x) for x in (a, b, *more)]
    y = run(
        emit(op, isa, schedule=schedule), isa, maps + product.pack(op, isa, vectors),
        layout.activation_shape(isa, *op.output),
    )  # fmt: skip
    np.testing.assert_allclose(
        planar(isa, y, op.output[0]), expected, atol=3e-6 * op.inner**0.5, rtol=1e-5
    )


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(op=products())
@example(op=Product(2, 35, 16, 16, (5, 7), (4, 4)))
@example(op=Product(3, 32, 300, 32, (15, 20), (20, 15), "left"))
@example(op=Product(1, 6, 35, 21, (5, 7), (7, 5), "left"))
@example(op=Product(2, 12, 9, 35, (3, 4), (5, 7), "right"))
@example(op=Product(1, 1, 1, 1, (1, 1), (1, 1)))
def test_matches_numpy(isa, op):
    check(isa, op)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("turned", ["none", "left"])
def test_steps_follow(isa, turned):
    check(isa, Product(2, 15, 15, 32, (3, 5), (3, 5), turned, ("scale", "add", "relu")))
    check(isa, Product(1, 15, 15, 9, (3, 5), (3, 5), turned, ("add", "relu")))
    assert not product.supports(Product(2, 15, 15, 20, (3, 5), (3, 5), turned, ("relu",)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(5, 3), Tile(64, 1)])
@pytest.mark.parametrize("columns", [9, 32])
def test_any_schedule_gives_the_same(isa, tile, columns):
    check(isa, Product(3, 35, 8, columns, (5, 7), (2, 4)), ProductSchedule(tile, 2))


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_stays_in_its_row(isa):
    op = Product(2, 6, 4, 5, (2, 3), (2, 2))
    a, b = (normal(i, 1, *shape) for i, shape in enumerate(op.maps))
    a[0, 0, 1, 2] = np.nan  # of the first head's last row
    maps = [layout.pack_activation(isa, x) for x in (a, b)]
    y = run(emit(op, isa), isa, maps, layout.activation_shape(isa, *op.output))
    wrong = np.isnan(planar(isa, y, 10)[0])
    assert wrong[:5, 1, 2].all()
    assert wrong.sum() == 5


@pytest.mark.parametrize("planes", [((3, 5), (4, 4)), ((3, 4), (3, 3))])
def test_planes_have_the_matrices_sizes(planes):
    with pytest.raises(ValueError, match="planes that are not of its matrices' sizes"):
        Product(2, 15, 16 if planes[0] == (3, 4) else 9, 8, *planes)
