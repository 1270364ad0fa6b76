"""A search from what is asked for: what it is a search within, what watches and measures it."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hmseg.cost import SpaceCost
from hmseg.data.classes import CAMVID
from hmseg.genotype import Genotype, random_genotype
from hmseg.network_file import read_network, read_search
from hmseg.operators import Space
from hmseg.search.budget import parse_budget
from hmseg.search.config import SearchConfig
from hmseg.search.evolution import CandidateReport, EvolutionConfig
from hmseg.search.job import SearchJob, search
from hmseg.search.loop import SearchReport
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.compute import Compute
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.distill import DistillationLoss
from hmseg.zoo import create_model
from lut.errors import UserError
from lut.estimate import LatencyCost
from lut.files import file_digest
from lut.table import Table
from lut.table_file import load_table, save_table
from tests.hmseg.data.folders import make_camvid
from tests.lut.tables import IDENTITY, table, visit

RECIPE = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 4),), learning_rate=1e-4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete table of networks at 64x64 in which every entry takes 5 to 6 us."""
    space, rng = Space((64, 64), 0.5), random.Random(9)
    calibration = [
        visit(str(g), {key: 5.5 for key in set(space.keys(g))}, role="calibration",
              whole=5.5 * len(space.keys(g)) + rng.random())
        for g in (random_genotype(rng) for _ in range(6))
    ]  # fmt: skip
    entries = {key: 5 + rng.random() for key in space.all_keys()}
    path = tmp_path_factory.mktemp("tables") / "made-up.jsonl"
    identity = replace(IDENTITY, resolution="64x64")
    save_table(table(visit("e", entries), *calibration, identity=identity), path)
    return path


@pytest.fixture
def job(data: Path, tmp_path: Path) -> SearchJob:
    return SearchJob(
        recipe=RECIPE, data=data, folder=tmp_path / "found", budget=parse_budget("0.3GMACs"),
        warmup=0.3, compute=Compute(loader_threads=1),
    )  # fmt: skip


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self, config: SearchConfig, fail_at: int = 0) -> None:
        self.config, self._fail_at = config, fail_at
        self.steps: list[int] = []
        self.candidates: list[CandidateReport] = []
        self.closed = 0

    def step(self, report: SearchReport) -> None:
        self.steps.append(report.step)
        if report.step == self._fail_at:
            raise InterruptedError

    def candidate(self, report: CandidateReport) -> None:
        self.candidates.append(report)

    def close(self) -> None:
        self.closed += 1


def test_a_count_is_taken_at_its_own_size(job: SearchJob):
    config = job.config(job.objective(None), None)
    assert (config.budget, config.cost) == ("0.3GMACs", "MACs")
    assert (config.resolution, config.cost_classes) == ((256, 512), 19)
    assert config.warmup_steps == 1  # of 4, 0.3 of them
    small = replace(job, resolution=(128, 256))
    assert small.config(small.objective(None), None).resolution == (128, 256)


def test_a_time_is_that_of_its_table(job: SearchJob, made_up: Path):
    timed = replace(job, budget=parse_budget("0.2ms"), table=made_up)
    config = timed.config(timed.objective(load_table(made_up)), None)
    assert (config.cost, config.resolution) == (file_digest(made_up), (64, 64))
    other = replace(timed, resolution=(64, 128))
    with pytest.raises(UserError, match="is for other networks than these"):
        other.objective(load_table(made_up))
    with pytest.raises(UserError, match="which needs a latency table"):
        timed.objective(None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": 1.0}, "warmup 1: the share must be at least 0 and below 1"),
        ({"warmup": float("nan")}, "warmup nan: the share"),
        ({"recipe": replace(RECIPE, model="mrms-a")}, "at the width of tiny-mrms or of mrms"),
        ({"init": "resnet"}, "unknown initialisation 'resnet': there is lite0"),
        ({"init": "lite0", "pretrained": True}, "both give the first weights; leave one out"),
        ({"distillation": DistillationLoss(soft=2.0)}, "of a teacher: name one, or leave them"),
    ],
)
def test_what_cannot_be_is_refused(job: SearchJob, change: dict, message: str):
    with pytest.raises(UserError, match=message):
        replace(job, **change)


@pytest.mark.usefixtures("undrawn")
def test_a_search_is_watched_to_its_end_and_resumed(job: SearchJob):
    watchers: list[Seen] = []

    def watch(config: SearchConfig) -> Seen:
        watchers.append(Seen(config))
        return watchers[-1]

    found = search(job, watch=watch, measuring=lambda _table: pytest.fail("of MACs"))
    assert found is not None
    assert found.measured is None
    assert [(seen.steps, seen.closed) for seen in watchers] == [([1, 2, 3, 4], 1)]
    assert watchers[0].config == SearchConfig.from_json(
        json.dumps(read_search(found.file)["config"])
    )
    assert read_search(found.file)["cost"] == {}
    again = search(replace(job, resume=True))
    assert again == found


