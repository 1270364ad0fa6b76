"""Networks on a real device, which has one core of this machine: through the program, and what
TVM's RPC makes of it."""

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.artifact_file import load_artifact, save_artifact
from deploy.cli import places
from deploy.cpu.pipeline import isa_of
from deploy.devices.measuring import RemoteDevices
from deploy.devices.network import Remote, load_on
from deploy.devices.session import open_session
from deploy.measure.rounds import VisitProtocol
from deploy.runtime import open_artifact
from deploy.tables.networks import TimedNetwork
from deploy.tables.visit import measure_visit
from deploy.targets import resolve_target
from deploy.trials.bench import ROUNDS
from deploy.tuning.records import load_records
from deploy.tuning.tune import Limits, tune
from lut.errors import UserError
from lut.ops import Resize
from tests.conditions import KERNELS
from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
from tests.deploy.devices.farm import until
from tests.deploy.graphs import segmenter, write
from tests.deploy.tables.fakes import SHALLOW


@pytest.fixture(scope="module")
def x86(farm):
    """A device of this machine's kind; with one core, so that its number of threads is not ours."""
    farm.serve("x86", cores=[min(os.sched_getaffinity(0))])
    return farm


@pytest.fixture
def on_x86(x86):
    return ("--rpc-tracker", x86.tracker, "--rpc-key", "x86")


@pytest.fixture
def remote(x86):
    return Remote(x86.farm("x86"), threads=1)


@pytest.fixture
def saved(small_artifact, tmp_path):
    """The user's network, compiled, and what it was compiled from."""
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    return tmp_path / "n.hmseg", write(segmenter(), tmp_path / "user.onnx")


