"""How fast a device trains: images/s of the trainer's step, its parts, and a step of the search.

    python -m benchmarks.training_speed --device cuda [--data CAMVID] [--models tiny-mrms mrms]
        [--precision bfloat16] [--batch 16] [--crop 360x480] [--loader-threads 8] [-o SPEED.json]

The recipe is AdamW with an average of the weights and class balance, channels_last. Without the
loader the trainer gets one batch of noise over and over; with --data also what the loader makes of
CamVid's frames, as in `hmseg train`. The first --warm steps are left out of the figures; the very
first, in which cuDNN tries its algorithms, has its own. Of the parts of a step (medians of five)
the first figure is until the host goes on, the second until the device is done. A step of the
search is one of a path's weights and one of the architecture (`hmseg search --estimator score
--samples 4 --share-weights`), at --search-crop, without its loaders; tiny-mrms and mrms have one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from deploy import host
from deploy.cli.console import print_table, run_main, say
from deploy.resolution import parse_resolution
from hmseg.cost import SpaceCost
from hmseg.data.batches import Source, normalise_on
from hmseg.data.classes import CAMVID
from hmseg.data.dataset import VOID, Array, open_source
from hmseg.data.registry import open_dataset
from hmseg.operators import Space
from hmseg.search.budget import parse_budget
from hmseg.search.config import SearchConfig
from hmseg.search.loop import Searcher
from hmseg.search.objective import Objective
from hmseg.train.autocast import autocast
from hmseg.train.compute import open_device
from hmseg.train.config import Precision, Stage, TrainConfig
from hmseg.train.loop import Trainer, fastest_convolutions
from hmseg.train.memory import keep_freed_memory
from hmseg.train.place import place_of
from hmseg.zoo import network_config
from lut.errors import UserError
from lut.estimate import MacsCost
from lut.files import check_writable, write_atomic

Row = dict[str, Any]
PARTS = ("upload", "forward", "loss", "backward", "optimizer", "average")
SEARCHED = ("tiny-mrms", "mrms")


def provenance(device: torch.device) -> dict[str, Any]:
    """What figures come from: date, device, host and torch."""
    cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, **place_of(device), "cudnn": cudnn, "cpu": host.cpu_model()}


class Noise:
    """A batch of noise: `count` frames for the trainer to count classes in, and in its loader's
    place the same batch over and over."""

    def __init__(self, stage: Stage, device: torch.device, count: int) -> None:
        rng = np.random.default_rng(0)
        shape, classes = (stage.batch, *stage.crop), len(CAMVID)
        self.images = rng.integers(0, 256, (*shape, 3), np.uint8)
        self.labels = rng.integers(0, classes + 1, shape, np.uint8)
        self.labels[self.labels == classes] = VOID
        tensors = torch.from_numpy(self.images), torch.from_numpy(self.labels)
        if device.type == "cuda":
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        self.batch, self.count = (tensors[0].permute(0, 3, 1, 2), tensors[1]), count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[Array, Array]:
        return self.images[0], self.labels[0]

    def batches(self, specs: Iterable[object]) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in specs:
            yield self.batch


def recipe(options: argparse.Namespace, model: str, crop: tuple[int, int]) -> TrainConfig:
    stage = Stage(crop, options.batch, options.warm + options.steps)
    return TrainConfig(
        model, "camvid", (stage,), learning_rate=1e-4, optimizer="adamw", ema_decay=0.998,
        class_balance=1.15, precision=options.precision,
    )  # fmt: skip


def in_ms(seconds: list[float]) -> Row:
    """Median and range."""
    ms = sorted(1e3 * value for value in seconds)
    return {"median_ms": statistics.median(ms), "min_ms": ms[0], "max_ms": ms[-1]}


def train_row(
    options: argparse.Namespace, device: torch.device, model: str, source: Source | None
) -> Row:
    """Images/s of one network's steps, and their parts."""
    config = recipe(options, model, options.crop)
    noise = Noise(config.stages[0], device, options.batch)
    trainer = Trainer(config, noise, CAMVID.names, device=device)
    trainer.loader = noise
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    trainer.run(lambda report: seconds.append(report.step_s))
    step, cuda = in_ms(seconds[options.warm :]), device.type == "cuda"
    return {
        "model": model, "images_per_s": 1e3 * options.batch / step["median_ms"], "step": step,
        "first_step_s": seconds[0],
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None,
        "parts": parts(trainer, *noise.batch),
        "with_loader": loaded(options, device, config, source) if source else None,
    }  # fmt: skip


