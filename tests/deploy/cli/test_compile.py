import json
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional

from deploy import quick_timing
from deploy.artifact import KernelInfo
from deploy.artifact_file import load_artifact
from deploy.cli.compile import left_to_tvm, most_of_the_frame
from deploy.cpu import pipeline
from deploy.profile import KernelProfile, summarise_kernels
from deploy.runtime import load
from hmseg.data.normalise import planes
from tests.deploy.cli.conftest import files
from tests.deploy.graph.ends.files import network, node
from tests.deploy.graphs import photo, segmenter, write


def test_a_user_file_end_to_end(cli, user_onnx, tmp_path):
    done = cli("compile", "-m", user_onnx).succeeded()
    assert done.out == "mine-64x64.hmseg\n"
    assert "parity with onnxruntime on 5 images" in done.err
    assert re.search(r"timing, 2 threads .* s  \S+ ms, onnxruntime \S+ ms", done.err)
    assert files(tmp_path) == ["mine-64x64.hmseg"]
    assert load(tmp_path / "mine-64x64.hmseg")(photo()).shape == (64, 64)


def test_one_of_two_outputs_of_a_file_of_any_size_with_a_threshold(cli, tmp_path):
    model = network([node("Sigmoid", "scores", "odds")], ["scores", "odds"], classes=1)
    for value in model.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim[2:], "hw", strict=True):
            dim.dim_param = name
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[2].dim_param = "h"
        value.type.tensor_type.shape.dim[3].dim_param = "w"
    del model.graph.value_info[:]
    write(model, tmp_path / "n.onnx")
    options = ("--output-name", "odds", "--threshold", "0.3", "-r", "64x96", "-o", "n.hmseg")
    cli("compile", "-m", "n.onnx", "--threads", 1, *options).succeeded()
    compiled, image = load(tmp_path / "n.hmseg", threads=1), photo((64, 96))
    assert compiled.metadata.classes.names == ("background", "class 1")
    given = planes(image)[None]
    (odds,) = ort.InferenceSession(tmp_path / "n.onnx").run(["odds"], {"x": given})
    assert 0.01 < (odds > 0.3).mean() < 0.99
    assert (compiled(image) != (odds[0, 0] > 0.3)).mean() < 1e-3
    done = cli("compile", "-m", "n.onnx", "-r", "64x96")
    assert done.code == 2
    assert "name the one to read with --output-name: 'scores', 'odds'" in done.error


def test_json_and_logits(cli, user_onnx):
    done = cli(
        "compile", "-m", user_onnx, "--output", "logits", "-o", "n.hmseg", "--json",
        "--threads", 1,
    ).succeeded()  # fmt: skip
    data = json.loads(done.out)
    assert data["artifact"] == "n.hmseg"
    assert data["output"]["shape"] == [1, 5, 64, 64]
    assert data["parity"]["checked"] is True
    timing = data["quick_timing"]
    assert (timing["threads"], set(timing["ms"])) == (1, {"hmseg", "onnxruntime"})
    assert [kernel["name"] for kernel in timing["kernels"]] == list(dict.fromkeys(data["calls"]))
    assert sum(kernel["share"] for kernel in timing["kernels"]) == pytest.approx(1)


def test_a_slower_network_is_told_and_in_which_operators(cli, user_onnx, monkeypatch):
    """By made-up times."""

    def timed(artifact, source, threads):
        samples = {"hmseg": [[8_000_000]], "onnxruntime": [[2_000_000]]}
        kernels = summarise_kernels(artifact, [[1000] * len(artifact.calls)])
        return quick_timing.summarise(threads, samples, kernels, {})

    monkeypatch.setattr(quick_timing, "time_quickly", timed)
    done = cli("compile", "-m", user_onnx, "-t", "x86-64-v2", "-o", "n.hmseg").succeeded()
    assert "8 ms, onnxruntime 2 ms\n" in done.err
    slower = (
        "SLOWER than onnxruntime on this machine: at least 4 times its time; most of the frame, "
    )
    assert slower in done.err
    assert "left to TVM's own lowering, 100% of the frame's time: " in done.err


def test_the_kernel_that_takes_most_of_the_frame():
    spec = "conv cin=16 cout=32 height=64 width=128 kernel=3,3 pad=1,1,1,1"
    kernels = tuple(
        KernelProfile(name, "conv", of, calls, ms, 0, 0)
        for name, of, calls, ms in (("pool_a", "", 1, 1.0), ("conv_b", spec, 2, 3.0))
    )
    timing = quick_timing.QuickTiming(1, 4, {}, {}, {}, kernels, {})
    assert most_of_the_frame(timing) == (
        "most of the frame, 75% in 2 calls, takes conv_b, convolution 16→32, 3x3, 64x128"
    )


