import numpy as np
import onnx
import pytest

from deploy.graph.reference import OnnxSession, Reference
from lut.errors import UserError
from tests.deploy.graphs import deployable, photo, segmenter


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
