"""The first 3x3 convolution at stride 2, straight from the camera's image.

From a uint8 NHWC image, the scale and the mean and std of the normalisation are applied while a
row is brought into a small ring of float rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_normalisation, pack_vector
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.stem import StemRows
from deploy.cpu.rows.stem_bytes import StemBytes, pack_stem_bytes
from deploy.cpu.scales import codes, unit_of, writing
from deploy.cpu.window import window_of
from deploy.grid import Scales
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as KERNEL


@dataclass(frozen=True)
class StemSchedule:
    """Register tile and row ranges (parallel)."""

    tile: Tile
    row_tasks: int


def default_schedule(op: Stem, isa: Isa, threads: int = 2) -> StemSchedule:
    """One range of rows per thread. At most 16 accumulators: the addresses of the strided pixels
    take registers too, and a larger tile spills (105 against 206 GFLOP/s with AVX-512)."""
    window = window_of(op)
    tile = best_tile(isa, window.out_width, isa.blocks(op.cout))
    tile = Tile(max(1, min(tile.px, 16 // tile.ob)), tile.ob)
    return StemSchedule(tile, min(threads, window.out_height))


def pack(
    op: Stem,
    isa: Isa,
    weight: Array,
    bias: Array,
    *,
    scale: float = 1 / 255,
    mean: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    std: Sequence[float] | NDArray[np.float64] = (1.0, 1.0, 1.0),
    scales: Scales | None = None,
) -> list[NDArray[Any]]:
    """Constants in call order: weight (O/c, k*k*3, c), bias, and for uint8 the normalisation.

    In int8 `scales` are of the normalised image, a map that is never written, and of y: codes of
    y and of that map, what `StemBytes` has as weights, the normalisation to quanta.
    """
    if scales is not None:
        (image,), y = scales.inputs, scales.output
        packed = [
            codes(writing(y), writing(image)),
            *pack_stem_bytes(isa, weight, bias, image, scales.weights[0], unit_of(op.act, y)),
        ]
        if op.source == "uint8_nhwc":
            mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
            shifted = mean / image.scale - image.zero * std
            packed.append(pack_normalisation(isa, scale / image.scale, shifted, std))
        return packed
    out, c = weight.shape[0], isa.lanes
    taps = np.zeros((isa.blocks(out) * c, KERNEL**2 * CHANNELS), np.float32)
    taps[:out] = weight.transpose(0, 2, 3, 1).reshape(out, -1)
    blocked = np.ascontiguousarray(taps.reshape(-1, c, taps.shape[1]).transpose(0, 2, 1))
    packed = [blocked, pack_vector(isa, bias)]
    if op.source == "uint8_nhwc":
        packed.append(pack_normalisation(isa, scale, mean, std))
    return packed


def stem_rows(isa: Isa, f: ir.PrimFuncBuilder, op: Stem, tile: Tile) -> StemRows | StemBytes:
    """What makes the rows; its parameters are declared."""
    if isa.element.integer:
        return StemBytes(isa, f, op, tile)
    return StemRows(isa, f, op, tile)


def emit(op: Stem, schedule: StemSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, constants, y)."""
    tasks, height = schedule.row_tasks, window_of(op).out_height

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        rows = stem_rows(isa, f, op, schedule.tile)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                first, last = map(ir.bind, row_range(task, tasks, height))
                make = rows.start(first, *rows.whole_row())
                with ir.loop(first, last) as row:
                    make(row, y.row(row).store)

        return body

    return ir.prim_func("stem", signature)
