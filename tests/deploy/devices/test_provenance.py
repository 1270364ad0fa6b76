"""What was measured names the device that measured it, where a key has unequal ones."""

import json

import pytest

from deploy.devices.bench import bench_remote
from deploy.devices.emulated import EMULATED
from deploy.devices.network import Remote
from deploy.measure.interleave import Protocol
from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
from tests.deploy.devices.farm import children, until


@pytest.fixture(scope="module")
def servers(farm):
    """Two of this machine behind one key; the second says that it is emulated."""
    (plain,) = farm.serve("mixed")
    farm.serve("mixed", **{EMULATED: "1"})
    until(lambda: farm.devices("mixed") == 2, 60, "both servers")
    return plain, farm.processes[-1]


def test_bench_names_the_device_that_it_timed(farm, servers, small_artifact):
    plain, emulated = servers
    seen: list[list[bool]] = []

    def look(_seconds: float) -> None:
        """Between the rounds, one of the servers has a session."""
        seen.append([bool(children(server.pid)) for server in (plain, emulated)])

    for _ in range(3):
        until(lambda: farm.free("mixed") == 2, 20, "both free")
        seen.clear()
        protocol = Protocol(warmup=0, repeat=2, rounds=2, pause_s=0.0, sleep=look)
        remote = Remote(farm.farm("mixed"), threads=2)
        found = bench_remote(small_artifact, small_artifact.golden.image, protocol, remote)
        assert sorted(seen[-1]) == [False, True]
        assert found.device["emulated"] is seen[-1][1]


def test_each_tuning_record_names_its_device(farm, servers, cli, user_onnx, tmp_path):  # noqa: F811
    """Two candidates at once, one on each."""
    where = ("--rpc-tracker", farm.tracker, "--rpc-key", "mixed")
    command = ("tune", "-m", user_onnx, *where, "--trials", "2")
    cli(*command, "--records", "records").succeeded()
    (path,) = (tmp_path / "records").glob("*.jsonl")
    machines = [json.loads(line)["machine"] for line in path.read_text().splitlines()]
    assert sorted(machine.endswith(" (emulated)") for machine in machines) == [False, True]


def test_an_emulated_devices_records_stay_out_of_the_default_folder(
    farm, servers, cli, user_onnx, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))
    where = ("--rpc-tracker", farm.tracker, "--rpc-key", "mixed")
    done = cli("tune", "-m", user_onnx, *where, "--trials", "2")
    assert done.code == 2
    assert "latencies mean nothing" in done.error
    for path in (tmp_path / "home").rglob("*.jsonl"):
        assert "(emulated)" not in path.read_text()
