"""What the numbers of an int8 operation mean: what `pack` takes beside weights, and the constants
that follow from it.

The convention is that of ONNX's QuantizeLinear and DequantizeLinear: a map is uint8 with one scale
and one zero point, value = (q - zero) * scale; weights are int8 with a scale per output channel and
zero point 0; a bias is int32 in units of the input's scale times the weights'. A kernel sums
exactly in int32, a bias packed as bias - zero_in * (sum of the channel's weights). Then in float32,
with one rounding a line:

    t = float(sum)
    v = fma(t, multiplier[o], start)        # to quanta of the output, or to real numbers
    q = saturate(round_half_to_even(v))

`start` is the output's zero point, or another map that is added, fma(q_other, factor, shift) in the
same unit. Where a function lies between (an activation that saturation is not, a gate), v is real:
multiplier = scale_in * scale_w, start 0 or a real map, and q = saturate(round(fma(f(v), 1 / scale,
zero))).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.cpu.isa import Isa
from deploy.cpu.layout import pack_pointwise
from deploy.grid import Grid, Scales
from lut.errors import UserError
from lut.ops import Activation

Codes = NDArray[np.float32]


REAL = Grid(1.0, 0)  # the unit of values that functions are taken of


def unit_of(act: Activation, of: Grid, wide: bool = False) -> Grid:
    """What sums are brought to: the output's quanta, or real numbers where a function follows, or
    floats are written."""
    return of if act == "none" and not wide else REAL


def reading(of: Grid, unit: Grid = REAL) -> tuple[float, float]:
    """Factor and shift from quanta to a unit, its zero point added."""
    factor = of.scale / unit.scale
    return factor, unit.zero - of.zero * factor


def averaging(of: Grid, unit: Grid, pixels: int) -> tuple[float, float]:
    """Factor and shift from sums of so many quanta to the mean in a unit, its zero point added."""
    factor, shift = reading(of, unit)
    return factor / pixels, shift


def writing(of: Grid) -> tuple[float, float]:
    """Factor and shift from real numbers to quanta, the zero point added."""
    return 1 / of.scale, of.zero


def codes(*rows: tuple[float, float]) -> Codes:
    """(n, 2): parameter `codes` of a kernel (`deploy.cpu.rows.codes`)."""
    return np.array(rows, np.float32).reshape(len(rows), 2)


def real_codes(scales: Scales) -> Codes:
    """Of a kernel that computes in real numbers: of y, and of what is read."""
    return codes(writing(scales.output), *[reading(x) for x in scales.inputs])


def pack_per_channel(isa: Isa, values: NDArray[Any]) -> NDArray[Any]:
    """(..., C) -> (C/c, ..., c), of the same type, with zeros behind the last channel."""
    *outer, channels = values.shape
    padded = np.zeros((*outer, isa.blocks(channels) * isa.lanes), values.dtype)
    padded[..., :channels] = values
    blocked = padded.reshape(*outer, -1, isa.lanes)
    return np.ascontiguousarray(np.moveaxis(blocked, -2, 0))


def pack_sums(
    isa: Isa, weight: NDArray[Any], bias: NDArray[Any], x: Grid,
    weight_scale: NDArray[np.float32], unit: Grid,
) -> list[NDArray[Any]]:  # fmt: skip
    """Bias (O/c, c) int32 with what the input's zero point asks for, multiplier (O/c, c) float32
    from sums to a unit. Raises UserError where sums or results do not fit 32 bits."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    corrected = bias.astype(np.int64) - (x.zero - isa.element.offset) * rows.sum(1)
    multiplier = x.scale * weight_scale.astype(np.float64) / unit.scale
    largest = np.abs(bias.astype(np.int64)) + 255 * np.abs(rows).sum(1)
    if max(largest.max(), (largest * multiplier).max() + 1e6) >= 2**31:
        raise UserError(
            "an int8 layer's scales and bias are too far apart for 32 bits: calibrate with more "
            "frames, or keep this layer in float32"
        )
    return [
        pack_per_channel(isa, corrected.astype(np.int32)),
        pack_per_channel(isa, multiplier.astype(np.float32)),
    ]


def pack_product(
    isa: Isa, weight: NDArray[Any], bias: NDArray[Any], x: Grid,
    weight_scale: NDArray[np.float32], unit: Grid,
) -> list[NDArray[Any]]:  # fmt: skip
    """The constants of a `Product`: weight, bias, multiplier."""
    return [
        pack_pointwise(isa, weight.astype(np.float32)),
        *pack_sums(isa, weight, bias, x, weight_scale, unit),
    ]
