"""Parameters and MACs of the small networks: counts from the published layer lists, exact
parameters where torchvision or the authors' files state them."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hmseg.count import count_macs, count_parameters
from hmseg.families import create_network
from hmseg.families.convnext import ATTO, TINY, Trunk
from hmseg.families.df1seg import DF1

FULL = (1024, 2048)
SQUARE = (512, 512)
# name, classes, millions of parameters, GMACs at a size, the scores' stride
ROWS = (
    ("erfnet", 20, "2.064", "26.61", (512, 1024), 1),
    ("enet", 20, "0.3644", "1.727", (360, 640), 1),
    ("enet", 11, "0.3638", "5.08", (720, 960), 1),
    ("fast-scnn", 19, "1.138", "6.710", FULL, 8),
    ("dfanet-a", 19, "1.824", "3.421", (1024, 1024), 4),
    ("dfanet-b", 19, "1.098", "2.055", (1024, 1024), 4),
    ("deeplabv3-mobilenet-v2", 19, "2.113", "21.23", (1025, 2049), 16),
    ("deeplabv3plus-mobilenet-v2", 19, "5.225", "133.1", FULL, 4),
    ("deeplabv3plus-mobilenet-v2-separable", 19, "2.719", "44.72", FULL, 4),
    ("lraspp-mobilenet-v3-large", 19, "1.50555", "9.483", (1025, 2049), 8),
    ("lraspp-mobilenet-v3-large", 19, "1.50555", "9.318", FULL, 8),
    ("df1-seg", 19, "13.108", "41.56", FULL, 8),
    ("regseg", 19, "3.335", "38.35", FULL, 4),
    ("segformer-b0", 150, "3.753", "7.35", SQUARE, 4),
    ("segformer-b0", 19, "3.72", "54.39", FULL, 4),
    ("topformer-t", 150, "1.406", "0.598", SQUARE, 8),
    ("topformer-s", 150, "3.035", "1.108", SQUARE, 8),
    ("topformer-b", 150, "5.063", "1.746", SQUARE, 8),
    ("seaformer-t", 150, "1.667", "0.562", SQUARE, 8),
    ("seaformer-s", 150, "3.990", "1.030", SQUARE, 8),
    ("seaformer-b", 150, "8.606", "1.757", SQUARE, 8),
    ("seaformer-b", 19, "8.585", "13.28", FULL, 8),
)


@cache
def on_meta(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return create_network(name, classes).eval()


@pytest.mark.parametrize(("name", "classes", "millions", "gmacs", "size", "stride"), ROWS)
def test_counts(name, classes, millions, gmacs, size, stride):
    network = on_meta(name, classes)
    shapes = []
    with network.register_forward_hook(lambda _m, _inputs, scores: shapes.append(scores.shape)):
        parameters, macs = count_parameters(network), count_macs(network, *size)
    assert f"{parameters / 1e6:.{len(millions.partition('.')[2])}f}" == millions
    assert f"{macs / 1e9:.{len(gmacs.partition('.')[2])}f}" == gmacs
    assert shapes == [(1, classes, *(-(-side // stride) for side in size))]


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "stride"),
    [
        ("lraspp-mobilenet-v3-large-torchvision", 21, 3_221_538, 8),
        # With torchvision's classifier in place of the head: 2,542,856.
        ("mobilenet-v3-small", 1, 927_008 + 576 * 128 * 9 + 2 * 128 + 128 + 1, 32),
        # EfficientNet-B0 has 5,288,548 with 1280 features and 1000 classes, neither of them used.
        ("efficientnet-b0-unet", 1, 5_288_548 - 412_160 - 1_281_000 + 2_243_921, 1),
        ("u2net-p", 1, 1_131_181, 1),
    ],
)
def test_published_parameters_exactly(name, classes, parameters, stride):
    network = on_meta(name, classes)
    assert count_parameters(network) == parameters
    with torch.inference_mode():
        scores = network(torch.empty(1, 3, 256, 512, device="meta"))
    assert scores.shape == (1, classes, 256 // stride, 512 // stride)


@pytest.mark.parametrize(
    ("name", "classes", "millions", "stride"), [("dabnet", 19, 0.76, 8), ("espnet", 20, 0.364, 1)]
)
def test_published_parameters_roughly(name, classes, millions, stride):
    network = on_meta(name, classes)
    assert count_parameters(network) / 1e6 == pytest.approx(millions, rel=0.005)
    with torch.inference_mode():
        scores = network(torch.empty(1, 3, 256, 512, device="meta"))
    assert scores.shape == (1, classes, 256 // stride, 512 // stride)


def test_backbones_alone():
    with torch.device("meta"):
        df1, tiny, atto = DF1(), Trunk(TINY), Trunk(ATTO)
    classifier = 512 * 1000 + 1000
    assert f"{(count_parameters(df1) + classifier) / 1e6:.3f}" == "8.533"
    assert f"{(count_macs(df1, 224, 224) + 512 * 1000) / 1e9:.3f}" == "0.747"
    # torchvision's convnext_tiny without its last norm and its classifier
    assert count_parameters(tiny) == 28_589_128 - 2 * 768 - (768 * 1000 + 1000)
    assert f"{(count_parameters(atto) + 2 * 320 + 320 * 1000 + 1000) / 1e6:.2f}" == "3.70"


def test_attention_is_counted_apart():
    network = on_meta("segformer-b0", 150)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(1, 3, *SQUARE, device="meta"))
    attention = counter.get_total_flops() / 2 - count_macs(network, *SQUARE)
    assert f"{attention / 1e9:.2f}" == "1.04"
