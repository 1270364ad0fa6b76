"""The network that all sides run: one set of weights, batch norm folded, as ONNX and as torch.

Speed does not depend on the weights, so the networks are not trained. The statistics of the batch
norms are randomised, so that a peer that skips a layer is found, and the classes are balanced on
the image that is timed, so that agreement of the labels means something.
"""

import onnx
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

from benchmarks.peers_lib.ends import image_end
from benchmarks.peers_lib.job import Config, Job
from deploy.export import export_network, fold_batch_norm
from deploy.resolution import Resolution
from deploy.street import draw_street
from hmseg import zoo
from hmseg.mrms import MRMS

SEED = 0
BALANCED_AT = Resolution(256, 512)


def create_network(model: str) -> MRMS:
    """A zoo network in eval mode with the same random weights and statistics every time."""
    torch.manual_seed(SEED)
    network = zoo.create_model(model).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.7, 1.3)  # type: ignore[arg-type]
    image = torch.from_numpy(draw_street(BALANCED_AT))[None].permute(0, 3, 1, 2)
    with torch.no_grad():
        scores = network(normalise(image, *map(torch.from_numpy, image_end())))
        classifier = network.head.classify[1]
        classifier.bias -= scores.mean((0, 2, 3))
    return network


def normalise(image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """uint8 (1, 3, H, W) to the network's float input."""
    return image.to(torch.float32) * scale + shift


def create_graph(config: Config) -> onnx.ModelProto:
    """The folded graph with both ends that the ONNX importers are given, and our compiler too."""
    network = create_network(config.model)
    return export_network(
        network, config.model, config.size, output=config.job,
        num_classes=network.config.num_classes,
    )  # fmt: skip


def without_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of a `create_graph` of logits that takes the normalised float image."""
    last = next(n for n in model.graph.node if n.name == "hmseg_image_end_Add")
    return Extractor(model).extract_model([last.output[0]], ["logits"])


class FloatNetwork(nn.Module):
    """The folded network: normalised float (1, 3, H, W) to logits (1, K, H, W)."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.network = fold_batch_norm(create_network(model))

    def forward(self, tensor: Tensor) -> Tensor:
        logits: Tensor = self.network(tensor)
        return logits


class ImageNetwork(FloatNetwork):
    """The folded network with both ends: uint8 (1, H, W, 3) to labels (1, H, W) or logits.

    Logits are (1, K, H, W), or (1, H, W, K) with `channels_last`, as runtimes that compute in NHWC
    want it: else they end with a transposition.
    """

    def __init__(self, model: str, job: Job, *, channels_last: bool = False) -> None:
        super().__init__(model)
        self.job, self.channels_last = job, channels_last
        scale, shift = map(torch.from_numpy, image_end())
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(normalise(image.permute(0, 3, 1, 2), self.scale, self.shift))
        axis = 1
        if self.channels_last:
            logits, axis = logits.permute(0, 2, 3, 1), 3
        return logits if self.job == "logits" else logits.argmax(axis).to(torch.uint8)
