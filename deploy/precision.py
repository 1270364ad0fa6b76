"""What the maps of a network lie in memory as; sums are float32 in every precision."""

from typing import Literal

from lut.errors import UserError

Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def parse_precision(text: str) -> Precision:
    """fp32 or fp16; raises UserError for anything else."""
    for precision in PRECISIONS:
        if text == precision:
            return precision
    raise UserError(f"unknown precision {text!r}: choose {' or '.join(PRECISIONS)}")
