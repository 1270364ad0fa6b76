"""The high-resolution end of the MRMS head in one kernel (paper section 3.1).

fuse = act(W2 relu6((W1 x + b1) * gate + up(low)) + b2). The middle, 256 channels wide and the
largest tensor of the head, exists in segments of a row only, small enough for the caches.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels.bilinear import blend_rows, sample_row
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile
from lut.ops import LocalGlobal

SEGMENT_BYTES = 80 << 10


@dataclass(frozen=True)
class LocalGlobalSchedule:
    """Pixels of a row at once, row ranges (parallel), tiles of the two convolutions."""

    segment: int
    row_tasks: int
    mid_tile: Tile
    out_tile: Tile


def default_schedule(op: LocalGlobal, isa: Isa, threads: int = 2) -> LocalGlobalSchedule:
    """Equal segments under 80 KB, one range of rows per thread."""
    row_bytes = 4 * isa.lanes * isa.blocks(op.mid) * op.width
    segment = -(-op.width // -(-row_bytes // SEGMENT_BYTES))
    return LocalGlobalSchedule(
        segment,
        min(threads, op.height),
        best_tile(isa, segment, isa.blocks(op.mid)),
        best_tile(isa, segment, isa.blocks(op.cout)),
    )


def pack(
    op: LocalGlobal, isa: Isa, *, mid: tuple[Array, Array], out: tuple[Array, Array]
) -> list[NDArray[Any]]:
    """Constants in call order: W1, b1, W2, b2, row and column tables."""
    packed: list[NDArray[Any]] = []
    for weight, bias in (mid, out):
        packed += [pack_pointwise(isa, weight), pack_vector(isa, bias)]
    return packed + [table for axis in axes_of(op) for table in axis.table()]


def emit(op: LocalGlobal, schedule: LocalGlobalSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, gate], low, W1, b1, W2, b2, row and column tables, y)."""
    c, mid, out = isa.lanes, isa.blocks(op.mid), isa.blocks(op.cout)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, op.cin, op.height, op.width))
        gate = f.param("gate", activation_shape(isa, op.mid, 1, 1)) if op.gate else None
        low = f.param("low", activation_shape(isa, op.mid, op.low_height, op.low_width))
        w1, b1 = f.param("mid_weight", (mid, op.cin, c)), f.param("mid_bias", (mid, c))
        w2, b2 = f.param("out_weight", (out, op.mid, c)), f.param("out_bias", (out, c))
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = f.param("y", activation_shape(isa, op.cout, op.height, op.width))

        def widen(row: Any, left: Any, size: int, blended: Any, middle: Any) -> None:  # noqa: ANN401
            def group(first: Any, ob: int) -> None:  # noqa: ANN401
                def tile(begin: Any, px: int) -> None:  # noqa: ANN401
                    samples: dict[int, Any] = {}

                    def finish(p: int, o: int, value: Any) -> None:  # noqa: ANN401
                        if p not in samples:
                            samples[p] = columns.at(left + begin + p, c)
                        offset = (first + o) * op.low_width
                        if gate is not None:
                            value = value * ir.load(gate, 0, first + o, 0, 0, 0, lanes=c)
                        value = value + sample_row(blended, offset, samples[p], c)
                        index = ((first + o) * schedule.segment + begin + p) * c
                        ir.store(middle, ir.activate(value, op.mid_act, c), index, lanes=c)

                    matmul_tile(
                        isa,
                        px,
                        ob,
                        op.cin,
                        x=lambda p, block, lane: x[0, block, row, left + begin + p, lane],
                        w=lambda o, block, lane: ir.load(
                            w1, first + o, block * c + lane, 0, lanes=c
                        ),
                        init=lambda p, o: ir.load(b1, first + o, 0, lanes=c),
                        finish=finish,
                    )

                ir.over_tiles(size, min(schedule.mid_tile.px, size), tile)

            ir.over_tiles(mid, schedule.mid_tile.ob, group)

        def narrow(row: Any, left: Any, size: int, middle: Any) -> None:  # noqa: ANN401
            def group(first: Any, ob: int) -> None:  # noqa: ANN401
                def tile(begin: Any, px: int) -> None:  # noqa: ANN401
                    matmul_tile(
                        isa,
                        px,
                        ob,
                        op.mid,
                        x=lambda p, block, lane: middle[
                            (block * schedule.segment + begin + p) * c + lane
                        ],
                        w=lambda o, block, lane: ir.load(
                            w2, first + o, block * c + lane, 0, lanes=c
                        ),
                        init=lambda p, o: ir.load(b2, first + o, 0, lanes=c),
                        finish=lambda p, o, v: ir.store(
                            y,
                            ir.activate(v, op.act, c),
                            0,
                            first + o,
                            row,
                            left + begin + p,
                            0,
                            lanes=c,
                        ),
                    )

                ir.over_tiles(size, min(schedule.out_tile.px, size), tile)

            ir.over_tiles(out, schedule.out_tile.ob, group)

        def body() -> None:
            with ir.parallel(0, schedule.row_tasks) as task:
                blended = ir.scratch(mid * op.low_width * c)
                middle = ir.scratch(mid * schedule.segment * c)
                first = task * op.height // schedule.row_tasks
                last = (task + 1) * op.height // schedule.row_tasks
                with ir.loop(first, last) as row:
                    blend_rows(isa, low, mid, op.low_width, rows, row, blended)

                    def segment(left: Any, size: int) -> None:  # noqa: ANN401
                        widen(row, left, size, blended, middle)
                        narrow(row, left, size, middle)

                    ir.over_tiles(op.width, schedule.segment, segment)

        return body

    return ir.prim_func("local_global", signature)
