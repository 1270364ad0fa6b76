"""A search from what is asked for to the network found: searched, written, measured."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hmseg.data.dataset import open_source
from hmseg.data.fingerprint import fingerprint
from hmseg.data.registry import open_dataset
from hmseg.genotype import Genotype
from hmseg.lite0 import weights_name
from hmseg.network_file import add_measurement
from hmseg.operators import Size
from hmseg.pretrained import Released, load_released
from hmseg.search.budget import Budget, open_cost
from hmseg.search.config import Estimator, SearchConfig
from hmseg.search.evolution import CandidateReport, EvolutionConfig
from hmseg.search.loop import Searcher, SearchReport
from hmseg.search.objective import Objective
from hmseg.search.run import Found, Refinement, SearchOptions, SearchRun
from hmseg.search.space import DIMENSIONS
from hmseg.train.checkpoint import knows_validation
from hmseg.train.compute import Compute, joined
from hmseg.train.config import TrainConfig
from hmseg.train.distill import DistillationLoss
from hmseg.train.distributed import wait_for_all
from hmseg.train.job import LITE0
from hmseg.train.teacher import Teacher
from hmseg.zoo import network_config
from lut.errors import UserError
from lut.jsonl import content_digest
from lut.table import Table
from lut.table_file import load_table

MODELS = ("tiny-mrms", "mrms")  # one of each width
DEFAULT_SIZE = 256, 512  # at which a cost that needs no table counts
DEFAULT_CLASSES = 19

Measure = Callable[[Sequence[Genotype]], list[dict[str, Any]]]
"""Compiles and times networks: for each what the genotype's file keeps, with its `measured_us` at
the speed that the table's estimates are for."""


class Watcher(Protocol):
    """What is shown while a search goes on."""

    def step(self, report: SearchReport) -> None:
        """Called after every step."""

    def candidate(self, report: CandidateReport) -> None:
        """Called after every network that a refinement evaluates."""

    def close(self) -> None:
        """Called once, at the end."""


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """What is asked for. `recipe` trains the weights; its model, tiny-mrms or mrms, gives the width
    and what is not searched, and its data set's root is `data`. `table` is the latency table that a
    budget of time needs; the cost counts at `resolution` (H, W), by default the table's."""

    recipe: TrainConfig
    data: Path
    folder: Path
    budget: Budget
    table: Path | None = None
    resolution: Size | None = None
    dimensions: tuple[str, ...] = DIMENSIONS
    warmup: float = 0.3  # share of the steps in which only the weights learn
    estimator: Estimator = "straight-through"
    samples: int = 1
    arch_learning_rate: float = 0.01
    cost_weight: float = 1.0
    pretrained: bool = False  # begin with the model's released weights
    init: str | None = None  # or with Lite0's
    teacher: Path | None = None  # a checkpoint whose network the supernet also learns from
    distillation: DistillationLoss = field(default_factory=DistillationLoss)
    shared: bool = False
    prior: float = 0.0
    refine: EvolutionConfig | None = None  # an evolution after the search
    compute: Compute = field(default_factory=Compute)
    options: SearchOptions = field(default_factory=SearchOptions)
    resume: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup {self.warmup:g}: the share must be at least 0 and below 1")
        if self.recipe.model not in MODELS:
            raise UserError(
                f"model {self.recipe.model}: a search is at the width of {' or of '.join(MODELS)}"
            )

        if self.init not in (None, LITE0):
            raise UserError(f"unknown initialisation {self.init!r}: there is {LITE0}")
        if self.init and self.pretrained:
            raise UserError(
                "an initialisation and pretrained weights both give the first weights; leave one "
                "out"
            )
        if self.teacher is None and self.distillation != DistillationLoss():
            raise UserError("weights and temperature of a teacher: name one, or leave them out")

    @property
    def of_time(self) -> bool:
        """Whether the budget is one of time, which a table gives."""
        return self.budget.unit == "us"

    def objective(self, table: Table | None) -> Objective:
        """The cost and its budget; raises as `open_cost`."""
        size = self.resolution or (table.identity.size if table else DEFAULT_SIZE)
        classes = table.identity.num_classes if table else DEFAULT_CLASSES
        width = network_config(self.recipe.model).width
        return Objective(open_cost(self.budget, table, size, width, classes), self.budget)

    def config(
        self, objective: Objective, released: Released | None, teacher: Teacher | None = None
    ) -> SearchConfig:
        """The search as its folder keeps it."""
        space, recipe, loss = objective.cost.space, self.recipe, self.distillation
        if teacher is not None:
            recipe = replace(
                recipe, teacher=teacher.name, soft_weight=loss.soft, temperature=loss.temperature,
                feature_weight=loss.features,
            )  # fmt: skip
        return SearchConfig(
            recipe, str(self.budget),
            content_digest(self.table) if self.of_time and self.table else self.budget.unit,
            (space.resolution[0], space.resolution[1]), space.num_classes, self.dimensions,
            round(self.warmup * self.recipe.steps), self.estimator, self.samples,
            self.arch_learning_rate, cost_weight=self.cost_weight,
            pretrained=released.card["sha256"] if released else "", shared=self.shared,
            prior=self.prior, init=weights_name() if self.init else "",
        )  # fmt: skip


