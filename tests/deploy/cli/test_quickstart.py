"""With a user's own model; that of the zoo is in tests/test_readme.py."""

import pytest
from PIL import Image

from tests.deploy.cli.conftest import files
from tests.deploy.graphs import photo


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
