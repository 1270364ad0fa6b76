"""Between the planar layout (1, C, H, W) and the blocked one (1, C/c, H, W, c)."""

from dataclasses import dataclass
from typing import Any

from deploy.kernels import ir
from deploy.kernels.isa import Isa
from deploy.kernels.layout import activation_shape


@dataclass(frozen=True)
class ConvertSpec:
    """One float32 activation."""

    channels: int
    height: int
    width: int

    @property
    def macs(self) -> int:
        """None: it only moves data."""
        return 0


def emit_pack(spec: ConvertSpec, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x planar, y blocked); channels beyond the real ones become zero."""

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, spec.channels, spec.height, spec.width))
        y = f.param("y", activation_shape(isa, spec.channels, spec.height, spec.width))

        def block(index: ir.Expr, row: ir.Expr, real: int) -> None:
            with ir.serial(0, spec.width) as column:
                for lane in range(isa.lanes):
                    value = (
                        x[0, index * isa.lanes + lane, row, column] if lane < real else ir.zero()
                    )
                    ir.store_scalar(y, value, 0, index, row, column, lane)

        return lambda: _over_rows(spec, isa, block)

    return ir.prim_func("pack", signature)


def emit_unpack(spec: ConvertSpec, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x blocked, y planar)."""

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, spec.channels, spec.height, spec.width))
        y = f.param("y", (1, spec.channels, spec.height, spec.width))

        def block(index: ir.Expr, row: ir.Expr, real: int) -> None:
            for lane in range(real):
                with ir.serial(0, spec.width) as column:
                    value = x[0, index, row, column, lane]
                    ir.store_scalar(y, value, 0, index * isa.lanes + lane, row, column)

        return lambda: _over_rows(spec, isa, block)

    return ir.prim_func("unpack", signature)


def _over_rows(spec: ConvertSpec, isa: Isa, block: Any) -> None:  # noqa: ANN401
    full, tail = divmod(spec.channels, isa.lanes)
    with ir.parallel(0, spec.height) as row:
        if full:
            with ir.serial(0, full) as index:
                block(index, row, isa.lanes)
        if tail:
            block(full, row, tail)
