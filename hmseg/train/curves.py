"""The training curves as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lut.files import atomic_path


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss and learning rate over the steps, and validation mIoU where there is one, as PNG."""
    from matplotlib.figure import Figure  # heavy, and not needed to train

    figure = Figure(figsize=(8, 7), layout="constrained")
    loss, rate, miou = figure.subplots(3, sharex=True)
    steps = [r for r in records if "loss" in r]
    evaluations = [r for r in records if "miou" in r]
    loss.plot([r["step"] for r in steps], [r["loss"] for r in steps])
    loss.set_ylabel("loss (Eq. 1)")
    rate.plot([r["step"] for r in steps], [r["learning_rate"] for r in steps])
    rate.set_ylabel("learning rate")
    values = [100 * r["miou"] for r in evaluations]
    miou.plot([r["step"] for r in evaluations], values, marker=".")
    miou.set_ylabel("validation mIoU in %")
    miou.set_xlabel("step")
    for axes in (loss, rate, miou):
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
