"""Expensive things, made once: one network, exported and compiled at 64x64."""

from pathlib import Path

import onnx
import pytest

from deploy.artifact import Artifact, save_artifact
from deploy.build import build_artifact
from deploy.graph.export import export_network
from deploy.target import Target
from deploy.targets import resolve_target
from deploy.verify import Comparison
from hmseg.mrms import MRMS
from tests.deploy import graphs


@pytest.fixture(scope="session")
def network() -> MRMS:
    """TinyMRMS whose batch norms are randomised."""
    return graphs.network()


@pytest.fixture(scope="session")
def graph(network: MRMS) -> onnx.ModelProto:
    """It, exported at 64x64 with labels; never changed in place."""
    return export_network(network, "tiny-mrms", graphs.SIZE, num_classes=19)


@pytest.fixture(scope="session")
def cpu() -> Target:
    return resolve_target("cpu")


@pytest.fixture(scope="session")
def built(graph: onnx.ModelProto, cpu: Target) -> tuple[Artifact, list[Comparison]]:
    return build_artifact(graph, cpu, threads=2)


@pytest.fixture(scope="session")
def artifact(built: tuple[Artifact, list[Comparison]]) -> Artifact:
    return built[0]


@pytest.fixture(scope="session")
def artifact_path(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "tiny.hmseg"
    save_artifact(artifact, path)
    return path


@pytest.fixture(scope="session")
def small_graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A user's graph of two convolutions with both ends; compiles in about a second."""
    return graphs.deployable(graphs.segmenter(), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_artifact(small_graph: onnx.ModelProto, cpu: Target) -> Artifact:
    return build_artifact(small_graph, cpu, threads=2)[0]
