"""The high-resolution end of the MRMS head in one kernel (paper section 3.1).

fuse = act(W2 relu6((W1 x + b1) * gate + up(low)) + b2). The middle, 256 channels wide and the
largest tensor of the head, exists in segments of a row only, small enough for the caches.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels.bilinear import Axis, AxisTable, blend_rows, sample_row
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile

SEGMENT_BYTES = 80 << 10


@dataclass(frozen=True)
class LocalGlobalSpec:
    """x (1, cin, H, W), gate (1, mid, 1, 1) if any, low (1, mid, low_height, low_width) ->
    y (1, cout, H, W)."""

    cin: int
    mid: int
    cout: int
    height: int
    width: int
    low_height: int
    low_width: int
    gate: bool = True
    mid_act: ir.Act = "relu6"
    act: ir.Act = "relu6"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both convolutions."""
        return self.mid * (self.cin + self.cout) * self.height * self.width

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns of the upsampling."""
        return Axis(self.low_height, self.height), Axis(self.low_width, self.width)


@dataclass(frozen=True)
class LocalGlobalSchedule:
    """Pixels of a row at once, row ranges (parallel), tiles of the two convolutions."""

    segment: int
    row_tasks: int
    mid_tile: Tile
    out_tile: Tile


def default_schedule(spec: LocalGlobalSpec, isa: Isa, threads: int = 2) -> LocalGlobalSchedule:
    """Equal segments under 80 KB, one range of rows per thread."""
    row_bytes = 4 * isa.lanes * isa.blocks(spec.mid) * spec.width
    segment = -(-spec.width // -(-row_bytes // SEGMENT_BYTES))
    return LocalGlobalSchedule(
        segment,
        min(threads, spec.height),
        best_tile(isa, segment, isa.blocks(spec.mid)),
        best_tile(isa, segment, isa.blocks(spec.cout)),
    )


def pack(
    spec: LocalGlobalSpec, isa: Isa, *, mid: tuple[Array, Array], out: tuple[Array, Array]
) -> list[NDArray[Any]]:
    """Constants in call order: W1, b1, W2, b2, row and column tables."""
    packed: list[NDArray[Any]] = []
    for weight, bias in (mid, out):
        packed += [pack_pointwise(isa, weight), pack_vector(isa, bias)]
    return packed + [table for axis in spec.axes for table in axis.table()]


def emit(spec: LocalGlobalSpec, schedule: LocalGlobalSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, gate], low, W1, b1, W2, b2, row and column tables, y)."""
    c, mid, out = isa.lanes, isa.blocks(spec.mid), isa.blocks(spec.cout)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, spec.cin, spec.height, spec.width))
        gate = f.param("gate", activation_shape(isa, spec.mid, 1, 1)) if spec.gate else None
        low = f.param("low", activation_shape(isa, spec.mid, spec.low_height, spec.low_width))
        w1, b1 = f.param("mid_weight", (mid, spec.cin, c)), f.param("mid_bias", (mid, c))
        w2, b2 = f.param("out_weight", (out, spec.mid, c)), f.param("out_bias", (out, c))
        rows, columns = AxisTable(f, "row", spec.axes[0]), AxisTable(f, "column", spec.axes[1])
        y = f.param("y", activation_shape(isa, spec.cout, spec.height, spec.width))

        def widen(row: Any, left: Any, size: int, blended: Any, middle: Any) -> None:  # noqa: ANN401
            def group(first: Any, ob: int) -> None:  # noqa: ANN401
                def tile(begin: Any, px: int) -> None:  # noqa: ANN401
                    samples: dict[int, Any] = {}

                    def finish(p: int, o: int, value: Any) -> None:  # noqa: ANN401
                        if p not in samples:
                            samples[p] = columns.at(left + begin + p, c)
                        offset = (first + o) * spec.low_width
                        if gate is not None:
                            value = value * ir.load(gate, 0, first + o, 0, 0, 0, lanes=c)
                        value = value + sample_row(blended, offset, samples[p], c)
                        index = ((first + o) * schedule.segment + begin + p) * c
                        ir.store(middle, ir.clamp(value, spec.mid_act, c), index, lanes=c)

                    matmul_tile(
                        isa,
                        px,
                        ob,
                        spec.cin,
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
                        spec.mid,
                        x=lambda p, block, lane: middle[
                            (block * schedule.segment + begin + p) * c + lane
                        ],
                        w=lambda o, block, lane: ir.load(
                            w2, first + o, block * c + lane, 0, lanes=c
                        ),
                        init=lambda p, o: ir.load(b2, first + o, 0, lanes=c),
                        finish=lambda p, o, v: ir.store(
                            y,
                            ir.clamp(v, spec.act, c),
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
                blended = ir.scratch(mid * spec.low_width * c)
                middle = ir.scratch(mid * schedule.segment * c)
                first = task * spec.height // schedule.row_tasks
                last = (task + 1) * spec.height // schedule.row_tasks
                with ir.loop(first, last) as row:
                    blend_rows(isa, low, mid, spec.low_width, rows, row, blended)

                    def segment(left: Any, size: int) -> None:  # noqa: ANN401
                        widen(row, left, size, blended, middle)
                        narrow(row, left, size, middle)

                    ir.over_tiles(spec.width, schedule.segment, segment)

        return body

    return ir.prim_func("local_global", signature)
