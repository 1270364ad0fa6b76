"""CPUs as targets: their words, features and errors."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import host
from deploy.cpu.targets import ARCHITECTURES, WORDS, X86_64_LEVELS, host_target
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.deploy.test_metadata import json_values


def test_cpu_is_this_machine():
    target = resolve_target("cpu")
    assert target == host_target()
    assert target.name == "cpu"
    assert target.architecture == host.architecture()
    assert target.config["kind"] == "llvm"
    assert host.missing_features(target.features, host.cpu_flags()) == ()


def test_each_level_has_more_features_than_the_one_below():
    levels = [set(resolve_target(level).features) for level in X86_64_LEVELS]
    for below, above in pairwise(levels):
        assert below < above
    assert levels[0] == set()
    assert {"avx2", "fma", "bmi2", "f16c"} <= levels[2]
    assert {"avx512f", "avx512vl", "avx512bw"} <= levels[3]
    assert "avx512f" not in levels[2]


def test_features_that_the_hypervisor_hides_are_switched_off(monkeypatch):
    monkeypatch.setattr("tvm.target.codegen.llvm_get_system_cpu", lambda: "skylake-avx512")
    everything = frozenset(host.X86_FEATURE_FLAGS.values())
    monkeypatch.setattr(host, "cpu_flags", lambda: everything)
    full = host_target()
    assert "mattr" not in full.config
    monkeypatch.setattr(host, "cpu_flags", lambda: everything - {"avx512f", "avx512_vnni", "fma"})
    hidden = host_target()
    assert hidden.config["mcpu"] == "skylake-avx512"
    assert set(full.features) - set(hidden.features) >= {"avx512f", "fma"}
    assert not {"avx512f", "fma"} & set(hidden.features)
    assert {"-avx512f", "-fma"} <= set(hidden.config["mattr"])
    assert host.missing_features(hidden.features, host.cpu_flags()) == ()


def test_a_host_that_is_neither(monkeypatch):
    monkeypatch.setattr(host, "architecture", lambda: "riscv64")
    with pytest.raises(UserError, match="this machine is riscv64"):
        resolve_target("cpu")


def test_names_of_llvm_and_json():
    named = resolve_target("skylake-avx512")
    assert named.config["mcpu"] == "skylake-avx512"
    assert "avx512bw" in named.features
    given_json = resolve_target('{"kind": "llvm", "mcpu": "skylake-avx512"}')
    assert given_json.features == named.features
    assert given_json.key == named.key
    without = resolve_target('{"kind": "llvm", "mcpu": "x86-64-v3", "mattr": ["-avx2"]}')
    assert "avx2" not in without.features
    more = resolve_target('{"kind": "llvm", "mcpu": "x86-64-v3", "mattr": ["+avx512f"]}')
    assert "avx512f" in more.features


@pytest.mark.parametrize(
    ("text", "triple", "mcpu"),
    [
        ("arm", "aarch64-linux-gnu", "cortex-a73"),
        ("android", "aarch64-linux-android", "cortex-a73"),
        ("cortex-a76", "aarch64-linux-gnu", "cortex-a76"),
        ("arm/pixel2", "aarch64-linux-android", "cortex-a73"),
        ("arm/rasp4b64", "aarch64-linux-gnu", "cortex-a72"),
        ('{"kind": "llvm", "mtriple": "aarch64-linux-gnu"}', "aarch64-linux-gnu", "cortex-a73"),
    ],
)
def test_64_bit_arm(text, triple, mcpu):
    target = resolve_target(text)
    assert (target.architecture, target.config["mtriple"]) == ("aarch64", triple)
    assert target.config["mcpu"] == mcpu
    assert "neon" in target.features
    assert ("dotprod" in target.features) == (mcpu == "cortex-a76")


def test_an_arm_machine_as_the_host(monkeypatch):
    monkeypatch.setattr("tvm.target.codegen.llvm_get_system_cpu", lambda: "cortex-a76")
    monkeypatch.setattr(host, "architecture", lambda: "aarch64")
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset({"asimd", "crc32", "atomics"}))
    target = host_target()
    assert target.architecture == "aarch64"
    assert {"neon", "crc", "lse"} <= set(target.features)
    assert not {"dotprod", "fullfp16"} & set(target.features)


def test_every_word_is_a_target():
    assert {resolve_target(word).architecture for word in WORDS} == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown target"),
        ("foo", "unknown target 'foo': use cpu"),
        ("arm/no-such-board", "no such tag"),
        ("arm/rk3399-32", "no such tag"),
        ("CPU", "unknown target"),
        ('{"kind": "llvm", "mcpu": 5}', "x86-64"),
        ('{"kind": "llvm", "mcpu": "foo"}', "unknown target 'foo'"),
        ('{"kind": "llvm", "mtriple": "riscv64-linux-gnu"}', "x86_64 and aarch64, not"),
        ('{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "x86-64"}', "unknown target"),
        ('{"kind": "llvm", "mtriple": 5}', "x86_64 and aarch64, not 5"),
        ('{"kind": "llvm", "mattr": 5}', "TVM does not take it"),
        ('{"kind": "llvm", "mattr": "-avx2"}', "TVM does not take it"),
        ('{"kind": "llvm", "mattr": [5]}', "TVM does not take it"),
        ('{"kind": "llvm", "no-such-key": 1}', "TVM does not take it"),
        ('{"kind": "llvm", "mattr": ["+made-up"]}', "made-up"),
        ('{"kind": "llvm", "mattr": ["-made-up"]}', "made-up"),
        ('{"kind": "llvm", "mattr": ["avx2"]}', "avx2"),
        ('{"kind": "llvm", "mattr": [""]}', "mattr"),
    ],
)
def test_bad_targets(text, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_target(text)
    assert "\n" not in str(caught.value)


@settings(max_examples=100)
@given(st.sampled_from(["mcpu", "mtriple", "mattr", "num-cores", "keys", "tag"]), json_values)
def test_any_value_in_a_json_target(key, value):
    with suppress(UserError):
        target = resolve_target(json.dumps({"kind": "llvm", key: value}))
        assert all(isinstance(feature, str) for feature in target.features)
