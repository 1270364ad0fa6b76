"""Turn a training run into the weights that ship: evaluate, write the card, write the file.

    python benchmarks/release_weights.py RUN/best.safetensors --data-root CAMVID
    python benchmarks/release_weights.py RUN/best.safetensors --data-root CAMVID --name tiny-hmseg

The name is that of the zoo; a network that the search found gets it by its genotype's file in
hmseg/genotypes/.

The weights are float32, with the auxiliary outputs, so that they can be trained further.
"""

import argparse
import datetime
import platform
from dataclasses import replace
from pathlib import Path

import torch

from deploy.cli.console import run_main
from hmseg.data.registry import open_dataset
from hmseg.pretrained import save_released
from hmseg.train.checkpoint import Checkpoint, load_into
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--name", help="the zoo's name, where the run has none")
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
    load_into(model, checkpoint.released, arguments.checkpoint)
    train = open_dataset(config.data, arguments.data_root, "train")
    validation = open_dataset(config.data, arguments.data_root, "val")
    confusion = evaluate(torch_predictor(model), validation, len(checkpoint.classes))
    iou = dict(zip(checkpoint.classes, confusion.iou_or_none, strict=True))
    history = checkpoint.as_history()
    images = sum(run["images_seen"] for run in history)
    card = {
        "classes": list(checkpoint.classes),
        "trained_on": DATA_TERMS[config.data],
        "frames": {"train": len(train), "validation": len(validation)},
        "validation": {
            "miou_percent": round(100 * confusion.miou, 2),
            "iou_percent": {k: None if v is None else round(100 * v, 1) for k, v in iou.items()},
            "protocol": "frames at their own size, single scale, no flip, float32; trained on the "
            "training split alone, the checkpoint chosen on this validation split",
        },
        "runs": history,  # each begins with the weights of the one before, or with what fits
        "images_seen": images,
        "epochs": round(images / len(train), 1),
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
