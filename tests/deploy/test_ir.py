from typing import get_args

import numpy as np
import pytest

from deploy import ir
from lut.ops import Activation
from tests.deploy.cpu.kernels.helpers import ISAS, run

ACTS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hswish": lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
VALUES = [-np.inf, -90, -6, -1, -0.0, 0, 1e-30, 0.5, 5.999, 6, 6.001, 7, 90, 3e38, np.inf, np.nan]


def test_no_activation_is_left_out():
    assert set(ACTS) == set(get_args(Activation))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("act", ACTS)
def test_activation(isa, act):
    def signature(f):
        x, y = f.param("x", (16,)), f.param("y", (16,))

        def body():
            def part(begin, lanes):
                value = ir.activate(ir.load(x, begin, lanes=lanes), act, lanes)
                ir.store(y, value, begin, lanes=lanes)

            ir.over_tiles(16, isa.lanes, part)

        return body

    values = np.array(VALUES, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = ACTS[act](values)
    got = run(ir.prim_func("act", signature), isa, [values], (16,))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
