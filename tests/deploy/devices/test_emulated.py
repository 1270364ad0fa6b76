"""The emulated ARM machine: a whole network on it, and what it says of itself."""

import json

import pytest

from deploy.build import build_artifact
from deploy.devices import emulated
from deploy.devices.measuring import RemoteDevices
from deploy.devices.network import Remote
from deploy.graph.export import export_network
from deploy.targets import resolve_target
from hmseg.mrms import MRMSConfig
from lut.errors import UserError, WorkError
from tests.deploy import graphs
from tests.deploy.cli.conftest import cli, user_onnx  # noqa: F401 - fixtures
from tests.deploy.tables.fakes import SHALLOW


def test_a_network_passes_the_parity_gate_on_64_bit_arm(emulated_farm):
    """One of the search space, with every kind of kernel but one; and it is timed there."""
    remote = Remote(emulated_farm.farm("arm"), threads=2)
    model = graphs.network(MRMSConfig(SHALLOW, 0.5))
    graph = export_network(model, "shallow", graphs.SIZE, num_classes=19)
    artifact, comparisons = build_artifact(graph, resolve_target("arm"), threads=2, remote=remote)
    assert [c.image for c in comparisons] == ["golden", "noise", "blocks", "black", "white"]
    assert all(c.passed for c in comparisons)
    assert not [kernel.name for kernel in artifact.kernels if kernel.template == "tvm"]
    assert artifact.parity["checked"]
    assert artifact.parity["emulated"] is True
    devices = RemoteDevices(remote)
    assert devices.info.emulated
    assert devices.info.architecture == "aarch64"
    frames, kernels = devices.use(artifact, lambda s: (s.time_frames(2), s.time_kernels(1)))
    assert len(frames) == 2
    assert [len(frame) for frame in kernels] == [len(artifact.calls)]


def test_the_doctor_says_that_it_is_emulated(emulated_farm, cli):  # noqa: F811
    where = ("--rpc-tracker", emulated_farm.tracker, "--rpc-key", "arm")
    found = json.loads(cli("device", "doctor", *where, "--json").succeeded().out)
    assert any("EMULATED" in finding["detail"] for finding in found)


def test_tuning_on_it_does_not_touch_the_users_records(emulated_farm, cli, user_onnx):  # noqa: F811
    where = ("--rpc-tracker", emulated_farm.tracker, "--rpc-key", "arm")
    refused = cli("tune", "-m", user_onnx, "-t", "arm", *where)
    assert refused.code == 2
    assert "latencies mean nothing" in refused.error


def test_it_is_made_of_debian_packages(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="Debian packages, and apt-get is not here"):
        emulated.set_up(tmp_path / "machine")
    assert not list(tmp_path.iterdir())


def test_a_set_up_that_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(emulated, "_DEBIAN", ("no-such-package-anywhere",))
    monkeypatch.setattr("shutil.which", lambda name: name)
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        script = tmp_path / "bin" / tool
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho 'E: {tool} cannot reach its mirror' >&2\nexit 100\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(WorkError, match=r"failed: E: .* cannot reach"):
        emulated.set_up(tmp_path / "cache" / "machine")
    assert not list((tmp_path / "cache").iterdir())
