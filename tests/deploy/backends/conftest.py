"""What these tests share with those of commands."""

from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
