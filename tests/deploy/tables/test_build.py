"""Building a table on devices that are made up: what is visited, kept and taken up again, also by a
builder that was killed. test_for_real.py builds one on this machine."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from deploy.cpu.kernels import has_kernel
from deploy.tables import build
from deploy.tables.build import REVISITS, VISITS_PER_NETWORK, Plan, build_table, default_path
from deploy.targets import resolve_target
from hmseg.cost import SpaceCost
from hmseg.genotype import MRMS_GENOTYPE, parse_genotype, random_genotype
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.estimate import LatencyCost
from lut.ops import InvertedResidual, StemPair, expand
from lut.table_file import load_table
from tests.deploy.tables.fakes import (
    OVERHEAD_NS,
    PROTOCOL,
    SHALLOW,
    SPACE,
    FakeDevices,
    FakeFactory,
    entry_ns,
    frame_ns,
)
from tests.lut.tables import visit

KILLED = """
import sys, time
from pathlib import Path
from deploy.tables import build
from tests.deploy.tables.fakes import FakeDevices, FakeFactory
from tests.deploy.tables.test_build import plan
build.factory_of = FakeFactory
build.build_table(plan(), FakeDevices(before_visit=lambda _: time.sleep(0.02)), Path(sys.argv[1]),
                  lambda now: print(now.done, flush=True))
