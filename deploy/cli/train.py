"""hmseg train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import options, training_options
from deploy.cli.console import print_json, print_table, say
from deploy.resolution import parse_resolution
from lut.errors import UserError

if TYPE_CHECKING:
    from hmseg.data.dataset import SegmentationData
    from hmseg.train.config import Stage
    from hmseg.train.run import Watcher


def train(
    data: training_options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A zoo name (hmseg-deploy models) or genotype.json."),
    ] = options.HAND_MADE_MODEL,
    dataset: training_options.Dataset = "camvid",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 200,
    batch: Annotated[int, typer.Option(help="Images of a step, over all processes.")] = 8,
    crop: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH; the first frame's size by default.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="HxW:BATCH:STEPS, in place of the three above; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, order and augmentation.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate; it falls by the poly rule.")] = 0.01,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    momentum: Annotated[float, typer.Option(help="Of SGD.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="On every parameter.")] = 5e-4,
    auxiliary_weight: Annotated[
        float, typer.Option(help="Of the intermediate losses (Eq. 1).")
    ] = 0.4,
    scale: training_options.Scale = "0.5,2",
    colour: Annotated[float, typer.Option(help="Largest relative colour change.")] = 0.3,
    nesterov: Annotated[bool, typer.Option(help="Nesterov momentum.")] = False,
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 0,
    ema: Annotated[float, typer.Option(help="Decay of the weights' average; 0: none.")] = 0.0,
    ohem: Annotated[bool, typer.Option(help="Learn from hard pixels only.")] = False,
    label_smoothing: Annotated[float, typer.Option(help="0 to 1.")] = 0.0,
    class_balance: training_options.ClassBalance = 0.0,
    precision: training_options.Precision = "float32",
    channels_last: training_options.ChannelsLast = True,
    device: training_options.Device = "cpu",
    threads: training_options.Threads = None,
    loader_threads: training_options.LoaderThreads = 2,
    log_every: training_options.LogEvery = 20,
    checkpoint_every: training_options.CheckpointEvery = 200,
    evaluate_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = 500,
    begin_with: Annotated[
        Path | None, typer.Option(help="A checkpoint whose weights to begin with.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="A zoo name; begin with what fits of its released weights."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events into --out too.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a network; under torchrun, over all its processes. The defaults are the paper's."""
    training_options.check_counts(
        locals(),
        ("epochs", "batch", "loader_threads", "log_every", "checkpoint_every", "evaluate_every"),
    )
    if begin_with is not None and pretrained is not None:
        raise UserError("--begin-with and --pretrained both give the first weights; leave one out")
    if resume and (begin_with is not None or pretrained is not None):
        raise UserError("--resume goes on with the run's own weights; leave --begin-with and "
                        "--pretrained out")  # fmt: skip
    import torch

    from deploy.cli.train_progress import ProgressBar, tensorboard_watcher
    from deploy.images import save_overlay
    from hmseg.data.dataset import open_source
    from hmseg.data.registry import open_dataset
    from hmseg.pretrained import load_released
    from hmseg.train.checkpoint import Checkpoint
    from hmseg.train.config import TrainConfig, read_optimizer, read_precision
    from hmseg.train.distributed import join_world, leave_world, wait_for_all
    from hmseg.train.loop import Trainer
    from hmseg.train.run import Run, RunOptions
    from hmseg.zoo import entry, lasting_name

    split, validation = (open_dataset(dataset, data, name) for name in ("train", "val"))
    config = TrainConfig(
        model=lasting_name(model), data=dataset,
        stages=_stages(dataset, split, stage, crop, batch, epochs), seed=seed,
        learning_rate=lr, momentum=momentum, weight_decay=weight_decay,
        auxiliary_weight=auxiliary_weight, scale=training_options.read_scale(scale), colour=colour,
        optimizer=read_optimizer(optimizer), nesterov=nesterov, warmup_steps=warmup,
        ema_decay=ema, ohem=ohem,
        label_smoothing=label_smoothing, class_balance=class_balance,
        precision=read_precision(precision), channels_last=channels_last,
    )  # fmt: skip
    released = None
    if pretrained is not None:
        entry(pretrained)  # of an unknown name it says what is near
        released = load_released(pretrained, dataset)
    if threads is not None:
        torch.set_num_threads(threads)
    place = training_options.open_device(device)
    world = join_world(place)
    try:
        trainer = Trainer(
            config, open_source(split), split.classes.names,
            world=world, device=place, loader_threads=loader_threads,
        )  # fmt: skip
        if begin_with is not None:
            trainer.begin_with(Checkpoint.load(begin_with), begin_with)
        if released is not None:
            trainer.begin_with_released(released)
        watchers: list[Watcher] = []
        if world.is_main:
            watchers.append(ProgressBar(config.pixels_after, config.steps))
            if tensorboard:
                watchers.append(tensorboard_watcher(out))
        run = Run(
            out, trainer, open_source(validation), validation.classes,
            RunOptions(log_every, checkpoint_every, evaluate_every),
            world, save_overlay, watchers,
        )  # fmt: skip
        try:
            run.start(resume=resume)
            wait_for_all()
        finally:
            for watcher in watchers:
                watcher.close()
    finally:
        leave_world()
    if world.is_main:
        _report(run.best_record(), run.best, as_json=as_json)


def _stages(
    dataset: str, split: "SegmentationData", texts: list[str] | None, crop: str | None, batch: int,
    epochs: int,
) -> "tuple[Stage, ...]":  # fmt: skip
    from hmseg.train.config import Stage

    if texts:
        return tuple(Stage.parse(text) for text in texts)
    if crop is None and dataset == "lip":
        raise UserError("the frames of lip differ in size: name --crop, e.g. --crop 480x480")
    height, width = parse_resolution(crop) if crop else split.load_image(0).shape[:2]
    return (Stage((height, width), batch, max(1, epochs * len(split) // batch)),)


def _report(best: dict[str, Any], checkpoint: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(best | {"checkpoint": str(checkpoint)})
        return
    rows = [(n, "absent" if v is None else f"{100 * v:.1f}") for n, v in best["iou"].items()]
    say(f"best evaluation: step {best['step']}, {checkpoint}")
    print_table("", ("class", "IoU %"), [*rows, ("mean", f"{100 * best['miou']:.2f}")])
