"""Parameters and MACs of the dense networks, as counted independently from the layer lists; where
authors published figures, most agree to 1%, BiSeNetV1 to 6%, BiSeNetV2 (its head) to 16%.
"""

from functools import cache

import pytest
import torch
from torch import nn

from hmseg.count import AUXILIARY_PREFIX, count_macs, count_parameters
from hmseg.families import create_network
from hmseg.families.jppnet import JOINTS, Refinement

# name, classes, millions of parameters, GMACs at a size, the networks' stride
ROWS = (
    ("segnet", 20, "29.455", "142.9", (360, 640), 1),
    ("icnet", 19, "6.700", "29.03", (1024, 2048), 4),
    ("swiftnet-r18", 19, "11.797", "103.57", (1024, 2048), 4),
    ("swiftnet-mnv2", 19, "2.369", "38.15", (1024, 2048), 4),
    ("bisenetv1-x39", 19, "1.542", "15.62", (768, 1536), 8),
    ("bisenetv1-r18", 19, "12.894", "58.34", (768, 1536), 8),
    ("bisenetv1-r18-nearest", 19, "13.341", "118.3", (1024, 2048), 8),
    ("bisenetv2", 19, "3.359", "24.60", (512, 1024), 8),
    ("ddrnet-23-slim", 19, "5.696", "36.28", (1024, 2048), 8),
    ("ddrnet-23", 19, "20.15", "143.1", (1024, 2048), 8),
    ("pidnet-s", 19, "7.626", "47.19", (1024, 2048), 8),
    # torchvision names 35,322,218 and 152.7 G with the auxiliary head: 2,365,205 and 9.99 G.
    ("fcn-r50", 21, "32.957013", "142.73", (520, 520), 8),
    # Our own list; published for the same shape: 1.5 M.
    ("hrnet-w18-small", 19, "1.541", "8.348", (512, 1024), 4),
    ("unet", 19, "31.04", "385.9", (512, 1024), 1),
    ("pp-liteseg-t", 19, "8.028", "25.69", (768, 1536), 8),
    ("pp-liteseg-b", 19, "12.234", "43.26", (768, 1536), 8),
    ("stdc1-seg", 19, "8.275", "37.94", (768, 1536), 8),
    ("stdc2-seg", 19, "12.306", "52.78", (768, 1536), 8),
    ("deeplabv2-r101", 20, "43.97", "182.9", (512, 512), 8),  # the paper's Table 3: 183.1 G
    ("jppnet", 20, "79.17", "327.0", (512, 512), 8),
    ("ce2p", 20, "66.71", "87.22", (512, 512), 4),  # Table 3: 66.7 M, 87.7 G
)
# The stride of DeepLabv2's second stage in its first 1x1, as in Caffe, or in the 3x3.
STRIDE_IN_3X3 = 256 * 128 * (128**2 - 64**2)


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
    assert shapes == [(1, classes, size[0] // stride, size[1] // stride)]


def test_deeplabv2_with_its_stride_elsewhere():
    counted = count_macs(on_meta("deeplabv2-r101", 20), 512, 512)
    assert f"{(counted + STRIDE_IN_3X3) / 1e9:.2f}" == "183.29"


def test_jppnet_with_the_refinement_of_its_pose():
    """What was counted as the whole of JPPNet; Table 3 prints 93.4 M and 374.0 G."""
    network = on_meta("jppnet", 20)
    with torch.device("meta"):
        pose = Refinement(20, nn.Conv2d(256, JOINTS, 1))
    parameters = count_parameters(pose)
    biases = sum(m.bias.numel() for m in pose.modules() if isinstance(m, nn.Conv2d))
    macs = (parameters - biases) * 64**2
    assert f"{(count_parameters(network) + parameters) / 1e6:.1f}" == "93.4"
    whole = count_macs(network, 512, 512) + macs + STRIDE_IN_3X3
    assert f"{whole / 1e9:.1f}" == "385.7"


def test_ce2p_with_its_auxiliary_outputs():
    """There the edges have two scores, found in maps at strides 4, 8 and 16."""
    network = on_meta("ce2p", 20)
    sides = 128**2, 64**2, 32**2
    decoder = 256 * 20 * sides[0]
    edges = 256 * 2 * 9 * sum(sides) + 6 * 2 * sides[0]
    assert f"{(count_macs(network, 512, 512) + decoder + edges) / 1e9:.2f}" == "87.41"
    assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}" == "66.72"


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    # What torchvision adds to its fcn_resnet50; and by the list of layers.
    [("fcn-r50", 21, 2_365_205), ("fast-scnn", 19, 64 * 32 * 9 + 64 + 33 * 19)],
)
def test_auxiliary_heads(name, classes, parameters):
    network = on_meta(name, classes)
    auxiliary = [p for n, p in network.named_parameters() if n.startswith(AUXILIARY_PREFIX)]
    assert sum(p.numel() for p in auxiliary) == parameters
