"""What a grid of scores can say at most: the labels themselves, known only at 1/8 or 1/4.

    python -m benchmarks.grid_limit --data CAMVID [--every 1] [--cells 8 4] [--fit 0]

The scores of each cell are the shares of the classes in it (void left out); they are upsampled as a
network's are, and the best class of each pixel is compared with the label. With `--fit STEPS` they
are then fitted to the frame's own labels by so many steps of Adam on the cross entropy: what a
network that knew the answer would say. Per-class IoU over the frames taken, every N-th of the
validation split.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from deploy.cli.console import print_table, run_main
from hmseg.blocks import resize
from hmseg.data.dataset import VOID
from hmseg.data.registry import open_dataset
from hmseg.train.confusion import Confusion


def shares(labels: Tensor, classes: int, cell: int) -> Tensor:
    """(1, K, H / cell, W / cell) shares of the classes in each cell, of labels (H, W)."""
    known = labels != VOID
    one_hot = F.one_hot(labels.masked_fill(~known, 0).long(), classes) * known[..., None]
    maps = one_hot.permute(2, 0, 1)[None].float()
    return F.avg_pool2d(maps, cell) / F.avg_pool2d(known[None, None].float(), cell).clamp(min=1e-6)


def fitted(scores: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Scores that the cross entropy of the frame's own labels has improved."""
    logits = (scores.clamp(min=1e-2).log()).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(steps):
        loss = F.cross_entropy(resize(logits, tuple(labels.shape)), labels[None].long(),
                               ignore_index=VOID)  # fmt: skip
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return logits.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--cells", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--fit", type=int, default=0)
    options = parser.parse_args()
    frames = open_dataset(options.dataset, options.data, "val")
    columns = {}
    for cell in options.cells:
        confusion = Confusion(len(frames.classes))
        for index in range(0, len(frames), options.every):
            labels = torch.from_numpy(frames.load(index)[1])
            scores = shares(labels, len(frames.classes), cell)
            if options.fit:
                scores = fitted(scores, labels, options.fit)
            found = resize(scores, (labels.shape[0], labels.shape[1])).argmax(1)[0]
            confusion.add(labels.numpy(), found.numpy())
        columns[f"1/{cell}"] = [*confusion.iou_or_none, confusion.miou]
    names = [*frames.classes.names, "mean"]
    rows = [
        (name, *("" if v is None else f"{100 * v:.1f}" for v in values))
        for name, *values in zip(names, *columns.values(), strict=True)
    ]
    print_table("IoU %", ("class", *columns), rows)


if __name__ == "__main__":
    run_main(main)
