import numpy as np
import pytest
from onnx import TensorProto

from lut.ops import ArgMax, Labels, Logits, Masks, Pointwise, Resize
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    gpu_error,
    kernels_of,
    max_error,
    operations_of,
    placed,
    placed_on_a_gpu,
)


def network(*, classes=19, scores=(8, 12), size=(64, 96)):
    """Scores of a 1x1 convolution, resized."""
    net = Net(16, *scores)
    return net, net.resize(net.conv("x", classes), *size)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("classes", [2, 11, 19, 33, 150])
def test_labels_never_write_the_planes(classes, target):
    net, planes = network(classes=classes)
    model = net.model(net.argmax(planes))
    expected = [Pointwise(16, classes, 8, 12), Labels(classes, 8, 12, 64, 96)]
    assert placed(model) == placed_on_a_gpu(model) == expected
    assert kernels_of(model, target) == ["pack", "pointwise", "labels_end"]
    assert not [name for name in operations_of(model, target) if name.startswith("relax.")]
    assert max_error(model, target) == 0


def test_on_a_gpu():
    net, planes = network(size=(61, 97))
    assert gpu_error(net.model(net.argmax(planes))) == 0


def test_planes_that_are_the_second_result_are_written():
    net, planes = network()
    model = net.model(net.argmax(planes), planes)
    small = Pointwise(16, 19, 8, 12)
    labels = Labels(19, 8, 12, 64, 96)
    assert placed(model) == [small, Logits(19, 8, 12, 64, 96), labels]
    assert placed_on_a_gpu(model) == [small, Resize(19, 8, 12, 64, 96), labels]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_an_index_that_is_read_elsewhere_is_computed_as_well():
    """Of the arg max nothing is ours: its planes are a resize like any other."""
    net, planes = network()
    labels = net.argmax(planes)
    index = next(node.output[0] for node in net.nodes if node.op_type == "ArgMax")
    model = net.model(labels, net._node("Add", [index, index], 1))
    assert [op.kind for op in placed(model)] == ["pointwise", "resize", "labels_end"]
    assert operations_of(model, "x86-64-v3").count("relax.argmax") == 1
    assert max_error(model, "x86-64-v3") == 0


@pytest.mark.parametrize("target", TARGETS)
def test_of_equal_scores_the_lowest_class_wins(target):
    net, planes = network()
    for name in list(net.weights):
        if net.weights[name].dtype == np.float32:
            net.weights[name] = np.zeros_like(net.weights[name])
    assert max_error(net.model(net.argmax(planes)), target) == 0


@pytest.mark.parametrize("resize", [True, False])
def test_of_scores_at_the_images_size(resize):
    net = Net(16, 8, 12)
    planes = net.conv("x", 5)
    model = net.model(net.argmax(net.resize(planes, 8, 12) if resize else planes))
    small = Pointwise(16, 5, 8, 12)
    assert placed(model) == placed_on_a_gpu(model) == [small, ArgMax(5, 8, 12, 8, 12)]
    assert kernels_of(model, "x86-64-v3") == ["pack", "pointwise", "arg_max"]
    assert max_error(model, "x86-64-v3") == 0


def test_of_few_pixels_for_each_score():
    net, planes = network(scores=(8, 12), size=(16, 24))
    assert placed(net.model(net.argmax(planes)))[1:] == [ArgMax(19, 8, 12, 16, 24, (2, 2))]


@pytest.mark.parametrize(
    ("mode", "taps"), [("align_corners", (2, 2)), ("asymmetric", (2, 2)), ("nearest", (1, 1))]
)
def test_of_other_coordinates(mode, taps):
    net = Net(16, 8, 12)
    planes = net.resize(net.conv("x", 5), 32, 48, mode if mode != "nearest" else "half_pixel")
    if mode == "nearest":
        next(a for a in net.nodes[-1].attribute if a.name == "mode").s = b"nearest"
    model = net.model(net.argmax(planes))
    assert placed(model)[1:] == [ArgMax(5, 8, 12, 32, 48, taps)]
    # There the resize is TVM's.
    assert placed_on_a_gpu(model) == [Pointwise(16, 5, 8, 12), ArgMax(5, 32, 48, 32, 48)]
    assert max_error(model, "x86-64-v3") == 0


def test_more_than_255_classes_have_labels_of_two_bytes():
    net, planes = network(classes=300)
    index = net._node("ArgMax", [planes], 1, axis=1, keepdims=0)
    model = net.model(net._node("Cast", [index], 1, to=TensorProto.UINT16))
    assert placed(model)[1:] == [ArgMax(300, 8, 12, 64, 96, (2, 2))]
    assert max_error(model, "x86-64-v3") == 0
    # What does not hold them is not what a kernel of ours gives.
    assert placed(net.model(net.argmax(planes)))[1:] == [Resize(300, 8, 12, 64, 96)]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [(8, 12), (64, 96)])
def test_masks_by_a_threshold(classes, size):
    net = Net(16, 8, 12)
    planes = net.conv("x", classes)
    planes = planes if size == (8, 12) else net.resize(planes, *size)
    above = net._node("Greater", [planes, net.number(0.25)], classes)
    if classes == 1:
        above = net._node("Squeeze", [above, net._weight(np.array([1], np.int64))], 1)
    model = net.model(net._node("Cast", [above], classes, to=TensorProto.UINT8))
    taps = (1, 1) if size == (8, 12) else (2, 2)
    expected = [Pointwise(16, classes, 8, 12), Masks(classes, 8, 12, *size, taps, classes == 1)]
    assert placed(model) == expected
    assert kernels_of(model, "x86-64-v3") == ["pack", "pointwise", "masks"]
    assert max_error(model, "x86-64-v3") == 0
