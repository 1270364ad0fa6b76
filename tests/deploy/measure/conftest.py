"""What the tests of GPUs share with those of tests/deploy/gpu."""

from tests.deploy.gpu.conftest import driver_library, gpu_graph  # noqa: F401 - fixtures
