"""Latency tables built on devices, at a small size and not to their end."""

import sys
import time
from collections import Counter

import pytest

from deploy.cpu.pipeline import isa_of
from deploy.devices.emulated import EMULATED
from deploy.devices.measuring import RemoteDevices
from deploy.devices.network import Remote
from deploy.measure.rounds import VisitProtocol
from deploy.tables.build import Plan, build_table
from deploy.targets import resolve_target
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.table_file import load_table
from tests.deploy.devices.farm import kill

PROTOCOL = VisitProtocol(rounds=2, frames=2, warmup=0, attempts=2)


class EnoughError(Exception):
    """Ends a build; a whole table is built in tests/deploy/measure."""


class Watched(RemoteDevices):
    """Keeps which device took which item, a lost device's too."""

    def __init__(self, remote):
        super().__init__(remote)
        self.taken = []

    def spread(self, items, work, on_result, *, reference):
        def watch(device, session, item):
            self.taken.append((item, device.session.name))
            return work(device, session, item)

        super().spread(items, watch, on_result, reference=reference)


def plan(target):
    space = Space((64, 64), 0.5)
    return Plan(
        space, target, 2, stages=("s1",), calibration=2, occasions=1, revisits=0, protocol=PROTOCOL
    )


def test_two_devices_one_of_them_lost_on_the_way(farm, cpu, tmp_path):
    """Both take part; one is killed in the middle of a visit: the other does that one too."""
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    farm.serve("x86")
    victim = farm.serve("x86", at_least=2)[0]
    port = victim.args[-1]
    path, lost = tmp_path / "t.jsonl", []
    patient = farm.farm("x86", wait_s=600.0)  # for the one that is left, which measures on
    devices = Watched(Remote(patient, 2, on_lost=lost.append))

    def kept():
        return [(v.network, v.role) for v in load_table(path).visits]

    def taken(by_victim):
        return {
            (str(genotype), role)
            for (genotype, role), name in devices.taken
            if (port in name) == by_victim
        }

    def watch(progress):
        done = kept()
        assert len(done) == progress.done  # on disk when it is reported
        if lost and taken(by_victim=True) <= set(done):
            raise EnoughError
        at_work = taken(by_victim=True) - set(done)
        both = taken(by_victim=True) & set(done) and taken(by_victim=False) & set(done)
        if victim.poll() is None and both and at_work:
            kill(victim)

    with pytest.raises(EnoughError):
        build_table(plan(cpu), devices, path, watch)
    assert len(lost) == 1
    assert port in lost[0]
    before, planned = kept(), Counter((str(g), role) for g, role in plan(cpu).networks())
    assert taken(by_victim=True) < set(before)
    assert Counter(before) <= planned

    def end(progress):
        assert progress.total == planned.total() - len(before)
        raise EnoughError

    with pytest.raises(EnoughError):  # it goes on, whatever the order of what is there
        build_table(plan(cpu), devices, path, end)
    after = kept()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert Counter(after) <= planned
    assert all(run.emulated is False for run, _ in load_table(path).runs)


def test_a_device_that_is_not_like_the_others(farm, small_artifact):
    farm.serve("mixed")
    devices = RemoteDevices(Remote(farm.farm("mixed"), 2))
    odd = farm.serve("mixed", at_least=2, **{EMULATED: "1"})[0]
    measured = []
    with pytest.raises(UserError, match="is not like the first one") as caught:
        devices.spread(
            range(1000), lambda _device, _reference, _item: time.sleep(0.1),
            lambda item, _: measured.append(item), reference=small_artifact,
        )  # fmt: skip
    assert f"{odd.args[-1]})" in str(caught.value)
    assert "emulated True, not False" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(measured) < 1000


def test_a_device_that_does_not_say_what_it_is(farm):
    """TVM's own server: a latency without its machine is refused."""
    plain = [
        sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--tracker",
        str(farm.tracker), "--key", "plain",
    ]  # fmt: skip
    farm.serve("plain", command=plain)
    with pytest.raises(WorkError, match="does not say what it is"):
        RemoteDevices(Remote(farm.farm("plain"), 2))


def test_the_same_build_on_64_bit_arm(emulated_farm, tmp_path):
    """End to end, for one stage; labelled as emulated."""
    arm, path = resolve_target("arm"), tmp_path / "t.jsonl"
    table = build_table(plan(arm), RemoteDevices(Remote(emulated_farm.farm("arm"), 2)), path)
    assert all(run.emulated and run.architecture == "aarch64" for run, _ in table.runs)
    assert len(table.visits) == len(plan(arm).networks())
    pairs = [key.first_kernel for key in table.entries if key.op == "stem_pair"]
    assert sorted(pairs) == [3, 5, 7]  # with MRMS's first block of s2
    s1 = [k for k in table.entries if k.op == "inverted_residual" and (k.cin, k.cout) == (16, 8)]
    assert len(s1) == 6
    assert load_table(path) == table
