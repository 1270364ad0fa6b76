import numpy as np
import pytest

from deploy import ir
from deploy.cpu.winograd import HalvingTransform, Transform

KINDS = [
    Transform(4, 3), Transform(2, 3), HalvingTransform(4, 3), HalvingTransform(2, 3),
    Transform(2, 5), Transform(4, 2), Transform(2, 2), HalvingTransform(2, 5), Transform(1, 1),
]  # fmt: skip


@pytest.fixture(autouse=True)
def numbers(monkeypatch):
    """The transforms' words on numbers instead of expressions."""
    monkeypatch.setattr(ir, "bind", lambda value: value)
    monkeypatch.setattr(ir, "const", lambda value, lanes: value)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_products_give_the_convolution(kind):
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(kind.points), rng.standard_normal(kind.taps)
    products = np.array(kind.inputs(list(d), 1)) * (kind.window() @ g)
    step = 2 if isinstance(kind, HalvingTransform) else 1
    expected = [d[i * step :][: kind.taps] @ g for i in range(kind.outputs)]
    np.testing.assert_allclose(kind.result(list(products), 1), expected, rtol=0, atol=1e-12)
    assert kind.window().dtype == np.float64


@pytest.mark.parametrize("kind", KINDS[:4], ids=str)
def test_fewer_products_than_taps(kind):
    assert kind.points < kind.outputs * kind.taps
