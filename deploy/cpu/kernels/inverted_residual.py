"""The inverted residual in one kernel: expansion, depthwise, projection and residual.

The hidden tensor, up to six times wider than the input, never leaves the caches. It is produced
in chunks of channel blocks, row by row, in a ring of (k-1)d+1 rows that is padded with zeros left
and right, so that the depthwise step has no special columns. Two modes:

- ``rows``: ranges of output rows in parallel. Each row of depthwise results is projected at once,
  and added to the output row by row and chunk by chunk. Neighbouring ranges both compute the
  rows of the halo.
  A dilated convolution sees rows of one class only, those equal modulo the dilation: with such
  classes (phases) in parallel there is no halo, and behind a block of the same classes a thread
  finds its rows in its own cache.
- ``hid``: chunks in parallel, each over the whole height; the depthwise results are written,
  and a pointwise loop follows. No halo is computed twice.

Without an expansion there is neither ring nor halo, and both modes are the same.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels.depthwise_tile import Window, best_px
from deploy.cpu.kernels.inverted_residual_emitter import Emitter
from deploy.cpu.layout import (
    Array,
    pack_depthwise,
    pack_pointwise,
    pack_vector,
)

Mode = Literal["rows", "hid"]

PREFETCH_BYTES = 2048  # ahead
RING_BYTES = 256 << 10  # a quarter to a half of L2
STREAM_RING_BYTES = 512 << 10  # where narrower strips would break up the stream from memory


@dataclass(frozen=True)
class InvertedResidualSpec:
    """Input (1, cin, height, width), output (1, cout, ceil(height/stride), ceil(width/stride)).

    Without `expand` (expansion 1) hidden equals cin. `act` follows the expansion and the
    depthwise convolution; the projection is linear.
    """

    cin: int
    hidden: int
    cout: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    expand: bool = True
    residual: bool = False
    act: ir.Act = "relu6"

    @property
    def window(self) -> Window:
        """The geometry of the depthwise step."""
        return Window(self.height, self.width, self.kernel, self.stride, self.dilation)

    @property
    def pad(self) -> int:
        """Rows and columns of zeros on every side."""
        return self.window.pad

    @property
    def out_height(self) -> int:
        """Output rows."""
        return self.window.out_height

    @property
    def out_width(self) -> int:
        """Output columns."""
        return self.window.out_width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the real channels."""
        out = self.out_height * self.out_width
        expansion = self.cin * self.hidden * self.height * self.width if self.expand else 0
        return expansion + out * self.hidden * (self.kernel**2 + self.cout)


@dataclass(frozen=True)
class InvertedResidualSchedule:
    """How the work is cut.

    chunk: hidden blocks at once; strip: output columns at once; tasks: row ranges (``rows``) or
    pixel ranges of the projection (``hid``); the tiles are those of the three steps; prefetch: how
    many pixels ahead of the expansion the input is asked for (0: not at all); phases: how many
    classes of rows, by row number modulo phases, are computed apart (mode ``rows``; they divide the
    dilation).
    """

    mode: Mode
    chunk: int
    strip: int
    tasks: int
    expand_tile: Tile
    depthwise_px: int
    project_tile: Tile
    prefetch: int = 0
    phases: int = 1


