"""One small network compiled for CUDA, and a driver to run it on where there is no GPU."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploy.artifact import Artifact
from deploy.artifact_file import load_artifact, save_artifact
from deploy.build import build_artifact
from deploy.gpu import emulator, nvrtc
from deploy.gpu.pipeline import compile_source
from deploy.gpu.program import GpuProgram
from deploy.graph.export import import_onnx
from deploy.graph.job import Job
from deploy.graph.source import open_source
from deploy.object_cache import ObjectCache
from deploy.resolution import Resolution
from deploy.targets import resolve_target
from tests.deploy.graphs import segmenter, write
from tests.shared import made_once

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
def cache(shared_folder: Path) -> ObjectCache:
    """Machine code that is compiled once a run."""
    return ObjectCache(shared_folder / "gpu-objects")


@pytest.fixture(scope="session")
def cuda_file(network_source, cache, shared_folder) -> Path:
    """The network for two architectures, checked; never written to."""

    def build(path: Path) -> None:
        target = resolve_target("cuda", ARCHITECTURES)
        save_artifact(build_artifact(network_source.graph, target, threads=1, cache=cache)[0], path)

    return made_once(shared_folder, "gpu.hmseg", build)


@pytest.fixture(scope="session")
def cuda_artifact(cuda_file) -> Artifact:
    return load_artifact(cuda_file)


@pytest.fixture(scope="session")
def driver_library(shared_folder) -> Path:
    """The stand-in for libcuda, compiled against CUDA's own header."""
    spec = importlib.util.find_spec("nvidia.cuda_runtime")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    include = Path(next(iter(spec.submodule_search_locations))) / "include"
    source = Path(__file__).with_name("stand_in_driver.cpp")

    def compile_driver(path: Path) -> None:
        compiler = os.environ.get("CXX", "g++")
        command = [compiler, "-std=c++17", "-shared", "-fPIC", f"-I{include}", "-o", str(path)]
        subprocess.run([*command, str(source)], check=True)

    return made_once(shared_folder, "libcuda.so.1", compile_driver)


@pytest.fixture(scope="session")
def emulated_kernels(network_source, cuda_artifact) -> Iterator[Path]:
    """What the stand-in runs: the kernels of `cuda_artifact`."""
    lowered = compile_source(Job(network_source.graph, resolve_target("cuda", "sm_61"))).lowered
    assert isinstance(cuda_artifact.code, GpuProgram)
    assert lowered.plan == cuda_artifact.code.plan
    library = emulator.compile_source(lowered.source)
    yield library
    library.unlink()


@pytest.fixture
def driver(driver_library, emulated_kernels, monkeypatch) -> Path:
    """The stand-in is the machine's driver."""
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    monkeypatch.setenv("STAND_IN_KERNELS", str(emulated_kernels))
    return driver_library


@contextmanager
def any_network(driver_library: Path, folder: Path) -> Iterator[None]:
    """The stand-in is the machine's driver and runs every cubin that is made from now on, each with
    the kernels of its own source, which it finds in this folder."""
    cache = ObjectCache(driver_library.with_name("gpu-objects"))

    def compile_both(source: str, architecture: str, _cache: object) -> bytes:
        cubin = nvrtc.compile_cubin(source, architecture, cache)
        name = len(list(folder.iterdir()))
        shutil.move(emulator.compile_source(source), folder / f"{name}.so")
        (folder / f"{name}.image").write_bytes(cubin)
        return cubin

    def compile_ptx(source: str, architecture: str, _cache: object) -> bytes:
        return nvrtc.compile_ptx(source, architecture, cache)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
        patch.setattr("deploy.backends.cuda.compile_cubin", compile_both)
        patch.setattr("deploy.backends.cuda.compile_ptx", compile_ptx)
        patch.setenv("STAND_IN_KERNELS", str(folder))
        yield


@pytest.fixture
def any_driver(driver_library, tmp_path_factory) -> Iterator[None]:
    with any_network(driver_library, tmp_path_factory.mktemp("kernels")):
        yield
