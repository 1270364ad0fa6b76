import numpy as np
import pytest

from deploy.cpu.pipeline import kernel_passes, make_kernels
from deploy.graph.export import import_onnx
from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(16, 24), (15, 33)])
@pytest.mark.parametrize("act", ["none", "relu", "relu6"])
def test_stem_on_a_float_tensor(act, size, target):
    net = Net(3, *size)
    model = net.model(net.conv("x", 20, 3, stride=2, act=act))
    assert kernels_of(model, target) == ["stem", "unpack"]
    assert max_error(model, target) < 1e-4


def test_stem_reads_the_uint8_image(tmp_path):
    net = Net(3, 64, 80)
    path = tmp_path / "net.onnx"
    scores = net.conv(net.conv("x", 20, 3, stride=2, act="relu6"), 5)
    path.write_bytes(net.model(scores).SerializeToString())
    model = import_onnx(path, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    names = operations_of(model, "x86-64-v3")
    assert names[0] == "stem"
    assert "relax.permute_dims" not in names
    assert "relax.astype" not in names


@pytest.mark.parametrize(
    "options", [{"kernel": 5}, {"kernel": 3, "stride": 1}, {"kernel": 3, "stride": 2, "pad": 0}]
)
def test_other_first_convolutions_are_left_to_tvm(options):
    net = Net(3, 16, 24)
    options = {"stride": 2, **options}
    model = net.model(net.conv("x", 8, **options))
    assert "stem" not in operations_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4


def test_passes_are_listed_from_larger_patterns_to_their_parts(cpu):
    names = [step.info.name for step in kernel_passes(make_kernels(cpu, 2, {}))]
    order = ["FuseLocalGlobal", "FuseInvertedResidual", "FuseUpsampleAdd", "FuseConvolution"]
    assert [name for name in names if name in order] == order
    assert names[-1] == "CancelLayouts"
    assert np.unique(names).size == len(names)
