from dataclasses import replace

import pytest
from PIL import Image

from deploy.artifact_file import save_artifact


@pytest.fixture
def path(tmp_path, small_artifact):
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    return tmp_path / "n.hmseg"


def test_table_and_roofline(cli, path, small_artifact, tmp_path):
    done = cli("profile", path, "--repeat", "2", "-o", "r.png").succeeded()
    for name in dict.fromkeys(small_artifact.calls):
        assert f"{name} x1" in done.out
    for kernel in small_artifact.kernels:
        assert kernel.spec not in done.out
    assert "convolution 3→" in done.out
    assert "the frame's time includes the copy of the uint8 image in" in done.err
    assert Image.open(tmp_path / "r.png").size[0] > 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeat", "0"], "'--repeat': Input should be greater than or equal to 1"),
        (["--rpc-tracker", "127.0.0.1:9190"], "--rpc-tracker needs --rpc-key"),
        (["--rpc-tracker", "127.0.0.1:1", "--rpc-key", "x"], "no tracker answers"),
        (["-o", "n.hmseg/r.png"], "n.hmseg"),
    ],
)
def test_bad_input(cli, path, arguments, message):
    done = cli("profile", path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error


def test_the_environment_names_the_device_here_too(cli, path, monkeypatch):
    """It once profiled this machine instead."""
    monkeypatch.setenv("TVM_TRACKER_HOST", "127.0.0.1")
    monkeypatch.setenv("TVM_TRACKER_PORT", "1")
    monkeypatch.setenv("TVM_TRACKER_KEY", "x")
    done = cli("profile", path)
    assert (done.code, done.out) == (2, "")
    assert "no tracker answers" in done.error


def test_an_artifact_of_an_earlier_version(cli, path, small_artifact):
    save_artifact(replace(small_artifact, calls=()), path)
    done = cli("profile", path)
    assert (done.code, done.out) == (2, "")
    assert "compile the model again" in done.error
