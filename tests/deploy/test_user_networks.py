"""Networks that are not ours, from a user's ONNX file to numbers: which kernels they get."""

from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from deploy.cpu.pipeline import compile_graph, make_kernels
from deploy.gpu.kernels import GpuKernels
from deploy.graph.export import import_onnx
from deploy.graph.job import Job
from deploy.graph.reference import Reference
from deploy.targets import resolve_target
from lut.ops import Activation, Conv, Depthwise, Elementwise, Pointwise, expand
from tests.deploy import user_networks
from tests.deploy.graph.nets import operations_of, placed, placed_on_a_gpu
from tests.deploy.graphs import photo

TARGET = "x86-64-v3"


# Of each network our kernels. Nothing is left to TVM, and nothing is packed or unpacked.
EXPECTED = {
    "MobileNetV2": {"stem_pair": 1, "inverted_residual": 5, "pointwise": 2, "labels_end": 1},
    "MobileNetV2Fcn": {
        "stem": 1, "inverted_residual": 2, "conv": 1, "pointwise": 1, "labels_end": 1,
    },
    "LrAspp": {
        # Blocks with squeeze-excite fall into single convolutions, the second of its own with a
        # hard sigmoid, and a product; the others fuse. The head's gate is a step.
        "stem": 1, "inverted_residual": 3, "depthwise": 2, "global_pool": 3, "pointwise": 7,
        "conv": 3, "elementwise": 2, "resample": 1, "labels_end": 1,
    },
    "DeepLabV3Plus": {
        # The decoder's first 1x1 convolution and its second separable one are fused like a block
        # with an expansion, which leaves the last ReLU behind. Concatenations are read where they
        # are.
        "stem": 1, "inverted_residual": 4, "global_pool": 1, "pointwise": 10, "resize": 2,
        "depthwise": 3, "conv": 2, "elementwise": 1, "labels_end": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=list(EXPECTED))
def user_network(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "network.onnx"
    user_networks.save_as_user(getattr(user_networks, request.param)(), path)
    return request.param, import_onnx(path, mean=None, std=None)


def test_every_operator_is_in_a_kernel(user_network):
    name, graph = user_network
    assert Counter(operations_of(graph, TARGET)) == EXPECTED[name]


def plain(op):
    """What a GPU runs of it: there are no steps but activations, no concatenated maps, and no
    windows over all channels."""
    if isinstance(op, Elementwise):
        return []
    if not isinstance(op, Conv):
        return expand(op, GpuKernels().has)
    act = op.then[0] if op.then[:1] and op.then[0] in get_args(Activation) else "none"
    size = op.height, op.width
    if op.groups == op.cout:
        return [Depthwise(op.cout, *size, op.kernel[0], act=act)]
    return [Pointwise(sum(op.cin), op.cout, *size, act)] if op.kernel == (1, 1) else []


def test_a_gpu_runs_the_parts_of_the_same_operations(user_network):
    name, graph = user_network
    parts = Counter(part for op in placed(graph) for part in plain(op))
    if name == "DeepLabV3Plus":  # of the ReLU that is left behind there
        linear = Pointwise(16, 16, 16, 24)
        parts = parts - Counter([linear]) + Counter([replace(linear, act="relu")])
    assert Counter(placed_on_a_gpu(graph)) == parts


def test_numbers_and_that_nothing_is_left(user_network):
    _, graph = user_network
    target = resolve_target(TARGET)
    compiled = compile_graph(Job(graph, target, make_kernels(target, 2, {})))
    assert not [kernel for kernel in compiled.kernels if kernel.template == "tvm"]
    image = photo(user_networks.SIZE)
    labels, logits = Reference(graph)(image)
    library = compiled.load()
    found = library.run("logits", image)
    assert np.abs(logits).max() > 1  # a network that says something
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())
    assert (library.run("main", image) != labels).mean() < 1e-3
