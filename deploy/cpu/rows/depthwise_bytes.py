"""Rows of a depthwise convolution of bytes: sums over four neighbouring columns at once."""

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.codes import Ending
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.ring import Phase, Ring
from deploy.cpu.rows.stage import Keep
from deploy.cpu.scales import pack_per_channel, pack_sums
from deploy.cpu.window import row_bounds, window_of
from deploy.grid import Grid
from lut.ops import Depthwise

GROUP = 4  # columns of one step


@dataclass(frozen=True)
class Taps:
    """How the taps of a kernel's row fall into windows of four columns.

    Windows begin at multiples of `step`, and an output at `offset` behind one: it takes `windows`
    of them, four columns apart, each with weights of its own, zero where there is no tap.
    """

    kernel: int

    @property
    def step(self) -> int:
        """The fewest windows among those with the fewest steps: a kernel of 5 takes two wherever it
        begins."""
        return 4 if self.kernel % GROUP == 1 else 2

    @property
    def windows(self) -> int:
        """Of one output."""
        return -(-(self.kernel + self.step - 1) // GROUP)

    def number(self, offset: int, window: int) -> int:
        """Of such weights in a row's."""
        return offset * self.windows + window

    def pack(self, row: NDArray[Any]) -> NDArray[Any]:
        """(..., kernel) -> (..., numbers, 4)."""
        numbers = self.step * self.windows
        packed = np.zeros((*row.shape[:-1], self.step, self.windows * GROUP), row.dtype)
        for offset in range(self.step):
            packed[..., offset, offset : offset + self.kernel] = row
        return packed.reshape(*row.shape[:-1], numbers, GROUP)


def pack_depthwise_bytes(
    isa: Isa, weight: NDArray[Any], bias: NDArray[Any], x: Grid,
    weight_scale: NDArray[np.float32], unit: Grid,
) -> list[NDArray[Any]]:  # fmt: skip
    """The constants of `DepthwiseBytes` from (C, 1, k, k)."""
    k = weight.shape[-1]
    taps = Taps(k).pack(weight[:, 0])  # (C, k, numbers, 4)
    blocked = pack_per_channel(isa, np.moveaxis(taps, 0, -1))  # (C/c, k, numbers, 4, c)
    together = np.swapaxes(blocked, -1, -2).reshape(*blocked.shape[:3], -1)
    of_row = weight[:, 0].astype(np.int32).sum(2) * (x.zero - isa.element.offset)
    packed_bias, multiplier = pack_sums(isa, weight, bias, x, weight_scale, unit)
    outside = pack_per_channel(isa, of_row.T.astype(np.int32))
    return [np.ascontiguousarray(together), packed_bias, outside, multiplier]


class DepthwiseBytes:
    """The ending of window * x + b, `px` outputs in a register tile. Parameters: `NAMEweight`
    (C/c, k, numbers, c * 4), `NAMEbias` (C/c, c), `NAMEoutside` (C/c, k, c), what a row of the
    kernel adds that lies outside the map, and `NAMEmultiplier` (C/c, c)."""

    def __init__(
        self, isa: Isa, f: ir.PrimFuncBuilder, op: Depthwise, px: int, ending: Ending,
        name: str = "",
    ) -> None:  # fmt: skip
        self.isa, self.window, self.px, self.ending = isa, window_of(op), px, ending
        self._taps = Taps(op.kernel)
        blocks, k, c = isa.blocks(op.channels), op.kernel, isa.lanes
        numbers = self._taps.step * self._taps.windows
        stored = isa.element.stored_weights
        self._weight = f.param(f"{name}weight", (blocks, k, numbers, c * GROUP), stored)
        self._bias = f.param(f"{name}bias", (blocks, c), isa.element.sums)
        self._outside = f.param(f"{name}outside", (blocks, k, c), isa.element.sums)
        self._multiplier = f.param(f"{name}multiplier", (blocks, c))

    def ring_row(self, ring: Ring, phase: Phase, chunk: Chunk, y: ir.Expr, keep: Keep) -> None:
        """Row y of the phase, of the strip and the chunk whose rows are in the ring; columns and
        blocks count from the first of both."""
        window, dilation, c = self.window, ring.band.row_dilation, self.isa.lanes
        top = ir.bind(y * window.stride - dilation * (window.kernel // 2))
        low, high = row_bounds(window.kernel, dilation, phase.rows(window.height), top)
        start = ir.Registers(1, c, self.isa.element.sums)
        with ir.serial(0, chunk.blocks) as block:
            number = chunk.first + block
            start[0] = ir.load(self._bias, number, 0, lanes=c)
            for rows in ((0, low), (high, window.kernel)):
                with ir.loop(*rows) as ky:
                    start[0] = start[0] + ir.load(self._outside, number, ky, 0, lanes=c)
            for first, count, outputs in self._classes(ring):
                with ir.serial(0, count) as i:
                    of = ir.bind(first + i) if count > 1 else first

                    def tile(begin: ir.Expr, px: int, of: ir.Expr = of) -> None:
                        acc = ir.Registers(px, c, self.isa.element.sums)
                        for p in range(px):
                            acc[p] = start[0]
                        with ir.loop(low, high) as ky:
                            slot = ring.slot(top + ky * dilation)
                            self._add_row(acc, px, ring, slot, block, number, ky, of, begin)
                        self._finish(acc, px, block, number, of, begin, keep)

                    ir.over_tiles(outputs, self.px, tile)

    def _classes(self, ring: Ring) -> list[tuple[int, int, int]]:
        """Outputs modulo `_period`: of classes first, first + 1 ... count, each so many outputs."""
        strip, period = ring.band.strip, self._period
        more = strip % period
        found = [(0, more, strip // period + 1), (more, period - more, strip // period)]
        return [(first, count, outputs) for first, count, outputs in found if count and outputs]

    @property
    def _period(self) -> int:
        """Outputs so far apart see columns of the same class."""
        return self.window.dilation // gcd(self.window.dilation, self.window.stride)

    def _add_row(
        self, acc: ir.Registers, px: int, ring: Ring, slot: ir.Expr, block: ir.Expr,
        number: ir.Expr, ky: ir.Expr, of: ir.Expr, begin: ir.Expr,
    ) -> None:  # fmt: skip
        element, c, taps = self.isa.element, self.isa.lanes, self._taps
        stride = self.window.stride * self._period // self.window.dilation
        column = of * self.window.stride  # of the class's first output
        first = column // ring.classes + begin * stride
        windows: dict[int, list[tuple[int, int]]] = {}
        for p in range(px):
            base = p * stride // taps.step * taps.step
            offset = p * stride - base
            for window in range(-(-(offset + taps.kernel) // GROUP)):
                use = (p, taps.number(offset, window))
                windows.setdefault(base + GROUP * window, []).append(use)
        used = sorted({n for uses in windows.values() for _, n in uses})
        weights = {n: ir.bind(element.weights(self._weight, number, ky, n, lanes=c)) for n in used}
        for at in sorted(windows):
            value = ir.bind(ring.operands(slot, block, column % ring.classes, first + at))
            for p, n in windows[at]:
                acc[p] = element.dot(acc[p], weights[n], value, c)

    def _finish(
        self, acc: ir.Registers, px: int, block: ir.Expr, number: ir.Expr, of: ir.Expr,
        begin: ir.Expr, keep: Keep,
    ) -> None:  # fmt: skip
        c, period = self.isa.lanes, self._period
        run = self.isa.element.run if period == 1 else 1
        multiplier = ir.bind(ir.load(self._multiplier, number, 0, lanes=c))
        start = self.ending.start
        for p in range(0, px, run):
            values = [
                ir.fma(
                    ir.cast(acc[q], "float32", c), multiplier,
                    ir.const(0, c) if start is None else start, c,
                )
                for q in range(p, min(p + run, px))
            ]  # fmt: skip
            keep(block, of + (begin + p) * period, *self.ending.apply(*values))
