"""A network as torch's two exporters write it, in the opsets that people use."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.resolution import Resolution
from tests.deploy.reading.files import assert_same, ops

SIZE = Resolution(64, 96)


class Network(nn.Module):
    """Batch norm in three places, pooling to some bins, attention, sizes computed."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8))
        self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 24)
        self.before, self.head = nn.BatchNorm2d(16), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.stem(x))
        n, c, h, w = y.shape
        q, k, v = self.qkv(self.norm(y.flatten(2).transpose(1, 2))).split(8, -1)
        mixed = torch.softmax(q @ k.transpose(1, 2) * c**-0.5, -1) @ v
        y = self.up(F.relu6(y + mixed.transpose(1, 2).reshape(n, c, h, w)))
        pooled = F.adaptive_avg_pool2d(y, self.bins)
        pooled = F.interpolate(pooled, y.shape[2:], mode="bilinear", align_corners=False)
        scores = self.head(F.relu(self.before(torch.cat([y, pooled], 1))))
        return F.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=True)


def _export(path: Path, opset: int, *, dynamo: bool, dynamic: bool) -> onnx.ModelProto:
    torch.manual_seed(0)
    # The older exporter pools to bins that do not overlap, and where the size is dynamic to one.
    network = Network(bins=5 if dynamo else 1 if dynamic else 4).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    given = {"dynamo": dynamo, "opset_version": opset}
    if dynamic:
        given |= {"input_names": ["x"], "dynamic_axes": {"x": [0, 2, 3]}}
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.zeros(1, 3, *SIZE),), path, verbose=False, **given)
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(path)


@pytest.mark.parametrize(
    ("opset", "dynamo"), [(11, False), (17, False), (20, False), (11, True), (20, True)]
)
def test_what_torch_exports_is_read_right(tmp_path: Path, opset: int, dynamo: bool):
    dynamic = opset != 17 and not dynamo
    model = _export(tmp_path / "n.onnx", opset, dynamo=dynamo, dynamic=dynamic)
    normal = assert_same(model, SIZE)
    found = ops(normal)
    assert found.count("Conv") == 2
    assert found.count("ConvTranspose") == 1
    assert "Shape" not in found
    assert found.count("MatMul") == (5 if dynamo else 3)  # two of them pool
