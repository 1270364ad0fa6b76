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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_depthwise, pack_pointwise, pack_vector
from deploy.cpu.rows.block import Block
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import Code, Codes, Ending, code_at, codes_of
from deploy.cpu.rows.copy import CopiedRows
from deploy.cpu.rows.cuts import Chunk, row_range
from deploy.cpu.rows.depthwise import DepthwiseRows
from deploy.cpu.rows.depthwise_bytes import DepthwiseBytes, pack_depthwise_bytes
from deploy.cpu.rows.expand import Expand
from deploy.cpu.rows.maps import Map, output_map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.project import SUM_BYTES, Project
from deploy.cpu.rows.ring import Band
from deploy.cpu.rows.stage import Source
from deploy.cpu.scales import codes, pack_product, reading, unit_of, writing
from deploy.cpu.tiles import best_depthwise_px
from deploy.cpu.window import window_of
from deploy.grid import Scales
from lut.ops import InvertedResidual

Mode = Literal["rows", "hid"]

PREFETCH_BYTES = 2048  # ahead
RING_BYTES = 256 << 10  # a quarter to a half of L2
STREAM_RING_BYTES = 512 << 10  # where narrower strips would break up the stream from memory


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


def default_schedule(op: InvertedResidual, isa: Isa, threads: int = 2) -> InvertedResidualSchedule:
    """The rule: ``rows`` while the recomputed halo is under 7% of the rows, else ``hid``."""
    phases = _phases(op, isa, threads)
    halo = (max(1, threads // phases) - 1) * 2 * window_of(op).pad / op.height if op.expand else 0.0
    rows = halo < 0.07 or isa.blocks(op.hidden) < threads
    if rows:
        return _schedule(op, isa, threads, "rows", phases)
    return _schedule(op, isa, threads, "hid", 1)


def alternatives(op: InvertedResidual, isa: Isa, threads: int) -> list[InvertedResidualSchedule]:
    """The best by rule of each way to share the work among the threads, the rule's own too: ranges
    of rows, classes of rows, chunks of hidden channels."""
    if not op.expand:
        return []
    ways: set[tuple[Mode, int]] = {("rows", 1), ("rows", _even_phases(op, threads)), ("hid", 1)}
    return [_schedule(op, isa, threads, mode, phases) for mode, phases in sorted(ways)]


def _schedule(
    op: InvertedResidual, isa: Isa, threads: int, mode: Mode, phases: int
) -> InvertedResidualSchedule:
    hidden, window = isa.blocks(op.hidden), window_of(op)
    out_width = window.out_width
    ranges = max(1, threads // phases)
    reach = (op.kernel - 1) * op.dilation // phases + 1
    size, narrow = isa.element.bytes, isa.element.bytes < SUM_BYTES
    # Of one channel block; the ring of bfloat16 is of floats.
    row_bytes = (
        isa.lanes * (size if isa.element.integer else 4) * (op.width + 2 * window.pad)
    )  # of one channel block
    ring_block = min(reach, -(-op.height // phases)) * row_bytes
    # Each chunk reads the input and the output again: where they do not stay in L2, all the hidden
    # channels of one row are made at once, in strips as wide as the image if possible.
    in_bytes = size * isa.lanes * isa.blocks(op.cin) * op.height * op.width
    out_bytes = size * isa.lanes * isa.blocks(op.cout) * window.out_height * out_width
    streams = (in_bytes + out_bytes) // threads > isa.l2_bytes // 2
    if not op.expand:
        chunk = hidden
    elif mode == "hid":
        share = hidden // threads if hidden % threads == 0 else hidden
        chunk = next(n for n in (_chunk(share, isa, ring_block), 5, 4, 3, 2, 1) if share % n == 0)
    elif narrow:
        # An output of narrow elements holds no sums of some of the channels.
        chunk = hidden
    elif streams:
        chunk = _fewest_bytes(op, isa, ring_block, in_bytes + 2 * out_bytes)
    elif phases > 1:
        # The fewest passes: each adds to the output, next to rows that another thread adds to.
        most = max(1, STREAM_RING_BYTES // ring_block)
        chunk = next(n for n in range(min(most, hidden), 0, -1) if hidden % n == 0)
    else:
        chunk = _chunk(hidden, isa, ring_block)
    strip = out_width
    if op.expand:
        wide = mode == "rows" and (streams or narrow or phases > 1)
        budget = STREAM_RING_BYTES if wide else RING_BYTES
        strip = -(-out_width // -(-ring_block * chunk // budget))
    columns = min(op.width, (strip - 1) * op.stride + (op.kernel - 1) * op.dilation + 1)
    pixels = strip if mode == "rows" else window.out_height * out_width
    return InvertedResidualSchedule(
        mode,
        chunk,
        strip,
        min(ranges, window.out_height),
        best_tile(isa, columns, chunk),
        best_depthwise_px(isa, op.kernel, strip),
        best_tile(isa, pixels, isa.blocks(op.cout)),
        # Streaming from L3 or memory: the hardware prefetchers of Zen 5 leave 10-60% on the table.
        prefetch_pixels(isa) if streams else 0,
        phases,
    )


def _phases(op: InvertedResidual, isa: Isa, threads: int) -> int:
    """`_even_phases` where the weights leave room in L2: every thread reads all of them, in mode
    ``hid`` half of the expansion's."""
    weight_bytes = isa.element.bytes * op.hidden * (op.cin + op.cout)
    return 1 if weight_bytes > isa.l2_bytes // 2 else _even_phases(op, threads)


def _even_phases(op: InvertedResidual, threads: int) -> int:
    """As many classes of rows as share evenly among the threads."""
    if not op.expand or op.stride > 1 or threads == 1:
        return 1
    even = op.dilation % threads == 0
    phases = op.dilation if even else math.gcd(op.dilation, threads)
    return phases if op.height >= 2 * phases else 1


def prefetch_pixels(isa: Isa) -> int:
    """How far ahead the rule asks for the input, where it does."""
    return PREFETCH_BYTES // (isa.element.bytes * isa.lanes)


def _fewest_bytes(op: InvertedResidual, isa: Isa, ring_block: int, pass_bytes: int) -> int:
    """Hidden blocks per chunk where maps, `pass_bytes` of them a chunk, do not stay in L2: all of
    them, unless their weights do not stay there either and, read for every row of every strip, are
    more bytes than the maps."""
    blocks, block_weights = (
        isa.blocks(op.hidden),
        isa.element.bytes * isa.lanes * (op.cin + op.cout),
    )
    ring, weights = blocks * ring_block, blocks * block_weights
    if min(ring, STREAM_RING_BYTES) + weights <= isa.l2_bytes:
        return blocks
    passes = -(-(ring + weights) // (isa.l2_bytes // 2))
    rows = window_of(op).out_height * -(-ring // STREAM_RING_BYTES)
    return -(-blocks // passes) if passes * pass_bytes < rows * weights else blocks


def _chunk(blocks: int, isa: Isa, ring_block: int) -> int:
    """Hidden blocks per chunk: equal parts of 3 to 6, the most whose ring stays in L1."""
    divisors = [n for n in (6, 5, 4, 3) if blocks % n == 0]
    if not divisors:
        return -(-blocks // -(-blocks // 6))
    return next((n for n in divisors if n * ring_block <= isa.l1_bytes), divisors[-1])


def pack(
    op: InvertedResidual,
    isa: Isa,
    *,
    expand: tuple[Array, Array] | None,
    depthwise: tuple[Array, Array],
    project: tuple[Array, Array],
    scales: Scales | None = None,
) -> list[NDArray[Any]]:
    """Constants in call order from (weight, bias) pairs in torch's shapes.

    In int8 `scales` are of the input, [the expanded map,] the depthwise window's result and the
    output; before the constants stand the codes of the ring's map, of the other hidden one, of y
    and of what is added.
    """
    if scales is not None:
        return _pack_bytes(op, isa, expand, depthwise, project, scales)
    packed = []
    if op.expand:
        assert expand is not None
        packed += [pack_pointwise(isa, expand[0]), pack_vector(isa, expand[1])]
    packed += [pack_depthwise(isa, depthwise[0]), pack_vector(isa, depthwise[1])]
    return [*packed, pack_pointwise(isa, project[0]), pack_vector(isa, project[1])]


def _pack_bytes(
    op: InvertedResidual, isa: Isa, expand: tuple[Array, Array] | None,
    depthwise: tuple[Array, Array], project: tuple[Array, Array], scales: Scales,
) -> list[NDArray[Any]]:  # fmt: skip
    x, mid = scales.inputs[0], scales.hidden[-1]
    y = unit_of("none", scales.output, op.wide)
    ring = scales.hidden[0] if op.expand else x
    residual = [reading(x, y)] if op.residual else []
    packed: list[NDArray[Any]] = [codes(writing(ring), writing(mid), writing(y), *residual)]
    if expand is not None:
        unit = unit_of(op.act, ring)
        packed += pack_product(isa, *expand, x, scales.weights[0], unit)
    unit = unit_of(op.act, mid)
    return [
        *packed,
        *pack_depthwise_bytes(isa, *depthwise, ring, scales.weights[-2], unit),
        *pack_product(isa, *project, mid, scales.weights[-1], y),
    ]


@dataclass(frozen=True)
class Tail:
    """The stages behind the rows of the ring, and the code of these."""

    depthwise: DepthwiseRows | DepthwiseBytes
    project: Project
    ring: Code | None


def tail_of(
    op: InvertedResidual, isa: Isa, f: ir.PrimFuncBuilder, px: int, tile: Tile, coded: Codes | None
) -> Tail:
    """Depthwise and projection; their parameters are declared."""
    depthwise: DepthwiseRows | DepthwiseBytes
    if coded is None:
        depthwise = DepthwiseRows(isa, f, op.depthwise, px, "depthwise_")
    else:
        ending = Ending(isa, op.act, coded[1])
        depthwise = DepthwiseBytes(isa, f, op.depthwise, px, ending, "depthwise_")
    product = Product(isa, f, op.hidden, op.cout, "project_")
    code = None if op.wide else code_at(coded, 2)
    project = Project(product, tile, Ending(isa, "none", code))
    return Tail(depthwise, project, code_at(coded, 0))


def coded_of(
    op: InvertedResidual, isa: Isa, f: ir.PrimFuncBuilder, x: Map | None = None
) -> Codes | None:
    """The codes of a block in bytes; x is what it may add."""
    coded = codes_of(isa, f, 4 if op.residual else 3)
    if coded is not None and op.residual and x is not None:
        x.reads = coded[3]
    return coded


def block_of(
    op: InvertedResidual,
    schedule: InvertedResidualSchedule,
    band: Band,
    isa: Isa,
    f: ir.PrimFuncBuilder,
    source: Source,
) -> Block:
    """The stages behind a source, without what takes the rows; `band` is what the strips see."""
    coded = coded_of(op, isa, f, source if isinstance(source, Map) else None)
    product = Product(isa, f, op.cin, op.hidden, "expand_")
    ending = Ending(isa, op.act, code_at(coded, 0))
    expand = Expand(source, product, ending, schedule.expand_tile, schedule.prefetch)
    tail = tail_of(op, isa, f, schedule.depthwise_px, schedule.project_tile, coded)
    return Block(
        isa, band, expand, tail.depthwise, tail.project, op.hidden, schedule.chunk, tail.ring
    )


def emit(op: InvertedResidual, schedule: InvertedResidualSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, constants, y)."""
    band = _band(op, schedule, isa)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        if not op.expand:
            return _direct(op, schedule, isa, f, x)
        block = block_of(op, schedule, band, isa, f, x)
        y = output_map(isa, f, op)
        run = block.in_ranges if schedule.mode == "rows" else block.in_chunks
        return lambda: run(schedule.tasks, y, x if op.residual else None)

    return ir.prim_func("inverted_residual", signature)


def _band(op: InvertedResidual, schedule: InvertedResidualSchedule, isa: Isa) -> Band:
    """What the strips see; ValueError for a schedule that does not fit: the tuner tries such."""
    if schedule.mode == "hid" and isa.blocks(op.hidden) % schedule.chunk:
        raise ValueError(f"mode hid: chunks of {schedule.chunk} do not divide the blocks")
    hidden, narrow = isa.blocks(op.hidden), isa.element.bytes < SUM_BYTES
    if schedule.mode == "rows" and op.expand and narrow and schedule.chunk < hidden:
        raise ValueError(f"mode rows: {isa.element.name} adds up all {hidden} blocks at once")
    phases = schedule.phases if schedule.mode == "rows" else 1
    band = Band(window_of(op), schedule.strip, phases)
    if op.dilation % phases or (phases > 1 and op.stride > 1):
        raise ValueError(f"{phases} phases of rows do not fit {op}")
    if phases > 1 and not op.expand:
        raise ValueError(f"{phases} phases of rows, but {op} has no expansion")
    return band


def _direct(
    op: InvertedResidual,
    schedule: InvertedResidualSchedule,
    isa: Isa,
    f: ir.PrimFuncBuilder,
    x: Map,
) -> Callable[[], None]:
    """Without an expansion: depthwise straight from the input, of bytes from a copy of its rows.
    Chunks and strips mean nothing."""
    window, blocks = window_of(op), isa.blocks(op.hidden)
    coded = coded_of(op, isa, f, x)
    tail = tail_of(op, isa, f, schedule.depthwise_px, schedule.project_tile, coded)
    y = output_map(isa, f, op)
    every = Chunk(0, op.hidden, blocks)
    residual, depthwise, project = x if op.residual else None, tail.depthwise, tail.project
    if isinstance(depthwise, DepthwiseBytes):
        band = Band(window, window.out_width)
        block = Block(
            isa, band, CopiedRows(x, op.dilation), depthwise, project, op.hidden, blocks, tail.ring
        )
        return lambda: block.in_ranges(schedule.tasks, y, residual)

    def body() -> None:
        with ir.parallel(0, schedule.tasks) as task:
            hidden = RowBuffer(isa, blocks, window.out_width)
            with ir.loop(*row_range(task, schedule.tasks, window.out_height)) as row:
                newest = ir.bind((row + 1) * op.stride + (op.kernel - 1) * op.dilation - window.pad)
                prefetch = newest if schedule.prefetch else None
                with ir.serial(0, blocks) as block:
                    depthwise.map_row(x, block, row, hidden.store, prefetch)
                project.row(hidden, every, row, 0, y, residual)

    return body
