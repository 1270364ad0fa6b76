"""Train variants at one short equal schedule, several seeds each, and compare validation mIoU.

    python benchmarks/compare_training.py table4 --data CAMVID --out runs/table4
    python benchmarks/compare_training.py options --data CAMVID --out runs/options

`table4`: rows (a) to (d) of the paper's Table 4, at half width unless --full-width: does LCF help,
does LGE? `options`: each option of the trainer against the paper's recipe. Every run is a folder;
started again, the script goes on where it stopped. Each difference is to the first variant, seed
by seed, so that order and augmentation are the same on both sides.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.cli.console import run_main
from hmseg.data.dataset import open_source
from hmseg.data.registry import open_dataset
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.loop import Trainer
from hmseg.train.run import Run, RunOptions
from lut.errors import UserError
from lut.files import write_atomic
from lut.jsonl import read_records

OPTIONS: dict[str, dict[str, Any]] = {
    "paper's recipe": {},
    "learning rate 0.05": {"learning_rate": 0.05},
    "warm-up of a tenth": {"warmup_steps": 0.1},
    "EMA": {"ema_decay": 0.99},
    "Nesterov": {"nesterov": True},
    "OHEM": {"ohem": True},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "class balance 1.10": {"class_balance": 1.10},
    "AdamW, learning rate 0.0015": {"optimizer": "adamw", "learning_rate": 0.0015},
    "bfloat16": {"precision": "bfloat16"},
    "planar instead of channels_last": {"channels_last": False},
}


def variants(what: str, base: TrainConfig, prefix: str) -> dict[str, TrainConfig]:
    """Name -> configuration; the first is what the others are compared with."""
    if what == "table4":
        names = {"(a) concatenation": "mrms-a", "(b) + LGE": "mrms-b", "(c) LCF": "mrms-c",
                 "(d) LCF + LGE": "mrms"}  # fmt: skip
        return {row: replace(base, model=prefix + model) for row, model in names.items()}
    found = {}
    for name, options in OPTIONS.items():
        if "warmup_steps" in options:
            options = {"warmup_steps": round(options["warmup_steps"] * base.steps)}
        found[name] = replace(base, **options)
    return found


def train(config: TrainConfig, folder: Path, data: Path) -> float:
    """Validation mIoU after the last step, in percent; a finished run is not trained again."""
    frames, validation = (open_dataset("camvid", data, split) for split in ("train", "val"))
    trainer = Trainer(config, open_source(frames), frames.classes.names)
    every = RunOptions(log_every=50, checkpoint_every=100, evaluate_every=config.steps, samples=0)
    run = Run(folder, trainer, open_source(validation), validation.classes, every)
    done = run.last.exists() and Checkpoint.load(run.last)
    if done and done.config != config:
        raise UserError(
            f"{folder} holds another run ({config.difference(done.config)}); change --out"
        )
    if not done or done.step < config.steps:
        run.start(resume=bool(done))
    return 100 * float(read_records(run.log)[-1]["miou"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("table4", "options"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", default="180x240:16:1000", help="HxW:BATCH:STEPS of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--full-width", action="store_true")
    arguments = parser.parse_args()
    prefix = "" if arguments.full_width else "tiny-"
    base = TrainConfig(f"{prefix}mrms", "camvid", (Stage.parse(arguments.stage),))
    results: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        for name, config in variants(arguments.what, base, prefix).items():
            folder = arguments.out / f"{name.replace(' ', '-')}-seed{seed}"
            miou = train(replace(config, seed=seed), folder, arguments.data)
            results.setdefault(name, []).append(miou)
            print(f"{name}, seed {seed}: {miou:.2f}%", flush=True)
    report = {"stage": arguments.stage, "seeds": arguments.seeds, "miou_percent": results}
    write_atomic(arguments.out / "results.json", json.dumps(report, indent=2) + "\n")
    first = next(iter(results.values()))
    print("\n| variant | mIoU % (each seed) | mean | difference to the first, each seed |")
    print("|---|---|---|---|")
    for name, values in results.items():
        each = " ".join(f"{value:.1f}" for value in values)
        gains = " ".join(f"{v - f:+.1f}" for v, f in zip(values, first, strict=True))
        print(f"| {name} | {each} | {statistics.mean(values):.1f} | {gains} |")


if __name__ == "__main__":
    run_main(main)
