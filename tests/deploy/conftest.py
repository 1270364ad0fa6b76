"""Expensive things, made once a run: one network, exported and compiled at 64x64."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import tvm

from deploy import reading
from deploy.artifact import Artifact
from deploy.artifact_file import load_artifact, save_artifact
from deploy.build import build_artifact
from deploy.cpu import machine_code
from deploy.gpu import emulator
from deploy.graph.export import export_network
from deploy.object_cache import ObjectCache
from deploy.reading.file import check, complete, parse
from deploy.reading.graph import Graph
from deploy.reading.normalise import normalise
from deploy.resolution import Resolution
from deploy.target import Target
from deploy.targets import resolve_target
from hmseg.mrms import MRMS
from tests.conditions import BFLOAT16
from tests.deploy import graphs
from tests.deploy.gpu.fixtures import (  # noqa: F401 - fixtures
    any_driver,
    cache,
    cuda_artifact,
    cuda_file,
    driver,
    driver_library,
    emulated_kernels,
    gpu_graph,
    network_source,
)
from tests.shared import made_once

_COMPILE_ALL = ("cpu/test_pipeline.py", "cpu/test_machine_code.py", "cli/test_cache.py")


@pytest.fixture(scope="session")
def network() -> MRMS:
    """TinyMRMS whose batch norms are randomised."""
    return graphs.network()


@pytest.fixture(scope="session")
def graph(shared_folder: Path) -> onnx.ModelProto:
    """It, exported at 64x64 with labels; never changed in place."""

    def export(path: Path) -> None:
        model = export_network(graphs.network(), "tiny-mrms", graphs.SIZE, num_classes=19)
        onnx.save(model, path)

    return onnx.load(made_once(shared_folder, "tiny.onnx", export))


@pytest.fixture(scope="session")
def cpu() -> Target:
    return resolve_target("cpu")


@pytest.fixture(scope="session")
def artifact_path(graph: onnx.ModelProto, cpu: Target, shared_folder: Path) -> Path:
    """It, compiled for this CPU and checked; never written to."""

    def build(path: Path) -> None:
        save_artifact(build_artifact(graph, cpu, threads=2)[0], path)

    return made_once(shared_folder, "tiny.hmseg", build)


@pytest.fixture(scope="session")
def artifact(artifact_path: Path) -> Artifact:
    return load_artifact(artifact_path)


@pytest.fixture(scope="session")
def small_graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A user's graph of two convolutions with both ends; compiles in about a second."""
    return graphs.deployable(graphs.segmenter(), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_artifact(small_graph: onnx.ModelProto, cpu: Target, shared_folder: Path) -> Artifact:
    """It, compiled for this CPU and checked."""

    def build(path: Path) -> None:
        save_artifact(build_artifact(small_graph, cpu, threads=2)[0], path)

    return load_artifact(made_once(shared_folder, "small.hmseg", build))


@pytest.fixture(scope="session")
def small_bf16(small_graph: onnx.ModelProto, shared_folder: Path) -> Artifact:
    """The same with maps of bfloat16; the test is left out where this CPU does not compute so."""
    BFLOAT16.require()

    def build(path: Path) -> None:
        target = resolve_target("cpu", precision="bf16")
        save_artifact(build_artifact(small_graph, target, threads=2)[0], path)

    return load_artifact(made_once(shared_folder, "small-bf16.hmseg", build))


@pytest.fixture(scope="module", autouse=True)
def read_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """A user's file is read in this process, not in one of its own, which takes a second to start:
    the tests of reading alone look at that."""

    def read(path: Path, resolution: Resolution | None) -> Graph:
        file = complete(path, parse(path), resolution)
        check(file.model)
        graph = normalise(file)
        file.session()
        return graph

    with pytest.MonkeyPatch.context() as patch:
        if "deploy/reading/" not in request.node.nodeid:
            patch.setattr(reading, "read_apart", read)
        yield


@pytest.fixture(scope="module", autouse=True)
def compiled_once(request: pytest.FixtureRequest, shared_folder: Path) -> Iterator[None]:
    """The machine code of a kernel that one test has compiled for itself, no other compiles again:
    the tests of compiling alone do."""
    compile_kernel, kept = machine_code.compile_kernel, ObjectCache(shared_folder / "machine-code")

    def compile_once(name: str, function: tvm.tirx.PrimFunc, target: Target) -> bytes:
        key = machine_code.object_key(name, function, target)
        made = kept.get(key)
        if made is None:
            made = compile_kernel(name, function, target)
            kept.put(key, made)
        return made

    with pytest.MonkeyPatch.context() as patch:
        if not any(file in request.node.nodeid for file in _COMPILE_ALL):
            patch.setattr(machine_code, "compile_kernel", compile_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def emulated_once(shared_folder: Path) -> Iterator[None]:
    """What a C++ compiler has made of a GPU's source it does not make again in this run."""
    compile_source = emulator.compile_source

    def compile_once(source: str) -> Path:
        headers = (path.read_text() for path in emulator._HEADERS.values())
        text = "\n".join([os.environ.get("CXX", ""), *headers, source])
        name = hashlib.sha256(text.encode()).hexdigest()
        make = lambda path: shutil.move(compile_source(source), path)  # noqa: E731
        made = made_once(shared_folder, f"emulated-{name}.so", make)
        handle, copy = tempfile.mkstemp(suffix=".so", prefix="hmseg-emulate-")
        os.close(handle)
        shutil.copyfile(made, copy)
        return Path(copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator, "compile_source", compile_once)
        yield
