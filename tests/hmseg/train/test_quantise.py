"""Simulated quantisation beside its definition in numpy, and what becomes of a network."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN
from hmseg.fold import fold_pairs
from hmseg.mrms_config import MRMSConfig
from hmseg.testing import random_network
from hmseg.train.quantise import (
    MOMENTUM,
    MapQuantiser,
    WeightQuantiser,
    fixed,
    is_quantised,
    quantise,
    set_momentum,
)


def some(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: np.ndarray, scale: np.ndarray, zero: float, low: int, high: int) -> np.ndarray:
    return (np.clip(np.rint(x / scale) + zero, low, high) - zero) * scale


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_int8_of_each_output_channel(axis: int):
    weight = some(5, 4, 3, 3)
    weight.select(axis, 1).mul_(100)
    weight.select(axis, 2).zero_()  # a dead channel
    found = WeightQuantiser(axis)(weight).numpy()
    x = weight.numpy().astype(np.float64)
    others = tuple({0, 1, 2, 3} - {axis})
    scale = np.abs(x).max(others, keepdims=True) / 127
    expected = rounded(x, np.where(scale, scale, 1), 0, -127, 127)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert (np.abs(found - x) <= scale * 0.5001).all()


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_maps_are_uint8_that_hold_0(shift: float):
    x = some(2, 3, 8, 8) + shift
    quantiser = MapQuantiser().train()
    found = quantiser(x, observed=True).numpy()
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    expected = rounded(x.numpy().astype(np.float64), scale, zero, 0, 255)
    assert np.abs(found - expected).max() < 1.001 * scale  # a tie may go either way
    assert (np.abs(found - expected) > 1e-4).mean() < 0.01
    assert float(quantiser(torch.zeros(1), observed=False)) == 0
    assert len(np.unique(found)) <= 256


def test_a_range_is_a_moving_average_in_training_alone():
    quantiser = MapQuantiser().train()
    maps = [some(1, 2, 4, 4, seed=seed) for seed in range(3)]
    low = high = 0.0
    for number, x in enumerate(maps):
        quantiser(x, observed=True)
        share = MOMENTUM if number else 1
        low, high = (
            old + share * (float(new) - old) for old, new in ((low, x.min()), (high, x.max()))
        )
    quantiser(100 * maps[0], observed=False)  # a map that has another's scale
    quantiser.eval()(100 * maps[0], observed=True)
    scale, zero = quantiser.scale_and_zero()
    assert float(scale) == pytest.approx((high - low) / 255)
    assert int(zero) == round(-low / float(scale))


def test_a_gradient_passes_where_nothing_saturates():
    quantiser = MapQuantiser().train()
    quantiser(torch.tensor([[0.0, 1.0]]), observed=True)
    x = torch.tensor([-1.0, 0.3, 0.9, 2.0], requires_grad=True)
    quantiser.eval()(x, observed=True).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


class Small(nn.Module):
    """A residual, a resize and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBN(3, 4, 3, stride=2)
        self.second, self.scores = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        x = x + self.second(x)
        x = nn.functional.interpolate(x, size=(7, 7), mode="bilinear")
        scores: Tensor = self.scores(x)
        return scores


def test_a_network_computes_as_numpy_does_on_the_grid():
    """Each step in float64 from the network's own scales."""
    torch.manual_seed(0)
    network = Small()
    network(some(4, 3, 16, 16))  # statistics of a batch norm
    quantised = quantise(network.eval(), "small")
    image = some(2, 3, 16, 16, seed=1)
    with torch.no_grad():
        quantised(image)
        found = quantised.eval()(image).numpy()
    state, folded = quantised.state_dict(), fold_pairs(network)

    def on_grid(x: Tensor, key: str) -> Tensor:
        low, high = (float(state[f"quantisers.{key}.range.{end}_val"]) for end in ("min", "max"))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255
        return torch.from_numpy(rounded(x.numpy(), scale, np.rint(-low / scale), 0, 255))

    def product(x: Tensor, module: nn.Conv2d) -> Tensor:
        weight = module.weight.detach().double().numpy()
        scale = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
        near = torch.from_numpy(rounded(weight, scale, 0, -127, 127))
        bias = module.bias.detach().double()
        return nn.functional.conv2d(x, near, bias, module.stride, module.padding)

    x = on_grid(product(image.double(), folded.first[0]).relu(), "first/2:relu1")
    x = on_grid(x + product(x, folded.second), ":add1")
    x = nn.functional.interpolate(x, size=(7, 7), mode="bilinear")
    x = on_grid(x, ":add1")  # the resize has its map's scale
    expected = product(x, folded.scores).numpy()
    quantum = float(np.abs(folded.scores.weight.detach().numpy()).sum()) * 0.05
    assert np.abs(found - expected).max() < quantum
    assert (np.abs(found - expected) > 1e-4).mean() < 0.1  # where a resize meets a tie


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    network = random_network(MRMSConfig(width=0.5, head="concat-lge", num_classes=3))
    quantised = quantise(network, "tiny-mrms-b")
    with torch.no_grad():
        quantised(some(2, 3, 64, 64))
    return quantised


def test_names_stay_and_batch_norms_go(ours: nn.Module):
    names = {name for name in ours.state_dict() if not name.startswith("quantisers.")}
    folded = fold_pairs(random_network(MRMSConfig(width=0.5, head="concat-lge", num_classes=3)))
    assert names == set(folded.state_dict())
    assert is_quantised(ours)
    assert not is_quantised(folded)
    assert all(parameter.requires_grad for parameter in ours.parameters())
    assert not [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]


def test_it_is_near_the_float_network_and_not_equal(ours: nn.Module):
    image = some(1, 3, 64, 64, seed=2)
    float_network = random_network(MRMSConfig(width=0.5, head="concat-lge", num_classes=3))
    with torch.no_grad():
        expected, found = float_network.eval()(image), copy.deepcopy(ours).eval()(image)
    difference = float((found - expected).abs().mean() / expected.abs().mean())
    assert 0.001 < difference < 0.3


def test_a_copy_is_quantised_by_its_own_scales_and_a_fixed_one_computes_the_same(ours: nn.Module):
    image = some(1, 3, 64, 64, seed=3)
    copied, constant = copy.deepcopy(ours).eval(), fixed(ours)
    with torch.no_grad():
        expected = copied(image)
        assert torch.equal(constant(image), expected)
        for module in ours.modules():
            if isinstance(module, MapQuantiser):
                module.range.max_val *= 2
        assert torch.equal(copied(image), expected)
        assert not torch.equal(copy.deepcopy(ours).eval()(image), expected)
        for module in ours.modules():
            if isinstance(module, MapQuantiser):
                module.range.max_val /= 2
    assert not [m for m in constant.modules() if isinstance(m, MapQuantiser | WeightQuantiser)]


def test_an_error_within_leaves_nothing_behind(ours: nn.Module):
    with pytest.raises(RuntimeError):
        ours(some(1, 4, 64, 64))
    x = some(1, 3, 8, 8)
    layer = ours.get_submodule("stem.0")
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, 2, 1))


def test_a_sequence_of_layers_is_quantised_too():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    quantised = quantise(layers, "layers")
    image = some(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(quantised(image), layers(image), rtol=0.05, atol=0.05)


def test_momentum_is_of_all_maps(ours: nn.Module):
    copied = copy.deepcopy(ours)
    set_momentum(copied, 0.5)
    ranges = [m.range.averaging_constant for m in copied.modules() if isinstance(m, MapQuantiser)]
    assert set(ranges) == {0.5}
    assert len(ranges) > 40
