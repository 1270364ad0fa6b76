"""Backbone and head against counts that were made by hand; stages of a made-up profile."""

import pytest

from deploy.paper.parts import BACKBONES, split, stages
from deploy.resolution import Resolution
from lut.errors import UserError
from lut.ops import Conv, GlobalMean, Labels, Pointwise, Resample, Stem

# GMACs and millions of parameters of the backbone alone, and of the whole.
KNOWN = {
    "bisenetv1-x39": ((768, 1536), 0.93, 0.299, 15.62, 1.542),
    "bisenetv1-r18": ((768, 1536), 42.6, 11.18, 58.34, 12.894),
    "deeplabv3plus-mobilenet-v2": ((1024, 2048), 19.04, 1.812, 133.1, 5.225),
    "df1-seg": ((1024, 2048), 31.19, 8.020, 41.56, 13.108),
}


@pytest.mark.parametrize("name", KNOWN)
def test_backbones_have_their_published_counts(name):
    size, gmacs, mparams, whole_gmacs, whole_mparams = KNOWN[name]
    backbone, head = split(name, Resolution(*size), 19)
    assert backbone.macs / 1e9 == pytest.approx(gmacs, rel=0.005)
    assert backbone.parameters / 1e6 == pytest.approx(mparams, abs=0.006)
    assert (backbone.macs + head.macs) / 1e9 == pytest.approx(whole_gmacs, rel=0.001)
    assert (backbone.parameters + head.parameters) / 1e6 == pytest.approx(whole_mparams, abs=6e-4)


def test_our_own():
    """The auxiliary outputs count for neither."""
    backbone, head = split("mrms", Resolution(768, 1536), 19)
    assert (backbone.parameters, head.parameters) == (1_811_712, 244_083)
    assert round(backbone.macs / 1e6, 2) == 6293.27
    assert round(head.macs / 1e6, 2) == 1034.05


def test_a_network_whose_parts_are_not_known(monkeypatch):
    with pytest.raises(UserError, match="enet: which of its modules"):
        split("enet", Resolution(64, 64), 19)
    monkeypatch.setitem(BACKBONES, "enet", ("spine",))
    with pytest.raises(UserError, match="enet has no module 'spine' any more"):
        split("enet", Resolution(64, 64), 19)


def kernel(operation, ms):
    return {"spec": str(operation) if operation else "", "median_ms": ms}


def test_stages():
    at_8 = Conv((32,), 32, 8, 16, (3, 3), pad=(1, 1, 1, 1))
    found = stages(
        [
            kernel(Stem(16, 64, 128), 1), kernel("tvm:0123456789abcdef", 2),
            kernel(Conv((16,), 32, 32, 64, (3, 3), (4, 4), pad=(1, 1, 1, 1)), 4), kernel(at_8, 8),
            kernel(GlobalMean(32, 8, 16), 16),  # of the stage before it
            kernel(Resample(32, 8, 16, 16, 32, (2, 2)), 32),  # enlarges
            kernel(at_8, 64), kernel(GlobalMean(32, 8, 16), 128), kernel(None, 256),
        ],
        Resolution(64, 128),
    )  # fmt: skip
    assert found == {"1/2": 1, "without a map": 2, "1/8": 28, "behind the stages": 480}


def test_stages_without_a_decoder():
    """Labels at the image's size are behind the stages too."""
    kernels = [kernel(Pointwise(3, 8, 64, 128), 1), kernel(Labels(19, 8, 16, 64, 128), 2)]
    assert stages(kernels, Resolution(64, 128)) == {"1/1": 3}
    assert stages([], Resolution(64, 128)) == {}