"""


def plan(**changes):
    return Plan(**{
        "space": SPACE, "target": resolve_target("x86-64-v3"), "threads": 2, "stages": ("s1",),
        "calibration": 9, "occasions": 2, "protocol": PROTOCOL, **changes,
    })  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """No tuning records but those that ship, and no default table."""
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))


@pytest.fixture
def factories(monkeypatch):
    """Networks are made up; the factories that were used."""
    used = []

    def factory_of(recipe):
        used.append(FakeFactory(recipe))
        return used[-1]

    monkeypatch.setattr(build, "factory_of", factory_of)
    return used


def planned(a_plan):
    return Counter((str(genotype), role) for genotype, role in a_plan.networks())


def visited(table):
    return Counter((v.network, v.role) for v in table.visits)


def without_dates(table):
    return [replace(visit, date="") for visit in table.visits]


class TestVisits:
    def test_every_one_is_on_disk_when_it_is_reported(self, factories, tmp_path):
        path, told = tmp_path / "t.jsonl", []

        def tell(now):
            told.append(now)
            assert len(load_table(path).visits) == now.done

        table = build_table(plan(), FakeDevices(), path, tell)
        assert visited(table) == planned(plan())
        assert [v.network for v in table.visits] == [str(g) for g, _ in plan().networks()]
        assert load_table(path) == table
        total = planned(plan()).total()
        assert [(now.done, now.total) for now in told] == [(n + 1, total) for n in range(total)]
        assert told[-1].entries == len(table.entries)

    def test_each_network_is_built_once_and_all_are_known_before_the_first(
        self, factories, tmp_path
    ):
        asked = []

        def watch(_genotype):
            asked.append(len(factories[0].ahead))

        build_table(plan(), FakeDevices(before_visit=watch), tmp_path / "t.jsonl")
        (factory,) = factories
        assert factory.ahead == [MRMS_GENOTYPE, *(genotype for genotype, _ in plan().networks())]
        assert set(asked) == {len(factory.ahead)}
        times = Counter(factory.built)
        assert set(times) == set(factory.ahead)
        assert max(times.values()) == 1 + (MRMS_GENOTYPE in dict(plan().networks()))

    def test_the_time_that_is_left(self, factories, tmp_path, monkeypatch):
        """Ten seconds a visit, by the clock that `Progress` looks at."""
        clock, told = count(0, 10), []
        monkeypatch.setattr(build, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        build_table(plan(), FakeDevices(), tmp_path / "t.jsonl", told.append)
        assert [now.eta_s for now in told] == [10 * (now.total - now.done) for now in told]

    def test_every_operator_of_the_stage_is_measured(self, factories, tmp_path):
        table = build_table(plan(), FakeDevices(), tmp_path / "t.jsonl")
        pairs = [key for key in table.entries if isinstance(key, StemPair)]
        assert sorted(pair.first.kernel for pair in pairs) == [3, 5, 7]  # with MRMS's second block
        s1 = [
            key for key in table.entries
            if isinstance(key, InvertedResidual) and (key.cin, key.cout) == (16, 8)
        ]  # fmt: skip
        assert sorted((key.hidden // key.cin, key.kernel) for key in s1) == [
            (e, k) for e in (3, 6) for k in (3, 5, 7)
        ]

    def test_samples_are_those_of_the_device(self, factories, tmp_path):
        for found in build_table(plan(), FakeDevices(), tmp_path / "t.jsonl").visits:
            for key, entry in found.entries.items():
                calls = SPACE.keys(parse_genotype(found.network)).count(key)
                wanted = (entry_ns(key) / 1000,) * PROTOCOL.frames
                assert (entry.calls, entry.samples_us) == (calls, (wanted,) * PROTOCOL.rounds)
            whole = frame_ns(parse_genotype(found.network)) / 1000
            assert found.whole_us == ((whole,) * PROTOCOL.frames,) * PROTOCOL.rounds

    def test_its_estimate_of_an_unseen_network_is_exact(self, factories, tmp_path):
        """A frame of these devices is the sum of its entries and a constant."""
        table = build_table(plan(), FakeDevices(), tmp_path / "t.jsonl")
        rest = {key: entry_ns(key) / 1000 for key in SPACE.all_keys() - set(table.entries)}
        more = visit("the rest", rest, reference=table.baseline_us)
        ((provenance, visits),) = table.runs
        cost = LatencyCost(replace(table, runs=((provenance, (*visits, more)),)))
        assert cost.calibration.overhead_us == pytest.approx(OVERHEAD_NS / 1000)
        genotype = random_genotype(random.Random(3))
        estimate = SpaceCost(cost, SPACE).of(genotype)
        assert estimate.value == pytest.approx(frame_ns(genotype) / 1000)
        assert estimate.error == pytest.approx(0, abs=1e-6)


class TestNoise:
    """The stem of a network with an expansion in s1 is in most of them, its partner in few."""

    RARE = SPACE.keys(next(g for g, _ in plan().networks() if g.ops[0][0].expansion == 6))[1]

    def test_a_network_with_a_noisy_entry_is_visited_again_until_it_is_not(
        self, factories, tmp_path
    ):
        devices = FakeDevices(noise={self.RARE: [1.15, *[1.0] * 100]})
        table = build_table(plan(), devices, tmp_path / "t.jsonl")
        again = visited(table) - planned(plan())
        assert again
        assert {role for _, role in again} == {"entries"}
        assert all(self.RARE in SPACE.keys(parse_genotype(network)) for network, _ in again)
        assert not table.entries[self.RARE].noisy
        assert len(table.visits) == planned(plan()).total() + again.total()

    def test_within_limits(self, factories, tmp_path):
        """An entry that stays noisy ends no build, nor do all of them."""
        table = build_table(
            plan(), FakeDevices(noise={self.RARE: [1.0, 2.0]}), tmp_path / "one.jsonl"
        )
        assert table.entries[self.RARE].noisy
        times = Counter(v.network for v in table.visits if v.role == "entries")
        assert max(times.values()) == VISITS_PER_NETWORK
        everything = {key: [1.0, 2.0] for g, _ in plan().networks() for key in SPACE.keys(g)}
        table = build_table(plan(), FakeDevices(noise=everything), tmp_path / "all.jsonl")
        covering = {network for network, role in planned(plan()) if role == "entries"}
        assert (visited(table) - planned(plan())).total() == int(REVISITS * len(covering))
        table = build_table(
            plan(revisits=0), FakeDevices(noise=everything), tmp_path / "none.jsonl"
        )
        assert visited(table) == planned(plan())

    def test_the_networks_with_most_of_them_come_first(self, factories, tmp_path):
        everywhere = SPACE.keys(MRMS_GENOTYPE)[-1]
        devices = FakeDevices(noise={self.RARE: [1.0, 2.0], everywhere: [1.0, 2.0]})
        table = build_table(plan(), devices, tmp_path / "t.jsonl")
        first_again = table.visits[planned(plan()).total()]
        assert {self.RARE, everywhere} <= first_again.entries.keys()


class TestGoingOn:
    @pytest.mark.parametrize("cut", [1, 7])
    def test_an_interrupted_build_goes_on_where_it_was(self, factories, tmp_path, cut):
        path = tmp_path / "t.jsonl"

        def stop(now):
            if now.done == cut:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_table(plan(), FakeDevices(), path, stop)
        kept = load_table(path).visits
        assert len(kept) == cut
        told = []
        table = build_table(plan(), FakeDevices(), path, told.append)
        assert table.visits[:cut] == kept
        assert told[0].total == planned(plan()).total() - cut
        whole = build_table(plan(), FakeDevices(), tmp_path / "whole.jsonl")
        assert without_dates(table) == without_dates(whole)

    def test_a_visit_that_fails_loses_none_before_it(self, factories, tmp_path):
        path, visits = tmp_path / "t.jsonl", count()

        def fail(_genotype):
            if next(visits) == 4:  # the reference is opened first
                raise WorkError("the device is lost")

        with pytest.raises(WorkError, match="the device is lost"):
            build_table(plan(), FakeDevices(before_visit=fail), path)
        assert len(load_table(path).visits) == 3
        assert visited(build_table(plan(), FakeDevices(), path)) == planned(plan())

    @pytest.mark.filterwarnings("ignore:.*cut short")
    def test_a_killed_build_goes_on(self, factories, tmp_path):
        """benchmarks/lut_kills.py kills a real one, ten times."""
        path = tmp_path / "t.jsonl"
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
            told = [builder.stdout.readline().strip() for _ in range(5)]
            os.kill(builder.pid, signal.SIGKILL)
        kept = load_table(path).visits
        assert told == list("12345")
        assert 5 <= len(kept) < planned(plan()).total()
        table = build_table(plan(), FakeDevices(), path)
        assert table.visits[: len(kept)] == kept
        assert visited(table) == planned(plan())
        assert len({json.dumps(v.to_json()) for v in table.visits}) == len(
            {(v.network, v.role, v.date) for v in table.visits}
        )
        assert load_table(path) == table

    def test_a_finished_table_is_left_alone(self, factories, tmp_path):
        path = tmp_path / "t.jsonl"
        table = build_table(plan(), FakeDevices(), path)
        before = path.read_bytes()
        assert build_table(plan(), FakeDevices(before_visit=pytest.fail), path) == table
        assert path.read_bytes() == before


class TestRefused:
    @pytest.fixture
    def begun(self, factories, tmp_path):
        path = tmp_path / "t.jsonl"
        build_table(plan(), FakeDevices(), path)
        return path

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"space": Space((64, 64), 1.0)}, "something else: width 1.0 and 0.5"),
            ({"threads": 1}, "something else: threads 1 and 2"),
            ({"target": resolve_target("x86-64-v4")}, "something else: target "),
            ({"protocol": replace(PROTOCOL, frames=4)}, "another protocol"),
        ],
    )
    def test_a_table_of_something_else(self, begun, changes, message):
        before = begun.read_bytes()
        with pytest.raises(UserError, match=message):
            build_table(plan(**changes), FakeDevices(), begun)
        assert begun.read_bytes() == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"cpu": "Another"}, "another cpu"),
            ({"versions": {"firmware": "2"}}, "another versions"),
            ({"emulated": True}, "another emulated"),
            ({"architecture": "aarch64"}, "x86-64-v3 is x86_64, and what would measure it is aarc"),
        ],
    )
    def test_a_table_of_another_device(self, begun, changes, message):
        before = begun.read_bytes()
        devices = FakeDevices()
        with pytest.raises(UserError, match=message):
            build_table(plan(), replace(devices, info=replace(devices.info, **changes)), begun)
        assert begun.read_bytes() == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"target": resolve_target("x86-64-v2")}, "no kernels for x86-64-v2"),
            (
                {"target": resolve_target("arm")},
                "is aarch64, .* perhaps --device or --rpc-key is missing",
            ),
            ({"stages": ("s1", "s9")}, "unknown stage 's9'"),
        ],
    )
    def test_a_mistake_in_the_plan_leaves_no_file(self, factories, tmp_path, changes, message):
        path = tmp_path / "t.jsonl"
        with pytest.raises(UserError, match=message):
            build_table(plan(**changes), FakeDevices(), path)
        assert not path.exists()


def test_provenance(factories, tmp_path):
    ((provenance, _),) = build_table(plan(), FakeDevices(), tmp_path / "t.jsonl").runs
    info = FakeDevices().info
    assert (provenance.cpu, provenance.architecture) == (info.cpu, info.architecture)
    assert (provenance.cores, provenance.pinning) == (info.cores, info.pinning)
    assert not provenance.emulated
    assert "2 rounds of 3 frames" in provenance.protocol
    assert provenance.protocol.endswith(f"a whole frame is {info.frame}")
    assert {"apache-tvm", "apache-tvm-ffi", "hmseg", "torch"} <= set(provenance.versions)
    assert provenance.schedules == "rule"


@pytest.mark.parametrize(
    ("target", "threads", "name"),
    [
        (resolve_target("x86-64-v3"), 2, "x86-64-v3-64x64-width0.5-2threads.jsonl"),
        (
            resolve_target("x86-64-v3", precision="int8"),
            2,
            "x86-64-v3-64x64-width0.5-2threads-int8.jsonl",
        ),
        (resolve_target("cuda", "sm_61"), 0, "sm_61-64x64-width0.5-fp32.jsonl"),
        (resolve_target("cuda", "sm_61", "fp16"), 0, "sm_61-64x64-width0.5-fp16.jsonl"),
    ],
)
def test_where_a_table_goes_unless_the_user_says(tmp_path, target, threads, name):
    path = default_path(plan(target=target, threads=threads))
    assert path == tmp_path / "home" / "lut" / name


def test_made_up_networks_have_entries_of_two_kernels():
    """What the tests above are about is not all of one kernel each."""
    assert {len(expand(key, has_kernel)) for key in SPACE.keys(SHALLOW)} == {1, 2}