def search(
    job: SearchJob,
    *,
    watch: Callable[[SearchConfig], Watcher] | None = None,
    measuring: Callable[[Table], Measure | None] | None = None,
) -> Found | None:
    """Search to the end: what was found in the process that writes the files, None in others.

    `watch` makes what is shown meanwhile, in that process alone. `measuring` opens what measures
    networks of a table, before the search, or None: a budget of time then has its network measured
    at the end, and the file says at what. Raises UserError for what is missing or does not fit, and
    what `SearchRun.start` and `measuring` raise.
    """
    table = load_table(job.table) if job.table else None
    objective = job.objective(table)
    measure = measuring(table) if measuring and table and job.of_time else None
    split = open_dataset(job.recipe.data, job.data, "train")
    released = load_released(job.recipe.model, job.recipe.data) if job.pretrained else None
    names = split.classes.names
    teacher = None if job.teacher is None else Teacher.load(job.teacher, names)
    config = job.config(objective, released, teacher)
    with joined(job.compute) as (world, device):
        watcher = watch(config) if watch and world.is_main else None
        try:
            searcher = Searcher(
                config, objective, open_source(split), names, world=world,
                device=device, loader_threads=job.compute.loader_threads, released=released,
                teacher=teacher,
            )  # fmt: skip
            searcher.frames = {split.split: fingerprint(split)}
            run = SearchRun(job.folder, searcher, _provenance(job, table), job.options, world)
            if job.refine:
                known = [*(released.card["runs"] if released else ())]
                known += [teacher.about] if teacher else []
                if knows_validation(known):
                    raise UserError(
                        "the first weights or the teacher have learned from the validation split, "
                        "by which candidates would be ranked: search without refinement"
                    )
                run.refinement = _refinement(job, job.refine, measure, watcher)
            if watcher:
                run.watch = watcher.step
            found = run.start(resume=job.resume)
            wait_for_all()
        finally:
            if watcher:
                watcher.close()
    if not world.is_main:
        return None
    if measure:
        found = replace(found, measured=measure([found.path.genotype])[0])
        date = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        add_measurement(found.file, (found.measured or {}) | date)
    return found


def _refinement(
    job: SearchJob, config: EvolutionConfig, measure: Measure | None, watcher: Watcher | None
) -> Refinement:
    """On the whole validation split, whose frames no other step has seen; leaders are timed by what
    measures the network found."""
    validation = open_dataset(job.recipe.data, job.data, "val")

    def times(genotypes: Sequence[Genotype]) -> list[float]:
        assert measure is not None
        return [float(row["measured_us"]) for row in measure(genotypes)]

    return Refinement(
        config, open_source(validation), fingerprint(validation), times if measure else None,
        *([watcher.candidate] if watcher else []),
    )  # fmt: skip


def _provenance(job: SearchJob, table: Table | None) -> dict[str, Any]:
    """What the cost is, for the genotype's file."""
    if job.table is None or table is None or not job.of_time:
        return {}
    return {
        "table": job.table.name,
        "sha256": content_digest(job.table),
        "identity": asdict(table.identity),
        "measured": [provenance.to_json() for provenance, _ in table.runs],
    }
