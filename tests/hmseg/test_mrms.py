import random

import pytest
import torch
from torch import nn

from hmseg import create_model
from hmseg.genotype import random_genotype
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.zoo import list_own
from lut.errors import UserError


@pytest.mark.parametrize("name", list_own())
def test_forward_shapes(name):
    model = create_model(name, num_classes=5)
    image = torch.randn(2, 3, 64, 96)
    outputs = model(image)
    # At the sizes of C3, C4 and C5; the loss upsamples them.
    genotype = model.config.genotype
    medium = [side * genotype.medium_tenths // 10 for side in (8, 12)]
    low = [side * genotype.low_tenths // 10 for side in medium]
    assert [tuple(o.shape) for o in outputs] == [(2, 5, 8, 12), (2, 5, *medium), (2, 5, *low)]
    logits = model.eval()(image)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 5, 64, 96)


@pytest.mark.parametrize("size", [(64, 64), (65, 67), (360, 480), (375, 1242), (1080, 1920)])
def test_any_size_from_64(size):
    model = create_model("tiny-mrms").to("meta").eval()
    assert model(torch.empty(1, 3, *size, device="meta")).shape == (1, 19, *size)


def test_every_genotype_runs_at_the_smallest_size():
    rng = random.Random(5)
    for _ in range(5):
        model = MRMS(MRMSConfig(random_genotype(rng), 0.5, 3)).eval()
        assert torch.isfinite(model(torch.randn(1, 3, 64, 64))).all()


def test_resolutions_of_the_branches():
    model = create_model("mrms").to("meta").eval()
    c3, c4, c5 = model.features(torch.empty(1, 3, 768, 1536, device="meta"))
    assert c3.shape[1:] == (32, 96, 192)
    assert c4.shape[1:] == (96, 48, 96)
    assert c5.shape[1:] == (320, 24, 48)


def test_dilations_and_widths():
    model = create_model("tiny-mrms")
    dilation = {group: stage[0].depthwise[0].dilation[0] for group, stage in model.stages.items()}
    assert dilation == {"s1": 1, "s2": 1, "s3": 1, "s4a": 2, "s4b": 2, "s5a": 4, "s5b": 4}
    widths = [stage[0].project[0].out_channels for stage in model.stages.values()]
    assert widths == [8, 16, 16, 32, 48, 80, 160]


def test_residual_only_where_the_shape_stays():
    for block in create_model("mrms").modules():
        if hasattr(block, "residual"):
            depthwise, project = block.depthwise[0], block.project[0]
            cin = (
                block.expand[0].in_channels
                if isinstance(block.expand, nn.Sequential)
                else (depthwise.in_channels)
            )
            same = depthwise.stride == (1, 1) and cin == project.out_channels
            assert block.residual == same


def test_too_small_an_image():
    with pytest.raises(UserError, match="63x64"):
        create_model("tiny-mrms")(torch.randn(1, 3, 63, 64))
