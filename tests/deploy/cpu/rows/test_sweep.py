"""In which order rows are made and used: a maker that writes down what it is asked for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import ir
from deploy.cpu.isa import AVX2
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.ring import Band, Phase, Ring
from deploy.cpu.rows.sweep import Sweep
from deploy.cpu.window import Window
from tests.deploy.cpu.kernels.helpers import run

USED = 1000  # plus the number of an output row


class Recorder:
    """Appends the number of each row to a log, of which element 0 counts the others."""

    def __init__(self, log):
        self.log = log

    def start(self, first, span, chunk):
        def make(number, keep):
            self.append(number)
            keep(0, 0, ir.splat(ir.cast(number, "float32"), AVX2.lanes))

        return make

    def append(self, value):
        ir.store_scalar(self.log, self.log[0] + 1, 0)
        ir.store_scalar(self.log, value, self.log[0])


def record(window, phase, top, bottom):
    """What is made and used, in order."""
    size = 1 + 4 * window.height

    def signature(f):
        x, log = f.param("x", (2,), "int32"), f.param("log", (size,), "int32")
        recorder = Recorder(log)

        def body():
            ir.store_scalar(log, 0, 0)
            ring = Ring(AVX2, Band(window, window.out_width, phase.count), 1)
            sweep = Sweep(recorder, ring, phase, Chunk(0, 8, 1), 0, ir.bind(x[0]))
            with ir.loop(x[0], x[1]) as y:
                sweep.advance(y)
                recorder.append(phase.map_row(y) + USED)

        return body

    rows = np.array([top, bottom], np.int32)
    log = run(ir.prim_func("sweep", signature), AVX2, [rows], (size,), "int32")
    return log[1 : 1 + log[0]].tolist()


@settings(max_examples=16, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 30),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 4]),
    phases=st.sampled_from([1, 2, 4]),
    data=st.data(),
)
def test_rows_are_made_once_in_order_before_they_are_used(
    height, kernel, stride, dilation, phases, data
):
    phases = phases if stride == 1 and dilation % phases == 0 and height >= phases else 1
    window = Window(height, 9, kernel, stride, dilation)
    phase = Phase(phases, data.draw(st.integers(0, phases - 1)))
    rows = len(range(phase.index, window.out_height, phases))
    top = data.draw(st.integers(0, rows - 1))
    bottom = data.draw(st.integers(top + 1, rows))
    log = record(window, phase, top, bottom)
    used = [row - USED for row in log if row >= USED]
    assert used == [phase.map_row(y) for y in range(top, bottom)]
    made = [row for row in log if row < USED]
    assert made == sorted(set(made))
    ring = Band(window, 1, phases).rows
    for y in used:
        taps = {y * stride - window.pad + tap * dilation for tap in range(kernel)}
        seen = taps & set(range(height))
        before = [row for row in log[: log.index(y + USED)] if row < USED]
        assert seen <= set(before[-ring:])  # not yet written over
    assert set(made) <= {row for row in range(height) if row % phases == phase.index}
