"""A target's text: which kind of machine it is for."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.precision import BF16
from deploy.targets import check_target, resolve_target
from lut.errors import UserError


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("cpu", "llvm", "cpu"),
        (' {"kind": "llvm"}', "llvm", "json"),
        ("cuda", "cuda", "cuda"),
        ('{"kind": "cuda", "arch": "sm_86"}', "cuda", "json"),
        ("adreno", "opencl", "adreno"),
    ],
)
def test_each_kind_knows_its_words(text, kind, name):
    check_target(text)
    target = resolve_target(text)
    assert (target.config["kind"], target.name) == (kind, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown target ''"),
        # Every word that there is stands in the message.
        ("foo", "unknown target 'foo': use cpu, arm, android, cuda, adreno, x86-64, x86-64-v2"),
        ("znver9", "unknown target 'znver9': did you mean znver5"),
        ('{"kind": "llvm", "mcpu": 3}', "unknown target 3"),
        ('{"kind": "llvm", "mtriple": "riscv64-linux"}', "not 'riscv64-linux'"),
        ("{", "not JSON"),
        ("{}", "llvm"),
        ('{"kind": "vulkan"}', "llvm"),
    ],
)
def test_bad_targets(text, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_target(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError) as early:
        check_target(text)
    assert str(early.value) == str(caught.value)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("cpu", {"architectures": "sm_61"}, "--arch is for --target cuda, not for cpu"),
        ("cuda", {"precision": "half"}, "unknown precision 'half': choose fp32, fp16, bf16"),
        ("cpu", {"precision": ""}, "unknown precision ''"),
        ("arm", {"precision": "fp16"},
         "--precision fp16 is for --target cuda, not for arm"),
        ("cuda", {"precision": "bf16"}, "--precision bf16 is for CPUs with AVX-512 BF16"),
        ("adreno", {"precision": "bf16"}, "bf16 is for CPUs with .*, not for adreno"),
        ("arm", {"precision": "bf16"},
         "--precision bf16: cortex-a73 has no bf16, the instructions for it; leave --precision "
         "out for fp32, or compile for a CPU that has them, such as znver4"),
        ("x86-64-v4", {"precision": "bf16"}, "x86-64-v4 has no avx512bf16"),
        ("x86-64-v3", {"precision": "bf16"}, "x86-64-v3 has no avx512f and no avx512bf16"),
    ],
)  # fmt: skip
def test_options_of_another_kind(text, options, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_target(text, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["znver4", "sapphirerapids", "neoverse-v1"])
def test_cpus_that_compute_with_bf16(text):
    target = resolve_target(text, precision="bf16")
    plain = resolve_target(text)
    assert (target.precision, target.features) == (BF16, plain.features)
    assert (target.config, target.key != plain.key) == (plain.config, True)
    assert '"precision":"bf16"' in target.key
    assert target.to_json()["precision"] == "bf16"


@settings(max_examples=100)
@given(st.text(max_size=30) | st.from_regex(r"\A\{.{0,20}\}\Z"))
def test_any_text(text):
    with suppress(UserError):
        target = resolve_target(text)
        check_target(text)  # no more is refused early than late
        assert target.architecture in ("x86_64", "aarch64", "cuda", "opencl")
