"""What every family has in common: names, ends, finite scores."""

import pytest
import torch

from hmseg.families import create_network, list_networks
from hmseg.families.calibrate import calibrate_batch_norm, made_up_images
from lut.errors import UserError

SIZE = (64, 128)
CLASSES = 7


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown network 'bisenet-v2': did you mean bisenetv2"):
        create_network("bisenet-v2")


@pytest.mark.parametrize("name", list_networks())
def test_calibrated_scores_are_finite_and_of_a_usual_scale(name: str):
    network = create_network(name, CLASSES)
    calibrate_batch_norm(network, size=SIZE)
    images = made_up_images(4, SIZE, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        scores = network(images)
    assert scores.dtype == torch.float32
    assert scores.shape[:2] == (4, CLASSES)
    assert SIZE[0] * scores.shape[3] == SIZE[1] * scores.shape[2]
    assert scores.isfinite().all()
    # Of the images' usual one: norms of pooled vectors know six vectors, and some image is unlike.
    assert 1e-2 < scores.std(dim=(1, 2, 3)).median() < 1e2
    assert not network.training


def test_calibration_is_the_same_for_the_same_seed_and_gives_unit_scale():
    first, again, other = (create_network("ddrnet-23-slim", CLASSES) for _ in range(3))
    for network, seed in ((first, 3), (again, 3), (other, 4)):
        calibrate_batch_norm(network, seed, SIZE)
    mine, same, different = (network.state_dict() for network in (first, again, other))
    assert all(torch.equal(mine[key], same[key]) for key in mine)
    assert not all(torch.equal(mine[key], different[key]) for key in mine)

    seen = []
    for module in first.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0].std()))
    with torch.inference_mode():
        first(torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
    assert len(seen) > 50
    assert 1e-2 < min(seen) <= max(seen) < 1e2
