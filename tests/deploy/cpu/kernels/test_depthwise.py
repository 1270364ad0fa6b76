import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import depthwise, emit
from lut.ops import Depthwise

from .helpers import ACTIVATIONS, ISAS, activate, normal, planar, run

OPERATIONS = st.builds(
    Depthwise,
    channels=st.integers(1, 40),
    height=st.integers(1, 20),
    width=st.integers(1, 40),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3, 4]),
    act=ACTIVATIONS,
)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=7, deadline=None, derandomize=True)
@given(op=OPERATIONS)
@example(op=Depthwise(16, 7, 1))
@example(op=Depthwise(16, 1, 5, 7, 1, 4))
@example(op=Depthwise(16, 3, 50, 7, 2, 4))
@example(op=Depthwise(20, 9, 13, act="hswish"))
def test_matches_torch(isa, op):
    x = normal(1, 1, op.channels, op.height, op.width)
    w, b = normal(2, op.channels, 1, op.kernel, op.kernel), normal(3, op.channels)
    shape = layout.activation_shape(isa, *op.output)
    arrays = [layout.pack_activation(isa, x), *depthwise.pack(op, isa, w, b)]
    y = planar(isa, run(emit(op, isa), isa, arrays, shape), op.channels, op.act)
    tensors = [torch.from_numpy(a).double() for a in (x, w, b)]
    pad = op.dilation * (op.kernel // 2)
    conv = F.conv2d(*tensors, op.stride, pad, op.dilation, op.channels)
    np.testing.assert_allclose(y, activate(conv, op.act).numpy(), atol=2e-5)
