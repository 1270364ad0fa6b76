"""Functions of vectors against float64, at every magnitude, and where they end."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from deploy import ir
from deploy.cpu import functions
from deploy.cpu.rows.epilogue import function
from lut.ops import Step

from .kernels.helpers import ISAS, run

_erf = np.vectorize(math.erf, otypes=[np.float64])


def computed(isa, call: Callable, x: np.ndarray) -> np.ndarray:
    """What a function makes of the values, some of which pad the last vector."""
    lanes = isa.lanes
    padded = np.resize(x.astype(np.float32), (-(-len(x) // lanes), lanes))

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        source, sink = f.param("x", padded.shape), f.param("y", padded.shape)

        def body() -> None:
            with ir.serial(0, len(padded)) as row:
                value = ir.Registers(1, lanes)
                value[0] = ir.load(source, row, 0, lanes=lanes)
                value[0] = call(value[0], lanes)
                ir.store(sink, value[0], row, 0, lanes=lanes)

        return body

    return run(ir.prim_func("f", signature), isa, [padded], padded.shape).reshape(-1)[: len(x)]


def magnitudes(largest: float) -> np.ndarray:
    """Both signs, evenly and by powers of ten, and the edges."""
    powers = 10.0 ** np.linspace(-37, math.log10(largest), 20_000)
    even = np.linspace(0, largest, 20_000)
    positive = np.concatenate([[0.0, 1.0, largest], powers, even])
    return np.concatenate([positive, -positive]).astype(np.float32)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    size = np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    return float((np.abs(got - expected) / size).max())


@pytest.mark.parametrize("isa", ISAS)
def test_exp(isa):
    x = magnitudes(87.3)
    got = computed(isa, functions.exp, x)
    assert relative(got, np.exp(x.astype(np.float64))) <= 3e-7
    assert (got[x == 0] == 1).all()


@pytest.mark.parametrize("isa", ISAS)
def test_exp_below_zero(isa):
    x = -np.abs(magnitudes(87.3))
    got = computed(isa, functions.exp_below_zero, x)
    assert relative(got, np.exp(x.astype(np.float64))) <= 3e-7
    ends = computed(isa, functions.exp_below_zero, np.array([-np.inf, -0.0, np.nan], np.float32))
    np.testing.assert_allclose(ends, [0, 1, np.nan], atol=1.3e-38)


@pytest.mark.parametrize("isa", ISAS)
def test_exp_ends_where_float32_does(isa):
    x = np.array([-np.inf, -1e30, -100, -87.34, 88.7, 88.73, 1000, np.inf, np.nan], np.float32)
    got = computed(isa, functions.exp, x)
    assert (got[:4] > 0).all()
    assert (got[:4] < 1.3e-38).all()
    assert (got[4:8] > 3.3e38).all()
    assert np.isfinite(got[:8]).all()
    assert np.isnan(got[8])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("call", "expected", "tolerance"),
    [(functions.tanh, np.tanh, 4e-7), (functions.erf, _erf, 5e-7)],
    ids=["tanh", "erf"],
)
def test_odd_functions(isa, call, expected, tolerance):
    x = magnitudes(20)
    got = computed(isa, call, x)
    assert relative(got, expected(x.astype(np.float64))) <= tolerance
    np.testing.assert_array_equal(got, -computed(isa, call, -x))
    ends = computed(isa, call, np.array([-np.inf, np.inf, np.nan], np.float32))
    np.testing.assert_allclose(ends, [-1, 1, np.nan], rtol=tolerance)


@pytest.mark.parametrize("isa", ISAS)
def test_sigmoid(isa):
    x = magnitudes(80)
    got = computed(isa, functions.sigmoid, x)
    assert relative(got, 1 / (1 + np.exp(-x.astype(np.float64)))) <= 4e-7
    ends = computed(isa, functions.sigmoid, np.array([-np.inf, np.inf, np.nan], np.float32))
    np.testing.assert_allclose(ends, [0, 1, np.nan], atol=1e-37)


STEPS: dict[Step, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}


@pytest.mark.parametrize("isa", ISAS)
def test_softplus(isa):
    x = magnitudes(80)
    got = computed(isa, functions.softplus, x)
    assert relative(got, np.logaddexp(0, x.astype(np.float64))) <= 4e-7
    ends = computed(isa, functions.softplus, np.array([-np.inf, np.inf, np.nan], np.float32))
    np.testing.assert_allclose(ends, [0, np.inf, np.nan], atol=1e-37)


@pytest.mark.parametrize("isa", ISAS)
def test_mish_and_elu_end(isa):
    x = np.array([-80, 80, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_allclose(computed(isa, functions.mish, x), [0, *x[1:]], atol=1e-30)

    def elu(value, lanes):
        return functions.elu(value, ir.const(0.5, lanes), lanes)

    x = np.array([-np.inf, -1e30, -0.0, 0, 1e-38, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(computed(isa, elu, x), [-0.5, -0.5, *x[2:]])
    x = magnitudes(20)
    got, negative = computed(isa, elu, x), x < 0
    assert np.abs(got[negative] - 0.5 * np.expm1(x[negative].astype(np.float64))).max() <= 1e-7
    np.testing.assert_array_equal(got[~negative], x[~negative])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("step", STEPS)
def test_steps(isa, step):
    """As near as the sum with one allows, where the result is small beside the value."""
    x = magnitudes(20)
    got = computed(isa, lambda value, lanes: function(value, step, lanes), x)
    expected = STEPS[step](x.astype(np.float64))
    assert (np.abs(got - expected) <= 3e-7 * np.maximum(np.abs(x), 1e-30)).all()
