"""GPUs as targets: their words, architectures, precisions and errors."""

import sys

import pytest

from deploy.gpu.targets import CUDA_ARCHITECTURES
from deploy.precision import FP16, FP32
from deploy.targets import resolve_target
from lut.errors import UserError


@pytest.mark.parametrize(
    ("text", "architectures", "want"),
    [
        ("cuda", None, CUDA_ARCHITECTURES),
        ("cuda", "sm_90, sm_61,sm_90", ("sm_61", "sm_90")),
        ("nvidia/geforce-gtx-1080-ti", None, ("sm_61",)),
        ("nvidia/nvidia-h100", None, ("sm_90",)),
        ('{"kind": "cuda", "arch": "sm_86"}', None, ("sm_86",)),
        ('{"kind": "cuda"}', "sm_75", ("sm_75",)),
    ],
)
def test_cuda(text, architectures, want):
    target = resolve_target(text, architectures)
    assert (target.architecture, target.features) == ("cuda", want)
    assert target.config["arch"] == want[0]
    assert target.config["max_threads_per_block"] == 1024
    assert target.machine == ", ".join(want)


@pytest.mark.parametrize("text", ["adreno", "qcom/adreno-opencl"])
def test_adreno(text):
    target = resolve_target(text)
    assert (target.name, target.architecture, target.features) == (text, "opencl", ())
    assert target.config["kind"] == "opencl"
    assert target.machine == text


@pytest.mark.parametrize(
    ("text", "architectures", "message"),
    [
        ("cuda", "sm_13", "unknown GPU architecture 'sm_13': CUDA 12.9 knows sm_50, .*sm_61, .*"),
        ("cuda", "61", "unknown GPU architecture '61': write such as --arch sm_61,sm_90"),
        ("cuda", "", "unknown GPU architecture ''"),
        ("nvidia/tesla-k80", None, "unknown GPU architecture 'sm_37': CUDA 12.9 knows"),
        ("qcom/no-such-board", None, "no such tag; use adreno"),
        ("nvidia/no-such-card", None, "no such tag; use nvidia/geforce-gtx-1080-ti"),
        ("adreno", "sm_61", "--arch is for --target cuda, not for adreno"),
        ('{"kind": "cuda", "arch": 5}', None, "unknown GPU architecture '5'"),
    ],
)
def test_bad_gpus(text, architectures, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_target(text, architectures)
    assert "\n" not in str(caught.value)


def test_fp16():
    """Records and artifacts of the two precisions are not taken for one another."""
    half, whole = resolve_target("cuda", "sm_61", "fp16"), resolve_target("cuda", "sm_61")
    assert (half.precision, whole.precision) == (FP16, FP32)
    assert half.config == whole.config
    assert half.key != whole.key


@pytest.mark.parametrize(
    ("text", "architectures", "message"),
    [
        ("adreno", None, "--precision fp16 is for --target cuda, not for adreno"),
        ("cuda", "sm_61,sm_50", "--precision fp16 needs sm_53 or later, not sm_50"),
    ],
)
def test_no_fp16(text, architectures, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_target(text, architectures, "fp16")
    assert "\n" not in str(caught.value)


def test_the_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(UserError, match=r"needs NVRTC: pip install 'hmseg\[cuda\]'"):
        resolve_target("cuda")
