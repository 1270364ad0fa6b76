"""Maps one behind the other, where no reader takes them where they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.codes import code_at, codes_of
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import codes, reading
from deploy.grid import Scales
from lut.ops import Concat


@dataclass(frozen=True)
class ConcatSchedule:
    """Ranges of rows (parallel)."""

    row_tasks: int


def default_schedule(op: Concat, isa: Isa, threads: int = 2) -> ConcatSchedule:
    """One range of rows per thread."""
    del isa
    return ConcatSchedule(min(threads, op.height))


def pack(op: Concat, isa: Isa, scales: Scales | None = None) -> list[Any]:
    """No constants; in int8, with `scales` of the maps and the output, codes from the quanta of
    each to the output's."""
    del op, isa
    return [] if scales is None else [codes(*[reading(x, scales.output) for x in scales.inputs])]


@dataclass(frozen=True)
class _Piece:
    """Lanes [sink, sink + lanes) of an output block come from `source` on of a part's block."""

    part: int
    block: int
    source: int
    sink: int
    lanes: int


def _pieces(isa: Isa, cin: tuple[int, ...]) -> list[list[_Piece]]:
    """Those of each output block."""
    c = isa.lanes
    pieces: list[list[_Piece]] = [[] for _ in range(isa.blocks(sum(cin)))]
    first = 0
    for part, channels in enumerate(cin):
        at = 0
        while at < channels:
            out = first + at
            lanes = min(c - out % c, c - at % c, channels - at)
            pieces[out // c].append(_Piece(part, at // c, at % c, out % c, lanes))
            at += lanes
        first += channels
    return pieces


def emit(op: Concat, schedule: ConcatSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x0, x1 ...[, codes], y)."""
    c, tasks, width = isa.lanes, schedule.row_tasks, op.width

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        parts = [Map(isa, f, f"x{i}", n, op.height, width) for i, n in enumerate(op.cin)]
        coded = codes_of(isa, f, len(parts))
        for number, part in enumerate(parts):
            part.reads = code_at(coded, number)
        y = Map(isa, f, "y", *op.output)

        def whole(part: int, source: int, sink: int, blocks: int, row: ir.Expr) -> None:
            with ir.serial(0, blocks) as block, ir.serial(0, width) as column:
                value = parts[part].vector(source + block, row, column)
                y.row(row).store(sink + block, column, value)

        def mixed(out: int, pieces: list[_Piece], row: ir.Expr) -> None:
            with ir.serial(0, width) as column:
                if sum(piece.lanes for piece in pieces) < c:
                    y.row(row).store(out, column, ir.const(0, c))
                for piece in pieces:
                    value = parts[piece.part].lanes(
                        piece.block, row, column, piece.source, piece.lanes
                    )
                    y.store(out, row, column, value, piece.sink, piece.lanes)

        def body() -> None:
            with ir.parallel(0, tasks) as task, ir.loop(*row_range(task, tasks, op.height)) as row:
                # Whole blocks of a part that lie on whole blocks of the output are one loop.
                out, blocks = 0, _pieces(isa, op.cin)
                while out < len(blocks):
                    first, run = blocks[out][0], 0
                    while out + run < len(blocks) and blocks[out + run] == [
                        _Piece(first.part, first.block + run, 0, 0, c)
                    ]:
                        run += 1
                    if run:
                        whole(first.part, first.block, out, run, row)
                    else:
                        mixed(out, blocks[out], row)
                    out += run or 1

        return body

    return ir.prim_func("concat", signature)
