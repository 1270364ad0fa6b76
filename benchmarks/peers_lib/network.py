"""The network that all sides run: one set of weights, batch norm folded, as ONNX and as torch.

A name of the zoo means random weights: the statistics of the batch norms are randomised, so that a
peer that skips a layer is found, and the classes are balanced on the image that is timed, so that
agreement of the labels means something. With ``-camvid`` behind it, the released weights; with
``-fitted`` random ones with a classifier that was fitted (`benchmarks.peers_lib.fitted`).

Of all the kernels only our label end depends on the values: it fills cells whose four corners have
one class, of which random weights give far fewer than trained ones (`one_class_cells`).

Networks of `hmseg.families` are in `benchmarks.peers_lib.families`.
"""

import math

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx.utils import Extractor
from torch import Tensor, nn

from benchmarks.peers_lib.cache import FITTED
from benchmarks.peers_lib.ends import image_end
from benchmarks.peers_lib.families import create_family
from benchmarks.peers_lib.fitted import with_classifier
from benchmarks.peers_lib.job import Config
from deploy.graph.export import export_network, fold_batch_norm, fold_pairs
from deploy.resolution import Resolution
from deploy.street import draw_street
from hmseg import zoo
from hmseg.data.normalise import planes
from hmseg.mrms import MRMS

SEED = 0
TRAINED = "camvid"
BALANCED_AT = Resolution(256, 512)


def create_network(model: str) -> MRMS:
    """A zoo network in eval mode: the released weights, or the same random ones every time, with a
    fitted classifier where the name asks for it."""
    if model.endswith(FITTED):
        found = with_classifier(create_network(model.removesuffix(FITTED)), model)
        assert isinstance(found, MRMS)
        return found
    name = model.removesuffix(f"-{TRAINED}")
    if name != model:
        return zoo.create_model(name, pretrained=TRAINED).eval()
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


def create(model: str, size: Resolution) -> nn.Module:
    """A network of the zoo or of `hmseg.families`, in eval mode."""
    return create_family(model, size) if zoo.is_peer(model) else create_network(model)


def normalise(image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """uint8 (1, 3, H, W) to the network's float input."""
    return image.to(torch.float32) * scale + shift


def create_graph(config: Config) -> onnx.ModelProto:
    """The folded graph with both ends that the ONNX importers are given, and our compiler too; of a
    network of the zoo."""
    network = create_network(config.model)
    return export_network(
        network, config.model, config.size, input_kind=config.input, output=config.output,
        num_classes=network.config.num_classes,
    )  # fmt: skip


def one_class_cells(model: str, image: NDArray[np.uint8]) -> float:
    """The share of the cells of four neighbouring scores, at the classifier's resolution, whose
    corners have one class."""
    network = create_network(model)
    scores: list[Tensor] = []
    network.head.classify.register_forward_hook(lambda _module, _in, out: scores.append(out))
    with torch.no_grad():
        network(torch.from_numpy(planes(image))[None])
    winner = scores[0][0].argmax(0)
    corners = torch.stack([winner[:-1, :-1], winner[1:, :-1], winner[:-1, 1:], winner[1:, 1:]])
    return float((corners == corners[0]).all(0).float().mean())


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of the convolutions, by the paper's rule (docs/networks.md)."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    outputs = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    return sum(
        math.prod(outputs[node.output[0]]) * math.prod(weights[node.input[1]][1:])
        for node in graph.node
        if node.op_type == "Conv"
    )


def without_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of a `create_graph` of logits that takes the normalised float image."""
    last = next((n for n in model.graph.node if n.name == "hmseg_image_end_Add"), None)
    if last is None:
        return model
    return Extractor(model).extract_model([last.output[0]], ["logits"])


class FloatNetwork(nn.Module):
    """The folded network: normalised float (1, 3, H, W) to logits (1, K, H, W).

    Logits are (1, H, W, K) with `channels_last`, as runtimes that compute in NHWC want it: else
    they end with a transposition. Scores at a stride are resized to the image, as in the graph.
    """

    def __init__(self, config: Config, *, channels_last: bool = False) -> None:
        super().__init__()
        self.network = (
            fold_pairs(create_family(config.model, config.size))
            if config.exporter
            else fold_batch_norm(create_network(config.model))
        )
        self.size, self.channels_last = tuple(config.size), channels_last

    def forward(self, tensor: Tensor) -> Tensor:
        logits: Tensor = self.network(tensor)
        if tuple(logits.shape[2:]) != self.size:
            logits = F.interpolate(logits, self.size, mode="bilinear")
        return logits.permute(0, 2, 3, 1) if self.channels_last else logits


class ImageNetwork(FloatNetwork):
    """The folded network behind the image end: uint8 (1, H, W, 3) to labels (1, H, W) or logits."""

    def __init__(self, config: Config, *, channels_last: bool = False) -> None:
        super().__init__(config, channels_last=channels_last)
        self.output = config.output
        scale, shift = map(torch.from_numpy, image_end())
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(normalise(image.permute(0, 3, 1, 2), self.scale, self.shift))
        axis = 3 if self.channels_last else 1
        return logits if self.output == "logits" else logits.argmax(axis).to(torch.uint8)


def torch_network(config: Config, *, channels_last: bool = False) -> FloatNetwork:
    """What runtimes that start from torch convert for a configuration, in eval mode."""
    kind = FloatNetwork if config.input == "tensor" else ImageNetwork
    return kind(config, channels_last=channels_last).eval()
