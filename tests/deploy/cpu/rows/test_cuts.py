"""What the loops cover, counted by functions that are run."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy import ir
from deploy.cpu.isa import AVX2
from deploy.cpu.rows.cuts import Span, over_chunks, over_strips, row_range
from tests.deploy.cpu.kernels.helpers import run

MARGIN = 64  # so that a count outside would be seen


def counts(size, begin, body):
    """How often body(begin, count) counts each of `size` places; the kernel reads `begin`."""

    def signature(f):
        x, y = f.param("x", (1,), "int32"), f.param("y", (size + 2 * MARGIN,), "int32")

        def emit():
            with ir.serial(0, size + 2 * MARGIN) as i:
                ir.store_scalar(y, 0, i)

            def count(place):
                ir.store_scalar(y, y[place + MARGIN] + 1, place + MARGIN)

            body(ir.bind(x[0]), count)

        return emit

    y = run(ir.prim_func("count", signature), AVX2, [np.array([begin], np.int32)],
            (size + 2 * MARGIN,), "int32")  # fmt: skip
    assert not y[:MARGIN].any()
    assert not y[MARGIN + size :].any()
    return y[MARGIN : MARGIN + size]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 40), begin=st.integers(-9, 30), columns=st.integers(1, 40),
    px=st.integers(1, 12),
)  # fmt: skip
@example(width=10, begin=-4, columns=20, px=10)
def test_a_span_is_covered_and_nothing_outside(width, begin, columns, px):
    inside = range(max(0, begin), min(width, begin + columns))
    if not inside:
        return
    px = min(px, len(inside))

    def body(first, count):
        def tile(left):
            for p in range(px):
                count(left + p)

        Span(width, first, columns, len(inside)).over_tiles(px, tile)

    assert counts(width, begin, body)[inside.start : inside.stop].all()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(width=st.integers(1, 40), data=st.data())
def test_strips_cover_the_row(width, data):
    size = data.draw(st.integers(1, width))

    def body(_, count):
        def strip(left):
            for column in range(size):
                count(left + column)

        over_strips(width, size, strip)

    y = counts(width, 0, body)
    assert y.all()
    assert y.sum() == size * -(-width // size)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(channels=st.integers(1, 100), size=st.integers(1, 5))
def test_chunks_have_every_channel_once(channels, size):
    def body(_, count):
        def chunk(part):
            assert part.blocks == AVX2.blocks(part.channels) <= size
            for channel in range(part.channels):
                count(part.first * AVX2.lanes + channel)

        over_chunks(AVX2, channels, size, chunk)

    assert (counts(channels, 0, body) == 1).all()


@given(rows=st.integers(1, 50), tasks=st.integers(1, 9))
def test_ranges_share_the_rows(rows, tasks):
    ranges = [row_range(task, tasks, rows) for task in range(tasks)]
    assert [row for first, last in ranges for row in range(first, last)] == list(range(rows))
