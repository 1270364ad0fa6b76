"""hmseg search."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy import host
from deploy.cli import completion, options, places, training_options
from deploy.cli.advice import advice
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.groups import grouped
from deploy.resolution import parse_resolution
from lut.errors import UserError
from lut.table import Retime

if TYPE_CHECKING:
    from hmseg.genotype import Genotype
    from hmseg.search.config import SearchConfig
    from hmseg.search.evolution import EvolutionConfig
    from hmseg.search.job import Measure, Watcher
    from hmseg.search.run import Found, SearchOptions
    from hmseg.train.config import TrainConfig
    from hmseg.train.distill import DistillationLoss
    from lut.table import Table

DEFAULT_STAGES = ("180x240:8:3600",)


@dataclass(frozen=True)
class SpaceOptions:
    """What is searched, on which frames, how, and from where."""

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="tiny-mrms or mrms: the width to search at.",
            callback=options.refusing(options.check_network),
            autocompletion=completion.networks,
        ),
    ] = options.HAND_MADE_MODEL
    space: Annotated[str, typer.Option(help="What is searched; the rest is MRMS's.")] = (
        "operators,depth,resolution"
    )
    dataset: training_options.Dataset = "camvid"
    stage: Annotated[list[str] | None, typer.Option(help="HxW:BATCH:STEPS; may be repeated.")] = (
        None
    )
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which only the weights learn.")
    ] = 0.3
    seed: Annotated[int, typer.Option(help="Of weights, halves, order and samples.")] = 0
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Begin with the model's released weights.")
    ] = False
    init: Annotated[
        str | None,
        typer.Option(help="lite0: begin with what fits of EfficientNet-Lite0's ImageNet weights."),
    ] = None
    share_weights: Annotated[
        bool,
        typer.Option("--share-weights", help="A layer's operators are parts of its largest."),
    ] = False
    prior: Annotated[
        float, typer.Option(help="Probability at which the model's own choices begin; 0: alike.")
    ] = 0.0
    estimator: Annotated[
        str, typer.Option(help="straight-through (Eq. 2) or score (REINFORCE).")
    ] = "straight-through"
    samples: Annotated[int, typer.Option(help="Paths of an architecture step.")] = 1
    arch_lr: Annotated[float, typer.Option(help="Of Adam, for the architecture.")] = 0.01
    cost_weight: Annotated[float, typer.Option(help="Of L_cost (Eq. 4).")] = 1.0


@dataclass(frozen=True)
class LearningOptions:
    """How the weights are learned."""

    lr: Annotated[float, typer.Option(help="For the weights; falls by the poly rule.")] = 0.01
    optimizer: Annotated[str, typer.Option(help="Of the weights: sgd or adamw.")] = "sgd"
    backbone_rate: training_options.BackboneRate = 1.0
    scale: training_options.Scale = "0.5,2"
    class_balance: training_options.ClassBalance = 0.0
    precision: training_options.Precision = "float32"
    channels_last: training_options.ChannelsLast = True
    teacher: training_options.Teacher = None
    soft_weight: training_options.SoftWeight = 1.0
    temperature: training_options.Temperature = 1.0
    feature_weight: training_options.FeatureWeight = 0.0

    @property
    def distillation(self) -> "DistillationLoss":
        """The loss against the teacher, for the library."""
        from hmseg.train.distill import DistillationLoss

        return DistillationLoss(self.soft_weight, self.temperature, self.feature_weight)

    def read(self, space: SpaceOptions) -> "TrainConfig":
        """The same for the library, on the frames that are searched on."""
        from hmseg.train.config import Stage, TrainConfig, read_optimizer, read_precision

        return TrainConfig(
            space.model, space.dataset, tuple(map(Stage.parse, space.stage or DEFAULT_STAGES)),
            seed=space.seed, learning_rate=self.lr, optimizer=read_optimizer(self.optimizer),
            backbone_rate=self.backbone_rate,
            scale=training_options.read_scale(self.scale), class_balance=self.class_balance,
            precision=read_precision(self.precision), channels_last=self.channels_last,
        )  # fmt: skip


@dataclass(frozen=True)
class RefineOptions:
    """What follows the search."""

    refine: Annotated[
        str | None,
        typer.Option(help="evolution: then one over networks within the budget."),
    ] = None
    population: Annotated[int, typer.Option(help="New networks of each generation.")] = 16
    generations: Annotated[int, typer.Option(help="Of the evolution.")] = 8
    mutation: Annotated[float, typer.Option(help="Probability that a choice is drawn anew.")] = 0.1
    frames: Annotated[int, typer.Option(help="Validation frames for a network's mIoU.")] = 128
    batches: Annotated[int, typer.Option(help="After which batch norm has counted anew.")] = 16
    leaders: Annotated[int, typer.Option(help="Networks that are timed at a time.")] = 3
    measure_every: Annotated[
        int, typer.Option(help="Generations between timings of the leaders; 0: never.")
    ] = 2

    def read(self) -> "EvolutionConfig | None":
        """The same for the library."""
        from hmseg.search.evolution import EvolutionConfig

        config = EvolutionConfig(**{k: v for k, v in vars(self).items() if k != "refine"})
        if self.refine is None and config != EvolutionConfig():
            raise UserError("the evolution's options need --refine evolution")
        if self.refine not in (None, "evolution"):
            raise UserError(f"--refine {self.refine}: there is evolution")
        return None if self.refine is None else config


@dataclass(frozen=True)
class WritingOptions:
    """How often what is written."""

    log_every: training_options.LogEvery = 20
    checkpoint_every: training_options.CheckpointEvery = 100

    def read(self) -> "SearchOptions":
        """The same for the library."""
        from hmseg.search.run import SearchOptions

        return SearchOptions(**vars(self))


@grouped
def search(
    *,
    data: training_options.Data,
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="The search's folder.")],
    budget: Annotated[
        str, typer.Option(help="Of a network's upper bound: 12ms (with --cost), 3.0GMACs or 0.7M.")
    ],
    cost: Annotated[
        Path | None, typer.Option(help="A latency table (hmseg-deploy lut build).")
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            "-r",
            help="HEIGHTxWIDTH at which the budget counts; the table's, else 256x512.",
            callback=options.refusing(parse_resolution),
            autocompletion=completion.resolutions,
        ),
    ] = None,
    space: SpaceOptions,
    learning: LearningOptions,
    compute: training_options.ComputeOptions,
    refinement: RefineOptions,
    writing: WritingOptions,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search in --output.")
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Compile and time the network found, beside its estimate.")
    ] = True,
    place: places.TablePlaceOptions,
    as_json: options.Json = False,
) -> None:
    """Search for the network that is best within a budget.

    Under torchrun, over all processes.
    """
    from hmseg.search.budget import parse_budget, show_cost

    limit, size = parse_budget(budget), options.read_resolution(resolution)
    from deploy.cli.train_progress import SearchBar
    from hmseg.search.config import read_estimator
    from hmseg.search.job import SearchJob
    from hmseg.search.job import search as search_it
    from hmseg.search.space import parse_dimensions

    job = SearchJob(
        recipe=learning.read(space), data=data, folder=out, budget=limit, table=cost,
        resolution=size, dimensions=parse_dimensions(space.space), warmup=space.warmup,
        estimator=read_estimator(space.estimator), samples=space.samples,
        arch_learning_rate=space.arch_lr, cost_weight=space.cost_weight,
        pretrained=space.pretrained, init=space.init, teacher=learning.teacher,
        distillation=learning.distillation, shared=space.share_weights, prior=space.prior,
        refine=refinement.read(),
        compute=compute.read(), options=writing.read(), resume=resume,
    )  # fmt: skip

    def watch(config: "SearchConfig") -> "Watcher":
        return SearchBar(config, lambda value: show_cost(value, limit.unit))

    def measuring(table: "Table") -> "Measure | None":
        if not resume:  # another table would be another search
            _say_age(table)
        return _measuring(table, place) if measure else None

    found = search_it(job, watch=watch, measuring=measuring)
    if found is None:
        return
    if measure and not found.measured:
        say("not measured: a budget of time, with --cost, is")
    _report(found, as_json=as_json)


def _say_age(table: "Table") -> None:
    """Ask for a calibration where the table is of another day or host. No refusal: a search may run
    on another machine than the table's (docs/decisions/0060)."""
    now = datetime.now(UTC).isoformat()
    if age := table.age(now, host.running_machine()):
        say(
            f"warning: {table.name} {age}; its estimates may be off by now. On its machine: "
            f"{advice(Retime(table.name))}"
        )


