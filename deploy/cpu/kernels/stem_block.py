"""The stem and the block behind it in one kernel: 3x3 conv at stride 2 -> depthwise -> 1x1.

Every MobileNetV2 starts so. The stem's output, the largest map of the network, exists in a ring of
rows only: the kernel is an inverted residual whose hidden rows come from the image instead of an
expansion. Neighbouring ranges of rows both compute the (kernel - 1) rows of the halo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels import inverted_residual, stem
from deploy.cpu.kernels.depthwise_tile import best_px
from deploy.cpu.kernels.inverted_residual import InvertedResidualSchedule, InvertedResidualSpec
from deploy.cpu.kernels.inverted_residual_emitter import Emitter
from deploy.cpu.kernels.stem import StemRows, StemSpec
from deploy.cpu.layout import Array


@dataclass(frozen=True)
class StemBlockSpec:
    """Image (1, height, width, 3) uint8, or (1, 3, height, width) float32 already normalised ->
    1x1(act(depthwise(stem_act(conv)))) (1, cout, ...): `hidden` channels at half the size, then
    the depthwise window's stride."""

    hidden: int
    cout: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    source: Literal["uint8_nhwc", "float32_nchw"] = "uint8_nhwc"
    stem_act: ir.Act = "relu6"
    act: ir.Act = "relu6"

    @property
    def stem(self) -> StemSpec:
        """The first convolution alone."""
        return StemSpec(self.hidden, self.height, self.width, self.source, self.stem_act)

    @property
    def block(self) -> InvertedResidualSpec:
        """What follows, with the stem in the place of the expansion."""
        window = self.stem.window
        return InvertedResidualSpec(
            stem.CHANNELS, self.hidden, self.cout, window.out_height, window.out_width,
            self.kernel, self.stride, self.dilation, act=self.act,
        )  # fmt: skip

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the real channels."""
        out = self.block.out_height * self.block.out_width
        return self.stem.macs + out * self.hidden * (self.kernel**2 + self.cout)


@dataclass(frozen=True)
class StemBlockSchedule:
    """Tiles of the three convolutions and row ranges (parallel)."""

    stem_tile: Tile
    depthwise_px: int
    project_tile: Tile
    row_tasks: int


def default_schedule(spec: StemBlockSpec, isa: Isa, threads: int = 2) -> StemBlockSchedule:
    """The stem's tile by its own rule; one range of rows per thread."""
    width = spec.block.out_width
    return StemBlockSchedule(
        stem.default_schedule(spec.stem, isa, threads).tile,
        best_px(isa, spec.kernel, width),
        best_tile(isa, width, isa.blocks(spec.cout)),
        min(threads, spec.block.out_height),
    )


def pack(
    spec: StemBlockSpec,
    isa: Isa,
    *,
    first: tuple[Array, Array],
    depthwise: tuple[Array, Array],
    project: tuple[Array, Array],
    scale: float = 1 / 255,
    mean: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    std: Sequence[float] | NDArray[np.float64] = (1.0, 1.0, 1.0),
) -> list[NDArray[Any]]:
    """Constants in call order from (weight, bias) pairs in torch's shapes; the normalisation as in
    `stem.pack`."""
    block = inverted_residual.InvertedResidualSpec(
        spec.hidden, spec.hidden, spec.cout, 1, 1, spec.kernel, expand=False
    )
    return [
        *stem.pack(spec.stem, isa, *first, scale=scale, mean=mean, std=std),
        *inverted_residual.pack(block, isa, expand=None, depthwise=depthwise, project=project),
    ]


def emit(spec: StemBlockSpec, schedule: StemBlockSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, stem weight, bias[, normalisation], depthwise weight, bias, project weight,
    bias, y)."""
    return ir.prim_func("stem_block", lambda f: StemBlockEmitter(spec, schedule, isa, f).body)


class StemBlockEmitter(Emitter):
    """The inverted residual's loops, with rows of the stem for the expansion."""

    def __init__(
        self,
        spec: StemBlockSpec,
        schedule: StemBlockSchedule,
        isa: Isa,
        f: ir.PrimFuncBuilder,
        strip: int | None = None,
    ) -> None:
        self.stem, self.stem_tile = spec.stem, schedule.stem_tile
        whole = InvertedResidualSchedule(
            "rows",
            chunk=isa.blocks(spec.hidden),
            strip=strip or spec.block.out_width,
            tasks=schedule.row_tasks,
            expand_tile=schedule.stem_tile,
            depthwise_px=schedule.depthwise_px,
            project_tile=schedule.project_tile,
        )
        super().__init__(spec.block, whole, isa, f)

    def _source_parameters(self, f: ir.PrimFuncBuilder) -> None:
        self.rows = StemRows(self.stem, self.stem_tile, self.isa, f)

    def _start(self, first: ir.Expr, left: ir.Expr) -> None:
        self.image_ring = self.rows.start(first)

    def _fill_row(
        self,
        ring: ir.Buffer,
        start: ir.Expr,
        blocks: int,
        source: ir.Expr,
        slot: ir.Expr,
        left: ir.Expr,
    ) -> None:
        origin = left * self.spec.stride - self.spec.pad  # the stem's column of ring column 0

        def keep(block: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
            ir.store(ring, value, self._at(slot, block, column - origin), lanes=self.c)

        narrow = self.schedule.strip < self.spec.out_width
        inside = min(self.spec.width, self.ring_width - self.spec.pad)
        span = (origin, self.ring_width, inside) if narrow else None
        self.rows.next_row(self.image_ring, source, keep, span)
