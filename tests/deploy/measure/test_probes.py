import numpy as np
import pytest

from deploy.cpu.elements import from_bfloat16
from deploy.cpu.isa import AVX512, NEON
from deploy.cpu.pipeline import isa_of
from deploy.cpu.probe import FmaProbeSpec, emit_dot
from deploy.cpu.targets import low_precisions
from deploy.measure.probes import load_here, probe_ceilings
from tests.conditions import BFLOAT16, KERNELS


def test_probes_of_this_machine(cpu):
    KERNELS.require()
    isa, dtypes = isa_of(cpu), low_precisions(cpu)
    ceilings = probe_ceilings(load_here(cpu, 1), isa, 1, repeat=2, dtypes=dtypes)
    # In the units that are said: no core reaches the upper bounds.
    assert 0 < ceilings.fma_gflops < 2000
    assert all(0 < rate < 20000 for _, rate in ceilings.reads)
    assert set(ceilings.dot_gflops) == set(dtypes)
    assert all(0 < rate < 4000 for rate in ceilings.dot_gflops.values())


def test_a_probe_counts_what_it_multiplies(cpu):
    """Each step of each chain adds two products to each lane."""
    BFLOAT16.require()
    isa = isa_of(cpu).storing("bfloat16")
    spec = FmaProbeSpec(tasks=1, steps=3)
    kernels = load_here(cpu, 1)({"dot": emit_dot(spec, isa)})
    pairs = np.array([[0x3F80, 0x4000], [0x4040, 0x3F00]], np.uint16)  # (1, 2) and (3, 0.5)
    assert from_bfloat16(pairs).tolist() == [[1, 2], [3, 0.5]]
    out = np.zeros((1, isa.lanes), np.float32)
    out = kernels.run("dot", [pairs.view(np.int32).ravel()], out)
    chains = isa.registers - 4
    started = sum(range(chains))  # each chain begins at its number
    np.testing.assert_array_equal(out, started + chains * spec.steps * (1 * 3 + 2 * 0.5))
    assert spec.macs(isa) == chains * spec.steps * isa.lanes * 2


@pytest.mark.parametrize("isa", [AVX512, NEON])
def test_low_precision_counts_as_often_as_it_multiplies(isa):
    spec = FmaProbeSpec(tasks=2)
    assert spec.macs(isa.storing("bfloat16")) == 2 * spec.macs(isa)
