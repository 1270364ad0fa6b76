import numpy as np

from deploy.cpu.pipeline import isa_of
from deploy.cpu.probe import ReadProbeSpec, emit_ones, emit_read
from deploy.measure.probes import load_here
from tests.conditions import KERNELS


def test_kernels_fill_run_and_are_timed(cpu):
    KERNELS.require()
    isa = isa_of(cpu)
    spec = ReadProbeSpec(tasks=2, floats=1024, rounds=3)
    kernels = load_here(cpu, 1)({"ones": emit_ones(spec, isa), "read": emit_read(spec, isa)})
    x = kernels.made_by("ones", (2, 1024))
    np.testing.assert_array_equal(x.numpy(), np.ones((2, 1024)))
    out = np.full((2, isa.lanes), -1, np.float32)
    read = kernels.run("read", [2 * x.numpy()], out)
    np.testing.assert_array_equal(read.sum(axis=1), [2 * 1024 * 3] * 2)
    assert (out == -1).all()
    assert len(kernels.time("read", [x, out], 4)) == 4
