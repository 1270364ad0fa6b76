import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import host
from deploy.artifact import Artifact, ArtifactTarget, save_artifact
from deploy.graph.reference import Reference
from deploy.runtime import Network, check_machine, load, open_artifact
from deploy.verify import replay_golden
from lut.errors import UserError
from tests.deploy.graphs import photo


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
    from deploy.build import build_artifact
    from tests.deploy.graphs import deployable, segmenter

    artifact, _ = build_artifact(deployable(segmenter(), tmp_path, "logits"), cpu, threads=2)
    network, labels = open_artifact(artifact, "a"), open_artifact(small_artifact, "b")
    image = photo()
    assert network(image).shape == (5, 64, 64)
    np.testing.assert_array_equal(network(image), network.logits(image))
    np.testing.assert_array_equal(network(image), labels.logits(image))


POOLS = """
import os, sys, threading, warnings
import numpy as np
from deploy.runtime import load

def tasks():
    return len(os.listdir("/proc/self/task"))

before = tasks()
network = load(sys.argv[1], **eval(sys.argv[2]))
image = network.artifact.golden.image
network(image)
print(tasks() - before)
mine = tasks()
other = threading.Thread(target=lambda: (network(image), print(tasks() - mine - 1)))
other.start()
other.join()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    load(sys.argv[1], threads=2)
print([(str(each.message), each.filename) for each in caught])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
@pytest.mark.parametrize(
    ("arguments", "variable", "expected"),
    [
        ("{'threads': 2}", None, 2),
        ("{'threads': 1}", None, 1),
        ("{'threads': 2}", "1", 2),
        ("{}", None, len(os.sched_getaffinity(0))),
        ("{}", "1", 1),
    ],
)
def test_the_pool_has_the_threads_asked_for(artifact_path, arguments, variable, expected):
    """Counted as the kernel does, in a process of its own, as a pool never grows. A caller's other
    thread has a pool as large."""
    environment = {k: v for k, v in os.environ.items() if k != "TVM_NUM_THREADS"}
    if variable:
        environment["TVM_NUM_THREADS"] = variable
    done = subprocess.run(
        [sys.executable, "-c", POOLS, str(artifact_path), arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second, caught = done.stdout.splitlines()
    # The calling thread works too.
    assert (int(first), int(second)) == (expected - 1, expected - 1)
    assert ("first network was loaded with 1" in caught) == (expected == 1)
    assert expected > 1 or caught.endswith(", '<string>')]")  # the line of the caller


AFFINITY = """
import os, sys, threading

allowed = {max(os.sched_getaffinity(0))}
os.sched_setaffinity(0, allowed)
from deploy.runtime import load

known = set(os.listdir("/proc/self/task"))
network = load(sys.argv[1], threads=int(sys.argv[2]))
image = network.artifact.golden.image

def call():
    network(image)
    mine = set(os.listdir("/proc/self/task")) - known | {str(threading.get_native_id())}
    print([os.sched_getaffinity(int(task)) == allowed for task in mine])

call()
other = threading.Thread(target=call)
other.start()
other.join()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_stay_on_the_cpus_of_the_process(artifact_path, threads):
    """As under taskset; TVM by itself goes to the first CPUs."""
    here, elsewhere = run_python(AFFINITY, artifact_path, threads).splitlines()
    assert here == str([True] * threads)
    assert set(elsewhere) & {"F"} == set()


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5"])
def test_a_thread_count_that_is_none(artifact_path, monkeypatch, value):
    monkeypatch.setenv("TVM_NUM_THREADS", value)
    with pytest.raises(UserError, match=r"TVM_NUM_THREADS is '.*'; it must be"):
        load(artifact_path)


def test_one_thread_is_not_bound_to_one_cpu(artifact_path):
    code = (
        "import os, sys\nfrom deploy.runtime import load\nbefore = os.sched_getaffinity(0)\n"
        "network = load(sys.argv[1], threads=1)\nnetwork(network.artifact.golden.image)\n"
        "print(os.sched_getaffinity(0) == before)"
    )
    assert run_python(code, artifact_path) == "True"


@pytest.mark.parametrize("output", ["labels", "logits"])
def test_a_network_that_takes_a_tensor(cpu, tmp_path, output):
    """Float in, compiled, checked, saved, loaded: the numbers are onnxruntime's."""
    from deploy.build import build_artifact
    from deploy.graph.export import import_onnx
    from tests.deploy.graphs import segmenter, write

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


def test_images_however_they_lie_in_memory(loaded):
    image = photo()
    expected = loaded(image)
    padded = np.zeros((70, 64, 7), np.uint8)
    padded[3:67, :, 2:5] = image
    bgr = image[..., ::-1].copy()
    unaligned = np.frombuffer(b"\0" + image.tobytes(), np.uint8, offset=1).reshape(image.shape)
    read_only = image.copy()
    read_only.flags.writeable = False
    for other in (
        np.asfortranarray(image), padded[3:67, :, 2:5], bgr[..., ::-1], unaligned, read_only,
    ):  # fmt: skip
        np.testing.assert_array_equal(loaded(other), expected)


