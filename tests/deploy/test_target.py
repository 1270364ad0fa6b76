import json

from deploy.precision import FP16
from deploy.target import Target


def test_the_key_tells_code_generation_apart_and_nothing_else():
    first = Target("a", {"x": 1, "y": 2}, "z", ())
    assert first.key == Target("b", {"y": 2, "x": 1}, "z", ("avx2",)).key
    assert first.key != Target("a", {"x": 1, "y": 3}, "z", ()).key
    assert json.loads(first.key) == {"x": 1, "y": 2}
    # Records of before there was another precision are of fp32.
    half = Target("a", first.config, "z", (), FP16)
    assert json.loads(half.key) == {"x": 1, "y": 2, "precision": "fp16"}


def test_what_code_is_made_for():
    assert Target("json", {"mcpu": "cortex-a76"}, "aarch64", ("neon",)).machine == "cortex-a76"
    assert Target("cuda", {}, "cuda", ("sm_61", "sm_90")).machine == "sm_61, sm_90"
    assert Target("adreno", {}, "opencl", ()).machine == "adreno"


def test_json():
    assert Target("a", {"x": 1}, "z", ("f",), FP16).to_json() == {
        "name": "a", "config": {"x": 1}, "architecture": "z", "features": ("f",),
        "precision": "fp16",
    }  # fmt: skip
