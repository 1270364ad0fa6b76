"""Turn a training run into the weights that ship: evaluate, write the card, write the file.

    python benchmarks/release_weights.py RUN/best.safetensors --data-root CAMVID
    python benchmarks/release_weights.py RUN/best.safetensors --data-root CAMVID --name tiny-hmseg
    python benchmarks/release_weights.py BOTH/last.safetensors --data-root CAMVID \
        --validated RUN/best.safetensors

The last is a run that learned from the validation split too (`hmseg train --with-validation`): its
card has the figures of a run of the same settings on the training split alone.

The name is that of the zoo; a network that the search found gets it by its genotype's file in
hmseg/genotypes/.

The weights are float32, with the auxiliary outputs, so that they can be trained further.
"""

import argparse
import datetime
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deploy.cli.console import run_main
from hmseg.data.registry import open_dataset
from hmseg.pretrained import save_released
from hmseg.train.checkpoint import Checkpoint, knows_validation, load_into
from hmseg.train.metrics import evaluate, torch_predictor
from hmseg.zoo import create_model, entry
from lut.errors import UserError

MUST_NOT = (
    "Not for driving, nor for any decision about people or their safety: a few hundred frames of "
    "one city's streets, filmed from one car in daylight, and rare classes that are often missed."
)
DATA_TERMS = {
    "camvid": "CamVid, 11-class release of 360x480 frames (Brostow, Fauqueur, Cipolla, Pattern "
    "Recognition Letters 30(2), 2009; redistributed with the SegNet tutorial), for research use",
}
OF_TRAIN = "trained on the training split alone, the checkpoint chosen on this validation split"
OF_BOTH = (
    "the figures of a run of the same settings on the training split alone, its checkpoint chosen "
    "on this validation split (step {step} of {steps}); these weights are the last of their run, "
    "and have learned from the validation frames, which can therefore say nothing of them"
)


def _measured(checkpoint: Checkpoint, path: Path, validated: Path | None) -> Checkpoint:
    """The run whose validation the card quotes: the released one, or where that has learned from
    the validation frames, its like that has not."""
    if not checkpoint.config.with_validation:
        if knows_validation(checkpoint.before):
            raise UserError(
                f"{path} began with weights, or has a teacher, that learned from the validation "
                "split: train it with --with-validation too"
            )
        if validated is not None:
            raise UserError(f"{path} was validated itself; leave --validated out")
        return checkpoint
    if validated is None:
        raise UserError(f"{path} learned from the validation split: name its like by --validated")
    measured = Checkpoint.load(validated)
    same, own = replace(checkpoint.config, with_validation=False), measured.config
    for what, mine, other in (
        (f"settings ({own.difference(same)})", same, own),
        ("first weights", checkpoint.before, measured.before),
        ("frames", checkpoint.frames, measured.frames),
        ("kind (one of the two is adjusted)", bool(checkpoint.offsets), bool(measured.offsets)),
        ("length: it is not finished", checkpoint.step, checkpoint.config.steps),
    ):
        if mine != other:
            raise UserError(f"{path} and {validated}: runs of other {what}")
    return measured


def _passes(runs: tuple[dict[str, Any], ...], train: int, both: int) -> float:
    """How often all the runs saw a frame, each of those that it learned from."""
    return sum(
        run["images_seen"] / (both if run.get("recipe", {}).get("with_validation") else train)
        for run in runs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--name", help="the zoo's name, where the run has none")
    parser.add_argument("--validated", type=Path, help="the run on the training split alone")
    parser.add_argument("--note", help="what the card must say besides")
    arguments = parser.parse_args()
    checkpoint = Checkpoint.load(arguments.checkpoint)
    config = checkpoint.config
    if config.data not in DATA_TERMS:
        raise UserError(f"{config.data}: write its terms of use into DATA_TERMS first")
    if config.quantise:
        raise UserError(
            f"{arguments.checkpoint} is quantised: released weights are float; export the "
            "checkpoint itself (hmseg-deploy export --model)"
        )
    model = create_model(config.model, num_classes=len(checkpoint.classes))
    name = arguments.name or config.model
    if entry(name).config != replace(model.config, num_classes=entry(name).config.num_classes):
        raise UserError(f"{name} is another network than {config.model}")
    measured = _measured(checkpoint, arguments.checkpoint, arguments.validated)
    load_into(model, measured.released, arguments.validated or arguments.checkpoint)
    train = open_dataset(config.data, arguments.data_root, "train")
    validation = open_dataset(config.data, arguments.data_root, "val")
    confusion = evaluate(torch_predictor(model), validation, len(checkpoint.classes))
    load_into(model, checkpoint.released, arguments.checkpoint)  # or its own are broken
    iou = dict(zip(checkpoint.classes, confusion.iou_or_none, strict=True))
    history = checkpoint.as_history()
    images = sum(run["images_seen"] for run in history)
    protocol = OF_BOTH if config.with_validation else OF_TRAIN
    card = {
        "classes": list(checkpoint.classes),
        "trained_on": DATA_TERMS[config.data],
        "frames": {"train": len(train), "validation": len(validation)},
        "learned_from": "both splits" if config.with_validation else "the training split",
        "validation": {
            "miou_percent": round(100 * confusion.miou, 2),
            "iou_percent": {k: None if v is None else round(100 * v, 1) for k, v in iou.items()},
            "protocol": "frames at their own size, single scale, no flip, float32; "
            + protocol.format(step=measured.step, steps=config.steps),
        },
        "runs": history,  # each begins with the weights of the one before, or with what fits
        "images_seen": images,
        "epochs": round(_passes(history, len(train), len(train) + len(validation)), 1),
        "seed": config.seed,
        "weights_are": "exponential moving average" if checkpoint.average else "last step",
        "must_not_be_used_for": MUST_NOT,
        "made_with": {
            "command": "hmseg train, then benchmarks/release_weights.py",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        "evaluated_with": {  # a run's own "computed_on" is what it was trained with
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }
    if begun := [run for run in history if "init" in run]:
        card["begun_with"] = "EfficientNet-Lite0's ImageNet weights (Apache-2.0): " + ", ".join(
            sorted({run["package"] for run in begun})
        )
    if taught := [run for run in history if "teacher" in run]:
        card["teachers"] = [f"{run['teacher']} {run['sha256']}" for run in taught]
    if arguments.note:
        card["note"] = arguments.note
    if any("search" in run for run in history):
        card["search"] = (
            "inherited from a search's supernet: in the search an operator saw only the steps that "
            "sampled it, on half of the training split"
        )
    path = save_released(name, config.data, checkpoint.released, card)
    print(f"{path}: validation mIoU {100 * confusion.miou:.2f}%")


if __name__ == "__main__":
    run_main(main)