def test_results_stay_as_they_were_and_belong_to_the_caller(loaded):
    first_image, second_image = photo(seed=1), photo(seed=2)
    first, first_logits = loaded(first_image), loaded.logits(first_image)
    kept, kept_logits = first.copy(), first_logits.copy()
    later = [(loaded(second_image), loaded.logits(second_image)) for _ in range(5)]
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(first_logits, kept_logits)
    assert not np.array_equal(later[0][0], first)
    assert not any(np.shares_memory(first, labels) for labels, _ in later)
    first[...] = 7
    assert (first == 7).all()
    np.testing.assert_array_equal(loaded(first_image), kept)


def test_results_outlive_the_network(small_artifact):
    network = open_artifact(small_artifact, "a")
    image = photo()
    labels = network(image)
    expected = labels.copy()
    del network
    np.testing.assert_array_equal(labels, expected)


def test_the_image_is_not_changed(loaded):
    image = photo()
    before = image.copy()
    loaded(image)
    np.testing.assert_array_equal(image, before)


def test_two_networks_at_once(loaded, small_artifact):
    small = open_artifact(small_artifact, "small")
    image = photo()
    big_labels, small_labels = loaded(image), small(image)
    for _ in range(3):
        np.testing.assert_array_equal(loaded(image), big_labels)
        np.testing.assert_array_equal(small(image), small_labels)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_labels(artifact_path, loaded, threads):
    image = photo()
    network = load(artifact_path, threads=threads)
    np.testing.assert_array_equal(network(image), loaded(image))


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_thread_counts(artifact_path, threads):
    with pytest.raises(UserError, match="at least 1"):
        load(artifact_path, threads=threads)


def test_calls_from_several_threads_do_not_mix(small_artifact):
    network = open_artifact(small_artifact, "a", threads=1)
    images = [photo(seed=seed) for seed in range(4)]
    expected = [network.logits(image) for image in images]
    right = []

    def work(index: int) -> None:
        for _ in range(100):
            right.append(np.array_equal(network.logits(images[index]), expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 400


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
    assert run_python(IMPORTS.format(before="", after=""), artifact_path) == "(64, 64) []"


def test_replaying_the_golden_image_needs_no_more_than_running(artifact_path):
    after = "from deploy.verify import replay_golden; assert replay_golden(network).passed"
    assert run_python(IMPORTS.format(before="", after=after), artifact_path) == "(64, 64) []"


@pytest.mark.parametrize("before", ["import torch", "import tvm", "import tvm_ffi"])
def test_loading_after_other_imports(artifact_path, before):
    out = run_python(IMPORTS.format(before=before, after="import torch"), artifact_path)
    assert out.startswith("(64, 64)")


def test_torch_can_be_imported_afterwards(artifact_path):
    after = "import torch; assert int(torch.ones(2).sum()) == 2"
    out = run_python(IMPORTS.format(before="", after=after), artifact_path)
    assert "'torch'" in out


class TestMachine:
    TARGET = ArtifactTarget("json", {"kind": "llvm", "mcpu": "x"}, host.architecture(), ())

    def test_this_machine_runs_what_was_built_for_it(self, artifact):
        check_machine(artifact.target, "a")

    def test_another_architecture(self, artifact: Artifact, tmp_path: Path):
        other = replace(artifact, target=replace(artifact.target, architecture="aarch64"))
        save_artifact(other, tmp_path / "a.hmseg")
        with pytest.raises(UserError, match=r"compiled for aarch64, this machine is x86_64"):
            load(tmp_path / "a.hmseg")

    def test_a_feature_this_cpu_lacks(self, artifact: Artifact, tmp_path: Path):
        target = replace(artifact.target, features=("avx2", "made-up-feature", "other"))
        save_artifact(replace(artifact, target=target), tmp_path / "a.hmseg")
        with pytest.raises(UserError, match=r"this CPU lacks made-up-feature, other"):
            load(tmp_path / "a.hmseg")

    def test_flags_of_another_machine(self, monkeypatch):
        monkeypatch.setattr(host, "cpu_flags", lambda: frozenset({"avx2", "pni"}))
        check_machine(replace(self.TARGET, features=("sse3", "avx2")), "a")
        with pytest.raises(UserError, match=r"lacks avx512f"):
            check_machine(replace(self.TARGET, features=("avx2", "avx512f")), "a")


def test_a_library_that_is_none(artifact, tmp_path):
    save_artifact(replace(artifact, library=b"not a library"), tmp_path / "a.hmseg")
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load(tmp_path / "a.hmseg")
    assert "\n" not in str(caught.value)
