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


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, 1), (5, 2, 2), (7, 2, 3), (3, 3, 0), (3, (2, 1), 1), (5, 2, (0, 2))],
)
@pytest.mark.parametrize("size", [(22, 45), (21, 44)])
def test_gradients_of_strided_depthwise_convolutions(kernel, stride, padding, size):
    """Beside float64; rows and columns that no stride reaches have a gradient of zero."""
    torch.manual_seed(3)
    layer = nn.Conv2d(24, 24, kernel, stride, padding, groups=24, bias=False)
    x = maps(24, *size, seed=1).requires_grad_()
    with autocast(CPU, "bfloat16"):
        y = layer(x)
    slope = maps(24, *y.shape[-2:], seed=2)
    mine = torch.autograd.grad(y, (layer.weight, x), slope)

    wide, weight = (t.detach().double().requires_grad_() for t in (x, layer.weight))
    double = F.conv2d(wide, weight, None, stride, padding, 1, 24)
    wanted = torch.autograd.grad(double, (weight, wide), slope.double())
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    for got, right in zip((y, *mine), (double, *wanted), strict=True):
        assert (got.double() - right).abs().max() < 0.01 * right.abs().max()


@pytest.mark.parametrize("wanted", ["input", "weight"])
def test_one_gradient_of_a_strided_convolution_alone(wanted: str):
    layer = nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
    layer.weight.requires_grad_(wanted == "weight")
    x = maps(8, 9, 11, 1).requires_grad_(wanted == "input")
    with autocast(CPU, "bfloat16"):
        layer(x).sum().backward()
    assert (x.grad is None) == (wanted == "weight")
    assert (layer.weight.grad is None) == (wanted == "input")


@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("size", [(9, 11), (12, 6)])
def test_dilated_convolutions_have_the_numbers_of_ordinary_ones(dilation: int, size):
    """In bfloat16 as autocast computes them, by module and by every way to write the padding."""
    layer, x = conv(8, groups=8, dilation=dilation), maps(8, *size, seed=1)
    layer.bias = nn.Parameter(torch.randn(8))
    rest = {"bias": layer.bias, "dilation": (dilation, dilation), "groups": 8}
    with torch.no_grad():
        with autocast(CPU, "bfloat16"):
            found = [layer(x)] + [
                F.conv2d(x, layer.weight, padding=padding, **rest)
                for padding in (dilation, (dilation, dilation), "same")
            ]
        weight, bias = (t.detach().bfloat16().double() for t in (layer.weight, layer.bias))
        wanted = F.conv2d(x.double(), weight, bias, 1, dilation, dilation, 8)
    for got in found:
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), wanted, atol=0.02, rtol=0.01)
        assert torch.equal(got, found[0])


@pytest.mark.parametrize(
    "rest",
    [
        {"dilation": 2},  # the map shrinks
        {"dilation": (2, 1), "padding": (2, 1)},
        {"dilation": 2, "padding": 2, "stride": 2},
    ],
)
def test_what_neither_way_takes_is_float32_and_its_result_bfloat16(rest):
    layer, x = conv(8, groups=8, dilation=2), maps(8, 9, 11, 1)
    assert (layer.weight != layer.weight.bfloat16()).any()  # or rounded weights would look alike
    with autocast(CPU, "bfloat16"), torch.no_grad():
        got = F.conv2d(x, layer.weight, groups=8, **rest)
    wanted = F.conv2d(x.float(), layer.weight, groups=8, **rest).bfloat16()
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wanted)


@pytest.mark.parametrize(
    ("rest", "planar"),
    [
        ({"stride": 2, "padding": 1, "bias": torch.ones(8)}, False),
        ({"stride": 2, "padding": 3}, False),  # more than the kernel
        ({"stride": 2, "padding": 1}, True),
    ],
)
def test_strided_convolutions_that_are_left_to_torch(rest, planar: bool):
    layer, x = conv(8, groups=8, dilation=1), maps(8, 9, 11, 1)
    x = (x.contiguous() if planar else x).requires_grad_()
    with autocast(CPU, "bfloat16"):
        got = F.conv2d(x, layer.weight, groups=8, **rest)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = F.conv2d(x, layer.weight, groups=8, **rest)
    assert torch.equal(got, wanted)
    (gradient,), (expected,) = (torch.autograd.grad(y.sum(), x) for y in (got, wanted))
    assert torch.equal(gradient, expected)


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
