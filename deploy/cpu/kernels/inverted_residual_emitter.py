"""The code of the inverted residual: its loops, step by step. inverted_residual.py says why."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.kernels.depthwise_tile import accumulate_row, image_row, row_bounds, window_of
from deploy.cpu.layout import activation_shape
from deploy.cpu.tiles import matmul_tile
from lut.ops import InvertedResidual

if TYPE_CHECKING:
    from deploy.cpu.kernels.inverted_residual import InvertedResidualSchedule

LINE_BYTES = 64


class Emitter:
    """The parts of the kernel, over the parameters that they share."""

    def __init__(
        self,
        op: InvertedResidual,
        schedule: "InvertedResidualSchedule",
        isa: Isa,
        f: ir.PrimFuncBuilder,
    ) -> None:
        if schedule.mode == "hid" and isa.blocks(op.hidden) % schedule.chunk:
            raise ValueError(f"mode hid: chunks of {schedule.chunk} do not divide the blocks")
        # A strip wider than the row would write past the buffers of one strip.
        self.window = window_of(op)
        if not 1 <= schedule.strip <= self.window.out_width:
            raise ValueError(
                f"strips of {schedule.strip} columns in rows of {self.window.out_width}"
            )
        self.op, self.schedule, self.isa, self.c = op, schedule, isa, isa.lanes
        c = isa.lanes
        self.pixels_per_line = max(1, LINE_BYTES // (4 * c))
        self.hidden_blocks, self.out_blocks = isa.blocks(op.hidden), isa.blocks(op.cout)
        self.out_shape = activation_shape(
            isa, op.cout, self.window.out_height, self.window.out_width
        )
        # Rows are counted within a phase: y is row y * phases + phase of the image.
        self.phases, self.phase = schedule.phases if schedule.mode == "rows" else 1, 0
        if op.dilation % self.phases or (self.phases > 1 and op.stride > 1):
            raise ValueError(f"{self.phases} phases of rows do not fit {op}")
        if self.phases > 1 and not op.expand:
            raise ValueError(f"{self.phases} phases of rows, but {op} has no expansion")
        self.row_dilation = op.dilation // self.phases
        # The ring: rows that one output row sees, and the columns that one strip sees. Rows outside
        # the image are never stored: the loop over the kernel's rows leaves them out.
        self.ring_rows = min((op.kernel - 1) * self.row_dilation + 1, -(-op.height // self.phases))
        self.ring_width = (schedule.strip - 1) * op.stride + (op.kernel - 1) * op.dilation + 1
        self._source_parameters(f)
        self.wd = f.param("depthwise_weight", (self.hidden_blocks, op.kernel**2, c))
        self.bd = f.param("depthwise_bias", (self.hidden_blocks, c))
        self.wp = f.param("project_weight", (self.out_blocks, op.hidden, c))
        self.bp = f.param("project_bias", (self.out_blocks, c))
        self._output_parameter(f)

    def _output_parameter(self, f: ir.PrimFuncBuilder) -> None:
        self.y = f.param("y", self.out_shape)

    def _source_parameters(self, f: ir.PrimFuncBuilder) -> None:
        """What the hidden rows are made from."""
        op, isa = self.op, self.isa
        self.x = f.param("x", activation_shape(isa, op.cin, op.height, op.width))
        self._expand_parameters(f)

    def _expand_parameters(self, f: ir.PrimFuncBuilder) -> None:
        op, isa = self.op, self.isa
        if op.expand:
            self.we = f.param("expand_weight", (self.hidden_blocks, op.cin, isa.lanes))
            self.be = f.param("expand_bias", (self.hidden_blocks, isa.lanes))

    def body(self) -> None:
        """The whole kernel."""
        if not self.op.expand:
            self._direct()
        elif self.schedule.mode == "rows":
            self._rows()
        else:
            self._hid()

    def _direct(self) -> None:
        """Without an expansion: depthwise straight from the input, no ring and no halo."""
        op, schedule, c = self.op, self.schedule, self.c
        width = self.window.out_width
        with ir.parallel(0, schedule.tasks) as task:
            row = ir.scratch(self.hidden_blocks * width * c)
            first = task * self.window.out_height // schedule.tasks
            last = (task + 1) * self.window.out_height // schedule.tasks
            with ir.loop(first, last) as y:
                newest = ir.bind(
                    (y + 1) * op.stride + (op.kernel - 1) * op.dilation - self.window.pad
                )
                with ir.serial(0, self.hidden_blocks) as block:

                    def ahead(begin: ir.Expr, px: int) -> None:
                        for column in range(0, px * op.stride, self.pixels_per_line):
                            at = begin * op.stride + column
                            ir.prefetch(self.x, 0, block, newest, at, 0)

                    image_row(
                        self.isa,
                        self.window,
                        schedule.depthwise_px,
                        y,
                        x=lambda r, j: ir.load(self.x, 0, block, r, j, 0, lanes=c),
                        w=lambda ky, kx: ir.load(self.wd, block, ky * op.kernel + kx, 0, lanes=c),
                        bias=lambda: ir.load(self.bd, block, 0, lanes=c),
                        keep=lambda j, v: ir.store(
                            row, ir.activate(v, op.act, c), (block * width + j) * c, lanes=c
                        ),
                        ahead=ahead if schedule.prefetch else None,
                    )
                self._project_row(row, 0, op.hidden, y, 0)

    def _rows(self) -> None:
        schedule = self.schedule
        with ir.parallel(0, self.phases * schedule.tasks) as index:
            self.phase = ir.bind(index // schedule.tasks) if self.phases > 1 else 0
            task = ir.bind(index % schedule.tasks) if self.phases > 1 else index
            rows = self._rows_of_phase(self.window.out_height)
            top = ir.bind(task * rows // schedule.tasks)
            bottom = ir.bind((task + 1) * rows // schedule.tasks)
            ring, row = self._ring(), ir.scratch(schedule.chunk * schedule.strip * self.c)

            def strip(left: ir.Expr) -> None:
                self._clear(ring, left)

                def chunk(start: ir.Expr, channels: int) -> None:
                    blocks = self.isa.blocks(channels)

                    def output_row(y: ir.Expr) -> None:
                        def keep(block: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
                            index = (block * schedule.strip + column) * self.c
                            ir.store(row, value, index, lanes=self.c)

                        self._depthwise_row(ring, start, blocks, y, keep)
                        self._project_row(row, start, channels, y, left)

                    self._sweep(ring, start, blocks, top, bottom, left, output_row)

                self._chunks(chunk)

            self._strips(strip)

    def _rows_of_phase(self, height: int) -> ir.Expr:
        if height % self.phases == 0:
            return height // self.phases
        return ir.bind((height - self.phase + self.phases - 1) // self.phases)

    def _image_row(self, y: ir.Expr) -> ir.Expr:
        return y * self.phases + self.phase

    def _chunks(self, chunk: Callable[[ir.Expr, int], None]) -> None:
        """chunk(first block, real channels) over the hidden channels, a shorter one last."""
        size = self.schedule.chunk
        full, tail = divmod(self.op.hidden, size * self.c)
        if full > 1:
            with ir.serial(0, full) as i:
                chunk(ir.bind(i * size), size * self.c)
        elif full:
            chunk(0, size * self.c)
        if tail:
            chunk(full * size, tail)

    def _hid(self) -> None:
        schedule, c = self.schedule, self.c
        pixels = self.window.out_height * self.window.out_width
        hidden = ir.scratch(self.hidden_blocks * pixels * c)
        with ir.parallel(0, self.hidden_blocks // schedule.chunk) as index:
            start = ir.bind(index * schedule.chunk)
            ring = self._ring()

            def strip(left: ir.Expr) -> None:
                self._clear(ring, left)

                def output_row(y: ir.Expr) -> None:
                    def keep(block: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
                        pixel = (start + block) * pixels + y * self.window.out_width + left + column
                        ir.store(hidden, value, pixel * c, lanes=c)

                    self._depthwise_row(ring, start, schedule.chunk, y, keep)

                self._sweep(
                    ring, start, schedule.chunk, 0, self.window.out_height, left, output_row
                )

            self._strips(strip)
        self._project_all(hidden)

    def _ring(self) -> ir.Buffer:
        return ir.scratch(self.ring_rows * self.schedule.chunk * self.ring_width * self.c)

    def _clear(self, ring: ir.Buffer, left: ir.Expr) -> None:
        """Zeros in the ring's columns that lie outside the image."""
        width, c = self.ring_width, self.c
        origin = left * self.op.stride - self.window.pad
        before = ir.bind(ir.maximum(0, -origin))
        behind = ir.bind(ir.minimum(width, self.op.width - origin))

        def clear(row: ir.Expr, column: ir.Expr) -> None:
            ir.store(ring, ir.const(0, c), (row * width + column) * c, lanes=c)

        with ir.serial(0, self.ring_rows * self.schedule.chunk) as row:
            with ir.loop(0, before) as column:
                clear(row, column)
            with ir.loop(behind, width) as column:
                clear(row, column)

    def _strips(self, strip: Callable[[ir.Expr], None]) -> None:
        """Columns one strip after the other; the last one overlaps and does its columns anew."""
        width, size = self.window.out_width, self.schedule.strip
        if size == width:
            strip(0)
            return
        with ir.serial(0, -(-width // size)) as i:
            strip(ir.bind(ir.minimum(i * size, width - size)))

    def _sweep(
        self,
        ring: ir.Buffer,
        start: ir.Expr,
        blocks: int,
        top: ir.Expr,
        bottom: ir.Expr,
        left: ir.Expr,
        output_row: Callable[[ir.Expr], None],
    ) -> None:
        """Bring input rows into the ring one by one; after the last that an output row needs,
        that row is computed."""

        def fill(source: ir.Expr) -> None:
            self._fill_row(ring, start, blocks, source, ir.bind(source % self.ring_rows), left)

        first = self._lead(top, left, fill)
        with ir.loop(top, bottom) as y:
            self._advance(first, y, fill)
            output_row(y)

    # Row `y` needs the rows up to y*stride - pad + reach - 1; what lies outside is not made.
    @property
    def _reach(self) -> int:
        k = self.op.kernel
        return (k - 1) * self.row_dilation - self.row_dilation * (k // 2)

    def _lead(self, top: ir.Expr, left: ir.Expr, fill: Callable[[ir.Expr], None]) -> ir.Expr:
        """Fill the rows before those that output row `top` adds; returns the first of them."""
        op = self.op
        height, pad = self._rows_of_phase(op.height), self.row_dilation * (op.kernel // 2)
        first = ir.bind(ir.maximum(0, top * op.stride - pad))
        self._start(first, left)
        last = ir.bind(ir.minimum(height, top * op.stride + self._reach - op.stride + 1))
        with ir.loop(first, last) as source:
            fill(source)
        return first

    def _advance(self, first: ir.Expr, y: ir.Expr, fill: Callable[[ir.Expr], None]) -> None:
        """Fill the rows that output row y needs and the row before it did not."""
        stride, height = self.op.stride, self._rows_of_phase(self.op.height)
        begin = ir.bind(ir.maximum(first, y * stride + self._reach - stride + 1))
        with ir.loop(begin, ir.minimum(height, y * stride + self._reach + 1)) as source:
            fill(source)

    def _start(self, first: ir.Expr, left: ir.Expr) -> None:
        """Before the first row of a sweep, row `first`, is filled."""

    def _input(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """One float of the expansion's input."""
        return self.x[0, block, row, column, lane]

    def _keep(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
        """Store a vector of the output."""
        ir.store(self.y, value, 0, block, row, column, 0, lanes=self.c)

    def _at(self, slot: ir.Expr, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """Index in the ring."""
        return ((slot * self.schedule.chunk + block) * self.ring_width + column) * self.c

    def _fill_row(
        self,
        ring: ir.Buffer,
        start: ir.Expr,
        blocks: int,
        source: ir.Expr,
        slot: ir.Expr,
        left: ir.Expr,
    ) -> None:
        """Expand input row `source` into the ring at `slot`."""
        op, c = self.op, self.c
        row = ir.bind(self._image_row(source))
        origin = left * op.stride - self.window.pad  # the image column of ring column 0
        if self.schedule.strip == self.window.out_width:
            begin_at, columns = 0, min(op.width, self.ring_width - self.window.pad)
        else:
            begin_at, columns = origin, self.ring_width
        px = min(self.schedule.expand_tile.px, op.width, self.ring_width - self.window.pad)

        def starts(body: Callable[[ir.Expr], None]) -> None:
            # Tiles overlap at the image's and the ring's end instead of being shorter.
            with ir.serial(0, -(-columns // px)) as t:
                most = ir.minimum(begin_at + columns, op.width) - px
                body(ir.bind(ir.maximum(ir.minimum(begin_at + t * px, most), 0)))

        def group(first: ir.Expr, ob: int) -> None:
            def tile(begin: ir.Expr) -> None:
                if self.schedule.prefetch and isinstance(first, int) and first == 0:
                    self._prefetch(row, begin + self.schedule.prefetch, px)
                matmul_tile(
                    self.isa,
                    px,
                    ob,
                    op.cin,
                    x=lambda p, block, lane: self._input(block, row, begin + p, lane),
                    w=lambda o, block, lane: ir.load(
                        self.we, start + first + o, block * c + lane, 0, lanes=c
                    ),
                    init=lambda p, o: ir.load(self.be, start + first + o, 0, lanes=c),
                    finish=lambda p, o, v: ir.store(
                        ring,
                        ir.activate(v, op.act, c),
                        self._at(slot, first + o, begin + p - origin),
                        lanes=c,
                    ),
                )

            starts(tile)

        ir.over_tiles(blocks, self.schedule.expand_tile.ob, group)

    def _prefetch(self, row: ir.Expr, column: ir.Expr, px: int) -> None:
        """px pixels of every input block; behind the row's end this is the next row."""
        with ir.serial(0, self.isa.blocks(self.op.cin)) as block:
            for p in range(0, px, self.pixels_per_line):
                ir.prefetch(self.x, 0, block, row, column + p, 0)

    def _depthwise_row(
        self,
        ring: ir.Buffer,
        start: ir.Expr,
        blocks: int,
        y: ir.Expr,
        keep: Callable[[ir.Expr, ir.Expr, ir.Expr], None],
    ) -> None:
        """Output row y of the depthwise step: keep(block in chunk, column in strip, vector)."""
        op, c, k = self.op, self.c, self.op.kernel
        dilation = self.row_dilation
        top = ir.bind(y * op.stride - dilation * (k // 2))
        low, high = row_bounds(k, dilation, self._rows_of_phase(op.height), top)
        with ir.serial(0, blocks) as block:

            def tile(begin: ir.Expr, px: int) -> None:
                acc = ir.Registers(px, c)
                for p in range(px):
                    acc[p] = ir.load(self.bd, start + block, 0, lanes=c)

                with ir.loop(low, high) as ky:
                    slot = ir.bind((top + ky * dilation) % self.ring_rows)
                    accumulate_row(
                        acc,
                        px,
                        k,
                        op.stride,
                        op.dilation,
                        x=lambda j: ir.load(
                            ring, self._at(slot, block, begin * op.stride + j), lanes=c
                        ),
                        w=lambda kx: ir.load(self.wd, start + block, ky * k + kx, 0, lanes=c),
                    )
                for p in range(px):
                    keep(block, begin + p, ir.activate(acc[p], op.act, c))

            ir.over_tiles(self.schedule.strip, self.schedule.depthwise_px, tile)

    def _project_row(
        self, row: ir.Buffer, start: ir.Expr, channels: int, y: ir.Expr, left: ir.Expr
    ) -> None:
        """Add this chunk's part of output row y; the first chunk starts it from the bias."""
        op, c, strip = self.op, self.c, self.schedule.strip
        row_at = ir.bind(self._image_row(y))

        def group(first: ir.Expr, ob: int) -> None:
            def tile(begin: ir.Expr, px: int) -> None:
                acc = ir.Registers(px * ob, c)

                def each(value: Callable[[int, int], ir.Expr]) -> None:
                    for p in range(px):
                        for o in range(ob):
                            acc[p * ob + o] = value(p, o)

                def fresh(p: int, o: int) -> ir.Expr:
                    value = ir.load(self.bp, first + o, 0, lanes=c)
                    if op.residual:
                        value = value + ir.load(
                            self.x, 0, first + o, row_at, left + begin + p, 0, lanes=c
                        )
                    return value

                def so_far(p: int, o: int) -> ir.Expr:
                    return ir.load(self.y, 0, first + o, row_at, left + begin + p, 0, lanes=c)

                if isinstance(start, int):
                    each(so_far if start else fresh)
                else:
                    with ir.when(start == 0):
                        with ir.then():
                            each(fresh)
                        with ir.otherwise():
                            each(so_far)
                matmul_tile(
                    self.isa,
                    px,
                    ob,
                    channels,
                    x=lambda p, block, lane: row[(block * strip + begin + p) * c + lane],
                    w=lambda o, block, lane: ir.load(
                        self.wp, first + o, (start + block) * c + lane, 0, lanes=c
                    ),
                    init=None,
                    finish=lambda p, o, v: self._keep(first + o, row_at, left + begin + p, v),
                    registers=acc,
                )

            ir.over_tiles(strip, min(self.schedule.project_tile.px, strip), tile)

        ir.over_tiles(self.out_blocks, self.schedule.project_tile.ob, group)

    def _project_all(self, hidden: ir.Buffer) -> None:
        """The pointwise loop of mode ``hid``."""
        op, c, tasks = self.op, self.c, self.schedule.tasks
        pixels = self.window.out_height * self.window.out_width
        flat = (self.out_blocks, pixels, c)
        y = ir.view(self.y, flat)
        x = ir.view(self.x, flat) if op.residual else None
        px = min(self.schedule.project_tile.px, pixels)
        tiles = -(-pixels // px)
        per_task = -(-tiles // tasks)
        with ir.parallel(0, tasks) as task:

            def group(first: ir.Expr, ob: int) -> None:
                with ir.serial(0, per_task) as t:
                    begin = ir.bind(ir.minimum((task * per_task + t) * px, pixels - px))

                    def init(p: int, o: int) -> ir.Expr:
                        value = ir.load(self.bp, first + o, 0, lanes=c)
                        if x is not None:
                            value = value + ir.load(x, first + o, begin + p, 0, lanes=c)
                        return value

                    matmul_tile(
                        self.isa,
                        px,
                        ob,
                        op.hidden,
                        x=lambda p, block, lane: hidden[(block * pixels + begin + p) * c + lane],
                        w=lambda o, block, lane: ir.load(
                            self.wp, first + o, block * c + lane, 0, lanes=c
                        ),
                        init=init,
                        finish=lambda p, o, v: ir.store(y, v, first + o, begin + p, 0, lanes=c),
                    )

            ir.over_tiles(self.out_blocks, self.schedule.project_tile.ob, group)
