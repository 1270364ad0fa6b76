"""One small network compiled for CUDA, and a driver to run it on where there is no GPU."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from deploy.artifact import Artifact, save_artifact
from deploy.build import build_artifact
from deploy.gpu.emulator import compile_source as compile_emulated
from deploy.gpu.pipeline import compile_source
from deploy.resolution import Resolution
from deploy.source import open_source
from deploy.targets import resolve_target

ARCHITECTURES = "sm_61,sm_90"


@pytest.fixture(scope="session")
def network_source():
    return open_source(
        "tiny-mrms", resolution=Resolution(64, 128), input_kind="image", output="labels",
        num_classes=None, mean=None, std=None,
    )  # fmt: skip


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
    assert artifact.gpu is not None
    assert lowered.plan == artifact.gpu.plan
    return compile_emulated(lowered.source)


@pytest.fixture
def driver(driver_library, emulated_kernels, monkeypatch) -> Path:
    """The stand-in is the machine's driver."""
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    monkeypatch.setenv("STAND_IN_KERNELS", str(emulated_kernels))
    return driver_library
