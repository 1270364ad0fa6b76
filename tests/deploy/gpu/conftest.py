"""One small network compiled for CUDA, and a driver to run it on where there is no GPU."""

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploy.artifact import Artifact
from deploy.artifact_file import save_artifact
from deploy.build import build_artifact
from deploy.gpu import nvrtc
from deploy.gpu.emulator import compile_source as compile_emulated
from deploy.gpu.pipeline import compile_source
from deploy.gpu.program import GpuProgram
from deploy.graph.export import import_onnx
from deploy.graph.source import open_source
from deploy.resolution import Resolution
from deploy.targets import resolve_target
from tests.deploy.graphs import segmenter, write

ARCHITECTURES = "sm_61,sm_90"


@pytest.fixture(scope="session")
def network_source():
    return open_source(
        "tiny-mrms", resolution=Resolution(64, 128), input_kind="image", output="labels",
        num_classes=None, mean=None, std=None,
    )  # fmt: skip


@pytest.fixture(scope="session")
def gpu_graph(tmp_path_factory) -> onnx.ModelProto:
    """stem, depthwise, pointwise and labels_end, 64x64: seconds less to compile than a network."""
    weight = np.random.default_rng(1).normal(0, 0.3, (8, 1, 3, 3)).astype(np.float32)
    zero, six = (numpy_helper.from_array(np.array(value, np.float32)) for value in (0, 6))
    nodes = [
        helper.make_node("Constant", [], ["zero"], value=zero),
        helper.make_node("Constant", [], ["six"], value=six),
        helper.make_node("Constant", [], ["taps"], value=numpy_helper.from_array(weight)),
        helper.make_node("Clip", ["features", "zero", "six"], ["clipped"], name="first"),
        helper.make_node(
            "Conv", ["clipped", "taps"], ["filtered"], name="depthwise", group=8, pads=[1, 1, 1, 1]
        ),
        helper.make_node("Clip", ["filtered", "zero", "six"], ["activated"], name="second"),
    ]
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    return import_onnx(write(segmenter(stride=2, extra=nodes), path), mean=None, std=None)


@pytest.fixture(scope="session")
def built(network_source):
    """The artifact and the comparisons of its parity gate."""
    target = resolve_target("cuda", ARCHITECTURES)
    return build_artifact(network_source.graph, target, threads=1)


@pytest.fixture(scope="session")
def artifact(built) -> Artifact:
    return built[0]


@pytest.fixture(scope="session")
def artifact_file(artifact, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "tiny.hmseg"
    save_artifact(artifact, path)
    return path


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory) -> Path:
    """The stand-in for libcuda, compiled against CUDA's own header."""
    spec = importlib.util.find_spec("nvidia.cuda_runtime")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    include = Path(next(iter(spec.submodule_search_locations))) / "include"
    source = Path(__file__).with_name("stand_in_driver.cpp")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-std=c++17", "-shared", "-fPIC", f"-I{include}", "-o", str(library)]
    subprocess.run([*command, str(source)], check=True)
    return library


@pytest.fixture(scope="session")
def emulated_kernels(network_source, artifact, tmp_path_factory) -> Path:
    """What the stand-in runs: the kernels of `artifact`."""
    lowered = compile_source(network_source.graph, resolve_target("cuda", "sm_61")).lowered
    assert isinstance(artifact.code, GpuProgram)
    assert lowered.plan == artifact.code.plan
    return compile_emulated(lowered.source)


@pytest.fixture
def driver(driver_library, emulated_kernels, monkeypatch) -> Path:
    """The stand-in is the machine's driver."""
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    monkeypatch.setenv("STAND_IN_KERNELS", str(emulated_kernels))
    return driver_library


@cache
def _compiled(source: str, architecture: str) -> tuple[bytes, bytes]:
    library = compile_emulated(source)
    try:
        return nvrtc.compile_cubin(source, architecture), library.read_bytes()
    finally:
        library.unlink()


_compile_ptx = cache(nvrtc.compile_ptx)


@contextmanager
def any_network(driver_library: Path, folder: Path) -> Iterator[None]:
    """The stand-in is the machine's driver and runs every cubin that is made from now on, each with
    the kernels of its own source, which it finds in this folder."""

    def compile_both(source: str, architecture: str) -> bytes:
        cubin, library = _compiled(source, architecture)
        name = len(list(folder.iterdir()))
        (folder / f"{name}.so").write_bytes(library)
        (folder / f"{name}.image").write_bytes(cubin)
        return cubin

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
        patch.setattr("deploy.backends.cuda.compile_cubin", compile_both)
        patch.setattr("deploy.backends.cuda.compile_ptx", _compile_ptx)
        patch.setenv("STAND_IN_KERNELS", str(folder))
        yield


@pytest.fixture
def any_driver(driver_library, tmp_path_factory) -> Iterator[None]:
    with any_network(driver_library, tmp_path_factory.mktemp("kernels")):
        yield
