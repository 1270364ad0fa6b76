"""Image sizes, written HxW everywhere."""

import re
from typing import NamedTuple

from lut.errors import UserError

MIN_SIDE = 64
MAX_SIDE = 16384


class Resolution(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


DEFAULT_RESOLUTION = Resolution(256, 512)


def parse_resolution(text: str) -> Resolution:
    """Read ``HEIGHTxWIDTH``; raises UserError unless both sides lie in 64..16384 pixels."""
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text.strip().lower(), re.ASCII)
    if not match:
        raise UserError(f"resolution {text!r}: write HEIGHTxWIDTH in pixels, such as 256x512")
    resolution = Resolution(int(match[1]), int(match[2]))
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in resolution):
        raise UserError(
            f"resolution {resolution}: both sides must lie between {MIN_SIDE} and {MAX_SIDE} pixels"
        )
    return resolution
