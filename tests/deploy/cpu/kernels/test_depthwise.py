import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import depthwise, emit
from deploy.cpu.kernels.depthwise import DepthwiseSpec

from .helpers import ISAS, normal, planar, run

SPECS = st.builds(
    DepthwiseSpec,
    channels=st.integers(1, 40),
    height=st.integers(1, 20),
    width=st.integers(1, 40),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3, 4]),
    act=st.sampled_from(["none", "relu6"]),
)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=7, deadline=None, derandomize=True)
@given(spec=SPECS)
@example(spec=DepthwiseSpec(16, 7, 1))
@example(spec=DepthwiseSpec(16, 1, 5, 7, 1, 4))
@example(spec=DepthwiseSpec(16, 3, 50, 7, 2, 4))
def test_matches_torch(isa, spec):
    x = normal(1, 1, spec.channels, spec.height, spec.width)
    w, b = normal(2, spec.channels, 1, spec.kernel, spec.kernel), normal(3, spec.channels)
    window = spec.window
    shape = layout.activation_shape(isa, spec.channels, window.out_height, window.out_width)
    arrays = [layout.pack_activation(isa, x), *depthwise.pack(spec, isa, w, b)]
    y = planar(isa, run(emit(spec, isa), isa, arrays, shape), spec.channels)
    tensors = [torch.from_numpy(a).double() for a in (x, w, b)]
    conv = F.conv2d(*tensors, spec.stride, window.pad, spec.dilation, spec.channels)
    expected = F.relu6(conv) if spec.act == "relu6" else conv
    np.testing.assert_allclose(y, expected.numpy(), atol=2e-5)
