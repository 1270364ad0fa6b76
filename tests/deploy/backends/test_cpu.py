"""The backend for CPUs; the networks that it compiles run in tests/deploy/test_build.py and
tests/deploy/cpu."""

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import onnx
import pytest

from deploy.backends import backend_of
from deploy.backends.base import Built, Job
from deploy.build import build_artifact
from deploy.graph.reference import OnnxSession
from deploy.graph.source import Source
from deploy.quantise.synthetic import with_synthetic_scales
from deploy.targets import resolve_target
from lut.errors import UserError
from lut.ops import Pointwise
from tests.deploy.graphs import photo

BACKEND = backend_of(resolve_target("x86-64-v3"))


def test_a_prefix_is_what_onnxruntime_gives(small_graph, cpu):
    """For finding the first layer that differs."""
    inferred = onnx.shape_inference.infer_shapes(small_graph, strict_mode=True)
    cut = onnx.utils.Extractor(inferred)
    for output in ("activated", "scores"):
        prefix = cut.extract_model([small_graph.graph.input[0].name], [output])
        wanted = OnnxSession(prefix).run(photo())[0]
        job = Job(prefix, cpu, BACKEND.kernels(cpu, 2, {}))
        found = BACKEND.run_prefix(job, photo(), None)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_calls_are_operations_or_the_names_of_what_tvm_made(small_graph, cpu, small_artifact):
    built = BACKEND.compile(
        Job(small_graph, cpu, BACKEND.kernels(cpu, 2, {})), small_artifact, print
    )
    infos = {info.name: info for info in built.artifact.kernels}
    assert built.calls == tuple(infos[n].spec or n for n in built.artifact.calls)


def test_a_table_times_every_call(small_artifact):
    entries = [(Pointwise(8, 8, 4, 4), 2), (Pointwise(8, 16, 4, 4), 1)]
    artifact, calls = BACKEND.timed(Built(small_artifact, ()), entries)
    assert artifact is small_artifact
    assert calls == (entries[0][0], entries[0][0], entries[1][0])


def test_a_full_temporary_folder(small_graph, cpu, monkeypatch, tmp_path):
    """Known before LLVM ends the process, with no word about where."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2e8, 2e8, 200_000))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"MB in {tmp_path}, 0 MB are free; .* in TMPDIR"
    ) as caught:
        build_artifact(small_graph, cpu, threads=2)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_peers(small_artifact, small_graph):
    """onnxruntime, on the graph that the artifact was compiled from."""
    image = photo()
    found = BACKEND.peers(small_artifact, Source(small_graph, None, ""), image, 2)
    assert list(found) == ["onnxruntime"]
    output = found["onnxruntime"]().run()
    np.testing.assert_array_equal(output, OnnxSession(small_graph).run(image)[0])


def test_peers_in_8_bits(small_artifact, small_graph):
    """On the pairs, beside those in float32."""
    image, pairs = photo(), with_synthetic_scales(small_graph)
    source = Source(small_graph, None, "", quantised=pairs)
    found = BACKEND.low_precision_peers(small_artifact, source, image, 2)
    assert list(found) == ["OpenVINO bf16", "onnxruntime int8", "OpenVINO int8"]
    peer = found["onnxruntime int8"]()
    assert peer.precision == "int8"
    np.testing.assert_array_equal(peer.run(), OnnxSession(pairs, threads=2).run(image)[0])
    given = small_artifact, source, image, 2
    assert BACKEND.peers(*given)["onnxruntime"]().precision == "fp32"
    plain = BACKEND.low_precision_peers(small_artifact, Source(small_graph, None, ""), image, 2)
    assert list(plain) == ["OpenVINO bf16"]
    own = BACKEND.peers(small_artifact, Source(pairs, None, ""), image, 2)
    assert own["onnxruntime"]().precision == "int8"


def test_an_instruction_set_without_kernels(small_graph, small_artifact):
    target = resolve_target("x86-64-v2")
    assert BACKEND.kernels(target, 2, {}) is None
    job = Job(small_graph, target, None)
    with pytest.raises(UserError, match="there are no kernels for x86-64-v2; it needs AVX2"):
        BACKEND.tuning_bench(job, small_artifact, 2, None, emulated=False)


def test_what_it_says_of_itself(cpu):
    assert (BACKEND.record_threads(3), BACKEND.architecture(cpu)) == (3, cpu.architecture)
    assert BACKEND.measured_target(cpu, "cpu") is cpu
    assert BACKEND.where(replace(cpu, name="arm")).format("a.hmseg") == (
        "on the device: hmseg-deploy verify a.hmseg --device ssh:HOST, adb, or with --rpc-key KEY"
    )
