"""The way of a frame through the driver: the product's own code on a stand-in for libcuda that
runs the emulated kernels. What a GPU does with it, no test here says."""

import contextlib
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from deploy.build import build_artifact
from deploy.gpu.driver import ForkedError
from deploy.gpu.network import GpuNetwork
from deploy.gpu.program import GpuProgram
from deploy.runtime import load, open_artifact
from deploy.targets import resolve_target
from deploy.verify import replay_golden, require
from lut.errors import UserError, WorkError


@pytest.fixture
def network(driver, artifact_file):
    return load(artifact_file)


def test_a_frame(network, artifact):
    assert isinstance(network.loaded, GpuNetwork)
    require([replay_golden(network)])
    labels = network(artifact.golden.image)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, artifact.golden.labels)


def test_a_result_is_the_callers_own(network, artifact):
    first = network(artifact.golden.image)
    kept = first.copy()
    network(np.zeros_like(artifact.golden.image))
    np.testing.assert_array_equal(first, kept)


def test_threads_take_turns(network, artifact):
    images = [artifact.golden.image, artifact.golden.image[::-1].copy()]
    want = [network(image) for image in images]
    failures = []

    def work(number: int) -> None:
        for _ in range(2):
            if not np.array_equal(network(images[number]), want[number]):
                failures.append(number)

    workers = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_many_threads_share_it(network, artifact):
    """More than there are cores, each with images of its own."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, artifact.golden.image.shape, np.uint8) for _ in range(8)]
    want = [network(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(network, images))
    assert all(map(np.array_equal, found, want))


def test_a_forked_child_is_told_what_to_do(network, artifact):
    """At once, also where another thread of the parent is in a call; the parent goes on. The
    stand-in ends a child that calls it."""
    before, image = network(artifact.golden.image), artifact.golden.image
    with network.loaded._lock:  # as a thread in a call has it
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # nothing of pytest's may run here
            with contextlib.suppress(BaseException):
                os.write(writer, said(lambda: network(image)))
                os.write(writer, said(lambda: open_artifact(artifact, "a")))
                network.close()
                os.write(writer, b"closed\n")
            os._exit(0)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reader, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    assert lines == [str(ForkedError()), f"a: {ForkedError()}", "closed"]
    assert "spawn" in lines[0]
    np.testing.assert_array_equal(network(image), before)


def said(work) -> bytes:
    try:
        work()
    except UserError as error:
        return f"{error}\n".encode()
    return b"nothing\n"


def test_device_and_chosen_code(network):
    assert network.loaded.device == {
        "gpu": "Stand-in", "compute_capability": "6.1", "driver_cuda": "12.9", "code": "sm_61",
    }  # fmt: skip


def threads_of(launch) -> int:
    return math.prod(launch.grid) * math.prod(launch.block)


def test_a_frames_parts(network, artifact):
    """The stand-in's clock ticks once per event and once per thread: all the work lies between the
    second event and the third."""
    work = sum(map(threads_of, artifact.code.plan.entries["main"].launches))
    times = network.loaded.time_frames(artifact.golden.image, 3)
    assert times == {"upload": [1] * 3, "compute": [1 + work] * 3, "download": [1] * 3}


def test_kernels_one_by_one(network, artifact):
    """As many as the plan launches, each between its own events, and they leave the same labels
    behind."""
    times = network.loaded.time_kernels(artifact.golden.image, 2)
    launches = artifact.code.plan.entries["main"].launches
    assert times == [(launch.kernel, [1.0 + threads_of(launch)] * 2) for launch in launches]
    np.testing.assert_array_equal(network(artifact.golden.image), artifact.golden.labels)


def test_kernels_together(network, artifact):
    launches = artifact.code.plan.entries["main"].launches
    first, second = network.loaded.time_kernels(artifact.golden.image, 1, [3, len(launches) - 3])
    assert first == (launches[0].kernel, [1.0 + sum(map(threads_of, launches[:3]))])
    assert second == (launches[3].kernel, [1.0 + sum(map(threads_of, launches[3:]))])
    with pytest.raises(WorkError, match=f"has {len(launches)} launches, not 3"):
        network.loaded.time_kernels(artifact.golden.image, 1, [1, 2])


def test_two_networks_at_once(any_driver, gpu_graph):
    """Each has the module of its own image, also while another is loaded and after it is closed."""
    targets = [resolve_target("cuda", "sm_61", precision) for precision in ("fp16", "fp32")]
    built = [build_artifact(gpu_graph, target, threads=1)[0] for target in targets]
    networks = [open_artifact(artifact, "a") for artifact in built]
    image = built[0].golden.image
    scores = [network.logits(image) for network in networks]
    assert not np.array_equal(*scores)
    networks[0].loaded.close()
    np.testing.assert_array_equal(networks[1].logits(image), scores[1])


def test_a_closed_network_says_so(network, artifact):
    network.loaded.close()
    with pytest.raises(WorkError, match="this network is closed"):
        network(artifact.golden.image)
    with pytest.raises(WorkError, match="this network is closed"):
        network.loaded.time_frames(artifact.golden.image, 1)


def test_a_later_gpu_gets_ptx(driver, artifact, monkeypatch):
    monkeypatch.setenv("STAND_IN_CAPABILITY", "120")
    assert open_artifact(artifact, "a").loaded.device["code"] == "compute_90"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("STAND_IN_DEVICES", "0", "no NVIDIA GPU on this machine"),
        ("STAND_IN_VERSION", "11040", "the NVIDIA driver is too old, it has CUDA 11.4; update it"),
        ("STAND_IN_CAPABILITY", "52", r"no code for this GPU, sm_52 \(it has sm_61, sm_90, comp"),
        ("STAND_IN_MEMORY", "1000000", "the network needs 3 MB of the Stand-in, 1 of 1 MB are"),
    ],
)
def test_bad_machines(driver, artifact, monkeypatch, setting, value, message):
    monkeypatch.setenv(setting, value)
    with pytest.raises(UserError, match=message) as caught:
        open_artifact(artifact, "tiny.hmseg")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("tiny.hmseg: ")


def test_a_driver_too_old_for_the_ptx(driver, artifact, monkeypatch):
    monkeypatch.setenv("STAND_IN_CAPABILITY", "120")
    monkeypatch.setenv("STAND_IN_VERSION", "12020")
    with pytest.raises(
        UserError, match=r"too old for this artifact's compute_90, it has CUDA 12\.2"
    ):
        open_artifact(artifact, "a")


def test_no_driver(artifact, monkeypatch):
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
    with pytest.raises(UserError, match="no NVIDIA driver on this machine"):
        open_artifact(artifact, "a")


def test_the_wrong_image(network):
    with pytest.raises(UserError, match="the network takes an image uint8"):
        network(np.zeros((3, 3, 3), np.uint8))


def test_opencl_runs_nowhere(artifact):
    code = GpuProgram(artifact.code.plan, artifact.code.constants, opencl="kernel void f() {}")
    with pytest.raises(UserError, match="n: compiled for OpenCL on cuda; this version runs it"):
        open_artifact(replace(artifact, code=code), "n")
