"""What every family has in common, by one tester: names, both modes, weights, scales, folding."""

import re

import pytest
import torch
from torch import Tensor, nn

from deploy.graph.export import fold_pairs
from hmseg import zoo
from hmseg.count import AUXILIARY_PREFIX
from hmseg.families import create_network, list_networks, summary
from hmseg.families.auxiliary import auxiliary_of, outputs_of
from hmseg.families.calibrate import calibrate_batch_norm, made_up_images
from hmseg.train.losses import BoostedLoss
from lut.errors import UserError

SIZE = (64, 64)
SIZES = {
    # Of heavy ones less, of this one more: it takes means of maps, which must not be one pixel.
    "deeplabv2-r101": (32, 32),
    "jppnet": (32, 32),
    "efficientnet-b0-unet": (64, 128),
}
CLASSES = 7


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown network 'bisenet-v2': did you mean bisenetv2"):
        create_network("bisenet-v2")


def test_no_name_is_ours_too_and_each_says_where_it_is_from():
    assert not set(list_networks()) & set(zoo.list_own())
    for name in list_networks():
        assert re.search(r"\(.*(arXiv|\b20[12]\d).*\)$", summary(name)), summary(name)
        assert len(summary(name)) < 80


@pytest.mark.parametrize("name", list_networks())
def test_every_network(name: str):
    network, size = create_network(name, CLASSES), SIZES.get(name, SIZE)
    _check_training(network, size)
    calibrate_batch_norm(network, size=size)
    images = made_up_images(size, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        _check_scores(network(images), size)
        assert not network.training
        again = create_network(name, CLASSES).eval()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(images[-1:]), network(images[-1:]))
        # In double: in float32 a deep network's rounding would hide a mistake.
        network, one = network.double(), images[-1:].double()
        expected = network(one)
        error = (fold_pairs(network)(one) - expected).abs().max() / expected.abs().max()
    assert error < 1e-9


def _check_training(network: nn.Module, size: tuple[int, int]) -> None:
    """One output for the scores and each auxiliary one, and a gradient for every parameter."""
    assert network.training
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, *size, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 1, 4, 4), generator=generator).float()
    labels = nn.functional.interpolate(labels, size)[:, 0].byte()
    outputs = outputs_of(network(images))
    auxiliary = auxiliary_of(network)
    channels = [1 if extra.target == "edges" else CLASSES for extra in auxiliary]
    assert [tuple(given.shape[:2]) for given in outputs] == [(2, c) for c in (CLASSES, *channels)]
    assert all(extra.weight > 0 for extra in auxiliary)
    loss = BoostedLoss(auxiliary=auxiliary)(outputs, labels)
    assert loss.isfinite()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def _check_scores(scores: Tensor, size: tuple[int, int]) -> None:
    assert scores.dtype == torch.float32
    assert scores.shape[:2] == (6, CLASSES)
    assert size[0] * scores.shape[3] == size[1] * scores.shape[2]
    assert scores.isfinite().all()
    scale = scores.std(dim=(1, 2, 3))
    assert 1e-2 < scale.min() <= scale.max() < 1e2


def test_calibration_is_the_same_for_the_same_seed_and_gives_unit_scale():
    first, again, other = (create_network("ddrnet-23-slim", CLASSES) for _ in range(3))
    for network, seed in ((first, 3), (again, 3), (other, 4)):
        calibrate_batch_norm(network, seed, SIZE)
    mine, same, different = (
        {k: v for k, v in network.state_dict().items() if not k.startswith(AUXILIARY_PREFIX)}
        for network in (first, again, other)
    )
    assert all(torch.equal(mine[key], same[key]) for key in mine)
    assert not all(torch.equal(mine[key], different[key]) for key in mine)

    seen = []
    for module in first.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _inputs, out: seen.append(out.std()))
    with torch.inference_mode():
        first(made_up_images(SIZE, torch.Generator().manual_seed(1)))
    assert len(seen) > 50
    assert 1e-2 < min(seen) <= max(seen) < 1e2
