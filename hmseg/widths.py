"""The widths that the genotype does not choose, and how they are scaled. No torch."""

STEM_WIDTH = 32
HEAD_WIDTH = 256  # the head's widths are the same in the Tiny networks
TAIL_WIDTH = 128


def scale_channels(channels: int, width: float) -> int:
    """MobileNetV2's rounding of channels * width to a multiple of 8, never below 90%."""
    target = channels * width
    rounded = max(8, int(target + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * target else rounded
