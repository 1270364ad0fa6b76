import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy import host
from deploy.artifact_file import save_artifact
from deploy.backends.cpu import CpuBackend
from deploy.cli.bench import _check_early, _model_of, _with_scales
from deploy.cli.options import EndOptions, SourceOptions
from deploy.graph.source import ReleasedWeights, Source
from deploy.quantise import shipped
from lut.errors import UserError
from tests.deploy.graphs import photo, segmenter, write

QUICK = ["--warmup", "1", "--repeat", "3", "--rounds", "2"]


@pytest.fixture(autouse=True)
def without_memory(monkeypatch):
    """It takes two processes more; test_json measures it."""
    monkeypatch.setattr(CpuBackend, "measures_memory", False)


@pytest.fixture
def own(tmp_path, small_artifact):
    """The small user graph and its artifact."""
    write(segmenter(), tmp_path / "user.onnx")
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    return ["bench", "-m", "user.onnx", "--artifact", "n.hmseg", *QUICK]


def test_table(cli, own):
    done = cli(*own, "--percentile", "25").succeeded()
    assert "onnxruntime / hmseg: " in done.out
    assert "p25" in done.out
    assert "the time includes" in done.err
    assert "median" in done.out


def test_json(cli, own, monkeypatch):
    monkeypatch.setattr(CpuBackend, "measures_memory", True)
    done = cli(*own, "--json", "--percentile", "10", "--percentile", "99.9").succeeded()
    data = json.loads(done.out)
    assert (data["model"], data["resolution"], data["threads"]) == ("user", "64x64", 2)
    samples = data["samples_ns"]["hmseg"]
    assert [len(block) for block in samples] == [3, 3]
    assert data["percentiles"]["hmseg"]["p10_ms"] == pytest.approx(np.percentile(samples, 10) / 1e6)
    assert "p99.9_ms" in data["percentiles"]["onnxruntime"]
    assert data["machine"]["machine"] == host.cpu_model()
    assert data["memory"]["hmseg"]["network_kib"] > 0


def test_profile(cli, own, small_artifact, tmp_path):
    called = list(dict.fromkeys(small_artifact.calls))
    data = json.loads(cli(*own, "--profile", "--json").succeeded().out)
    assert [kernel["name"] for kernel in data["profile"]["kernels"]] == called
    assert data["profile"]["machine"]["emulated"] is False
    save_artifact(replace(small_artifact, calls=()), tmp_path / "n.hmseg")
    refused = cli(*own, "--profile")
    assert (refused.code, refused.out) == (2, "")
    assert "n.hmseg: its code has no entry that times kernels" in refused.error


def test_compiling_first_and_an_image_of_another_size(cli, user_onnx, tmp_path):
    Image.fromarray(photo((30, 90))).save(tmp_path / "i.png")
    done = cli("bench", "-m", user_onnx, "--image", "i.png", *QUICK).succeeded()
    assert "compiling for cpu" in done.err


def test_fail_below(cli, own):
    done = cli(*own, "--fail-below", "1e9")
    assert done.code == 1
    assert "below --fail-below 1e+09" in done.error
    assert "onnxruntime / hmseg: " in done.out  # the figures are shown all the same
    assert cli(*own, "--fail-below", "1e-9").succeeded()


def test_from_a_tensor(cli, user_onnx, tmp_path):
    done = cli("bench", "-m", user_onnx, "--input", "tensor", "--output", "logits", *QUICK)
    assert "the copy of the float32 tensor in, the whole network, and the logits map" in done.err
    assert done.succeeded()


M = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")


def test_an_artifact_of_another_mean(cli, user_onnx):
    """Its own counts where none is given; one that is given has to be the artifact's."""
    cli("compile", "-m", user_onnx, *M, "-o", "n.hmseg").succeeded()
    asked = ("bench", "n.hmseg", "-m", user_onnx, *QUICK)
    done = cli(*asked).succeeded()
    assert "onnxruntime / hmseg: " in done.out
    assert "not timed here" not in done.err
    cli(*asked, *M).succeeded()
    for command in (asked, ("verify", "n.hmseg")):
        refused = cli(*command, "--mean", "0.5,0.5,0.4")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        both = "with --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5, not with --mean 0.5,0.5,0.4: leave"
        assert both in refused.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n.hmseg"], "n.hmseg is of user, a file: name that with --model"),
        (["--artifact", "n.hmseg"], "name that with --model"),
        (["n.hmseg", "--artifact", "n.hmseg"], "name one artifact"),
        (["n.hmseg", "-m", "tiny-mrms"], "is user 64x64 image labels of 3 channels, not tiny-mrms"),
        (["n.hmseg", "-m", "user.onnx", "-r", "64x128"], "not user 64x128"),
        (["n.hmseg", "-m", "user.onnx", "--input", "tensor"], "not user 64x64 tensor"),
        (["n.hmseg", "-m", "user.onnx", "--precision", "int8"], "the artifact is fp32, not int8"),
        (["-m", "user.onnx", "--image", "user.onnx"], "user.onnx: "),
        (["-m", "user.onnx", "--image", "none.png"], "none.png: no such file"),
    ],
)
def test_refused_before_anything_is_exported(cli, own, arguments, message):
    done = cli("bench", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.error


def test_an_artifact_of_the_zoo_names_its_model(small_artifact):
    """A file's may be called as one of the zoo is."""
    path, file = Path("n.hmseg"), replace(small_artifact.metadata, model="unet")
    of = replace(small_artifact, metadata=replace(file, license="MIT"))
    assert _model_of(path, of) == "unet"
    assert _model_of(None, None) == "tiny-hmseg"
    with pytest.raises(UserError, match=r"n\.hmseg is of unet, a file"):
        _model_of(path, replace(small_artifact, metadata=file))
    with pytest.raises(UserError, match=r"n\.hmseg is of a file unet, not of the zoo's"):
        _check_early(path, file, "unet", SourceOptions(), EndOptions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeat", "0"], "repeat 0"),
        (["--warmup", "-1"], "warmup -1"),
        (["--rounds", "0"], "rounds 0"),
        (["--percentile", "101"], "'--percentile': Input should be less than or equal to 100"),
        (["--percentile", "nan"], "--percentile"),
        (["--fail-below", "nan"], "--fail-below"),
        (["--fail-below", "-1"], "--fail-below"),
        (["--image", "none.png"], "no such file"),
        (
            ["--output", "logits"],
            "is user 64x64 image labels of 3 channels, not user 64x64 image logits of 3",
        ),
        (["--input", "video"], "'video' is not one of 'image', 'tensor'"),
        (["--artifact", "none.hmseg"], "no such file"),
    ],
)
def test_bad_input(cli, own, arguments, message):
    done = cli(*own, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error


def test_int8_is_by_the_scales_that_ship(small_graph, monkeypatch):
    """Where the weights are released ones that have some; else the source is as it is."""
    source = Source(small_graph, None, "")
    with_some = replace(source, released=ReleasedWeights("tiny-hmseg", "camvid", ""))
    monkeypatch.setattr(
        shipped, "with_shipped", lambda one, threads: (replace(one, weights="q"), "")
    )
    assert _with_scales(with_some, "int8", 1).weights == "q"
    others = replace(source, released=ReleasedWeights("tiny-mrms-a", "camvid", ""))
    for one, precision in ((with_some, None), (others, "int8"), (source, "int8")):
        assert _with_scales(one, precision, 1) is one
