"""A real table of one stage at a small size, its builder killed on the way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from deploy.cpu.pipeline import isa_of
from deploy.tables.build import REVISITS, Plan, build_table
from deploy.measure.local import LocalDevice
from deploy.measure.rounds import VisitProtocol
from hmseg.operators import Space
from lut.errors import UserError
from lut.estimate import LatencyCost
from lut.table_file import load_table

PROTOCOL = VisitProtocol(rounds=2, frames=3, warmup=1, attempts=2)
KILLS = 1  # benchmarks/lut_kills.py kills ten times
CODE = """
import sys
from pathlib import Path
from tests.deploy.measure.test_build_table import plan
from deploy.targets import resolve_target
from deploy.tables.build import build_table
from deploy.measure.local import LocalDevice
build_table(plan(resolve_target("cpu")), LocalDevice(2), Path(sys.argv[1]),
            lambda now: print(now.done, flush=True))
"""


def plan(cpu):
    return Plan(
        Space((64, 64), 0.5), cpu, 2, stages=("s1",), calibration=9, occasions=2, protocol=PROTOCOL
    )


@pytest.fixture(scope="module")
def built(cpu, tmp_path_factory):
    """The table, and what it held after each kill."""
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    path, rng = tmp_path_factory.mktemp("lut") / "t.jsonl", random.Random(8)
    kept = []
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", CODE, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline().strip() == "1"  # a visit is in the table
            time.sleep(rng.uniform(0, 1))
            os.kill(process.pid, signal.SIGKILL)
        kept.append(load_table(path).visits)
    return build_table(plan(cpu), LocalDevice(2), path), path, kept


@pytest.mark.filterwarnings("ignore:.*cut short")
def test_nothing_is_lost_or_doubled(built, cpu):
    table, path, kept = built
    assert all(len(visits) > index for index, visits in enumerate(kept))
    for visits in kept:
        assert table.visits[: len(visits)] == visits
    wanted = Counter((str(g), role) for g, role in plan(cpu).networks())
    found = Counter((v.network, v.role) for v in table.visits)
    assert set(found) == set(wanted)
    again = found - wanted  # noisy ones
    assert all(role == "entries" for _, role in again)
    covering = sum(role == "entries" for _, role in wanted)
    assert again.total() <= int(REVISITS * covering)
    texts = [json.dumps(visit.to_json()) for visit in table.visits]
    assert len(set(texts)) == len(texts)
    assert load_table(path) == table


def test_every_operator_of_the_stage_is_measured(built):
    table, _, _ = built
    pairs = [key.first_kernel for key in table.entries if key.op == "stem_pair"]
    assert sorted(pairs) == [3, 5, 7]  # with MRMS's first block of s2
    s1 = [k for k in table.entries if k.op == "inverted_residual" and (k.cin, k.cout) == (16, 8)]
    assert sorted((k.hidden // k.cin, k.kernel) for k in s1) == [
        (e, k) for e in (3, 6) for k in (3, 5, 7)
    ]
    for visit in table.visits:
        assert {"inverted_residual", "classifier", "labels"} <= {key.op for key in visit.entries}
        for entry in visit.entries.values():
            assert entry.calls >= 1
            assert len(entry.samples_us) == PROTOCOL.rounds
            assert all(
                len(round_us) == PROTOCOL.frames and min(round_us) > 0
                for round_us in entry.samples_us
            )


def test_it_estimates(built):
    table, _, _ = built
    cost = LatencyCost(table)
    assert cost.calibration.networks == len({v.network for v in table.calibration}) >= 4
    visit = table.calibration[0]
    estimate = cost.network(cost.sum_of(visit))
    assert estimate.value > 0
    assert estimate.upper > estimate.value


def test_provenance(built):
    table, _, _ = built
    ((provenance, _),) = table.runs
    assert provenance.cpu
    assert not provenance.emulated
    assert "2 rounds of 3 frames" in provenance.protocol
    assert {"apache-tvm", "hmseg"} <= set(provenance.versions)
    assert provenance.schedules


def test_a_finished_table_is_left_alone(built, cpu):
    table, path, _ = built
    before = path.read_bytes()
    # Noisy entries are visited again up to a limit, which this build may not have reached.
    again = build_table(plan(cpu), LocalDevice(2), path)
    assert again.visits[: len(table.visits)] == table.visits
    assert path.read_bytes().startswith(before)


def test_a_table_of_something_else(built, cpu):
    _, path, _ = built
    with pytest.raises(UserError, match=r"something else: width 1.0 and 0.5"):
        build_table(Plan(Space((64, 64), 1.0), cpu, 2, protocol=PROTOCOL), LocalDevice(2), path)
    with pytest.raises(UserError, match=r"another protocol"):
        build_table(Plan(Space((64, 64), 0.5), cpu, 2), LocalDevice(2), path)
