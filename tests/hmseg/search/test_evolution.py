"""An evolution on a made-up fitness: within its budget, by its seed, killed and gone on with."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch

from hmseg.cost import SpaceCost
from hmseg.genotype import MRMS_GENOTYPE, random_genotype
from hmseg.operators import Space
from hmseg.search.architecture import Architecture, Path
from hmseg.search.budget import Budget
from hmseg.search.derive import derive
from hmseg.search.evolution import CandidateReport, Evolution, EvolutionConfig, Evolved, _sample
from hmseg.search.objective import Objective
from hmseg.search.space import DIMENSIONS, search_space
from lut.errors import UserError
from lut.estimate import LatencyCost
from lut.jsonl import read_records
from tests.lut.tables import IDENTITY, table, visit

CONFIG = EvolutionConfig(population=8, generations=6, measure_every=0)
SPACE = Space((64, 64), 0.5)
LIMIT = 200.0


def make_objective() -> Objective:
    """Of a table in which an entry takes 5 to 6 us."""
    rng = random.Random(9)
    us = {key: 5 + rng.random() for key in sorted(SPACE.all_keys(), key=str)}
    calibration = [
        visit(str(g), {key: us[key] for key in set(SPACE.keys(g))}, role="calibration",
              whole=10 + sum(us[key] for key in SPACE.keys(g)) + rng.random())
        for g in (random_genotype(rng) for _ in range(8))
    ]  # fmt: skip
    identity = replace(IDENTITY, resolution="64x64")
    cost = SpaceCost(LatencyCost(table(visit("e", us), *calibration, identity=identity)), SPACE)
    return Objective(cost, Budget(LIMIT, "us"))


def fitness(path: Path) -> float:
    """Large windows and expansions are good, and each choice has a worth of its own."""
    return sum((7 * row + 3 * choice) % 10 for row, choice in enumerate(path.choices)) / 240


def evolve(
    log: FilePath, config: EvolutionConfig = CONFIG, *, seed: int = 0, worth: Callable = fitness,
    dimensions: tuple[str, ...] = DIMENSIONS, **how,
) -> Evolved:  # fmt: skip
    architecture = Architecture(search_space(dimensions, MRMS_GENOTYPE))
    header = how.pop("header", {"weights": "w"})
    return Evolution(
        config, make_objective(), architecture, worth, seed=seed, log=log, header=header, **how
    ).run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evolved, FilePath]:
    log = tmp_path_factory.mktemp("whole") / "evolution.jsonl"
    return evolve(log), log


def test_it_finds_better_than_it_began_with_within_the_budget(whole):
    found, log = whole
    _, *records = read_records(log)
    assert all(record["upper"] <= LIMIT for record in records)
    assert len({tuple(record["choices"]) for record in records}) == len(records) == 48
    first = [record["value"] for record in records if record["generation"] == 1]
    assert found.miou == max(record["value"] for record in records) > max(first)
    architecture = Architecture(search_space(DIMENSIONS, MRMS_GENOTYPE))
    start, _ = derive(make_objective(), architecture)
    assert records[0]["choices"] == list(start.choices)  # so it ends with nothing worse
    assert fitness(found.path) == found.miou


def test_the_seed_decides(whole, tmp_path: FilePath):
    found, log = whole
    assert evolve(tmp_path / "a").path == found.path
    strip = [{k: v for k, v in r.items() if k != "time"} for r in read_records(tmp_path / "a")]
    assert strip == [{k: v for k, v in r.items() if k != "time"} for r in read_records(log)]
    assert evolve(tmp_path / "b", seed=1).path != found.path


def evolve_until_killed(log: FilePath, count: int) -> None:
    """What the killed process runs."""
    left = iter(range(count))

    def worth(path: Path) -> float:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return fitness(path)

    evolve(log, worth=worth)


def test_killed_it_goes_on_with_what_it_has(whole, tmp_path: FilePath):
    log = tmp_path / "evolution.jsonl"
    code = (
        "from pathlib import Path; from tests.hmseg.search import test_evolution as own;"
        f"own.evolve_until_killed(Path({str(log)!r}), 21)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    with log.open("a") as file:  # what a crash may leave of a line
        file.write('{"kind": "candidate", "cho')
    asked, told = list[Path](), list[CandidateReport]()
    with pytest.warns(UserWarning, match="cut short"):
        found = evolve(log, worth=lambda p: asked.append(p) or fitness(p), watch=told.append)
    assert found == replace(whole[0], objective=found.objective)
    assert len(asked) == 48 - 21
    assert [report.done for report in told] == list(range(1, 49))
    assert (told[-1].total, told[-1].generation, told[-1].best) == (48, 6, found.miou)
    values = [[(r["kind"], r.get("value")) for r in read_records(each)] for each in (log, whole[1])]
    assert values[0] == values[1]


class Machine:
    """Every network takes `factor` of its estimate by the table."""

    def __init__(self, factor: float) -> None:
        self.factor, self.timed = factor, []
        self.cost = make_objective().cost

    def __call__(self, genotypes):
        self.timed += genotypes
        return [self.factor * self.cost.of(genotype).value for genotype in genotypes]


def test_leaders_are_timed_and_the_cost_is_corrected(whole, tmp_path: FilePath):
    config, machine = replace(CONFIG, measure_every=2, leaders=2), Machine(1.15)
    log = tmp_path / "log"
    found = evolve(log, config, timer=machine)
    assert len(set(machine.timed)) == len(machine.timed) == len(found.measured_us) >= 3
    assert found.measured_us[str(found.path.genotype)] <= LIMIT
    assert machine(machine.timed[:1])[0] > LIMIT  # the first leader's estimate was too low
    plain, corrected = (o.estimate(found.path) for o in (make_objective(), found.objective))
    assert corrected.value > 1.02 * plain.value
    assert corrected.error > plain.error  # the networks of the table say something else
    again = Machine(1.15)
    assert evolve(log, config, timer=again).path == found.path
    assert not again.timed
    # On a machine that is as its table says, the same networks are found as without one.
    right = evolve(tmp_path / "right", config, timer=Machine(1.0))
    assert right.path == whole[0].path


def test_a_machine_that_is_far_too_slow_leaves_nothing(tmp_path: FilePath):
    config = replace(CONFIG, generations=1, measure_every=1)
    with pytest.raises(UserError, match=r"budget 0\.2ms: "):
        evolve(tmp_path / "log", config, timer=Machine(5.0))


def test_a_small_space_is_searched_to_its_end(tmp_path: FilePath):
    found = evolve(tmp_path / "log", dimensions=("resolution",))
    choices = [record["choices"][-2:] for record in read_records(tmp_path / "log")[1:]]
    assert sorted(choices) == [[a, b] for a in range(3) for b in range(3)]
    assert found.evaluated == 9


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"config": replace(CONFIG, mutation=0.2)}, "config"),
        ({"header": {"weights": "other"}}, "weights"),
    ],
)
def test_another_evolution_is_refused(whole, how, name):
    with pytest.raises(UserError, match=rf"an evolution of another {name}; go on with its own"):
        evolve(whole[1], **how)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"population": 1}, "population 1: must be at least 2"),
        ({"measure_every": -1}, "measure every -1: must be at least 0"),
        ({"mutation": 0.0}, "mutation 0: a probability above 0"),
        ({"mutation": float("nan")}, "mutation nan: a probability"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"kind": "guess", "choices": [1], "value": 1}',
        '{"kind": "candidate", "choices": [[1]], "value": 1}',
        '{"kind": "candidate", "choices": [1], "value": "much"}',
    ],
)
def test_a_log_of_something_else_is_named(whole, tmp_path: FilePath, line):
    first, *_ = whole[1].read_text().splitlines()
    (tmp_path / "e.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(UserError, match=r"e\.jsonl, line 2: no network of an evolution; remove"):
        evolve(tmp_path / "e.jsonl")


def test_samples_are_of_the_distribution():
    """The search's own network is likely where the search has decided."""
    architecture = Architecture(search_space(DIMENSIONS, MRMS_GENOTYPE))
    architecture.begin_near(MRMS_GENOTYPE, 0.9)
    rng = np.random.default_rng(0)
    drawn = [_sample(architecture.probabilities().detach().numpy(), rng) for _ in range(200)]
    wanted = torch.tensor(architecture.most_probable().choices)
    same = (torch.tensor([path.choices for path in drawn]) == wanted).double().mean(0)
    free = architecture.allowed.sum(1) > 1
    assert 0.85 < same[free].mean() < 0.95
    for path in drawn:
        assert architecture.allowed.gather(1, torch.tensor(path.choices)[:, None]).all()
