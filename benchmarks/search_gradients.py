"""What does each way of searching learn about a choice? Straight-through against score.

    python -m benchmarks.search_gradients --data CAMVID --stage 180x240:8:1500 -o OUT

Trains a supernet of the Tiny space (its fair warm-up alone), then, at uniform probabilities, on
batches of the other half: the score estimator's gradient, which is unbiased, and the
straight-through gradient of Eq. 2 at temperature 1, each averaged over all batches. Printed for
each row: how large the mean straight-through gradient is, and how it correlates over the row's
candidates with the score's. OUT/gradients.pt keeps all of it.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from deploy.cli.console import run_main
from hmseg.cost import SpaceCost
from hmseg.data.batches import normalise_on
from hmseg.data.dataset import open_source
from hmseg.data.registry import open_dataset
from hmseg.operators import Space
from hmseg.search.architecture import gumbel_noise
from hmseg.search.budget import Budget
from hmseg.search.config import SearchConfig
from hmseg.search.estimators import ESTIMATORS
from hmseg.search.loop import Searcher
from hmseg.search.objective import Objective
from hmseg.search.pictures import ROW_NAMES
from hmseg.train.config import Stage, TrainConfig
from lut.estimate import MacsCost


class _WarmedUpError(Exception):
    pass


def warmed_up(data: Path, stage: Stage, rate: float) -> Searcher:
    frames = open_dataset("camvid", data, "train")
    steps = stage.steps
    recipe = TrainConfig(
        "tiny-mrms", "camvid", (replace(stage, steps=steps + 1),), learning_rate=rate
    )
    config = SearchConfig(recipe, "1GMACs", "MACs", (256, 512), 19, warmup_steps=steps)
    cost = SpaceCost(MacsCost(), Space((256, 512), 0.5))
    objective = Objective(cost, Budget(1e9, "MACs"))  # not used: only the task's loss is looked at
    searcher = Searcher(config, objective, open_source(frames), frames.classes.names)

    def watch(report) -> None:  # noqa: ANN001
        if report.step % 100 == 0:
            print(f"warm-up {report.step}: loss {report.loss:.3f}", flush=True)
        if report.step == steps:
            raise _WarmedUpError

    try:
        searcher.run(watch)
    except _WarmedUpError:
        return searcher
    raise AssertionError("the warm-up ended before its last step")


def collect(searcher: Searcher, batches: int, samples: int) -> dict[str, Tensor]:
    """Gradients (batches, 24, 10) of both estimators, from the same paths and batches."""
    stage = searcher.config.recipe.stages[0]
    specs = replace(searcher.config.recipe, stages=(replace(stage, steps=batches),)).batches()
    found: dict[str, list[Tensor]] = {name: [] for name in ESTIMATORS}
    for step, (pixels, labels) in enumerate(searcher.loaders[1].batches(specs)):
        images = normalise_on(searcher.device, pixels, searcher.dtype)
        noise = [gumbel_noise(1, step, draw) for draw in range(samples)]
        paths = [searcher.architecture.sample(n, 1.0) for n in noise]
        loss = partial(searcher.task_loss, images, labels, lesson=None)
        for name, slope in ESTIMATORS.items():
            found[name].append(slope(loss, searcher.architecture, paths, searcher.world)[0])
        if step % 50 == 0:
            print(f"batch {step} of {batches}", flush=True)
    return {name: torch.stack(slopes) for name, slopes in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--stage", default="180x240:8:1500", help="HxW:BATCH:STEPS")
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--samples", type=int, default=4, help="paths of a batch")
    parser.add_argument("--lr", type=float, default=0.02)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    searcher = warmed_up(arguments.data, Stage.parse(arguments.stage), arguments.lr)
    searcher.supernet.train()
    gradients = collect(searcher, arguments.batches, arguments.samples)
    torch.save(gradients, arguments.out / "gradients.pt")
    through, score = (gradients[name].mean(0) for name in ("straight-through", "score"))
    noise = {name: g.std(0) / len(g) ** 0.5 for name, g in gradients.items()}
    print("| row | straight-through, largest | its t | score, largest | its t | correlation |")
    print("|---|---|---|---|---|---|")
    for row, mask in enumerate(searcher.architecture.allowed):
        cells = []
        for name, mean in (("straight-through", through), ("score", score)):
            values, errors = mean[row][mask], noise[name][row][mask]
            cells += [f"{values.abs().max():.1e}", f"{(values.abs() / errors).max():.1f}"]
        both = torch.stack([through[row][mask], score[row][mask]])
        cells.append(f"{torch.corrcoef(both)[0, 1]:+.2f}")
        print(f"| {ROW_NAMES[row]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_main(main)
