import json
from dataclasses import replace

import onnxruntime
import pytest

from deploy.artifact_file import load_artifact, save_artifact
from deploy.images import read_image
from deploy.resolution import Resolution
from deploy.targets import resolve_target
from hmseg.data.registry import open_dataset
from hmseg.train.confusion import Confusion
from tests.deploy.cli.conftest import hmseg
from tests.deploy.graphs import deployable, segmenter, write
from tests.hmseg.data.folders import SIZE, make_camvid


def test_an_artifact(cli, artifact_path):
    done = cli("verify", artifact_path).succeeded()
    assert "yes" in done.out
    assert done.err.splitlines()[-1] == "verified"


def test_a_model(cli, user_onnx):
    data = json.loads(cli("verify", "-m", user_onnx, "--json").succeeded().out)
    # The graph against the file, what its ends add, then the binary.
    assert sorted(c["side"] for c in data) == ["ends"] * 2 + ["file"] * 2 + ["tvm"] * 5
    assert all(c["passed"] for c in data)


def test_an_artifact_that_differs_is_exit_1(cli, artifact, tmp_path):
    golden = replace(artifact.golden, logits=artifact.golden.logits + 1)
    save_artifact(replace(artifact, golden=golden), tmp_path / "a.hmseg")
    done = cli("verify", "a.hmseg")
    assert done.code == 1
    assert "NO" in done.out
    assert "does not match onnxruntime" in done.error
    done = cli("verify", "a.hmseg", "--json")
    assert done.code == 1
    assert json.loads(done.out)[0]["passed"] is False


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    return {
        "empty": b"",
        "text": b"hello",
        "cut": content[: len(content) // 2],
        "last byte": content[:-1],
        "flipped": bytes(flipped),
    }


@pytest.mark.parametrize("case", ["empty", "text", "cut", "last byte", "flipped"])
def test_damaged_artifacts(cli, artifact_path, tmp_path, case):
    (tmp_path / "a.hmseg").write_bytes(damaged(artifact_path.read_bytes())[case])
    done = cli("verify", "a.hmseg")
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("error: a.hmseg: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an artifact, or a model"),
        (["a.hmseg", "-m", "mrms"], "not both"),
        (["none.hmseg"], "no such file"),
        (["-m", "mrms", "-r", "1x1"], "between 64"),
        (["-m", "mrms", "-t", "nonsense"], "unknown target 'nonsense'"),
        (["-m", "mrms", "--threads", "0"], "--threads 0"),
    ],
)
def test_bad_input(cli, arguments, message):
    done = cli("verify", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error


def test_for_another_machine(cli, artifact, tmp_path):
    other = replace(artifact, target=replace(artifact.target, architecture="riscv64"))
    save_artifact(other, tmp_path / "a.hmseg")
    done = cli("verify", "a.hmseg")
    assert done.code == 2
    assert "compiled for riscv64, this machine is x86_64" in done.error


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A data set, and in a folder with it a network of its classes and size, and another one."""
    folder = tmp_path_factory.mktemp("labelled")
    make_camvid(folder / "data", train=1, val=3)
    for name, seed in (("mine", 0), ("other", 1)):
        model = segmenter(stride=2, size=Resolution(*SIZE), classes=11, seed=seed)
        write(model, folder / f"{name}.onnx")
    return folder


def miou_of(labelled, name):
    """By onnxruntime on the deployable graph, frame by frame."""
    model = deployable(
        segmenter(stride=2, size=Resolution(*SIZE), classes=11, seed=int(name == "other")), labelled
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    data, confusion = open_dataset("camvid", labelled / "data", "val"), Confusion(11)
    for index, frame in enumerate(data.frames):
        (labels,) = session.run(None, {"image": read_image(frame.image)[None]})
        confusion.add(data.load_labels(index), labels[0])
    return confusion.miou


def test_by_miou(cli, labelled, tmp_path):
    """A model beside itself in float32; an artifact beside a network that is named, as hmseg eval
    does it: the same figures, the same verdict."""
    mine, data = labelled / "mine.onnx", labelled / "data"
    done = cli("verify", "-m", mine, "--data", data, "--json").succeeded()
    assert "points of mIoU are lost (at most 0.5, --max-miou-loss)" in done.err
    values = json.loads(done.out)
    assert all(one["passed"] for one in values["comparisons"])
    found = values["evaluation"]
    assert (found["frames"], found["dataset"], found["split"]) == (3, "camvid", "val")
    assert found["against"] == f"{mine} in float32"
    assert found["miou"] == pytest.approx(miou_of(labelled, "mine"), abs=1e-3)
    assert found["against_miou"] == pytest.approx(miou_of(labelled, "mine"), abs=1e-6)
    worse, better = sorted(("mine", "other"), key=lambda name: miou_of(labelled, name))
    cli("compile", "-m", labelled / f"{worse}.onnx", "-o", "a.hmseg").succeeded()
    asked = ("a.hmseg", "--data", data, "--against", labelled / f"{better}.onnx")
    enough = cli("verify", *asked, "--max-miou-loss", "100").succeeded()
    assert "bicyclist" in enough.out
    assert f"{100 * miou_of(labelled, better):.2f}" in enough.out
    verified = cli("verify", *asked, "--max-miou-loss", "0")
    evaluated = hmseg("eval", *asked, "--max-miou-loss", "0")
    assert verified.code == evaluated.code == 1
    assert "(at most 0, --max-miou-loss)" in verified.error
    assert verified.error == evaluated.err.splitlines()[-1]


def test_an_artifacts_mean_is_that_of_the_file_beside_it(cli, labelled):
    """On whichever side of hmseg eval it is."""
    mine, data = labelled / "mine.onnx", labelled / "data"
    other = ("--mean", "0.9,0.1,0.5", "--std", "0.1,0.9,0.5")
    cli("compile", "-m", mine, *other, "-o", "a.hmseg").succeeded()
    found = []
    for sides in (("a.hmseg", mine), (mine, "a.hmseg")):
        done = hmseg("eval", sides[0], "--data", data, "--against", sides[1], "--json")
        values = json.loads(done.succeeded().out)
        found += [values["miou"], values["against_miou"]]
    assert found == pytest.approx([found[0]] * 4, abs=1e-6)
    assert abs(found[0] - miou_of(labelled, "mine")) > 1e-4  # which is by the usual mean


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.hmseg", "--data", "{data}"], "--data: name the network in float32 with --against"),
        (["a.hmseg", "--against", "mrms"], "--against goes with --data FOLDER"),
        (["a.hmseg", "--split", "val"], "--split goes with --data FOLDER"),
        (["a.hmseg", "--max-miou-loss", "1"], "--max-miou-loss goes with --data FOLDER"),
        (["a.hmseg", "--data", "{data}", "--against", "x", "--max-miou-loss", "-1"],
         "--max-miou-loss -1: write points of mIoU"),
        (["a.hmseg", "--data", "{data}", "--against", "x", "--split", "no"], "unknown split 'no'"),
        (["a.hmseg", "--data", "nowhere", "--against", "x"], "nowhere"),
        (["a.hmseg", "--data", "nowhere"], "; and name the network in float32 with --against"),
        (["a.hmseg", "--data", "{data}", "--against", "x"], "x: no such file or released network"),
        (["-m", "mrms", "--data", "{data}", "--against", "x.onnx"], "x.onnx: no such file"),
    ],
)  # fmt: skip
def test_bad_input_of_labels(cli, labelled, arguments, message):
    done = cli("verify", *(text.format(data=labelled / "data") for text in arguments))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.error


def test_frames_of_another_size(cli, artifact_path, labelled):
    done = cli("verify", artifact_path, "--data", labelled / "data", "--against", "tiny-hmseg")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "is made for 64x64, the frames are 72x96: compile it with --resolution" in done.error
    assert done.error.endswith("an ONNX file of fixed size is exported at 72x96 first")


def test_low_precision_shows_labels_that_are_no_tie(cli, small_artifact, tmp_path):
    """The same binary, as if it were in 8 bits."""
    target = resolve_target("cpu", precision="int8")
    save_artifact(replace(small_artifact, target=target), tmp_path / "a.hmseg")
    assert load_artifact(tmp_path / "a.hmseg").target.precision.name == "int8"
    assert "no ties, at most 1%" in cli("verify", "a.hmseg").succeeded().out
