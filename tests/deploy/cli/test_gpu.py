"""The commands for a GPU, on the stand-in for a driver; the networks are of four kernels. What is
measured there tests/deploy/{measure,trials} compute."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from deploy.backends import backend_of
from deploy.cli import places, search
from deploy.measure.gpu import GpuDevice
from deploy.tables.build import provenance_of
from deploy.targets import resolve_target
from deploy.tuning.records import load_records, winners
from lut.errors import UserError
from lut.table_file import save_table
from tests.lut.tables import IDENTITY, table, visit


@pytest.fixture
def model(gpu_graph, tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(gpu_graph.SerializeToString())
    return path


@pytest.fixture(autouse=True)
def awake(monkeypatch):
    """No frames are run to wake the GPU up."""
    monkeypatch.setattr("deploy.gpu.network.GpuNetwork.warm_up", lambda *_: None)


def test_tune(cli, any_driver, model, tmp_path):
    """From the command to the records; the GPU's architecture is asked for."""
    options = ("-t", "cuda", "--precision", "fp16", "--trials", "3", "--records", "records")
    done = cli("tune", "-m", model, *options).succeeded()
    assert "3 records, " in done.err
    assert "rule / records, whole network: " in done.out
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["sm_61-fp16.jsonl"]
    records = load_records([tmp_path / "records"])
    assert len(records) == 3
    assert all(text.split()[0] in done.out for text in winners(records))


def test_bench(cli, any_driver, model):
    """With its own percentiles; peers that are not here are named."""
    options = ("-t", "cuda", "--rounds", "1", "--repeat", "2", "--percentile", "25")
    found = json.loads(cli("bench", "-m", model, *options, "--json").succeeded().out)
    wanted = np.percentile(found["samples_ns"]["hmseg"], 25) / 1e6
    assert found["percentiles"]["hmseg"]["p25_ms"] == pytest.approx(wanted)
    assert {"torch eager", "onnxruntime CUDA"} <= set(found["absent"])
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    done = cli("bench", "-m", model, *options).succeeded()
    assert "p25" in done.out
    assert "torch eager is not timed here: " in done.err


def test_bench_compiles_for_the_gpu_present(cli, any_driver, model, monkeypatch):
    """For one architecture, so that records are used."""
    asked = []

    def build(graph, target, *, threads, remote, **_):
        asked.append(target)
        raise UserError("seen")

    monkeypatch.setattr("deploy.build.build_artifact", build)
    monkeypatch.setenv("STAND_IN_CAPABILITY", "86")
    for options in ([], ["--precision", "fp16"], ["--arch", "sm_80"]):
        cli("bench", "-m", model, "-t", "cuda", *options)
    assert [target.features for target in asked] == [("sm_86",), ("sm_86",), ("sm_80",)]
    assert [str(target.precision) for target in asked] == ["fp32", "fp16", "fp32"]


@pytest.fixture
def gpu_table(tmp_path):
    """A table of a GPU."""
    key = resolve_target("cuda", "sm_61").key
    identity = replace(IDENTITY, target=key, target_name="cuda", threads=0)
    save_table(table(visit("e"), identity=identity), tmp_path / "t.jsonl")
    return tmp_path / "t.jsonl"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tune", "-t", "nvidia/nvidia-h100"], "this machine's GPU is sm_61; measure it"),
        (["tune", "-t", "adreno"], "this version runs OpenCL on no device"),
        (["tune", "-t", "cuda", "--threads", "2"], "--threads is of a CPU; leave it out"),
        (["bench", "-t", "nvidia/nvidia-h100"], "this machine's GPU is sm_61; measure it"),
        (["bench", "-t", "cuda", "--threads", "2"], "--threads is of a CPU; leave it out"),
        (["lut", "build", "-t", "adreno"], "this version runs OpenCL on no device"),
        (["lut", "build", "-t", "nvidia/nvidia-h100"], "is for sm_90, this machine's GPU is sm_61"),
        (["lut", "build", "-t", "cuda", "--threads", "2"], "--threads is of a CPU; leave it out"),
        (["lut", "build", "--precision", "fp16"], "--precision fp16 is for --target cuda"),
        (["lut", "check", "TABLE", "--target", "cpu"], "is for the target"),
        (["lut", "build", "-t", "cuda", "-r", "64x128", "-o", "TABLE"], "something else: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    cli, any_driver, gpu_table, command, message
):  # fmt: skip
    before = gpu_table.read_bytes()
    done = cli(*(gpu_table if word == "TABLE" else word for word in command))
    assert done.code == 2
    assert message in done.error
    assert gpu_table.read_bytes() == before


@pytest.mark.parametrize(
    "command", [["tune"], ["bench"], ["lut", "build"], ["lut", "check", "TABLE"]], ids=" ".join
)
def test_gpu_code_does_not_run_over_rpc(cli, any_driver, gpu_table, monkeypatch, command):
    monkeypatch.setattr("deploy.cli.places.PlaceOptions.read", lambda *_: (1, object()))
    words = [gpu_table if word == "TABLE" else word for word in command]
    target = [] if "check" in command else ["-t", "cuda"]
    done = cli(*words, *target, "--rpc-key", "board")
    assert done.code == 2
    assert "leave --rpc-key" in done.error


def test_without_a_gpu(cli, gpu_table, monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
    for command in (
        ["tune", "-t", "cuda"], ["bench", "-t", "cuda"], ["lut", "build", "-t", "cuda"],
        ["lut", "check", gpu_table],
    ):  # fmt: skip
        done = cli(*command)
        assert done.code == 2
        assert "no NVIDIA driver on this machine" in done.error
    assert not (tmp_path / "home").exists()


def test_a_search_measures_on_the_same_gpu(any_driver, monkeypatch):
    """Before it begins, it makes sure that its table is of this machine's GPU."""
    target = resolve_target("cuda", "sm_61")
    identity = replace(IDENTITY, target=target.key, target_name="cuda", threads=0)
    provenance = provenance_of(GpuDevice().info, target, {}, backend_of(target).protocol)
    lut = table(visit("e"), identity=identity, provenance=provenance)
    place = places.TablePlaceOptions()
    assert place.open(identity)[0] == target
    assert callable(search._measuring(lut, place))
    monkeypatch.setenv("STAND_IN_NAME", "Another GPU")
    with pytest.raises(UserError, match=r"now 'Another GPU'.*; or search with --no-measure"):
        search._measuring(lut, place)
