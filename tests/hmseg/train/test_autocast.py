"""What bfloat16 casts, and that torch's wrong gradient stays out (`hmseg/train/autocast.py`)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.train.autocast import autocast
from hmseg.zoo import create_model

CPU = torch.device("cpu")


def maps(channels: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, channels, height, width, generator=generator)
    return values.bfloat16().to(memory_format=torch.channels_last)


def conv(channels: int, *, groups: int, dilation: int, kernel: int = 3) -> nn.Conv2d:
    torch.manual_seed(3)
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    return layer.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize(("channels", "groups"), [(32, 32), (16, 4), (19, 1)])
def test_gradients_of_dilated_convolutions(channels: int, groups: int, dilation: int):
    """Beside float64. With AVX-512 torch's autocast alone is off by as much as the gradient is."""
    layer = conv(channels, groups=groups, dilation=dilation)
    x, slope = maps(channels, 22, 45, 1).requires_grad_(), maps(channels, 22, 45, 2)
    with autocast(CPU, "bfloat16"):
        y = layer(x)
    mine = torch.autograd.grad(y, (layer.weight, x), slope)

    wide, weight = (t.detach().double().requires_grad_() for t in (x, layer.weight))
    y = F.conv2d(wide, weight, None, 1, dilation, dilation, groups)
    for got, wanted in zip(
        mine, torch.autograd.grad(y, (weight, wide), slope.double()), strict=True
    ):
        error = (got.double() - wanted).abs().max() / wanted.abs().max()
        assert error < 0.01


def test_dilated_convolutions_are_float32_and_their_results_bfloat16():
    layer, x = conv(8, groups=8, dilation=2), maps(8, 9, 11, 1)
    assert (layer.weight != layer.weight.bfloat16()).any()  # or rounded weights would look alike
    with autocast(CPU, "bfloat16"), torch.no_grad():
        by_module = layer(x)
        by_keyword = F.conv2d(x, layer.weight, padding=2, dilation=(2, 2), groups=8)
    wanted = F.conv2d(x.float(), layer.weight, None, 1, 2, 2, 8).bfloat16()
    for got in (by_module, by_keyword):
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("kernel", [1, 3])
def test_other_convolutions_are_cast_as_autocast_does(kernel: int):
    layer, x = conv(8, groups=1, dilation=1, kernel=kernel), maps(8, 9, 11, 1)
    with torch.no_grad():
        with autocast(CPU, "bfloat16"):
            got = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            wanted = layer(x)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wanted)


def test_nothing_is_cast_where_bfloat16_is_not_asked_for_or_switched_off():
    layer, x = conv(8, groups=8, dilation=2), maps(8, 9, 11, 1).float()
    with autocast(CPU, "float32"):
        assert layer(x).dtype == torch.float32
    with autocast(CPU, "bfloat16"), torch.autocast("cpu", enabled=False):
        assert layer(x).dtype == torch.float32


def test_a_step_has_the_same_gradients_each_time():
    """The whole network: what `--resume` to the same bits leans on."""
    torch.manual_seed(0)
    network = create_model("tiny-mrms", num_classes=11).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 480).to(memory_format=torch.channels_last)

    def gradients() -> list[Tensor]:
        with autocast(CPU, "bfloat16"):
            outputs = network.train()(images)
        loss = sum(output.float().square().mean() for output in outputs)
        return list(torch.autograd.grad(loss, list(network.parameters())))

    first = gradients()
    for _ in range(2):
        assert all(map(torch.equal, first, gradients()))
