"""Pointwise convolution plus a bilinear upsampling of a second, smaller map, in one kernel.

The linear cumulative fusion of MRMS (paper section 3.1): act(W x + b + up(low)).
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels.bilinear import Axis, AxisTable, blend_rows, sample_row
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile


@dataclass(frozen=True)
class UpsampleAddSpec:
    """x (1, cin, H, W), low (1, cout, low_height, low_width) -> y (1, cout, H, W)."""

    cin: int
    cout: int
    height: int
    width: int
    low_height: int
    low_width: int
    act: ir.Act = "none"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution."""
        return self.cin * self.cout * self.height * self.width

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns of the upsampling."""
        return Axis(self.low_height, self.height), Axis(self.low_width, self.width)


@dataclass(frozen=True)
class UpsampleAddSchedule:
    """Register tile and row ranges (parallel)."""

    tile: Tile
    row_tasks: int


def default_schedule(spec: UpsampleAddSpec, isa: Isa, threads: int = 2) -> UpsampleAddSchedule:
    """One range of rows per thread."""
    tile = best_tile(isa, spec.width, isa.blocks(spec.cout))
    return UpsampleAddSchedule(tile, min(threads, spec.height))


def pack(spec: UpsampleAddSpec, isa: Isa, weight: Array, bias: Array) -> list[NDArray[Any]]:
    """Constants in call order: weight, bias, row and column tables."""
    tables = [table for axis in spec.axes for table in axis.table()]
    return [pack_pointwise(isa, weight), pack_vector(isa, bias), *tables]


def emit(spec: UpsampleAddSpec, schedule: UpsampleAddSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, low, weight, bias, row and column tables, y)."""
    c, blocks = isa.lanes, isa.blocks(spec.cout)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, spec.cin, spec.height, spec.width))
        low = f.param("low", activation_shape(isa, spec.cout, spec.low_height, spec.low_width))
        w = f.param("weight", (blocks, spec.cin, c))
        b = f.param("bias", (blocks, c))
        rows, columns = AxisTable(f, "row", spec.axes[0]), AxisTable(f, "column", spec.axes[1])
        y = f.param("y", activation_shape(isa, spec.cout, spec.height, spec.width))

        def body() -> None:
            with ir.parallel(0, schedule.row_tasks) as task:
                blended = ir.scratch(blocks * spec.low_width * c)
                first_row = task * spec.height // schedule.row_tasks
                last_row = (task + 1) * spec.height // schedule.row_tasks
                with ir.loop(first_row, last_row) as row:
                    blend_rows(isa, low, blocks, spec.low_width, rows, row, blended)

                    def group(first: Any, ob: int) -> None:  # noqa: ANN401
                        def tile(begin: Any, px: int) -> None:  # noqa: ANN401
                            acc = ir.Registers(px * ob, c)
                            for p in range(px):
                                sample = columns.at(begin + p, c)
                                for o in range(ob):
                                    acc[p * ob + o] = ir.load(
                                        b, first + o, 0, lanes=c
                                    ) + sample_row(blended, (first + o) * spec.low_width, sample, c)
                            matmul_tile(
                                isa,
                                px,
                                ob,
                                spec.cin,
                                x=lambda p, block, lane: x[0, block, row, begin + p, lane],
                                w=lambda o, block, lane: ir.load(
                                    w, first + o, block * c + lane, 0, lanes=c
                                ),
                                init=None,
                                finish=lambda p, o, v: ir.store(
                                    y,
                                    ir.clamp(v, spec.act, c),
                                    0,
                                    first + o,
                                    row,
                                    begin + p,
                                    0,
                                    lanes=c,
                                ),
                                registers=acc,
                            )

                        ir.over_tiles(spec.width, min(schedule.tile.px, spec.width), tile)

                    ir.over_tiles(blocks, schedule.tile.ob, group)

        return body

    return ir.prim_func("upsample_add", signature)
