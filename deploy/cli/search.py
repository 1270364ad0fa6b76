"""hmseg search."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import options, training_options
from deploy.cli.console import print_json, print_table, say, step
from deploy.resolution import DEFAULT_RESOLUTION, Resolution, parse_resolution
from lut.errors import UserError
from lut.files import file_digest

if TYPE_CHECKING:
    from deploy.devices.network import Remote
    from deploy.tables.check import Row
    from hmseg.search.run import Found
    from lut.table import Table


def search(
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
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="tiny-mrms or mrms: the width to search at.")
    ] = options.HAND_MADE_MODEL,
    space: Annotated[
        str, typer.Option(help="What is searched; the rest is MRMS's.")
    ] = "operators,depth,resolution",
    dataset: training_options.Dataset = "camvid",
    stage: Annotated[
        list[str] | None, typer.Option(help="HxW:BATCH:STEPS; may be repeated.")
    ] = None,
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which only the weights learn.")
    ] = 0.3,
    seed: Annotated[int, typer.Option(help="Of weights, halves, order and samples.")] = 0,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Begin with the model's released weights.")
    ] = False,
    share_weights: Annotated[
        bool,
        typer.Option("--share-weights", help="A layer's operators are parts of its largest."),
    ] = False,
    prior: Annotated[
        float, typer.Option(help="Probability at which the model's own choices begin; 0: alike.")
    ] = 0.0,
    estimator: Annotated[
        str, typer.Option(help="straight-through (Eq. 2) or score (REINFORCE).")
    ] = "straight-through",
    samples: Annotated[int, typer.Option(help="Paths of an architecture step.")] = 1,
    arch_lr: Annotated[float, typer.Option(help="Of Adam, for the architecture.")] = 0.01,
    cost_weight: Annotated[float, typer.Option(help="Of L_cost (Eq. 4).")] = 1.0,
    lr: Annotated[float, typer.Option(help="For the weights; falls by the poly rule.")] = 0.01,
    optimizer: Annotated[str, typer.Option(help="Of the weights: sgd or adamw.")] = "sgd",
    scale: training_options.Scale = "0.5,2",
    class_balance: training_options.ClassBalance = 0.0,
    precision: training_options.Precision = "float32",
    channels_last: training_options.ChannelsLast = True,
    device: training_options.Device = "cpu",
    threads: training_options.Threads = None,
    loader_threads: training_options.LoaderThreads = 2,
    log_every: training_options.LogEvery = 20,
    checkpoint_every: training_options.CheckpointEvery = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search in --output.")
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Compile and time the network found, beside its estimate.")
    ] = True,
    rpc_tracker: options.Tracker = None,
    rpc_key: options.Key = None,
    rpc_limit: options.CallLimit = options.CALL_LIMIT_S,
    as_json: options.Json = False,
) -> None:
    """Search for the network that is best within a budget; under torchrun, over all processes."""
    training_options.check_counts(locals(), ("loader_threads", "log_every", "checkpoint_every"))
    from hmseg.network_file import add_measurement
    from hmseg.search.budget import open_cost, parse_budget, show_cost

    if not 0 <= warmup < 1:
        raise UserError(f"--warmup {warmup:g}: the share must be at least 0 and below 1")
    limit = parse_budget(budget)
    table = _open_table(cost)
    size = options.read_resolution(resolution) or _table_size(table)
    import torch

    from deploy.cli.train_progress import SearchProgress
    from hmseg.data.dataset import open_source
    from hmseg.data.registry import open_dataset
    from hmseg.pretrained import load_released
    from hmseg.search.config import SearchConfig, read_estimator
    from hmseg.search.loop import Searcher
    from hmseg.search.objective import Objective
    from hmseg.search.run import SearchOptions, SearchRun
    from hmseg.search.space import parse_dimensions
    from hmseg.train.config import Stage, TrainConfig, read_optimizer, read_precision
    from hmseg.train.distributed import join_world, leave_world, wait_for_all
    from hmseg.zoo import network_config

    if model not in ("tiny-mrms", "mrms"):
        raise UserError(f"--model {model}: a search is at the width of tiny-mrms or of mrms")
    width = network_config(model).width
    classes = table.identity.num_classes if table else 19
    whole = open_cost(limit, table, size, width, classes)
    measuring = None
    if measure and table and limit.unit == "us":
        named = options.read_table_place(table.identity, rpc_tracker, rpc_key, rpc_limit)
        measuring = _Measuring(table, named)
    split = open_dataset(dataset, data, "train")
    released = load_released(model, dataset) if pretrained else None
    recipe = TrainConfig(
        model=model, data=dataset, stages=tuple(map(Stage.parse, stage or ["180x240:8:3600"])),
        seed=seed, learning_rate=lr, optimizer=read_optimizer(optimizer),
        scale=training_options.read_scale(scale), class_balance=class_balance,
        precision=read_precision(precision), channels_last=channels_last,
    )  # fmt: skip
    config = SearchConfig(
        recipe, str(limit), file_digest(cost) if limit.unit == "us" and cost else limit.unit,
        (size.height, size.width), classes, parse_dimensions(space), round(warmup * recipe.steps),
        read_estimator(estimator), samples, arch_lr, cost_weight=cost_weight,
        pretrained=released.card["sha256"] if released else "", shared=share_weights, prior=prior,
    )  # fmt: skip
    if threads is not None:
        torch.set_num_threads(threads)
    place = training_options.open_device(device)
    world = join_world(place)
    progress = None
    if world.is_main:
        progress = SearchProgress(
            recipe.pixels_after, config.steps, lambda value: show_cost(value, limit.unit)
        )
    try:
        searcher = Searcher(
            config, Objective(whole, limit), open_source(split), split.classes.names,
            world=world, device=place, loader_threads=loader_threads, released=released,
        )  # fmt: skip
        run = SearchRun(
            out, searcher, _provenance(cost, table) if limit.unit == "us" else {},
            SearchOptions(log_every, checkpoint_every), world,
            progress.search_step if progress else lambda _report: None,
        )  # fmt: skip
        found = run.start(resume=resume)
        wait_for_all()
    finally:
        if progress:
            progress.close()
        leave_world()
    if not world.is_main:
        return
    if measuring is None and measure:
        say("not measured: a budget of time, with --cost, is")
    row = measuring(found) if measuring else None
    if row:
        add_measurement(found.file, _measured(row) | {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    _report(found, row, as_json=as_json)


def _open_table(path: Path | None) -> "Table | None":
    from lut.table import load_table

    return load_table(path) if path else None


def _table_size(table: "Table | None") -> Resolution:
    return parse_resolution(table.identity.resolution) if table else DEFAULT_RESOLUTION


def _provenance(path: Path | None, table: "Table | None") -> dict[str, Any]:
    """What the cost is, for the genotype's file."""
    if path is None or table is None:
        return {}
    from dataclasses import asdict

    return {
        "table": path.name,
        "sha256": file_digest(path),
        "identity": asdict(table.identity),
        "measured": [provenance.to_json() for provenance, _ in table.runs],
    }


