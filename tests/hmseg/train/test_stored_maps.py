"""Which maps are stored: found in small networks whose answer is known, in ours and in peers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.fold import fold_pairs
from hmseg.train.stored_maps import StoredMaps, find_stored, listen
from hmseg.zoo import create_model
from lut.errors import UserError


def stored(network: nn.Module) -> StoredMaps:
    listen(network)
    return find_stored(network, "the network")


def conv(cin: int, cout: int, kernel: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2)


class Sums(nn.Module):
    """Two ends of a residual, a gate of one pixel, two convolutions in one sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 4, 3), nn.ReLU())
        self.residual, self.gate = conv(4, 4), conv(4, 4)
        self.left, self.right = conv(4, 4), conv(4, 4)
        self.scores = conv(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        x = x + self.residual(x)
        x = self.left(x) * torch.sigmoid(self.gate(x.mean(dim=(2, 3), keepdim=True)))
        x = F.relu(self.right(x) + x)
        y: Tensor = self.left(x)
        y = y + self.right(x)
        return F.interpolate(self.scores(y), size=(32, 32))


def test_what_is_computed_on_the_way_is_not_stored():
    found = stored(Sums())
    assert list(found.maps) == [
        "first/1:relu1",
        ":add1",  # the residual, not its convolution
        ":mul1",  # the gate, not its convolution nor what has one pixel
        ":relu1",  # after the sum, whose one side is a stored map
        "left:conv2d2",  # of two products in a sum the later one's kernel adds
        ":add3",
    ]  # the scores are float, resized too
    assert {weight.name for weight in found.weights.values()} == {
        "first.0.weight", "residual.weight", "left.weight", "right.weight", "scores.weight",
    }  # fmt: skip
    assert {weight.axis for weight in found.weights.values()} == {0}


class Moves(nn.Module):
    """What has its input's scale, what is moved, what is put together, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 4), conv(4, 4)
        self.up = nn.ConvTranspose2d(12, 2, 2, stride=2)
        self.scores = conv(1, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        pooled = F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:])
        half = F.interpolate(image, scale_factor=0.5)
        y = torch.cat([x, pooled, F.interpolate(self.second(self.first(half)), scale_factor=2)], 1)
        y = self.up(y)
        scores: Tensor = self.scores(F.dropout(y.chunk(2, dim=1)[0], training=self.training))
        return scores


def test_a_resize_has_the_scale_of_its_map_unless_there_is_none():
    found = stored(Moves())
    assert found.maps == {
        "first:conv2d1": "first:conv2d1",
        ":max_pool2d1": "first:conv2d1",
        # The image has no scale; what is made of it has its own.
        ":interpolate2": ":interpolate2",
        "first:conv2d2": "first:conv2d2",
        "second:conv2d1": "second:conv2d1",
        ":cat1": ":cat1",  # and nothing that only it reads
        "up:conv_transpose2d1": "up:conv_transpose2d1",
    }
    assert {w.name: w.axis for w in found.weights.values()}["up.weight"] == 1


class OtherInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.scores = conv(3, 4), conv(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        scores: Tensor = self.scores(x if self.training else F.relu(x))
        return scores


def test_other_maps_in_training_are_refused():
    with pytest.raises(UserError, match=r"the network computes :relu1 in use, but not in training"):
        stored(OtherInTraining())


def test_our_own_network():
    found = stored(fold_pairs(create_model("tiny-mrms-b")))
    layers = [key for key in found.maps if key.startswith("stages/s2/1")]
    assert layers == [
        "stages/s2/1/expand/2:hardtanh1", "stages/s2/1/depthwise/2:hardtanh1", "stages/s2/1:add1",
    ]  # fmt: skip
    assert found.maps[":interpolate1"] == "stages/s3/2:add1"
    assert list(found.maps)[-3:] == ["head/low/2:hardtanh1", "head/high/depthwise/2:hardtanh1",
                                     "head:cat1"]  # fmt: skip
    floats = {"aux_medium.weight", "aux_low.weight", "head.high.attention.weight"}
    network = create_model("tiny-mrms-b")
    convolutions = {
        f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d)
    }
    assert convolutions - {weight.name for weight in found.weights.values()} == floats


@pytest.mark.parametrize("name", ["enet", "fast-scnn", "segformer-b0", "regseg"])
def test_peers(name: str):
    """In-place activations, unpooling, tokens, parts of maps."""
    found = stored(fold_pairs(create_model(name, num_classes=3)))
    assert len(found.weights) > 20
    assert set(found.maps.values()) <= set(found.maps)
