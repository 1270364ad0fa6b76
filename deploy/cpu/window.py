"""The window of a convolution over a map: its size, and which of its taps lie inside."""

from dataclasses import dataclass

from deploy import ir
from lut.ops import STEM_KERNEL, STEM_STRIDE, Depthwise, InvertedResidual, Stem


@dataclass(frozen=True)
class Window:
    """A window over a map: padding dilation*(kernel//2), output ceil(size/stride)."""

    height: int
    width: int
    kernel: int
    stride: int
    dilation: int

    @property
    def pad(self) -> int:
        """Rows and columns of zeros on every side."""
        return self.dilation * (self.kernel // 2)

    @property
    def out_height(self) -> int:
        """Output rows."""
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        """Output columns."""
        return -(-self.width // self.stride)

    @property
    def interior(self) -> tuple[int, int]:
        """Output columns [first, last) of which every tap lies inside the map."""
        first = -(-self.pad // self.stride)
        reach = (self.kernel - 1) * self.dilation - self.pad
        last = (self.width - 1 - reach) // self.stride + 1
        return (first, last) if first < last else (self.out_width, self.out_width)


def window_of(op: Depthwise | InvertedResidual | Stem) -> Window:
    """The window that an operation moves over its input."""
    if isinstance(op, Stem):
        return Window(op.height, op.width, STEM_KERNEL, STEM_STRIDE, 1)
    return Window(op.height, op.width, op.kernel, op.stride, op.dilation)


def row_bounds(
    kernel: int, dilation: int, height: ir.Expr, top: ir.Expr
) -> tuple[ir.Expr, ir.Expr]:
    """Kernel rows [low, high) inside a map of `height` rows, for the output row whose first tap is
    row `top`."""
    low = ir.bind(ir.maximum(0, (dilation - 1 - top) // dilation))
    high = ir.bind(ir.minimum(kernel, (height - 1 - top) // dilation + 1))
    return low, high
