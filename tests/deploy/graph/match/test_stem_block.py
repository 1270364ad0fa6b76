import pytest

from deploy.graph.export import import_onnx
from lut.ops import Depthwise, Elementwise, InvertedResidual, Pointwise, Stem, StemBlock
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    kernels_of,
    max_error,
    operations_of,
    placed,
    placed_on_a_gpu,
)

PLANES = "float32_nchw"


def network(*, size=(30, 44), act="relu6", depthwise_act=None, project_act="none", **options):
    net = Net(3, *size)
    first = net.conv("x", 20, 3, stride=2, act=act)
    wide = net.depthwise(first, act=depthwise_act or act, **options)
    return net, first, net.conv(wide, 10, act=project_act)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["relu", "relu6"])
@pytest.mark.parametrize(
    "options", [{}, {"kernel": 5}, {"stride": 2}, {"dilation": 2}, {"bias": False}]
)
def test_stem_and_block_become_one_kernel(options, act, target):
    net, _, y = network(act=act, **options)
    model = net.model(y)
    fields = {name: value for name, value in options.items() if name != "bias"}
    whole = StemBlock(20, 10, 30, 44, source=PLANES, stem_act=act, act=act, **fields)
    assert placed(model) == [whole]
    assert placed_on_a_gpu(model) == [whole.stem, *whole.block.parts()]
    assert kernels_of(model, target) == ["stem_block", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("acts", [("relu", "none"), ("none", "relu6"), ("sigmoid", "sigmoid")])
def test_each_activation_is_its_own(acts):
    net, _, y = network(act=acts[0], depthwise_act=acts[1])
    model = net.model(y)
    assert placed(model) == [StemBlock(20, 10, 30, 44, 3, 1, 1, PLANES, *acts)]
    assert max_error(model, "x86-64-v3") < 1e-4


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
    assert placed(model)[0] == StemBlock(20, 10, 64, 80)
    names = operations_of(model, "x86-64-v3")
    assert names[0] == "stem_block"
    assert "relax.permute_dims" not in names


@pytest.mark.parametrize("target", TARGETS)
def test_a_stem_that_is_read_elsewhere_is_written(target):
    net, first, y = network()
    model = net.model(y, first)
    stem = Stem(20, 30, 44, PLANES)
    block = InvertedResidual(20, 20, 10, 15, 22, expand=False)
    assert placed(model) == [stem, block]
    assert kernels_of(model, target)[0] == "stem"
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("options", "rest"),
    [
        (
            {"project_act": "relu"},
            [Depthwise(20, 15, 22), Pointwise(20, 10, 15, 22, "relu")],
        ),
        # At such a stride the kernel has no room for the stem's last column.
        ({"stride": 3}, [InvertedResidual(20, 20, 10, 15, 22, stride=3, expand=False)]),
    ],
    ids=["activation", "stride"],
)
def test_what_it_does_not_cover_is_left_to_other_kernels(options, rest, target):
    net, _, y = network(**options)
    model = net.model(y)
    assert placed(model) == [Stem(20, 30, 44, PLANES), *rest]
    assert kernels_of(model, target)[0] == "stem"
    assert max_error(model, target) < 1e-4


def test_a_value_that_is_read_as_it_is_and_activated_is_its_output():
    net, _, y = network()
    model = net.model(net.act(y, "relu"), y)
    activated = Elementwise(10, 15, 22, ("relu",))
    assert placed(model) == [StemBlock(20, 10, 30, 44, source=PLANES), activated]
    assert max_error(model, "x86-64-v3") < 1e-4
