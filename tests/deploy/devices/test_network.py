"""Networks on devices through the program: compile, verify, bench, tune, and the doctor."""

import json
import os
import random
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from deploy.artifact_file import load_artifact, save_artifact
from deploy.cpu.pipeline import isa_of
from deploy.devices.measuring import RemoteDevices
from deploy.devices.network import Remote, load_on
from deploy.devices.session import open_session
from deploy.measure.rounds import VisitProtocol
from deploy.runtime import open_artifact
from deploy.tables.build import provenance_of
from deploy.tables.schedules import schedules_of
from deploy.targets import resolve_target
from hmseg.genotype import random_genotype
from hmseg.operators import Space
from lut.errors import UserError
from lut.table_file import save_table
from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
from tests.deploy.devices.farm import until
from tests.lut.tables import IDENTITY, table, visit

VERSION = "import tvm; tvm.__version__ = '0.26.0'; from deploy.devices.server import main; "


@pytest.fixture(scope="module")
def x86(farm):
    """Two devices of this machine's kind."""
    farm.serve("x86", 2)
    return farm


@pytest.fixture
def on_x86(x86):
    return ("--rpc-tracker", x86.tracker, "--rpc-key", "x86")


@pytest.fixture
def remote(x86):
    return Remote(x86.farm("x86"), threads=2)


def test_a_network_gives_there_what_it_gives_here(remote, small_artifact):
    image = small_artifact.golden.image
    here = open_artifact(small_artifact, "here", threads=2)

    def both(network):
        return network(image), network.logits(image), network.time_frames(image, 3)

    labels, logits, times = remote.use(small_artifact, both)
    np.testing.assert_array_equal(labels, here(image))
    np.testing.assert_array_equal(logits, here.logits(image))
    assert len(times) == 3
    assert min(times) > 0


def test_an_image_of_another_size(remote, small_artifact):
    with pytest.raises(UserError, match="resize it"):
        remote.use(small_artifact, lambda network: network(np.zeros((3, 3, 3), np.uint8)))


def test_a_device_that_cannot_run_the_target(small_artifact, remote):
    target = replace(small_artifact.target, architecture="aarch64")
    other = replace(small_artifact, target=target)
    with pytest.raises(UserError, match=r"compiled for aarch64, device x86 \(.*\) is x86_64"):
        remote.use(other, lambda network: network)


def test_a_device_with_another_version_of_tvm(x86, small_artifact, cli):  # noqa: F811
    arguments = ["--tracker", str(x86.tracker), "--key", "old"]
    x86.serve("old", command=[sys.executable, "-c", f"{VERSION}main({arguments!r})"])
    with pytest.raises(UserError, match=r"has TVM 0\.26\.0, this machine .* install apache-tvm=="):
        Remote(x86.farm("old"), 2).use(small_artifact, lambda network: network)
    done = cli("device", "doctor", "--rpc-tracker", x86.tracker, "--rpc-key", "old")
    assert done.code == 1
    assert "TVM version: device old" in done.error
    assert done.out.splitlines()[-1].split()[2] == "broken"


def test_compile_checks_on_the_device(cli, on_x86, user_onnx):  # noqa: F811
    done = cli("compile", "-m", user_onnx, *on_x86, "-o", "a.hmseg", "--json").succeeded()
    parity = json.loads(done.out)["parity"]
    assert parity["checked"]
    assert parity["rpc_key"] == "x86"
    assert parity["emulated"] is False
    assert len(parity["comparisons"]) == 5
    cli("verify", "a.hmseg", *on_x86).succeeded()


def test_threads_are_the_devices_cores(cli, x86, user_onnx, monkeypatch):  # noqa: F811
    """One core of this machine, so that the two numbers differ."""
    core = min(os.sched_getaffinity(0))
    taskset = ["taskset", "-c", str(core), sys.executable, "-m", "deploy.devices.server"]
    x86.serve("single", command=[*taskset, "--tracker", str(x86.tracker), "--key", "single"])
    monkeypatch.delenv("TVM_NUM_THREADS")
    where = ("--rpc-tracker", x86.tracker, "--rpc-key", "single")
    arguments = ("bench", "-m", user_onnx, *where, "--rounds", "1", "--repeat", "1", "--json")
    assert json.loads(cli(*arguments).succeeded().out)["threads"] == 1
    given = cli(*arguments, "--threads", "2").succeeded()
    assert json.loads(given.out)["threads"] == 2


