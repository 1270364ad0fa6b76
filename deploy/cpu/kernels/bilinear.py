"""Rows of a blocked map between two sizes: blended from two, then sampled."""

from deploy import ir
from deploy.bilinear import AxisTable
from deploy.cpu.isa import Isa


def blend_rows(
    isa: Isa, x: ir.Buffer, blocks: int, width: int, rows: AxisTable, y: ir.Expr, out: ir.Buffer
) -> None:
    """The row of x (1, blocks, H, width, c) that belongs to output row y, into `out`
    (blocks * width * c floats)."""
    c = isa.lanes
    y0, y1, w0, w1 = rows.at(y, c)
    with ir.serial(0, blocks) as b, ir.serial(0, width) as i:
        value = ir.load(x, 0, b, y0, i, 0, lanes=c) * w0 + ir.load(x, 0, b, y1, i, 0, lanes=c) * w1
        ir.store(out, value, (b * width + i) * c, lanes=c)


def sample_row(
    blended: ir.Buffer,
    offset: ir.Expr,
    sample: tuple[ir.Expr, ir.Expr, ir.Expr, ir.Expr],
    lanes: int,
) -> ir.Expr:
    """A vector of a blended row: `offset` in pixels, `sample` what AxisTable.at gave."""
    x0, x1, w0, w1 = sample
    left = ir.load(blended, (offset + x0) * lanes, lanes=lanes)
    right = ir.load(blended, (offset + x1) * lanes, lanes=lanes)
    return left * w0 + right * w1
