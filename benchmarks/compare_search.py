"""Does the search find better networks than hand and chance, under one budget?

    python -m benchmarks.compare_search compare --data CAMVID --cost TABLE --budget 1.7ms -o OUT
    python -m benchmarks.compare_search table6 --data CAMVID --cost TABLE --budget 1.7ms -o OUT
    python -m benchmarks.compare_search retrain --data CAMVID --cost TABLE --budget 1.7ms -o OUT
    python -m benchmarks.compare_search measure --cost TABLE -o OUT
    python -m benchmarks.compare_search report -o OUT

`compare`, seed by seed: a search of that seed, or with --searched GENOTYPE.json the network of one
that is finished; MRMS scaled to the budget; the best of 8 random networks within it. `table6`:
searches of O, O+R, D, D+R and O+D+R (operators, resolution, depth). Searches begin with released
weights and near MRMS, as tiny-hmseg's did; with --from-scratch, with neither. Every network is
trained from random weights at one short equal schedule; OUT/results.jsonl gets a line for each.
`retrain` trains what `table6` has found under every seed; it searches no more.
`measure` compiles all of them and times them in one run; `report` prints the table and draws
latency against mIoU. Started again, a command goes on where it stopped.
"""

import argparse
import json
import random
import re
import statistics
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.compare_training import train
from deploy.cli.console import run_main
from hmseg.data.dataset import open_source
from hmseg.data.registry import open_dataset
from hmseg.genotype import (
    GROUPS,
    MRMS_GENOTYPE,
    RATIO_TENTHS,
    Genotype,
    Op,
    parse_genotype,
    random_genotype,
)
from hmseg.network_file import read_network, read_search, to_line
from hmseg.pretrained import load_released
from hmseg.search.budget import open_cost, parse_budget
from hmseg.search.config import SearchConfig
from hmseg.search.loop import Searcher
from hmseg.search.objective import Objective
from hmseg.search.run import SearchRun
from hmseg.search.space import DIMENSIONS
from hmseg.train.config import Stage, TrainConfig, read_optimizer
from lut.errors import UserError
from lut.files import atomic_path
from lut.jsonl import append_record, content_digest, read_records
from lut.table_file import load_table

TABLE_6: dict[str, tuple[str, ...]] = {
    "O": ("operators",),
    "O+R": ("operators", "resolution"),
    "D": ("depth",),
    "D+R": ("depth", "resolution"),
    "O+D+R": DIMENSIONS,
}
MODELS = {0.5: "tiny-mrms", 1.0: "mrms"}


def scaled_mrms(objective: Objective) -> Genotype:
    """MRMS scaled by hand: among networks with one expansion, kernel 3, MRMS's depths all changed
    by the same number of layers (1 to 4 remain), and any two ratios, the dearest within the budget;
    MRMS itself where it is."""
    if objective.cost.of(MRMS_GENOTYPE).upper <= objective.budget.limit:
        candidates = [MRMS_GENOTYPE]
    else:
        candidates = []
    depths = [sum(op is not None for op in ops) for ops in MRMS_GENOTYPE.ops]
    for expansion, change, medium, low in product((3, 6), range(-3, 4), RATIO_TENTHS, RATIO_TENTHS):
        ops = tuple(
            tuple(
                Op(1 if group.name == "s1" else expansion, 3)
                if layer < min(group.layers, max(1, depth + change)) else None
                for layer in range(group.layers)
            )
            for group, depth in zip(GROUPS, depths, strict=True)
        )  # fmt: skip
        candidates.append(Genotype(ops, medium, low))
    within = [g for g in candidates if objective.cost.of(g).upper <= objective.budget.limit]
    if not within:
        raise UserError("no scaled MRMS lies within the budget; raise --budget")
    return max(within, key=lambda g: (objective.cost.of(g).upper, g == MRMS_GENOTYPE))


def random_within(
    objective: Objective, count: int, seed: int, floor: float, draws: int = 100_000
) -> list[Genotype]:
    """Networks drawn uniformly from those whose upper bound is between `floor` times the budget and
    the budget: cheaper ones would lose by their size alone. Raises UserError where so many `draws`
    do not find them."""
    rng, found = random.Random(seed), list[Genotype]()
    limit = objective.budget.limit
    for _ in range(draws):
        if len(found) == count:
            return found
        genotype = random_genotype(rng)
        if floor * limit <= objective.cost.of(genotype).upper <= limit:
            found.append(genotype)
    raise UserError(
        f"{len(found)} of {draws} random networks cost {floor:.0%} to 100% of the budget; "
        "lower --floor"
    )


