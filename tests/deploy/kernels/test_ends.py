import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.kernels import emit, ends, layout
from deploy.kernels.ends import EndSpec

from .helpers import ISAS, normal, run

SHAPES = {
    "classes": st.integers(2, 150),
    "h": st.integers(1, 9),
    "w": st.integers(1, 9),
    "oh": st.integers(1, 40),
    "ow": st.integers(1, 90),
}


def labels(isa, x, oh, ow):
    spec = EndSpec(*x.shape[1:], oh, ow)
    arrays = [layout.pack_activation(isa, x), *ends.pack(spec, isa)]
    return run(emit(spec, isa), isa, arrays, (1, oh, ow), "uint8")


def upsample(x, oh, ow):
    planes = torch.from_numpy(x).double()
    return F.interpolate(planes, (oh, ow), mode="bilinear", align_corners=False).numpy()


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(**SHAPES)
@example(classes=19, h=4, w=8, oh=32, ow=64)
@example(classes=2, h=1, w=1, oh=1, ow=1)
@example(classes=5, h=9, w=9, oh=3, ow=4)  # down
def test_labels(isa, classes, h, w, oh, ow):
    x = normal(1, 1, classes, h, w)
    got, planes = labels(isa, x, oh, ow), upsample(x, oh, ow)
    chosen = np.take_along_axis(planes, got[:, None].astype(np.int64), 1)[:, 0]
    # Where two classes are as good as equal, rounding may choose either.
    np.testing.assert_allclose(chosen, planes.max(1), atol=2e-6)
    assert (got != planes.argmax(1)).mean() < 0.01


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(**SHAPES)
@example(classes=19, h=4, w=8, oh=32, ow=64)
def test_logits(isa, classes, h, w, oh, ow):
    x = normal(1, 1, classes, h, w)
    spec = EndSpec(classes, h, w, oh, ow, "logits")
    arrays = [layout.pack_activation(isa, x), *ends.pack(spec, isa)]
    y = run(emit(spec, isa), isa, arrays, (1, classes, oh, ow))
    np.testing.assert_allclose(y, upsample(x, oh, ow), atol=5e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_equal_scores_give_the_lowest_class(isa):
    x = np.full((1, 20, 3, 5), 0.25, np.float32)
    assert not labels(isa, x, 24, 40).any()
    x[:, 7], x[:, 11] = 1, 1
    assert (labels(isa, x, 24, 40) == 7).all()


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_and_infinity_as_in_torch(isa):
    x = normal(3, 1, 20, 4, 6)
    x[0, 5, 1, 2], x[0, 3, 1, 2], x[0, 17, 3, 0], x[0, 9, 0, 4] = np.nan, np.nan, np.nan, np.inf
    x[0, :, 2, 5] = -np.inf
    got, planes = labels(isa, x, 32, 48), upsample(x, 32, 48)
    expected = torch.from_numpy(planes).argmax(1).numpy()
    assert (got == expected).all()
