"""Networks timed on devices that are played: which device measures what, a table of two of which
one is lost on the way, and devices that do not fit. test_network.py times on a real one."""

import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.devices import describe, measuring, network
from deploy.devices.emulated import EMULATED
from deploy.devices.measuring import RemoteDevices, RemoteMeasuring
from deploy.devices.network import Remote, RemoteLibrary
from deploy.measure.interleave import Protocol
from deploy.tables import build
from deploy.tables.build import Plan, build_table
from deploy.targets import resolve_target
from lut.errors import UserError, WorkError
from lut.table_file import load_table
from tests.deploy.devices.farm import until
from tests.deploy.devices.played import Played, boards
from tests.deploy.tables.fakes import PROTOCOL, SPACE, FakeFactory, FakeSession

TARGET = resolve_target("x86-64-v3")


class Library(RemoteLibrary):
    """On a played device; times are those of the made-up networks."""

    def __init__(self, artifact, session):
        self.session, self.artifact = session, artifact
        self.times = FakeSession(
            SimpleNamespace(space=SPACE, factors={}, slower=1), artifact.genotype
        )

    def time(self, entry, given, calls):
        assert entry == "main"
        return self.session.call("timing", lambda: self.times.time_frames(calls))

    def time_kernels(self, given, frames, kernels):
        return self.session.call("timing", lambda: self.times.time_kernels(frames))


@pytest.fixture
def loaded(monkeypatch):
    """What is loaded where, in order: (the device's name, the artifact)."""
    found = []

    def load_on(session, artifact, threads):
        assert threads == 2
        found.append((session.name, artifact))
        more = SimpleNamespace(calls=(), golden_input=None, genotype=artifact.genotype)
        return SimpleNamespace(artifact=more, loaded=Library(artifact, session), metadata=None)

    monkeypatch.setattr(measuring, "load_on", load_on)
    monkeypatch.setattr(network, "load_on", load_on)
    return found


def named(genotype):
    return SimpleNamespace(genotype=genotype)


class TestDevices:
    def test_what_they_are(self, monkeypatch):
        played = boards(monkeypatch, "a", "b")
        info = RemoteDevices(Remote(played.farm, 2)).info
        assert (info.cpu, info.architecture, info.cores) == ("A board", "x86_64", 2)
        assert (info.pinning, info.emulated) == ("2 threads", False)
        assert "in the device's memory" in info.frame

    def test_each_has_the_reference_and_loads_it_once(self, monkeypatch, loaded):
        played, reference = boards(monkeypatch, "a", "b"), named("the reference")
        devices, done = RemoteDevices(Remote(played.farm, 2)), []

        def work(device, session, item):
            assert session.network.artifact.genotype == "the reference"
            with device.open(named(item)) as mine:
                assert mine.network.loaded.session is device.session
            return device.session.name

        devices.spread(
            range(6), work, lambda item, name: done.append((item, name)), reference=reference
        )
        assert sorted(item for item, _ in done) == list(range(6))
        assert Counter(name for name, item in loaded if item is reference) == Counter(
            {name for _, name in done}
        )
        assert Counter((name, a.genotype) for name, a in loaded if a is not reference) == Counter(
            (name, item) for item, name in done
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"emulated": True}, "emulated True, not False"),
            ({"cpu": "B"}, "cpu 'B', not 'A board'"),
            ({"cores": 4, "cpu": "B"}, "cpu 'B', not 'A board'; cores 4, not 2"),
        ],
    )
    def test_one_that_is_not_like_the_others(self, monkeypatch, loaded, changes, message):
        played, measured = boards(monkeypatch, "a", "odd", odd=changes), []
        devices = RemoteDevices(Remote(played.farm, 2))
        with pytest.raises(UserError, match="device odd is not like the first one") as caught:
            devices.spread(
                range(1000), lambda *_: time.sleep(0.001), lambda item, _: measured.append(item),
                reference=named("the reference"),
            )  # fmt: skip
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(measured) < 1000

    def test_one_alone_is_asked_before_it_is_taken(self, monkeypatch, loaded):
        played, done = boards(monkeypatch, "a"), []
        RemoteDevices(Remote(played.farm, 2)).spread(
            [1], lambda _d, _s, item: item, lambda item, _: done.append(item),
            reference=named("the reference"),
        )  # fmt: skip
        assert done == [1]

    def test_one_that_does_not_say_what_it_is(self, monkeypatch):
        """A latency without its machine is refused."""
        played = Played({"a": None}).use(monkeypatch)
        with pytest.raises(WorkError, match="device a does not say what it is"):
            RemoteDevices(Remote(played.farm, 2)).info  # noqa: B018

    def test_what_is_measured_names_the_device_that_measured_it(self, monkeypatch, loaded):
        """Behind a key with unequal ones, in the session that measures."""
        played = boards(monkeypatch, "a", "b", b={"emulated": True, "cpu": "B"})
        devices, found = RemoteDevices(Remote(played.farm, 2)), []
        for _ in range(2):
            found.append(devices.use(named("n"), lambda session: session.machine))
        names = [name for name, _ in loaded]
        assert sorted(names) == ["a", "b"]
        for name, machine in zip(names, found, strict=True):
            assert machine["machine"] == ("B" if name == "b" else "A board")
            assert machine["emulated"] is (name == "b")
            assert machine["rpc_key"] == "key"

    def test_an_emulated_machine_says_so(self, monkeypatch):
        assert not describe.Description.from_json(describe.describe()).emulated
        monkeypatch.setenv(EMULATED, "1")
        assert describe.Description.from_json(describe.describe()).emulated


