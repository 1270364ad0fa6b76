"""Does the mIoU with inherited weights rank networks as training them does?

    python -m benchmarks.rank_correlation --data CAMVID --search runs/search --cost TABLE -o OUT

Takes the supernet of a search that is finished and 12 random networks near its budget
(`--networks`), evaluates each on the validation split with the weights that it inherits, batch norm
counted anew, and trains each at one short equal schedule (`--stage`), from random weights or with
`--init lite0`. Prints Kendall's tau and Spearman's rho between the two, and of the cost alone with
the trained mIoU: dearer networks tend to be better anyway. OUT/results.jsonl gets a line for each
result; started again, the command goes on where it stopped, in the midst of a training too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare_search import random_within
from deploy.cli.console import run_main
from deploy.tables.check import kendall_tau
from hmseg.data.dataset import open_source
from hmseg.data.registry import open_dataset
from hmseg.genotype import RATIO_TENTHS, Genotype
from hmseg.network_file import to_line
from hmseg.search.architecture import Path as NetworkPath
from hmseg.search.budget import open_cost, parse_budget
from hmseg.search.evolution import EvolutionConfig
from hmseg.search.inherited import Inherited, load_supernet
from hmseg.search.objective import Objective
from hmseg.search.space import CANDIDATES
from hmseg.train.config import Learning, Stage, read_optimizer
from hmseg.train.job import TrainJob, train
from hmseg.train.run import RunOptions
from hmseg.train.teacher import digest
from lut.errors import UserError
from lut.files import write_atomic
from lut.jsonl import append_record, content_digest, read_records
from lut.table_file import load_table

WANTED = 0.6  # of tau: below it the ranking says too little (issue 23)


def path_of(genotype: Genotype) -> NetworkPath:
    """A genotype as the path of a supernet."""
    ops = [CANDIDATES.index(op) for ops in genotype.ops for op in ops]
    ratios = (genotype.medium_tenths, genotype.low_tenths)
    return NetworkPath((*ops, *(RATIO_TENTHS.index(tenths) for tenths in ratios)))


def spearman_rho(first: list[float], second: list[float]) -> float:
    """The correlation of the ranks; equal values have the mean of theirs. nan where all are
    equal."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: list[float]) -> NDArray[np.float64]:
    array = np.array(values)
    below = (array[:, None] > array).sum(1)
    equal = (array[:, None] == array).sum(1)
    return below + (equal - 1) / 2