class Comparison:
    """One folder of searches and trainings, and its results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.results = arguments.out / "results.jsonl"
        self.budget = parse_budget(arguments.budget)
        self.table = load_table(arguments.cost)
        self.digest = content_digest(arguments.cost)
        identity = self.table.identity
        height, width = map(int, identity.resolution.split("x"))
        self.size, self.width, self.classes = (height, width), identity.width, identity.num_classes
        cost = open_cost(self.budget, self.table, self.size, self.width, self.classes)
        self.objective = Objective(cost, self.budget)

    def found(self, seed: int) -> Genotype:
        """The network of --searched, or of a search with this seed."""
        file = self.arguments.searched
        if file is None:
            return self.search("O+D+R", DIMENSIONS, seed)
        genotype = read_network(file)[0]
        if self.objective.cost.of(genotype).upper > self.budget.limit:
            raise UserError(f"{file} is above the budget of {self.budget}; raise --budget")
        return genotype

    def search(self, name: str, dimensions: tuple[str, ...], seed: int) -> Genotype:
        """Run or finish a search; a finished one is read."""
        folder = self.arguments.out / f"search-{name}-seed{seed}"
        file = folder / "genotype.json"
        recipe = TrainConfig(
            MODELS[self.width], "camvid", (Stage.parse(self.arguments.search_stage),),
            seed=seed, learning_rate=self.arguments.search_lr,
            optimizer=read_optimizer(self.arguments.search_optimizer),
            class_balance=self.arguments.search_class_balance,
        )  # fmt: skip
        scratch = self.arguments.from_scratch
        released = None if scratch else load_released(MODELS[self.width], "camvid")
        config = SearchConfig(
            recipe, str(self.budget), self.digest, self.size, self.classes,
            dimensions, round(self.arguments.warmup * recipe.steps),
            self.arguments.estimator, self.arguments.samples, self.arguments.arch_lr,
            pretrained=released.card["sha256"] if released else "",
            prior=0.0 if scratch else self.arguments.prior,
        )  # fmt: skip
        if file.exists():
            if read_search(file)["config"] != json.loads(config.to_json()):
                raise UserError(f"{folder} holds a search with other settings; change --out")
            return read_network(file)[0]
        frames = open_dataset("camvid", self.arguments.data, "train")
        searcher = Searcher(
            config, self.objective, open_source(frames), frames.classes.names, released=released
        )
        run = SearchRun(folder, searcher, {"table": self.arguments.cost.name})
        run.start(resume=run.last.exists())
        return read_network(file)[0]

    def score(self, kind: str, name: str, genotype: Genotype, seed: int) -> float:
        """Validation mIoU in percent after the equal schedule; a known one is read."""
        key = {"kind": kind, "name": name, "seed": seed, "stage": self.arguments.stage,
               "learning_rate": self.arguments.lr, "genotype": str(genotype)}  # fmt: skip
        for record in read_records(self.results):
            if key.items() <= record.items():
                return float(record["miou_percent"])
        base = TrainConfig(to_line(genotype, self.width), "camvid",
                           (Stage.parse(self.arguments.stage),),
                           learning_rate=self.arguments.lr)  # fmt: skip
        folder = self.arguments.out / f"train-{kind}-{name}-seed{seed}"
        miou = train(replace(base, seed=seed), folder, self.arguments.data)
        estimate = self.objective.cost.of(genotype)
        append_record(
            self.results,
            key | {"miou_percent": miou, "estimate": estimate.value, "upper": estimate.upper,
                   "unit": estimate.unit, "budget": str(self.budget)},
        )  # fmt: skip
        print(f"{kind} {name}, seed {seed}: {miou:.2f}%", flush=True)
        return miou

    def compare(self) -> None:
        for seed in self.arguments.seeds:
            file = self.arguments.searched
            self.score("searched", file.stem if file else "searched", self.found(seed), seed)
            self.score("hand", "MRMS scaled", scaled_mrms(self.objective), seed)
            drawn = random_within(self.objective, self.arguments.random, seed, self.arguments.floor)
            for number, genotype in enumerate(drawn):
                self.score("random", str(number), genotype, seed)

    def table6(self) -> None:
        for seed in self.arguments.seeds:
            for name, dimensions in TABLE_6.items():
                self.score("table6", name, self.search(name, dimensions, seed), seed)

    def retrain(self) -> None:
        schedule = {"kind": "table6", "stage": self.arguments.stage,
                    "learning_rate": self.arguments.lr}  # fmt: skip
        found: dict[str, str] = {}
        for record in read_records(self.results):
            if not schedule.items() <= record.items():
                continue
            if found.setdefault(record["name"], record["genotype"]) != record["genotype"]:
                raise UserError(
                    f"{self.results} has several networks of {record['name']}; retrain is for "
                    "those of one search each (table6 --seeds 0)"
                )
        if not found:
            raise UserError(
                f"{self.results} has no network of Table 6 at this schedule; run table6"
            )
        for seed in self.arguments.seeds:
            for name, genotype in found.items():
                self.score("table6", name, parse_genotype(genotype), seed)


def measure(arguments: argparse.Namespace) -> None:
    """Compile and time every network of the results that has no latency yet, in one run."""
    from deploy.measure.local import LocalDevice
    from deploy.tables.check import check_networks
    from deploy.targets import resolve_target

    results, latencies = arguments.out / "results.jsonl", arguments.out / "latencies.jsonl"
    known = {record["genotype"] for record in read_records(latencies)}
    names = dict.fromkeys(record["genotype"] for record in read_records(results))
    table = load_table(arguments.cost)
    device = LocalDevice(table.identity.threads)

    def keep(row: Any) -> None:
        record = {"genotype": row.network, "estimate_us": row.estimate_us, "upper_us": row.upper_us,
                  "measured_us": row.measured_us, "occasions_us": row.occasions_us,
                  "table": arguments.cost.name, "cpu": device.info.cpu,
                  "date": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
        append_record(latencies, record)
        print(f"{row.measured_us:.0f} us ({row.error:+.1%}): {row.network}", flush=True)

    todo = [parse_genotype(name) for name in names if name not in known]
    if todo:
        check_networks(table, resolve_target("cpu"), device, todo, on_row=keep)


def report(folder: Path) -> None:
    """Print mean and spread of each kind, seed by seed, and draw the Pareto plot."""
    records = read_records(folder / "results.jsonl")
    measured = {r["genotype"]: r["measured_us"] for r in read_records(folder / "latencies.jsonl")}
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for record in records:
        label = "best of the random" if record["kind"] == "random" else record["name"]
        kept = rows.setdefault(label, {})
        best = kept.get(record["seed"])
        if best is None or record["miou_percent"] > best["miou_percent"]:
            kept[record["seed"]] = record
    print("| network | mIoU % (each seed) | mean | spread | estimate us | measured us |")
    print("|---|---|---|---|---|---|")
    for label, by_seed in rows.items():
        ordered = [by_seed[seed] for seed in sorted(by_seed)]
        values = [record["miou_percent"] for record in ordered]
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        estimates = " ".join(f"{record['estimate']:.0f}" for record in ordered)
        times = " ".join(
            f"{measured[r['genotype']]:.0f}" if r["genotype"] in measured else "-" for r in ordered
        )
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"| {label} | {each} | {statistics.mean(values):.2f} | {spread} | {estimates} "
              f"| {times} |")  # fmt: skip
    drawn: dict[int, list[float]] = {}
    for record in records:
        if record["kind"] == "random":
            drawn.setdefault(record["seed"], []).append(record["miou_percent"])
    if drawn:  # the best of several is better by chance alone
        each = " ".join(f"{statistics.mean(drawn[seed]):.2f}" for seed in sorted(drawn))
        print(f"\nmean of all random networks, each seed: {each}")
    if measured:
        draw_pareto([r | {"us": measured[r["genotype"]]} for r in records
                     if r["genotype"] in measured], folder / "pareto.png")  # fmt: skip


def plot_label(record: dict[str, Any]) -> str:
    """Whose point a record is: ``best-random-0`` and ``best-random-1`` are of one kind."""
    return re.sub(r"-\d+$", "", record["name"]) if record["kind"] == "searched" else record["kind"]


def draw_pareto(records: list[dict[str, Any]], path: Path) -> None:
    """Measured latency against validation mIoU, by kind; what --searched named, by its name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    kinds = [plot_label(record) for record in records]
    for index, kind in enumerate(dict.fromkeys(kinds)):
        mine = [record for record, own in zip(records, kinds, strict=True) if own == kind]
        axes.scatter(
            [r["us"] / 1e3 for r in mine], [r["miou_percent"] for r in mine],
            marker="osD^"[index % 4], label=kind, alpha=0.8,
        )  # fmt: skip
    axes.set_xlabel("measured latency in ms")
    axes.set_ylabel("validation mIoU in %")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("compare", "table6", "retrain", "measure", "report"))
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="CamVid's root")
    parser.add_argument("--cost", type=Path, help="the latency table")
    parser.add_argument("--budget", help="such as 1.7ms")
    parser.add_argument("--stage", default="180x240:16:1000", help="HxW:BATCH:STEPS of trainings")
    parser.add_argument("--lr", type=float, default=0.05, help="of trainings; suits short ones")
    parser.add_argument("--search-stage", default="180x240:8:3000", help="of searches")
    # The search's options, at the values with which tiny-hmseg was found.
    parser.add_argument("--search-lr", type=float, default=0.001, help="of a search's weights")
    parser.add_argument("--search-optimizer", default="adamw")
    parser.add_argument("--search-class-balance", type=float, default=1.15)
    parser.add_argument("--from-scratch", action="store_true", help="no weights, no prior")
    parser.add_argument("--prior", type=float, default=0.7, help="of MRMS's own choices")
    parser.add_argument("--warmup", type=float, default=0.3, help="share of a search's steps")
    parser.add_argument("--estimator", default="score")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--arch-lr", type=float, default=0.04)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--searched", type=Path, help="compare this network instead of searching")
    parser.add_argument("--random", type=int, default=8, help="random networks of each seed")
    parser.add_argument("--floor", type=float, default=0.9, help="least share of the budget")
    arguments = parser.parse_args()
    needed = {"measure": ("cost",), "report": ()}
    for name in needed.get(arguments.what, ("data", "cost", "budget")):
        if getattr(arguments, name) is None:
            parser.error(f"{arguments.what} needs --{name}")
    if arguments.what == "measure":
        measure(arguments)
    elif arguments.what == "report":
        report(arguments.out)
    else:
        getattr(Comparison(arguments), arguments.what)()


if __name__ == "__main__":
    run_main(main)
