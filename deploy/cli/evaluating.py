"""mIoU of one network, and of another beside it, shown and judged: for eval and verify."""

from typing import TYPE_CHECKING, Any

from deploy.cli.console import print_table, say, step
from deploy.quantise.gate import MOST_MIOU_LOSS

if TYPE_CHECKING:
    from deploy.evaluate import Evaluated, Side
    from hmseg.data.dataset import SegmentationData


def show_evaluating(side: "Side", data: "SegmentationData", dataset: str) -> "Evaluated":
    """`deploy.evaluate.evaluate_side`, shown as a step; broken frames are named."""
    from deploy.evaluate import evaluate_side

    with step(f"evaluating {len(data)} frames") as current:
        found = evaluate_side(side, data, dataset)
        current.result = f"mIoU {100 * found.confusion.miou:.2f}%"
    for message in found.broken:
        say(f"failed: {message}")
    return found


def to_json(found: "Evaluated", against: "Evaluated | None" = None) -> dict[str, Any]:
    """For --json."""
    iou = dict(zip(found.data.classes.names, found.confusion.iou_or_none, strict=True))
    values = {
        "network": found.name, "dataset": found.dataset, "split": found.data.split,
        "frames": found.frames, "miou": found.confusion.miou, "iou": iou,
    }  # fmt: skip
    if against:
        values |= {"against": against.name, "against_miou": against.confusion.miou}
    return values


def print_iou(found: "Evaluated", against: "Evaluated | None" = None) -> None:
    """Class by class, the mean last."""
    sides = [found, *([against] if against else [])]
    rows = [
        (name, *("absent" if v is None else f"{100 * v:.1f}" for v in values))
        for name, *values in zip(
            found.data.classes.names, *(side.confusion.iou_or_none for side in sides), strict=True
        )
    ]
    means = ("mean", *(f"{100 * side.confusion.miou:.2f}" for side in sides))
    print_table("", ("class", "IoU %", *(["against, IoU %"] if against else [])), [*rows, means])


def judge(found: "Evaluated", against: "Evaluated | None", most: float | None) -> None:
    """Raise WorkError where a frame failed, or more than `most` points of mIoU are lost; by default
    `MOST_MIOU_LOSS`."""
    from deploy.evaluate import require_little_loss

    found.require_all()
    if against:
        against.require_all()
        say(require_little_loss(against, found, MOST_MIOU_LOSS if most is None else most))
