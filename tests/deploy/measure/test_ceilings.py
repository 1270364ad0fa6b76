from deploy.cpu.pipeline import isa_of
from deploy.measure.ceilings import Ceilings, FmaProbe, load_here, probe_ceilings
from tests.conditions import KERNELS


def test_rate_of_a_working_set_is_that_of_the_level_that_holds_it():
    ceilings = Ceilings(2, 100.0, ((16 << 10, 400.0), (256 << 10, 200.0), (1 << 30, 20.0)))
    assert ceilings.read_gbytes_per_s(1000) == 400
    assert ceilings.read_gbytes_per_s(32 << 10) == 400  # both threads' share
    assert ceilings.read_gbytes_per_s((32 << 10) + 1) == 200
    assert ceilings.read_gbytes_per_s(1 << 40) == 20


def test_probes_of_this_machine(cpu):
    KERNELS.require()
    isa = isa_of(cpu)
    ceilings = probe_ceilings(load_here(cpu), isa, 1, repeat=2)
    # In the units that are said: no core reaches the upper bounds.
    assert 0 < ceilings.fma_gflops < 2000
    assert all(0 < rate < 20000 for _, rate in ceilings.reads)
    assert 0 < FmaProbe(cpu, isa, 1).gflops(2) < 2000
