"""hmseg train."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import completion, options, training_options
from deploy.cli.console import print_json, print_table, say
from deploy.cli.groups import grouped
from deploy.resolution import parse_resolution

if TYPE_CHECKING:
    from hmseg.train.config import Learning, Stage, TrainConfig
    from hmseg.train.job import Passes
    from hmseg.train.run import RunOptions, Watcher


@dataclass(frozen=True)
class ScheduleOptions:
    """How long, on what batches."""

    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 200
    batch: Annotated[int, typer.Option(min=1, help="Images of a step, over all processes.")] = 8
    crop: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH; the first frame's size by default.")
    ] = None
    stage: Annotated[
        list[str] | None,
        typer.Option(help="HxW:BATCH:STEPS, in place of the three above; may be repeated."),
    ] = None

    def read(self) -> "Passes | tuple[Stage, ...]":
        """The same for the library."""
        from hmseg.train.config import Stage
        from hmseg.train.job import Passes

        if self.stage:
            return tuple(map(Stage.parse, self.stage))
        crop = None if self.crop is None else parse_resolution(self.crop)
        return Passes(self.epochs, self.batch, crop)


@dataclass(frozen=True)
class LearningOptions:
    """How the weights are learned; names as in the library, options as a user types them."""

    seed: Annotated[int, typer.Option(help="Of the weights, order and augmentation.")] = 0
    learning_rate: Annotated[
        float, typer.Option("--lr", help="Learning rate; it falls by the poly rule.")
    ] = 0.01
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd"
    momentum: Annotated[float, typer.Option(help="Of SGD.")] = 0.9
    weight_decay: Annotated[float, typer.Option(help="On every parameter.")] = 5e-4
    auxiliary_weight: Annotated[float, typer.Option(help="Of the intermediate losses (Eq. 1).")] = (
        0.4
    )
    auxiliary_every: Annotated[
        int, typer.Option(min=1, max=8, help="Those losses use every N-th row and column.")
    ] = 1
    scale: training_options.Scale = "0.5,2"
    colour: Annotated[float, typer.Option(help="Largest relative colour change.")] = 0.3
    nesterov: Annotated[bool, typer.Option(help="Nesterov momentum.")] = False
    warmup_steps: Annotated[int, typer.Option("--warmup", help="Steps of linear warm-up.")] = 0
    ema_decay: Annotated[
        float, typer.Option("--ema", help="Decay of the weights' average; 0: none.")
    ] = 0.0
    ohem: Annotated[bool, typer.Option(help="Learn from hard pixels only.")] = False
    label_smoothing: Annotated[float, typer.Option(help="0 to 1.")] = 0.0
    backbone_rate: training_options.BackboneRate = 1.0
    class_balance: training_options.ClassBalance = 0.0
    soft_weight: training_options.SoftWeight = 1.0
    temperature: training_options.Temperature = 1.0
    feature_weight: training_options.FeatureWeight = 0.0
    mix: Annotated[
        float, typer.Option(help="Probability that classes of another frame are pasted in.")
    ] = 0.0
    blur: Annotated[float, typer.Option(help="Largest radius of a blur, in pixels.")] = 0.0
    grey: Annotated[float, typer.Option(help="Probability of a grey picture.")] = 0.0
    precision: training_options.Precision = "float32"
    channels_last: training_options.ChannelsLast = True

    def read(self) -> "Learning":
        """The same for the library."""
        from hmseg.train.config import Learning, read_optimizer, read_precision

        words = {
            "scale": training_options.read_scale(self.scale),
            "optimizer": read_optimizer(self.optimizer),
            "precision": read_precision(self.precision),
        }
        return Learning(**vars(self) | words)


@dataclass(frozen=True)
class WritingOptions:
    """How often what is written."""

    log_every: training_options.LogEvery = 20
    checkpoint_every: training_options.CheckpointEvery = 200
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500

    def read(self) -> "RunOptions":
        """The same for the library."""
        from hmseg.train.run import RunOptions

        return RunOptions(**vars(self))


@grouped
def train(
    *,
    data: training_options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A zoo name (hmseg-deploy models) or genotype.json.",
            callback=options.refusing(options.check_trained),
            autocompletion=completion.networks,
        ),
    ] = options.HAND_MADE_MODEL,
    dataset: training_options.Dataset = "camvid",
    schedule: ScheduleOptions,
    learning: LearningOptions,
    compute: training_options.ComputeOptions,
    writing: WritingOptions,
    begin_with: Annotated[
        Path | None, typer.Option(help="A checkpoint whose weights to begin with.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="A zoo name; begin with what fits of its released weights."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="lite0: begin with what fits of EfficientNet-Lite0's ImageNet weights."),
    ] = None,
    teacher: training_options.Teacher = None,
    quantise: Annotated[
        str | None,
        typer.Option(
            help="int8: fine-tune with simulated quantisation; begins with trained weights.",
            callback=options.refusing(options.check_quantisation),
        ),
    ] = None,
    with_validation: Annotated[
        bool,
        typer.Option(
            "--with-validation",
            help="Learn from the validation split too, and evaluate nothing: for a release.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events into --out too.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a network; under torchrun, over all its processes. The defaults are the paper's."""
    from deploy.cli.train_progress import TrainBar, tensorboard_watcher
    from deploy.images import save_overlay
    from hmseg.train.config import read_quantisation
    from hmseg.train.job import TrainJob
    from hmseg.train.job import train as train_it

    def watch(config: "TrainConfig") -> Sequence["Watcher"]:
        bar = TrainBar(config)
        return [bar, tensorboard_watcher(out)] if tensorboard else [bar]

    job = TrainJob(
        model=model, dataset=dataset, data=data, folder=out, schedule=schedule.read(),
        learning=learning.read(), compute=compute.read(), options=writing.read(),
        begin_with=begin_with, pretrained=pretrained, init=init, teacher=teacher,
        quantise=None if quantise is None else read_quantisation(quantise),
        with_validation=with_validation, resume=resume,
    )  # fmt: skip
    run = train_it(job, watch=watch, draw=save_overlay)
    if run is not None and with_validation:
        _report_unevaluated(run.last, as_json=as_json)
    elif run is not None:
        _report(run.best_record(), run.best, as_json=as_json)


def _report_unevaluated(checkpoint: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"checkpoint": str(checkpoint)})
    else:
        say(f"trained on both splits, so that none is left to evaluate on: {checkpoint}")


def _report(best: dict[str, Any], checkpoint: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(best | {"checkpoint": str(checkpoint)})
        return
    rows = [(n, "absent" if v is None else f"{100 * v:.1f}") for n, v in best["iou"].items()]
    say(f"best evaluation: step {best['step']}, {checkpoint}")
    print_table("", ("class", "IoU %"), [*rows, ("mean", f"{100 * best['miou']:.2f}")])
