"""Networks that are not ours, for CUDA: what TVM's rules schedule runs beside our kernels."""

from collections import Counter

import numpy as np
import pytest

from deploy.gpu.emulator import EmulatedNetwork
from deploy.gpu.pipeline import compile_source
from deploy.graph.export import import_onnx
from deploy.graph.job import Job
from deploy.graph.reference import Reference
from deploy.targets import resolve_target
from tests.deploy import user_networks
from tests.deploy.graphs import photo

# Of each network: our kernels, launch by launch, and how many are left to TVM.
EXPECTED = {
    "MobileNetV2Fcn": ({"stem": 1, "pointwise": 5, "depthwise": 2, "labels_end": 1}, 1),
    "LrAspp": (
        {"stem": 1, "pointwise": 19, "depthwise": 5, "global_mean": 3, "resize": 1,
         "labels_end": 1},
        3,  # squeeze-excite, and the head's gate
    ),
    "DeepLabV3Plus": (
        {"stem": 1, "pointwise": 16, "depthwise": 8, "global_mean": 1, "resize": 2,
         "labels_end": 1},
        2,  # concatenations
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_users_network(name, tmp_path):
    path = tmp_path / "network.onnx"
    user_networks.save_as_user(getattr(user_networks, name)(), path)
    graph = import_onnx(path, mean=None, std=None)
    compiled = compile_source(Job(graph, resolve_target("cuda", "sm_61")))
    lowered = compiled.lowered
    image = photo(user_networks.SIZE)
    labels, logits = Reference(graph)(image)
    network = EmulatedNetwork(lowered.source, lowered.plan, lowered.constants)
    got = network.run(image, "logits").view(np.float32).reshape(logits.shape)
    np.testing.assert_allclose(got, logits, atol=1e-4 * max(1, np.abs(logits).max()))
    assert (network.run(image).reshape(labels.shape) != labels).mean() < 1e-3
    templates = {kernel.name: kernel.template for kernel in compiled.kernels}
    launched = Counter(
        templates[launch.kernel.removesuffix("_kernel")]
        for launch in lowered.plan.entries["main"].launches
    )
    ours, left = EXPECTED[name]
    assert launched == Counter(ours) + Counter({"tvm": left})
