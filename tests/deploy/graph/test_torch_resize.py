import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.graph.export import import_peer
from deploy.graph.torch_resize import GraphCoordinates
from deploy.resolution import Resolution
from deploy.verify import verify_torch
from hmseg.families.blocks import AtImageSize

SIZES = [((7, 9), (14, 18)), ((33, 65), (17, 31)), ((4, 1), (9, 5)), ((5, 6), (1, 1))]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "out"), SIZES)
def test_it_is_torchs_own_resize_but_for_roundings(size, out, align_corners):
    given = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    own = F.interpolate(given, size=out, mode="bilinear", align_corners=align_corners)
    with GraphCoordinates():
        found = F.interpolate(given, size=out, mode="bilinear", align_corners=align_corners)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, own, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"size": (5, 6), "mode": "nearest"},
        {"size": (5, 6), "mode": "bilinear", "antialias": True},
        {"size": 6, "mode": "bilinear"},
        {"scale_factor": 0.4, "mode": "bilinear"},
    ],
)
def test_all_else_is_torchs_own(options):
    given = torch.rand(1, 2, 16, 20, generator=torch.Generator().manual_seed(0))
    with GraphCoordinates():
        found = F.interpolate(given, **options)
    assert torch.equal(found, F.interpolate(given, **options))


class Half(nn.Module):
    """What ICNet begins with: the image at half its size, corners aligned."""

    def __init__(self, *, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.classify = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        size = int(image.shape[-2]) // 2, int(image.shape[-1]) // 2
        half = F.interpolate(image, size=size, mode="bilinear", align_corners=self.align_corners)
        scores: Tensor = self.classify(half)
        return scores


def test_a_resized_image_of_noise_is_within_the_noise_and_another_rule_is_not(tmp_path):
    """With torch's own coordinates its largest error was 29 times what is allowed."""
    torch.manual_seed(0)
    network, size = Half().eval(), Resolution(64, 1024)
    graph = import_peer(network, "half", size, 4).graph
    noise = np.random.default_rng(0).integers(0, 256, (64, 1024, 3), dtype=np.uint8)
    (same,) = verify_torch(AtImageSize(network), graph, {"noise": noise})
    assert same.passed, same
    assert same.share_of_tolerance < 0.5
    network.align_corners = False
    (other,) = verify_torch(AtImageSize(network), graph, {"noise": noise})
    assert not other.passed
