from deploy.cpu.pipeline import isa_of
from deploy.measure.probes import load_here, probe_ceilings
from tests.conditions import KERNELS


def test_probes_of_this_machine(cpu):
    KERNELS.require()
    isa = isa_of(cpu)
    ceilings = probe_ceilings(load_here(cpu, 1), isa, 1, repeat=2)
    # In the units that are said: no core reaches the upper bounds.
    assert 0 < ceilings.fma_gflops < 2000
    assert all(0 < rate < 20000 for _, rate in ceilings.reads)
