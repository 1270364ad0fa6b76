"""--precision bf16 and auto through the commands."""

import json
from dataclasses import replace

import pytest

import hmseg
from deploy import host
from deploy.artifact_file import load_artifact, save_artifact
from deploy.backends.cpu import CpuBackend
from tests.conditions import BFLOAT16
from tests.deploy.graphs import photo, segmenter, write

QUICK = ["--warmup", "0", "--repeat", "2", "--rounds", "2"]


@pytest.fixture
def own(small_bf16, tmp_path, monkeypatch):
    """The small user graph and its artifact in bf16."""
    monkeypatch.setattr(CpuBackend, "measures_memory", False)
    write(segmenter(), tmp_path / "user.onnx")
    save_artifact(small_bf16, tmp_path / "n.hmseg")
    return tmp_path / "n.hmseg"


def test_compile_says_how_labels_were_judged(cli, user_onnx, tmp_path):
    BFLOAT16.require()
    done = cli("compile", "-m", user_onnx, "--precision", "bf16", "-o", "n.hmseg").succeeded()
    assert "parity, maps in bf16 with onnxruntime on 5 images" in done.err
    assert "% that are no tie (allowed 1%)" in done.err
    network = hmseg.load(tmp_path / "n.hmseg")
    assert network.artifact.target.precision.name == "bf16"
    assert network(photo()).shape == (64, 64)


def test_from_python(user_onnx, tmp_path):
    BFLOAT16.require()
    path = hmseg.compile(user_onnx, tmp_path / "n.hmseg", precision="bf16", threads=1)
    assert load_artifact(path).manifest()["target"]["precision"] == "bf16"


def test_a_cpu_without_the_instructions(cli, user_onnx, tmp_path):
    done = cli("compile", "-m", user_onnx, "-t", "x86-64-v3", "--precision", "bf16", "-o", "n")
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("error: --precision bf16: x86-64-v3 has no avx512f and no")
    assert "leave --precision out for fp32" in done.error
    assert not (tmp_path / "n").exists()


def test_this_cpu_without_the_instructions(cli, user_onnx, monkeypatch):
    flags = host.cpu_flags() - {"avx512_bf16", "bf16"}
    monkeypatch.setattr(host, "cpu_flags", lambda: flags)
    done = cli("compile", "-m", user_onnx, "--precision", "bf16", "-o", "n.hmseg")
    assert done.code == 2
    assert "the instructions for it" in done.error


def test_for_another_cpu(cli, user_onnx, tmp_path):
    options = ("-t", "neoverse-v1", "--precision", "bf16", "-o", "n.hmseg")
    done = cli("compile", "-m", user_onnx, *options).succeeded()
    assert "parity not checked" in done.err
    found = load_artifact(tmp_path / "n.hmseg")
    assert (found.target.architecture, found.target.precision.name) == ("aarch64", "bf16")


def test_auto_says_which_and_why(cli, user_onnx, tmp_path):
    done = cli("compile", "-m", user_onnx, "--precision", "auto", "-o", "n.hmseg").succeeded()
    found = load_artifact(tmp_path / "n.hmseg")
    lines = done.err.splitlines()
    assert f"precision {found.target.precision}: {found.choice['why']}" in lines


@pytest.mark.parametrize("command", ["verify", "bench", "tune", "lut build"])
def test_auto_is_for_compile(cli, user_onnx, command):
    model = [] if command == "lut build" else ["-m", user_onnx]
    done = cli(*command.split(), *model, "--precision", "auto")
    assert done.code == 2
    assert "auto" in done.error


def test_verify(cli, own):
    done = cli("verify", own).succeeded()
    assert "class scores against onnxruntime, maps in bf16" in done.out
    refused = cli("verify", own, "--precision", "fp32")
    assert "the artifact is bf16, not fp32" in refused.error
    golden = load_artifact(own).golden
    changed = replace(load_artifact(own), golden=replace(golden, logits=golden.logits * 1.5))
    save_artifact(changed, own)
    assert "does not match onnxruntime" in cli("verify", own).error


def test_bench_beside_peers_at_any_precision(cli, own):
    arguments = ["bench", "-m", "user.onnx", "--artifact", own, *QUICK]
    data = json.loads(cli(*arguments, "--json").succeeded().out)
    assert data["precisions"]["hmseg"] == "bf16"
    assert data["precisions"]["onnxruntime"] == "fp32"
    asked = {*data["precisions"], *data.get("absent", {})}
    assert asked == {"hmseg", "onnxruntime", "OpenVINO", "OpenVINO bf16"}
    data = json.loads(cli(*arguments, "--json", "--peers-precision", "fp32").succeeded().out)
    assert {*data["precisions"], *data.get("absent", {})} == {"hmseg", "onnxruntime"}


def test_profile(cli, own):
    data = json.loads(cli("profile", own, "--repeat", "2", "--json").succeeded().out)
    assert set(data["ceilings"]["dot_gflops"]) == {"bfloat16", "int8"}
    done = cli("profile", own, "--repeat", "2").succeeded()
    assert "in bf16" in done.out


def test_tune(cli, own, user_onnx, tmp_path):
    options = ("--precision", "bf16", "--trials", "1", "--records", tmp_path / "records")
    cli("tune", "-m", user_onnx, *options).succeeded()
