"""Networks that are not ours, from a user's ONNX file to numbers: which kernels they get."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tvm

from deploy.cpu.pipeline import compile_graph, make_kernels
from deploy.gpu.kernels import GpuKernels
from deploy.graph.export import import_onnx
from deploy.graph.job import Job
from deploy.graph.reference import Reference
from deploy.targets import resolve_target
from lut.ops import Pointwise, expand
from tests.deploy import user_networks
from tests.deploy.graph.nets import operations_of, placed, placed_on_a_gpu
from tests.deploy.graphs import photo

TARGET = "x86-64-v3"


def times(count: int, operations: dict[str, int]) -> Counter[str]:
    return Counter({name: number * count for name, number in operations.items()})


# Of each network: our kernels, the operators left to TVM, and the PrimFuncs those are fused into.
EXPECTED = {
    "MobileNetV2": (
        {"stem_pair": 1, "inverted_residual": 5, "pointwise": 2, "labels_end": 1}, Counter(), 0
    ),
    "MobileNetV2Fcn": (
        {"stem": 1, "inverted_residual": 2, "pointwise": 1, "pack": 1, "unpack": 1,
         "labels_end": 1},
        Counter({"relax.nn.conv2d": 1, "relax.reshape": 1, "relax.add": 1, "relax.nn.relu": 1}), 1,
    ),
    "LrAspp": (
        # Blocks with squeeze-excite fall into single convolutions; the others fuse.
        {"stem": 1, "inverted_residual": 3, "depthwise": 2, "global_pool": 3, "pointwise": 10,
         "resize": 1, "labels_end": 1},
        times(2, {"relax.multiply": 2, "relax.add": 1, "relax.clip": 1})  # squeeze-excite
        + Counter({"relax.multiply": 1}),  # the head's gate
        3,
    ),
    "DeepLabV3Plus": (
        # The decoder's first 1x1 convolution and its second separable one are fused like a block
        # with an expansion, which leaves the last ReLU behind.
        {"stem": 1, "inverted_residual": 4, "global_pool": 1, "pointwise": 7, "resize": 2,
         "depthwise": 4, "labels_end": 1},
        Counter({"relax.nn.relu": 1, "relax.concat": 2}), 3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(EXPECTED))
def user_network(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "network.onnx"
    user_networks.save_as_user(getattr(user_networks, request.param)(), path)
    return request.param, import_onnx(path, mean=None, std=None)


def test_kernels_and_what_is_left(user_network):
    name, graph = user_network
    kernels, left, _ = EXPECTED[name]
    operations = Counter(operations_of(graph, TARGET))
    # No pack or unpack, the whole network stays in the blocked layout, but around a convolution
    # that no kernel of ours covers.
    assert {n: c for n, c in operations.items() if not n.startswith("relax.")} == kernels
    assert Counter({n: c for n, c in operations.items() if n.startswith("relax.")}) == left


def test_a_gpu_runs_the_parts_of_the_same_operations(user_network):
    name, graph = user_network
    parts = Counter(part for op in placed(graph) for part in expand(op, GpuKernels().has))
    if name == "DeepLabV3Plus":  # of the ReLU that is left behind there
        linear = Pointwise(16, 16, 16, 24)
        parts = parts - Counter([linear]) + Counter([replace(linear, act="relu")])
    assert Counter(placed_on_a_gpu(graph)) == parts


def test_numbers_and_names_of_what_is_left(user_network):
    name, graph = user_network
    target = resolve_target(TARGET)
    compiled = compile_graph(Job(graph, target, make_kernels(target, 2, {})))
    left = [kernel for kernel in compiled.kernels if kernel.template == "tvm"]
    assert len(left) == EXPECTED[name][2]
    image = photo(user_networks.SIZE)
    labels, logits = Reference(graph)(image)
    machine = compiled.load()
    tensor = tvm.runtime.tensor(image[None])
    found = machine["logits"](tensor).numpy()[0]
    assert np.abs(logits).max() > 1  # a network that says something
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())
    assert (machine["main"](tensor).numpy()[0] != labels).mean() < 1e-3
