"""How the work is cut: rows into ranges and strips, channels into chunks."""

from collections.abc import Callable
from dataclasses import dataclass

from deploy import ir
from deploy.cpu.isa import Isa


@dataclass(frozen=True)
class Span:
    """Columns of a row that is `width` wide: `columns` of them from `begin` on, of which at least
    `inside` lie inside the row. Those outside need not be made."""

    width: int
    begin: ir.Expr
    columns: int
    inside: int

    @property
    def whole(self) -> bool:
        """All columns of the row, known before the kernel runs."""
        return isinstance(self.begin, int) and self.columns == self.width

    def over_tiles(self, px: int, tile: Callable[[ir.Expr], None]) -> None:
        """tile(first column) for tiles of px columns, at most `inside`. They overlap at the end of
        the span and of the row instead of being shorter."""
        with ir.serial(0, -(-self.columns // px)) as t:
            most = ir.minimum(self.begin + self.columns, self.width) - px
            tile(ir.bind(ir.maximum(ir.minimum(self.begin + t * px, most), 0)))


@dataclass(frozen=True)
class Chunk:
    """Neighbouring channels, from block `first` on: `channels` real ones in `blocks` blocks."""

    first: ir.Expr
    channels: int
    blocks: int


def row_range(task: ir.Expr, tasks: int, rows: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
    """Rows [first, last) of one of the tasks among which `rows` are shared."""
    return task * rows // tasks, (task + 1) * rows // tasks


def over_strips(width: int, size: int, strip: Callable[[ir.Expr], None]) -> None:
    """strip(first column): `size` columns, one strip after the other; the last one overlaps and
    does its columns anew."""
    if size == width:
        strip(0)
        return
    with ir.serial(0, -(-width // size)) as i:
        strip(ir.bind(ir.minimum(i * size, width - size)))


def over_chunks(isa: Isa, channels: int, size: int, chunk: Callable[[Chunk], None]) -> None:
    """Channels in chunks of `size` blocks, a shorter one last."""
    full, tail = divmod(channels, size * isa.lanes)
    whole = size * isa.lanes
    if full > 1:
        with ir.serial(0, full) as i:
            chunk(Chunk(ir.bind(i * size), whole, size))
    elif full:
        chunk(Chunk(0, whole, size))
    if tail:
        chunk(Chunk(full * size, tail, isa.blocks(tail)))