@fastest_convolutions()  # as in a step
def parts(trainer: Trainer, images: Tensor, labels: Tensor) -> Row:
    """Milliseconds of each part of a step: of the host, and until the device is done."""
    device, found = trainer.device, {name: ([], []) for name in PARTS}

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wait()
        began = time.perf_counter()
        result = work()
        found[name][0].append(1e3 * (time.perf_counter() - began))
        wait()
        found[name][1].append(1e3 * (time.perf_counter() - began))
        return result

    def forward(pixels: Tensor) -> Any:
        with autocast(device, trainer.config.precision):
            return trainer.model(pixels)

    for _ in range(5):
        pixels, there = timed("upload", lambda: (
            normalise_on(device, images, trainer.dtype), labels.to(device, non_blocking=True)
        ))  # fmt: skip
        outputs = timed("forward", lambda pixels=pixels: forward(pixels))
        loss = timed("loss", lambda outputs=outputs, there=there: trainer.loss(outputs, there))
        trainer.optimizer.zero_grad(set_to_none=True)
        timed("backward", loss.backward)
        timed("optimizer", trainer.optimizer.step)
        timed("average", trainer._update_average)
    medians = ((name, *map(statistics.median, times)) for name, times in found.items())
    return {name: {"host_ms": host_ms, "done_ms": done} for name, host_ms, done in medians}


def loaded(
    options: argparse.Namespace, device: torch.device, config: TrainConfig, source: Source
) -> Row:
    """The whole: the trainer fed by its loader."""
    threads = options.loader_threads
    trainer = Trainer(config, source, CAMVID.names, device=device, loader_threads=threads)
    reports: list[Any] = []
    trainer.run(reports.append)
    timed = reports[options.warm :]
    seconds = sum(report.step_s for report in timed)
    waited = sum(report.waited_s for report in timed)
    return {"threads": threads, "images_per_s": options.batch * len(timed) / seconds,
            "waited_share": waited / seconds}  # fmt: skip


def search_step(options: argparse.Namespace, device: torch.device, model: str) -> Row:
    """A search step: the weights', and the architecture's with four samples."""
    budget = parse_budget("1000GMACs")  # nothing is above it
    size, classes = (256, 512), len(CAMVID)
    config = SearchConfig(
        recipe(options, model, options.search_crop), str(budget), budget.unit, size, classes,
        estimator="score", samples=4, shared=True,
    )  # fmt: skip
    cost = SpaceCost(MacsCost(), Space(size, network_config(model).width, classes))
    noise = Noise(config.recipe.stages[0], device, 2 * options.batch)
    searcher = Searcher(config, Objective(cost, budget), noise, CAMVID.names, device=device)
    searcher.loaders = [noise, noise]
    seconds: list[float] = []
    searcher.run(lambda report: seconds.append(report.step_s))
    return in_ms(seconds[options.warm :])


def print_rows(rows: list[Row]) -> None:
    """The figures of a run as two tables."""

    def spread(step: Row | None) -> str:
        return "{median_ms:.1f} [{min_ms:.1f}..{max_ms:.1f}]".format(**step) if step else "-"

    lines, shares = [], []
    for row in rows:
        whole = row["with_loader"]
        lines.append((
            row["model"], f"{row['images_per_s']:.1f}", spread(row["step"]),
            f"{row['first_step_s']:.2f}", f"{row['peak_gib']:.2f}" if row["peak_gib"] else "-",
            f"{whole['images_per_s']:.1f} ({whole['waited_share']:.0%})" if whole else "-",
            spread(row["search_step"]),
        ))  # fmt: skip
        times = row["parts"].values()
        shares.append((row["model"], *(f"{t['host_ms']:.2f}/{t['done_ms']:.2f}" for t in times)))
    columns = ("network", "images/s", "step ms", "first s", "peak GiB", "with loader (waited)")
    print_table("", (*columns, "search step ms"), lines)
    print_table("parts of a step: ms of the host/until the device is done", ("", *PARTS), shares)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=SEARCHED)
    parser.add_argument("--data", type=Path, help="CamVid's root; without it no loader is measured")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=get_args(Precision), default="bfloat16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", default="360x480")
    parser.add_argument("--search-crop", default="180x240")
    parser.add_argument("--loader-threads", type=int, default=2)
    parser.add_argument("--warm", type=int, default=8, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=20, help="steps that are")
    parser.add_argument("-o", "--output", type=Path, help="write all figures as JSON too")
    options = parser.parse_args(arguments)
    if min(options.loader_threads, options.warm, options.steps) < 1:
        raise UserError("--loader-threads, --warm and --steps must be at least 1")
    for model in options.models:
        network_config(model)  # of an unknown one it says what there is
    told = {name: str(value) for name, value in vars(options).items()}
    options.crop, options.search_crop = map(parse_resolution, (options.crop, options.search_crop))
    if options.output:
        check_writable(options.output)
    device = open_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()  # as the command does
    source = options.data and open_source(open_dataset("camvid", options.data, "train"))
    rows = []
    for model in options.models:
        say(f"measuring {model}")
        rows.append(train_row(options, device, model, source))
        rows[-1]["search_step"] = search_step(options, device, model) if model in SEARCHED else None
    print_rows(rows)
    if options.output:
        result = {"provenance": provenance(device), "options": told, "rows": rows}
        write_atomic(options.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