def default_schedule(
    spec: InvertedResidualSpec, isa: Isa, threads: int = 2
) -> InvertedResidualSchedule:
    """The rule: ``rows`` while the recomputed halo is under 7% of the rows, else ``hid``."""
    phases = _phases(spec, isa, threads)
    halo = (max(1, threads // phases) - 1) * 2 * spec.pad / spec.height if spec.expand else 0.0
    rows = halo < 0.07 or isa.blocks(spec.hidden) < threads
    if rows:
        return _schedule(spec, isa, threads, "rows", phases)
    return _schedule(spec, isa, threads, "hid", 1)


def alternatives(
    spec: InvertedResidualSpec, isa: Isa, threads: int
) -> list[InvertedResidualSchedule]:
    """The best by rule of each way to share the work among the threads, the rule's own too: ranges
    of rows, classes of rows, chunks of hidden channels."""
    if not spec.expand:
        return []
    ways: set[tuple[Mode, int]] = {("rows", 1), ("rows", _even_phases(spec, threads)), ("hid", 1)}
    return [_schedule(spec, isa, threads, mode, phases) for mode, phases in sorted(ways)]


def _schedule(
    spec: InvertedResidualSpec, isa: Isa, threads: int, mode: Mode, phases: int
) -> InvertedResidualSchedule:
    hidden, out_width = isa.blocks(spec.hidden), spec.out_width
    ranges = max(1, threads // phases)
    reach = (spec.kernel - 1) * spec.dilation // phases + 1
    row_bytes = isa.lanes * 4 * (spec.width + 2 * spec.pad)  # of one channel block
    ring_block = min(reach, -(-spec.height // phases)) * row_bytes
    # Each chunk reads the input and the output again: where they do not stay in L2, all the hidden
    # channels of one row are made at once, in strips as wide as the image if possible.
    in_bytes = 4 * isa.lanes * isa.blocks(spec.cin) * spec.height * spec.width
    out_bytes = 4 * isa.lanes * isa.blocks(spec.cout) * spec.out_height * out_width
    streams = (in_bytes + out_bytes) // threads > isa.l2_bytes // 2
    if not spec.expand:
        chunk = hidden
    elif mode == "hid":
        share = hidden // threads if hidden % threads == 0 else hidden
        chunk = next(n for n in (_chunk(share, isa, ring_block), 5, 4, 3, 2, 1) if share % n == 0)
    elif streams:
        chunk = hidden
    elif phases > 1:
        # The fewest passes: each adds to the output, next to rows that another thread adds to.
        most = max(1, STREAM_RING_BYTES // ring_block)
        chunk = next(n for n in range(min(most, hidden), 0, -1) if hidden % n == 0)
    else:
        chunk = _chunk(hidden, isa, ring_block)
    strip = out_width
    if spec.expand:
        budget = STREAM_RING_BYTES if mode == "rows" and (streams or phases > 1) else RING_BYTES
        strip = -(-out_width // -(-ring_block * chunk // budget))
    columns = min(spec.width, (strip - 1) * spec.stride + (spec.kernel - 1) * spec.dilation + 1)
    pixels = strip if mode == "rows" else spec.out_height * out_width
    return InvertedResidualSchedule(
        mode,
        chunk,
        strip,
        min(ranges, spec.out_height),
        best_tile(isa, columns, chunk),
        best_px(isa, spec.kernel, strip),
        best_tile(isa, pixels, isa.blocks(spec.cout)),
        # Streaming from L3 or memory: the hardware prefetchers of Zen 5 leave 10-60% on the table.
        prefetch_pixels(isa) if streams else 0,
        phases,
    )


def _phases(spec: InvertedResidualSpec, isa: Isa, threads: int) -> int:
    """`_even_phases` where the weights leave room in L2: every thread reads all of them, in mode
    ``hid`` half of the expansion's."""
    weight_bytes = 4 * spec.hidden * (spec.cin + spec.cout)
    return 1 if weight_bytes > isa.l2_bytes // 2 else _even_phases(spec, threads)


def _even_phases(spec: InvertedResidualSpec, threads: int) -> int:
    """As many classes of rows as share evenly among the threads."""
    if not spec.expand or spec.stride > 1 or threads == 1:
        return 1
    even = spec.dilation % threads == 0
    phases = spec.dilation if even else math.gcd(spec.dilation, threads)
    return phases if spec.height >= 2 * phases else 1


def prefetch_pixels(isa: Isa) -> int:
    """How far ahead the rule asks for the input, where it does."""
    return PREFETCH_BYTES // (4 * isa.lanes)


def _chunk(blocks: int, isa: Isa, ring_block: int) -> int:
    """Hidden blocks per chunk: equal parts of 3 to 6, the most whose ring stays in L1."""
    divisors = [n for n in (6, 5, 4, 3) if blocks % n == 0]
    if not divisors:
        return -(-blocks // -(-blocks // 6))
    return next((n for n in divisors if n * ring_block <= isa.l1_bytes), divisors[-1])


def pack(
    spec: InvertedResidualSpec,
    isa: Isa,
    *,
    expand: tuple[Array, Array] | None,
    depthwise: tuple[Array, Array],
    project: tuple[Array, Array],
) -> list[Array]:
    """Constants in call order from (weight, bias) pairs in torch's shapes."""
    packed = []
    if spec.expand:
        assert expand is not None
        packed += [pack_pointwise(isa, expand[0]), pack_vector(isa, expand[1])]
    packed += [pack_depthwise(isa, depthwise[0]), pack_vector(isa, depthwise[1])]
    return [*packed, pack_pointwise(isa, project[0]), pack_vector(isa, project[1])]


def emit(spec: InvertedResidualSpec, schedule: InvertedResidualSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, expand weight, bias], depthwise weight, bias, project weight, bias, y)."""
    return ir.prim_func("inverted_residual", lambda f: Emitter(spec, schedule, isa, f).body)
