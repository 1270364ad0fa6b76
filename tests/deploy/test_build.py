import json
import random
from datetime import datetime
from importlib.metadata import version

import numpy as np
import pytest
import tvm
from tvm import relax

from deploy import host
from deploy.artifact_file import load_artifact, save_artifact
from deploy.build import TOOLS, build_artifact, build_source
from deploy.cpu.pipeline import network_passes
from deploy.graph import expected
from deploy.graph.export import export_network
from deploy.graph.reference import Reference
from deploy.graph.source import open_source
from deploy.noise import Deviation
from deploy.own_file import own_file
from deploy.resolution import Resolution
from deploy.street import draw_street
from deploy.verify import probe_images, verify_torch
from hmseg import zoo
from hmseg.genotype import parse_genotype, random_genotype
from hmseg.mrms import MRMSConfig
from lut.errors import UserError, WorkError
from tests.deploy import graphs
from tests.deploy.graphs import SIZE, deployable, segmenter
from tests.deploy.test_artifact_file import same


def scale_weight_of_conv(index: int, factor: float) -> tvm.transform.Pass:
    """A pass that is wrong on purpose: it scales the weights of one convolution."""

    @relax.expr_functor.mutator
    class Scale(relax.PyExprMutator):
        def __init__(self, module):
            super().__init__(module)
            self.seen = 0

        def visit_call_(self, call):
            call = self.visit_expr_post_order(call)
            if isinstance(call.op, tvm.ir.Op) and call.op.name == "relax.nn.conv2d":
                self.seen += 1
                if self.seen - 1 == index:
                    weight = relax.const(call.args[1].value.numpy() * np.float32(factor))
                    return relax.Call(call.op, [call.args[0], weight], call.attrs, call.ty_args)
            return call

    @tvm.transform.module_pass(opt_level=0, name="ScaleOneWeight")
    def scale(module, _context):
        mutator = Scale(module)
        for var, function in list(module.functions.items()):
            if isinstance(function, relax.Function):
                mutator.seen = 0
                mutator.builder_.update_func(var, mutator.visit_expr(function))
        return mutator.builder_.get()

    return scale


def test_what_the_artifact_says(small_graph, cpu, tmp_path):
    steps: list[str] = []
    artifact, comparisons = build_artifact(small_graph, cpu, threads=2, on_step=steps.append)
    assert steps[0] == "ChannelsFirst"
    assert steps[-2:] == ["linking", "parity gate"]
    assert artifact.parity["checked"] is True
    assert artifact.parity["machine"] == host.cpu_model()
    assert artifact.parity["comparisons"] == [c.to_json() for c in comparisons]
    assert {c.image for c in comparisons} == {"golden", "noise", "blocks", "black", "white"}
    assert all(c.passed for c in comparisons)
    assert artifact.versions == {tool: version(tool) for tool in TOOLS}
    assert datetime.fromisoformat(artifact.created).tzinfo is not None
    assert len(artifact.kernels) > 2
    json.dumps(artifact.manifest())
    save_artifact(artifact, tmp_path / "a.hmseg")
    assert same(load_artifact(tmp_path / "a.hmseg"), artifact)


def test_the_golden_pair_is_the_references(artifact, graph):
    golden = artifact.golden
    np.testing.assert_array_equal(golden.image, draw_street(SIZE))
    labels, logits = Reference(graph)(golden.image)
    assert (golden.labels != labels).mean() < 1e-3  # it is in double: of ties another may win
    np.testing.assert_allclose(golden.logits, logits[:, ::8, ::8], atol=1e-4)
    noise = Deviation(**artifact.parity["noise"])
    assert 0 < noise.rms < noise.largest < 1e-4


# In the small graph conv1 is the first, conv2 the second; in ONNX's order.
@pytest.mark.parametrize(("index", "node"), [(0, "conv1"), (1, "conv2")])
def test_a_pass_that_breaks_a_layer_is_refused_and_the_layer_named(index, node, cpu, tmp_path):
    model = deployable(segmenter(), tmp_path)
    for named in model.graph.node:
        if named.op_type == "Conv":
            named.name = {"features": "conv1"}.get(named.output[0], "conv2")
    passes = [scale_weight_of_conv(index, 1.05), *network_passes()]
    with pytest.raises(WorkError) as caught:
        build_artifact(model, cpu, threads=2, passes=passes)
    text = str(caught.value)
    assert "tvm does not match onnxruntime on the" in text
    assert f"first difference: Conv '{node}'" in text
    assert text.endswith("no artifact was written")
    assert "\n" not in text


def test_what_is_refused_is_built_where_somebody_asks_to_be_told(small_graph, cpu):
    told, passes = [], [scale_weight_of_conv(1, 1.05), *network_passes()]
    built, _ = build_artifact(
        small_graph, cpu, threads=2, passes=passes, on_refusal=told.append
    )  # fmt: skip
    assert "does not match" in str(told[0])
    assert built.parity["checked"] is False
    assert built.parity["reason"] == str(told[0])


def test_a_pass_that_changes_nothing_is_taken(small_graph, cpu):
    """Else the two tests above might fail for another reason than the weights."""
    passes = [scale_weight_of_conv(0, 1.0), *network_passes()]
    _, comparisons = build_artifact(small_graph, cpu, threads=2, passes=passes)
    assert all(comparison.passed for comparison in comparisons)


def test_a_network_that_gives_nan_is_refused(small_graph, cpu):
    passes = [scale_weight_of_conv(1, float("nan")), *network_passes()]
    with pytest.raises(WorkError, match="logit error nan"):
        build_artifact(small_graph, cpu, threads=2, passes=passes)


