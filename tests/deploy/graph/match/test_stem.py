import numpy as np
import pytest

from deploy.graph.export import import_onnx
from lut.ops import Conv, Stem
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    cpu_kernels,
    found_in,
    kernels_of,
    max_error,
    operations_of,
    placed,
    placed_on_a_gpu,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(16, 24), (15, 33)])
@pytest.mark.parametrize("act", ["none", "relu", "relu6", "hswish", "sigmoid"])
def test_on_a_float_tensor(act, size, target):
    net = Net(3, *size)
    model = net.model(net.conv("x", 20, 3, stride=2, act=act))
    assert placed(model) == placed_on_a_gpu(model) == [Stem(20, *size, "float32_nchw", act)]
    assert kernels_of(model, target) == ["stem", "unpack"]
    assert max_error(model, target) < 1e-4


def behind_the_image_end(tmp_path, **ends):
    net = Net(3, 64, 80)
    path = tmp_path / "net.onnx"
    scores = net.conv(net.conv("x", 20, 3, stride=2, act="relu6"), 5)
    path.write_bytes(net.model(scores).SerializeToString())
    return import_onnx(path, **ends)


def test_reads_the_uint8_image(tmp_path):
    """The numbers are those of whole networks: tests/deploy/test_user_networks.py."""
    model = behind_the_image_end(tmp_path, mean=MEAN, std=STD)
    assert placed(model)[0] == placed_on_a_gpu(model)[0] == Stem(20, 64, 80)
    names = operations_of(model, "x86-64-v3")
    assert names[0] == "stem"
    assert "relax.permute_dims" not in names
    assert "relax.astype" not in names
    weights = found_in(model, cpu_kernels())[0].weights
    # Of pixels from 0 to 255: (v - mean) / std.
    np.testing.assert_allclose(weights["mean"], 255 * np.array(MEAN), rtol=1e-5)
    np.testing.assert_allclose(weights["std"], 255 * np.array(STD), rtol=1e-5)


def test_behind_another_image_end_it_reads_float_planes(tmp_path):
    """Here the colours are normalised by one factor, not one for each."""
    net = Net(3, 16, 24)
    factor = net._weight(np.array(0.02, np.float32))
    model = net.model(net.conv(net._node("Mul", ["x", factor], 3), 20, 3, stride=2, act="relu"))
    assert placed(model) == placed_on_a_gpu(model) == [Stem(20, 16, 24, "float32_nchw", "relu")]
    assert "relax.multiply" in operations_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [(5, 2, 2), (3, 1, 1), (3, 2, 0)], ids=["kernel", "stride", "pad"]
)
def test_other_first_convolutions_are_no_stem(kernel, stride, pad):
    """On a CPU they are convolutions of any window; GPUs leave them to TVM."""
    net = Net(3, 16, 24)
    model = net.model(net.conv("x", 8, kernel, stride=stride, pad=pad))
    window = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "pad": (pad,) * 4}
    assert placed(model) == [Conv((3,), 8, 16, 24, **window, source="float32_nchw")]
    assert placed_on_a_gpu(model) == []
    assert operations_of(model, "x86-64-v3") == ["conv", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_a_later_convolution_of_another_width_is_no_stem():
    net = Net(4, 16, 24)
    model = net.model(net.conv("x", 8, 3, stride=2))
    window = {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1, 1, 1)}
    assert placed(model) == [Conv((4,), 8, 16, 24, **window)]
    assert placed_on_a_gpu(model) == []
    assert max_error(model, "x86-64-v3") < 1e-4
