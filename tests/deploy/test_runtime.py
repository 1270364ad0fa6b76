"""A compiled network as a user's program has it: its numbers, what it takes, what it imports."""

import subprocess
import sys

import numpy as np
import pytest

from deploy.artifact_file import save_artifact
from deploy.build import build_artifact
from deploy.graph.export import import_onnx
from deploy.graph.reference import Reference
from deploy.runtime import Network, load, open_artifact
from deploy.verify import replay_golden
from lut.errors import UserError
from tests.deploy.graphs import deployable, photo, segmenter, write


@pytest.fixture(scope="module")
def loaded(artifact_path) -> Network:
    return load(artifact_path, threads=2)


def test_labels_and_logits_against_onnxruntime(loaded, graph):
    reference = Reference(graph)
    for seed in range(3):
        image = photo(seed=seed)
        labels, logits = reference(image)
        got, scores = loaded(image), loaded.logits(image)
        assert (got.dtype, got.shape) == (np.uint8, (64, 64))
        assert (scores.dtype, scores.shape) == (np.float32, (19, 64, 64))
        np.testing.assert_allclose(scores, logits, atol=1e-4 * max(1, np.abs(logits).max()))
        np.testing.assert_array_equal(got, scores.argmax(0))
        assert (got != labels).mean() < 1e-3


def test_golden_replay(loaded):
    golden = loaded.artifact.golden
    np.testing.assert_array_equal(loaded(golden.image), golden.labels)
    np.testing.assert_allclose(loaded.logits(golden.image)[:, ::8, ::8], golden.logits, atol=1e-3)


def test_a_network_that_gives_logits(small_artifact, cpu, tmp_path):
    artifact, _ = build_artifact(deployable(segmenter(), tmp_path, "logits"), cpu, threads=2)
    network, labels = open_artifact(artifact, "a"), open_artifact(small_artifact, "b")
    image = photo()
    assert network(image).shape == (5, 64, 64)
    np.testing.assert_array_equal(network(image), network.logits(image))
    np.testing.assert_array_equal(network(image), labels.logits(image))


@pytest.mark.parametrize("output", ["labels", "logits"])
def test_a_network_that_takes_a_tensor(cpu, tmp_path, output):
    """Float in, compiled, checked, saved, loaded: the numbers are onnxruntime's."""
    mean, std = (0.3, 0.4, 0.5), (0.25, 0.5, 0.75)
    user = write(segmenter(), tmp_path / "user.onnx")
    graph = import_onnx(user, input_kind="tensor", output=output, mean=mean, std=std)
    assert [value.name for value in graph.graph.input] == ["tensor"]
    artifact, comparisons = build_artifact(graph, cpu, threads=2)
    assert comparisons
    assert all(comparison.passed for comparison in comparisons)
    save_artifact(artifact, tmp_path / "t.hmseg")
    network = load(tmp_path / "t.hmseg", threads=2)
    taken = network.artifact.manifest()["input"]
    assert taken == {"name": "tensor", "dtype": "float32", "shape": [1, 3, 64, 64]}
    tensor = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    labels, logits = Reference(graph)(tensor)
    np.testing.assert_allclose(network.logits(tensor), logits, atol=1e-4 * np.abs(logits).max())
    if output == "labels":
        assert (network(tensor) != labels).mean() < 1e-3
    assert replay_golden(network).passed
    with pytest.raises(UserError, match=r"takes a tensor float32 \(3, 64, 64\), not uint8"):
        network(photo())
    assert network(network.metadata.network_input(photo())).shape[-2:] == (64, 64)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 65, 3), np.uint8),
        np.zeros((65, 64, 3), np.uint8),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.int8),
        [[[0, 0, 0]]],
        None,
    ],
)
def test_images_of_another_shape_or_type(loaded, image):
    for call in (loaded, loaded.logits):
        with pytest.raises(UserError, match=r"takes an image uint8 \(64, 64, 3\), not "):
            call(image)


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_thread_counts(artifact_path, threads):
    with pytest.raises(UserError, match="at least 1"):
        load(artifact_path, threads=threads)


IMPORTS = """
import sys
{before}
from deploy.runtime import load
from deploy.images import read_image
import numpy as np
network = load(sys.argv[1], threads=2)
labels = network(np.zeros((64, 64, 3), np.uint8))
network.logits(np.zeros((64, 64, 3), np.uint8))
{after}
heavy = {{"torch", "onnx", "onnxruntime", "tvm", "onnxscript"}}
print(labels.shape, sorted(heavy & set(sys.modules)))
"""


def run_python(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_running_imports_neither_torch_nor_onnx_nor_the_compiler(artifact_path):
    """Nor does replaying the golden image."""
    after = "from deploy.verify import replay_golden; assert replay_golden(network).passed"
    assert run_python(IMPORTS.format(before="", after=after), artifact_path) == "(64, 64) []"


LIGHT = """
import sys
from deploy.runtime import load
load(sys.argv[1], threads=1)
late = {"deploy.gpu.program", "deploy.gpu.plan", "tempfile", "random", "subprocess"}
before = set(sys.argv[2].split())
print(sorted(late & set(sys.modules) - before))
"""


def test_loading_imports_only_what_it_needs(artifact_path):
    """Nothing of GPUs, and of the standard library no slow part that numpy does not need."""
    numpys = run_python("import sys, numpy; print(*sys.modules)")
    assert run_python(LIGHT, artifact_path, numpys) == "[]"


@pytest.mark.parametrize("before", ["import torch", "import tvm"])  # which imports tvm_ffi
def test_loading_after_other_imports(artifact_path, before):
    out = run_python(IMPORTS.format(before=before, after="import torch"), artifact_path)
    assert out.startswith("(64, 64)")


def test_torch_can_be_imported_afterwards(artifact_path):
    after = "import torch; assert int(torch.ones(2).sum()) == 2"
    out = run_python(IMPORTS.format(before="", after=after), artifact_path)
    assert "'torch'" in out