def test_weights_that_are_nan_are_called_so(tmp_path):
    model = segmenter()
    for tensor in model.graph.initializer:
        if tensor.name == "b2":
            tensor.CopyFrom(
                graphs.numpy_helper.from_array(np.full(graphs.CLASSES, np.nan, np.float32), "b2")
            )
    with pytest.raises(UserError, match="its weight 'b2' has 5 values that are NaN"):
        deployable(model, tmp_path)


def test_what_tvm_cannot_compile_of_a_users_file_is_one_line(cpu, tmp_path):
    """Of a network of ours it is a mistake of ours, and shown whole."""

    @tvm.transform.module_pass(opt_level=0, name="Fail")
    def fail(_module, _context):
        raise tvm.error.InternalError("Check failed:\nno such kernel")

    source = open_source(str(graphs.write(segmenter(), tmp_path / "own.onnx")))
    with pytest.raises(UserError, match=r"cannot be compiled .*no such kernel") as caught:
        build_source(source, cpu, threads=2, passes=[fail])
    assert "\n" not in str(caught.value)
    with pytest.raises(tvm.error.InternalError, match="no such kernel"):
        build_artifact(source.graph, cpu, threads=2, passes=[fail])


@pytest.mark.parametrize("heavy", [False, True])
def test_a_file_that_was_misread_is_refused_before_anything_is_compiled(
    cpu, tmp_path, monkeypatch, heavy
):
    """Also where onnxruntime takes so long for an image that it is asked for one only."""
    if heavy:
        monkeypatch.setattr(expected, "HEAVY_MULTIPLY_ADDS", 0)
    source = open_source(str(graphs.write(segmenter(), tmp_path / "own.onnx")))
    own, steps = own_file(source), []
    artifact, comparisons = build_source(source, cpu, threads=2, on_step=steps.append)
    assert {c.side for c in comparisons} == {"file", "ends", "tvm"}
    assert [c.side for c in comparisons].count("file") == (1 if heavy else 2)
    assert artifact.parity["comparisons"] == [c.to_json() for c in comparisons]
    assert steps[0] == "comparing with the file"
    for tensor in source.graph.graph.initializer:
        if list(tensor.dims) == [8, 3, 3, 3]:
            values = graphs.numpy_helper.to_array(tensor) * np.float32(1.001)
            tensor.CopyFrom(graphs.numpy_helper.from_array(values, tensor.name))
    steps.clear()
    with pytest.raises(WorkError) as caught:
        build_artifact(source.graph, cpu, own=own, threads=2, on_step=steps.append)
    text = str(caught.value)
    assert text.startswith("the ONNX file was misread: file does not match onnxruntime on the ")
    assert "; first difference: Conv 'conv1' (output 'features'), " in text
    assert "\n" not in text
    assert steps == ["comparing with the file"]


def test_a_compiler_that_fails_on_a_prefix_ends_in_one_line(cpu, tmp_path, monkeypatch):
    """The network is refused already."""
    model = deployable(segmenter(), tmp_path)
    passes = [scale_weight_of_conv(0, 1.05), *network_passes()]

    def fail(*_):
        raise ValueError("one line\nand another")

    monkeypatch.setattr("deploy.build.first_difference", fail)
    with pytest.raises(
        WorkError, match=r"the layer was not found \(one line and another\); no art"
    ):
        build_artifact(model, cpu, threads=2, passes=passes)


def test_a_target_that_this_machine_lacks_is_built_but_not_checked(
    small_graph, cpu, monkeypatch, tmp_path
):
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset({"pni"}))
    artifact, comparisons = build_artifact(small_graph, cpu, threads=2)
    assert comparisons == []
    assert artifact.parity["checked"] is False
    assert "this CPU lacks" in artifact.parity["reason"]
    assert len(artifact.code.data) > 1000
    save_artifact(artifact, tmp_path / "a.hmseg")


# What the zoo's networks differ in, each part once: the heads, on the fewest layers; the head of
# TinyMRMS is that of the `artifact` fixture (test_verify.py). README's commands check tiny-hmseg.
SHALLOW = parse_genotype(
    "s1 e1k3 | s2 e1k3 skip skip skip | s3 e1k5 skip skip skip | s4a e1k3 skip skip skip"
    " | s4b e1k3 skip skip skip | s5a e1k3 skip skip skip | s5b e1k3 | 0.5 0.5"
)
MATRIX = {
    **{
        head: (MRMSConfig(SHALLOW, 0.5, 11, head), Resolution(64, 64))
        for head in {zoo.entry(name).config.head for name in zoo.list_own()} - {"lcf-lge"}
    },
    "genotype": (
        MRMSConfig(random_genotype(random.Random(1)), 0.5, 11),
        Resolution(75, 125),
    ),
    "genotype that skips nothing": (
        MRMSConfig(random_genotype(random.Random(4)), 0.5, 11),
        Resolution(90, 67),
    ),
}


@pytest.mark.parametrize("name", sorted(MATRIX))
def test_every_head_and_random_genotypes(name, cpu):
    """At half width; the large matrix, full width too, is benchmarks/verify_matrix.py."""
    config, size = MATRIX[name]
    model = graphs.network(config, seed=1)
    graph = export_network(model, "n", size, num_classes=11)
    artifact, comparisons = build_artifact(graph, cpu, threads=2)
    comparisons += verify_torch(model, graph, probe_images(size, artifact.golden.image))
    assert len(comparisons) == 10
    assert all(comparison.passed for comparison in comparisons)
