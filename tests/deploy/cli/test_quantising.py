"""compile --precision int8: from frames to a checked binary; what cannot be asked."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from deploy.compile import compile_model
from deploy.resolution import Resolution
from deploy.runtime import load
from deploy.street import draw_street
from hmseg.data.classes import CAMVID
from hmseg.data.normalise import MEAN, STD, planes
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.quantise import FixedMap, fixed, quantise
from hmseg.train.trained import trained_network
from hmseg.zoo import create_model
from lut.errors import UserError
from tests.deploy.graphs import photo, segmenter, write
from tests.deploy.quantise.test_frames import folder_of


@pytest.fixture
def own(tmp_path):
    """A file of a user's own, and a folder of frames beside it."""
    folder_of(tmp_path / "frames", 3)
    write(segmenter(stride=2), tmp_path / "mine.onnx")
    return tmp_path


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


INT8 = ("compile", "-m", "mine.onnx", "--precision", "int8")


def test_a_user_file_calibrated(cli, own):
    done = cli(
        *INT8, "--calibrate", "frames", "--keep", "conv2", "--sensitivity", "--save-onnx", "q.onnx",
        "--threads", 1, "--json",
    ).succeeded()  # fmt: skip
    assert "quantising by frames" in done.err
    assert "layers that hurt, each in 8 bits alone" in done.err
    assert "1 of 2 layers in 8 bits, kept wide: conv2" in done.err
    assert "parity" in done.err
    report = json.loads(done.out)["quantisation"]
    assert report["int8"]["kept"] == ["conv2"]
    assert report["frames"] == 3
    assert written(own) == ["frames", "mine-64x64.hmseg", "mine.onnx", "q.onnx"]
    ops = [node.op_type for node in onnx.load("q.onnx").graph.node]
    assert ops.count("QuantizeLinear") == 1
    image = photo(seed=77)
    (labels,) = ort.InferenceSession("q.onnx").run(None, {"image": image[None]})
    assert (load("mine-64x64.hmseg", threads=1)(image) != labels[0]).mean() < 2e-3
    # What was written is a file that brings its own scales.
    done = cli("compile", "-m", "q.onnx", "--precision", "int8", "-o", "again.hmseg").succeeded()
    assert "quantising" not in done.err
    assert (load("again.hmseg", threads=1)(image) != labels[0]).mean() < 2e-3
    done = cli(
        "compile", "-m", "q.onnx", "--precision", "int8", "--calibrate", "frames", "-o", "x.hmseg"
    )
    assert "q.onnx is quantised already, and its own scales count: leave --calibrate" in done.error


