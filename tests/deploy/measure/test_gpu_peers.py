"""What starts the peers of a GPU, where there is none; tests/deploy/backends/test_cuda.py compares
one."""

from functools import partial

import numpy as np
import pytest

from deploy.graph.reference import Reference
from deploy.measure import gpu_peers
from deploy.measure.gpu_peers import makers, start_onnxruntime
from lut.errors import UserError
from tests.deploy.graphs import photo


def test_onnxruntime_without_its_provider(small_graph, monkeypatch):
    start = partial(start_onnxruntime, small_graph, photo())
    with pytest.raises(UserError, match=r"CUDAExec.*, Tensorrt.* not in the installed"):
        start((gpu_peers.TENSORRT, gpu_peers.CUDA))
    monkeypatch.setattr(gpu_peers, "TENSORRT", "AzureExecutionProvider")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(UserError, match="in fp32 only with NVIDIA_TF32_OVERRIDE=0"):
        start((gpu_peers.TENSORRT,))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert start((gpu_peers.TENSORRT,)).run().shape == (64, 64)


def test_onnxruntime_runs_the_graph(small_graph, monkeypatch):
    """On the CPU, in the place of a GPU."""
    monkeypatch.setattr(gpu_peers, "TENSORRT", None)
    peer = start_onnxruntime(small_graph, photo(), ("AzureExecutionProvider",))
    np.testing.assert_array_equal(peer.run(), Reference(small_graph)(photo())[0])
    assert peer.note == "onnxruntime runs some of its nodes on the CPU"


def test_torch_needs_a_module_and_a_gpu(small_graph, network, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("torch eager", "torch.compile"):
        with pytest.raises(UserError, match="a user's ONNX file has no torch module"):
            makers(None, small_graph, photo())[name]()
        with pytest.raises(UserError, match=r"torch 2\..* sees no GPU"):
            makers(network, small_graph, photo())[name]()
