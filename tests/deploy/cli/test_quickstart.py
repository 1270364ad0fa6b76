import numpy as np
import pytest
from PIL import Image

from tests.deploy.cli.conftest import files
from tests.deploy.graphs import photo


def test_the_whole_walk(cli, tmp_path):
    done = cli("quickstart", "-r", "64x64").succeeded()
    artifact = "out/tiny-hmseg-64x64.hmseg"
    assert done.out.splitlines()[-3:] == [artifact, "out/labels.png", "out/overlay.png"]
    assert "onnxruntime / hmseg: " in done.out
    steps = [line.split("  ")[0] for line in done.err.splitlines()]
    for step in ("exporting tiny-hmseg", "checking against torch", "segmenting"):
        assert step in steps
    assert "trained on camvid" in done.err
    with Image.open(tmp_path / "out" / "labels.png") as labels:
        assert labels.size == (64, 64)
        assert np.asarray(labels).max() < 19
    assert cli("verify", artifact).succeeded()


def test_a_model_and_an_image_of_the_user(cli, user_onnx, tmp_path):
    Image.fromarray(photo((50, 120))).save(tmp_path / "i.png")
    done = cli("quickstart", "-m", user_onnx, "--image", "i.png", "-o", "mine").succeeded()
    assert files(tmp_path / "mine") == ["labels.png", "mine-64x64.hmseg", "overlay.png"]
    with Image.open(tmp_path / "mine" / "labels.png") as labels:
        assert labels.size == (120, 50)
    assert "checking against torch" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "none.png"], "no such file"),
        (["-m", "nonsense"], "unknown model"),
        (["-r", "0x0"], "between 64"),
        (["-o", "/proc/x"], "cannot write"),
        (["--threads", "-1"], "--threads -1"),
    ],
)
def test_bad_input(cli, arguments, message, tmp_path):
    done = cli("quickstart", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert files(tmp_path) == []
