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
    as_json: options.Json = False,
) -> None:
    """Shift a trained network's class scores for the best mean IoU.

    It costs nothing at run time. Rare classes gain: the class of the largest probability is not the
    best choice for them. The shift is fitted to the training split, so that validation stays a
    measure.
    """
    from hmseg.data.registry import open_dataset
    from hmseg.train.adjust import adjust as adjust_it
    from lut.files import check_writable

    if out.exists():
        raise UserError(f"--out {out} is there already: name another file")
    frames = open_dataset(dataset, data, "train")
    check_writable(out)
    result, offsets = adjust_it(checkpoint, frames)
    result.save(out)
    found = dict(zip(result.classes, offsets.values, strict=True))
    if as_json:
        print_json({"offsets": found, "before": offsets.before, "after": offsets.after})
        return
    print_table("", ("class", "offset"), [(name, f"{value:+.2f}") for name, value in found.items()])
    say(
        f"mean IoU of the training split: {100 * offsets.before:.2f}% before, "
        f"{100 * offsets.after:.2f}% with these offsets: {out}"
    )
