"""bench and benchmarks/gpu.sh on the stand-in for a driver: what they write, not how fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from deploy.gpu.bench import bench_gpu
from deploy.measure.interleave import Protocol
from deploy.tuning.records import load_records
from lut.errors import UserError

ONCE = Protocol(warmup=0, repeat=1, rounds=2, pause_s=0)
KERNELS = 4  # of `gpu_graph`: one network is tuned
ROOT = Path(__file__).parents[3]


def test_bench(driver, artifact, network_source):
    """Without a GPU that they know, every peer is absent, with a reason."""
    image = artifact.golden.image
    result = bench_gpu(artifact, network_source.graph, network_source.network, image, ONCE)
    assert set(result.samples) == {"hmseg"}
    peers = {"torch eager", "torch.compile", "onnxruntime CUDA", "TensorRT"}
    assert set(result.absent) == peers
    assert all(result.absent.values())
    said = result.to_json()
    work = said["parts_ms"].pop("compute_ms")  # the stand-in's clock counts threads
    assert said["parts_ms"] == {"upload_ms": 1, "download_ms": 1}
    assert work > 1e4
    assert said["device"]["code"] == "sm_61"


def test_everything_in_one_command(any_driver, gpu_graph, monkeypatch, tmp_path, capsys):
    """The network is tuned, and the artifact is built and gated anew, on the machine's GPU."""
    monkeypatch.setattr(gpu, "COPIED_BYTES", 1 << 20)
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    model = tmp_path / "graph.onnx"
    model.write_bytes(gpu_graph.SerializeToString())
    options = ["--models", str(model), "--resolutions", "64x64", "--rounds", "1"]
    options += ["--tune-seconds", "0.1", "--table-minutes", "0"]
    assert gpu.main([*options, "--repeat", "1", "-o", str(tmp_path)]) == 0
    path = tmp_path / "gpu-stand-in.json"
    assert capsys.readouterr().out.strip() == str(path)
    result = json.loads(path.read_text())
    (row,) = result["rows"]
    assert len(row["parity"]) == 5
    assert all(comparison["passed"] for comparison in row["parity"])
    assert len(row["kernels_ms"]) == KERNELS
    assert row["memory_floor_ms"] > 0
    assert row["tuning"]["records"] == len(load_records([tmp_path / "tuning"])) == KERNELS
    assert row["tuning"]["schedules"]
    assert row["tuning"]["seconds"] > 0
    assert result["provenance"]["gpu"] == "Stand-in"
    assert result["provenance"]["precision"] == "fp32"
    assert result["left_out"] == []


def test_time_is_up(driver, tmp_path):
    assert gpu.main(["--models", "tiny-mrms", "--minutes", "-1", "-o", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gpu-stand-in.json").read_text())
    assert result["rows"] == []
    assert len(result["left_out"]) == 5
    assert result["left_out"][0] == "tiny-mrms 256x512, the time was up"
    assert result["left_out"][-1] == result["table"]["left_out"]
    assert result["table"]["left_out"] == "the latency table, the time was up"


def test_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
    assert gpu.main([]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: no NVIDIA driver on this machine")
    assert captured.err.count("\n") == 1
    with pytest.raises(UserError, match="no NVIDIA driver"):
        gpu.run(gpu.argparse.Namespace(minutes=1))


def test_the_script():
    """It runs from any folder and hands its options on."""
    script = ROOT / "benchmarks" / "gpu.sh"
    done = subprocess.run(
        [str(script), "--help"], capture_output=True, text=True, check=True, cwd="/",
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert "--minutes" in done.stdout
