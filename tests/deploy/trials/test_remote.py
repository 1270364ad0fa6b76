"""Candidates on devices that are played; tests/deploy/devices/test_network.py has a real one."""

import math
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.artifact import TVM, KernelInfo
from deploy.devices import session as sessions
from deploy.devices.network import Remote
from deploy.trials import remote as trials
from deploy.trials.bench import FRAMES, ROUNDS, Candidate
from deploy.trials.remote import RemoteBench
from lut.errors import UserError
from lut.ops import Depthwise, Pointwise
from tests.deploy.devices.played import boards

FIRST, SECOND = Pointwise(8, 8, 4, 4), Depthwise(8, 4, 4)
NEST = "tvm:0123"
INFO = [
    KernelInfo("a", "pointwise", str(FIRST), 0, 0),
    KernelInfo("b", "depthwise", str(SECOND), 0, 0),
    KernelInfo("c", TVM, NEST, 0, 0),
]


@dataclass(frozen=True)
class Schedule:
    number: int


@dataclass(frozen=True)
class Kernels:
    threads: int = 2
    measured: dict | None = None


def artifact(kernels):
    """A network whose second kernel is called twice; that of a candidate takes its number."""
    numbers = {text: fields["number"] for text, fields in (kernels.measured or {}).items()}
    if 13 in numbers.values():
        raise ValueError("a traceback\ntile 13 does not fit")
    if 99 in numbers.values():
        raise UserError("the disk is full")
    return SimpleNamespace(kernels=INFO, calls=("a", "b", "b", "c"), numbers=numbers)


@dataclass
class Loaded:
    """On a device; the scores of a network with the number 7 are wrong."""

    session: object
    artifact: object
    log: list
    given = None

    @property
    def network(self):
        wrong = 7 in self.artifact.numbers.values()
        scores = np.full((2, 3, 3), 100.0 + wrong, np.float32)
        return SimpleNamespace(logits=lambda _given: scores, artifact=self.artifact)

    def time_kernels(self, frames):
        time.sleep(0.001)  # the other device comes to its turn
        self.log.append((self.session.name, bool(self.artifact.numbers), frames))
        ns = [self.artifact.numbers.get(str(op), 10) for op in (FIRST, SECOND)]
        return [[1000, 1000, 1000, 1], *[[ns[0], ns[1], ns[1], 1]] * (frames - 1)]


@pytest.fixture
def log(monkeypatch):
    """(device, whether with a candidate, frames) of all that is timed."""
    found = []
    monkeypatch.setattr(trials, "load_on", lambda session, code, threads: (session, code))
    monkeypatch.setattr(trials, "RemoteMeasuring", lambda pair: Loaded(*pair, found))
    return found


def bench_of(monkeypatch, played, *, emulated=False, build=artifact):
    key = SimpleNamespace(devices=tuple(played.devices))
    monkeypatch.setattr(sessions, "require_key", lambda *_: key)
    remote = Remote(played.farm, 2)
    return RemoteBench(Kernels(), artifact(Kernels()), build, remote, emulated=emulated)


def measure(bench, *candidates, end=math.inf):
    found = {}
    batch = [Candidate(text, Schedule(number)) for text, number in candidates]
    bench.measure(batch, lambda c, m: found.setdefault(c.schedule.number, m), end)
    return found


def test_what_there_is_to_tune(monkeypatch, log):
    """All calls of a kernel together; TVM's loop nests are not tuned there."""
    bench = bench_of(monkeypatch, boards(monkeypatch, "a", "b"))
    assert bench.times_ns == {str(FIRST): 10, str(SECOND): 20}
    assert bench.operations == {str(FIRST): FIRST, str(SECOND): SECOND}
    assert bench.nests == {}
    assert bench.at_once == bench.per_kernel == 2


def test_a_candidate_is_timed_in_turn_with_the_rule_on_one_device(monkeypatch, log):
    bench = bench_of(monkeypatch, boards(monkeypatch, "a"))
    log.clear()
    found = measure(bench, (str(SECOND), 4))
    assert found[4].machine == "A board"
    assert (found[4].rule_ns, found[4].candidate_ns) == ((20,) * ROUNDS, (8,) * ROUNDS)
    order = [False, True, True, False] * ROUNDS
    assert log == [("a", new, FRAMES) for new in order[: 2 * ROUNDS]]


def test_several_at_once_each_names_its_device(monkeypatch, log):
    played = boards(monkeypatch, "a", "b", b={"cpu": "Another", "emulated": True})
    bench = bench_of(monkeypatch, played, emulated=True)
    found = measure(bench, (str(FIRST), 4), (str(FIRST), 5), (str(SECOND), 6), (str(SECOND), 3))
    assert set(found) == {3, 4, 5, 6}
    assert {m.machine for m in found.values()} <= {"A board", "Another (emulated)"}
    assert found[5].candidate_ns == (5,) * ROUNDS


@pytest.mark.parametrize(
    ("number", "said"),
    [(13, "tile 13 does not fit"), (7, "wrong result, relative error 0.01")],
)
def test_one_that_cannot_be_used_is_refused(monkeypatch, log, number, said):
    """By the device that was to measure it; the others are measured."""
    bench = bench_of(monkeypatch, boards(monkeypatch, "a"))
    found = measure(bench, (str(FIRST), number), (str(FIRST), 5))
    assert (found[number].refused, found[number].machine) == (said, "A board")
    assert found[number].candidate_ns == ()
    assert found[5].candidate_ns == (5,) * ROUNDS


def test_what_is_no_candidates_fault_ends_it(monkeypatch, log):
    bench = bench_of(monkeypatch, boards(monkeypatch, "a"))
    with pytest.raises(UserError, match="the disk is full"):
        measure(bench, (str(FIRST), 99))


def test_none_is_begun_after_the_time(monkeypatch, log):
    bench = bench_of(monkeypatch, boards(monkeypatch, "a"))
    assert measure(bench, (str(FIRST), 4), end=0.0) == {}


def test_an_emulated_devices_latencies_mean_nothing(monkeypatch, log):
    """Records of the default folder are used by every compilation."""
    played = boards(monkeypatch, "a", a={"emulated": True})
    with pytest.raises(
        UserError, match="device a is emulated: its latencies mean nothing"
    ) as caught:
        bench_of(monkeypatch, played)
    assert "--records" in str(caught.value)
    bench = bench_of(monkeypatch, played, emulated=True)
    assert measure(bench, (str(FIRST), 4))[4].machine == "A board (emulated)"


def test_one_that_turns_up_later_is_refused_too(monkeypatch, log):
    """Behind a key with unequal devices the first one was none."""
    played = boards(monkeypatch, "a", "b", b={"emulated": True})
    bench = bench_of(monkeypatch, played)
    with pytest.raises(UserError, match="device b is emulated"):
        measure(bench, *[(str(FIRST), number) for number in range(20, 60)])