def _measuring(table: "Table", place: places.TablePlaceOptions) -> "Measure":
    """What measures networks found: the machine that the table is of, or devices like it.

    Raises UserError where it is another: before hours of work, not after them.
    """
    from deploy.object_cache import default_cache
    from deploy.tables.check import check_networks, require_measurable

    cache = default_cache()
    target, devices = place.open(table.identity)
    try:
        require_measurable(table, target, devices)
    except UserError as error:
        raise UserError(f"{error}; or search with --no-measure") from error

    def measure(genotypes: Sequence["Genotype"]) -> list[dict[str, Any]]:
        with step(f"compiling and timing {len(genotypes)} of the networks found") as progress:
            result = check_networks(
                table, target, devices, genotypes, on_progress=progress.tell, cache=cache
            )
            progress.result = ", ".join(f"{row.measured_us / 1e3:.3f} ms" for row in result.rows)
        return [
            asdict(row) | {"measured_us": row.measured_us, "error": row.error}
            for row in result.rows
        ]

    return measure


def _report(found: "Found", *, as_json: bool) -> None:
    from hmseg.search.budget import show_cost

    estimate, measured = found.estimate, found.measured
    if as_json:
        print_json(
            {
                "genotype": str(found.path.genotype), "file": str(found.file),
                "estimate": asdict(estimate) | {"upper": estimate.upper},
                "is_most_probable": found.most_probable, "is_the_model": found.is_the_model,
                "measured": measured, "refinement": found.refinement,
            }
        )  # fmt: skip
        return
    if found.refinement:
        refined = found.refinement
        say(f"the best of {refined['evaluated']} networks by inherited weights: validation mIoU "
            f"{100 * refined['miou']:.2f}%")  # fmt: skip
    elif not found.most_probable:
        say("the most probable candidates together exceed the budget: this is the most probable "
            "network within it")  # fmt: skip
    say(f"{found.file}: {found.path.genotype}")
    if found.is_the_model:
        say("that is the network of --model itself: within this budget the search found no better")
    value, upper = (show_cost(v, estimate.unit) for v in (estimate.value, estimate.upper))
    rows = [("estimate", value), ("upper bound", upper)]
    if measured:
        time, error = show_cost(measured["measured_us"], "us"), f"{measured['error']:+.1%}"
        rows += [("measured", time), ("error", error)]
    print_table("", ("network found", ""), rows)
