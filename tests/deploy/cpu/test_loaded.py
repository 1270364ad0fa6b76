"""A library in this process: its pool of threads, its memory, and who may call it when."""

import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace

import numpy as np
import pytest

from deploy import host
from deploy.artifact_file import save_artifact
from deploy.cpu.library import Library
from deploy.runtime import Network, load, open_artifact
from lut.errors import UserError
from tests.conditions import TWO_CORES
from tests.deploy.graphs import photo
from tests.deploy.test_runtime import run_python


@pytest.fixture(scope="module")
def loaded(artifact_path) -> Network:
    return load(artifact_path, threads=2)


THREADS = """
import os, sys, threading, time
from deploy.runtime import load

def tasks():
    return len(os.listdir("/proc/self/task"))

before, variables = tasks(), dict(os.environ)
network = load(sys.argv[1], **eval(sys.argv[2]))
image = network.artifact.golden.image
network(image)
print(tasks() - before)
mine = tasks()
for _ in range(30):
    other = threading.Thread(target=network, args=(image,))
    other.start()
    other.join()
time.sleep(0.2)  # a joined thread ends a moment later
print(tasks() - mine, dict(os.environ) == variables)
"""


@TWO_CORES.mark
@pytest.mark.parametrize(
    ("arguments", "variable", "expected"),
    [
        ("{'threads': 2}", None, 2),
        ("{'threads': 1}", None, 1),
        ("{'threads': 2}", "1", 2),
        ("{}", None, host.usable_cpus()),
        ("{}", "1", 1),
    ],
)
def test_a_network_has_the_threads_asked_for(artifact_path, arguments, variable, expected):
    """Counted as the kernel does; callers that come and go leave none, and no variable changes."""
    environment = {k: v for k, v in os.environ.items() if k != "TVM_NUM_THREADS"}
    if variable:
        environment["TVM_NUM_THREADS"] = variable
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(artifact_path), arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # The calling thread works too.
    assert done.stdout.split() == [str(expected - 1), "0", "True"]


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


@TWO_CORES.mark
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_stay_on_the_cpus_of_the_process(artifact_path, threads):
    """As under taskset."""
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


FORK = """
import multiprocessing, os, sys, threading, time
import numpy as np
from deploy.runtime import load

network = load(sys.argv[1], threads=2)
image = network.artifact.golden.image
labels = network(image)
busy = threading.Thread(target=lambda: [network(image) for _ in range(200)])
busy.start()

def child(anew):
    mine = load(sys.argv[1], threads=2) if anew else network
    for _ in range(3):
        assert np.array_equal(mine(image), labels)

context = multiprocessing.get_context("fork")
workers = [context.Process(target=child, args=(number % 2,)) for number in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join(30)
print([worker.exitcode for worker in workers])
busy.join()
print(np.array_equal(network(image), labels))
"""


def test_forked_children_call_it_and_load_anew(artifact_path):
    """While another thread of the parent is in a call."""
    assert run_python(FORK, artifact_path).splitlines() == ["[0, 0, 0, 0]", "True"]


LOADS = """
import os, sys
from deploy.runtime import load

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def use():
    network = load(sys.argv[1], threads=2)
    network(network.artifact.golden.image)

for _ in range(10):
    use()
before, files = resident(), len(os.listdir("/proc/self/fd"))
tasks = len(os.listdir("/proc/self/task"))
for _ in range(40):
    use()
print(resident() - before < 4 << 20, len(os.listdir("/proc/self/fd")) - files,
      len(os.listdir("/proc/self/task")) - tasks, open("/proc/self/maps").read().count("memfd"))
"""


def test_what_is_dropped_is_given_back(artifact_path):
    """Memory, files, threads and the library itself."""
    assert run_python(LOADS, artifact_path) == "True 0 0 0"


def test_a_closed_network_is_refused(small_artifact):
    network = open_artifact(small_artifact, "a", threads=2)
    network(photo())
    network.close()
    network.close()
    with pytest.raises(UserError, match="is closed"):
        network(photo())


CLOSED = """
import os, sys
from deploy.runtime import load
from lut.errors import UserError
network = load(sys.argv[1], threads=2)
network.close()
child = os.fork()
if not child:
    try:
        network(network.artifact.golden.image)
    except UserError:
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_closed_network_is_refused_in_a_child_too(artifact_path):
    assert run_python(CLOSED, artifact_path) == "7"


def test_no_folder_is_needed(artifact_path, tmp_path):
    code = (
        "import sys\nfrom deploy.runtime import load\nnetwork = load(sys.argv[1])\n"
        "print(network(network.artifact.golden.image).shape)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "missing")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact_path)],
        env=environment, cwd="/proc", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "(64, 64)"


def test_without_memory_files_the_folder_is_named(small_artifact, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert open_artifact(small_artifact, "a")(photo()).shape == (64, 64)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"temporary folder .* TMPDIR"):
        open_artifact(small_artifact, "a")


NUMPY_ALONE = """
import sys
for name in ("tvm", "tvm_ffi", "torch", "onnx", "PIL", "typer", "rich"):
    sys.modules[name] = None
from deploy.runtime import load
network = load(sys.argv[1])
print(network(network.artifact.golden.image).shape)
"""


def test_numpy_is_enough(artifact_path):
    assert run_python(NUMPY_ALONE, artifact_path) == "(64, 64)"


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_one_by_one(artifact, threads):
    network = open_artifact(artifact, "a", threads=threads)
    image = photo()
    expected = network(image)
    library = network.loaded
    assert len(library.time_kernels(image)) == len(artifact.calls)
    assert min(library.time_kernels(image)) > 0
    with library.steps(image) as frame:
        for number in range(len(artifact.calls)):
            assert frame.call(number) > 0
        found = frame.output(number).view(expected.dtype).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected)


def test_a_library_that_is_none(artifact, tmp_path):
    save_artifact(replace(artifact, code=Library(b"not a library")), tmp_path / "a.hmseg")
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load(tmp_path / "a.hmseg")
    assert "\n" not in str(caught.value)