def test_a_quantised_checkpoint_brings_its_scales(cli, own):
    """What training learned, in the binary and in the file."""
    size = Resolution(96, 128)
    street = draw_street(size)
    released = create_model("tiny-mrms", pretrained="camvid")
    network = quantise(released, "tiny-mrms")
    with torch.no_grad():
        network(torch.from_numpy(planes(street, MEAN, STD))[None])
    config = TrainConfig("tiny-mrms", "camvid", (Stage((96, 128), 2, 1),), quantise="int8")
    Checkpoint(config, 0, CAMVID.names, network.state_dict(), {}, {}).save(Path("run.safetensors"))
    of_run = ("compile", "-m", "run.safetensors", "-r", str(size), "--precision", "int8")
    done = cli(*of_run, "--save-onnx", "q.onnx", "--threads", 1, "-o", "run.hmseg").succeeded()
    assert "quantising" not in done.err
    graph = onnx.load("q.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    found = {(float(constants[n.input[1]]), int(constants[n.input[2]])) for n in pairs}
    constant = fixed(trained_network(Checkpoint.load(Path("run.safetensors")), Path("run")))
    learned = {(float(m.scale), int(m.zero)) for m in constant.modules() if isinstance(m, FixedMap)}
    assert found == learned
    (labels,) = ort.InferenceSession("q.onnx").run(None, {"image": street[None]})
    assert (load("run.hmseg", threads=1)(street) != labels[0]).mean() < 2e-2
    done = cli(*of_run, "--calibrate", "frames", "-o", "x.hmseg")
    assert "the network is quantised already: its own scales count; calibrate none" in done.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--calibrate", "frames"), "--calibrate goes with --precision int8"),
        (("--precision", "fp32", "--keep", "conv1"), "--keep goes with --precision int8"),
        (("--max-miou-loss", "1"), "--max-miou-loss goes with --precision int8"),
        (("--precision", "auto", "--calibrate", "frames", "--save-onnx", "q.onnx"),
         "--save-onnx goes with --precision int8"),
        (("--precision", "auto", "--keep", "a"), "--keep goes with --calibrate FOLDER"),
        (("--precision", "auto", "--calibrate", "frames", "--max-miou-loss", "1"),
         "--max-miou-loss goes with frames that have labels"),
        (("--precision", "int8"), "--precision int8 needs --calibrate FOLDER"),
        (("--precision", "int8", "--keep", "a"), "--keep goes with --calibrate FOLDER"),
        (("--precision", "int8", "--calibrate", "no"), "no: no such folder"),
        (("--precision", "int8", "--calibrate", "mine.onnx"), "mine.onnx: a file; give the folder"),
        (("--precision", "int8", "--calibrate", "empty"), "empty: no PNG, JPEG, WebP, BMP or TIFF"),
        (("--precision", "int8", "--calibrate", "frames", "--calibrate-frames", "0"),
         "--calibrate-frames 0: at least 1 is needed"),
        (("--precision", "int8", "--calibrate", "frames", "--max-miou-loss", "-1"),
         "--max-miou-loss -1: write points of mIoU, 0 to 100"),
        (("--precision", "int8", "--calibrate", "frames", "--max-miou-loss", "1"),
         "--max-miou-loss goes with frames that have labels"),
        (("--precision", "int8", "--calibrate", "frames", "--keep", "stem"),
         "--keep stem: no layer has this name; there are conv1, conv2"),
        (("--precision", "int8", "--calibrate", "frames", "--target", "adreno"),
         "--precision int8 is for CPUs, not for"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(cli, own, options, message):
    (own / "empty").mkdir()
    done = cli("compile", "-m", "mine.onnx", *options)
    assert done.code == 2
    assert message in done.error
    assert written(own) == ["empty", "frames", "mine.onnx"]


def test_auto_tries_int8_by_frames(cli, own):
    done = cli(
        "compile", "-m", "mine.onnx", "--precision", "auto", "--calibrate", "frames", "--threads",
        1, "-o", "n.hmseg", "--json",
    ).succeeded()  # fmt: skip
    choice = json.loads(done.out)["choice"]
    assert "2 of 2 layers in 8 bits" in done.err
    assert choice["kept"].keys() >= {"fp32", "int8"}
    assert choice["ms"].keys() >= {"fp32", "int8"}
    assert json.loads(done.out)["quantisation"]["frames"] == 3
    lines = done.err.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("precision   "))
    assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["fp32", "bf16", "int8"]
    assert lines[head + 4] == "labels beside fp32's, on 3 frames of frames"
    assert lines[head + 5].startswith(f"precision {choice['precision']}: ")
    assert load("n.hmseg").artifact.target.precision.name == choice["precision"]


@pytest.mark.parametrize("command", ["bench", "verify"])
def test_other_commands_compile_no_network_without_scales(cli, own, command):
    done = cli(command, "-m", "mine.onnx", "--precision", "int8")
    assert done.code == 2
    assert "--precision int8: mine has no scales" in done.error
    assert "--calibrate FOLDER finds some: give the artifact that it writes" in done.error


def test_a_float_network_is_not_written_as_one_in_8_bits(cli, own):
    """A checkpoint may have scales; this one has none."""
    config = TrainConfig("tiny-mrms", "camvid", (Stage((96, 128), 2, 1),))
    state = create_model("tiny-mrms", pretrained="camvid").state_dict()
    Checkpoint(config, 0, CAMVID.names, state, {}, {}).save(Path("float.safetensors"))
    of_run = ("compile", "-m", "float.safetensors", "--resolution", "96x128", "-o", "n.hmseg")
    before = written(own)
    done = cli(*of_run, "--precision", "int8", "--save-onnx", "q.onnx")
    assert done.code == 2
    assert "has no scales" in done.error
    assert written(own) == before
    for how in ("int8", "auto"):  # one with scales is calibrated by nobody
        done = cli("compile", "-m", "mine.onnx", "--precision", how, "--calibrate", "frames",
                   "--keep", "conv1,conv2", "-o", "n.hmseg")  # fmt: skip
        assert done.code == 2
        assert "nothing of this network would be in 8 bits: every layer is kept" in done.error
    assert written(own) == before


def test_in_one_call(own, monkeypatch):
    monkeypatch.chdir(own)
    steps = []
    path = compile_model(
        "mine.onnx", "n.hmseg", precision="int8", calibrate="frames", keep="conv2", threads=1,
        on_step=steps.append,
    )  # fmt: skip
    assert load(path, threads=1)(photo()).dtype == np.uint8
    assert any("1 of 2 layers in 8 bits, kept wide: conv2" in step for step in steps)
    with pytest.raises(UserError, match="--precision int8 needs --calibrate FOLDER"):
        compile_model("mine.onnx", "x.hmseg", precision="int8")
    with pytest.raises(UserError, match="--keep goes with --precision int8"):
        compile_model("mine.onnx", "x.hmseg", keep=["conv2"])
