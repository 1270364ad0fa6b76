"""Among the tests of GPUs, the artifact is the one for GPUs."""

from pathlib import Path

import pytest

from deploy.artifact import Artifact


@pytest.fixture(scope="session")
def artifact_file(cuda_file: Path) -> Path:
    return cuda_file


@pytest.fixture(scope="session")
def artifact(cuda_artifact: Artifact) -> Artifact:
    return cuda_artifact
