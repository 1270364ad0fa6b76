"""Devices over ssh: a real server on loopback, the real client, the program's own commands."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import lut
from deploy.artifact_file import load_artifact, save_artifact
from deploy.devices.named import named_place
from deploy.devices.network import Remote
from deploy.devices.session import DeviceLostError
from deploy.devices.ssh import ssh_shell
from deploy.runtime import open_artifact
from deploy.trials.bench import ROUNDS
from deploy.tuning.records import load_records
from deploy.tuning.tune import Limits, tune
from lut.errors import UserError
from tests.conditions import KERNELS, SSHD
from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
from tests.deploy.devices.farm import until
from tests.deploy.devices.sshd import Sshd
from tests.deploy.graphs import segmenter, write


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    SSHD.require()
    started = Sshd(tmp_path_factory.mktemp("sshd"))
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def client(server, monkeypatch):
    """The tests' configuration."""
    monkeypatch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def remote():
    return Remote(named_place("ssh:board", 60.0), threads=1)


@pytest.fixture
def saved(small_artifact, tmp_path):
    """The user's network, compiled, and what it was compiled from."""
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    return tmp_path / "n.hmseg", write(segmenter(), tmp_path / "user.onnx")


class TestCommands:
    def test_a_network_gives_there_what_it_gives_here(self, remote, small_artifact):
        image = small_artifact.golden.image
        here = open_artifact(small_artifact, "here", threads=2)
        np.testing.assert_array_equal(remote.use(small_artifact, lambda n: n(image)), here(image))

    def test_bench_from_a_model_to_a_latency(self, cli, user_onnx):  # noqa: F811
        """In one command, for what fits the device; nothing is left there."""
        what = ("bench", "-m", user_onnx, "--device", "ssh:board", "--rounds", "2", "--repeat", "3")
        done = cli(*what, "--profile", "--json").succeeded()
        result = json.loads(done.out)
        assert [len(block) for block in result["samples_ns"]["hmseg"]] == [3, 3]
        assert result["machine"]["device"] == "ssh:board"
        assert result["machine"]["emulated"] is False
        assert result["profile"]["kernels"]
        assert "asking ssh:board what it is" in done.err
        assert "compiling for x86-64" in done.err
        assert not ours()

    def test_compile_checks_there_and_verify_replays(self, cli, user_onnx):  # noqa: F811
        where = ("--device", "ssh:board")
        done = cli("compile", "-m", user_onnx, *where, "-o", "a.hmseg", "--json").succeeded()
        parity = json.loads(done.out)["parity"]
        assert parity["device"] == "ssh:board"
        assert load_artifact(Path("a.hmseg")).target.name.startswith("x86-64")
        cli("verify", "a.hmseg", *where).succeeded()
        cli("verify", "--model", user_onnx, *where).succeeded()

    def test_profile(self, cli, saved, small_artifact):  # noqa: F811
        done = cli("profile", saved[0], "--device", "ssh:board", "--repeat", "2", "--json")
        result = json.loads(done.succeeded().out)
        assert [kernel["name"] for kernel in result["kernels"]] == list(small_artifact.calls)
        assert result["ceilings"]["fma_gflops"] > 0

    def test_tuning(self, remote, small_graph, small_artifact, cpu, tmp_path):
        KERNELS.require()
        records = tune(
            small_graph, cpu, tmp_path, small_artifact, Limits(1), threads=1, remote=remote
        )
        (record,) = load_records([tmp_path])
        assert records == [record]
        assert len(record.rule_ns) == len(record.candidate_ns) == ROUNDS

    def test_the_doctor_walks_the_whole_chain(self, cli):  # noqa: F811
        done = cli("device", "doctor", "--device", "ssh:board", "--threads", "1", "--json")
        found = json.loads(done.succeeded().out)
        assert [finding["link"] for finding in found] == [
            "connection", "memory", "architecture", "tiny kernel", "threads", "clock",
        ]  # fmt: skip

    def test_threads_are_the_devices_cores(self, cli, user_onnx, monkeypatch):  # noqa: F811
        monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
        what = ("bench", "-m", user_onnx, "--device", "ssh:board", "--rounds", "1")
        result = json.loads(cli(*what, "--repeat", "1", "--json").succeeded().out)
        assert result["threads"] == len(os.sched_getaffinity(0))


