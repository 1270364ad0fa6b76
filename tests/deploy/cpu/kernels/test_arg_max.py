import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu.kernels import arg_max, emit, masks
from lut.ops import ArgMax, Masks

from .helpers import ISAS, normal, run
from .test_maps import filled, matrix

SIZES = st.integers(1, 40)


def labels(isa, x, *tables, out=None, taps=(1, 1)):
    op = ArgMax(*x.shape[1:], *(out or x.shape[2:]), taps)
    arrays = [filled(isa, x, x.shape[1]), *arg_max.pack(op, isa, *tables)]
    dtype = "uint8" if op.classes <= arg_max.MOST_SMALL else "uint16"
    return run(emit(op, isa), isa, arrays, op.output, dtype)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(classes=st.integers(2, 60), height=st.integers(1, 5), width=SIZES)
@example(classes=19, height=4, width=32)
@example(classes=2, height=1, width=1)
@example(classes=300, height=2, width=17)
def test_of_scores_at_their_own_size(isa, classes, height, width):
    x = normal(1, 1, classes, height, width)
    assert (labels(isa, x) == x.argmax(1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("classes", "size", "out", "taps"),
    [(19, (5, 9), (20, 36), (2, 2)), (40, (9, 20), (3, 7), (4, 6)), (5, (4, 8), (8, 16), (1, 1))],
)
def test_of_scores_that_are_resampled(isa, classes, size, out, taps):
    x = normal(1, 1, classes, *size)
    rows, columns = (matrix(i, out[i], size[i], taps[i]) for i in range(2))
    planes = rows.astype(np.float64) @ x @ columns.T
    got = labels(isa, x, rows, columns, out=out, taps=taps)
    chosen = np.take_along_axis(planes, got[:, None].astype(np.int64), 1)[:, 0]
    np.testing.assert_allclose(chosen, planes.max(1), atol=2e-6)
    assert (got != planes.argmax(1)).mean() < 0.01


@pytest.mark.parametrize("isa", ISAS)
def test_equal_scores_and_no_numbers(isa):
    x = np.full((1, 36, 2, 40), 0.25, np.float32)
    x[0, 7, 0, 3] = x[0, 23, 0, 3] = 1
    x[0, 5, 1, 2], x[0, 33, 1, 2], x[0, 34, 1, 9], x[0, 0, 1, 11] = [np.nan] * 4
    x[0, 3, 1, 7], x[0, :, 1, 8] = np.inf, -np.inf
    assert (labels(isa, x) == x.argmax(1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("classes", "width"), [(1, 5), (1, 37), (5, 16), (35, 19)])
@pytest.mark.parametrize("resize", [True, False])
def test_masks(isa, classes, width, resize):
    x, taps = normal(1, 1, classes, 4, width), (2, 3) if resize else (1, 1)
    out = (9, 2 * width) if resize else (4, width)
    op = Masks(classes, 4, width, *out, taps, one=classes == 1)
    tables = [matrix(i, out[i], (4, width)[i], taps[i]) for i in range(2)] if resize else []
    arrays = [filled(isa, x, classes), *masks.pack(op, isa, 0.3, *tables)]
    shape = (1, *out) if op.one else (1, classes, *out)
    got = run(emit(op, isa), isa, arrays, shape, "uint8").reshape(1, classes, *out)
    planes = tables[0].astype(np.float64) @ x @ tables[1].T if resize else x
    assert (got == (planes > np.float32(0.3)))[np.abs(planes - 0.3) > 1e-5].all()