class TestTable:
    @pytest.fixture(autouse=True)
    def own_home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(build, "factory_of", FakeFactory)

    PLAN = Plan(
        SPACE, TARGET, 2, stages=("s1",), calibration=2, occasions=1, revisits=0, protocol=PROTOCOL
    )

    def test_two_devices_one_of_them_lost_on_the_way(self, monkeypatch, loaded, tmp_path):
        """In the middle of a visit, which the other does; what both measured is kept, once."""
        played, lost = boards(monkeypatch, "a", "victim"), []
        path, taken = tmp_path / "t.jsonl", {"a": [], "victim": []}

        class Watched(RemoteDevices):
            def spread(self, items, work, on_result, *, reference):
                def watch(device, session, item):
                    mine = taken[device.session.name]
                    mine.append((str(item[0]), item[1]))
                    if device.session.name == "a":  # the victim has its turns first
                        until(lambda: len(taken["victim"]) >= 3, 20, "the victim's third")
                    if device.session.name == "victim" and len(mine) == 3:
                        device.session.alive = False
                    return work(device, session, item)

                super().spread(items, watch, on_result, reference=reference)

        def watch(progress):
            assert len(load_table(path).visits) == progress.done  # on disk when it is reported

        devices = Watched(Remote(played.farm, 2, on_lost=lost.append))
        table = build_table(self.PLAN, devices, path, watch)
        found = [(v.network, v.role) for v in table.visits]
        assert Counter(found) == Counter((str(g), role) for g, role in self.PLAN.networks())
        assert lost[0] == "the connection to device victim broke while timing"
        assert all(line.endswith("going on without it") for line in lost[1:])
        unfinished = taken["victim"][2]
        assert taken["a"].count(unfinished) == 1 + (unfinished in taken["victim"][:2])
        again = build_table(self.PLAN, RemoteDevices(Remote(played.farm, 2)), path, pytest.fail)
        assert again == table

    def test_it_is_labelled_as_emulated(self, monkeypatch, loaded, tmp_path):
        played = boards(monkeypatch, "a", a={"emulated": True})
        table = build_table(self.PLAN, RemoteDevices(Remote(played.farm, 2)), tmp_path / "t.jsonl")
        assert table.emulated


class TestSession:
    """`RemoteMeasuring` of one library."""

    class Library(RemoteLibrary):
        def __init__(self):
            self.asked = []

        def time(self, entry, given, calls):
            self.asked.append((entry, given.shape, calls))
            return list(range(calls))

        def time_kernels(self, given, frames, kernels):
            return [[7] * kernels] * frames

    def session(self, artifact):
        loaded = SimpleNamespace(
            artifact=artifact, metadata=artifact.metadata, loaded=self.Library()
        )
        return RemoteMeasuring(loaded)

    def test_a_block_is_one_call_to_the_device(self, small_artifact):
        pauses, session = [], self.session(small_artifact)
        protocol = Protocol(warmup=2, repeat=3, pause_s=0.5, sleep=pauses.append)
        assert session.block(protocol) == [2, 3, 4]
        assert session._library.asked == [("main", small_artifact.golden_input.shape, 5)]
        assert pauses == [0.5]

    def test_frames_and_kernels(self, small_artifact):
        session = self.session(small_artifact)
        assert session.time_frames(4) == [0, 1, 2, 3]
        assert session.time_kernels(2) == [[7] * len(small_artifact.calls)] * 2
        assert session.time_parts(3) == {}
        assert session.includes == (
            "the whole network, from the uint8 image in the device's memory to the labels map"
        )

    def test_an_input_of_another_size(self, small_artifact):
        session = self.session(small_artifact)
        session.given = np.zeros((3, 3, 3), np.uint8)
        with pytest.raises(UserError, match="resize it"):
            session.block(Protocol())
