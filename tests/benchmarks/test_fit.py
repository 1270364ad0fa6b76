"""Classifiers that are fitted, on a network of one random layer and frames that are made up."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fit, precision
from benchmarks.peers_lib import cache, fitted, network
from hmseg.data.dataset import SegmentationData
from lut.errors import UserError, WorkError


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    return tmp_path / "peers" / "fitted"


def small():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 4, 1, bias=False)
    return nn.Sequential(*layers).eval()


class Stripes(SegmentationData):
    """Frames whose left half is black and whose right half is white."""

    def __init__(self):
        super().__init__(("black", "white"), "train", (), {})

    def __len__(self):
        return 3

    def load(self, index):
        labels = np.zeros((64, 128), np.uint8)
        labels[:, 64:] = 1
        labels[0] = 255  # void
        return np.where(labels == 0, 0, 200 + index)[..., None].repeat(3, -1).astype("u1"), labels


def test_ridge_is_least_squares_where_features_are_many():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 5))
    y = x @ rng.standard_normal((5, 2)) + [1, -2]
    weight, bias = fitted.ridge(x, y)
    expected = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    np.testing.assert_allclose(np.r_[weight, [bias]], expected, rtol=0.15, atol=0.01)


def test_what_is_fitted_is_read_again(monkeypatch, folder):
    made = small()
    assert fitted.fit(made, Stripes(), 2) > 0.99
    path = fitted.save_classifier(made, "mrms")
    assert path == folder / "mrms.npz" == cache.found("mrms-fitted")
    again = fitted.with_classifier(small(), "mrms-fitted")
    image = torch.zeros(1, 3, 64, 128)
    assert torch.equal(again(image), made(image))


def test_what_was_not_fitted_says_how():
    with pytest.raises(UserError, match=r"benchmarks\.fit --data CAMVID --models mrms"):
        network.create_network("mrms-fitted")
    with pytest.raises(WorkError, match="not a classifier"):
        fitted.classifier_of(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fit, "open_dataset", lambda *_: Stripes())
    monkeypatch.setattr(fit, "create", lambda *_: small())
    given = ["--data", str(tmp_path), "--models", "mrms", "--frames", "2"]
    assert fit.main(given) == 0
    assert fit.main(given) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("% of the pixels of 2 frames")
    assert second == "mrms: fitted already"
    assert {name.removesuffix(cache.FITTED) for name in precision.FITTED} >= {"mrms"}