def test_what_watches_is_closed_when_a_search_fails(job: SearchJob):
    seen = Seen(SearchConfig(RECIPE, "", "", (1, 1), 1), fail_at=2)
    with pytest.raises(InterruptedError):
        search(job, watch=lambda _config: seen)
    assert (seen.steps, seen.closed) == ([1, 2], 1)


@pytest.mark.usefixtures("undrawn")
def test_a_network_within_a_time_is_measured(job: SearchJob, made_up: Path):
    order: list[str] = []
    record = {"measured_us": 150.0, "error": 0.1}

    def measuring(opened: Table):
        assert opened.identity.resolution == "64x64"
        order.append("opened")

        def measure(genotypes: Sequence[Genotype]):
            order.extend(map(str, genotypes))
            return [record for _ in genotypes]

        return measure

    timed = replace(job, budget=parse_budget("0.2ms"), table=made_up)
    found = search(timed, measuring=measuring, watch=lambda c: order.append("searched") or Seen(c))
    assert found is not None
    assert order == ["opened", "searched", str(found.path.genotype)]
    assert found.measured == record
    written = read_search(found.file)
    assert written["measured"].pop("date")
    assert written["measured"] == record
    assert written["cost"]["table"] == "made-up.jsonl"
    assert written["cost"]["sha256"] == file_digest(made_up)
    assert written["cost"]["identity"]["resolution"] == "64x64"


@pytest.mark.usefixtures("undrawn")
def test_a_search_is_refined_with_its_leaders_timed(job: SearchJob, made_up: Path):
    """Every network takes 15% longer than its estimate says; the budget holds for what it takes. A
    second run has nothing left to do, and finds the same."""
    cost = SpaceCost(LatencyCost(load_table(made_up)), Space((64, 64), 0.5))
    timed: list[Genotype] = []

    def measuring(_table: Table):
        def measure(genotypes: Sequence[Genotype]):
            timed.extend(genotypes)
            return [{"measured_us": 1.15 * cost.of(genotype).value} for genotype in genotypes]

        return measure

    refine = EvolutionConfig(population=3, generations=2, frames=2, batches=2, measure_every=1)
    job = replace(job, budget=parse_budget("0.2ms"), table=made_up, refine=refine)
    seen: list[Seen] = []
    found = search(job, measuring=measuring, watch=lambda c: seen.append(Seen(c)) or seen[-1])
    assert found is not None
    assert found.refinement is not None
    assert found.measured is not None
    assert found.measured["measured_us"] <= 200
    assert found.refinement["measured_us"][str(found.path.genotype)] <= 200
    assert found.estimate.value > cost.of(found.path.genotype).value  # corrected
    *_, last = seen[0].candidates
    assert last.best == found.refinement["miou"]
    assert last.done == found.refinement["evaluated"] == len(seen[0].candidates)
    assert read_search(found.file)["refinement"]["config"]["population"] == 3
    assert read_network(found.file)[0] == found.path.genotype
    once = len(timed)
    again = search(replace(job, resume=True), measuring=measuring)
    assert again is not None
    assert (again.path, again.refinement) == (found.path, found.refinement)
    assert len(timed) == once + 1  # the one at the end
    other = replace(job, resume=True, refine=replace(refine, generations=3))
    with pytest.raises(UserError, match=r"evolution\.jsonl: an evolution of another config"):
        search(other, measuring=measuring)


def test_a_machine_that_cannot_measure_is_refused_before_the_search(job: SearchJob, made_up: Path):
    def measuring(opened: Table):
        raise UserError("another machine")

    timed = replace(job, budget=parse_budget("0.2ms"), table=made_up)
    with pytest.raises(UserError, match="another machine"):
        search(timed, measuring=measuring)
    assert not job.folder.exists()


def test_candidates_are_not_ranked_by_frames_that_the_teacher_knows(job: SearchJob, tmp_path: Path):
    network = create_model("tiny-mrms", num_classes=11).state_dict()
    config = replace(RECIPE, with_validation=True)
    path = tmp_path / "teacher.safetensors"
    Checkpoint(config, 1, CAMVID.names, network, {}, {}).save(path)
    taught = replace(job, teacher=path, refine=EvolutionConfig(population=2, generations=1))
    with pytest.raises(UserError, match="search without refinement"):
        search(taught)
