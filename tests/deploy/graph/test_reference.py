import numpy as np
import onnx
import pytest

from deploy.graph.reference import OnnxSession, Reference
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import find_places
from deploy.quantise.scales import Range, grid_of
from deploy.quantise.wiring import Wiring
from lut.errors import UserError
from tests.deploy.graphs import deployable, photo, segmenter
from tests.deploy.quantise.maps import conv, graph_of


def test_labels_and_logits_of_either_kind_of_graph(tmp_path):
    image = photo()
    of_labels = Reference(deployable(segmenter(), tmp_path, "labels"))(image)
    of_logits = Reference(deployable(segmenter(), tmp_path, "logits"))(image)
    for got, expected in zip(of_labels, of_logits, strict=True):
        np.testing.assert_array_equal(got, expected)
    labels, logits = of_labels
    assert (labels.dtype, labels.shape) == (np.uint8, (64, 64))
    assert (logits.dtype, logits.shape) == (np.float32, (5, 64, 64))
    np.testing.assert_array_equal(labels, logits.argmax(0))


def test_threads_do_not_change_the_numbers(small_graph):
    image = photo()
    one, two = (OnnxSession(small_graph, threads=n).run(image)[0] for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_what_onnxruntime_refuses_is_one_clear_line(small_graph):
    model = onnx.ModelProto()
    model.CopyFrom(small_graph)
    model.graph.node[4].op_type = "NoSuchOperator"
    with pytest.raises(UserError, match="onnxruntime cannot run") as caught:
        OnnxSession(model)
    assert "\n" not in str(caught.value)


def test_weights_that_share_a_zero_point():
    """As torch's exporter writes them; onnxruntime by itself fails at the second one."""
    graph = graph_of([conv("x", "e", 3), conv("e", "y", 3)], ["y"])
    places = find_places(Wiring(graph.graph))
    apart = with_pairs(graph, places, dict.fromkeys(places.maps, grid_of(Range(-4, 4))))
    shared = onnx.ModelProto()
    shared.CopyFrom(apart)
    for node in shared.graph.node:
        if node.input[0] == "hmseg_q_1_weight":
            node.input[2] = "hmseg_q_0_weight_zero_point"
    before, x = shared.SerializeToString(), np.random.default_rng(0).normal(size=(1, 4, 8, 8))
    found, wanted = (
        OnnxSession(model).run_batch(x.astype(np.float32))[0] for model in (shared, apart)
    )
    np.testing.assert_array_equal(found, wanted)
    assert shared.SerializeToString() == before
