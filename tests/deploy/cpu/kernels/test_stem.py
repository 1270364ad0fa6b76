import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import emit, stem
from lut.ops import Stem

from .helpers import ACTIVATIONS, ISAS, activate, normal, planar, run

MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", ["uint8_nhwc", "float32_nchw"])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    cout=st.integers(1, 40), h=st.integers(1, 30), w=st.integers(1, 70), act=ACTIVATIONS
)  # fmt: skip
@example(cout=16, h=1, w=1, act="relu6")
@example(cout=32, h=33, w=65, act="relu6")
@example(cout=20, h=9, w=13, act="hswish")
def test_matches_torch(isa, source, cout, h, w, act):
    op = Stem(cout, h, w, source, act)
    image = np.random.default_rng(5).integers(0, 256, (1, h, w, 3)).astype(np.uint8)
    normalised = ((image / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    weight, bias = normal(2, cout, 3, 3, 3), normal(3, cout)
    first = image if source == "uint8_nhwc" else normalised.astype(np.float32)
    arrays = [first, *stem.pack(op, isa, weight, bias, mean=MEAN, std=STD)]
    shape = layout.activation_shape(isa, *op.output)
    y = planar(isa, run(emit(op, isa), isa, arrays, shape), cout, act)
    w64, b64 = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
    # torch pads the normalised image with zeros: a black border would be -mean/std instead.
    expected = activate(F.conv2d(torch.from_numpy(normalised), w64, b64, 2, 1), act)
    np.testing.assert_allclose(y, expected.numpy(), atol=2e-5)