class Ranking:
    """One folder of results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.results = arguments, arguments.out / "results.jsonl"
        self.supernet, self.checkpoint = load_supernet(arguments.search / "last.safetensors")
        config = self.checkpoint.config
        if self.checkpoint.step < config.steps:
            raise UserError(f"{arguments.search}: the search is not finished; resume it")
        budget = parse_budget(config.budget)
        table = load_table(arguments.cost) if arguments.cost else None
        if budget.unit == "us" and (not table or content_digest(arguments.cost) != config.cost):
            raise UserError(f"{arguments.search}: name the search's own table with --cost")
        cost = open_cost(
            budget, table, config.resolution, self.supernet.config.width, config.cost_classes
        )
        self.objective = Objective(cost, budget)

    def networks(self) -> list[Genotype]:
        """Random ones near the budget, in the part of the space that was searched."""
        arguments = self.arguments
        return random_within(self.objective, arguments.networks, arguments.seed, arguments.floor)

    def known(self, key: dict[str, Any]) -> float | None:
        """A result that is there."""
        for record in read_records(self.results):
            if key.items() <= record.items():
                return float(record["miou"])
        return None

    def keep(self, key: dict[str, Any], miou: float) -> float:
        """Keep a result, and say it."""
        append_record(self.results, key | {"miou": miou})
        print(f"{key['kind']} {100 * miou:.2f}%: {key['genotype']}", flush=True)
        return miou

    def inherited(self, genotypes: list[Genotype]) -> list[float]:
        """Validation mIoU with the supernet's weights."""
        arguments, recipe = self.arguments, self.checkpoint.config.recipe
        train_split, validation = (
            open_dataset(recipe.data, arguments.data, split) for split in ("train", "val")
        )
        weights, found, inherited = digest(self.supernet), list[float](), None
        for genotype in genotypes:
            key = {"kind": "inherited", "genotype": str(genotype), "supernet": weights,
                   "frames": arguments.frames, "batches": arguments.batches}  # fmt: skip
            miou = self.known(key)
            if miou is None:
                inherited = inherited or Inherited(
                    self.supernet, recipe, open_source(train_split), open_source(validation),
                    frames=arguments.frames, batches=arguments.batches,
                )  # fmt: skip
                miou = self.keep(key, inherited.miou(path_of(genotype)))
            found.append(miou)
        return found

    def trained(self, genotypes: list[Genotype]) -> list[float]:
        """Validation mIoU after the last step of the short schedule."""
        arguments, found = self.arguments, list[float]()
        learning = Learning(
            seed=arguments.seed, learning_rate=arguments.lr,
            optimizer=read_optimizer(arguments.optimizer), class_balance=arguments.class_balance,
        )  # fmt: skip
        for number, genotype in enumerate(genotypes):
            key = {"kind": "trained", "genotype": str(genotype), "stage": arguments.stage,
                   "init": arguments.init, "learning_rate": arguments.lr, "seed": arguments.seed,
                   "optimizer": arguments.optimizer,
                   "class_balance": arguments.class_balance}  # fmt: skip
            miou = self.known(key)
            found.append(self.keep(key, self.train(number, genotype, learning))
                         if miou is None else miou)  # fmt: skip
        return found

    def train(self, number: int, genotype: Genotype, learning: Learning) -> float:
        """Train one, or go on with it."""
        arguments, folder = self.arguments, self.arguments.out / f"train-{number}"
        stage = Stage.parse(arguments.stage)
        begun = (folder / "last.safetensors").exists()
        run = train(TrainJob(
            model=to_line(genotype, self.supernet.config.width), data=arguments.data,
            dataset=self.checkpoint.config.recipe.data, folder=folder, schedule=(stage,),
            learning=learning, init=None if begun else arguments.init, resume=begun,
            options=RunOptions(50, 100, evaluate_every=stage.steps, samples=0),
        ))  # fmt: skip
        assert run is not None  # one process
        return float(read_records(run.log)[-1]["miou"])


def main() -> None:
    usual = EvolutionConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the data set's root")
    parser.add_argument("--search", type=Path, required=True, help="a finished search's folder")
    parser.add_argument("--cost", type=Path, help="its latency table")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--floor", type=float, default=0.9, help="least share of the budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=usual.frames, help="validation, inherited")
    parser.add_argument("--batches", type=int, default=usual.batches, help="for batch norm")
    parser.add_argument("--stage", default="240x320:8:917", help="HxW:BATCH:STEPS of trainings")
    parser.add_argument("--init", choices=("lite0",), help="of trainings")
    parser.add_argument("--lr", type=float, default=0.0015, help="of trainings")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--class-balance", type=float, default=1.15)
    arguments = parser.parse_args()
    if arguments.networks < 2:
        parser.error("--networks: a rank needs at least 2")
    ranking = Ranking(arguments)
    networks = ranking.networks()
    inherited, trained = ranking.inherited(networks), ranking.trained(networks)
    costs = [ranking.objective.cost.of(genotype).value for genotype in networks]
    report = {
        "networks": len(networks),
        "kendall_tau": kendall_tau(inherited, trained),
        "spearman_rho": spearman_rho(inherited, trained),
        "cost_kendall_tau": kendall_tau(costs, trained),
        "cost_spearman_rho": spearman_rho(costs, trained),
    }
    write_atomic(arguments.out / "report.json", json.dumps(report, indent=2) + "\n")
    print(f"{len(networks)} networks: inherited against trained mIoU: Kendall's tau "
          f"{report['kendall_tau']:.3f}, Spearman's rho {report['spearman_rho']:.3f}; cost "
          f"against trained mIoU: {report['cost_kendall_tau']:.3f}, "
          f"{report['cost_spearman_rho']:.3f}")  # fmt: skip
    if report["kendall_tau"] < WANTED:
        print(f"below {WANTED}: inherited weights rank these networks too little to search by them")


if __name__ == "__main__":
    run_main(main)
