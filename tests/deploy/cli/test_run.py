import json

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from deploy.images import resize_labels
from deploy.resolution import Resolution
from deploy.runtime import load
from tests.deploy.cli.conftest import files, hmseg, run_program
from tests.deploy.graph.ends.files import network, node
from tests.deploy.graphs import photo, write
from tests.hmseg.data.folders import make_camvid


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


@pytest.fixture(scope="module")
def masks_path(tmp_path_factory):
    """A user's network of grey images and three classes that do not exclude each other."""
    folder = tmp_path_factory.mktemp("masks")
    model = network([node("Sigmoid", "scores", "p")], ["p"], classes=3, channels=1, stride=2)
    helper.set_model_props(model, {"names": '["lane", "../kerb", "Lane"]'})
    write(model, folder / "n.onnx")
    done = run_program("compile", "-m", "n.onnx", "-o", "n.hmseg", "--threads", 1, cwd=folder)
    assert "n.onnx: 3 classes that do not exclude each other" in done.succeeded().err
    return folder / "n.hmseg"


def test_masks(cli, masks_path, pictures, tmp_path):
    done = cli("run", masks_path, "in/a.png", "--threads", 1).succeeded()
    kinds = ["lane", "kerb", "Lane-1"]
    assert done.out.split() == [f"out/a-{kind}.png" for kind in kinds]
    compiled = load(masks_path, threads=1)
    assert compiled.artifact.manifest()["format_version"] == 4
    with Image.open(pictures / "a.png") as picture:
        grey = picture.convert("L").resize((80, 64), Image.Resampling.BILINEAR)
    found = compiled(np.asarray(grey)[..., None])
    assert (found.dtype, found.shape) == (np.uint8, (3, 64, 80))
    for kind, mask in zip(kinds, found, strict=True):
        with Image.open(tmp_path / "out" / f"a-{kind}.png") as image:
            values = np.asarray(image)
        np.testing.assert_array_equal(values, 255 * resize_labels(mask, Resolution(64, 64)))
    assert (tmp_path / "out" / "a-overlay.png").exists()
    cli("verify", masks_path, "--threads", 1).succeeded()
    done = cli("run", masks_path, "in/a.png", "--no-overlay", "--json", "-o", "x").succeeded()
    masks = [f"x/a-{kind}.png" for kind in kinds]
    assert json.loads(done.out) == [{"image": "in/a.png", "masks": masks}]


def test_masks_are_not_evaluated(masks_path, tmp_path):
    data = make_camvid(tmp_path / "camvid")
    done = hmseg("eval", masks_path, "--data", data)
    assert done.code == 2
    assert "finds a mask of each class, and these may overlap" in done.error


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
