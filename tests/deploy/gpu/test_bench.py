"""bench and benchmarks/gpu.sh on the stand-in for a driver: what they write, not how fast."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from deploy.gpu.bench import bench_gpu, differing_share
from deploy.gpu.peers import Peer, start_onnxruntime

from benchmarks import gpu, gpu_row
from deploy.gpu import bench, peers
from deploy.gpu.network import GpuNetwork
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
    assert result.notes == result.differing == {}
    said = result.to_json()
    work = said["parts_ms"].pop("compute_ms")  # the stand-in's clock counts threads
    assert said["parts_ms"] == {"upload_ms": 1, "download_ms": 1}
    assert work > 1e4
    assert said["device"]["code"] == "sm_61"


def test_a_peer_is_compared(driver, artifact, network_source, monkeypatch):
    """onnxruntime runs here as the peers do on a GPU, all of it on the CPU, which it says."""
    monkeypatch.setattr(peers, "PROVIDERS", {"a peer": ("AzureExecutionProvider",)})
    image = artifact.golden.image
    result = bench_gpu(artifact, network_source.graph, network_source.network, image, ONCE)
    assert set(result.samples) == {"hmseg", "a peer"}
    assert result.ratios["a peer"].median > 0
    assert result.notes == {"a peer": "onnxruntime runs some of its nodes on the CPU"}
    assert 0 <= result.differing["a peer"] < 1e-3
    assert result.differing_text.startswith("a peer 0.0")


def test_a_peer_with_other_labels(driver, artifact, network_source, monkeypatch):
    """In fp32 it is not timed; fp16 may differ from it, and how much is said."""
    image = artifact.golden.image
    labels = GpuNetwork(artifact)(image)
    wrong = labels.copy()
    wrong[:2] += 1  # 2 rows of 64
    found = {"wrong": lambda: Peer(lambda: wrong), "cut": lambda: Peer(lambda: labels[1:])}
    monkeypatch.setattr(bench, "makers", lambda *_: found)
    measure = partial(bench_gpu, graph=None, network=None, image=image, protocol=ONCE)
    result = measure(artifact)
    assert set(result.samples) == {"hmseg"}
    assert result.absent["wrong"] == "its labels differ from ours in 3.12% of the pixels"
    assert result.absent["cut"].endswith("in 100.00% of the pixels")
    assert result.to_json()["differing_labels"] == {"wrong": 1 / 32, "cut": 1.0}
    half = replace(artifact, target=replace(artifact.target, precision="fp16"))
    assert set(measure(half).samples) == {"hmseg", "wrong", "cut"}
    assert differing_share(np.zeros((2, 2)), np.eye(2)) == 0.5


def test_onnxruntime_without_its_provider(network_source, artifact, monkeypatch):
    start = partial(start_onnxruntime, network_source.graph, artifact.golden.image)
    with pytest.raises(UserError, match=r"CUDAExec.*, Tensorrt.* not in the installed"):
        start((peers.TENSORRT, peers.CUDA))
    monkeypatch.setattr(peers, "TENSORRT", "AzureExecutionProvider")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(UserError, match="in fp32 only with NVIDIA_TF32_OVERRIDE=0"):
        start((peers.TENSORRT,))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert start((peers.TENSORRT,)).run().shape == artifact.golden.image.shape[:2]


def test_everything_in_one_command(any_driver, gpu_graph, monkeypatch, tmp_path, capsys):
    """The network is tuned, and the artifact is built and gated anew, on the machine's GPU; the
    next start has nothing left to do."""
    monkeypatch.setattr(gpu_row, "COPIED_BYTES", 1 << 20)
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
    assert row["copy_gb_per_s"] > 0
    assert row["tuning"]["records"] == len(load_records([tmp_path / "tuning"])) == KERNELS
    assert row["tuning"]["schedules"]
    assert row["tuning"]["seconds"] > 0
    assert result["provenance"]["gpu"] == "Stand-in"
    assert result["provenance"]["precision"] == "fp32"
    assert result["left_out"] == result["errors"] == []
    work = row["parts_ms"]["compute_ms"]
    assert row["compute_over_floor"] == pytest.approx(work / row["memory_floor_ms"])
    monkeypatch.setattr(gpu_row, "measure_row", None)  # not called
    assert gpu.main([*options, "--repeat", "1", "-o", str(tmp_path)]) == 0
    assert f"goes on with {path}, which has {model} 64x64" in capsys.readouterr().err
    assert json.loads(path.read_text())["rows"] == [row]


def test_time_is_up(driver, tmp_path):
    """The bars' sizes would have been first."""
    assert gpu.main(["--models", "tiny-mrms", "--minutes", "-1", "-o", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gpu-stand-in.json").read_text())
    assert result["rows"] == []
    assert result["left_out"] == [
        *(f"tiny-mrms {size}, the time was up"
          for size in ("768x1536", "1024x2048", "256x512", "512x1024")),
        "the latency table, the time was up",
    ]  # fmt: skip
    assert result["table"]["left_out"] == "the time was up"
    assert [bar["met"] for bar in result["bars"]] == [None, None, None]


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
