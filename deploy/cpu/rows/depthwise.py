"""Rows of a depthwise convolution, from a ring or straight from a map."""

from collections.abc import Callable

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.ring import Phase, Ring
from deploy.cpu.rows.stage import Keep
from deploy.cpu.tiles import accumulate_row
from deploy.cpu.window import row_bounds, window_of
from lut.ops import Depthwise


class DepthwiseRows:
    """act(window * x + b), `px` pixels in a register tile; two parameters, `NAMEweight`
    (C/c, k*k, c) and `NAMEbias` (C/c, c)."""

    def __init__(
        self, isa: Isa, f: ir.PrimFuncBuilder, op: Depthwise, px: int, name: str = ""
    ) -> None:
        self.isa, self.window, self.act, self.px = isa, window_of(op), op.act, px
        blocks = isa.blocks(op.channels)
        self._weight = f.param(f"{name}weight", (blocks, op.kernel**2, isa.lanes))
        self._bias = f.param(f"{name}bias", (blocks, isa.lanes))

    def ring_row(self, ring: Ring, phase: Phase, chunk: Chunk, y: ir.Expr, keep: Keep) -> None:
        """Row y of the phase, of the strip and the chunk whose rows are in the ring; columns and
        blocks count from the first of both."""
        window, dilation = self.window, ring.band.row_dilation
        top = ir.bind(y * window.stride - dilation * (window.kernel // 2))
        low, high = row_bounds(window.kernel, dilation, phase.rows(window.height), top)
        with ir.serial(0, chunk.blocks) as block:

            def tile(begin: ir.Expr, px: int) -> None:
                acc = self._start(chunk.first + block, px)
                with ir.loop(low, high) as ky:
                    slot = ring.slot(top + ky * dilation)
                    self._add_row(
                        acc,
                        px,
                        chunk.first + block,
                        ky,
                        lambda j: ring.vector(slot, block, begin * window.stride + j),
                    )
                for p in range(px):
                    keep(block, begin + p, ir.activate(acc[p], self.act, self.isa.lanes))

            ir.over_tiles(ring.band.strip, self.px, tile)

    def map_row(
        self, x: Map, block: ir.Expr, y: ir.Expr, keep: Keep, prefetch: ir.Expr | None = None
    ) -> None:
        """Row y of one channel block, read from a map without padding.

        Rows outside the map are skipped by the bounds of the loop over the kernel's rows; the
        columns whose taps reach outside have code of their own without those taps. `prefetch` is a
        row of x to ask for meanwhile.
        """
        window = self.window
        k, s, d, pad = window.kernel, window.stride, window.dilation, window.pad
        top = ir.bind(y * s - pad)
        low, high = row_bounds(k, d, window.height, top)

        def tile(begin: ir.Expr, px: int, valid: Callable[[int, int], bool]) -> None:
            if prefetch is not None:
                x.prefetch(block, prefetch, begin * s, px * s)
            acc = self._start(block, px)
            with ir.serial(low, high) as ky:
                self._add_row(
                    acc,
                    px,
                    block,
                    ky,
                    lambda j: x.vector(block, top + ky * d, begin * s - pad + j),
                    valid,
                )
            for p in range(px):
                keep(block, begin + p, ir.activate(acc[p], self.act, self.isa.lanes))

        def edge(first: int, last: int) -> None:
            for begin in range(first, last, self.px):

                def valid(p: int, kx: int, begin: int = begin) -> bool:
                    return 0 <= (begin + p) * s - pad + kx * d < window.width

                tile(begin, min(self.px, last - begin), valid)

        first, last = window.interior
        edge(0, first)
        if first < last:
            ir.over_tiles(
                last - first, self.px, lambda begin, px: tile(first + begin, px, _everywhere)
            )
            edge(last, window.out_width)

    def _start(self, block: ir.Expr, px: int) -> ir.Registers:
        acc = ir.Registers(px, self.isa.lanes)
        for p in range(px):
            acc[p] = ir.load(self._bias, block, 0, lanes=self.isa.lanes)
        return acc

    def _add_row(
        self,
        acc: ir.Registers,
        px: int,
        block: ir.Expr,
        ky: ir.Expr,
        x: Callable[[int], ir.Expr],
        valid: Callable[[int, int], bool] | None = None,
    ) -> None:
        window, lanes = self.window, self.isa.lanes

        def weight(kx: int) -> ir.Expr:
            return ir.load(self._weight, block, ky * window.kernel + kx, 0, lanes=lanes)

        accumulate_row(
            acc,
            px,
            window.kernel,
            window.stride,
            window.dilation,
            x=x,
            w=weight,
            valid=valid or _everywhere,
        )


def _everywhere(p: int, kx: int) -> bool:
    del p, kx
    return True
