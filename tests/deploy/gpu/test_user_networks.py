"""Networks that are not ours, for CUDA: what TVM's rules schedule runs beside our kernels."""

from collections import Counter

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

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
    # A softmax over all pixels and layer norms: reductions of TVM's, by shuffles within a warp.
    "GlobalContext": ({"stem": 1, "pointwise": 2, "arg_max": 1}, None),
}  # fmt: skip


class GlobalContext(nn.Module):
    """One of all pixels by attention to a learnt query, added to each (arXiv 1904.11492, section
    3.2); class scores are resized by a rule that no kernel of ours has together with their arg
    max."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = user_networks.conv(3, width, 3, stride=2, act=nn.ReLU())
        self.keys = nn.Conv2d(width, 1, 1)
        self.context = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU())
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Conv2d(width, user_networks.CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        weights = self.keys(y).flatten(2).softmax(-1)  # (1, 1, pixels)
        context = self.context(weights @ y.flatten(2).transpose(1, 2))  # (1, 1, channels)
        y = self.norm(y.permute(0, 2, 3, 1) + context[:, None]).permute(0, 3, 1, 2)
        return F.interpolate(self.scores(y), x.shape[2:], mode="bilinear", align_corners=True)


def network_of(name: str) -> nn.Module:
    return GlobalContext() if name == "GlobalContext" else getattr(user_networks, name)()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_users_network(name, tmp_path):
    path = tmp_path / "network.onnx"
    user_networks.save_as_user(network_of(name), path)
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
    if left is None:  # as many as TVM fuses them to
        assert "__shfl_down_sync(" in lowered.source
        left = launched["tvm"]
    assert launched == Counter(ours) + Counter({"tvm": left})
