import json

import numpy as np
import pytest
from PIL import Image

from deploy.runtime import load
from tests.deploy.cli.conftest import files, run_program
from tests.deploy.graphs import photo


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(photo()).save(folder / "a.png")
    Image.fromarray(photo((40, 90))).save(folder / "b.jpg")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder(cli, artifact_path, pictures, tmp_path):
    done = cli("run", artifact_path, "in").succeeded()
    assert done.out == "out/a-labels.png\nout/b-labels.png\n"
    assert files(tmp_path / "out") == [
        "a-labels.png", "a-overlay.png", "b-labels.png", "b-overlay.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "a-labels.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), load(artifact_path)(photo()))
    with Image.open(tmp_path / "out" / "b-labels.png") as labels:
        assert labels.size == (90, 40)


def test_json_without_overlay(cli, artifact_path, pictures, tmp_path):
    done = cli("run", artifact_path, "in/a.png", "-o", "x", "--json", "--no-overlay").succeeded()
    assert json.loads(done.out) == [{"image": "in/a.png", "labels": "x/a-labels.png"}]
    assert files(tmp_path / "x") == ["a-labels.png"]


def test_equal_names(cli, artifact_path, pictures, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    done = cli("run", artifact_path, "in/a.png", "a.png").succeeded()
    assert done.out.split() == ["out/a-png-1-labels.png", "out/a-png-2-labels.png"]


def test_in_a_process_of_its_own_without_torch(artifact_path, pictures, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "onnx.py").write_text("raise SystemExit('onnx was imported')")
    import os

    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_program(
        "run", artifact_path, "in", cwd=tmp_path, env={"PYTHONPATH": path}
    ).succeeded()
    assert len(done.out.splitlines()) == 2


def test_an_image_that_a_result_would_overwrite(cli, artifact_path, pictures, tmp_path):
    """A ground truth beside its image, say, and --out the same folder."""
    Image.fromarray(photo()).save(pictures / "a-labels.png")
    before = (pictures / "a-labels.png").read_bytes()
    done = cli("run", artifact_path, "in", "--out", "in")
    assert (done.code, done.out) == (2, "")
    assert "in/a-labels.png" in done.error
    assert (pictures / "a-labels.png").read_bytes() == before


BROKEN = {"empty": b"", "text": b"text", "cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images(cli, artifact_path, case, tmp_path):
    (tmp_path / "i.png").write_bytes(BROKEN[case])
    done = cli("run", artifact_path, "i.png")
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("error: i.png: ")
    assert files(tmp_path) == ["i.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ARTIFACT", "none.png"], "no such file or folder"),
        (["ARTIFACT", "empty"], "no PNG or JPEG files"),
        (["none.hmseg", "in"], "no such file"),
        (["in/a.png", "in"], "not an hmseg artifact"),
        (["ARTIFACT", "in", "--out", "in/a.png"], "it is a file"),
        (["ARTIFACT", "in", "--out", "/proc/x"], "cannot write"),
        (["ARTIFACT", "in", "--threads", "0"], "--threads 0"),
    ],
)
def test_bad_input(cli, artifact_path, pictures, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    done = cli("run", *(artifact_path if a == "ARTIFACT" else a for a in arguments))
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert files(tmp_path) == before