class _Measuring:
    """What measures the network found: the machine that the table is of, or devices like it.

    Raises UserError where it is another: before hours of work, not after them.
    """

    def __init__(self, table: "Table", place: "tuple[int, Remote | None]") -> None:
        from deploy.tables.check import require_measurable

        identity = table.identity
        named = identity.target if identity.target_name == "json" else identity.target_name
        self.table = table
        self.target = options.resolve_measured_target(named, identity.precision)
        self.devices = options.open_devices(*place, self.target)
        try:
            require_measurable(table, self.target, self.devices)
        except UserError as error:
            raise UserError(f"{error}; or search with --no-measure") from error

    def __call__(self, found: "Found") -> "Row":
        from deploy.tables.check import check_networks

        with step("compiling and timing the network found") as progress:
            networks = [found.path.genotype]
            result = check_networks(
                self.table, self.target, self.devices, networks, on_progress=progress.tell
            )
            progress.result = f"{result.rows[0].measured_us / 1e3:.3f} ms"
        return result.rows[0]


def _measured(row: "Row") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row) | {"measured_us": row.measured_us, "error": row.error}


def _report(found: "Found", row: "Row | None", *, as_json: bool) -> None:
    from dataclasses import asdict

    from hmseg.search.budget import show_cost

    estimate = found.estimate
    if as_json:
        measured = _measured(row) if row else None
        print_json(
            {
                "genotype": str(found.path.genotype), "file": str(found.file),
                "estimate": asdict(estimate) | {"upper": estimate.upper},
                "is_most_probable": found.most_probable, "is_the_model": found.is_the_model,
                "measured": measured,
            }
        )  # fmt: skip
        return
    if not found.most_probable:
        say("the most probable candidates together exceed the budget: this is the most probable "
            "network within it")  # fmt: skip
    say(f"{found.file}: {found.path.genotype}")
    if found.is_the_model:
        say("that is the network of --model itself: within this budget the search found no better")
    value, upper = (show_cost(v, estimate.unit) for v in (estimate.value, estimate.upper))
    rows = [("estimate", value), ("upper bound", upper)]
    if row:
        rows += [("measured", show_cost(row.measured_us, "us")), ("error", f"{row.error:+.1%}")]
    print_table("", ("network found", ""), rows)
