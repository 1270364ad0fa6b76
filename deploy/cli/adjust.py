"""hmseg adjust."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import options, training_options
from deploy.cli.console import print_json, print_table, say
from lut.errors import UserError


def adjust(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of hmseg train (.safetensors).")],
    data: training_options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The adjusted checkpoint.")],
    dataset: training_options.Dataset = "camvid",
    split: Annotated[str, typer.Option("--split", help="Fit to train, val or test.")] = "train",
    as_json: options.Json = False,
) -> None:
    """Shift a trained network's class scores for the best mean IoU; it costs nothing at run time.

    Rare classes gain where fewest wrong pixels are not the best mean IoU. The shift is fitted to a
    split's frames: to the training split by default, so that validation stays a measure.
    """
    from hmseg.data.registry import open_dataset
    from hmseg.train.adjust import adjust as adjust_it
    from hmseg.train.checkpoint import Checkpoint
    from lut.files import check_writable

    if checkpoint.resolve() == out.resolve():
        raise UserError(f"--out {out} is the checkpoint itself: name another file")
    frames = open_dataset(dataset, data, split)
    known = Checkpoint.load(checkpoint).classes
    if known != frames.classes.names:
        raise UserError(f"{checkpoint}: trained for other classes than {dataset}'s")
    check_writable(out)
    result, offsets = adjust_it(checkpoint, frames)
    result.save(out)
    if as_json:
        found = dict(zip(known, offsets.values, strict=True))
        print_json({"offsets": found, "before": offsets.before, "after": offsets.after})
        return
    rows = [(name, f"{value:+.2f}") for name, value in zip(known, offsets.values, strict=True)]
    print_table("", ("class", "offset"), rows)
    say(
        f"mean IoU of {split}: {100 * offsets.before:.2f}% before, {100 * offsets.after:.2f}% with "
        f"these offsets: {out}"
    )
