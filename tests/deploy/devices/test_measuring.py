"""A latency table of one stage, built on devices."""

import os
import signal
import sys

import pytest

from deploy.devices.measuring import on_device
from deploy.devices.network import Remote
from deploy.measure.build_table import Plan, build_table
from deploy.measure.visit import VisitProtocol
from deploy.pipeline import isa_of
from deploy.targets import resolve_target
from hmseg.operators import Space
from lut.errors import WorkError
from lut.table import load_table
from tests.deploy.devices.farm import children

PROTOCOL = VisitProtocol(rounds=2, frames=2, warmup=0, attempts=2)


def plan(target):
    space = Space((64, 64), 0.5)
    return Plan(space, target, 2, stages=("s1",), calibration=2, protocol=PROTOCOL)


class EnoughError(Exception):
    """Ends a build."""


def test_a_device_lost_on_the_way(farm, cpu, tmp_path):
    """Its session is killed after two visits: the table goes on where it was."""
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    (server,) = farm.serve("x86")
    path, lost, seen = tmp_path / "t.jsonl", [], []

    def watch(progress):
        seen.append(load_table(path).visits)
        if len(seen) == 2:
            os.kill(children(server.pid)[0], signal.SIGKILL)
        if len(seen) == 4:
            raise EnoughError

    remote = Remote(farm.farm("x86"), 2, on_lost=lost.append)
    with pytest.raises(EnoughError):  # a whole table is built in tests/deploy/measure
        on_device(remote, lambda device: build_table(plan(cpu), device, path, watch))
    assert len(lost) == 1
    table = load_table(path)
    assert table.visits[:2] == seen[1]
    wanted = [(str(genotype), role) for genotype, role in plan(cpu).networks()]
    assert [(v.network, v.role) for v in table.visits] == wanted[:4]
    assert all(run.emulated is False for run, _ in table.runs)


def test_a_device_that_does_not_say_what_it_is(farm):
    """TVM's own server: a latency without its machine is refused."""
    plain = [
        sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--tracker",
        str(farm.tracker), "--key", "plain",
    ]  # fmt: skip
    farm.serve("plain", command=plain)
    with pytest.raises(WorkError, match="does not say what it is"):
        on_device(Remote(farm.farm("plain"), 2), lambda device: device)


def test_the_same_build_on_64_bit_arm(emulated_farm, tmp_path):
    """End to end, for one stage; labelled as emulated."""
    remote = Remote(emulated_farm.farm("arm"), 2)
    arm = resolve_target("arm")
    table = on_device(remote, lambda device: build_table(plan(arm), device, tmp_path / "t.jsonl"))
    assert table.entries
    assert all(run.emulated and run.architecture == "aarch64" for run, _ in table.runs)
    pairs = [key.first_kernel for key in table.entries if key.op == "stem_pair"]
    assert sorted(pairs) == [3, 5, 7]  # with MRMS's first block of s2
    assert "inverted_residual" in {key.op for key in table.entries}
