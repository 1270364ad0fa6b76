"""The options of benchmarks/full_schedule.py, checked before anything is started."""

import argparse
from pathlib import Path

from deploy.resolution import parse_resolution
from hmseg.data.registry import open_dataset
from hmseg.genotype import MRMS_GENOTYPE
from hmseg.search.architecture import Architecture
from hmseg.search.budget import open_cost, parse_budget
from hmseg.search.derive import require_reachable
from hmseg.search.objective import Objective
from hmseg.search.space import DIMENSIONS, search_space
from hmseg.train.config import Stage, TrainConfig, read_precision
from lut.errors import UserError
from lut.table_file import load_table

WIDTHS = {"tiny": ("tiny-mrms", 0.5), "full": ("mrms", 1.0)}


def read_options(description: str | None, arguments: list[str] | None) -> argparse.Namespace:
    """Raises UserError for options and data that no run would take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="CamVid's root")
    parser.add_argument("--minutes", type=float, required=True, help="of all together")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    for width, (model, _) in WIDTHS.items():
        parser.add_argument(f"--{width}-cost", type=Path, help=f"latency table of {model}'s width")
        parser.add_argument(f"--{width}-budget", help="of the search at that width")
    parser.add_argument("--search-share", type=float, default=0.3, help="of the minutes")
    parser.add_argument("--search-crop", default="180x240")
    parser.add_argument("--crop", default="360x480", help="of the training")
    parser.add_argument("--batch", type=int, default=16, help="of both")
    # The recipe of the trainings.
    parser.add_argument("--lr", type=float, default=0.002, help="AdamW's")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--warmup", type=int, default=300, help="steps, but at most a 20th of them")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--class-balance", type=float, default=1.15, help="the searches' too")
    parser.add_argument("--colour", type=float, default=0.4)
    parser.add_argument("--precision", default="bfloat16", help="the searches' too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.data, options.out = options.data.resolve(), options.out.resolve()
    _check(options)
    for width in WIDTHS:
        _check_search(options, width)
    return options


def _check(options: argparse.Namespace) -> None:
    if not options.minutes > 0:
        raise UserError(f"--minutes {options.minutes:g}: it must be above 0")
    if not 0 < options.search_share < 1:
        raise UserError(f"--search-share {options.search_share:g}: it must be between 0 and 1")
    if options.batch < 2:
        raise UserError(f"--batch {options.batch}: batch norm needs at least 2 images")
    for crop in (options.crop, options.search_crop):
        TrainConfig(
            "mrms", "camvid", (Stage(parse_resolution(crop), options.batch, 1),),
            seed=options.seed, learning_rate=options.lr, weight_decay=options.weight_decay,
            warmup_steps=options.warmup, ema_decay=options.ema, colour=options.colour,
            class_balance=options.class_balance, precision=read_precision(options.precision),
        )  # fmt: skip
    half = len(open_dataset("camvid", options.data, "train")) // 2
    open_dataset("camvid", options.data, "val")
    if options.batch > half:
        raise UserError(f"--batch {options.batch}: half of the training split has {half} frames")


def _check_search(options: argparse.Namespace, width: str) -> None:
    path, budget = (getattr(options, f"{width}_{what}") for what in ("cost", "budget"))
    if (path is None) != (budget is None):
        raise UserError(f"--{width}-cost and --{width}-budget belong together: name both or none")
    if path is None:
        return
    model, factor = WIDTHS[width]
    table, limit = load_table(path), parse_budget(budget)
    identity = table.identity
    if identity.width != factor:
        raise UserError(f"--{width}-cost {path}: of width {identity.width:g}, {model} has {factor}")
    size = parse_resolution(identity.resolution)
    cost = open_cost(limit, table, size, factor, identity.num_classes)
    architecture = Architecture(search_space(DIMENSIONS, MRMS_GENOTYPE))
    require_reachable(Objective(cost, limit), architecture)