def test_uploads_do_not_fill_the_devices_disk(x86, small_artifact):
    with open_session(x86.farm("x86")) as session:
        folder = Path(str(session.function("tvm.rpc.server.workpath")("")))
        network = load_on(session, small_artifact, 2)
        assert folder.is_dir()
        assert not list(folder.glob("*.so*"))
        network(small_artifact.golden.image)  # it runs without its file


def test_they_listen_on_loopback_only(x86):
    """The kernel's list of listening sockets, for the tracker and each server."""
    for process in x86.processes:
        inodes = set()
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
        rows = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/{process.pid}/net/{name}").read_text().splitlines()[1:]
        ]
        listening = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
        assert listening
        assert {address.partition(":")[0] for address in listening} == {"0100007F"}  # 127.0.0.1


def test_lut_check_on_a_device(cli, x86, on_x86, cpu, tmp_path):  # noqa: F811
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    space, rng = Space((64, 64), 0.5), random.Random(9)
    info = RemoteDevices(Remote(x86.farm("x86"), 2)).info
    genotypes = [random_genotype(rng) for _ in range(5)]
    calibration = [
        visit(str(g), dict.fromkeys(space.keys(g), 1.0), role="calibration", whole=10.0 + n)
        for n, g in enumerate(genotypes)
    ]
    made_up = visit("e", {key: 5 + rng.random() for key in space.all_keys()})
    identity = replace(IDENTITY, target=cpu.key, resolution="64x64")
    provenance = provenance_of(info, cpu, schedules_of(space, cpu, 2), VisitProtocol())
    save_table(
        table(made_up, *calibration, identity=identity, provenance=provenance),
        tmp_path / "t.jsonl",
    )
    done = cli("lut", "check", "t.jsonl", *on_x86, "--networks", "2", "--json")
    assert done.code == 1  # made up, its estimates are far off
    assert "mean error" in done.error
    data = json.loads(done.out)
    assert (data["networks"], data["passed"]) == (2, False)
    assert all(row["measured_us"] == median(row["occasions_us"]) > 0 for row in data["rows"])
    assert not {row["network"] for row in data["rows"]} & {str(g) for g in genotypes}


def test_verify_names_a_difference(cli, on_x86, small_artifact, tmp_path):  # noqa: F811
    golden = replace(small_artifact.golden, logits=small_artifact.golden.logits + 1)
    save_artifact(replace(small_artifact, golden=golden), tmp_path / "wrong.hmseg")
    done = cli("verify", "wrong.hmseg", *on_x86)
    assert done.code == 1
    assert "does not match" in done.error
    assert load_artifact(tmp_path / "wrong.hmseg")


def test_bench_times_the_network_alone(cli, on_x86, user_onnx):  # noqa: F811
    arguments = ("bench", "-m", user_onnx, *on_x86, "--rounds", "2", "--repeat", "3")
    result = json.loads(cli(*arguments, "--json", "--percentile", "75").succeeded().out)
    assert [len(block) for block in result["samples_ns"]["hmseg"]] == [3, 3]
    assert result["latency"]["hmseg"]["n"] == 6
    assert result["machine"]["architecture"] == "x86_64"
    assert result["percentiles"]["hmseg"]["p75_ms"] > 0
    assert "ratio" not in result
    refused = cli(*arguments, "--fail-below", "1")
    assert refused.code == 2
    assert "--fail-below" in refused.error


