"""Kernels swapped in a running network of a second's compile time: what is right is timed in turn
with the rule's, what is not is refused and named."""

import math
from dataclasses import replace

import pytest

from deploy import host
from deploy.backends import backend_of
from deploy.build import build_artifact
from deploy.cpu.kernels import pointwise
from deploy.trials import swapped
from deploy.trials.bench import FRAMES, ROUNDS, Candidate
from deploy.trials.swapped import SwappedBench
from lut.ops import Labels, Logits, Pointwise
from tests.conditions import KERNELS

POINTWISE = Pointwise(8, 5, 8, 8)


@pytest.fixture(scope="module")
def rule(small_graph, cpu):
    KERNELS.require()
    return build_artifact(small_graph, cpu, threads=2, measured={})[0]


@pytest.fixture(scope="module")
def bench(small_graph, cpu, rule):
    return SwappedBench(small_graph, cpu, backend_of(cpu).kernels(cpu, 2, {}), rule)


def measure(bench, candidate, end=math.inf):
    found = []
    bench.measure([candidate], lambda c, measured: found.append((c, measured)), end)
    return found


def schedule(bench, **changes):
    return replace(bench.kernels.rule(POINTWISE), **changes)


def test_what_there_is_to_tune(bench, rule, cpu):
    """Kernels of ours and TVM's loop nests, but for those of the entry that gives scores."""
    assert bench.operations[str(POINTWISE)] == POINTWISE
    kinds = {type(operation) for operation in bench.operations.values()}
    assert Labels in kinds
    assert Logits not in kinds
    assert set(bench.times_ns) == {*bench.operations, *bench.nests}
    assert set(bench.nests) <= {k.spec for k in rule.kernels if k.template == "tvm"}
    assert min(bench.times_ns.values()) > 0
    assert bench.at_once == bench.per_kernel == 1


def test_a_candidate_is_timed_beside_the_rule(bench, monkeypatch):
    """In every round each side is as often first."""
    order, frame = [], bench._frame

    def watched(name, replacement):
        order.append(replacement is not None)
        return frame(name, replacement)

    monkeypatch.setattr(bench, "_frame", watched)
    wanted = Candidate(str(POINTWISE), schedule(bench, segments=1))
    ((candidate, measured),) = measure(bench, wanted)
    assert candidate is wanted
    assert (measured.refused, measured.machine) == ("", host.cpu_model())
    assert len(measured.rule_ns) == len(measured.candidate_ns) == ROUNDS
    assert min(*measured.rule_ns, *measured.candidate_ns) > 0
    assert order == [False, True, True, False] * (FRAMES // 2) * ROUNDS


def test_a_wrong_one_is_refused(bench, monkeypatch):
    """It cuts off what is below zero."""
    emit, wrong = pointwise.emit, replace(POINTWISE, act="relu")
    monkeypatch.setattr(pointwise, "emit", lambda op, schedule, isa: emit(wrong, schedule, isa))
    ((_, measured),) = measure(bench, Candidate(str(POINTWISE), schedule(bench)))
    assert measured.refused.startswith("wrong result, relative error ")
    assert (measured.rule_ns, measured.candidate_ns) == ((), ())


def test_one_that_fails_apart_is_refused(bench, monkeypatch):
    def outside(*_):
        raise RuntimeError("it writes outside of its buffers")

    monkeypatch.setattr(swapped, "run_apart", outside)
    ((_, measured),) = measure(bench, Candidate(str(POINTWISE), schedule(bench)))
    assert measured.refused == "it writes outside of its buffers"
    assert (measured.rule_ns, measured.machine) == ((), host.cpu_model())


def test_one_that_does_not_fit_its_kernel_is_refused(bench):
    ((_, measured),) = measure(bench, Candidate(str(POINTWISE), schedule(bench, segments=0)))
    assert "division" in measured.refused


def test_none_is_begun_after_the_time(bench):
    assert measure(bench, Candidate(str(POINTWISE), schedule(bench)), end=0.0) == []
