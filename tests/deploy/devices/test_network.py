"""Networks on devices through the program: compile, verify, bench, tune, and the doctor."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from deploy.artifact import load_artifact, save_artifact
from deploy.devices.network import Remote
from deploy.devices.session import open_session
from deploy.runtime import open_artifact
from lut.errors import UserError
from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
from tests.deploy.devices.farm import until

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