def test_profile_times_the_kernels_there(cli, on_x86, small_artifact, tmp_path):  # noqa: F811
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    result = json.loads(
        cli("profile", "n.hmseg", *on_x86, "--repeat", "2", "--json").succeeded().out
    )
    assert [kernel["name"] for kernel in result["kernels"]] == list(small_artifact.calls)
    assert (result["machine"]["rpc_key"], result["machine"]["emulated"]) == ("x86", False)
    assert (result["ceilings"] is None) == (isa_of(resolve_target("cpu")) is None)


def test_bench_profiles_a_network_that_takes_a_tensor(cli, on_x86, user_onnx):  # noqa: F811
    arguments = ("bench", "-m", user_onnx, "--input", "tensor", *on_x86, "--rounds", "1")
    result = json.loads(cli(*arguments, "--repeat", "1", "--profile", "--json").succeeded().out)
    assert "float32 tensor" in result["includes"]
    assert result["profile"]["machine"] == result["machine"]
    assert result["profile"]["kernels"]


def test_tune_on_two_devices(cli, on_x86, user_onnx, tmp_path):  # noqa: F811
    command = ("tune", "-m", user_onnx, *on_x86, "--trials", "3", "--records", "records")
    first = json.loads(cli(*command, "--json").succeeded().out)
    assert first["measured"] == 3
    (path,) = (tmp_path / "records").glob("*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    measured = [r for r in records if not r["refused"]]
    assert measured
    assert all(len(r["rule_ns"]) == len(r["candidate_ns"]) == 5 for r in measured)
    assert all(min(r["rule_ns"]) > 0 for r in measured)
    again = json.loads(cli(*command, "--json").succeeded().out)
    assert again["measured"] == 6  # it went on


def test_the_doctor_walks_the_whole_chain(cli, on_x86):  # noqa: F811
    done = cli("device", "doctor", *on_x86, "--threads", "2", "--json").succeeded()
    links = [finding["link"] for finding in json.loads(done.out)]
    assert links == [
        "tracker", "key", "connection", "TVM version", "memory", "architecture", "tiny kernel",
        "threads", "clock",
    ]  # fmt: skip
    assert not any(finding["state"] == "broken" for finding in json.loads(done.out))


def test_the_doctor_finds_the_wrong_architecture(cli, on_x86):  # noqa: F811
    done = cli("device", "doctor", *on_x86, "--target", "arm")
    assert done.code == 1
    assert "it is x86_64, the target arm is aarch64" in done.error


def test_the_doctor_finds_a_missing_key_and_a_missing_tracker(cli, x86):  # noqa: F811
    done = cli("device", "doctor", "--rpc-tracker", x86.tracker, "--rpc-key", "nobody")
    assert done.code == 1
    assert "key: no device has the key 'nobody'" in done.error
    done = cli("device", "doctor", "--rpc-tracker", "127.0.0.1:1", "--rpc-key", "x86")
    assert done.code == 1
    assert "tracker: no tracker answers at 127.0.0.1:1" in done.error
    assert done.out.startswith("tracker")


def test_list(cli, x86):  # noqa: F811
    found = json.loads(cli("device", "list", "--rpc-tracker", x86.tracker, "--json").out)
    devices = next(entry for entry in found if entry["key"] == "x86")
    assert len(devices["devices"]) == 2
    assert "x86" in cli("device", "list", "--rpc-tracker", x86.tracker).succeeded().out


def test_the_environment_names_the_device(cli, x86, monkeypatch, user_onnx):  # noqa: F811
    monkeypatch.setenv("TVM_TRACKER_HOST", x86.tracker.host)
    monkeypatch.setenv("TVM_TRACKER_PORT", str(x86.tracker.port))
    monkeypatch.setenv("TVM_TRACKER_KEY", "x86")
    done = cli("compile", "-m", user_onnx, "-o", "a.hmseg", "--json").succeeded()
    assert json.loads(done.out)["parity"]["rpc_key"] == "x86"


def test_a_session_leaves_no_device_taken(x86):
    with open_session(x86.farm("x86")) as session:
        assert session.describe().cores >= 1
    until(lambda: x86.free("x86") == 2, 10, "both devices free")