def test_operators_of_one_kind_are_named_together():
    def info(name, tuned=False):
        return KernelInfo(name, "tvm", "", 0, 0, tuned)

    names = [f"conv_relu_{n:012x}" for n in range(3)] + [f"k{n}_{n:012x}" for n in range(6)]
    left = [info(name) for name in names]
    shares = {name: 0.1 for name in names[:3]} | {names[3]: 0.05, names[8]: 0.4}
    assert left_to_tvm(left, shares, 2) == (
        "left to TVM's own lowering, 75% of the frame's time: k5 40.0%, conv_relu x3 30.0%, "
        "k0 5.0%, k1 0.0%, k2 0.0%, 2 others 0.0%; hmseg-deploy tune may speed up 2 of them"
    )
    assert left_to_tvm(left[:4], None, 0) == "left to TVM's own lowering: conv_relu x3, k0"


def test_another_level(cli, user_onnx, tmp_path):
    cli("compile", "-m", user_onnx, "-t", "x86-64-v2", "-o", "n.hmseg").succeeded()
    target = load_artifact(tmp_path / "n.hmseg").target
    assert target.config["mcpu"] == "x86-64-v2"
    assert "avx2" not in target.features


def test_a_target_this_machine_cannot_run_is_written_unchecked(
    cli, user_onnx, tmp_path, monkeypatch
):
    monkeypatch.setattr("deploy.host.cpu_flags", lambda: frozenset({"pni"}))
    done = cli("compile", "-m", user_onnx, "-t", "x86-64-v3", "-o", "n.hmseg").succeeded()
    assert "parity not checked" in done.err
    assert "timing" not in done.err
    assert load_artifact(tmp_path / "n.hmseg").parity["checked"] is False


def test_the_parity_gate_writes_nothing_and_keeps_the_old_file(
    cli, user_onnx, tmp_path, monkeypatch
):
    from tests.deploy.test_build import scale_weight_of_conv

    (tmp_path / "n.hmseg").write_bytes(b"the old one")
    honest = pipeline.network_passes
    monkeypatch.setattr(
        pipeline, "network_passes", lambda _: [scale_weight_of_conv(0, 1.1), *honest()]
    )
    done = cli("compile", "-m", user_onnx, "-o", "n.hmseg")
    assert (done.code, done.out) == (1, "")
    assert "first difference: Conv" in done.error
    assert "no artifact was written" in done.error
    assert (tmp_path / "n.hmseg").read_bytes() == b"the old one"
    assert files(tmp_path) == ["n.hmseg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "gpu"], "unknown target 'gpu'"),
        (["-t", "cuda", "--arch", "sm_13"], "unknown GPU architecture 'sm_13': CUDA 12.9 knows"),
        (["--precision", "fp16"], "--precision fp16 is for --target cuda, not for cpu"),
        (["-t", '{"kind": "llvm", "mattr": ["+made-up"]}'], "made-up"),
        (["-t", "{"], "not JSON"),
        (["--threads", "0"], "--threads 0"),
        (["-o", "."], "it is a folder"),
        (["-r", "128x128"], "its height is fixed, 128x128 is asked for"),
        (["--classes", "5"], "--classes goes with a zoo model"),
    ],
)
def test_bad_options(cli, user_onnx, arguments, message, tmp_path):
    done = cli("compile", "-m", user_onnx, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert files(tmp_path) == []


def bad_graphs() -> dict[str, tuple[onnx.ModelProto, str]]:
    unsupported = segmenter(
        stride=1,
        extra=[onnx.helper.make_node("Det", ["features"], ["activated"], domain="custom.domain")],
    )
    return {
        "dynamic shape": (segmenter(input_dims=[1, 3, "h", 64]), "give --resolution HxW"),
        "two images": (segmenter(input_dims=[2, 3, 64, 64]), "batch"),
        "operator": (unsupported, "custom.domain.Det node that makes 'activated'"),
        "too many classes": (segmenter(classes=70_000), "70000 classes"),
        "too small": (segmenter(size=(32, 32)), "between 64"),
    }


@pytest.mark.parametrize("case", bad_graphs())
def test_bad_graphs(cli, case, tmp_path):
    model, message = bad_graphs()[case]
    write(model, tmp_path / "m.onnx")
    done = cli("compile", "-m", "m.onnx")
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert files(tmp_path) == ["m.onnx"]


def test_labels_equal_the_users_own_graph(cli, user_onnx, tmp_path):
    """The whole chain against onnxruntime on the file as it came, numpy and torch for the ends."""
    import onnxruntime as ort

    cli(
        "compile", "-m", user_onnx, "-o", "n.hmseg", "--mean", "0,0,0", "--std", "1,1,1"
    ).succeeded()
    image = photo()
    session = ort.InferenceSession(str(user_onnx), providers=["CPUExecutionProvider"])
    given = (image.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    (scores,) = session.run(None, {"input": given})
    logits = load(tmp_path / "n.hmseg").logits(image)
    full = functional.interpolate(torch.from_numpy(scores), size=(64, 64), mode="bilinear")
    np.testing.assert_allclose(logits, full[0], atol=1e-4)
