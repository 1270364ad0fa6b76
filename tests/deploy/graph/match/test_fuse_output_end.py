import numpy as np
import pytest

from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of


def network(*, classes=19, scores=(8, 12), size=(64, 96)):
    """Scores of a 1x1 convolution, resized: logits and labels."""
    net = Net(16, *scores)
    logits = net.resize(net.conv("x", classes), *size)
    return net, logits


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("classes", [2, 11, 19, 33, 150])
def test_labels_never_write_the_planes(classes, target):
    net, logits = network(classes=classes)
    model = net.model(net.argmax(logits))
    assert kernels_of(model, target) == ["pack", "pointwise", "labels_end"]
    assert not [name for name in operations_of(model, target) if name.startswith("relax.")]
    assert max_error(model, target) == 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(64, 96), (61, 97), (8, 12), (5, 7)])
def test_logits(size, target):
    net, logits = network(size=size)
    model = net.model(logits)
    assert kernels_of(model, target) == ["pack", "pointwise", "logits_end"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_of_equal_scores_the_lowest_class_wins(target):
    net, logits = network()
    for name in list(net.weights):
        if net.weights[name].dtype == np.float32:
            net.weights[name] = np.zeros_like(net.weights[name])
    assert max_error(net.model(net.argmax(logits)), target) == 0


def test_scores_at_full_size_are_left_to_tvm():
    net = Net(16, 8, 12)
    model = net.model(net.argmax(net.conv("x", 5)))
    assert "relax.argmax" in operations_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") == 0
