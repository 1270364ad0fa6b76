import pytest

from deploy.graph.export import import_onnx
from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of


def network(*, size=(30, 44), act="relu6", project_act="none", **options):
    net = Net(3, *size)
    first = net.conv("x", 20, 3, stride=2, act=act)
    wide = net.depthwise(first, **{"act": act, **options})
    return net, first, net.conv(wide, 10, act=project_act)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["relu", "relu6"])
@pytest.mark.parametrize(
    "options", [{}, {"kernel": 5}, {"stride": 2}, {"dilation": 2}, {"bias": False}]
)
def test_stem_and_block_become_one_kernel(options, act, target):
    net, _, y = network(act=act, **options)
    model = net.model(y)
    assert kernels_of(model, target) == ["stem_block", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_no_conversion_before_the_next_block(target):
    net, _, y = network()
    hidden = net.depthwise(y, stride=2, act="relu6")  # no expansion: not a stem_pair
    model = net.model(net.conv(hidden, 16))
    assert kernels_of(model, target) == ["stem_block", "inverted_residual", "unpack"]
    assert max_error(model, target) < 1e-4


def test_reads_the_uint8_image(tmp_path):
    net, _, y = network(size=(64, 80))
    path = tmp_path / "net.onnx"
    path.write_bytes(net.model(net.conv(net.conv(y, 8, act="relu6"), 5)).SerializeToString())
    model = import_onnx(path, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    names = operations_of(model, "x86-64-v3")
    assert names[0] == "stem_block"
    assert "relax.permute_dims" not in names


@pytest.mark.parametrize("target", TARGETS)
def test_a_stem_that_is_read_elsewhere_is_written(target):
    net, first, y = network()
    model = net.model(y, first)
    assert "stem_block" not in kernels_of(model, target)
    assert kernels_of(model, target)[0] == "stem"
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("options", [{"project_act": "relu"}, {"stride": 3}])
def test_what_it_does_not_cover_is_left_to_other_kernels(options, target):
    net, _, y = network(**options)
    model = net.model(y)
    assert kernels_of(model, target)[0] == "stem"
    assert max_error(model, target) < 1e-4