class TestNetworks:
    def test_one_gives_there_what_it_gives_here(self, remote, small_artifact):
        image = small_artifact.golden.image
        here = open_artifact(small_artifact, "here", threads=2)
        labels, logits = remote.use(small_artifact, lambda n: (n(image), n.logits(image)))
        np.testing.assert_array_equal(labels, here(image))
        np.testing.assert_array_equal(logits, here.logits(image))

    def test_frames_and_kernels_are_timed_by_the_devices_clock(self, remote, small_artifact):
        """A table's visit, whose entries are made up; more frames than the clock's buffer holds."""
        keys = tuple(Resize(n, 8, 8, 4, 4) for n, _ in enumerate(small_artifact.calls, 1))
        network = TimedNetwork(SHALLOW, small_artifact, keys, keys)
        protocol = VisitProtocol(rounds=2, frames=3, warmup=0, attempts=2)
        devices, found = RemoteDevices(remote), []

        def work(device, reference, _item):
            with device.open(small_artifact) as session:
                many = session.time_kernels(2000 // len(keys))
                return measure_visit(session, reference, network, "entries", protocol), many

        devices.spread([1], work, lambda _, made: found.append(made), reference=small_artifact)
        ((visit, many),) = found
        assert {len(frames) for frames in visit.whole_us} == {3}
        assert set(visit.entries) == set(keys)
        assert min(min(us) for e in visit.entries.values() for us in e.samples_us) > 0
        assert {len(frame) for frame in many} == {len(keys)}
        assert len(many) == 2000 // len(keys)

    def test_an_image_of_another_size(self, remote, small_artifact):
        with pytest.raises(UserError, match="resize it"):
            remote.use(small_artifact, lambda network: network(np.zeros((3, 3, 3), np.uint8)))

    def test_a_device_that_cannot_run_the_target(self, small_artifact, remote):
        target = replace(small_artifact.target, architecture="aarch64")
        other = replace(small_artifact, target=target)
        with pytest.raises(UserError, match=r"compiled for aarch64, device x86 \(.*\) is x86_64"):
            remote.use(other, lambda network: network)

    def test_a_device_with_another_version_of_tvm(
        self, remote, on_x86, small_artifact, cli, monkeypatch  # noqa: F811
    ):  # fmt: skip
        monkeypatch.setattr("deploy.devices.describe.version", lambda _: "99.0")
        with pytest.raises(
            UserError, match=r"has TVM .*, this machine 99\.0; install apache-tvm=="
        ):
            remote.use(small_artifact, lambda network: network)
        done = cli("device", "doctor", *on_x86)
        assert done.code == 1
        assert "TVM version: device x86" in done.error
        assert done.out.splitlines()[-1].split()[2] == "broken"

    def test_tvms_own_server(self, x86, small_artifact):
        """As on a phone: it does not say what it is, and runs what is loaded."""
        x86.serve("plain", what="tvm")
        with open_session(x86.farm("plain")) as session:
            assert session.describe() is None
            assert session.report()["emulated"] == "not known: the server does not say"
            assert session.set_threads(1).startswith("TVM's pool, one thread a core")
            network = load_on(session, small_artifact, 1)
            image = small_artifact.golden.image
            np.testing.assert_array_equal(network(image), small_artifact.golden.labels)


class TestSessions:
    def test_uploads_do_not_fill_the_devices_disk(self, x86, small_artifact):
        with open_session(x86.farm("x86")) as session:
            folder = Path(str(session.function("tvm.rpc.server.workpath")("")))
            network = load_on(session, small_artifact, 2)
            assert folder.is_dir()
            assert not list(folder.glob("*.so*"))
            network(small_artifact.golden.image)  # it runs without its file

    def test_trackers_and_servers_listen_on_loopback_only(self, x86):
        """The kernel's list of listening sockets."""
        for process in x86.started:
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
            assert {address.partition(":")[0] for address in listening} == {"0100007F"}

    def test_one_leaves_no_device_taken(self, x86):
        with open_session(x86.farm("x86")) as session:
            assert session.describe().cores == 1
        until(lambda: x86.free("x86") == 1, 10, "the device free")


class TestCommands:
    def test_threads_are_the_devices_cores(self, x86, monkeypatch):
        monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
        assert places.PlaceOptions(None, str(x86.tracker), "x86", 60.0).read()[0] == 1
        monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
        assert places.PlaceOptions(2, str(x86.tracker), "x86", 60.0).read()[0] == 2

    def test_the_environment_names_the_device(self, x86, monkeypatch):
        monkeypatch.setenv("TVM_TRACKER_HOST", x86.tracker.host)
        monkeypatch.setenv("TVM_TRACKER_PORT", str(x86.tracker.port))
        monkeypatch.setenv("TVM_TRACKER_KEY", "x86")
        _, remote = places.PlaceOptions(1, None, None, 60.0).read()
        assert (remote.place.tracker, remote.place.key) == (x86.tracker, "x86")

    def test_compile_checks_on_the_device(self, cli, on_x86, user_onnx):  # noqa: F811
        done = cli("compile", "-m", user_onnx, *on_x86, "-o", "a.hmseg", "--json").succeeded()
        parity = json.loads(done.out)["parity"]
        assert parity["checked"]
        assert parity["rpc_key"] == "x86"
        assert parity["emulated"] is False
        assert [c["side"] for c in parity["comparisons"]].count("tvm") == 5
        cli("verify", "a.hmseg", *on_x86).succeeded()

    def test_verify_names_a_difference(self, cli, on_x86, small_artifact, tmp_path):  # noqa: F811
        golden = replace(small_artifact.golden, logits=small_artifact.golden.logits + 1)
        save_artifact(replace(small_artifact, golden=golden), tmp_path / "wrong.hmseg")
        done = cli("verify", "wrong.hmseg", *on_x86)
        assert done.code == 1
        assert "does not match" in done.error
        assert load_artifact(tmp_path / "wrong.hmseg")

    def test_bench_times_the_network_alone(self, cli, on_x86, saved):  # noqa: F811
        artifact, model = saved
        what = ("bench", "-m", model, "--artifact", artifact, *on_x86)
        arguments = (*what, "--rounds", "2", "--repeat", "3")
        result = json.loads(cli(*arguments, "--json", "--percentile", "75").succeeded().out)
        assert [len(block) for block in result["samples_ns"]["hmseg"]] == [3, 3]
        assert result["latency"]["hmseg"]["n"] == 6
        assert result["machine"]["architecture"] == "x86_64"
        assert result["percentiles"]["hmseg"]["p75_ms"] > 0
        assert not result["ratios"]
        refused = cli(*arguments, "--fail-below", "1")
        assert refused.code == 2
        assert "--fail-below" in refused.error

    def test_profile_times_the_kernels_there(
        self, cli, on_x86, saved, small_artifact, monkeypatch  # noqa: F811
    ):  # fmt: skip
        """The ceilings are measured in the next test."""
        monkeypatch.setattr("deploy.devices.measuring.probe_ceilings", lambda *_, **__: None)
        done = cli("profile", saved[0], *on_x86, "--repeat", "2", "--json").succeeded()
        result = json.loads(done.out)
        assert [kernel["name"] for kernel in result["kernels"]] == list(small_artifact.calls)
        assert (result["machine"]["rpc_key"], result["machine"]["emulated"]) == ("x86", False)

    def test_bench_profiles_a_network_that_takes_a_tensor(self, cli, on_x86, user_onnx):  # noqa: F811
        arguments = ("bench", "-m", user_onnx, "--input", "tensor", *on_x86, "--rounds", "1")
        result = json.loads(cli(*arguments, "--repeat", "1", "--profile", "--json").succeeded().out)
        assert "float32 tensor" in result["includes"]
        assert result["profile"]["machine"] == result["machine"]
        assert result["profile"]["kernels"]
        no_probe = isa_of(resolve_target("cpu")) is None
        assert (result["profile"]["ceilings"] is None) == no_probe

    def test_tuning(self, remote, small_graph, small_artifact, cpu, tmp_path):
        KERNELS.require()
        records = tune(
            small_graph, cpu, tmp_path, small_artifact, Limits(1), threads=1, remote=remote
        )
        (record,) = load_records([tmp_path])
        assert records == [record]
        assert record.refused == ""
        assert len(record.rule_ns) == len(record.candidate_ns) == ROUNDS
        assert min(*record.rule_ns, *record.candidate_ns) > 0
        assert not record.machine.endswith("(emulated)")

    def test_list(self, cli, on_x86):  # noqa: F811
        found = json.loads(cli("device", "list", *on_x86[:2], "--json").out)
        devices = next(entry for entry in found if entry["key"] == "x86")
        assert len(devices["devices"]) == 1
        assert "x86" in cli("device", "list", *on_x86[:2]).succeeded().out


class TestDoctor:
    def test_it_walks_the_whole_chain(self, cli, on_x86):  # noqa: F811
        done = cli("device", "doctor", *on_x86, "--threads", "2", "--json").succeeded()
        links = [finding["link"] for finding in json.loads(done.out)]
        assert links == [
            "tracker", "key", "connection", "TVM version", "memory", "architecture", "tiny kernel",
            "threads", "clock",
        ]  # fmt: skip
        assert not any(finding["state"] == "broken" for finding in json.loads(done.out))

    def test_it_finds_the_wrong_architecture(self, cli, on_x86):  # noqa: F811
        done = cli("device", "doctor", *on_x86, "--target", "arm")
        assert done.code == 1
        assert "it is x86_64, the target arm is aarch64" in done.error

    def test_it_finds_a_missing_key_and_a_missing_tracker(self, cli, x86):  # noqa: F811
        done = cli("device", "doctor", "--rpc-tracker", x86.tracker, "--rpc-key", "nobody")
        assert done.code == 1
        assert "key: no device has the key 'nobody'" in done.error
        done = cli("device", "doctor", "--rpc-tracker", "127.0.0.1:1", "--rpc-key", "x86")
        assert done.code == 1
        assert "tracker: no tracker answers at 127.0.0.1:1" in done.error
        assert done.out.startswith("tracker")