def test_a_login_with_a_greeting_and_a_folder_of_its_own(tmp_path, monkeypatch, small_artifact):
    """Its .bashrc prints, and its TMPDIR has a space in it: both by the server's configuration."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("echo welcome; echo ok 5; printf '%s' no-newline\n")
    (tmp_path / "my dir").mkdir()
    (tmp_path / "sshd").mkdir()
    settings = f'SetEnv "HOME={home}" "TMPDIR={tmp_path}/my dir"\n'
    greeting = Sshd(tmp_path / "sshd", settings)
    try:
        monkeypatch.setenv("PATH", f"{greeting.bin}{os.pathsep}{os.environ['PATH']}")
        asked = ["ssh", "board", 'echo "$TMPDIR"']
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        assert said == f"welcome\nok 5\nno-newline{tmp_path}/my dir\n"
        remote = Remote(named_place("ssh:board", 60.0), threads=1)
        labels = remote.use(small_artifact, lambda n: n(small_artifact.golden.image))
        np.testing.assert_array_equal(labels, small_artifact.golden.labels)
        assert not list((tmp_path / "my dir").iterdir())
    finally:
        greeting.stop()


class TestMistakes:
    @pytest.mark.parametrize(
        ("device", "message"),
        [
            ("ssh:nobody", "ssh:nobody: .*refused; is an ssh server running there"),
            ("ssh:stranger", "ssh:stranger: .*Permission denied.*; put your key there"),
            ("ssh:unknown", "ssh:unknown: Host key verification failed.*accept its key"),
            ("ssh:", "write ssh:HOST"),
            ("ssh:-oProxyCommand=true", "write ssh:HOST"),
            ("ssh:a:b", "write ssh:HOST"),
            ("ssh:a:70000", "write ssh:HOST"),
            ("tcp:board", "write ssh:HOST"),
        ],
    )
    def test_no_connection(self, cli, saved, device, message):  # noqa: F811
        commands = [("verify", saved[0])]
        if device == "ssh:nobody":  # all the commands that take one
            table = Path(lut.__file__).parent / "data" / "zen5-256x512-width0.5-2threads.jsonl"
            model = ("-m", saved[1])
            commands += [("bench", *model), ("compile", *model), ("tune", *model)]
            commands += [("profile", saved[0]), ("lut", "build"), ("lut", "check", table)]
        for command in commands:
            done = cli(*command, "--device", device)
            assert done.code == 2
            assert re.search(message, done.error), done.error

    def test_a_name_that_nobody_knows(self, monkeypatch, server):
        """Without the tests' configuration, which knows every name."""
        monkeypatch.setenv("PATH", os.environ["PATH"].replace(str(server.bin), "/nowhere"))
        place = named_place("ssh:somebody@no-such-host.invalid", 5.0)
        with pytest.raises(UserError, match=r"Could not resolve.*is the name right"), place.open():
            pass

    def test_no_client(self, monkeypatch, cli, saved):  # noqa: F811
        monkeypatch.setenv("PATH", "")
        done = cli("verify", saved[0], "--device", "ssh:board")
        assert (done.code, "ssh is not installed here" in done.error) == (2, True)

    def test_two_devices(self, cli, saved):  # noqa: F811
        done = cli("verify", saved[0], "--device", "ssh:board", "--rpc-key", "arm")
        assert (done.code, "name two devices" in done.error) == (2, True)

    def test_a_network_for_another_cpu(self, cli, small_graph, tmp_path):  # noqa: F811
        write(small_graph, tmp_path / "a.onnx")
        cli("compile", "-m", "a.onnx", "--target", "arm", "-o", "a.hmseg").succeeded()
        done = cli("verify", "a.hmseg", "--device", "ssh:board")
        assert done.code == 2
        assert "compiled for aarch64, device ssh:board is x86_64" in done.error

    def test_addresses(self):
        shell = ssh_shell("me@board:2222")
        assert (shell.host, shell.port, shell.name) == ("me@board", 2222, "ssh:me@board:2222")
        assert "-p 2222 -- me@board" in " ".join(shell.command("true"))

    def test_a_connection_that_breaks(self, remote, small_artifact):
        """The folder goes with it, and the work is done again over a new one."""
        lost = []
        tries = iter([True, False])

        def work(network):
            session = network.loaded.session
            if next(tries):
                session.link.program.send_signal(signal.SIGKILL)
            return network(small_artifact.golden.image)

        again = Remote(remote.place, 1, on_lost=lost.append)
        labels = again.use(small_artifact, work)
        np.testing.assert_array_equal(labels, small_artifact.golden.labels)
        assert len(lost) == 1
        assert "device ssh:board was lost while" in lost[0]
        until(lambda: not ours(), 20, "the folder's removal")

    def test_a_server_that_goes_away(self, remote, server):
        with remote.place.open() as session:
            subprocess.run(["pkill", "-KILL", "-P", str(server.process.pid)], check=False)
            with pytest.raises(DeviceLostError, match="ssh:board"):
                session.call("asking", lambda: [session.ask("about") for _ in range(100)])
        until(lambda: not ours(), 20, "the folder's removal")


def ours() -> list[Path]:
    """What was left of the programs that were sent."""
    return [path for path in Path("/tmp").glob("hmseg-??????") if (path / "player").exists()]
