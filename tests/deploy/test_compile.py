"""From a model to a file in one call."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import hmseg
from deploy.artifact_file import load_artifact
from deploy.compile import NotCheckedWarning, compile_model
from hmseg.data.normalise import planes
from lut.errors import UserError
from tests.deploy.graphs import photo, segmenter, write


class Tiny(nn.Module):
    """Scores of 5 classes at half the size; a batch norm that only eval mode keeps still."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, image):
        return self.head(self.body(image))


def test_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, steps = Tiny(), []
    path = compile_model(module, resolution=(64, 96), threads=1, on_step=steps.append)
    assert str(path) == "Tiny-64x96.hmseg"
    assert module.training  # as it was
    network = hmseg.load(path)
    assert (network.metadata.model, network.artifact.threads) == ("Tiny", 1)
    image = photo((64, 96))
    with torch.no_grad():
        scores = module.eval()(torch.from_numpy(planes(image))[None])
        full = nn.functional.interpolate(scores, size=(64, 96), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(network.logits(image), full, atol=1e-4)
    assert network(image).shape == (64, 96)
    assert {"comparing with the file", "parity gate"} <= set(steps)
    assert load_artifact(path).parity["checked"] is True


@pytest.fixture
def user_file(tmp_path):
    return write(segmenter(), tmp_path / "mine.onnx")


def test_a_file(tmp_path, user_file):
    path = compile_model(user_file, tmp_path / "n.hmseg", output="logits", mean=[0, 0, 0])
    assert path == tmp_path / "n.hmseg"
    metadata = hmseg.load(path).metadata
    assert (metadata.output, metadata.mean) == ("logits", (0, 0, 0))


def test_what_nothing_here_runs_is_told(tmp_path, user_file, monkeypatch):
    monkeypatch.setattr("deploy.host.cpu_flags", lambda: frozenset({"pni"}))
    with pytest.warns(NotCheckedWarning, match=r"n\.hmseg was not checked: .*lacks"):
        compile_model(user_file, tmp_path / "n.hmseg", target="x86-64-v3")
    assert load_artifact(tmp_path / "n.hmseg").parity["checked"] is False


class Grey(nn.Module):
    def forward(self, image):
        raise ValueError(f"{image.shape[1]} channels\nare too many")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (3, {}, "the model is a int; give a name of the zoo, the path of an ONNX file, or a torch"),
        (Grey(), {}, "torch cannot export this Grey at 256x512"),
        (Tiny(), {"resolution": (8, 8)}, "resolution 8x8: both sides must lie between"),
        ("tiny-mrms", {"threads": 0}, "threads is 0; it must be at least 1"),
        ("tiny-mrms", {"out": "."}, "it is a folder"),
        ("tiny-mrms", {"mean": [0.5]}, "--mean and --std go with an ONNX file"),
        ("tiny-mrms", {"mean": [123.675] * 3}, "divided by 255: --mean 0.485,0.485,0.485"),
        ("tiny-mrms", {"threshold": math.inf}, "--threshold inf: it must be a finite number"),
        ("tiny-mrms", {"std": [math.nan] * 3}, "--std nan,nan,nan: the numbers must be finite"),
        ("tiny-mrms", {"input": "picture"}, "input is 'picture'; it must be one of 'image', "),
        ("tiny-mrms", {"output": "label"}, "output is 'label'; it must be one of None, 'labels', "),
        ("tiny-mrms", {"resolution": 64}, 'resolution is 64; write "HEIGHTxWIDTH" or'),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, model, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        compile_model(model, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


EARLY = """
import sys, hmseg
for model, options in (
    ("tiny-mrsm", {}), ("none.onnx", {}), ("tiny-mrms", {"target": "znver9"}),
    ("tiny-mrms", {"resolution": "64"}), ("tiny-mrms", {"precision": "fp8"}),
):
    try:
        hmseg.compile(model, **options)
    except hmseg.UserError as error:
        print(error)
print(*sorted({"torch", "tvm", "onnx", "onnxruntime"} & set(sys.modules)))
"""


def test_names_are_refused_before_anything_heavy_is_imported(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    lines = done.stdout.split("\n")
    expected = (
        "did you mean tiny-mrms",
        "none.onnx: no such file",
        "znver5",
        "'64'",
        "'fp8'",
        "",
        "",
    )
    assert len(lines) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True))
    assert lines[-2] == ""
